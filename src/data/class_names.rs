//! Class names, which are the same where they look the same.

use std::io::Read;
use std::path::Path;

use unicode_normalization::UnicodeNormalization as _;

use super::stream::read_error;
use crate::error::{Error, Result};
use crate::files;

/// Largest list of class names in bytes.
const MAX_NAMES: u64 = 1 << 16;
/// File of class names, one a line, beside files that have numbers for labels.
pub(super) const CLASS_FILE: &str = "classes.txt";

/// The composed form of a class name (Unicode's NFC), in which names are compared: a Mac writes an "é" in a folder's
/// name as two characters, everyone else as one.
pub fn class_name(written: &str) -> String {
    written.nfc().collect()
}

/// Class names in words, some of them where there are many: "cat, dog and 8 more".
pub fn class_list(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Reads class names, one a line; empty lines do not count.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a list that is too long or no UTF-8.
pub(super) fn class_names(path: &Path, content: impl Read) -> Result<Vec<String>> {
    let mut text = String::new();
    content
        .take(MAX_NAMES + 1)
        .read_to_string(&mut text)
        .map_err(|error| read_error(path, "text", "class names in UTF-8", error))?;
    if text.len() as u64 > MAX_NAMES {
        let expected = format!("class names of at most {MAX_NAMES} bytes");
        return Err(Error::format(path, "text", expected, "more"));
    }
    // A byte order mark, as editors of Windows put it there.
    let names = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let names = names.filter(|line| !line.is_empty());
    Ok(names.map(class_name).collect())
}

/// Reads the class names in a file of the user's: see [`class_names`].
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a list that is too long or no UTF-8, has no names, or one name twice.
pub fn read_class_names(path: &Path) -> Result<Vec<String>> {
    let names = class_names(path, files::open(path)?)?;
    let refuse = |found: String| {
        let expected = "one class name per line, each another one";
        Err(Error::format(path, "text", expected, found))
    };
    let mut seen = std::collections::BTreeSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        Some(name) => {
            let problem = format!("expected each class name once, found {name:?} twice");
            let hint = "two classes need two names: \"crane (bird)\", say, beside \"crane\"";
            Err(Error::data(path.display().to_string(), problem, hint))
        }
        None if names.is_empty() => refuse("no names".to_owned()),
        None => Ok(names),
    }
}

/// Class names in `classes.txt` in a folder; none without such a file.
///
/// # Errors
/// As [`class_names`]; [`Error::Format`] for a list without names.
pub(super) fn class_names_beside(folder: &Path) -> Result<Option<Vec<String>>> {
    let path = folder.join(CLASS_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let names = class_names(&path, files::open(&path)?)?;
    if names.is_empty() {
        let expected = "one class name per line";
        return Err(Error::format(path, "text", expected, "no names"));
    }
    Ok(Some(names))
}
