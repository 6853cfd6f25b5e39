//! Members of a tar archive, read one after the other in bounded memory.
//!
//! What describes a member, a long name or a list of attributes, is held against a limit before it is
//! read. The `tar` crate would read it whole, and serves for single headers alone.

use std::io::{self, BufReader, Read};
use std::path::Path;

use super::listing::MAX_MEMBER;
use super::stream::{open, read_error};
use crate::error::{Error, Result};

/// Size of a block in a tar archive, in bytes.
pub(super) const BLOCK: usize = 512;
/// Largest description of a member in bytes. Paths have 4,096 at most on most systems.
const MAX_DESCRIPTION: u64 = 64 << 10;
/// Most bytes after the end mark, where archives are padded to whole records.
const MAX_PADDING: u64 = 64 << 20;

/// A member of an archive.
pub(super) struct Member {
    /// Name as it is in the archive.
    pub(super) name: String,
    /// Kind of the member.
    pub(super) kind: Kind,
}

/// Kinds of members.
pub(super) enum Kind {
    /// A file with its content.
    File,
    /// A file of which only some parts are stored.
    Sparse,
    /// A folder.
    Folder,
    /// Another name of the member of this name.
    HardLink(String),
    /// A link to this path, seen from the folder of the link.
    SymbolicLink(String),
    /// A pipe or a device.
    Special,
    /// Anything that is no file, such as the archive's label.
    Other,
}

/// What the blocks before a member say about it.
#[derive(Default)]
struct Description {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Vec<u8>,
}

/// Attributes of a pax header that matter here.
#[derive(Default)]
struct Attributes<'a> {
    path: Option<&'a [u8]>,
    link: Option<&'a [u8]>,
    size: Option<u64>,
    sparse: bool,
}

/// Calls `each` with every member and its content, in the archive's order.
///
/// # Errors
/// Those of `each`; [`Error::Io`]; [`Error::Format`] for a damaged archive, a description or a padding
/// above the limit, and a name that is not UTF-8; [`Error::Data`] for a member above the limit.
pub(super) fn visit(
    path: &Path,
    each: &mut dyn FnMut(Member, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut archive = BufReader::with_capacity(1 << 16, open(path)?);
    let mut about = Description::default();
    let mut number = 1;
    loop {
        let place = || format!("archive member {number}");
        let broken =
            |found: &str| Error::format(path, place(), "a whole tar member", found.to_owned());
        let failed = |error| read_error(path, place(), "a whole tar member", error);
        let block = match read_block(&mut archive).map_err(failed)? {
            Some(block) => block,
            // Without this a plain archive cut between two members would look like a smaller data set.
            None => {
                let expected = "an end mark of 512 zero bytes";
                let found = "the end of the file";
                return Err(Error::format(path, "end of archive", expected, found));
            }
        };
        if block.iter().all(|&byte| byte == 0) {
            break;
        }
        if !has_checksum(&block) {
            return Err(broken("another checksum in its header"));
        }
        let header = tar::Header::from_byte_slice(&block);
        let entry_type = header.entry_type();
        let declared = header.entry_size().map_err(failed)?;
        let describes = header.as_gnu().is_some() || header.as_ustar().is_some();
        let description = match entry_type {
            tar::EntryType::GNULongName if describes => Some(about.name.insert(Vec::new())),
            tar::EntryType::GNULongLink if describes => Some(about.link.insert(Vec::new())),
            tar::EntryType::XHeader if describes => Some(&mut about.pax),
            _ => None,
        };
        if description.is_some() || entry_type.is_pax_global_extensions() {
            if declared > MAX_DESCRIPTION {
                let expected =
                    format!("a long name or attributes of at most {MAX_DESCRIPTION} bytes");
                let found = declared.to_string();
                return Err(Error::format(path, place(), expected, found));
            }
            let mut content = vec![0; declared as usize];
            archive.read_exact(&mut content).map_err(failed)?;
            skip(&mut archive, padding(declared)).map_err(failed)?;
            // Attributes of all members: times and comments, nothing that matters here.
            if let Some(description) = description {
                *description = content;
            }
            continue;
        }
        let pax = attributes(&about.pax).ok_or_else(|| broken("attributes that are none"))?;
        let terminated = |name: &Vec<u8>| {
            let end = name.iter().position(|&byte| byte == 0);
            name[..end.unwrap_or(name.len())].to_vec()
        };
        let name = about.name.as_ref().map(terminated);
        let name = name
            .or_else(|| pax.path.map(<[u8]>::to_vec))
            .unwrap_or_else(|| header.path_bytes().into_owned());
        // Names of other bytes are shown as well as they can be.
        let name = String::from_utf8_lossy(&name).into_owned();
        let link = about.link.as_ref().map(terminated);
        let link = link
            .or_else(|| pax.link.map(<[u8]>::to_vec))
            .or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
        let link = || String::from_utf8_lossy(link.as_deref().unwrap_or_default()).into_owned();
        let size = pax.size.unwrap_or(declared);
        use tar::EntryType as Type;
        // Links, folders and devices have no content, whatever size they declare.
        let (kind, size) = match entry_type {
            Type::Regular | Type::Continuous if pax.sparse => (Kind::Sparse, size),
            // Old archives mark a folder by a slash at the end only.
            Type::Regular | Type::Continuous if name.ends_with('/') => (Kind::Folder, size),
            Type::Regular | Type::Continuous => (Kind::File, size),
            Type::GNUSparse => (Kind::Sparse, size),
            Type::Directory => (Kind::Folder, 0),
            Type::Link => (Kind::HardLink(link()), 0),
            Type::Symlink => (Kind::SymbolicLink(link()), 0),
            Type::Char | Type::Block | Type::Fifo => (Kind::Special, 0),
            _ => (Kind::Other, size),
        };
        if size > MAX_MEMBER {
            return Err(Error::data(
                path.join(&name).display().to_string(),
                format!(
                    "expected at most {MAX_MEMBER} bytes in a file of an archive, found {size}"
                ),
                "take it out of the archive, or unpack the archive and give the folder",
            ));
        }
        if entry_type.is_gnu_sparse() {
            let mut more = header.as_gnu().is_some_and(tar::GnuHeader::is_extended);
            while more {
                let block = read_block(&mut archive).map_err(failed)?;
                // The place of `is_extended` in a block of further parts.
                more = block.ok_or_else(|| broken("the end of the file"))?[504] != 0;
            }
        }
        let mut content = archive.by_ref().take(size);
        each(Member { name, kind }, &mut content)?;
        let rest = content.limit() + padding(size);
        skip(&mut archive, rest).map_err(failed)?;
        about = Description::default();
        number += 1;
    }
    // To the end of the stream, where the gzip checksum is.
    let after = io::copy(&mut archive.take(MAX_PADDING + 1), &mut io::sink())
        .map_err(|error| read_error(path, "end of archive", "a whole gzip stream", error))?;
    if after > MAX_PADDING {
        let expected = format!("at most {MAX_PADDING} bytes after the end mark");
        return Err(Error::format(path, "end of archive", expected, "more"));
    }
    Ok(())
}

/// Whether a first block is a tar header, by its checksum (the oldest archives have no other mark),
/// or the zeros of an empty archive.
pub(super) fn is_tar_header(block: &[u8]) -> bool {
    let Ok(block) = <&[u8; BLOCK]>::try_from(block) else {
        return false;
    };
    block.iter().all(|&byte| byte == 0) || has_checksum(block)
}

/// Whether the checksum of a header is right.
fn has_checksum(block: &[u8; BLOCK]) -> bool {
    let stored = 148..156;
    let sum: u32 = (0..BLOCK)
        .map(|i| if stored.contains(&i) { b' ' } else { block[i] })
        .map(u32::from)
        .sum();
    let header = tar::Header::from_byte_slice(block);
    header.cksum().is_ok_and(|given| given == sum)
}

/// Reads a block; none at the end of the stream.
fn read_block(archive: &mut impl Read) -> io::Result<Option<[u8; BLOCK]>> {
    let mut bytes = Vec::with_capacity(BLOCK);
    archive.take(BLOCK as u64).read_to_end(&mut bytes)?;
    match <[u8; BLOCK]>::try_from(bytes) {
        Ok(block) => Ok(Some(block)),
        Err(bytes) if bytes.is_empty() => Ok(None),
        Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Number of bytes from the end of a content to the next block.
fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

/// Passes over bytes that must be there.
fn skip(archive: &mut impl Read, bytes: u64) -> io::Result<()> {
    if io::copy(&mut archive.take(bytes), &mut io::sink())? < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Attributes of a pax header: records of "LENGTH KEY=VALUE\n". None if they are something else.
fn attributes(mut text: &[u8]) -> Option<Attributes<'_>> {
    let mut found = Attributes::default();
    while !text.is_empty() {
        let space = text.iter().position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
        let record = text.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => found.path = Some(value),
            b"linkpath" => found.link = Some(value),
            b"size" => found.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            _ => found.sparse |= key.starts_with(b"GNU.sparse."),
        }
        text = &text[length..];
    }
    Some(found)
}
