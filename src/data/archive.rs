//! Folders, tar archives and zip archives, read in the same way.
//!
//! Names are listed first and contents read later, so that an unusable layout is refused before any
//! image is decoded. Nothing is unpacked to disk.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::entry::Entry;
use super::filename::is_junk;
use super::hugging_face;
use super::listing::LeftOut;
use super::own_output::without_own;
use super::stream::open;
use super::tar_members::{self, Links};
use super::tarball::{BLOCK, is_tar_header};
use super::walk::{self, DEPTH, OddNames};
use super::zip_members::{self, Members};
use crate::error::{Error, Result};
use crate::files;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod zip_tests;

/// A folder or an archive.
pub(super) struct Store {
    path: PathBuf,
    kind: Kind,
    left_out: LeftOut,
}

/// Kinds of stores, each with what its listing found.
enum Kind {
    Folder(OddNames),
    Tar(Links),
    Zip(Members),
    /// Several archives by name. A file's name is that of its archive, a slash, and its own there.
    Shards(BTreeMap<String, Store>),
    /// Rows of Parquet files.
    Tables(hugging_face::Files),
}

impl Store {
    /// Returns the folder at `path`.
    pub(super) fn folder(path: &Path) -> Self {
        Self::new(path, Kind::Folder(OddNames::new()))
    }

    /// Files of any place by their names, as the file at `path` lists them.
    pub(super) fn listed(path: &Path, files: OddNames) -> Self {
        Self::new(path, Kind::Folder(files))
    }

    /// Several archives of the folder at `path`, by their names there.
    pub(super) fn shards(path: &Path, shards: BTreeMap<String, Self>) -> Self {
        Self::new(path, Kind::Shards(shards))
    }

    /// Rows of Parquet files.
    pub(super) fn tables(files: hugging_face::Files) -> Self {
        let path = files.source().to_path_buf();
        Self::new(&path, Kind::Tables(files))
    }

    fn new(path: &Path, kind: Kind) -> Self {
        Self {
            path: path.into(),
            kind,
            left_out: LeftOut::default(),
        }
    }

    /// Opens the archive at `path`: a tar, plain or gzip, or a zip.
    ///
    /// # Errors
    /// [`Error::Data`] with a hint if the file has another format.
    pub(super) fn archive(path: &Path) -> Result<Self> {
        let mut start = Vec::with_capacity(BLOCK);
        // A damaged gzip stream is reported when the archive is read; here the block is only too
        // short.
        let _ = open(path)?.take(BLOCK as u64).read_to_end(&mut start);
        if is_tar_header(&start) {
            return Ok(Self::new(path, Kind::Tar(Links::new())));
        }
        let hint = match start.as_slice() {
            [0, 0, 8, ..] => "an IDX file: give the folder that holds the four of them",
            // The first member, or the end of an archive without members.
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => {
                return Ok(Self::new(path, Kind::Zip(Members::new())));
            }
            _ => "give a folder, a .tar, a .tar.gz or a .zip",
        };
        Err(Error::data(
            path.display().to_string(),
            "expected a tar archive (plain or gzip) or a zip archive, found another kind of file",
            hint,
        ))
    }

    /// Path as given by the user.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Path, absolute, that the names of listed files begin at.
    pub(super) fn base(&self) -> PathBuf {
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        // A list names the files beside it.
        match (&self.kind, path.parent()) {
            (Kind::Folder(_), Some(folder)) if !path.is_dir() => folder.to_path_buf(),
            _ => path,
        }
    }

    /// Path of a listed file below [`Store::base`].
    pub(super) fn below_base(&self, name: &str) -> PathBuf {
        let odd = match &self.kind {
            // Of a folder; files that a list names have those names below it.
            Kind::Folder(odd) => odd.get(name),
            _ => None,
        };
        let below = odd.and_then(|path| path.strip_prefix(&self.path).ok());
        below.map_or_else(|| PathBuf::from(name), Path::to_path_buf)
    }

    /// Path of a listed file.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        match (&self.kind, self.shard_of(name)) {
            (Kind::Folder(odd), _) => walk::path_of(&self.path, odd, name),
            (_, Some((shard, name))) => shard.path_of(name),
            (Kind::Tables(files), _) => {
                let row = name.rsplit('/').next().unwrap_or(name);
                files.file_of(name).join(row)
            }
            _ => self.path.join(name),
        }
    }

    /// The file on disk that holds a listed file: itself, or the archive.
    pub(super) fn file_of(&self, name: &str) -> PathBuf {
        match (&self.kind, self.shard_of(name)) {
            (Kind::Folder(odd), _) => walk::path_of(&self.path, odd, name),
            (_, Some((shard, name))) => shard.file_of(name),
            (Kind::Tables(files), _) => files.file_of(name),
            _ => self.path.clone(),
        }
    }

    /// The archive among several that holds a file, and the file's name there.
    fn shard_of<'a>(&self, name: &'a str) -> Option<(&Self, &'a str)> {
        let Kind::Shards(shards) = &self.kind else {
            return None;
        };
        let (shard, name) = in_shard(shards, name)?;
        Some((&shards[shard], name))
    }

    /// Whether this is a folder, not an archive.
    pub(super) fn is_folder(&self) -> bool {
        matches!(self.kind, Kind::Folder(_))
    }

    /// Whether this is a tar archive.
    pub(super) fn is_tar(&self) -> bool {
        matches!(self.kind, Kind::Tar(_))
    }

    /// Whether an error of reading a file leaves the others readable. A tar is one stream.
    pub(super) fn is_fault_of_one_file(&self, error: &Error) -> bool {
        match error {
            Error::Data { .. } => true,
            Error::Format { .. } => !matches!(self.kind, Kind::Tar(_) | Kind::Shards(_)),
            _ => false,
        }
    }

    /// What is to be said about the listing: the files that were left out.
    pub(super) fn notes(&self) -> Vec<String> {
        self.left_out.note().into_iter().collect()
    }

    /// Name of the data set: the last part of the path, without the archive's extension.
    pub(super) fn name(&self) -> String {
        // Resolved first, because "." and ".." have no name of their own.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let Some(name) = path.file_name() else {
            return path.display().to_string();
        };
        let name = name.to_string_lossy();
        let stem = [".tar.gz", ".tgz", ".tar", ".zip", ".parquet"]
            .iter()
            .find_map(|extension| name.strip_suffix(extension))
            .filter(|stem| {
                !matches!(self.kind, Kind::Folder(_) | Kind::Shards(_)) && !stem.is_empty()
            });
        stem.unwrap_or(&name).to_string()
    }

    /// Lists all files and folders, in no particular order. A link is the file that it leads to.
    ///
    /// Skips this program's own output. Leaves out, with a note: links that lead outside, nowhere, or
    /// back to a folder around them; pipes and devices; folders below those of a data set; in an
    /// archive links to folders (in a zip all links), and names that are absolute or contain `..`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a damaged archive or a name that is not UTF-8;
    /// [`Error::Data`] for a sparse or encrypted file in an archive, and where there are too many names.
    pub(super) fn list(&mut self) -> Result<Vec<Entry>> {
        let (path, left_out) = (&self.path, &mut self.left_out);
        let entries = match &mut self.kind {
            Kind::Folder(odd) => {
                let (entries, found) = walk::list(path, left_out)?;
                *odd = found;
                entries
            }
            Kind::Tar(links) => {
                let (entries, found) = tar_members::list(path, left_out)?;
                *links = found;
                entries
            }
            Kind::Zip(members) => {
                let (entries, found) = zip_members::list(path, left_out)?;
                *members = found;
                entries
            }
            // Made with a layout already.
            Kind::Shards(_) | Kind::Tables(_) => Vec::new(),
        };
        let entries = without_own(entries);
        if self.is_folder() {
            let deepest = |name: &str| name.matches('/').count() + 1 == DEPTH;
            for entry in &entries {
                if entry.is_folder && deepest(&entry.name) && !is_junk(&entry.name) {
                    self.left_out.add(&entry.name, "a folder too far inside");
                }
            }
        }
        Ok(entries)
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
        match &self.kind {
            Kind::Folder(_) => {}
            Kind::Tar(links) => return tar_members::read(&self.path, links, wanted, &mut each),
            Kind::Zip(members) => return zip_members::read(&self.path, members, wanted, &mut each),
            Kind::Shards(shards) => return read_shards(shards, wanted, &mut each),
            Kind::Tables(files) => return hugging_face::read(files, wanted, &mut each),
        }
        let mut files: Vec<(&String, usize)> = wanted.iter().map(|(name, &i)| (name, i)).collect();
        files.sort_unstable_by_key(|&(_, index)| index);
        for (name, index) in files {
            let mut file = io::BufReader::new(files::open(&self.path_of(name))?);
            each(index, &mut file)?;
        }
        Ok(())
    }
}

/// Name of the archive that holds a file, and the file's name there.
fn in_shard<'a>(shards: &BTreeMap<String, Store>, name: &'a str) -> Option<(&'a str, &'a str)> {
    let parts = name.match_indices('/');
    let mut parts = parts.map(|(slash, _)| (&name[..slash], &name[slash + 1..]));
    parts.find(|(shard, _)| shards.contains_key(*shard))
}

/// [`Store::read`] of several archives, one after the other.
fn read_shards(
    shards: &BTreeMap<String, Store>,
    wanted: &HashMap<String, usize>,
    each: &mut dyn FnMut(usize, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut by_shard: HashMap<&str, HashMap<String, usize>> = HashMap::new();
    for (name, &index) in wanted {
        if let Some((shard, name)) = in_shard(shards, name) {
            let own = by_shard.entry(shard).or_default();
            own.insert(name.to_owned(), index);
        }
    }
    for (shard, store) in shards {
        if let Some(wanted) = by_shard.get(shard.as_str()) {
            store.read(wanted, &mut *each)?;
        }
    }
    Ok(())
}
