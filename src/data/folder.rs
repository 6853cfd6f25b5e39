//! Image folders, on disk or in an archive: splits and class folders, or images without labels.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::archive::Store;
use super::arrived::{Arrived, Sorted};
use super::cache::{Begun, Part, Seen, Slot};
use super::dataset::{Dataset, Split};
use super::decode::{Decoded, decode, read_file};
use super::images::Files;
use super::layout::{Item, Layout};
use super::loading::{self, loading};
use super::reading::{Channels, Damaged, Reading};
use crate::error::{Error, Result};

/// Largest size of a chunk in bytes: of its files, and of its decoded pixels.
const CHUNK_BYTES: usize = 16 << 20;
/// Largest number of files in a chunk.
const CHUNK_LEN: usize = 1024;
/// Time between two reports of how far a set has come.
const REPORTED: Duration = Duration::from_millis(200);
/// Images that are named in a message, of all that have a fault.
const NAMED: usize = 10;
/// Hints that are given together, of as many kinds of faults.
const HINTS: usize = 3;

/// Hints for images that cannot be read: each image's own, once, and how to go on without them where others can be read.
pub fn joint_hint<'a>(own: impl Iterator<Item = &'a str>, others: bool) -> String {
    let mut hints: Vec<&str> = Vec::new();
    for hint in own.filter(|hint| !hint.is_empty()) {
        if hints.len() < HINTS && !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    if others {
        hints.push("--set 'data.damaged = \"skip\"' goes on without them");
    }
    hints.join("; ")
}

/// What [`load`] comes to.
pub(super) enum Loaded {
    /// A data set, and the file of the cache in which its images are, where they are in one.
    Decoded(Dataset, Option<Box<Part>>),
    /// The data set as another process put it into the cache meanwhile.
    Kept(Dataset),
}

/// Reads the images of a layout, which lie in a store. Classes are sorted by name, images by class and name: a folder and
/// an archive of it give the same data set, whatever the order in the archive. Where the images are many, they are
/// put into the file of the cache that `slot` names.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a damaged archive; [`Error::Data`] for images that cannot be read, all of them
/// named, for images of several sizes without one that is asked for, and where memory does not suffice.
pub(super) fn load(
    store: &Store,
    layout: Layout,
    reading: &Reading,
    damaged: Damaged,
    slot: Option<&Slot>,
) -> Result<Loaded> {
    let source = store.path().display().to_string();
    let items = || {
        [&layout.train, &layout.test, &layout.val]
            .into_iter()
            .flatten()
    };
    let names: Vec<&str> = items().map(|item| item.name.as_str()).collect();
    let mut places: HashMap<String, usize> =
        items().map(|item| item.name.clone()).zip(0..).collect();
    let name = store.name();
    let mut collector = ImageCollector::new(&source, &name, reading, &layout, slot);
    collector.base = store.base();
    let path = |place: usize| names.get(place).map(|name| store.path_of(name));
    for place in collector.resume(path) {
        places.remove(names[place]);
    }
    store.read(&places, |place, content| {
        let path = store.path_of(names[place]);
        match read_file(&path, content) {
            Ok(bytes) => collector.add(place, path, bytes),
            Err(error) if store.is_fault_of_one_file(&error) => {
                collector.faults.push((place, error));
                Ok(())
            }
            Err(error) => Err(error),
        }
    })?;
    collector.finish(layout, damaged, |name| store.below_base(name))
}

/// Collects decoded images, which may arrive in any order.
struct ImageCollector<'a> {
    source: &'a str,
    /// Name of the data set.
    name: &'a str,
    /// Folder or archive that the names begin at.
    base: PathBuf,
    /// Place in the cache.
    slot: Option<&'a Slot>,
    reading: &'a Reading,
    /// Numbers of training, test and validation images that are listed, in this order.
    lengths: [usize; 3],
    arrived: Arrived,
    /// Files that are not decoded yet: place, path, content.
    chunk: Vec<(usize, PathBuf, Vec<u8>)>,
    chunk_bytes: usize,
    /// Height, width and channels of the images that are kept.
    shape: Option<[usize; 3]>,
    /// Sizes that were found, with the number of images and the first of them.
    sizes: BTreeMap<[usize; 2], (usize, PathBuf)>,
    /// Numbers of gray and of colour images.
    channels: [usize; 2],
    /// Images that cannot be read.
    faults: Vec<(usize, Error)>,
    /// Numbers of images with 16 bits a channel, and of those that were turned upright.
    scaled_down: usize,
    turned: usize,
    /// When it was said last how far the set has come.
    reported: Instant,
    /// The data set, where another process decoded it meanwhile.
    elsewhere: Option<Dataset>,
}

impl<'a> ImageCollector<'a> {
    /// A collector of the images of a layout. `source` is the data set's path for messages, `slot` its place in the
    /// cache.
    fn new(
        source: &'a str,
        name: &'a str,
        reading: &'a Reading,
        layout: &Layout,
        slot: Option<&'a Slot>,
    ) -> Self {
        let lengths = [&layout.train, &layout.test, &layout.val].map(Vec::len);
        Self {
            source,
            name,
            base: PathBuf::new(),
            slot,
            reading,
            lengths,
            arrived: Arrived::new(lengths.iter().sum()),
            chunk: Vec::new(),
            chunk_bytes: 0,
            shape: None,
            sizes: BTreeMap::new(),
            channels: [0; 2],
            faults: Vec::new(),
            scaled_down: 0,
            turned: 0,
            reported: Instant::now(),
            elsewhere: None,
        }
    }

    /// Goes on where a killed process was. Places of the images that are there already, which need not be read.
    fn resume(&mut self, path: impl Fn(usize) -> Option<PathBuf>) -> Vec<usize> {
        let Some(slot) = self.slot.filter(|slot| slot.is_begun()) else {
            return Vec::new();
        };
        match slot.resume(self.lengths.iter().sum()) {
            Ok(Begun::Part(part)) if !part.seen().is_empty() => {
                for seen in part.seen() {
                    self.count(seen, path(seen.place).unwrap_or_default());
                }
                self.shape = Some(part.shape());
                self.arrived.continue_in(part);
            }
            Ok(Begun::Part(_)) => {}
            Ok(Begun::Elsewhere(dataset)) => self.elsewhere = Some(*dataset),
            // Decoding it again may do without the file.
            Err(error) => (self.slot, self.arrived.uncached) = (None, Some(error)),
        }
        self.arrived.places().to_vec()
    }

    /// Adds one file, and decodes the chunk when it is full.
    fn add(&mut self, place: usize, path: PathBuf, bytes: Vec<u8>) -> Result<()> {
        if self.elsewhere.is_some() {
            return Ok(());
        }
        self.chunk_bytes += bytes.len();
        self.chunk.push((place, path, bytes));
        // The first image alone: how much memory a chunk takes is not known before.
        let most = match self.shape {
            None => 1,
            Some(shape) => {
                let image_len = shape.iter().product::<usize>().max(1);
                (CHUNK_BYTES / image_len).clamp(1, CHUNK_LEN)
            }
        };
        if self.chunk.len() >= most || self.chunk_bytes >= CHUNK_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        self.chunk_bytes = 0;
        let reading = self.reading;
        let decoded: Vec<Result<Decoded>> = chunk
            .par_iter()
            .map(|(_, path, bytes)| decode(path, bytes, reading))
            .collect();
        for (decoded, (place, path, _)) in decoded.into_iter().zip(chunk) {
            match decoded {
                Ok(decoded) => self.keep(place, path, decoded)?,
                Err(error @ (Error::Format { .. } | Error::Data { .. })) => {
                    self.faults.push((place, error));
                }
                Err(error) => return Err(error),
            }
        }
        if self.reported.elapsed() >= REPORTED {
            self.reported = Instant::now();
            self.report(self.arrived.count() + self.faults.len());
        }
        Ok(())
    }

    fn report(&self, done: usize) {
        let total = self.lengths.iter().sum();
        let name = self.name;
        (loading().progress)(&loading::Decoded { name, done, total });
    }

    /// Counts what is said about all images.
    fn count(&mut self, seen: &Seen, path: PathBuf) {
        self.scaled_down += usize::from(seen.scaled_down);
        self.turned += usize::from(seen.turned);
        self.sizes.entry(seen.found).or_insert((0, path)).0 += 1;
        self.channels[usize::from(seen.channels == 3)] += 1;
    }

    fn keep(&mut self, place: usize, path: PathBuf, decoded: Decoded) -> Result<()> {
        let mut picture = decoded.picture;
        let seen = Seen {
            place,
            found: decoded.found,
            channels: picture.channels,
            scaled_down: decoded.scaled_down,
            turned: decoded.turned,
        };
        self.count(&seen, path);
        if self.is_of_several_sizes() {
            // They are only counted from here on.
            self.arrived.forget();
            return Ok(());
        }
        // A mixture becomes RGB: those that came before, and those that come.
        if let Some(shape @ [channels, height, width]) = self.shape
            && channels != picture.channels
        {
            if channels == 1 {
                self.arrived.make_rgb(shape)?;
                self.shape = Some([3, height, width]);
            } else {
                picture = picture.with_channels(Channels::Rgb);
            }
        }
        let shape = [picture.channels, picture.height, picture.width];
        let pixels = picture.planes();
        if self.shape.is_none() {
            self.shape = Some(shape);
            let bytes = pixels.len().saturating_mul(self.lengths.iter().sum());
            let slot = self.slot.filter(|_| Slot::is_for(bytes));
            match slot.map(|slot| slot.begin(shape)) {
                Some(Ok(Begun::Part(part))) => self.arrived.continue_in(part),
                Some(Ok(Begun::Elsewhere(dataset))) => self.elsewhere = Some(*dataset),
                // It may fit all the same.
                Some(Err(error)) => self.arrived.uncached = Some(error),
                None => {}
            }
        }
        self.arrived.add(seen, &pixels, self.source)
    }

    fn is_of_several_sizes(&self) -> bool {
        self.reading.size.is_none() && self.sizes.len() > 1
    }

    /// Refuses images of several sizes, with their counts.
    fn require_one_size(&self) -> Result<()> {
        if !self.is_of_several_sizes() {
            return Ok(());
        }
        let mut sizes: Vec<_> = self.sizes.iter().collect();
        sizes.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        let named = sizes
            .iter()
            .take(4)
            .map(|([height, width], (count, path))| {
                format!("{count} of {width} × {height} ({}, …)", path.display())
            });
        let mut named: Vec<String> = named.collect();
        if sizes.len() > named.len() {
            let rest: usize = sizes[named.len()..]
                .iter()
                .map(|(_, (count, _))| count)
                .sum();
            named.push(format!(
                "{rest} of {} other sizes",
                sizes.len() - named.len()
            ));
        }
        Err(Error::data(
            self.source,
            format!(
                "expected images of one size, found {} sizes (width × height): {}",
                self.sizes.len(),
                named.join(", ")
            ),
            "--set 'data.size = 64' brings them to one (data.fit: crop, pad or stretch)",
        ))
    }

    /// Refuses images that cannot be read, all of them at once.
    fn require_readable(&mut self, damaged: Damaged) -> Result<()> {
        let readable = self.arrived.count();
        self.faults.sort_by_key(|(place, _)| *place);
        if self.faults.is_empty() || damaged == Damaged::Skip && readable > 0 {
            return Ok(());
        }
        if self.faults.len() == 1 {
            return Err(self.faults.remove(0).1);
        }
        let listed = self.faults.iter().take(NAMED);
        let mut listed: Vec<String> = listed.map(|(_, error)| error.to_string()).collect();
        if self.faults.len() > listed.len() {
            listed.push(format!("and {} more", self.faults.len() - listed.len()));
        }
        let all: usize = self.lengths.iter().sum();
        Err(Error::data(
            self.source,
            format!(
                "{} of {all} images cannot be read: {}",
                self.faults.len(),
                listed.join("; ")
            ),
            joint_hint(
                self.faults.iter().filter_map(|(_, error)| error.hint()),
                readable > 0,
            ),
        ))
    }

    /// The data set of all images of the layout. `below_base` gives the path of a listed file below the base.
    ///
    /// # Errors
    /// [`Error::Data`] for images that cannot be read, all of them named, for images of several sizes without one that
    /// is asked for, and where memory does not suffice; [`Error::Io`].
    fn finish(
        mut self,
        mut layout: Layout,
        damaged: Damaged,
        below_base: impl Fn(&str) -> PathBuf,
    ) -> Result<Loaded> {
        self.flush()?;
        if let Some(dataset) = self.elsewhere {
            return Ok(Loaded::Kept(dataset));
        }
        self.report(self.lengths.iter().sum());
        let good = self.require_readable(damaged);
        if let Err(error) = good.and_then(|()| self.require_one_size()) {
            self.arrived.forget();
            return Err(error);
        }
        let missing: Vec<usize> = self.faults.iter().map(|(place, _)| *place).collect();
        let mut notes = std::mem::take(&mut layout.notes);
        notes.extend(std::mem::take(&mut layout.left_out));
        let expected: usize = self.lengths.iter().sum();
        let found = self.arrived.count() + missing.len();
        let items = [&layout.train, &layout.test, &layout.val];
        let listed: Vec<&Item> = items.into_iter().flatten().collect();
        let files = Files {
            base: self.base.clone(),
            names: (self.arrived.places().iter())
                .map(|place| below_base(&listed[*place].name))
                .collect(),
        };
        let split = match self.shape {
            Some(shape) => self.arrived.split(shape, self.lengths, &missing)?,
            None => None,
        };
        let Some(Sorted { images, part }) = split else {
            return Err(Error::data(
                self.source,
                format!("expected {expected} images as listed, found {found} when reading them"),
                "the archive changed meanwhile: try again",
            ));
        };
        notes.extend(self.notes());
        let is_labeled = !layout.classes.is_empty();
        let mut place = 0..;
        let mut labels = |items: Vec<Item>| -> Vec<usize> {
            if !is_labeled {
                return Vec::new();
            }
            let kept = items.into_iter().zip(&mut place);
            let kept = kept.filter(|(_, place)| missing.binary_search(place).is_err());
            kept.map(|(item, _)| item.label).collect()
        };
        let labels = [layout.train, layout.test, layout.val].map(&mut labels);
        let files = Arc::new(files);
        let images = images.map(|images| images.read_from(files.clone()));
        let mut splits = images.into_iter().zip(labels);
        let mut split = || {
            let (images, labels) = splits.next().expect("one of three");
            Split { images, labels }
        };
        let (train, test, val) = (split(), split(), split());
        let mut reading = *self.reading;
        if self.channels.iter().all(|count| *count > 0) {
            // Predictions convert as well.
            reading.channels.get_or_insert(Channels::Rgb);
        }
        let dataset = Dataset {
            name: self.name.to_owned(),
            classes: layout.classes,
            train,
            test,
            val: (!val.images.is_empty()).then_some(val),
            notes,
            reading,
        };
        Ok(Loaded::Decoded(dataset, part))
    }

    /// Things that were done to the images, in words.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let images = |count: usize| match count {
            1 => "1 image".to_owned(),
            count => format!("{count} images"),
        };
        if !self.faults.is_empty() {
            let named = self
                .faults
                .iter()
                .take(4)
                .map(|(_, error)| error.to_string());
            let named: Vec<String> = named.collect();
            let dots = if self.faults.len() > named.len() {
                "; …"
            } else {
                ""
            };
            notes.push(format!(
                "{} cannot be read and are passed over: {}{dots}",
                images(self.faults.len()),
                named.join("; ")
            ));
        }
        let [gray, colour] = self.channels;
        if gray > 0 && colour > 0 {
            notes.push(format!(
                "{} are gray and {colour} in colour: all become RGB (data.channels)",
                images(gray)
            ));
        }
        if self.reading.size.is_some() && self.sizes.len() > 1 {
            notes.push(format!(
                "{} sizes were brought to one (data.size)",
                self.sizes.len()
            ));
        }
        if self.scaled_down > 0 {
            notes.push(format!(
                "{} with 16 bits a channel were scaled to 8",
                images(self.scaled_down)
            ));
        }
        if self.turned > 0 {
            notes.push(format!(
                "{} were turned as their EXIF orientation says",
                images(self.turned)
            ));
        }
        if let Some(error) = &self.arrived.uncached {
            notes.push(format!("decoded images are held in memory: {error}"));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{gray_png, gzip, load_path, picture, png, put, refused, tar};
    use super::*;
    use image::{ExtendedColorType, ImageFormat};
    use std::fs;

    /// Name and content of a labeled set; the seed of an image is its first value.
    fn files() -> Vec<(String, Vec<u8>)> {
        let mut files = vec![("train/README.txt".into(), b"words".to_vec())];
        for (i, name) in [
            "test/dog/a",
            "train/dog/b",
            "train/cat/z",
            "test/cat/a",
            "train/cat/y",
        ]
        .iter()
        .enumerate()
        {
            files.push((format!("{name}.png"), png(3, 2, i as u8)));
        }
        files
    }

    fn check(set: &Dataset) {
        assert_eq!(set.classes, ["cat", "dog"]);
        assert_eq!(
            (&set.train.labels[..], &set.test.labels[..]),
            (&[0, 0, 1][..], &[0, 1][..])
        );
        let images = &set.train.images;
        assert_eq!((images.channels, images.height, images.width), (3, 2, 3));
        let first = |split: &Split| -> Vec<u8> {
            (0..split.images.len())
                .map(|i| split.images.image(i)[0])
                .collect()
        };
        assert_eq!(
            (first(&set.train), first(&set.test)),
            (vec![4, 2, 1], vec![3, 0])
        );
    }

    #[test]
    fn a_folder_and_its_archives_are_the_same_set() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("pets");
        files()
            .iter()
            .for_each(|(name, bytes)| put(folder.join(name), bytes));
        let set = load_path(&folder).unwrap();
        check(&set);
        assert_eq!(set.name, "pets");
        for (prefix, name) in [
            ("", "a.tar"),
            ("./", "b.tar.gz"),
            ("top/", "c.tgz"),
            ("./top/", "unnamed"),
        ] {
            let named: Vec<(String, Vec<u8>)> = files()
                .into_iter()
                .rev()
                .map(|(name, bytes)| (format!("{prefix}{name}"), bytes))
                .collect();
            let members: Vec<(&str, &[u8])> = named
                .iter()
                .map(|(name, bytes)| (name.as_str(), &bytes[..]))
                .collect();
            let packed = tar(&members);
            let path = dir.path().join(name);
            put(
                &path,
                &if name.ends_with("gz") {
                    gzip(&packed)
                } else {
                    packed
                },
            );
            check(&load_path(&path).unwrap());
        }
    }

    /// A path of bytes that may be no UTF-8.
    #[cfg(target_os = "linux")]
    fn odd(folder: &std::path::Path, name: &[u8]) -> PathBuf {
        let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name);
        folder.join(name)
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn classes_and_images_are_told_apart_by_names_that_are_no_utf_8() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        // "café", "cafè" and "cafê" in Latin-1; a class is the same one in both splits, whatever is beside it.
        let files: [(&[u8], u8); 5] = [
            (b"train/caf\xe9/1.png", 10),
            (b"train/caf\xe9/2.png", 20),
            (b"train/caf\xea/1.png", 30),
            (b"test/caf\xea/1.png", 40),
            (b"test/caf\xe9/1.png", 50),
        ];
        for (name, seed) in files {
            put(odd(&real, name), &gray_png(1, 1, seed));
        }
        let set = load_path(dir.path()).unwrap();
        assert_eq!(set.classes, ["caf\\xe9", "caf\\xea"]);
        assert_eq!((set.train.labels.len(), set.test.labels.len()), (3, 2));
        assert_eq!(
            (&set.train.labels[..], &set.test.labels[..]),
            (&[0, 0, 1][..], &[0, 1][..])
        );
        assert_eq!(set.train.images.pixels(), [10, 20, 30]);
        assert_eq!(set.test.images.pixels(), [50, 40]);
        for (i, (name, _)) in files[..3].iter().enumerate() {
            assert_eq!(set.train.images.path(i), Some(odd(&real, name)));
        }
        // Another class in the other split is another one.
        fs::rename(odd(&real, b"test/caf\xea"), odd(&real, b"test/caf\xe8")).unwrap();
        refused(dir.path(), &["the same classes", "found caf\\xea in train"]);
        // Names that look the same in other ways, in one folder.
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let names: [&[u8]; 4] = [
            b"a\xff.png",
            b"a\xfe.png",
            b"a\xef\xbf\xbd.png",
            b"a\\xff.png",
        ];
        for (seed, name) in (1..).zip(names) {
            put(odd(&real, name), &gray_png(1, 1, seed));
        }
        let images = load_path(dir.path()).unwrap().train.images;
        assert_eq!(images.len(), 4);
        for i in 0..4 {
            let name = names[usize::from(images.image(i)[0]) - 1];
            assert_eq!(images.path(i), Some(odd(&real, name)));
            // Also where the images were converted.
            assert_eq!(images.with_channels(3).path(i), Some(odd(&real, name)));
        }
    }

    #[test]
    fn a_flat_folder_is_unlabeled() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path().join("b.png"), &gray_png(2, 2, 7));
        put(
            dir.path().join("a.JPEG"),
            &picture(ImageFormat::Jpeg, ExtendedColorType::L8, 2, 2, 0),
        );
        let set = load_path(dir.path()).unwrap();
        assert_eq!((set.train.images.len(), set.test.images.len()), (2, 0));
        assert!(set.train.labels.is_empty() && set.classes.is_empty());
        assert_eq!(set.train.images.image(1), [7, 8, 9, 10]);
        let error = set.require_labels().unwrap_err();
        assert!(error.hint().unwrap().contains("train/<class>/"));
    }

    #[test]
    fn many_images_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..CHUNK_LEN + 10 {
            put(
                dir.path().join(format!("{i:04}.png")),
                &gray_png(1, 1, (i % 251) as u8),
            );
        }
        let set = load_path(dir.path()).unwrap();
        let expected: Vec<u8> = (0..CHUNK_LEN + 10).map(|i| (i % 251) as u8).collect();
        assert_eq!(set.train.images.pixels(), expected);
    }

    #[test]
    fn a_bad_image_is_named_in_a_folder_and_in_an_archive() {
        let (cut_png, cut_jpeg) = (
            png(3, 2, 0),
            picture(ImageFormat::Jpeg, ExtendedColorType::Rgb8, 3, 2, 0),
        );
        let rgba = picture(ImageFormat::Png, ExtendedColorType::Rgba8, 3, 2, 0);
        let cases: [(&[u8], &[&str]); 6] = [
            (&cut_png[..cut_png.len() - 20], &["image data"]),
            (&cut_jpeg[..cut_jpeg.len() - 2], &["expected an end mark"]),
            (b"", &["found an empty file"]),
            (b"not an image", &["found a text (12 bytes)"]),
            (&rgba, &["pixels are transparent", "data.background"]),
            (&png(2, 3, 0), &["5 of 3 × 2", "1 of 2 × 3", "data.size"]),
        ];
        for (bytes, words) in cases {
            let dir = tempfile::tempdir().unwrap();
            let mut members = files();
            members.push(("train/dog/bad.png".into(), bytes.to_vec()));
            let folder = dir.path().join("set");
            members
                .iter()
                .for_each(|(name, bytes)| put(folder.join(name), bytes));
            let archive = dir.path().join("set.tar.gz");
            let refs: Vec<(&str, &[u8])> = members
                .iter()
                .map(|(name, bytes)| (name.as_str(), &bytes[..]))
                .collect();
            put(&archive, &gzip(&tar(&refs)));
            refused(&folder, &[words, &["set/train/dog/bad.png"]].concat());
            refused(
                &archive,
                &[words, &["set.tar.gz/train/dog/bad.png"]].concat(),
            );
        }
    }

    #[test]
    fn empty_folders_and_classes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        refused(
            dir.path(),
            &["expected images (PNG, ", "found none", "train/<class>/"],
        );
        files()
            .iter()
            .for_each(|(name, bytes)| put(dir.path().join(name), bytes));
        fs::create_dir(dir.path().join("train/bird")).unwrap();
        refused(
            dir.path(),
            &["expected images in train/bird (PNG, ", "found none"],
        );
        let archive = dir.path().join("empty.tar");
        put(&archive, &tar(&[]));
        refused(&archive, &["expected images (PNG, ", "found none"]);
        put(
            &archive,
            &tar(&[
                ("train/a/", b""),
                ("train/b/1.png", &png(1, 1, 0)),
                ("test/b/1.png", &png(1, 1, 0)),
            ]),
        );
        refused(&archive, &["images in train/a (PNG, "]);
    }

    #[test]
    fn mixtures_become_one_kind_and_damaged_images_are_listed_or_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, bytes) in [
            ("a.png", gray_png(2, 2, 1)),
            ("b.png", png(2, 2, 9)),
            ("c.png", gray_png(2, 2, 5)),
        ] {
            put(at(name), &bytes);
        }
        let set = load_path(dir.path()).unwrap();
        assert_eq!(set.train.images.channels, 3);
        assert_eq!(set.train.images.image(0), [1, 2, 3, 4].repeat(3));
        assert_eq!(set.train.images.image(2), [5, 6, 7, 8].repeat(3));
        assert!(
            set.notes[0].contains("2 images are gray and 1 in colour"),
            "{:?}",
            set.notes
        );
        assert_eq!(set.reading.channels, Some(Channels::Rgb));
        let source = dir.path().to_str().unwrap();
        let load = |reading: Reading, damaged| super::super::load_as(source, &reading, damaged);
        let gray = Reading {
            channels: Some(Channels::Gray),
            size: Some(super::super::Size::Square(1)),
            ..Reading::default()
        };
        let set = load(gray, Damaged::Refuse).unwrap();
        assert_eq!(set.train.images.pixels().len(), 3);
        // Two that are damaged: both are named, or passed over.
        put(at("b.png"), &png(2, 2, 9)[..50]);
        put(at("d.png"), b"");
        let error = load(Reading::default(), Damaged::Refuse).unwrap_err();
        for words in ["2 of 4 images cannot be read", "b.png", "d.png"] {
            assert!(error.to_string().contains(words), "{words} in {error}");
        }
        assert!(error.hint().unwrap().contains("data.damaged"));
        let set = load(Reading::default(), Damaged::Skip).unwrap();
        assert_eq!(set.train.images.pixels(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(
            set.notes[0].contains("2 images cannot be read and are passed over"),
            "{:?}",
            set.notes
        );
    }

    #[test]
    fn sizes_are_counted_or_brought_to_one() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..6 {
            put(
                dir.path().join(format!("{i}.png")),
                &gray_png(2 + i / 4, 3, i as u8),
            );
        }
        refused(
            dir.path(),
            &["found 2 sizes", "4 of 2 × 3", "2 of 3 × 3", "data.size"],
        );
        let reading = Reading {
            size: Some(super::super::Size::Sides([4, 5])),
            ..Reading::default()
        };
        let source = dir.path().to_str().unwrap();
        let set = super::super::load_as(source, &reading, Damaged::Refuse).unwrap();
        let images = &set.train.images;
        assert_eq!((images.len(), images.height, images.width), (6, 4, 5));
        assert!(
            set.notes[0].contains("2 sizes were brought to one"),
            "{:?}",
            set.notes
        );
    }
}
