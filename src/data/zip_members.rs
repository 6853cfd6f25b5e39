//! Members of a zip archive as files, read in bounded memory.
//!
//! The archive's directory is walked entry by entry, so that memory is taken by members that are there and not by
//! their number as declared. No member gives more bytes than it declares.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use rayon::prelude::*;
use zip::ZipReadOptions;
use zip::read::{Config, OwnedZipFileEntry, ZipFile, ZipFileEntry};
use zip::result::{ZipError, ZipResult};
use zip::unstable::read::ZipIterable;
use zip::{SUPPORTED_COMPRESSION_METHODS, System};

use super::entry::Entry;
use super::filename::{is_image, is_junk};
use super::listing::{LeftOut, Look, MAX_MEMBER};
use super::stream::read_error;
use crate::error::{Error, Result};
use crate::files;

/// Files in an archive, by their names.
pub(super) type Members = HashMap<String, OwnedZipFileEntry>;

/// Lists the members of a zip archive.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a damaged archive, and for members that overlap; [`Error::Data`] for an image
/// that is encrypted or compressed in a way that is not read.
pub(super) fn list(path: &Path, left_out: &mut LeftOut) -> Result<(Vec<Entry>, Members)> {
    let file = files::open(path)?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let broken = |error| broken(path, error);
    let mut archive =
        ZipIterable::try_new(BufReader::new(file), Config::default()).map_err(broken)?;
    let (mut entries, mut members) = (Vec::new(), Vec::new());
    let mut packed = 0u64;
    for member in archive.files().map_err(broken)? {
        let member = member.map_err(broken)?;
        let Some(name) = left_out.clean(&name_of(&member)) else {
            continue;
        };
        if member.is_dir() {
            entries.push(Look::default().entry(name, true));
            continue;
        }
        // Members that share their bytes make an archive of megabytes into one of terabytes.
        packed = packed.saturating_add(member.compressed_size());
        if packed > length {
            let found = "members of more bytes than the archive has";
            let expected = "members that do not overlap";
            return Err(Error::format(path, "archive directory", expected, found));
        }
        if is_junk(&name) {
            continue;
        }
        match fault_of(&member) {
            None => members.push((name, OwnedZipFileEntry::from(member))),
            Some(fault) if fault.hides_an_image && is_image(&name) => {
                return Err(Error::data(
                    path.join(&name).display().to_string(),
                    format!("expected a file as it is or deflated, found {}", fault.kind),
                    "unpack the archive and give the folder",
                ));
            }
            Some(fault) => left_out.add(&name, &fault.kind),
        }
    }
    let looks: Vec<Result<Look>> = members
        .par_iter()
        .map_init(|| None, |file, member| look(path, file, member))
        .collect();
    for (found, (name, _)) in looks.into_iter().zip(&members) {
        entries.push(found?.entry(name.clone(), false));
    }
    Ok((entries, members.into_iter().collect()))
}

/// Looks at a member; `file` is the archive, opened where it is not open yet.
fn look(
    path: &Path,
    file: &mut Option<BufReader<File>>,
    (name, member): &(String, OwnedZipFileEntry),
) -> Result<Look> {
    let found = Look::at(name, &path.join(name), || {
        let file = match file {
            Some(file) => file,
            None => file.insert(BufReader::new(files::open(path)?)),
        };
        Ok(Content::of(member, file))
    });
    match found {
        // Whether it is damaged is found when it is read, if it is.
        Err(Error::Format { .. }) => Ok(Look {
            is_own: false,
            is_image: is_image(name),
        }),
        found => found,
    }
}

/// Calls `each(index, content)` for every file in `wanted` (name to index), in the archive's order.
///
/// # Errors
/// Those of `each`; [`Error::Io`].
pub(super) fn read(
    path: &Path,
    members: &Members,
    wanted: &HashMap<String, usize>,
    each: &mut dyn FnMut(usize, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let found = |(name, &index): (&String, &usize)| Some((members.get(name)?, index));
    let mut found: Vec<_> = wanted.iter().filter_map(found).collect();
    found.sort_unstable_by_key(|(member, index)| (member.header_start(), *index));
    let mut file = BufReader::new(files::open(path)?);
    found
        .into_iter()
        .try_for_each(|(member, index)| each(index, &mut Content::of(member, &mut file)))
}

/// Name of a member, with `/` between its parts.
fn name_of(member: &ZipFileEntry) -> String {
    let name = match member.name() {
        Ok(name) => name.into_owned(),
        Err(_) => String::from_utf8_lossy(member.name_raw()).into_owned(),
    };
    match member.system() {
        // As some programs of Windows wrote it.
        System::Dos | System::WindowsNTFS => name.replace('\\', "/"),
        _ => name,
    }
}

/// Why a member is not read.
struct Fault {
    kind: String,
    /// Whether an image may be lost with it.
    hides_an_image: bool,
}

fn fault_of(member: &ZipFileEntry) -> Option<Fault> {
    let method = member.compression();
    let (kind, hides_an_image) = match member.unix_mode().unwrap_or(0) & 0o170000 {
        0o120000 => ("a link".to_owned(), false),
        0o010000 | 0o020000 | 0o060000 | 0o140000 => ("a pipe or a device".to_owned(), false),
        _ if member.encrypted() => ("an encrypted one".to_owned(), true),
        _ if !SUPPORTED_COMPRESSION_METHODS.contains(&method) => {
            (format!("one compressed by {method}"), true)
        }
        _ => return None,
    };
    Some(Fault {
        kind,
        hides_an_image,
    })
}

/// Error of an archive whose directory cannot be read.
fn broken(path: &Path, error: ZipError) -> Error {
    let (place, expected) = ("archive directory", "a whole zip archive");
    match error {
        ZipError::Io(error) => read_error(path, place, expected, error),
        error => Error::format(path, place, expected, error.to_string()),
    }
}

/// Content of a member: as many bytes as it declares, or an error.
struct Content<'a> {
    content: ZipResult<ZipFile<'a, BufReader<File>>>,
    /// Bytes that are still to come.
    left: u64,
}

impl<'a> Content<'a> {
    fn of(member: &'a OwnedZipFileEntry, archive: &'a mut BufReader<File>) -> Self {
        let left = member.size();
        let content = match left > MAX_MEMBER {
            true => Err(ZipError::UnsupportedArchive("more than 2 GiB")),
            false => member.as_ref().with_reader(archive, ZipReadOptions::new()),
        };
        Self { content, left }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let content = match &mut self.content {
            Ok(content) => content,
            Err(ZipError::Io(error)) if error.raw_os_error().is_some() => {
                let error = std::mem::replace(error, io::ErrorKind::Other.into());
                return Err(error);
            }
            Err(error) => return Err(io::Error::other(error.to_string())),
        };
        let read = content.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            None => Err(io::Error::other("more bytes than it declares")),
            Some(left) if read == 0 && left > 0 => Err(io::Error::other(format!(
                "{left} bytes fewer than it declares"
            ))),
            Some(left) => {
                self.left = left;
                Ok(read)
            }
        }
    }
}
