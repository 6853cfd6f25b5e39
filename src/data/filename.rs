//! Kinds of files by their names: images, files to skip, and known mistakes.

use super::entry::Entry;
use crate::error::{Error, Result};

const PUT_IMAGES: &str = "put them into train/<class>/ and test/<class>/, or all into one folder where there are no labels";
const MOVE_OUT: &str = "move it out of the data set, or give it a name that starts with a dot";

/// Names of files and folders that operating systems leave behind.
const JUNK: [&str; 4] = ["thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"];
/// Names, without extension, of texts that come with data sets.
const JUNK_STEMS: [&str; 4] = ["readme", "license", "licence", "copying"];

/// Whether a file or folder is hidden or is known not to be data, so that it is skipped.
pub(super) fn is_junk(name: &str) -> bool {
    name.split('/')
        .any(|part| part.starts_with('.') || JUNK.contains(&part.to_lowercase().as_str()))
        || {
            let file = name.rsplit('/').next().unwrap_or(name).to_lowercase();
            let stem = file.split('.').next().unwrap_or(&file);
            JUNK_STEMS.contains(&stem) && !is_image(name)
        }
}

/// Whether a name has the extension of a supported image format, in upper or lower case.
pub(super) fn is_image(name: &str) -> bool {
    let extension = name
        .rsplit('/')
        .next()
        .and_then(|file| file.rsplit_once('.'));
    extension.is_some_and(|(_, e)| {
        ["png", "jpg", "jpeg"]
            .iter()
            .any(|known| e.eq_ignore_ascii_case(known))
    })
}

/// Hint for a file of a known kind that is not a supported image.
fn hint_for(name: &str) -> Option<&'static str> {
    let file = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let extension = file.rsplit('.').next().unwrap_or_default();
    Some(match extension {
        _ if file.starts_with("data_batch_") || file == "batches.meta" => {
            "this is CIFAR's Python version; download the binary version"
        }
        _ if file.contains("-ubyte") => "IDX files are read from a folder: unpack the archive",
        "gif" | "bmp" | "webp" | "tif" | "tiff" | "ppm" | "avif" | "heic" => "convert it to PNG",
        "zip" | "tar" | "gz" | "tgz" => "unpack it, or give the archive itself",
        _ => return None,
    })
}

/// Refuses files that are not images, duplicate names, and listings without images.
pub(super) fn check_files(source: &str, entries: &[Entry]) -> Result<()> {
    let (images, others): (Vec<&Entry>, Vec<&Entry>) = entries
        .iter()
        .filter(|entry| !entry.is_folder)
        .partition(|entry| is_image(&entry.name));
    if let Some(file) = others.first() {
        let general = if images.is_empty() {
            PUT_IMAGES
        } else {
            MOVE_OUT
        };
        let problem = format!("expected PNG and JPEG images only, found {}", file.name);
        return Err(Error::data(
            source,
            problem,
            hint_for(&file.name).unwrap_or(general),
        ));
    }
    if images.is_empty() {
        return Err(Error::data(
            source,
            "expected PNG or JPEG images, found none",
            PUT_IMAGES,
        ));
    }
    if let Some(pair) = images.windows(2).find(|pair| pair[0].name == pair[1].name) {
        let problem = format!("expected each image once, found {} twice", pair[0].name);
        return Err(Error::data(source, problem, "create the archive again"));
    }
    Ok(())
}
