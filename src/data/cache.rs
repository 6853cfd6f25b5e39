//! Files of decoded images: a large set is decoded once, and need not fit in memory.
//!
//! A file has the values of all images as they arrived, then a description in JSON (where each image belongs,
//! labels, what was said), then the description's checksum and length, and a mark. It gets its name when it is whole. What a
//! killed process left, values and a list of whose they are, is continued by the next one as far as its checksums hold.

mod part;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::block::Block;
use super::dataset::{Dataset, Split};
use super::images::{Files, Images};
use super::loading::{Cache, LARGE, loading};
use super::reading::{Damaged, Reading};
use crate::error::{Error, Result};
use crate::files;
pub(super) use part::{Part, Seen};

/// Version of the files. It is part of their names: files of other versions are found by nobody but
/// [`cached_files`].
const VERSION: u32 = 2;
/// End of a whole file.
const MARK: &[u8; 8] = b"advclimg";
/// Length of a description's checksum in bytes.
const SUM: usize = 14;
/// End of the names of whole files, of unfinished ones, of the list of what is in those, and of locks.
const WHOLE: &str = "images";
const PART: &str = "images.part";
const LIST: &str = "images.list";
const LOCK: &str = "images.lock";
/// Values with a checksum of their own, in bytes.
const CHECKED: usize = 16 << 20;

/// The place of a data set in the cache.
pub(super) struct Slot {
    folder: PathBuf,
    /// Name without its end: of the data set, and a hash of its files and of how they are read.
    name: String,
    source: String,
}

/// What a file's description says.
#[derive(Serialize, Deserialize)]
struct Description {
    source: String,
    name: String,
    classes: Vec<String>,
    /// Channels, height and width.
    shape: [usize; 3],
    train: KeptSplit,
    test: KeptSplit,
    val: Option<KeptSplit>,
    notes: Vec<String>,
    reading: Reading,
    /// Path, absolute, that the names of files begin at.
    base: PathBuf,
    /// Name of the file of each image, in the order of the values.
    files: Vec<String>,
    /// CRC-32 of each 16 MiB of values.
    checksums: Vec<String>,
}

/// A split in a file's description.
#[derive(Serialize, Deserialize)]
struct KeptSplit {
    /// Which of the file's images, in order.
    images: Vec<usize>,
    labels: Vec<usize>,
}

impl Slot {
    /// The place of a data set whose files are described by `stamp`; none where they cannot be, where their folder has a name that
    /// is no UTF-8, which a description cannot keep, and where nothing is to be kept: then they are not looked at.
    pub(super) fn find(
        source: &Path,
        reading: &Reading,
        damaged: Damaged,
        stamp: impl FnOnce() -> Option<String>,
    ) -> Option<Self> {
        let loading = loading();
        let folder = loading.folder.clone()?;
        if loading.cache == Cache::Never {
            return None;
        }
        let real = fs::canonicalize(source).ok()?;
        let (whole, stamp) = (real.to_str()?, stamp()?);
        let how = serde_json::to_string(&(VERSION, reading, damaged)).expect("plain values");
        let hash = files::hash(format!("{whole}\0{how}\0{stamp}").as_bytes());
        let hash = hash.rsplit('-').next().unwrap_or_default();
        let name = real.file_name().unwrap_or_default().to_string_lossy();
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = name.chars().take(40).map(plain).collect();
        Some(Self {
            folder,
            name: format!("{name}-{hash}"),
            source: whole.to_owned(),
        })
    }

    fn path(&self, end: &str) -> PathBuf {
        self.folder.join(format!("{}.{end}", self.name))
    }

    /// Whether a set of so many bytes of values is to be kept.
    pub(super) fn is_for(bytes: usize) -> bool {
        match loading().cache {
            Cache::Auto => bytes > LARGE,
            Cache::Always => true,
            Cache::Never => false,
        }
    }

    /// The data set, where it was kept and is whole. A damaged file is made anew by whoever asks.
    pub(super) fn load(&self) -> Option<Dataset> {
        read(&self.path(WHOLE)).ok().flatten()
    }

    /// Whether a process was killed while it decoded this set.
    pub(super) fn is_begun(&self) -> bool {
        self.path(LIST).exists()
    }

    /// Begins a file of images of a shape (channels, height, width). Waits for another process that makes the same one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn begin(&self, shape: [usize; 3]) -> Result<Begun> {
        self.locked(|lock| Part::begin(self, shape, lock))
    }

    /// Continues what a killed process left of the file of a set of so many images; without any where nothing of it
    /// holds. Waits as [`Slot::begin`].
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn resume(&self, images: usize) -> Result<Begun> {
        self.locked(|lock| Part::resume(self, images, lock))
    }

    fn locked(&self, open: impl FnOnce(File) -> Result<Part>) -> Result<Begun> {
        fs::create_dir_all(&self.folder).map_err(Error::io("create", &self.folder))?;
        let lock_path = self.path(LOCK);
        let lock = files::open_own(&lock_path)?;
        lock.lock().map_err(Error::io("lock", &lock_path))?;
        if let Some(dataset) = self.load() {
            let _ = fs::remove_file(&lock_path);
            return Ok(Begun::Elsewhere(Box::new(dataset)));
        }
        open(lock).map(|part| Begun::Part(Box::new(part)))
    }
}

/// What [`Slot::begin`] and [`Slot::resume`] come to.
pub(super) enum Begun {
    /// A file to be made.
    Part(Box<Part>),
    /// The data set: another process has made the file meanwhile.
    Elsewhere(Box<Dataset>),
}

/// Number of values of an image; none for an impossible shape.
fn image_len(shape: [usize; 3]) -> Option<usize> {
    let mut sides = shape.iter();
    let len = sides.try_fold(1usize, |len, side| len.checked_mul(*side));
    len.filter(|len| *len > 0)
}

/// Checksums of values, computed by all cores.
fn checksums(values: &[u8]) -> Vec<String> {
    let chunks = values.par_chunks(CHECKED);
    chunks.map(|chunk| files::checksum([chunk])).collect()
}

/// Reads the description at the end of a whole file: with the length of the values before it; none if there is none.
fn describe(file: &mut File) -> io::Result<Option<(Description, usize)>> {
    let length = file.metadata()?.len();
    let mut end = [0; SUM + 16];
    if length < end.len() as u64 {
        return Ok(None);
    }
    file.seek(SeekFrom::End(-(end.len() as i64)))?;
    file.read_exact(&mut end)?;
    let ((sum, end), rest) = (end.split_at(SUM), length - end.len() as u64);
    let (size, mark) = end.split_at(8);
    let size = u64::from_le_bytes(size.try_into().expect("eight bytes"));
    let before = rest.checked_sub(size);
    let Some(before) = before.filter(|_| mark == MARK && size <= files::MAX_TEXT) else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(before))?;
    let mut text = Vec::new();
    file.take(size).read_to_end(&mut text)?;
    if files::checksum([&text[..]]).as_bytes() != sum {
        return Ok(None);
    }
    let description = serde_json::from_slice(&text).ok();
    Ok(description.zip(usize::try_from(before).ok()))
}

/// Reads a whole file; none where it is damaged.
fn read(path: &Path) -> Result<Option<Dataset>> {
    let mut file = files::open(path)?;
    let failed = |error| Error::io("read", path)(error);
    let Some((description, length)) = describe(&mut file).map_err(failed)? else {
        return Ok(None);
    };
    let block = Block::map(&file).map_err(failed)?;
    let shape = description.shape;
    let Some(count) = image_len(shape).map(|len| length / len) else {
        return Ok(None);
    };
    if block.len() < length || checksums(&block[..length]) != description.checksums {
        return Ok(None);
    }
    if description.files.len() != count {
        return Ok(None);
    }
    let (block, classes) = (Arc::new(block), description.classes.len());
    let files = Arc::new(Files {
        base: description.base,
        names: description.files.into_iter().map(PathBuf::from).collect(),
    });
    let split = |kept: KeptSplit| {
        let labels = kept.labels.len();
        let good = (labels == 0 || labels == kept.images.len())
            && kept.images.iter().all(|image| *image < count)
            && kept.labels.iter().all(|label| *label < classes);
        good.then(|| Split {
            images: Images::stored(block.clone(), kept.images, shape).read_from(files.clone()),
            labels: kept.labels,
        })
    };
    let val = match description.val {
        Some(val) => match split(val) {
            Some(val) => Some(val),
            None => return Ok(None),
        },
        None => None,
    };
    let (Some(train), Some(test)) = (split(description.train), split(description.test)) else {
        return Ok(None);
    };
    Ok(Some(Dataset {
        name: description.name,
        classes: description.classes,
        train,
        test,
        val,
        notes: description.notes,
        reading: description.reading,
    }))
}

/// A file of the cache.
#[derive(Clone, Debug, Serialize)]
pub struct CachedFile {
    /// Its path.
    #[serde(serialize_with = "crate::files::as_text")]
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// Data set that its images come from; none for a file that is not whole.
    pub source: Option<String>,
}

/// Files of decoded images in a folder, sorted by path: whole ones and unfinished ones.
///
/// # Errors
/// [`Error::Io`] for a folder that cannot be read; one that is not there has no files.
pub fn cached_files(folder: &Path) -> Result<Vec<CachedFile>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("read", folder))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("read", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is = |end: &str| {
            name.strip_suffix(end)
                .is_some_and(|name| name.ends_with('.'))
        };
        let (whole, part) = (is(WHOLE), is(PART));
        if !whole && !part {
            continue;
        }
        let Ok(mut file) = files::open(&path) else {
            continue;
        };
        let about = file.metadata().map_err(Error::io("read", &path))?;
        let description = match whole {
            true => describe(&mut file).map_err(Error::io("read", &path))?,
            false => None,
        };
        found.push(CachedFile {
            bytes: about.len(),
            source: description.map(|(description, _)| description.source),
            path,
        });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Removes a file of the cache, with what belongs to it; false where another process is making it.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_cached(file: &CachedFile) -> Result<bool> {
    let name = file.path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(PART).or_else(|| name.strip_suffix(WHOLE));
    let stem = stem.unwrap_or_default();
    let with = |end: &str| file.path.with_file_name(format!("{stem}{end}"));
    let lock = with(LOCK);
    if lock.exists() && files::open_own(&lock)?.try_lock().is_err() {
        return Ok(false);
    }
    fs::remove_file(&file.path).map_err(Error::io("remove", &file.path))?;
    for path in [with(LIST), lock] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
