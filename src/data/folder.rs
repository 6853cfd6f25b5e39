//! Image folders, on disk or in a tar archive: splits and class folders, or images without labels.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use rayon::prelude::*;

use super::archive::Store;
use super::dataset::{Dataset, Split};
use super::decode::{Decoded, decode, read_file};
use super::entry::Entry;
use super::images::Images;
use super::layout::{Item, Layout};
use super::reading::{Channels, Damaged, Reading};
use crate::error::{Error, Result};

/// Largest size of a chunk in bytes: of its files, and of its decoded pixels.
const CHUNK_BYTES: usize = 16 << 20;
/// Largest number of files in a chunk.
const CHUNK_LEN: usize = 1024;
/// Memory that is claimed at a time for decoded images, in bytes. It takes room as images arrive; an
/// allocation of this size can grow without a copy.
const CLAIM: usize = 1 << 30;
/// Images that are named in a message, of all that have a fault.
const NAMED: usize = 10;

/// Reads all images of a store. Classes are sorted by name, images by class and name: a folder and
/// an archive of it give the same data set, whatever the order in the archive.
///
/// # Errors
/// Those of [`Layout::of`]; [`Error::Io`]; [`Error::Data`] for images that cannot be read, all of them
/// named, for images of several sizes without one that is asked for, and where memory does not suffice.
pub(super) fn load(
    store: &Store,
    entries: Vec<Entry>,
    reading: &Reading,
    damaged: Damaged,
) -> Result<Dataset> {
    let source = store.path().display().to_string();
    let layout = Layout::of(&source, entries)?;
    let splits = [&layout.train, &layout.test, &layout.val];
    let all = || splits.into_iter().flatten();
    let places: HashMap<String, usize> = all()
        .enumerate()
        .map(|(place, item)| (item.name.clone(), place))
        .collect();
    let names: Vec<&str> = all().map(|item| item.name.as_str()).collect();
    let mut collector = ImageCollector {
        source: &source,
        reading,
        splits: splits.map(|items| Arrived::new(items.len())),
        chunk: Vec::new(),
        chunk_bytes: 0,
        image_len: 0,
        shape: None,
        sizes: BTreeMap::new(),
        channels: [0; 2],
        faults: Vec::new(),
        scaled_down: 0,
        turned: 0,
    };
    store.read(&places, |place, content| {
        let path = store.path_of(names[place]);
        match read_file(&path, content) {
            Ok(bytes) => collector.add(place, path, bytes),
            Err(error @ Error::Data { .. }) => {
                collector.faults.push((place, error));
                Ok(())
            }
            Err(error) => Err(error),
        }
    })?;
    collector.flush()?;
    collector.finish(store.name(), layout, damaged)
}

/// Decoded images of a split, in the order in which they arrive. So memory is taken by what is there, not
/// by what an archive lists.
struct Arrived {
    pixels: Vec<u8>,
    /// Place in the split of each image.
    places: Vec<usize>,
    /// Number of images that are listed.
    len: usize,
}

impl Arrived {
    fn new(len: usize) -> Self {
        Self {
            pixels: Vec::new(),
            places: Vec::new(),
            len,
        }
    }

    /// Adds an image; false where memory does not suffice.
    fn add(&mut self, place: usize, image: &[u8]) -> bool {
        if self.pixels.capacity() - self.pixels.len() < image.len() {
            let missing = self.len.saturating_sub(self.places.len());
            let step = CLAIM.max(self.pixels.len());
            let more = missing.saturating_mul(image.len()).min(step);
            if self
                .pixels
                .try_reserve_exact(more.max(image.len()))
                .is_err()
            {
                return false;
            }
        }
        self.pixels.extend_from_slice(image);
        self.places.push(place);
        true
    }

    /// Makes gray images colour ones.
    fn make_rgb(&mut self, image_len: usize) {
        let images = self.pixels.chunks(image_len.max(1));
        self.pixels = images.flat_map(|image| image.repeat(3)).collect();
    }

    /// The images in the order of their places, without those that are `missing`; none unless each other place
    /// has one.
    fn sorted(mut self, image_len: usize, missing: &[usize]) -> Option<Vec<u8>> {
        let mut seen = vec![false; self.len];
        for &place in missing.iter().chain(&self.places) {
            if std::mem::replace(seen.get_mut(place)?, true) {
                return None;
            }
        }
        self.len -= missing.len();
        if self.places.len() != self.len {
            return None;
        }
        for place in &mut self.places {
            *place -= missing.partition_point(|one| one < place);
        }
        // In place: a second copy might not fit in memory.
        for at in 0..self.len {
            while self.places[at] != at {
                let place = self.places[at];
                let (low, high) = (at.min(place), at.max(place));
                let (before, after) = self.pixels.split_at_mut(high * image_len);
                before[low * image_len..][..image_len].swap_with_slice(&mut after[..image_len]);
                self.places.swap(at, place);
            }
        }
        Some(self.pixels)
    }
}

/// Collects decoded images, which may arrive in any order.
struct ImageCollector<'a> {
    source: &'a str,
    reading: &'a Reading,
    /// Training, test and validation images.
    splits: [Arrived; 3],
    /// Files that are not decoded yet: place, path, content.
    chunk: Vec<(usize, PathBuf, Vec<u8>)>,
    chunk_bytes: usize,
    /// Values of an image.
    image_len: usize,
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
}

impl ImageCollector<'_> {
    /// Adds one file, and decodes the chunk when it is full.
    fn add(&mut self, place: usize, path: PathBuf, bytes: Vec<u8>) -> Result<()> {
        self.chunk_bytes += bytes.len();
        self.chunk.push((place, path, bytes));
        // The first image alone: how much memory a chunk takes is not known before.
        let most = match self.image_len {
            0 => 1,
            len => (CHUNK_BYTES / len).clamp(1, CHUNK_LEN),
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
        Ok(())
    }

    fn keep(&mut self, place: usize, path: PathBuf, decoded: Decoded) -> Result<()> {
        let mut picture = decoded.picture;
        self.scaled_down += usize::from(decoded.scaled_down);
        self.turned += usize::from(decoded.turned);
        self.sizes.entry(decoded.found).or_insert((0, path)).0 += 1;
        self.channels[usize::from(picture.channels == 3)] += 1;
        if self.is_of_several_sizes() {
            // They are only counted from here on.
            self.splits
                .iter_mut()
                .for_each(|split| split.pixels = Vec::new());
            return Ok(());
        }
        // A mixture becomes RGB: those that came before, and those that come.
        if let Some([height, width, channels]) = self.shape
            && channels != picture.channels
        {
            if channels == 1 {
                let len = self.image_len;
                self.splits.iter_mut().for_each(|split| split.make_rgb(len));
                self.shape = Some([height, width, 3]);
            } else {
                picture = picture.with_channels(Channels::Rgb);
            }
        }
        let shape = [picture.height, picture.width, picture.channels];
        self.shape.get_or_insert(shape);
        let pixels = picture.planes();
        self.image_len = pixels.len();
        let (which, place) = self.split_of(place);
        if self.splits[which].add(place, &pixels) {
            return Ok(());
        }
        let (len, image_len) = (self.splits[which].len, pixels.len());
        Err(Error::data(
            self.source,
            format!("expected memory for {len} images of {image_len} bytes, found too little"),
            "use fewer images, or smaller ones: --set 'data.size = 64'",
        ))
    }

    /// Split of an image and its place in it.
    fn split_of(&self, mut place: usize) -> (usize, usize) {
        for (which, split) in self.splits.iter().enumerate() {
            match place.checked_sub(split.len) {
                Some(rest) => place = rest,
                None => return (which, place),
            }
        }
        unreachable!("places are those of the listed images")
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
        let readable: usize = self.splits.iter().map(|split| split.places.len()).sum();
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
        let all: usize = self.splits.iter().map(|split| split.len).sum();
        Err(Error::data(
            self.source,
            format!(
                "{} of {all} images cannot be read: {}",
                self.faults.len(),
                listed.join("; ")
            ),
            "--set 'data.damaged = \"skip\"' goes on without them",
        ))
    }

    fn finish(mut self, name: String, mut layout: Layout, damaged: Damaged) -> Result<Dataset> {
        self.require_readable(damaged)?;
        self.require_one_size()?;
        let mut missing: [Vec<usize>; 3] = Default::default();
        for (place, _) in &self.faults {
            let (which, place) = self.split_of(*place);
            missing[which].push(place);
        }
        let mut notes = std::mem::take(&mut layout.notes);
        notes.extend(self.notes());
        let expected: usize = self.splits.iter().map(|split| split.len).sum();
        let found: usize = self.splits.iter().map(|split| split.places.len()).sum();
        let (image_len, shape) = (self.image_len, self.shape);
        let mut splits = self.splits.into_iter().zip(&missing);
        let mut sorted = || {
            let (arrived, missing) = splits.next()?;
            arrived.sorted(image_len, missing)
        };
        let sorted = (|| Some((shape?, sorted()?, sorted()?, sorted()?)))();
        let Some(([height, width, channels], train, test, val)) = sorted else {
            return Err(Error::data(
                self.source,
                format!("expected {expected} images as listed, found {found} when reading them"),
                "the archive changed meanwhile: try again",
            ));
        };
        let labeled = !layout.classes.is_empty();
        let split = |pixels, items: Vec<Item>, missing: &[usize]| {
            let kept = items.into_iter().enumerate();
            let kept = kept.filter(|(place, _)| missing.binary_search(place).is_err());
            Split {
                images: Images {
                    pixels,
                    channels,
                    height,
                    width,
                },
                labels: if labeled {
                    kept.map(|(_, item)| item.label).collect()
                } else {
                    Vec::new()
                },
            }
        };
        let val = split(val, layout.val, &missing[2]);
        let mut reading = *self.reading;
        if self.channels.iter().all(|count| *count > 0) {
            // Predictions convert as well.
            reading.channels.get_or_insert(Channels::Rgb);
        }
        Ok(Dataset {
            name,
            classes: layout.classes,
            train: split(train, layout.train, &missing[0]),
            test: split(test, layout.test, &missing[1]),
            val: (!val.images.is_empty()).then_some(val),
            notes,
            reading,
        })
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
        assert_eq!(set.train.images.pixels, expected);
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
        assert_eq!(set.train.images.pixels.len(), 3);
        // Two that are damaged: both are named, or passed over.
        put(at("b.png"), &png(2, 2, 9)[..50]);
        put(at("d.png"), b"");
        let error = load(Reading::default(), Damaged::Refuse).unwrap_err();
        for words in ["2 of 4 images cannot be read", "b.png", "d.png"] {
            assert!(error.to_string().contains(words), "{words} in {error}");
        }
        assert!(error.hint().unwrap().contains("data.damaged"));
        let set = load(Reading::default(), Damaged::Skip).unwrap();
        assert_eq!(set.train.images.pixels, [1, 2, 3, 4, 5, 6, 7, 8]);
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

    #[test]
    fn images_are_sorted_whatever_the_order_in_which_they_arrive() {
        let images = [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]];
        for order in [
            [0, 1, 2, 3, 4],
            [4, 3, 2, 1, 0],
            [1, 2, 0, 4, 3],
            [3, 0, 4, 2, 1],
        ] {
            let mut arrived = Arrived::new(5);
            for place in order {
                assert!(arrived.add(place, &images[place]));
            }
            assert_eq!(arrived.sorted(2, &[]).unwrap(), images.concat());
        }
        for places in [&[0][..], &[0, 0], &[0, 2], &[0, 1, 1]] {
            let mut arrived = Arrived::new(2);
            for &place in places {
                assert!(arrived.add(place, &[1, 1]));
            }
            assert!(arrived.sorted(2, &[]).is_none(), "{places:?}");
        }
    }

    #[test]
    fn memory_is_claimed_by_images_that_are_there() {
        // Listed: 2^62 images, of which one is there.
        let mut arrived = Arrived::new(1 << 62);
        assert!(arrived.add(0, &[0; 100]));
        assert!(arrived.pixels.capacity() <= CLAIM);
        let mut few = Arrived::new(3);
        for place in [2, 0, 1] {
            assert!(few.add(place, &[0; 100]));
        }
        assert_eq!(few.pixels.capacity(), 300);
    }
}
