//! Image files for prediction.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::decode::decode;
use super::filename::{is_image, is_junk};
use super::images::Images;
use super::own_output::{is_own_picture, is_run_folder};
use crate::error::{Error, Result};

/// Reads PNG and JPEG files of one shape (`[channels, height, width]`). Returns their paths and
/// images.
///
/// A folder stands for the images in it and below, in the order of their names. Hidden files and
/// this program's own output are skipped there.
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
        let (image, pixels) = decode(&name, path, &bytes, None)?;
        let found = [image.channels, image.height, image.width];
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
    let mut inside = Vec::new();
    for entry in fs::read_dir(path).map_err(Error::io("read", path))? {
        inside.push(entry.map_err(Error::io("read", path))?.path());
    }
    inside.sort();
    for path in inside {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let wanted = if path.is_dir() {
            !is_run_folder(&path)
        } else {
            is_image(&name) && !is_own_picture(&path)?
        };
        if wanted && !is_junk(&name) {
            collect(&path, files)?;
        }
    }
    Ok(())
}
