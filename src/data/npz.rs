//! NumPy's `.npz`, as MedMNIST and Keras publish data sets: a zip archive of arrays with known names.
//!
//! Images are bytes, `[n, height, width]` or `[n, height, width, 3]`; labels are integers, `[n]` or `[n, 1]`. Arrays of
//! Python objects would have to be executed to be read, and never are.

mod array;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use super::archive::Store;
use super::class_names::{CLASS_FILE, class_names_beside};
use super::dataset::{Dataset, Split, TEST_ALONE};
use super::entry::Entry;
use super::filename::is_junk;
use super::images::Images;
use super::stream::read_error;
use crate::error::{Error, Result};
use crate::files;
use array::{Array, Kind};

/// Names of arrays of images and of labels: of training, validation and test.
const NAMES: [[[&str; 2]; 3]; 3] = [
    [
        ["train_images", "train_labels"],
        ["val_images", "val_labels"],
        ["test_images", "test_labels"],
    ],
    [
        ["x_train", "y_train"],
        ["x_val", "y_val"],
        ["x_test", "y_test"],
    ],
    [["images", "labels"], ["", ""], ["", ""]],
];
/// Names of the only two arrays, as they are also called.
const ALONE: [&str; 2] = ["x", "y"];
/// Most bytes that a byte of a deflated member stands for, and some more.
const MAX_RATIO: u64 = 1040;

type Archive = ZipArchive<BufReader<File>>;

/// Whether a file has the name of a NumPy archive.
pub(super) fn is_named_like_one(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("npz"))
}

/// The one NumPy archive in a folder without images; none where there are others, and in archives.
pub(super) fn find(store: &Store, entries: &[Entry]) -> Option<PathBuf> {
    let mut files = entries.iter().filter(|entry| {
        !entry.is_folder && !is_junk(&entry.name) && is_named_like_one(Path::new(&entry.name))
    });
    let (first, second) = (files.next()?, files.next());
    let alone = second.is_none() && !entries.iter().any(|entry| entry.is_image);
    (alone && store.is_folder()).then(|| store.path_of(&first.name))
}

/// Reads a NumPy archive, and the class names in `classes.txt` beside it. Without that file the classes are numbers, up
/// to the largest label in use.
///
/// # Errors
/// [`Error::Format`] for a damaged archive and for arrays of other kinds; [`Error::Data`] where arrays are missing, do
/// not belong together, or do not fit in memory.
pub(super) fn load(path: &Path) -> Result<Dataset> {
    let file = files::open(path)?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let archive = ZipArchive::new(BufReader::with_capacity(1 << 16, file));
    let mut npz = Npz {
        path,
        length,
        archive: archive.map_err(|error| damaged(path, "archive", error))?,
    };
    let names = npz.names();
    let there = |name: &str| !name.is_empty() && names.iter().any(|known| known == name);
    let of_kind = |kind: &[[&'static str; 2]; 3]| kind.iter().flatten().any(|name| there(name));
    let only = [ALONE, ["", ""], ["", ""]];
    let kinds = NAMES.into_iter().chain([only]);
    let Some([train, val, test]) = kinds.into_iter().find(of_kind) else {
        let mut found: Vec<&str> = names.iter().take(8).map(String::as_str).collect();
        if names.len() > found.len() {
            found.push("…");
        }
        let found = if found.is_empty() {
            "none".to_owned()
        } else {
            found.join(", ")
        };
        return Err(Error::data(
            path.display().to_string(),
            format!(
                "expected the arrays train_images and train_labels (x_train, y_train; images, labels; x, y), found {found}"
            ),
            "numpy.savez(FILE, train_images=…, train_labels=…, test_images=…, test_labels=…)",
        ));
    };
    // An archive of a single split is one set of images, whatever its name is.
    let has = |split: &[&str; 2]| split.iter().any(|name| there(name));
    let mut notes = Vec::new();
    let [train, val, test] = match (has(&train), has(&val), has(&test)) {
        (false, true, false) => [val, ["", ""], ["", ""]],
        (false, false, true) => {
            notes.push(TEST_ALONE.to_owned());
            [test, ["", ""], ["", ""]]
        }
        _ => [train, val, test],
    };
    let labeled = there(train[1]);
    let train = npz.split(train, labeled)?;
    let mut others = [val, test]
        .into_iter()
        .map(|names| has(&names).then(|| npz.split(names, labeled)).transpose());
    let mut next = || others.next().expect("two splits");
    let (val, test) = (next()?, next()?);
    // As in folders: validation images serve as test images where there are no others.
    let (test, val) = match (test, val) {
        (None, val) => (val, None),
        both => both,
    };
    let classes = match labeled {
        true => classes(path, &train, [&test, &val])?,
        false => Vec::new(),
    };
    Ok(Dataset {
        name: Store::folder(path).name(),
        classes,
        test: test.unwrap_or_else(|| train.select(&[])),
        train,
        notes,
        val,
        reading: Default::default(),
    })
}

/// Names of the classes: listed beside the archive, or numbers.
fn classes(path: &Path, train: &Split, others: [&Option<Split>; 2]) -> Result<Vec<String>> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let listed = class_names_beside(folder)?;
    let others = others.into_iter().flatten();
    let labels = train
        .labels
        .iter()
        .chain(others.flat_map(|split| &split.labels));
    let last = labels.max().copied().unwrap_or(0);
    let (most, hint) = match &listed {
        Some(names) => (
            names.len(),
            format!("list all class names in {CLASS_FILE}, one per line"),
        ),
        // Every class has a training image; no memory is claimed for more classes than that.
        None => (
            train.labels.len(),
            "labels count the classes from 0".to_owned(),
        ),
    };
    if last >= most {
        let problem = format!("expected labels below {most}, found {last}");
        return Err(Error::data(path.display().to_string(), problem, hint));
    }
    Ok(listed.unwrap_or_else(|| (0..=last).map(|label| label.to_string()).collect()))
}

/// An open archive.
struct Npz<'a> {
    path: &'a Path,
    /// Length of the file in bytes.
    length: u64,
    archive: Archive,
}

impl Npz<'_> {
    /// Names of the arrays.
    fn names(&self) -> Vec<String> {
        let names = self.archive.file_names().filter_map(|name| name.ok());
        let arrays = names.filter_map(|name| name.strip_suffix(".npy").map(str::to_owned));
        let mut names: Vec<String> = arrays.collect();
        names.sort_unstable();
        names
    }

    /// Reads images, and labels where the data set has any.
    fn split(&mut self, [images, labels]: [&str; 2], labeled: bool) -> Result<Split> {
        let pixels = self.read(images, Images::of_array)?;
        if !labeled {
            return Ok(Split {
                images: pixels,
                labels: Vec::new(),
            });
        }
        let labels_read = self.read(labels, labels_of)?;
        if labels_read.len() != pixels.len() {
            return Err(Error::data(
                self.path.display().to_string(),
                format!(
                    "expected as many labels in {labels} as images in {images}, {}, found {}",
                    pixels.len(),
                    labels_read.len()
                ),
                "one label for each image",
            ));
        }
        Ok(Split {
            images: pixels,
            labels: labels_read,
        })
    }

    /// Reads an array.
    fn read<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(Array<'_, &mut dyn Read>) -> Result<T>,
    ) -> Result<T> {
        let member = format!("{name}.npy");
        let path = self.path.join(&member);
        let mut file = match self.archive.by_name(&member) {
            Ok(file) => file,
            Err(ZipError::FileNotFound) => {
                return Err(Error::data(
                    self.path.display().to_string(),
                    format!("expected the array {name} beside the others, found none"),
                    "each split has images; all splits have labels, or none",
                ));
            }
            Err(error) => return Err(damaged(self.path, &member, error)),
        };
        // Sizes in the archive's list are declared too.
        let most = file
            .compressed_size()
            .min(self.length)
            .saturating_mul(MAX_RATIO);
        let declared = file.size().min(most);
        let content: &mut dyn Read = &mut file;
        let array = Array::open(&path, content, declared)?;
        read(array)
    }
}

/// Error of a zip archive.
fn damaged(path: &Path, place: &str, error: ZipError) -> Error {
    match error {
        ZipError::Io(error) => read_error(path, place, "a whole NumPy archive (.npz)", error),
        error => Error::format(
            path,
            place,
            "a NumPy archive (.npz), stored or deflated",
            error.to_string(),
        ),
    }
}

impl Images {
    /// Images of an array, whose channels are last.
    fn of_array(array: Array<'_, &mut dyn Read>) -> Result<Self> {
        let (height, width, channels) = match array.shape[..] {
            [_, height, width] => (height, width, 1),
            [_, height, width, channels @ (1 | 3)] => (height, width, channels),
            [_, 1 | 3, _, _] => {
                return Err(array.refused(
                    "images as n × height × width × channels",
                    "the channels come last: numpy.transpose(x, (0, 2, 3, 1))",
                ));
            }
            _ => {
                return Err(array.refused(
                    "images as n × height × width, or × 3",
                    "gray or colour images, one after the other",
                ));
            }
        };
        if array.kind
            != (Kind::Integer {
                bytes: 1,
                signed: false,
            })
        {
            return Err(array.refused(
                "images as bytes (uint8, 0 to 255)",
                "numpy: (255 * x).astype('uint8') for values from 0 to 1",
            ));
        }
        if array.shape.contains(&0) {
            return Err(array.refused("images of one pixel or more", "is the array empty?"));
        }
        let mut pixels = array.bytes()?;
        if channels > 1 {
            let mut planes = vec![0; height * width * channels];
            for image in pixels.chunks_exact_mut(planes.len()) {
                for (at, value) in image.iter().enumerate() {
                    planes[at % channels * height * width + at / channels] = *value;
                }
                image.copy_from_slice(&planes);
            }
        }
        Ok(Self::new(pixels, [channels, height, width]))
    }
}

/// Labels of an array.
fn labels_of(array: Array<'_, &mut dyn Read>) -> Result<Vec<usize>> {
    match array.shape[..] {
        [_] | [_, 1] => {}
        [_, _] => {
            return Err(array.refused(
                "one label an image (n, or n × 1)",
                "several labels an image are not supported: choose one of the columns",
            ));
        }
        _ => return Err(array.refused("labels as n, or n × 1", "one label an image")),
    }
    let Kind::Integer { bytes, signed } = array.kind else {
        return Err(array.refused("labels as integers", "numpy: y.astype('int64')"));
    };
    let (path, is_big) = (array.path.to_owned(), array.is_big_endian);
    let values = array.bytes()?;
    let mut labels = Vec::with_capacity(values.len() / bytes);
    for (i, value) in values.chunks_exact(bytes).enumerate() {
        let number = value.iter().enumerate().fold(0u64, |number, (at, byte)| {
            let shift = if is_big { bytes - 1 - at } else { at };
            number | u64::from(*byte) << (8 * shift)
        });
        let unused = 64 - 8 * bytes as u32;
        let negative = signed && ((number << unused) as i64) < 0;
        match usize::try_from(number) {
            Ok(label) if !negative => labels.push(label),
            _ => {
                let found = ((number << unused) as i64 >> unused).to_string();
                let place = format!("label {}", i + 1);
                return Err(Error::format(path, place, "a class counted from 0", found));
            }
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests;
