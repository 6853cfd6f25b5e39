//! Files that appear whole or not at all.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random;

/// Writes a whole file: to a temporary name in the same folder, synced, renamed, so that no crash and no full
/// disk leaves half a file under the real name.
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
        // Temporary files are private by default; a run folder's are ordinary ones (the umask still applies).
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
    write().map_err(Error::io("write", path))
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
