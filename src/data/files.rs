//! Single image files, for prediction.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::archive::Store;
use super::decode::decode;
use super::filename::{is_image, is_junk};
use super::images::Images;
use crate::error::{Error, Result};

/// Levels of folders that are looked into. More than anybody has; it ends loops of links.
const DEPTH: usize = 32;

/// Reads PNG and JPEG files, which must all be of `shape` (`[channels, height, width]`). A folder stands for the
/// images in it and below, in the order of their names; hidden files and this program's own output are passed over. Returns the files read, and their images.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`]; [`Error::Data`] for another shape, or a folder without images.
pub fn read_images(paths: &[PathBuf], shape: [usize; 3]) -> Result<(Vec<PathBuf>, Images)> {
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        collect(path, &mut files)?;
        if files.len() == before {
            let hint = "PNG and JPEG files are read";
            return Err(Error::data(
                path.display().to_string(),
                "no images in this folder",
                hint,
            ));
        }
    }
    let [channels, height, width] = shape;
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        let name = path.display().to_string();
        let (like, pixels) = decode(&name, path, &bytes, None)?;
        let found = [like.channels, like.height, like.width];
        if found != shape {
            let problem = format!(
                "expected {channels} channels, {height} × {width} pixels, as the model was trained on, found {} channels, {} × {}",
                found[0], found[1], found[2]
            );
            return Err(Error::data(
                name,
                problem,
                "convert or resize the image first",
            ));
        }
        Ok(pixels)
    };
    let pixels: Result<Vec<Vec<u8>>> = files.par_iter().map(read).collect();
    let images = Images {
        pixels: pixels?.concat(),
        channels,
        height,
        width,
    };
    Ok((files, images))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let about = fs::metadata(path).map_err(Error::io("read", path))?;
    if !about.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    let mut names: Vec<String> = Store::folder(path, DEPTH)
        .list()?
        .into_iter()
        .filter(|entry| !entry.is_folder && is_image(&entry.name) && !is_junk(&entry.name))
        .map(|entry| entry.name)
        .collect();
    // Part by part, so that the images of a folder stay together.
    names.sort_unstable_by(|a, b| a.split('/').cmp(b.split('/')));
    files.extend(names.iter().map(|name| path.join(name)));
    Ok(())
}
