//! Files that appear whole or not at all.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random;

/// Writes a whole file: to a temporary name in the same folder, synced, renamed, so that no crash
/// and no full disk leaves half a file under the real name.
///
/// # Errors
/// [`Error::Io`].
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || -> std::io::Result<()> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".").suffix(".part");
        // Temporary files are private by default; a run folder's are ordinary ones (the umask still
        // applies).
        #[cfg(unix)]
        let permissions = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666);
        #[cfg(unix)]
        builder.permissions(permissions);
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write()
        .map_err(without_path)
        .map_err(Error::io("write", path))
}

/// An error of `tempfile` without the temporary name at its end, which means nothing to a user.
fn without_path(error: std::io::Error) -> std::io::Error {
    match error.to_string().split_once(" at path ") {
        Some((problem, _)) => std::io::Error::new(error.kind(), problem.to_owned()),
        None => error,
    }
}

/// Refuses an output where writing it would lose a file.
///
/// A file that is one of the `inputs`, or lies in a folder among them, is never replaced, whatever
/// links and spellings lead to it; any other existing file only where `replace` is true, and only
/// if it is a regular file. `option` is the option that names the output, for the hint.
///
/// # Errors
/// [`Error::Output`].
pub fn check_output(path: &Path, option: &str, inputs: &[&Path], replace: bool) -> Result<()> {
    // Of the path itself: a link would be replaced, even one that leads nowhere.
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let refuse = |problem: String, hint: String| {
        Err(Error::Output {
            path: path.to_path_buf(),
            problem,
            hint,
        })
    };
    let another = format!("name another file with {option}");
    if fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return refuse("it exists and is no regular file".to_owned(), another);
    }
    let is_in = |input: &Path| match (fs::canonicalize(path), fs::canonicalize(input)) {
        (Ok(output), Ok(input)) => output.starts_with(input),
        _ => false,
    };
    if let Some(input) = inputs.iter().find(|input| is_in(input)) {
        let problem = format!("it belongs to the input {}", input.display());
        return refuse(problem, another);
    }
    if !replace {
        let hint = format!("{another}, or replace this one with --replace");
        return refuse("the file exists already".to_owned(), hint);
    }
    Ok(())
}

/// Writes a value as indented JSON, atomically.
///
/// # Errors
/// [`Error::Io`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).expect("plain values");
    text.push('\n');
    write_atomic(path, text.as_bytes())
}

/// Reads what [`write_json`] wrote.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] with line and column.
pub fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Error::format(
            path,
            place,
            "what this version writes there",
            error.to_string(),
        )
    })
}

/// Short hash of some bytes, to be compared with another one: FNV-1a, which tells accidents apart and not
/// attacks.
pub fn hash(bytes: &[u8]) -> String {
    format!("fnv1a-{:016x}", random::fingerprint(bytes))
}
