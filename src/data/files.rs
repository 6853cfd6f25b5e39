//! Image files for prediction.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::decode::{KNOWN, decode, read_file};
use super::filename::{is_image, is_junk};
use super::images::Images;
use super::listing::Look;
use super::own_output::is_run_folder;
use super::reading::Reading;
use crate::error::{Error, Result};
use crate::files;

/// Largest number of folders inside each other.
const DEPTH: usize = 100;
/// Number of images that are decoded at a time.
const CHUNK_LEN: usize = 256;

/// Image files that were read, and those that could not be.
#[derive(Debug)]
pub struct ReadImages {
    /// Paths of the images.
    pub files: Vec<PathBuf>,
    /// The images, in the order of their paths.
    pub images: Images,
    /// The other files, and why.
    pub faults: Vec<(PathBuf, Error)>,
    /// Number of images that were of another size.
    pub fitted: usize,
}

/// Lists image files. A folder stands for the images in it and below, in the order of their names. Hidden files and
/// this program's own output are skipped there. Links to folders are followed, but no folder is entered twice. A file is
/// listed whatever it is.
///
/// # Errors
/// [`Error::Data`] for a folder without images, and folders that are too deep inside each other; [`Error::Io`] for a
/// folder that cannot be read.
pub fn image_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let before = found.len();
        collect(path, &mut found, &mut HashSet::new(), DEPTH)?;
        if found.len() == before {
            return Err(Error::data(
                path.display().to_string(),
                "no images in this folder",
                format!("{KNOWN} files are read"),
            ));
        }
    }
    Ok(found)
}

/// Reads image files for a model of images of one shape (`[channels, height, width]`), converted as `reading` says. A file
/// that cannot be read keeps no other from being read.
///
/// # Errors
/// [`Error::Data`] where memory does not suffice.
pub fn read_images(files: &[PathBuf], shape: [usize; 3], reading: &Reading) -> Result<ReadImages> {
    let [channels, height, width] = shape;
    let reading = reading.for_shape(shape);
    let read = |path: &PathBuf| {
        let bytes = read_file(path, files::open(path)?)?;
        let decoded = decode(path, &bytes, &reading)?;
        let fitted = decoded.found != [height, width];
        Ok((decoded.picture.planes(), fitted))
    };
    let image_len = channels * height * width;
    let mut all = ReadImages {
        files: Vec::new(),
        images: Images::new(Vec::new(), shape),
        faults: Vec::new(),
        fitted: 0,
    };
    let mut pixels: Vec<u8> = Vec::new();
    for chunk in files.chunks(CHUNK_LEN) {
        let decoded: Vec<Result<(Vec<u8>, bool)>> = chunk.par_iter().map(read).collect();
        let claimed = pixels.try_reserve(chunk.len() * image_len);
        if claimed.is_err() {
            return Err(Error::data(
                chunk[0].display().to_string(),
                format!(
                    "expected memory for {} images of {image_len} bytes, found too little",
                    files.len()
                ),
                "name fewer images at a time",
            ));
        }
        for (path, decoded) in chunk.iter().zip(decoded) {
            match decoded {
                Ok((image, fitted)) => {
                    pixels.extend(image);
                    all.files.push(path.clone());
                    all.fitted += usize::from(fitted);
                }
                Err(error) => all.faults.push((path.clone(), error)),
            }
        }
    }
    all.images = Images::new(pixels, shape);
    Ok(all)
}

/// Adds the images that `path` stands for. `entered` are the folders so far, without links.
fn collect(
    path: &Path,
    files: &mut Vec<PathBuf>,
    entered: &mut HashSet<PathBuf>,
    depth: usize,
) -> Result<()> {
    // What is no folder, or not there, is found when it is read: it keeps no other image from being read.
    if !path.is_dir() {
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
            // By its content too, as in training. What cannot be looked at is reported when it is read.
            match Look::at(&name, &path, || files::open(&path)) {
                Ok(look) => look.is_image && !look.is_own,
                Err(_) => is_image(&name),
            }
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
        let reading = Reading::default();
        let read = |paths: &[PathBuf]| {
            let files = image_files(paths).expect("images");
            let found = read_images(&files, [1, 1, 1], &reading).expect("images");
            (found.files, found.images)
        };
        let (files, images) = read(&[at("set")]);
        let expected = ["set/2.png", "set/b/1.png", "set/d/3.png"].map(at);
        assert_eq!(
            (files.as_slice(), images.pixels()),
            (&expected[..], vec![2, 1, 3])
        );
        // An argument stands for its images, whatever stood before it.
        let (files, _) = read(&[at("set/b"), at("set/c")]);
        assert_eq!(files.len(), 6);
    }

    #[test]
    fn pipes_links_to_nowhere_and_endless_depth_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        let refused = |path: PathBuf, words: &str| {
            let found = image_files(&[path])
                .and_then(|files| read_images(&files, [1, 1, 1], &Reading::default()));
            let error = match found {
                Ok(mut found) => found.faults.remove(0).1,
                Err(error) => error,
            };
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
