//! Folders and tar archives, read in the same way.
//!
//! Names are listed first and contents read later, so that an unusable layout is refused before any
//! image is decoded. Nothing is unpacked to disk.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::decode::format_of;
use super::entry::Entry;
use super::filename::{is_image, is_junk};
use super::own_output::{HEAD, is_own, may_be_own, parents, without_own};
use super::stream::{open, read_error};
use super::tarball::{self, BLOCK, Kind, is_tar_header};
use crate::error::{Error, Result};
use crate::files;

/// Number of folder levels that are listed: split, class and more for images without labels.
const DEPTH: usize = 12;
/// How often links may lead to one folder: a split that serves as two, and some more. Without a limit,
/// folders full of links to each other would be listed for ever.
const TIMES: usize = 8;
/// Memory for the list of an archive's members in bytes, besides the length of the archive itself: in a
/// few bytes of gzip there are thousands of names.
const MAX_LIST: u64 = 64 << 20;
/// Memory for an entry of the list besides its name, in bytes.
const ENTRY: u64 = 64;
/// Links in a row that are followed, as by Linux.
const MAX_LINKS: usize = 40;
/// Largest file that has several names in an archive, in bytes.
const MAX_LINKED: u64 = 256 << 20;

/// A folder or a tar archive.
pub(super) struct Store {
    path: PathBuf,
    is_tar: bool,
    /// Links inside an archive: the file that each of them leads to.
    links: HashMap<String, String>,
    /// Files whose paths are not simply their names in the folder: names that are no UTF-8, and files of a list.
    odd: HashMap<String, PathBuf>,
    left_out: LeftOut,
}

/// Files that are left out, a few of them by name and with the reason.
#[derive(Default)]
struct LeftOut {
    named: Vec<String>,
    count: usize,
}

impl LeftOut {
    /// Number of files that are named.
    const NAMED: usize = 4;

    fn add(&mut self, name: &str, reason: &str) {
        self.count += 1;
        if self.named.len() < Self::NAMED {
            self.named.push(format!("{name} ({reason})"));
        }
    }

    /// The files in a sentence; none if there are none.
    fn note(&self) -> Option<String> {
        let named = self.named.join(", ");
        match (self.count, self.count - self.named.len()) {
            (0, _) => None,
            (1, _) => Some(format!("1 file is left out of the data set: {named}")),
            (count, 0) => Some(format!(
                "{count} files are left out of the data set: {named}"
            )),
            (count, more) => Some(format!(
                "{count} files are left out of the data set: {named} and {more} more"
            )),
        }
    }
}

impl Store {
    /// Returns the folder at `path`.
    pub(super) fn folder(path: &Path) -> Self {
        Self::new(path, false)
    }

    /// Files of any place by their names, as the file at `path` lists them.
    pub(super) fn listed(path: &Path, files: HashMap<String, PathBuf>) -> Self {
        Self {
            odd: files,
            ..Self::new(path, false)
        }
    }

    fn new(path: &Path, is_tar: bool) -> Self {
        Self {
            path: path.into(),
            is_tar,
            links: HashMap::new(),
            odd: HashMap::new(),
            left_out: LeftOut::default(),
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
            return Ok(Self::new(path, true));
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

    /// Path of a listed file.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        let odd = self.odd.get(name);
        odd.cloned().unwrap_or_else(|| self.path.join(name))
    }

    /// Whether this is a tar archive.
    pub(super) fn is_tar(&self) -> bool {
        self.is_tar
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
        let stem = [".tar.gz", ".tgz", ".tar"]
            .iter()
            .find_map(|extension| name.strip_suffix(extension))
            .filter(|stem| self.is_tar && !stem.is_empty());
        stem.unwrap_or(&name).to_string()
    }

    /// Lists all files and folders, in no particular order. A link is the file that it leads to.
    ///
    /// Skips this program's own output. Leaves out, with a note: links that lead outside, nowhere, or
    /// back to a folder around them; pipes and devices; folders below those of a data set; in an
    /// archive links to folders, and names that are absolute or contain `..`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a damaged archive or a name that is not UTF-8;
    /// [`Error::Data`] for a sparse file in an archive, and where there are too many names.
    pub(super) fn list(&mut self) -> Result<Vec<Entry>> {
        let entries = if self.is_tar {
            self.list_archive()?
        } else {
            self.list_folder()?
        };
        let entries = without_own(entries);
        if !self.is_tar {
            let deepest = |name: &str| name.matches('/').count() + 1 == DEPTH;
            for entry in &entries {
                if entry.is_folder && deepest(&entry.name) && !is_junk(&entry.name) {
                    self.left_out.add(&entry.name, "a folder too far inside");
                }
            }
        }
        Ok(entries)
    }

    fn list_archive(&mut self) -> Result<Vec<Entry>> {
        let length = fs::metadata(&self.path).map_err(Error::io("read", &self.path))?;
        let most = MAX_LIST.saturating_add(length.len());
        let (mut entries, mut links) = (Vec::new(), Vec::new());
        let mut listed = 0;
        let (path, left_out) = (&self.path, &mut self.left_out);
        tarball::visit(path, &mut |member, content| {
            let Some(name) = clean(&member.name) else {
                // The archive's own folder, "./", is nothing to speak of.
                if !member.name.split('/').all(|part| matches!(part, "" | ".")) {
                    left_out.add(&member.name, "a name that leads outside");
                }
                return Ok(());
            };
            listed += name.len() as u64 + ENTRY;
            let is_folder = matches!(member.kind, Kind::Folder);
            match member.kind {
                Kind::File | Kind::Folder => {
                    let found = match is_folder {
                        true => Look::default(),
                        false => Look::at(&name, &path.join(&name), || Ok(content))?,
                    };
                    entries.push(found.entry(name, is_folder));
                }
                Kind::HardLink(target) => {
                    listed += target.len() as u64;
                    links.push((name, clean(&target)));
                }
                Kind::SymbolicLink(target) => {
                    listed += (name.len() + target.len()) as u64;
                    let target = target_of(&name, &target);
                    links.push((name, target));
                }
                Kind::Other => {}
                _ if is_junk(&name) => {}
                Kind::Sparse => {
                    return Err(Error::data(
                        path.join(&name).display().to_string(),
                        "expected a whole file, found a sparse one, of which only parts are stored",
                        "create the archive again, without --sparse",
                    ));
                }
                Kind::Special => left_out.add(&name, "a pipe or a device"),
            }
            if listed > most {
                return Err(Error::data(
                    path.display().to_string(),
                    format!("expected names of members that fit in {most} bytes, found more"),
                    "is it an archive of images?",
                ));
            }
            Ok(())
        })?;
        self.follow(links, &mut entries);
        Ok(entries)
    }

    /// Adds the links of an archive (name, and target if it is inside) to its entries.
    fn follow(&mut self, links: Vec<(String, Option<String>)>, entries: &mut Vec<Entry>) {
        let mut files: HashMap<&str, Look> = HashMap::new();
        // The archive's own folder has no name.
        let mut folders: HashSet<&str> = HashSet::from([""]);
        for entry in entries.iter() {
            if entry.is_folder {
                folders.insert(&entry.name);
            } else {
                let (is_own, is_image) = (entry.is_own, entry.is_image);
                files.insert(&entry.name, Look { is_own, is_image });
            }
            folders.extend(parents(&entry.name));
        }
        let targets: HashMap<&str, Option<&str>> = links
            .iter()
            .map(|(name, target)| (name.as_str(), target.as_deref()))
            .collect();
        let mut linked = Vec::new();
        for (name, _) in &links {
            let mut at = Some(name.as_str());
            for _ in 0..MAX_LINKS {
                match at.and_then(|name| targets.get(name)) {
                    Some(target) => at = *target,
                    None => break,
                }
            }
            let reason = match at.map(|at| (at, files.get(at))) {
                Some((file, Some(&look))) => {
                    self.links.insert(name.clone(), file.to_owned());
                    linked.push(look.entry(name.clone(), false));
                    continue;
                }
                Some((at, None)) if folders.contains(at) => "a link to a folder",
                Some(_) => "a link that leads nowhere",
                None => "a link that leads outside",
            };
            if !is_junk(name) {
                self.left_out.add(name, reason);
            }
        }
        entries.extend(linked);
    }

    fn list_folder(&mut self) -> Result<Vec<Entry>> {
        let real = fs::canonicalize(&self.path).map_err(Error::io("read", &self.path))?;
        let mut walk = Walk {
            root: &self.path,
            entries: Vec::new(),
            around: vec![real],
            times: HashMap::new(),
            odd: HashMap::new(),
            left_out: &mut self.left_out,
        };
        walk.folder(&self.path, "", DEPTH)?;
        let mut entries = walk.entries;
        self.odd = walk.odd;
        let this = &*self;
        entries.par_iter_mut().try_for_each(|entry| {
            if !entry.is_folder {
                let path = this.path_of(&entry.name);
                let found = Look::at(&entry.name, &path, || files::open(&path))?;
                (entry.is_own, entry.is_image) = (found.is_own, found.is_image);
            }
            Ok(())
        })?;
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
        if self.is_tar {
            return self.read_archive(wanted, &mut each);
        }
        let mut files: Vec<(&String, usize)> = wanted.iter().map(|(name, &i)| (name, i)).collect();
        files.sort_unstable_by_key(|&(_, index)| index);
        for (name, index) in files {
            let mut file = io::BufReader::new(files::open(&self.path_of(name))?);
            each(index, &mut file)?;
        }
        Ok(())
    }

    fn read_archive(
        &self,
        wanted: &HashMap<String, usize>,
        each: &mut dyn FnMut(usize, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let mut files: HashMap<&str, Vec<usize>> = HashMap::new();
        for (name, &index) in wanted {
            let file = self.links.get(name).unwrap_or(name);
            files.entry(file).or_default().push(index);
        }
        files
            .values_mut()
            .for_each(|indices| indices.sort_unstable());
        tarball::visit(&self.path, &mut |member, content| {
            let name = clean(&member.name).filter(|_| matches!(member.kind, Kind::File));
            let indices = name.as_ref().and_then(|name| files.get(name.as_str()));
            let (Some(name), Some(indices)) = (&name, indices) else {
                return Ok(());
            };
            if let [index] = indices[..] {
                return each(index, content);
            }
            let path = self.path.join(name);
            let mut bytes = Vec::new();
            content
                .take(MAX_LINKED + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| read_error(&path, "content", "a whole file", error))?;
            if bytes.len() as u64 > MAX_LINKED {
                let problem = format!(
                    "expected at most {MAX_LINKED} bytes in a file with links to it, found more"
                );
                let hint = "put copies into the archive instead of links";
                return Err(Error::data(path.display().to_string(), problem, hint));
            }
            let mut indices = indices.iter();
            indices.try_for_each(|&index| each(index, &mut bytes.as_slice()))
        })
    }
}

/// Listing of a folder.
struct Walk<'a> {
    root: &'a Path,
    entries: Vec<Entry>,
    /// The folder that is being listed and those around it, without links.
    around: Vec<PathBuf>,
    /// How often each folder that links lead to was listed.
    times: HashMap<PathBuf, usize>,
    /// Files whose names are no UTF-8, by the names that they are listed under.
    odd: HashMap<String, PathBuf>,
    left_out: &'a mut LeftOut,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, below: &str, depth: usize) -> Result<()> {
        for item in fs::read_dir(folder).map_err(Error::io("read", folder))? {
            let item = item.map_err(Error::io("read", folder))?;
            let path = item.path();
            let name = item.file_name().to_string_lossy().into_owned();
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
            let mut inside = inside;
            if self.root.join(&inside) != path {
                // Names of different bytes may look the same.
                while self.odd.contains_key(&inside) {
                    inside.push('\u{fffd}');
                }
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

/// What the name and the beginning of a file say.
#[derive(Clone, Copy, Default)]
struct Look {
    is_own: bool,
    is_image: bool,
}

impl Look {
    /// Looks at a file. Opens it only where its name does not say all, and reads only its beginning.
    fn at<R: Read>(name: &str, path: &Path, open: impl FnOnce() -> Result<R>) -> Result<Self> {
        let named = is_image(name);
        let mut head = Vec::new();
        if !named && !is_junk(name) || may_be_own(name) {
            open()?
                .take(HEAD as u64)
                .read_to_end(&mut head)
                .map_err(|error| read_error(path, "beginning", "a readable file", error))?;
        }
        Ok(Self {
            is_own: is_own(name, &head),
            is_image: named || format_of(&head).is_some(),
        })
    }

    fn entry(self, name: String, is_folder: bool) -> Entry {
        Entry {
            name,
            is_folder,
            is_own: self.is_own,
            is_image: self.is_image,
        }
    }
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

/// Name that a symbolic link in an archive leads to; none if that is outside.
fn target_of(link: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
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

    /// A member: name, type, content, and target where it is a link.
    type MemberOf<'a> = (&'a str, tar::EntryType, &'a [u8], &'a str);

    fn archive(members: &[MemberOf]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, kind, content, target) in members {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_cksum();
            bytes.extend(header.as_bytes());
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        bytes.resize(bytes.len() + 2 * BLOCK, 0);
        bytes
    }

    #[test]
    fn links_inside_an_archive_are_the_files_that_they_lead_to() {
        use tar::EntryType::{Link, Regular, Symlink};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.tar.gz");
        let [first, second] = [1, 2].map(|seed| gray_png(1, 1, seed));
        // Names of the images in the order of the data set, with their pixels.
        let members: &[MemberOf] = &[
            ("./train/a/2.png", Symlink, b"", "../../pool/x.png"),
            ("./pool/x.png", Symlink, b"", "../train/b/1.png"),
            ("./train/b/1.png", Regular, &first, ""),
            ("./train/a/1.png", Link, b"", "./train/b/1.png"),
            ("./train/b/0.png", Regular, &second, ""),
            ("./train/a/0.png", Symlink, b"", ".././b//0.png"),
            ("./test/a/0.png", Link, b"", "train/a/2.png"),
            ("./test/b/0.png", Regular, &second, ""),
        ];
        put(&path, &gzip(&archive(members)));
        refused(&path, &["expected the folders train and test, found pool/"]);
        let mut members = members.to_vec();
        // Over a hidden link.
        members[0].3 = "../../.pool/x.png";
        members[1].0 = "./.pool/x.png";
        put(&path, &archive(&members));
        let set = load_path(&path).unwrap();
        assert_eq!(set.train.images.pixels(), [2, 1, 1, 2, 1]);
        assert_eq!(set.test.images.pixels(), [1, 2]);
        assert!(set.notes[0].starts_with("2 of 2 test images are duplicates of training images"));
        assert_eq!(set.notes.len(), 1);
    }

    #[test]
    fn what_is_left_out_of_an_archive_is_named() {
        use tar::EntryType::{Directory, Fifo, GNUSparse, Link, Regular, Symlink};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.tar");
        let image = gray_png(2, 2, 0);
        let members: &[MemberOf] = &[
            ("./", Directory, b"", ""),
            ("a.png", Regular, &image, ""),
            ("b.png", Symlink, b"", "/etc/passwd"),
            ("c.png", Symlink, b"", "../a.png"),
            ("d.png", Link, b"", "nowhere.png"),
            ("pipe.png", Fifo, b"", ""),
            ("/etc/e.png", Regular, &image, ""),
            ("../f.png", Regular, &image, ""),
            ("g.png", Symlink, b"", "g.png"),
            (".hidden", Symlink, b"", "nowhere"),
        ];
        put(&path, &archive(members));
        let set = load_path(&path).unwrap();
        assert_eq!(set.train.images.len(), 1);
        let note = "7 files are left out of the data set: pipe.png (a pipe or a device), \
            /etc/e.png (a name that leads outside), ../f.png (a name that leads outside), \
            b.png (a link that leads outside) and 3 more";
        assert_eq!(set.notes, [note]);

        for (target, reason) in [
            ("../..", "leads outside"),
            ("x.png", "leads nowhere"),
            ("..", "to a folder"),
            ("sub", "to a folder"),
        ] {
            let link: MemberOf = ("in/l.png", Symlink, b"", target);
            let file: MemberOf = ("in/a.png", Regular, &image, "");
            let below: MemberOf = ("in/sub/.keep", Regular, b"", "");
            put(&path, &archive(&[link, file, below]));
            let notes = load_path(&path).unwrap().notes;
            assert!(notes[0].contains(reason), "{target}: {notes:?}");
        }
        put(&path, &archive(&[("a.png", GNUSparse, &image, "")]));
        refused(&path, &["set.tar/a.png", "found a sparse one"]);
    }

    /// Long names and attributes come from GNU and pax headers, in the ways that programs write them.
    #[test]
    fn long_names_and_attributes_are_read_and_held_against_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.tar");
        let image = gray_png(1, 1, 7);
        let long = format!("{}/{}.png", "x".repeat(150), "y".repeat(150));
        let pax = |pairs: &[(&str, &str)]| -> Vec<u8> {
            let record = |(key, value): &(&str, &str)| {
                let length = (1..).find(|n| format!("{n} {key}={value}\n").len() == *n);
                format!("{} {key}={value}\n", length.unwrap())
            };
            pairs.iter().map(record).collect::<String>().into_bytes()
        };
        use tar::EntryType::{GNULongLink, GNULongName, Link, Regular, XGlobalHeader, XHeader};
        let named = [long.as_bytes(), b"\0"].concat();
        let by_path = pax(&[("mtime", "1.5"), ("path", &long)]);
        let linked = pax(&[("linkpath", &long), ("comment", "two\nlines")]);
        let global = pax(&[("comment", "of all")]);
        let longer = "z".repeat(301) + ".png";
        let other = [longer.as_bytes(), b"\0"].concat();
        let sets: [&[MemberOf]; 2] = [
            &[
                ("x", GNULongName, &named, ""),
                ("cut", Regular, &image, ""),
                ("x", GNULongLink, &named, ""),
                ("z.png", Link, b"", "cut"),
            ],
            &[
                ("x", XGlobalHeader, &global, ""),
                ("x", XHeader, &by_path, ""),
                ("cut", Regular, &image, ""),
                ("x", XHeader, &linked, ""),
                ("x", GNULongName, &other, ""),
                ("z.png", Link, b"", "cut"),
            ],
        ];
        for members in sets {
            put(&path, &archive(members));
            let found = Store::tar(&path).unwrap().list().unwrap();
            assert_eq!((found.len(), found[0].name.as_str()), (2, long.as_str()));
            assert!(found[1].name.starts_with('z'));
        }
        // An attribute's size goes before the header's, which is 0 where it does not suffice.
        let size = pax(&[("size", &image.len().to_string())]);
        let mut packed = archive(&[("x", XHeader, &size, ""), ("a.png", Regular, &image, "")]);
        let mut header = tar::Header::new_ustar();
        header
            .as_mut_bytes()
            .copy_from_slice(&packed[2 * BLOCK..3 * BLOCK]);
        header.set_size(0);
        header.set_cksum();
        packed[2 * BLOCK..3 * BLOCK].copy_from_slice(header.as_bytes());
        put(&path, &packed);
        assert_eq!(load_path(&path).unwrap().train.images.pixels(), [7]);

        for kind in [GNULongName, GNULongLink, XHeader, XGlobalHeader] {
            let huge = vec![b'a'; (64 << 10) + 1];
            put(
                &path,
                &archive(&[("x", kind, &huge, ""), ("a.png", Regular, &image, "")]),
            );
            refused(
                &path,
                &["archive member 1", "at most 65536 bytes, found 65537"],
            );
        }
        for wrong in [
            "5 a=b\n",
            "99 path=x\n",
            "6 path\n",
            "x path=y\n",
            "9 size=x\n",
        ] {
            let members: &[MemberOf] = &[
                ("x", XHeader, wrong.as_bytes(), ""),
                ("a.png", Regular, &image, ""),
            ];
            put(&path, &archive(members));
            refused(&path, &["archive member 1", "attributes that are none"]);
        }
        // Parts of a sparse file, declared by attributes.
        let sparse = pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.name", "a.png")]);
        let members: &[MemberOf] = &[
            ("x", XHeader, &sparse, ""),
            ("GNUSparseFile.1/a.png", Regular, &image, ""),
        ];
        put(&path, &archive(members));
        refused(&path, &["found a sparse one"]);
    }

    #[test]
    fn a_member_that_takes_for_ever_to_pass_over_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.tar");
        let mut packed = archive(&[(".huge", tar::EntryType::Regular, b"", "")]);
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes().copy_from_slice(&packed[..BLOCK]);
        header.set_size((2 << 30) + 1);
        header.set_cksum();
        packed[..BLOCK].copy_from_slice(header.as_bytes());
        put(&path, &packed);
        refused(&path, &["set.tar/.huge", "found 2147483649", "take it out"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_and_pipes_in_a_folder() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        put(at("set/train/a/1.png"), &gray_png(1, 1, 3));
        symlink("train", at("set/val")).unwrap();
        let set = load_path(&at("set")).unwrap();
        assert_eq!((set.train.clone(), set.notes.len()), (set.test, 1));

        // Each of a hundred links leads back, and none multiplies the others.
        put(at("flat/1.png"), &gray_png(1, 1, 3));
        for i in 0..100 {
            symlink(".", at(&format!("flat/l{i}"))).unwrap();
        }
        symlink("nowhere", at("flat/x.png")).unwrap();
        symlink("y.png", at("flat/y.png")).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(at("flat/z.png"))
            .status();
        assert!(made.unwrap().success());
        let set = load_path(&at("flat")).unwrap();
        assert_eq!(set.train.images.len(), 1);
        assert!(
            set.notes[0].starts_with("103 files are left out"),
            "{:?}",
            set.notes
        );

        // Folders without a loop, each full of links to the next.
        for (name, next) in [("p", "../q"), ("q", "../r")] {
            for i in 0..100 {
                fs::create_dir_all(at(&format!("many/{name}"))).unwrap();
                symlink(next, at(&format!("many/{name}/l{i}"))).unwrap();
            }
        }
        put(at("many/r/1.png"), &gray_png(1, 1, 3));
        refused(&at("many"), &["at most 8 links to one folder"]);
    }

    #[test]
    fn a_folder_that_is_too_deep_is_named() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path().join("1.png"), &gray_png(1, 1, 3));
        let deepest = "d/".repeat(DEPTH) + "2.png";
        put(dir.path().join(&deepest), &gray_png(1, 1, 3));
        let set = load_path(dir.path()).unwrap();
        assert_eq!(set.train.images.len(), 1);
        let words = "d/d (a folder too far inside)";
        assert!(set.notes[0].contains(words), "{:?}", set.notes);
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
