//! Listing of a folder: names, links and what cannot be read.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::entry::Entry;
use super::filename::is_junk;
use super::listing::{LeftOut, Look};
use crate::error::{Error, Result};
use crate::files;

/// Number of folder levels that are listed: split, class and more for images without labels.
pub(super) const DEPTH: usize = 12;
/// How often links may lead to one folder: a split that serves as two, and some more. Without a limit,
/// folders full of links to each other would be listed for ever.
const TIMES: usize = 8;

/// Files whose names are no UTF-8, by the names that they are listed under.
pub(super) type OddNames = HashMap<String, PathBuf>;

/// Lists a folder.
///
/// # Errors
/// [`Error::Io`]; [`Error::Data`] for too many links to one folder.
pub(super) fn list(path: &Path, left_out: &mut LeftOut) -> Result<(Vec<Entry>, OddNames)> {
    let real = fs::canonicalize(path).map_err(Error::io("read", path))?;
    let mut walk = Walk {
        root: path,
        entries: Vec::new(),
        around: vec![real],
        times: HashMap::new(),
        odd: HashMap::new(),
        left_out,
    };
    walk.folder(path, "", DEPTH)?;
    let (mut entries, odd) = (walk.entries, walk.odd);
    entries.par_iter_mut().try_for_each(|entry| {
        if !entry.is_folder {
            let path = path_of(path, &odd, &entry.name);
            let found = Look::at(&entry.name, &path, || files::open(&path))?;
            (entry.is_own, entry.is_image) = (found.is_own, found.is_image);
        }
        Ok(())
    })?;
    Ok((entries, odd))
}

/// Path of a listed file.
pub(super) fn path_of(root: &Path, odd: &OddNames, name: &str) -> PathBuf {
    let path = odd.get(name).cloned();
    path.unwrap_or_else(|| root.join(name))
}

/// Listing of a folder.
struct Walk<'a> {
    root: &'a Path,
    entries: Vec<Entry>,
    /// The folder that is being listed and those around it, without links.
    around: Vec<PathBuf>,
    /// How often each folder that links lead to was listed.
    times: HashMap<PathBuf, usize>,
    odd: OddNames,
    left_out: &'a mut LeftOut,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, below: &str, depth: usize) -> Result<()> {
        for item in fs::read_dir(folder).map_err(Error::io("read", folder))? {
            let item = item.map_err(Error::io("read", folder))?;
            let path = item.path();
            let name = listed_name(folder, &item.file_name());
            // A hidden folder (.git) may be large and holds no images.
            if name.starts_with('.') {
                continue;
            }
            let inside = match below {
                "" => name.clone(),
                _ => format!("{below}/{name}"),
            };
            let kind = item.file_type().map_err(Error::io("read", &path))?;
            // Follows links: data sets are often put together from them.
            let meta = match fs::metadata(&path) {
                Err(error) if kind.is_symlink() && leads_nowhere(&error) => {
                    self.leave_out(&inside, "a link that leads nowhere");
                    continue;
                }
                meta => meta.map_err(Error::io("read", &path))?,
            };
            let is_folder = meta.is_dir();
            // Reading a pipe or a device might never end.
            if !is_folder && !meta.is_file() {
                self.leave_out(&inside, "a pipe or a device");
                continue;
            }
            if is_folder && depth > 1 {
                let real = if kind.is_symlink() {
                    fs::canonicalize(&path).map_err(Error::io("read", &path))?
                } else {
                    let around = self.around.last();
                    around.map_or(path.clone(), |folder| folder.join(item.file_name()))
                };
                if self.around.contains(&real) {
                    self.leave_out(&inside, "a link back to a folder around it");
                    continue;
                }
                self.count(&real, &inside)?;
                self.around.push(real);
                self.folder(&path, &inside, depth - 1)?;
                self.around.pop();
            }
            if self.root.join(&inside) != path {
                self.odd.insert(inside.clone(), path);
            }
            self.entries.push(Look::default().entry(inside, is_folder));
        }
        Ok(())
    }

    fn leave_out(&mut self, name: &str, reason: &str) {
        if !is_junk(name) {
            self.left_out.add(name, reason);
        }
    }

    /// Refuses a folder that is listed for too many times.
    fn count(&mut self, real: &Path, name: &str) -> Result<()> {
        let times = self.times.entry(real.to_path_buf()).or_default();
        *times += 1;
        if *times <= TIMES {
            return Ok(());
        }
        Err(Error::data(
            self.root.display().to_string(),
            format!("expected at most {TIMES} links to one folder, found more that lead to {name}"),
            "remove the links",
        ))
    }
}

/// Name that a file is listed under: its own, or one with its bytes as `caf\xe9` where it is no UTF-8. It is the same in every folder,
/// so that a class is one class in all splits, and no other file of the folder has it.
fn listed_name(folder: &Path, name: &OsStr) -> String {
    if let Some(name) = name.to_str() {
        return name.to_owned();
    }
    let mut listed = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        listed += chunk.valid();
        let bytes = chunk.invalid().iter();
        listed.extend(bytes.map(|byte| format!("\\x{byte:02x}")));
    }
    // A file may really be called so.
    while fs::symlink_metadata(folder.join(&listed)).is_ok() {
        listed.push(char::REPLACEMENT_CHARACTER);
    }
    listed
}

/// Whether the file behind a link is missing, or the link leads to itself.
fn leads_nowhere(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(libc::ELOOP) {
        return true;
    }
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
