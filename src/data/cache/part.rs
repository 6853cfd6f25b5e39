//! A file of decoded images that is being made: values as they arrive, and a list of whose they are.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::block::Block;
use super::super::dataset::{Dataset, Split};
use super::{Description, KeptSplit, LIST, LOCK, MARK, PART, Slot, WHOLE, checksums};
use crate::error::{Error, Result};
use crate::files;

/// Values that may be lost with a killed process, in bytes.
const UNSAVED: usize = 64 << 20;

/// An image that was decoded, as far as it is not its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Seen {
    /// Place in the listing.
    pub(in super::super) place: usize,
    /// Height and width in the file.
    pub(in super::super) found: [usize; 2],
    /// Channels, before a mixture became RGB.
    pub(in super::super) channels: usize,
    /// Whether it had 16 bits a channel.
    pub(in super::super) scaled_down: bool,
    /// Whether it was turned upright.
    pub(in super::super) turned: bool,
}

/// What an unfinished file has.
#[derive(Default)]
struct Continued {
    /// Channels, height and width.
    shape: [usize; 3],
    seen: Vec<Seen>,
    /// Bytes of their values.
    length: u64,
}

/// A line of the list of what is in an unfinished file.
#[derive(Serialize, Deserialize)]
struct Line {
    shape: [usize; 3],
    images: Vec<Seen>,
    /// Bytes of values, with those of this line's images.
    length: u64,
}

/// Reads the list of an unfinished file. A line without an end, or of values that are not there, does not count.
fn continued(file: &mut File, list: &mut File) -> io::Result<Continued> {
    let mut text = String::new();
    list.take(files::MAX_TEXT).read_to_string(&mut text)?;
    let there = file.metadata()?.len();
    let (mut found, mut whole) = (Continued::default(), 0);
    for line in text.split_inclusive('\n') {
        let parsed = line
            .ends_with('\n')
            .then(|| serde_json::from_str::<Line>(line));
        match parsed {
            Some(Ok(line)) if (found.length..=there).contains(&line.length) => {
                found.seen.extend(line.images);
                (found.length, found.shape) = (line.length, line.shape);
            }
            _ => break,
        }
        whole += line.len() as u64;
    }
    list.set_len(whole)?;
    Ok(found)
}

/// A file that is being made. It is held by this process.
pub(in super::super) struct Part {
    whole: PathBuf,
    path: PathBuf,
    list_path: PathBuf,
    lock_path: PathBuf,
    source: String,
    file: File,
    list: File,
    /// Images of the file.
    continued: Continued,
    /// Values that are not written yet.
    unsaved: Vec<u8>,
    /// Number of images that the list has.
    listed: usize,
    // Unlocked when dropped.
    _lock: File,
}

impl Part {
    /// Opens the file of a slot that is locked: a new one for images of a shape, or what a killed process left where none
    /// is given.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn open(slot: &Slot, shape: Option<[usize; 3]>, lock: File) -> Result<Self> {
        let (path, list_path) = (slot.path(PART), slot.path(LIST));
        let (mut file, mut list) = (files::open_own(&path)?, files::open_own(&list_path)?);
        let mut prepare = || -> io::Result<Continued> {
            if let Some(shape) = shape {
                list.set_len(0)?;
                file.set_len(0)?;
                return Ok(Continued {
                    shape,
                    ..Continued::default()
                });
            }
            let continued = continued(&mut file, &mut list)?;
            file.set_len(continued.length)?;
            Ok(continued)
        };
        let continued = prepare().map_err(Error::io("write", &path))?;
        Ok(Self {
            whole: slot.path(WHOLE),
            path,
            list_path,
            lock_path: slot.path(LOCK),
            source: slot.source.clone(),
            file,
            list,
            listed: continued.seen.len(),
            continued,
            unsaved: Vec::new(),
            _lock: lock,
        })
    }

    /// Images that are in the file.
    pub(in super::super) fn seen(&self) -> &[Seen] {
        &self.continued.seen
    }

    /// Their channels, height and width.
    pub(in super::super) fn shape(&self) -> [usize; 3] {
        self.continued.shape
    }

    /// Adds an image.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in super::super) fn add(&mut self, seen: Seen, image: &[u8]) -> Result<()> {
        self.continued.seen.push(seen);
        self.unsaved.extend_from_slice(image);
        match self.unsaved.len() < UNSAVED {
            true => Ok(()),
            false => self.save(),
        }
    }

    /// Writes what is not written, values before the list of them: a list that is there speaks of values that are.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in super::super) fn save(&mut self) -> Result<()> {
        if self.unsaved.is_empty() {
            return Ok(());
        }
        let written = (&self.file).write_all(&self.unsaved);
        self.unsaved.clear();
        written
            .and_then(|()| self.list_new())
            .map_err(Error::io("write", &self.path))
    }

    /// Adds the images that the list does not have to it.
    fn list_new(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let line = Line {
            shape: self.continued.shape,
            images: self.continued.seen[self.listed..].to_vec(),
            length: self.file.metadata()?.len(),
        };
        let line = serde_json::to_string(&line).expect("plain values") + "\n";
        self.list.write_all(line.as_bytes())?;
        self.listed = self.continued.seen.len();
        Ok(())
    }

    /// Makes gray images colour ones, in another file that takes the place of this one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in super::super) fn make_rgb(&mut self) -> Result<()> {
        self.save()?;
        let gray = self.map()?;
        let image_len = self.continued.shape.iter().product::<usize>().max(1);
        let mut convert = || -> io::Result<()> {
            // Without a list, whoever comes after a kill begins anew.
            self.list.set_len(0)?;
            fs::remove_file(&self.path)?;
            let mut options = File::options();
            options.create_new(true).read(true).append(true);
            self.file = options.open(&self.path)?;
            for images in gray.chunks(image_len * (UNSAVED / 4).div_ceil(image_len)) {
                let colour = images.chunks(image_len).flat_map(|image| image.repeat(3));
                self.file.write_all(&colour.collect::<Vec<u8>>())?;
            }
            (self.continued.shape[0], self.listed) = (3, 0);
            self.list_new()
        };
        convert().map_err(Error::io("write", &self.path))
    }

    /// The values that are in the file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in super::super) fn map(&self) -> Result<Block> {
        Block::map(&self.file).map_err(Error::io("read", &self.path))
    }

    /// Adds the description of a data set to its values, which are those of this file, and gives the file its
    /// name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in super::super) fn finish(mut self, dataset: &Dataset) -> Result<PathBuf> {
        let places = |split: &Split| KeptSplit {
            images: split.images.places().collect(),
            labels: split.labels.clone(),
        };
        let files = dataset.train.images.files();
        let description = Description {
            source: self.source.clone(),
            name: dataset.name.clone(),
            classes: dataset.classes.clone(),
            shape: dataset.train.images.shape(),
            train: places(&dataset.train),
            test: places(&dataset.test),
            val: dataset.val.as_ref().map(places),
            notes: dataset.notes.clone(),
            reading: dataset.reading,
            base: files.map_or_else(PathBuf::new, |files| files.base.clone()),
            files: files.map_or_else(Vec::new, |files| files.names.clone()),
            checksums: checksums(dataset.train.images.block()),
        };
        let text = serde_json::to_vec(&description).expect("plain values");
        let (sum, length) = (
            files::checksum([&text[..]]),
            (text.len() as u64).to_le_bytes(),
        );
        let end = [&text[..], sum.as_bytes(), &length, MARK].concat();
        let mut finish = || -> io::Result<()> {
            self.file.write_all(&end)?;
            self.file.sync_all()?;
            fs::rename(&self.path, &self.whole)?;
            fs::remove_file(&self.list_path)?;
            fs::remove_file(&self.lock_path)
        };
        finish().map_err(Error::io("write", &self.whole))?;
        Ok(self.whole)
    }

    /// Removes the file: its values are of no use.
    pub(in super::super) fn remove(self) {
        for path in [&self.path, &self.list_path, &self.lock_path] {
            let _ = fs::remove_file(path);
        }
    }
}
