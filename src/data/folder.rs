//! Image folders, on disk or in a tar archive: `train/<class>/*` and `test/<class>/*`, or one flat
//! folder.

use std::collections::HashMap;
use std::path::PathBuf;

use rayon::prelude::*;

use super::archive::Store;
use super::dataset::{Dataset, Split};
use super::decode::{ImageShape, decode, read_file};
use super::entry::Entry;
use super::images::Images;
use super::layout::{Item, Layout};
use crate::error::{Error, Result};

/// Largest size of a chunk in bytes: of its files, and of its decoded pixels.
const CHUNK_BYTES: usize = 16 << 20;
/// Largest number of files in a chunk.
const CHUNK_LEN: usize = 1024;
/// Memory that is claimed at a time for decoded images, in bytes. It takes room as images arrive; an
/// allocation of this size can grow without a copy.
const CLAIM: usize = 1 << 30;

/// Reads all images of a store. Classes are sorted by name, images by class and name: a folder and
/// an archive of it give the same data set, whatever the order in the archive.
///
/// # Errors
/// Those of [`Layout::of`] and of [`decode`]; [`Error::Io`]; [`Error::Data`] where memory does not
/// suffice.
pub(super) fn load(store: &Store, entries: Vec<Entry>) -> Result<Dataset> {
    let source = store.path().display().to_string();
    let layout = Layout::of(&source, entries)?;
    let places: HashMap<String, usize> = layout
        .train
        .iter()
        .chain(&layout.test)
        .enumerate()
        .map(|(place, item)| (item.name.clone(), place))
        .collect();
    let mut collector = ImageCollector {
        source: &source,
        shape: None,
        train: Arrived::new(layout.train.len()),
        test: Arrived::new(layout.test.len()),
        chunk: Vec::new(),
        chunk_bytes: 0,
    };
    store.read(&places, |place, content| {
        let items = [&layout.train, &layout.test];
        let name = match place.checked_sub(items[0].len()) {
            None => &items[0][place].name,
            Some(place) => &items[1][place].name,
        };
        let path = store.path().join(name);
        let bytes = read_file(&path, content)?;
        collector.add(place, path, bytes)
    })?;
    collector.flush()?;
    collector.finish(store.name(), layout)
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

    /// The images in the order of their places; none unless each place has one.
    fn sorted(mut self, image_len: usize) -> Option<Vec<u8>> {
        let mut seen = vec![false; self.len];
        for &place in &self.places {
            if std::mem::replace(seen.get_mut(place)?, true) {
                return None;
            }
        }
        if self.places.len() != self.len {
            return None;
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
    /// Shape of the first image; nothing is allocated before it is known.
    shape: Option<ImageShape>,
    train: Arrived,
    test: Arrived,
    /// Files that are not decoded yet: place, path, content.
    chunk: Vec<(usize, PathBuf, Vec<u8>)>,
    chunk_bytes: usize,
}

impl ImageCollector<'_> {
    /// Adds one file, and decodes the chunk when it is full.
    fn add(&mut self, place: usize, path: PathBuf, bytes: Vec<u8>) -> Result<()> {
        self.chunk_bytes += bytes.len();
        self.chunk.push((place, path, bytes));
        // The first image alone, so that all others are compared with its shape before they are
        // decoded.
        let most = self.shape.as_ref().map_or(1, |shape| {
            let image_len = shape.channels * shape.height * shape.width;
            (CHUNK_BYTES / image_len).clamp(1, CHUNK_LEN)
        });
        if self.chunk.len() >= most || self.chunk_bytes >= CHUNK_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        self.chunk_bytes = 0;
        let (source, shape) = (self.source, self.shape.as_ref());
        // Not collected into one result: of several errors, the first in order is always reported.
        let decoded: Vec<Result<(ImageShape, Vec<u8>)>> = chunk
            .par_iter()
            .map(|(_, path, bytes)| decode(source, path, bytes, shape))
            .collect();
        for (decoded, (place, ..)) in decoded.into_iter().zip(&chunk) {
            let (shape, pixels) = decoded?;
            self.shape.get_or_insert(shape);
            let (split, place) = match place.checked_sub(self.train.len) {
                None => (&mut self.train, *place),
                Some(place) => (&mut self.test, place),
            };
            if !split.add(place, &pixels) {
                let (len, image_len) = (split.len, pixels.len());
                return Err(Error::data(
                    self.source,
                    format!(
                        "expected memory for {len} images of {image_len} bytes, found too little"
                    ),
                    "use fewer or smaller images",
                ));
            }
        }
        Ok(())
    }

    fn finish(self, name: String, layout: Layout) -> Result<Dataset> {
        let expected = self.train.len + self.test.len;
        let found = self.train.places.len() + self.test.places.len();
        let sorted = self.shape.and_then(|shape| {
            let image_len = shape.channels * shape.height * shape.width;
            let (train, test) = (self.train.sorted(image_len)?, self.test.sorted(image_len)?);
            Some((shape, train, test))
        });
        let Some((shape, train, test)) = sorted else {
            return Err(Error::data(
                self.source,
                format!("expected {expected} images as listed, found {found} when reading them"),
                "the archive changed meanwhile: try again",
            ));
        };
        let labeled = !layout.classes.is_empty();
        let split = |pixels, items: Vec<Item>| Split {
            images: Images {
                pixels,
                channels: shape.channels,
                height: shape.height,
                width: shape.width,
            },
            labels: if labeled {
                items.into_iter().map(|item| item.label).collect()
            } else {
                Vec::new()
            },
        };
        Ok(Dataset {
            name,
            classes: layout.classes,
            train: split(train, layout.train),
            test: split(test, layout.test),
            notes: Vec::new(),
        })
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
        let cases: [(&[u8], &[&str]); 7] = [
            (&cut_png[..cut_png.len() - 20], &["image data"]),
            (&cut_jpeg[..cut_jpeg.len() - 2], &["expected an end mark"]),
            (b"", &["byte 0: expected PNG or JPEG, found 0 bytes"]),
            (b"not an image", &["expected PNG or JPEG"]),
            (&rgba, &["alpha channel", "remove"]),
            (&png(2, 3, 0), &["of 3 × 2", "of 2 × 3", "resize"]),
            (&gray_png(3, 2, 0), &["in colour", "in gray"]),
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
            &["expected PNG or JPEG images, found none", "train/<class>/"],
        );
        files()
            .iter()
            .for_each(|(name, bytes)| put(dir.path().join(name), bytes));
        fs::create_dir(dir.path().join("train/bird")).unwrap();
        refused(
            dir.path(),
            &["expected PNG or JPEG images in train/bird, found none"],
        );
        let archive = dir.path().join("empty.tar");
        put(&archive, &tar(&[]));
        refused(&archive, &["expected PNG or JPEG images, found none"]);
        put(
            &archive,
            &tar(&[
                ("train/a/", b""),
                ("train/b/1.png", &png(1, 1, 0)),
                ("test/b/1.png", &png(1, 1, 0)),
            ]),
        );
        refused(&archive, &["images in train/a, found none"]);
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
            assert_eq!(arrived.sorted(2).unwrap(), images.concat());
        }
        for places in [&[0][..], &[0, 0], &[0, 2], &[0, 1, 1]] {
            let mut arrived = Arrived::new(2);
            for &place in places {
                assert!(arrived.add(place, &[1, 1]));
            }
            assert!(arrived.sorted(2).is_none(), "{places:?}");
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
