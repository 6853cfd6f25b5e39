//! Image files for prediction.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::decode::{decode, read_file};
use super::filename::{is_image, is_junk};
use super::images::Images;
use super::own_output::{is_own_picture, is_run_folder};
use crate::error::{Error, Result};
use crate::files;

/// Largest number of folders inside each other.
const DEPTH: usize = 100;
/// Number of images that are decoded at a time.
const CHUNK_LEN: usize = 256;

/// Reads PNG and JPEG files of one shape (`[channels, height, width]`). Returns their paths and
/// images.
///
/// A folder stands for the images in it and below, in the order of their names. Hidden files and
/// this program's own output are skipped there. Links to folders are followed, but no folder is entered
/// twice.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`]; [`Error::Data`] for another shape, a folder without images, folders
/// that are too deep inside each other, and where memory does not suffice.
pub fn read_images(paths: &[PathBuf], shape: [usize; 3]) -> Result<(Vec<PathBuf>, Images)> {
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        collect(path, &mut files, &mut HashSet::new(), DEPTH)?;
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
        let bytes = read_file(path, files::open(path)?)?;
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
    let image_len = channels * height * width;
    let mut pixels = Vec::new();
    for chunk in files.chunks(CHUNK_LEN) {
        let decoded: Vec<Result<Vec<u8>>> = chunk.par_iter().map(read).collect();
        if pixels.try_reserve(chunk.len() * image_len).is_err() {
            return Err(Error::data(
                chunk[0].display().to_string(),
                format!(
                    "expected memory for {} images of {image_len} bytes, found too little",
                    files.len()
                ),
                "name fewer images at a time",
            ));
        }
        for decoded in decoded {
            pixels.extend(decoded?);
        }
    }
    let images = Images {
        pixels,
        channels,
        height,
        width,
    };
    Ok((files, images))
}

/// Adds the images that `path` stands for. `entered` are the folders so far, without links.
fn collect(
    path: &Path,
    files: &mut Vec<PathBuf>,
    entered: &mut HashSet<PathBuf>,
    depth: usize,
) -> Result<()> {
    let about = fs::metadata(path).map_err(Error::io("read", path))?;
    if !about.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    if depth == 0 {
        return Err(Error::data(
            path.display().to_string(),
            format!("expected at most {DEPTH} folders inside each other, found more"),
            "name a folder further inside",
        ));
    }
    if !entered.insert(fs::canonicalize(path).map_err(Error::io("read", path))?) {
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
            collect(&path, files, entered, depth - 1)?;
        }
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::fixtures::{gray_png, put};
    use super::*;

    #[test]
    fn a_folder_is_entered_once_whatever_links_lead_to_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        put(at("set/b/1.png"), &gray_png(1, 1, 1));
        put(at("set/2.png"), &gray_png(1, 1, 2));
        put(at("other/3.png"), &gray_png(1, 1, 3));
        for (target, link) in [
            (".", "set/a"),
            ("..", "set/b/up"),
            ("b", "set/c"),
            ("../other", "set/d"),
            ("../set", "other/back"),
        ] {
            symlink(target, at(link)).expect("a link");
        }
        let (files, images) = read_images(&[at("set")], [1, 1, 1]).expect("images");
        let expected = ["set/2.png", "set/b/1.png", "set/d/3.png"].map(at);
        assert_eq!(
            (files.as_slice(), images.pixels),
            (&expected[..], vec![2, 1, 3])
        );
        // An argument stands for its images, whatever stood before it.
        let (files, _) = read_images(&[at("set/b"), at("set/c")], [1, 1, 1]).expect("images");
        assert_eq!(files.len(), 6);
    }

    #[test]
    fn pipes_links_to_nowhere_and_endless_depth_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        let refused = |path: PathBuf, words: &str| {
            let error = read_images(&[path], [1, 1, 1]).expect_err("no image");
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.exit_code(), 2);
        };
        put(at("pipes/1.png"), &gray_png(1, 1, 1));
        let made = std::process::Command::new("mkfifo")
            .arg(at("pipes/2.png"))
            .status();
        assert!(made.expect("mkfifo").success());
        refused(at("pipes"), "expected a regular file, found a pipe");
        refused(at("pipes/2.png"), "expected a regular file, found a pipe");
        refused(
            "/dev/zero".into(),
            "expected a regular file, found a device",
        );
        symlink("nowhere.png", at("link.png")).expect("a link");
        refused(at("link.png"), "cannot read");
        put(
            at(&format!("deep{}/1.png", "/d".repeat(DEPTH))),
            &gray_png(1, 1, 1),
        );
        refused(at("deep"), "at most 100 folders inside each other");
        put(at("huge.png"), b"");
        let huge = fs::File::create(at("huge.png")).and_then(|file| file.set_len(1 << 40));
        huge.expect("a sparse file");
        refused(at("huge.png"), "at most 67108864 bytes");
    }
}
