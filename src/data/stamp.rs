//! What tells whether the files of a data set are the ones that they were, without reading them.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rayon::prelude::*;

use super::entry::Entry;

/// Names, lengths and times of the files in a folder; none where one of them is gone.
pub(super) fn of_folder(
    entries: &[Entry],
    path_of: impl Fn(&str) -> PathBuf + Sync,
) -> Option<String> {
    let files = entries
        .par_iter()
        .filter(|entry| !entry.is_folder && !entry.is_own);
    let lines = files.map(|entry| {
        let about = of_file(&path_of(&entry.name))?;
        // A name may have any character in it.
        Some(format!("{:?} {about}\n", entry.name))
    });
    let mut lines = lines.collect::<Option<Vec<String>>>()?;
    lines.sort_unstable();
    Some(lines.concat())
}

/// Length and times of a file; none where it is gone.
pub(super) fn of_file(path: &Path) -> Option<String> {
    let about = fs::metadata(path).ok()?;
    let modified = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!(
        "{} {} {}",
        about.len(),
        modified.as_nanos(),
        changed(&about)
    ))
}

/// When anything about a file was changed last, in nanoseconds: a copy that keeps its time has another one.
#[cfg(unix)]
fn changed(about: &Metadata) -> i128 {
    use std::os::unix::fs::MetadataExt as _;
    i128::from(about.ctime()) * 1_000_000_000 + i128::from(about.ctime_nsec())
}

#[cfg(not(unix))]
fn changed(_: &Metadata) -> i128 {
    0
}
