//! The folder of a data set that consists of files with certain names.

use std::collections::BTreeSet;
use std::path::Path;

use super::entry::Entry;
use super::filename::is_junk;
use crate::error::{Error, Result};

/// Finds the folder in which files of certain names lie: the top one (empty) or, where there are no images, the one
/// below it (with a slash at the end). `kind` names the data set in messages.
///
/// # Errors
/// [`Error::Data`] where there are several, of which none is the top one.
pub(super) fn folder_of(
    source: &Path,
    kind: &str,
    entries: &[Entry],
    known: impl Fn(&str) -> bool,
) -> Result<Option<String>> {
    let files = entries.iter().filter(|entry| !entry.is_folder);
    let folder = |entry: &Entry| {
        let start = entry.name.rfind('/').map_or(0, |at| at + 1);
        let (folder, file) = entry.name.split_at(start);
        (known(file) && !is_junk(folder)).then(|| folder.to_owned())
    };
    let mut folders: BTreeSet<String> = files.filter_map(folder).collect();
    if folders.contains("") {
        return Ok(Some(String::new()));
    }
    let is_image = |entry: &Entry| entry.is_image && !is_junk(&entry.name);
    if entries.iter().any(is_image) {
        return Ok(None);
    }
    if folders.len() > 1 {
        let named: Vec<&str> = folders.iter().take(4).map(String::as_str).collect();
        let problem = format!(
            "expected one {kind} data set, found {}: {}",
            folders.len(),
            named.join(", ")
        );
        let hint = "give the folder of one of them";
        return Err(Error::data(source.display().to_string(), problem, hint));
    }
    Ok(folders.pop_first())
}
