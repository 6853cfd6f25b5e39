//! Kinds of files by their names: images, files to skip, and known mistakes.

use super::decode::KNOWN;
use super::entry::Entry;
use crate::error::{Error, Result};

const PUT_IMAGES: &str = "put them into train/<class>/ and test/<class>/, into class folders, or all into one folder where there are no labels";

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

/// Extensions of the image formats that are read.
const IMAGES: [&str; 11] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "tif", "tiff", "gif",
];

/// Whether a name has the extension of a supported image format, in upper or lower case.
pub(super) fn is_image(name: &str) -> bool {
    let extension = name
        .rsplit('/')
        .next()
        .and_then(|file| file.rsplit_once('.'));
    extension.is_some_and(|(_, e)| IMAGES.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// Whether a name has the extension of a list of images.
pub(super) fn is_list(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, e)| e.to_lowercase());
    matches!(
        extension.as_deref(),
        Some("csv" | "tsv" | "jsonl" | "ndjson")
    )
}

/// Whether a file's name is one of a whole data set rather than of an image: an archive, a list, arrays.
pub fn names_a_set(name: &str) -> bool {
    const ENDS: [&str; 7] = [
        ".tar", ".tar.gz", ".tgz", ".zip", ".npz", ".parquet", ".bin",
    ];
    let name = name.to_lowercase();
    is_list(&name) || ENDS.iter().any(|end| name.ends_with(end)) || name.contains("-ubyte")
}

/// Hint for a file of a known kind that is not a supported image.
fn hint_for(name: &str) -> Option<&'static str> {
    let file = name.rsplit('/').next().unwrap_or(name).to_lowercase();
    let extension = file.rsplit('.').next().unwrap_or_default();
    Some(match extension {
        _ if file.starts_with("data_batch_") || file == "batches.meta" || file == "meta" => {
            "this is CIFAR's Python version; download the binary version"
        }
        _ if file.contains("-ubyte") => {
            "IDX files are read from a folder, by the names train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte: unpack an archive, rename others"
        }
        "npz" => "of several NumPy archives (.npz) name the one to read",
        "npy" => {
            "put NumPy arrays into one archive: numpy.savez(FILE, train_images=…, train_labels=…)"
        }
        _ if is_list(&file) => "a list of images is read where it is named itself",
        "ppm" | "pgm" | "avif" | "heic" | "heif" | "jp2" | "jxl" | "svg" | "psd" => {
            "convert it to PNG"
        }
        "zip" | "tar" | "gz" | "tgz" => "unpack it, or give the archive itself",
        "parquet" => {
            "Parquet files are read from a folder without other images, or named themselves"
        }
        "arrow" | "tfrecord" => "convert the images to PNG or JPEG files",
        _ => return None,
    })
}

/// Refuses listings without images, duplicate names, and data sets whose labels are in a file of their own.
pub(super) fn require_images(source: &str, entries: &[Entry]) -> Result<()> {
    let (images, others): (Vec<&Entry>, Vec<&Entry>) = entries
        .iter()
        .filter(|entry| !entry.is_folder)
        .partition(|entry| entry.is_image);
    if images.is_empty() {
        let found = match others.first() {
            None => "none".to_owned(),
            Some(file) if others.len() == 1 => format!("{}, which is none", file.name),
            Some(file) => format!(
                "{} and {} other files, none of which is one",
                file.name,
                others.len() - 1
            ),
        };
        let hint = others.iter().find_map(|file| hint_for(&file.name));
        return Err(Error::data(
            source,
            format!("expected images ({KNOWN}), found {found}"),
            hint.unwrap_or(PUT_IMAGES),
        ));
    }
    let annotations = others.iter().map(|file| file.name.as_str());
    let mut annotated = annotations.filter_map(|name| name.strip_suffix("val_annotations.txt"));
    let unsorted = |val: &str| {
        let inside = format!("{val}images/");
        images.iter().any(|image| image.name.starts_with(&inside))
    };
    if annotated.any(|val| val.ends_with("val/") && unsorted(val)) {
        return Err(Error::data(
            source,
            "expected images in val/<class>/, found val/images/ and val_annotations.txt",
            "this is Tiny ImageNet: move the files of val/images/ into val/<class>/, as val_annotations.txt says, or take val/ out",
        ));
    }
    if let Some(pair) = images.windows(2).find(|pair| pair[0].name == pair[1].name) {
        let problem = format!("expected each image once, found {} twice", pair[0].name);
        return Err(Error::data(source, problem, "create the archive again"));
    }
    Ok(())
}
