//! Files as streams of bytes: opened, decompressed, and the errors of reading them.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};
use crate::files;

/// Opens a regular file for reading, decompressing it if it begins like gzip.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for anything but a regular file.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = BufReader::with_capacity(1 << 16, files::open(path)?);
    gunzip(file).map_err(Error::io("read", path))
}

/// Decompresses `content` if it begins like gzip.
pub(super) fn gunzip<'a>(mut content: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(if is_gzip(content.fill_buf()?) {
        Box::new(MultiGzDecoder::new(content))
    } else {
        Box::new(content)
    })
}

/// Whether a file that begins with these bytes is compressed.
pub(super) fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(&[0x1f, 0x8b])
}

/// Reads a content whole; none where it has more than `most` bytes.
///
/// # Errors
/// Those of the content.
pub(super) fn read_at_most(content: impl Read, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    content.take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// Error of a failed read: of the machine, or of a decoder, which means a damaged file.
pub(super) fn read_error(
    path: &Path,
    place: impl Into<String>,
    expected: &str,
    error: io::Error,
) -> Error {
    if error.raw_os_error().is_some() || error.kind() == io::ErrorKind::OutOfMemory {
        return Error::io("read", path)(error);
    }
    Error::format(path, place, expected, error.to_string())
}
