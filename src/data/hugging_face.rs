//! Parquet files in Hugging Face's form: a column of images as bytes, and one of labels.
//!
//! They are recognized in every build, and read where the feature `parquet` is on.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::entry::Entry;
use super::filename::is_junk;
use super::stream;
use crate::error::{Error, Result};

#[cfg(feature = "parquet")]
mod columns;
#[cfg(feature = "parquet")]
mod rows;
#[cfg(all(test, feature = "parquet"))]
mod tests;

/// Parquet files of a data set.
pub(super) struct Files {
    /// Path of the file or folder.
    source: PathBuf,
    /// Name and path of each file, sorted by name.
    files: Vec<(String, PathBuf)>,
}

impl Files {
    /// Path of the file or folder.
    pub(super) fn source(&self) -> &Path {
        &self.source
    }

    /// The file of a row by the row's name, `FILE/row N`.
    pub(super) fn file_of(&self, row: &str) -> PathBuf {
        let (file, _) = row.rsplit_once('/').unwrap_or((row, ""));
        let place = self
            .files
            .binary_search_by(|(name, _)| name.as_str().cmp(file));
        place.map_or_else(|_| self.source.clone(), |place| self.files[place].1.clone())
    }
}

/// The one file at `path`, if it is Parquet.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn find_file(path: &Path) -> Result<Option<Files>> {
    let mut start = Vec::new();
    // What cannot be decompressed is no Parquet file.
    let _ = stream::open(path)?.take(4).read_to_end(&mut start);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok((start == b"PAR1").then(|| Files {
        source: path.to_path_buf(),
        files: vec![(name.into_owned(), path.to_path_buf())],
    }))
}

/// The files of a folder that holds Parquet files and no images.
pub(super) fn find(
    source: &Path,
    entries: &[Entry],
    path_of: impl Fn(&str) -> PathBuf,
) -> Option<Files> {
    let wanted = |entry: &&Entry| !entry.is_folder && !is_junk(&entry.name);
    let files = || entries.iter().filter(wanted);
    if files().any(|entry| entry.is_image) {
        return None;
    }
    let tables = files().filter(|entry| entry.name.to_lowercase().ends_with(".parquet"));
    let mut files: Vec<(String, PathBuf)> = tables
        .map(|entry| (entry.name.clone(), path_of(&entry.name)))
        .collect();
    files.sort();
    (!files.is_empty()).then(|| Files {
        source: source.to_path_buf(),
        files,
    })
}

/// Splits and classes of the rows of all files.
///
/// # Errors
/// [`Error::Data`] in a build without the feature `parquet`.
#[cfg(not(feature = "parquet"))]
pub(super) fn open(found: Files) -> Result<(Files, super::layout::Layout)> {
    let (_, path) = &found.files[0];
    Err(Error::data(
        found.source.display().to_string(),
        format!(
            "{} is a Parquet file, and this program was built without parquet",
            path.display()
        ),
        "cargo install --path . --features parquet",
    ))
}

/// Reads no row: [`open`] gives no files in this build.
#[cfg(not(feature = "parquet"))]
pub(super) fn read(
    _: &Files,
    _: &std::collections::HashMap<String, usize>,
    _: &mut dyn FnMut(usize, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    Ok(())
}

#[cfg(feature = "parquet")]
pub(super) use rows::{open, read};

/// Error of a Parquet file.
#[cfg(feature = "parquet")]
fn broken(path: &Path, place: &str, error: parquet::errors::ParquetError) -> Error {
    Error::format(path, place, "a whole Parquet file", error.to_string())
}

#[cfg(all(test, not(feature = "parquet")))]
mod tests_without_parquet {
    use super::super::fixtures::{put, refused};

    #[test]
    fn a_build_without_parquet_says_how_to_get_one() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("set");
        let file = folder.join("data/train-00000-of-00001.parquet");
        put(
            &file,
            include_bytes!("../../tests/data/huggingface.parquet"),
        );
        for path in [&file, &folder] {
            refused(path, &["built without parquet", "--features parquet"]);
        }
    }
}
