//! Folders and tar archives, read in the same way.
//!
//! Names are listed first and contents read later, so that an unusable layout is refused before any
//! image is decoded. Nothing is unpacked to disk.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use rayon::prelude::*;

use super::entry::Entry;
use super::own_output::{HEAD, is_own, may_be_own, without_own};
use crate::error::{Error, Result};

/// Number of folder levels that are listed: an optional top folder, split, class, and one more for
/// error messages about it. The limit also ends loops of symbolic links.
const DEPTH: usize = 4;
/// Size of a block in a tar archive, in bytes.
const BLOCK: usize = 512;

/// A folder or a tar archive.
pub(super) struct Store {
    path: PathBuf,
    is_tar: bool,
}

impl Store {
    /// Returns the folder at `path`.
    pub(super) fn folder(path: &Path) -> Self {
        Self {
            path: path.into(),
            is_tar: false,
        }
    }

    /// Opens the tar archive at `path`, plain or gzip.
    ///
    /// # Errors
    /// [`Error::Data`] with a hint if the file has another format.
    pub(super) fn tar(path: &Path) -> Result<Self> {
        let mut start = Vec::with_capacity(BLOCK);
        // A damaged gzip stream is reported when the archive is read; here the block is only too
        // short.
        let _ = open(path)?.take(BLOCK as u64).read_to_end(&mut start);
        if is_tar_header(&start) {
            return Ok(Self {
                path: path.into(),
                is_tar: true,
            });
        }
        let hint = match start.as_slice() {
            [0, 0, 8, ..] => "an IDX file: give the folder that holds the four of them",
            [b'P', b'K', ..] => "a zip archive: unpack it and give the folder",
            _ => "give a folder, a .tar or a .tar.gz",
        };
        Err(Error::data(
            path.display().to_string(),
            "expected a tar archive (plain or gzip), found another kind of file",
            hint,
        ))
    }

    /// Path as given by the user.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is a tar archive.
    pub(super) fn is_tar(&self) -> bool {
        self.is_tar
    }

    /// Name of the data set: the last part of the path, without the archive's extension.
    pub(super) fn name(&self) -> String {
        // Resolved first, because "." and ".." have no name of their own.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let Some(name) = path.file_name() else {
            return path.display().to_string();
        };
        let name = name.to_string_lossy();
        let stem = [".tar.gz", ".tgz", ".tar"]
            .iter()
            .find_map(|extension| name.strip_suffix(extension))
            .filter(|stem| self.is_tar && !stem.is_empty());
        stem.unwrap_or(&name).to_string()
    }

    /// Lists all files and folders, in no particular order. Skips this program's own output, links
    /// in an archive, and names in an archive that are absolute or contain `..`.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] for a damaged archive or a name that is not UTF-8.
    pub(super) fn list(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        if self.is_tar {
            self.visit(&mut |mut entry, content| {
                let path = self.path.join(&entry.name);
                entry.is_own = !entry.is_folder && wrote(&entry.name, &path, || Ok(content))?;
                entries.push(entry);
                Ok(())
            })?;
        } else {
            self.walk("", &mut entries, DEPTH)?;
            entries.par_iter_mut().try_for_each(|entry| {
                let path = self.path.join(&entry.name);
                let is_own = !entry.is_folder && wrote(&entry.name, &path, || File::open(&path))?;
                entry.is_own = is_own;
                Ok(())
            })?;
        }
        Ok(without_own(entries))
    }

    /// Calls `each(index, content)` for every file in `wanted` (name to index): in the archive's
    /// order, or by index in a folder.
    ///
    /// # Errors
    /// Those of `each`, [`Error::Io`], and [`Error::Format`] for a damaged archive.
    pub(super) fn read(
        &self,
        wanted: &HashMap<String, usize>,
        mut each: impl FnMut(usize, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        if self.is_tar {
            return self.visit(&mut |entry, content| match wanted.get(&entry.name) {
                Some(&index) if !entry.is_folder => each(index, content),
                _ => Ok(()),
            });
        }
        let mut files: Vec<(&String, usize)> = wanted.iter().map(|(name, &i)| (name, i)).collect();
        files.sort_unstable_by_key(|&(_, index)| index);
        for (name, index) in files {
            let path = self.path.join(name);
            let file = File::open(&path).map_err(Error::io("read", &path))?;
            each(index, &mut BufReader::new(file))?;
        }
        Ok(())
    }

    fn walk(&self, below: &str, entries: &mut Vec<Entry>, depth: usize) -> Result<()> {
        let folder = self.path.join(below);
        for item in fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
            let item = item.map_err(Error::io("read", &folder))?;
            let Some(name) = item.file_name().to_str().map(String::from) else {
                return Err(not_utf8(&item.path()));
            };
            // A hidden folder (.git) may be large and holds no images.
            if name.starts_with('.') {
                continue;
            }
            // Follows links: data sets are often put together from them.
            let path = item.path();
            let meta = fs::metadata(&path).map_err(Error::io("read", &path))?;
            let is_folder = meta.is_dir();
            // Reading a pipe or a device might never end.
            if !is_folder && !meta.is_file() {
                continue;
            }
            let name = match below {
                "" => name,
                _ => format!("{below}/{name}"),
            };
            if is_folder && depth > 1 {
                self.walk(&name, entries, depth - 1)?;
            }
            let is_own = false;
            entries.push(Entry {
                name,
                is_folder,
                is_own,
            });
        }
        Ok(())
    }

    fn visit(&self, each: &mut dyn FnMut(Entry, &mut dyn Read) -> Result<()>) -> Result<()> {
        let zeros = Rc::new(Cell::new(0));
        let mut archive = tar::Archive::new(ZeroRun {
            inner: open(&self.path)?,
            zeros: zeros.clone(),
        });
        let entries = archive.entries().map_err(Error::io("read", &self.path))?;
        for (i, entry) in entries.enumerate() {
            let place = || format!("archive member {}", i + 1);
            let mut entry = entry
                .map_err(|error| read_error(&self.path, place(), "a whole tar member", error))?;
            let kind = entry.header().entry_type();
            let name = String::from_utf8(entry.path_bytes().into_owned()).map_err(|error| {
                not_utf8(
                    &self
                        .path
                        .join(String::from_utf8_lossy(error.as_bytes()).as_ref()),
                )
            })?;
            // Old archives mark a folder by a slash at the end only.
            let is_folder = kind.is_dir() || name.ends_with('/');
            if !(is_folder || kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse()) {
                continue;
            }
            if let Some(name) = clean(&name) {
                let is_own = false;
                let found = Entry {
                    name,
                    is_folder,
                    is_own,
                };
                each(found, &mut entry)?;
            }
        }
        // Without this a plain archive cut between two members would look like a smaller data set.
        if zeros.get() < BLOCK {
            let expected = "an end mark of 512 zero bytes";
            return Err(Error::format(
                &self.path,
                "end of archive",
                expected,
                "the end of the file",
            ));
        }
        // Reads to the end of the stream, where the gzip checksum is.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|error| {
            read_error(&self.path, "end of archive", "a whole gzip stream", error)
        })?;
        Ok(())
    }
}

/// Opens a file for reading, decompressing it if it begins like gzip.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    gunzip(BufReader::with_capacity(1 << 16, file)).map_err(Error::io("read", path))
}

/// Decompresses `content` if it begins like gzip.
pub(super) fn gunzip<'a>(mut content: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match content.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(content)),
        _ => Box::new(content),
    })
}

/// Error of a failed read: of the operating system, or of a decoder, which means a damaged file.
pub(super) fn read_error(
    path: &Path,
    place: impl Into<String>,
    expected: &str,
    error: io::Error,
) -> Error {
    match error.raw_os_error() {
        Some(_) => Error::io("read", path)(error),
        None => Error::format(path, place, expected, error.to_string()),
    }
}

/// Whether this program wrote the file `name`. Opens it only if its name makes this possible, and
/// reads only its beginning.
fn wrote<R: Read>(name: &str, path: &Path, open: impl FnOnce() -> io::Result<R>) -> Result<bool> {
    if !may_be_own(name) {
        return Ok(false);
    }
    let mut head = Vec::with_capacity(HEAD);
    open()
        .and_then(|content| content.take(HEAD as u64).read_to_end(&mut head))
        .map_err(|error| read_error(path, "beginning", "a readable file", error))?;
    Ok(is_own(name, &head))
}

fn not_utf8(path: &Path) -> Error {
    Error::format(path, "file name", "a name in UTF-8", "other bytes")
}

/// Removes empty and `.` parts from a name; none if it is absolute or leads out of the archive.
fn clean(name: &str) -> Option<String> {
    let parts: Vec<&str> = name
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    let usable = !name.starts_with('/') && !parts.is_empty() && !parts.contains(&"..");
    usable.then(|| parts.join("/"))
}

/// Whether a first block is a tar header, by its checksum (the oldest archives have no other mark),
/// or the zeros of an empty archive.
fn is_tar_header(block: &[u8]) -> bool {
    let Ok(block) = <&[u8; BLOCK]>::try_from(block) else {
        return false;
    };
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(block);
    let stored = 148..156;
    let sum: u32 = (0..BLOCK)
        .map(|i| if stored.contains(&i) { b' ' } else { block[i] })
        .map(u32::from)
        .sum();
    block.iter().all(|&byte| byte == 0) || header.cksum().is_ok_and(|given| given == sum)
}

/// Reader that counts the zero bytes at the end of what was read so far.
struct ZeroRun<R> {
    inner: R,
    zeros: Rc<Cell<usize>>,
}

impl<R: Read> Read for ZeroRun<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.zeros
            .set(match buffer[..len].iter().rposition(|&byte| byte != 0) {
                Some(last) => len - 1 - last,
                None => self.zeros.get().saturating_add(len),
            });
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{gray_png, gzip, load_path, put, refused, tar};
    use super::*;

    #[test]
    fn names_are_cleaned_and_dangerous_ones_passed_over() {
        assert_eq!(
            clean("./train//cat/1.png").as_deref(),
            Some("train/cat/1.png")
        );
        assert_eq!(clean("train/cat/").as_deref(), Some("train/cat"));
        for name in ["/etc/passwd", "../x.png", "a/../../b", "./", ""] {
            assert_eq!(clean(name), None, "{name}");
        }
    }

    #[test]
    fn links_and_names_outside_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.tar");
        let image = gray_png(2, 2, 0);
        let mut builder = tar::Builder::new(Vec::new());
        let mut link = tar::Header::new_ustar();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        builder
            .append_link(&mut link, "link.png", "/etc/passwd")
            .unwrap();
        let linked = builder.into_inner().unwrap();
        let plain = tar(&[
            ("/etc/a.png", &image),
            ("../b.png", &image),
            ("c.png", &image),
        ]);
        // The link's block, then an archive without its own start.
        put(&path, &[&linked[..BLOCK], &plain].concat());
        assert_eq!(load_path(&path).unwrap().train.images.len(), 1);
    }

    #[test]
    fn an_archive_cut_anywhere_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let image = gray_png(4, 4, 0);
        let whole = tar(&[("a.png", &image), ("b.png", &image)]);
        let (plain, zipped) = (dir.path().join("a.tar"), dir.path().join("a.tar.gz"));
        let end = whole.len() - 2 * BLOCK;
        for len in 0..=end {
            put(&plain, &whole[..len]);
            assert!(load_path(&plain).is_err(), "{len}");
        }
        refused(&plain, &["a.tar: end of archive: expected an end mark"]);
        put(&plain, &whole);
        assert_eq!(load_path(&plain).unwrap().name, "a");
        let whole = gzip(&whole);
        for len in 0..whole.len() {
            put(&zipped, &whole[..len]);
            assert!(load_path(&zipped).is_err(), "{len}");
        }
        let mut flipped = whole.clone();
        let checksum = whole.len() - 8;
        flipped[checksum] ^= 1;
        put(&zipped, &flipped);
        refused(
            &zipped,
            &["a.tar.gz: end of archive: expected a whole gzip stream"],
        );
    }

    #[test]
    fn a_file_of_another_kind_is_refused_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set");
        for (bytes, hint) in [
            (&b"PK\x03\x04rest"[..], "unpack it"),
            (&[0, 0, 8, 3, 0, 0], "give the folder"),
            (b"", "give a folder, a .tar"),
            (&[0x1f, 0x8b], "give a folder, a .tar"),
            (&[7; 4096], "give a folder, a .tar"),
        ] {
            put(&path, bytes);
            refused(&path, &["expected a tar archive", hint]);
        }
    }
}
