//! A file of decoded images that is being made: values as they arrive, and a list of whose they are.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::block::Block;
use super::super::dataset::{Dataset, Split};
use super::{
    Description, KeptSplit, LIST, LOCK, MARK, PART, SUM, Slot, WHOLE, checksums, image_len,
};
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

/// Images of one shape: what is in an unfinished file, or a line of the list of that, about images that were written
/// together.
#[derive(Default, Serialize, Deserialize)]
struct Listed {
    /// Channels, height and width.
    shape: [usize; 3],
    images: Vec<Seen>,
}

impl Listed {
    /// A line of the list: the checksum of its text and of its images' values, then the text.
    fn line(&self, values: &[u8]) -> String {
        let text = serde_json::to_string(self).expect("plain values");
        let sum = files::checksum([text.as_bytes(), values]);
        format!("{sum}{text}\n")
    }

    /// Content of a line, its checksum, and the text that the checksum is of; none for a line without its end, and for
    /// another text.
    fn parse(line: &[u8]) -> Option<(Self, &[u8; SUM], &[u8])> {
        let (sum, text) = line.strip_suffix(b"\n")?.split_first_chunk()?;
        Some((serde_json::from_slice(text).ok()?, sum, text))
    }

    /// Bytes of the values of so many of its images.
    fn bytes(&self, images: usize) -> Option<usize> {
        image_len(self.shape)?.checked_mul(images)
    }
}

/// Reads the list of an unfinished file of a set of so many images: what is in the file, and the bytes of the list that say so.
/// Lines count until one does not hold: what is kept afterwards gets new checksums, which would hide that it is wrong. A line
/// holds where its images are of the set and new, and where its checksum is that of their values.
fn continued(file: &File, list: &mut File, images: usize) -> io::Result<(Listed, u64)> {
    let mut lines = Vec::new();
    list.take(files::MAX_TEXT).read_to_end(&mut lines)?;
    let values = Block::map(file)?;
    let (mut found, mut rest, mut whole) = (Listed::default(), &values[..], 0);
    let mut is_known = vec![false; images];
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let Some((new, sum, text)) = Listed::parse(line) else {
            break;
        };
        let one_shape = found.images.is_empty() || new.shape == found.shape;
        let are_new = new.images.iter().all(|seen| {
            let known = is_known.get_mut(seen.place);
            known.is_some_and(|known| !std::mem::replace(known, true))
        });
        let own = new.bytes(new.images.len());
        let Some((own, after)) = own.and_then(|own| rest.split_at_checked(own)) else {
            break;
        };
        if !one_shape || !are_new || files::checksum([text, own]).as_bytes() != sum {
            break;
        }
        found.shape = new.shape;
        found.images.extend(new.images);
        rest = after;
        whole += line.len() as u64;
    }
    Ok((found, whole))
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
    /// Images of the file, with those that are not written yet.
    content: Listed,
    /// Values that are not written yet.
    unsaved: Vec<u8>,
    /// Number of images that the list has.
    listed: usize,
    // Unlocked when dropped.
    _lock: File,
}

impl Part {
    /// Begins the file of a slot that is locked, for images of a shape.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn begin(slot: &Slot, shape: [usize; 3], lock: File) -> Result<Self> {
        let content = Listed {
            shape,
            images: Vec::new(),
        };
        Self::open(slot, lock, |_, _| Ok((content, 0)))
    }

    /// Opens what a killed process left of the file of a slot that is locked, of a set of so many images.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn resume(slot: &Slot, images: usize, lock: File) -> Result<Self> {
        Self::open(slot, lock, |file, list| continued(file, list, images))
    }

    /// Opens a file with its list. Both are cut to what `content` says: images in the file, and bytes of the list.
    fn open(
        slot: &Slot,
        lock: File,
        content: impl FnOnce(&File, &mut File) -> io::Result<(Listed, u64)>,
    ) -> Result<Self> {
        let (path, list_path) = (slot.path(PART), slot.path(LIST));
        let (file, mut list) = (files::open_own(&path)?, files::open_own(&list_path)?);
        let prepare = || -> io::Result<Listed> {
            let (content, whole) = content(&file, &mut list)?;
            list.set_len(whole)?;
            let bytes = content.bytes(content.images.len()).unwrap_or(0);
            file.set_len(bytes as u64)?;
            Ok(content)
        };
        let content = prepare().map_err(Error::io("write", &path))?;
        Ok(Self {
            whole: slot.path(WHOLE),
            path,
            list_path,
            lock_path: slot.path(LOCK),
            source: slot.source.clone(),
            file,
            list,
            listed: content.images.len(),
            content,
            unsaved: Vec::new(),
            _lock: lock,
        })
    }

    /// Images that are in the file.
    pub(in super::super) fn seen(&self) -> &[Seen] {
        &self.content.images
    }

    /// Their channels, height and width.
    pub(in super::super) fn shape(&self) -> [usize; 3] {
        self.content.shape
    }

    /// Adds an image. Where it fails, the image is among [`Part::values`] all the same.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in super::super) fn add(&mut self, seen: Seen, image: &[u8]) -> Result<()> {
        self.content.images.push(seen);
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
        let new = Listed {
            shape: self.content.shape,
            images: self.content.images[self.listed..].to_vec(),
        };
        let mut write = || -> io::Result<()> {
            self.file.write_all(&self.unsaved)?;
            self.file.sync_data()?;
            self.list.write_all(new.line(&self.unsaved).as_bytes())
        };
        write().map_err(Error::io("write", &self.path))?;
        self.listed = self.content.images.len();
        self.unsaved.clear();
        Ok(())
    }

    /// Makes gray images colour ones, in another file that takes the place of this one. Where it fails, they are gray still.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in super::super) fn make_rgb(&mut self) -> Result<()> {
        self.save()?;
        let values = self.map()?;
        let begin = || -> io::Result<File> {
            // Without a list, whoever comes after a kill begins anew.
            self.list.set_len(0)?;
            fs::remove_file(&self.path)?;
            let mut options = File::options();
            options.create_new(true).read(true).append(true);
            options.open(&self.path)
        };
        let file = begin().map_err(Error::io("write", &self.path))?;
        let [_, height, width] = self.content.shape;
        let colour = Listed {
            shape: [3, height, width],
            images: Vec::new(),
        };
        // The gray ones can be read after their file has no name.
        let gray_file = std::mem::replace(&mut self.file, file);
        let gray = std::mem::replace(&mut self.content, colour);
        let listed = std::mem::take(&mut self.listed);
        let images = values.chunks((height * width).max(1));
        let mut pairs = gray.images.iter().zip(images);
        let made = pairs.try_for_each(|(seen, image)| self.add(*seen, &image.repeat(3)));
        if made.is_err() {
            (self.file, self.content, self.listed) = (gray_file, gray, listed);
            self.unsaved.clear();
        }
        made
    }

    /// Values of all images that were added; none where memory does not suffice, or they cannot be read.
    pub(in super::super) fn values(&self) -> Option<Vec<u8>> {
        let saved = self.content.bytes(self.listed)?;
        let mut values = Vec::new();
        let all = saved.checked_add(self.unsaved.len())?;
        values.try_reserve_exact(all).ok()?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).ok()?;
        file.take(saved as u64).read_to_end(&mut values).ok()?;
        values.extend_from_slice(&self.unsaved);
        (values.len() == all).then_some(values)
    }

    /// The values that are in the file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(in super::super) fn map(&self) -> Result<Block> {
        Block::map(&self.file).map_err(Error::io("read", &self.path))
    }

    /// Adds the description of a data set to its values, which are those of this file, and gives the file its
    /// name. Where it fails, there is no file of any name; the values stay readable where they are mapped.
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
            files: files.map_or_else(Vec::new, |files| {
                let names = files.names.iter();
                names
                    .map(|name| name.to_string_lossy().into_owned())
                    .collect()
            }),
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
            fs::rename(&self.path, &self.whole)
        };
        let finished = finish().map_err(Error::io("write", &self.whole));
        let whole = self.whole.clone();
        self.remove();
        finished.map(|()| whole)
    }

    /// Removes whatever has the names of the unfinished file.
    pub(in super::super) fn remove(self) {
        for path in [&self.path, &self.list_path, &self.lock_path] {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
impl Part {
    /// A file of one image of two gray pixels, to which nothing can be written any more.
    pub(in super::super) fn full(folder: &std::path::Path) -> Self {
        let slot = Slot {
            folder: folder.to_path_buf(),
            name: "set".to_owned(),
            source: String::new(),
        };
        let lock = files::open_own(&slot.path(LOCK)).expect("a folder");
        let mut part = Self::begin(&slot, [1, 1, 2], lock).expect("a folder");
        let seen = Seen {
            place: 0,
            found: [1, 2],
            channels: 1,
            scaled_down: false,
            turned: false,
        };
        part.add(seen, &[0, 10]).expect("a disk");
        part.save().expect("a disk");
        part.file = File::open(&part.path).expect("a file");
        part
    }
}
