//! A look at a data set that keeps figures of its images and no pixels: what is there, and what training would refuse.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;

use super::archive::Store;
use super::dataset::Dataset;
use super::decode::{decode_whole, format_of, name_of, read_file};
use super::fit::Picture;
use super::layout::{Item, Layout};
use super::reading::Reading;
use super::twins::{Print, twins};
use crate::error::{Error, Result};

/// Names of the splits in messages, in the order of [`Scan::images`].
pub const SPLITS: [&str; 3] = ["training", "test", "validation"];
/// Pairs of duplicates that are named.
const NAMED: usize = 5;
/// Largest size of a chunk of files in bytes, and their largest number. Each thread decodes one of them.
const CHUNK_BYTES: usize = 32 << 20;
const CHUNK_LEN: usize = 256;

/// Figures of a data set.
#[derive(Clone, Debug, Serialize)]
pub struct Scan {
    /// Name of the data set.
    pub name: String,
    /// Sorted class names; empty for images without labels.
    pub classes: Vec<String>,
    /// Numbers of training, test and validation images that can be read.
    pub images: [usize; 3],
    /// The same for each class.
    pub counts: Vec<[usize; 3]>,
    /// Sizes of the images, the most frequent first.
    pub sizes: Vec<FoundSize>,
    /// Numbers of gray and of colour images.
    pub channels: [usize; 2],
    /// Formats of the files with the number of each, the most frequent first; empty where images are no files.
    pub formats: Vec<(String, usize)>,
    /// Mean and standard deviation of each channel of the training images, in [0, 1].
    pub means: Vec<(f64, f64)>,
    /// Images that cannot be read.
    pub faults: Vec<Fault>,
    /// Number of images with 16 bits a channel, which become 8.
    pub scaled_down: usize,
    /// Number of images that are turned as their EXIF orientation says.
    pub turned: usize,
    /// Training images that repeat another one.
    pub within_train: Repeats,
    /// Test and validation images that repeat a training image.
    pub in_train: Repeats,
    /// Things to be said about the data set, such as files that are passed over.
    pub notes: Vec<String>,
}

/// A size of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FoundSize {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Number of images.
    pub images: usize,
}

/// An image that cannot be read.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// Path of the image.
    #[serde(serialize_with = "crate::files::as_text")]
    pub image: PathBuf,
    /// Problem in words, with expected and found.
    pub reason: String,
    /// Advice, or nothing.
    pub hint: String,
}

/// Images that repeat others.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Repeats {
    /// Number of images with the size and pixels of another one.
    pub exact: usize,
    /// Number of images that look like another one: scaled, saved again, slightly changed.
    pub near: usize,
    /// Number of those of either kind whose class is another.
    pub other_class: usize,
    /// Some of them by name, those of another class first.
    pub named: Vec<Repeat>,
}

/// An image that repeats another one.
#[derive(Clone, Debug, Serialize)]
pub struct Repeat {
    /// Name of the image, and of the one that it repeats.
    pub images: [String; 2],
    /// Whether all pixels are the same.
    pub exact: bool,
    /// Their classes, where they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<[String; 2]>,
}

impl Scan {
    /// Number of images in all splits that can be read.
    pub fn total(&self) -> usize {
        self.images.iter().sum()
    }

    /// Side that brings images of several sizes, or of a large one, to one size: a multiple of 8 near the median of the
    /// shorter sides, from 16 to 64, so that a CPU can train on them. None where the images need no other size.
    pub fn suggested_size(&self) -> Option<usize> {
        let is_usable = |size: &FoundSize| size.height.max(size.width) <= MAX_SUGGESTED;
        if let [only] = &self.sizes[..]
            && is_usable(only)
        {
            return None;
        }
        let side = self.median_side().next_multiple_of(4) / 8 * 8;
        Some(side.clamp(16, MAX_SUGGESTED))
    }

    /// Median of the images' shorter sides in pixels; 0 if there are none.
    pub fn median_side(&self) -> usize {
        let mut sides: BTreeMap<usize, usize> = BTreeMap::new();
        for size in &self.sizes {
            *sides.entry(size.height.min(size.width)).or_default() += size.images;
        }
        let mut before = 0;
        let middle = self.total().div_ceil(2);
        let median = sides.into_iter().find(|(_, images)| {
            before += images;
            before >= middle
        });
        median.map_or(0, |(side, _)| side)
    }

    /// Classes with fewer than `least` training images, by index.
    pub fn classes_below(&self, least: usize) -> Vec<usize> {
        let counts = self.counts.iter().enumerate();
        counts
            .filter(|(_, counts)| counts[0] < least)
            .map(|(class, _)| class)
            .collect()
    }

    /// The largest and the smallest class by training images; none with fewer than two classes.
    pub fn extremes(&self) -> Option<[usize; 2]> {
        let classes = 0..self.counts.len();
        let smallest = classes.clone().min_by_key(|&class| self.counts[class][0])?;
        let largest = classes.rev().max_by_key(|&class| self.counts[class][0])?;
        (self.counts.len() > 1).then_some([largest, smallest])
    }
}

/// Largest side that is suggested, in pixels.
const MAX_SUGGESTED: usize = 64;

/// What is kept of each image.
struct Seen {
    split: usize,
    label: usize,
    print: Print,
}

/// Collects figures of images.
#[derive(Default)]
struct Collector {
    seen: Vec<Seen>,
    /// Name of each image that was seen.
    names: Vec<String>,
    sizes: HashMap<[usize; 2], usize>,
    channels: [usize; 2],
    formats: BTreeMap<&'static str, usize>,
    /// Pixels of training images; sums of their values and squares by channel.
    pixels: u64,
    sums: [[u64; 2]; 3],
    scaled_down: usize,
    turned: usize,
}

/// Sums of values and of squares by channel; a gray image counts as three equal ones.
fn sums(picture: &Picture) -> [[u64; 2]; 3] {
    let mut sums = [[0; 2]; 3];
    for pixel in picture.pixels.chunks_exact(picture.channels) {
        for (channel, sum) in sums.iter_mut().enumerate() {
            let value = u64::from(pixel[channel.min(picture.channels - 1)]);
            sum[0] += value;
            sum[1] += value * value;
        }
    }
    sums
}

impl Collector {
    fn count(&mut self, found: [usize; 2], channels: usize) {
        *self.sizes.entry(found).or_default() += 1;
        self.channels[usize::from(channels == 3)] += 1;
    }

    fn add_sums(&mut self, pixels: usize, sums: [[u64; 2]; 3]) {
        self.pixels += pixels as u64;
        for (total, sum) in self.sums.iter_mut().zip(sums) {
            total[0] += sum[0];
            total[1] += sum[1];
        }
    }

    fn finish(mut self, name: String, classes: Vec<String>, notes: Vec<String>) -> Scan {
        let mut images = [0; 3];
        let mut counts = vec![[0; 3]; classes.len()];
        for seen in &self.seen {
            images[seen.split] += 1;
            if let Some(counts) = counts.get_mut(seen.label) {
                counts[seen.split] += 1;
            }
        }
        let sizes = std::mem::take(&mut self.sizes).into_iter();
        let sizes = sizes.map(|([height, width], images)| FoundSize {
            height,
            width,
            images,
        });
        let mut sizes: Vec<FoundSize> = sizes.collect();
        sizes.sort_by_key(|size| (std::cmp::Reverse(size.images), size.height, size.width));
        let formats = std::mem::take(&mut self.formats).into_iter();
        let mut formats: Vec<_> = formats
            .map(|(name, count)| (name.to_owned(), count))
            .collect();
        formats.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let channels = if self.channels[1] > 0 { 3 } else { 1 };
        let pixels = self.pixels.max(1) as f64;
        let means = self.sums[..channels].iter().map(|[sum, squares]| {
            let mean = *sum as f64 / pixels;
            let variance = (*squares as f64 / pixels - mean * mean).max(0.0);
            (mean / 255.0, variance.sqrt() / 255.0)
        });
        let means = means.collect();
        let indices = |wanted: &dyn Fn(usize) -> bool| -> Vec<usize> {
            let seen = self.seen.iter().enumerate();
            seen.filter(|(_, seen)| wanted(seen.split))
                .map(|(index, _)| index)
                .collect()
        };
        let (train, others) = (indices(&|split| split == 0), indices(&|split| split > 0));
        let within_train = self.repeats(&[], &train, &classes);
        let in_train = match train.is_empty() {
            true => Repeats::default(),
            false => self.repeats(&train, &others, &classes),
        };
        Scan {
            name,
            classes,
            images,
            counts,
            sizes,
            channels: self.channels,
            formats,
            means,
            faults: Vec::new(),
            scaled_down: self.scaled_down,
            turned: self.turned,
            within_train,
            in_train,
            notes,
        }
    }

    fn repeats(&self, old: &[usize], new: &[usize], classes: &[String]) -> Repeats {
        let prints: Vec<Print> = self.seen.iter().map(|seen| seen.print.clone()).collect();
        let found = twins(&prints, old, new);
        let label = |index: usize| self.seen[index].label;
        let all = || {
            let exact = found.exact.iter().map(|pair| (pair, true));
            exact.chain(found.near.iter().map(|pair| (pair, false)))
        };
        let differ = |pair: &(usize, usize)| !classes.is_empty() && label(pair.0) != label(pair.1);
        let (wrong, right): (Vec<_>, Vec<_>) = all().partition(|(pair, _)| differ(pair));
        let (other_class, named) = (wrong.len(), wrong.into_iter().chain(right).take(NAMED));
        let named = named.map(|(pair, exact)| Repeat {
            images: [pair.0, pair.1].map(|index| self.names[index].clone()),
            exact,
            classes: differ(pair)
                .then(|| [pair.0, pair.1].map(|index| classes[label(index)].clone())),
        });
        Repeats {
            exact: found.exact.len(),
            near: found.near.len(),
            other_class,
            named: named.collect(),
        }
    }
}

/// An image that was looked at: its figures and its print.
struct Looked {
    found: [usize; 2],
    channels: usize,
    format: &'static str,
    scaled_down: bool,
    turned: bool,
    print: Print,
    /// Number of pixels and sums of their values, as they are read for training.
    sums: (usize, [[u64; 2]; 3]),
}

fn look(path: &std::path::Path, bytes: &[u8], reading: &Reading) -> Result<Looked> {
    let decoded = decode_whole(path, bytes, reading)?;
    let print = Print::of(&decoded.picture);
    let picture = decoded.picture.read_as(reading);
    Ok(Looked {
        found: decoded.found,
        channels: picture.channels,
        format: format_of(bytes).map_or("", name_of),
        scaled_down: decoded.scaled_down,
        turned: decoded.turned,
        print,
        sums: (picture.height * picture.width, sums(&picture)),
    })
}

/// Looks at the image files of a store, a chunk of them at a time.
///
/// # Errors
/// [`Error::Io`], [`Error::Format`] for a damaged archive, and where no image can be read that of the first.
pub(super) fn files(store: &Store, layout: Layout, reading: &Reading) -> Result<Scan> {
    let splits = [&layout.train, &layout.test, &layout.val];
    let all: Vec<(usize, &Item)> = (0..)
        .zip(splits)
        .flat_map(|(split, items)| items.iter().map(move |item| (split, item)))
        .collect();
    let places: HashMap<String, usize> = (all.iter().enumerate())
        .map(|(place, (_, item))| (item.name.clone(), place))
        .collect();
    let mut collector = Collector::default();
    let mut faults: Vec<(usize, Error)> = Vec::new();
    // By place, because an archive has its own order.
    let mut looked: Vec<Option<Print>> = Vec::new();
    looked.resize_with(all.len(), || None);
    let mut chunk: Vec<(usize, PathBuf, Vec<u8>)> = Vec::new();
    let mut bytes_held = 0;
    let mut flush = |chunk: &mut Vec<(usize, PathBuf, Vec<u8>)>,
                     faults: &mut Vec<(usize, Error)>|
     -> Result<()> {
        let found: Vec<Result<Looked>> = chunk
            .par_iter()
            .map(|(_, path, bytes)| look(path, bytes, reading))
            .collect();
        for (found, (place, ..)) in found.into_iter().zip(chunk.drain(..)) {
            match found {
                Ok(found) => {
                    collector.count(found.found, found.channels);
                    if !found.format.is_empty() {
                        *collector.formats.entry(found.format).or_default() += 1;
                    }
                    collector.scaled_down += usize::from(found.scaled_down);
                    collector.turned += usize::from(found.turned);
                    if all[place].0 == 0 {
                        collector.add_sums(found.sums.0, found.sums.1);
                    }
                    looked[place] = Some(found.print);
                }
                Err(error @ (Error::Format { .. } | Error::Data { .. })) => {
                    faults.push((place, error))
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    store.read(&places, |place, content| {
        let path = store.path_of(&all[place].1.name);
        match read_file(&path, content) {
            Ok(bytes) => {
                bytes_held += bytes.len();
                chunk.push((place, path, bytes));
            }
            Err(error) if store.is_fault_of_one_file(&error) => faults.push((place, error)),
            Err(error) => return Err(error),
        }
        if bytes_held >= CHUNK_BYTES || chunk.len() >= CHUNK_LEN {
            bytes_held = 0;
            flush(&mut chunk, &mut faults)?;
        }
        Ok(())
    })?;
    flush(&mut chunk, &mut faults)?;
    faults.sort_by_key(|(place, _)| *place);
    for ((split, item), print) in all.iter().zip(looked) {
        if let Some(print) = print {
            let (split, label) = (*split, item.label);
            collector.seen.push(Seen {
                split,
                label,
                print,
            });
            collector.names.push(item.name.clone());
        }
    }
    if collector.seen.is_empty() && !faults.is_empty() {
        return Err(faults.remove(0).1);
    }
    let mut scan = collector.finish(
        store.name(),
        layout.classes.clone(),
        [layout.notes.clone(), layout.left_out.clone()].concat(),
    );
    scan.faults = (faults.into_iter())
        .map(|(place, error)| Fault {
            image: store.path_of(&all[place].1.name),
            hint: error.hint().unwrap_or_default().to_owned(),
            reason: reason(&error),
        })
        .collect();
    Ok(scan)
}

/// What is wrong with a file, without its name.
fn reason(error: &Error) -> String {
    match error {
        Error::Format {
            place,
            expected,
            found,
            ..
        } => format!("{place}: expected {expected}, found {found}"),
        Error::Data { problem, .. } => problem.clone(),
        other => other.to_string(),
    }
}

/// Looks at a data set that was read already, whose images are no files.
pub(super) fn dataset(data: &Dataset) -> Scan {
    let mut collector = Collector::default();
    let none = data.test.select(&[]);
    let splits = [&data.train, &data.test, data.val.as_ref().unwrap_or(&none)];
    for (index, split) in splits.into_iter().enumerate() {
        let images = &split.images;
        let prints: Vec<Print> = (0..images.len())
            .into_par_iter()
            .map(|i| Print::of(&images.picture(i)))
            .collect();
        for (i, print) in prints.into_iter().enumerate() {
            collector.count([images.height, images.width], images.channels);
            if index == 0 {
                let picture = images.picture(i);
                collector.add_sums(images.height * images.width, sums(&picture));
            }
            let label = split.labels.get(i).copied().unwrap_or(0);
            collector.seen.push(Seen {
                split: index,
                label,
                print,
            });
            collector.names.push(format!("{} image {i}", SPLITS[index]));
        }
    }
    collector.finish(data.name.clone(), data.classes.clone(), data.notes.clone())
}
