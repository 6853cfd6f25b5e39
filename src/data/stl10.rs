//! STL-10 in its official binary version, from a folder or the official archive.
//!
//! An image is 3 × 96 × 96 bytes, each channel column by column; a label is a byte from 1 to 10. Besides its labeled
//! images it has 100,000 without labels, in `unlabeled_X.bin`: those are what it gives to `data.unlabeled`.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::archive::Store;
use super::class_names::class_names;
use super::dataset::{Dataset, Split};
use super::entry::Entry;
use super::folders::folder_of;
use super::images::Images;
use super::reading::{Reading, Wanted};
use super::stream::read_error;
use crate::error::{Error, Result};
use crate::files;

const SIDE: usize = 96;
const PIXELS: usize = 3 * SIDE * SIDE;
/// Images that are read, and brought to the size that is asked for, at a time.
const CHUNK: usize = 256;
const UNLABELED: &str = "unlabeled_X.bin";
const FILES: [&str; 6] = [
    "train_X.bin",
    "train_y.bin",
    "test_X.bin",
    "test_y.bin",
    UNLABELED,
    "class_names.txt",
];

/// Files of the data set that are there, by their names in the store, with their indices in [`FILES`].
pub(super) struct FoundFiles(HashMap<String, usize>);

impl FoundFiles {
    fn has(&self, file: usize) -> bool {
        self.0.values().any(|found| *found == file)
    }

    /// Some of the files.
    fn only(&self, wanted: &[usize]) -> HashMap<String, usize> {
        let files = self.0.iter().filter(|(_, file)| wanted.contains(file));
        files.map(|(name, file)| (name.clone(), *file)).collect()
    }
}

/// Looks for STL-10, at the top or in one folder below it.
///
/// # Errors
/// [`Error::Data`] if there is more than one.
pub(super) fn find(store: &Store, entries: &[Entry]) -> Result<Option<FoundFiles>> {
    let known = |name: &str| name.ends_with(".bin") && FILES.contains(&name);
    let folder = folder_of(store.path(), "STL-10", entries, known)?;
    Ok(folder.map(|folder| {
        let files = entries.iter().filter(|entry| !entry.is_folder);
        let files = files.filter_map(|entry| {
            let file = entry.name.strip_prefix(&folder)?;
            let place = FILES.iter().position(|known| *known == file)?;
            Some((entry.name.clone(), place))
        });
        FoundFiles(files.collect())
    }))
}

/// Reads the labeled images, or the unlabeled ones where images alone are wanted or nothing else is there.
///
/// # Errors
/// [`Error::Data`] for a missing file; [`Error::Format`] for part of an image, a label out of range, and another number
/// of labels than images.
pub(super) fn load(
    store: &Store,
    found: &FoundFiles,
    wanted: Wanted,
    reading: &Reading,
) -> Result<Dataset> {
    let labeled = wanted == Wanted::Labels && (0..4).any(|file| found.has(file));
    let files: &[usize] = match (labeled, found.has(4)) {
        (true, _) => &[0, 1, 2, 3, 5],
        (false, true) => &[4],
        (false, false) => &[0],
    };
    let tested = found.has(2) || found.has(3);
    let needed = if tested { 0..4 } else { 0..2 };
    if let Some(missing) = needed
        .clone()
        .find(|file| files.len() > 1 && !found.has(*file))
    {
        return Err(Error::data(
            store.path().display().to_string(),
            format!(
                "expected {} beside the other files of STL-10, found none",
                FILES[missing]
            ),
            "the official archive stl10_binary.tar.gz holds them all",
        ));
    }
    let mut images: HashMap<usize, Images> = HashMap::new();
    let mut labels: HashMap<usize, (PathBuf, Vec<u8>)> = HashMap::new();
    let mut names = None;
    let by_index: HashMap<usize, String> = found
        .0
        .iter()
        .map(|(name, file)| (*file, name.clone()))
        .collect();
    store.read(&found.only(files), |file, content| {
        let path = store.path_of(&by_index[&file]);
        match file {
            0 | 2 | 4 => drop(images.insert(file, read_images(&path, content, reading)?)),
            5 => names = Some(class_names(&path, content)?),
            _ => {
                let mut bytes = Vec::new();
                // Far more than there are labels.
                let read = content.take(1 << 24).read_to_end(&mut bytes);
                read.map_err(|error| read_error(&path, "labels", "a whole file", error))?;
                labels.insert(file, (path, bytes));
            }
        }
        Ok(())
    })?;
    if !labeled {
        let images = images.into_values().next();
        let images = images.expect("the one file that was read");
        return Ok(unlabeled(store.name(), images, reading));
    }
    let mut split = |file: usize| -> Result<Split> {
        let images = images.remove(&file).expect("it was read");
        let (path, bytes) = labels.remove(&(file + 1)).expect("it was read");
        if bytes.len() != images.len() {
            let expected = format!("{} labels, one per image", images.len());
            return Err(Error::format(
                path,
                "length",
                expected,
                bytes.len().to_string(),
            ));
        }
        if let Some(at) = bytes.iter().position(|label| !(1..=10).contains(label)) {
            let (place, found) = (format!("label {}", at + 1), bytes[at].to_string());
            return Err(Error::format(
                path,
                place,
                "a label of STL-10, 1 to 10",
                found,
            ));
        }
        let labels = bytes.iter().map(|label| usize::from(*label) - 1).collect();
        Ok(Split { images, labels })
    };
    let train = split(0)?;
    let test = match tested {
        true => split(2)?,
        false => train.select(&[]),
    };
    // Names above the largest label are not classes.
    let last = train.labels.iter().chain(&test.labels).max().copied();
    let last = last.unwrap_or(0);
    let mut classes: Vec<String> = names.unwrap_or_default();
    let numbers = classes.len()..=last;
    classes.extend(numbers.map(|label| (label + 1).to_string()));
    classes.truncate(last + 1);
    let mut notes = Vec::new();
    if found.has(4) {
        notes.push(format!(
            "--set 'data.unlabeled = [{:?}]' adds its unlabeled images to pretraining",
            store.path()
        ));
    }
    let dataset = Dataset {
        name: store.name(),
        classes,
        train,
        test,
        notes,
        val: None,
        reading: *reading,
    };
    Ok(dataset.with_notes_of_splits())
}

/// Whether a file has the name of the unlabeled images.
pub(super) fn is_named_like_unlabeled(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == UNLABELED)
}

/// Reads a file of images alone.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for part of an image.
pub(super) fn load_unlabeled(path: &Path, reading: &Reading) -> Result<Dataset> {
    let mut file = files::open(path)?;
    let images = read_images(path, &mut file, reading)?;
    Ok(unlabeled(Store::folder(path).name(), images, reading))
}

fn unlabeled(name: String, images: Images, reading: &Reading) -> Dataset {
    let train = Split {
        images,
        labels: Vec::new(),
    };
    Dataset {
        name,
        classes: Vec::new(),
        test: train.select(&[]),
        train,
        notes: Vec::new(),
        val: None,
        reading: *reading,
    }
}

/// Reads images up to the end, in the size that is asked for.
fn read_images(path: &Path, content: &mut dyn Read, reading: &Reading) -> Result<Images> {
    let mut content = BufReader::with_capacity(1 << 16, content);
    let mut all: Option<Images> = None;
    let mut count = 0;
    loop {
        let mut bytes = Vec::new();
        let read = content
            .by_ref()
            .take((CHUNK * PIXELS) as u64)
            .read_to_end(&mut bytes);
        read.map_err(|error| read_error(path, "images", "a whole file", error))?;
        let rest = bytes.len() % PIXELS;
        if rest > 0 {
            let place = format!("image {}", count + bytes.len() / PIXELS + 1);
            let (expected, found) = (format!("{PIXELS} bytes"), format!("{rest} bytes"));
            return Err(Error::format(path, place, expected, found));
        }
        if bytes.is_empty() {
            break;
        }
        count += bytes.len() / PIXELS;
        let mut pixels = Vec::new();
        if pixels.try_reserve_exact(bytes.len()).is_err() {
            return Err(Error::data(
                path.display().to_string(),
                format!("expected memory for {count} images and more, found too little"),
                "--set 'data.size = 32' makes them smaller",
            ));
        }
        pixels.resize(bytes.len(), 0);
        let channels = bytes.chunks_exact(SIDE * SIDE);
        for (from, to) in channels.zip(pixels.chunks_exact_mut(SIDE * SIDE)) {
            for (at, value) in from.iter().enumerate() {
                to[at % SIDE * SIDE + at / SIDE] = *value;
            }
        }
        let chunk = Images::new(pixels, [3, SIDE, SIDE]).read_as(reading);
        match &mut all {
            None => all = Some(chunk),
            Some(all) => all.append(&chunk),
        }
    }
    all.ok_or_else(|| Error::format(path, "content", "images", "an empty file"))
}

#[cfg(test)]
mod tests;
