//! What tells whether the files of a data set are the ones that they were, without reading them.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rayon::prelude::*;

use super::layout::{Item, Layout};

/// Splits and classes of a layout with names, lengths and times of its files; none where one of them is gone, or has a name that is
/// no UTF-8, which the cache cannot keep.
pub(super) fn of_files(
    layout: &Layout,
    path_of: impl Fn(&str) -> PathBuf + Sync,
) -> Option<String> {
    let splits = [&layout.train, &layout.test, &layout.val];
    let of_split = |items: &Vec<Item>| -> Option<String> {
        let lines = items.par_iter().map(|item| {
            let path = path_of(&item.name);
            path.to_str()?;
            let about = of_file(&path)?;
            // A name may have any character in it.
            Some(format!("{} {about} {:?}\n", item.label, item.name))
        });
        lines.collect()
    };
    let files: Option<Vec<String>> = splits.into_iter().map(of_split).collect();
    Some(format!(
        "{:?}\n{:?}\n{:?}\n{:?}",
        layout.classes, layout.notes, layout.left_out, files?
    ))
}

/// Length and times of an archive; none for anything else.
pub(super) fn of_archive(path: &Path) -> Option<String> {
    path.is_file().then(|| of_file(path))?
}

/// Length and times of a file; none where it is gone.
fn of_file(path: &Path) -> Option<String> {
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
