//! Fingerprints of splits: short texts that differ where images or labels differ.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::dataset::Split;
use crate::random;

/// Fingerprint of a split: tells whether a result was computed from the same images and labels.
///
/// It is made of the decoded pixels and the class names alone, so that neither the place of the
/// files nor their names or format matter. Equal fingerprints mean equal images except by a
/// coincidence of 64-bit hashes; they are no protection against images that someone made to
/// collide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitFingerprint {
    /// Number of images.
    pub images: usize,
    /// Hash of the images as a multiset: the same for every order of the images.
    pub pixels: String,
    /// Hash of the images as a sequence: changes with their order.
    pub order: String,
    /// Hash of the class names in label order and of each image with its class, as a multiset.
    /// Depends on no image where the split is unlabeled.
    pub labels: String,
}

impl SplitFingerprint {
    /// Computes the fingerprint of a split whose labels are indices into `classes`.
    ///
    /// # Panics
    /// Where a label is not below the number of classes.
    pub fn new(split: &Split, classes: &[String]) -> Self {
        let images = &split.images;
        let shape = images.shape().map(|size| size as u64);
        let hash_image = |i: usize| {
            hash_all(
                shape
                    .into_iter()
                    .chain([random::fingerprint(images.image(i))]),
            )
        };
        let in_order: Vec<u64> = (0..images.len()).into_par_iter().map(hash_image).collect();
        // Each name's own hash, not their text in one string: no name can pass for two.
        let names: Vec<u64> = classes
            .iter()
            .map(|name| random::fingerprint(name.as_bytes()))
            .collect();
        let labeled = in_order
            .iter()
            .zip(&split.labels)
            .map(|(&image, &label)| hash_all([image, names[label]]));
        let head = [names.len() as u64]
            .into_iter()
            .chain(names.iter().copied());
        Self {
            images: images.len(),
            labels: text(hash_all(head.chain(sorted(labeled.collect())))),
            order: text(hash_all(in_order.iter().copied())),
            pixels: text(hash_all(sorted(in_order))),
        }
    }
}

fn sorted(mut hashes: Vec<u64>) -> Vec<u64> {
    hashes.sort_unstable();
    hashes
}

/// Hash of a sequence of numbers.
fn hash_all(values: impl IntoIterator<Item = u64>) -> u64 {
    let bytes: Vec<u8> = values.into_iter().flat_map(u64::to_le_bytes).collect();
    random::fingerprint(&bytes)
}

fn text(hash: u64) -> String {
    format!("fnv1a-{hash:016x}")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::fixtures::{load_path, png, put};
    use super::*;
    use crate::data::Images;

    /// The fingerprint of the training images in `folder`.
    fn of(folder: &Path) -> SplitFingerprint {
        let set = load_path(folder).unwrap();
        SplitFingerprint::new(&set.train, &set.classes)
    }

    /// Two classes with two training images each.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (i, name) in [
            "train/cat/a",
            "train/cat/b",
            "train/dog/a",
            "train/dog/b",
            "test/cat/a",
            "test/dog/a",
        ]
        .into_iter()
        .enumerate()
        {
            put(
                dir.path().join(format!("{name}.png")),
                &png(3, 2, 40 * i as u8),
            );
        }
        dir
    }

    #[test]
    fn names_and_order_of_files_change_the_order_alone() {
        let dir = folder();
        let before = of(dir.path());
        assert_eq!(before, of(dir.path()));
        let cat = dir.path().join("train/cat");
        fs::rename(cat.join("a.png"), cat.join("z.png")).unwrap();
        let after = of(dir.path());
        assert_ne!(after.order, before.order);
        let order = before.order.clone();
        assert_eq!(SplitFingerprint { order, ..after }, before);
    }

    #[test]
    fn another_class_of_an_image_changes_the_labels_alone() {
        let dir = folder();
        let before = of(dir.path());
        let set = load_path(dir.path()).unwrap();
        for labels in [[0, 0, 0, 1], [1, 0, 0, 1], [1, 1, 0, 0]] {
            let mut split = set.train.clone();
            split.labels = labels.to_vec();
            let after = SplitFingerprint::new(&split, &set.classes);
            assert_ne!(after.labels, before.labels, "{labels:?}");
            let labels = before.labels.clone();
            assert_eq!(SplitFingerprint { labels, ..after }, before);
        }
    }

    #[test]
    fn names_and_order_of_classes_change_the_labels() {
        let dir = folder();
        let set = load_path(dir.path()).unwrap();
        let print = |split: &Split, classes: [&str; 2]| {
            SplitFingerprint::new(split, &classes.map(String::from)).labels
        };
        let mut swapped = set.train.clone();
        swapped
            .labels
            .iter_mut()
            .for_each(|label| *label = 1 - *label);
        let all = [
            print(&set.train, ["cat", "dog"]),
            print(&set.train, ["cat", "cow"]),
            // Every image keeps its class; the outputs of a classifier change places.
            print(&swapped, ["dog", "cat"]),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(!all[..i].contains(one), "{all:?}");
        }
    }

    #[test]
    fn a_pixel_a_copy_and_a_shape_change_everything() {
        let set = load_path(folder().path()).unwrap();
        let print = |split: &Split| SplitFingerprint::new(split, &set.classes);
        let before = print(&set.train);
        let mut pixel = set.train.clone();
        let mut pixels = pixel.images.pixels();
        pixels[7] ^= 1;
        pixel.images = Images::new(pixels, pixel.images.shape());
        let copied = set.train.select(&[0, 0, 1, 2, 3]);
        let [channels, height, width] = set.train.images.shape();
        let turned = Images::new(set.train.images.pixels(), [channels, width, height]);
        let turned = Split {
            images: turned,
            ..set.train.clone()
        };
        for changed in [pixel, copied, turned] {
            let after = print(&changed);
            assert_ne!(after.pixels, before.pixels);
            assert_ne!(after.order, before.order);
            assert_ne!(after.labels, before.labels);
        }
    }

    #[test]
    fn an_unlabeled_split_has_a_fingerprint() {
        let images = Images::new(vec![1, 2, 3, 4], [1, 1, 2]);
        let split = |images: Images| Split {
            images,
            labels: Vec::new(),
        };
        let one = SplitFingerprint::new(&split(images.clone()), &[]);
        let other = SplitFingerprint::new(&split(images.select(&[1, 0])), &[]);
        assert_eq!(
            (one.images, &one.pixels, &one.labels),
            (2, &other.pixels, &other.labels)
        );
        assert_ne!(one.order, other.order);
        // Recorded once: another text would make every run folder look as if its images had
        // changed.
        assert_eq!(one.pixels, "fnv1a-3f237f031c9c771b");
    }
}
