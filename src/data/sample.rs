//! Random parts of a split, stratified by class: held-out images, and smaller training sets.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::dataset::{Dataset, Split};
use crate::error::{Error, Result};

impl Dataset {
    /// Splits the training images into remaining and held-out ones, so that no choice (of an epoch,
    /// of a parameter) needs the test images. Both keep the original order.
    ///
    /// Of each class `fraction` is held out, rounded to the nearest image, but at least one image,
    /// and never all of them. Unlabeled images count as one class.
    ///
    /// # Errors
    /// [`Error::Data`] if `fraction` is not strictly between 0 and 1, or if every class has one
    /// image only.
    pub fn holdout(&self, fraction: f64, seed: u64) -> Result<(Split, Split)> {
        // Written so that NaN fails too.
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(Error::data(
                &self.name,
                format!("expected a held-out fraction between 0 and 1, found {fraction}"),
                "0.1 is usual",
            ));
        }
        let (mut kept, mut held) = (Vec::new(), Vec::new());
        for class in self.train.shuffled_classes(self.classes.len(), seed) {
            let count = match class.len() {
                0 | 1 => 0,
                len => ((len as f64 * fraction).round() as usize).clamp(1, len - 1),
            };
            held.extend_from_slice(&class[..count]);
            kept.extend_from_slice(&class[count..]);
        }
        if held.is_empty() {
            return Err(Error::data(
                &self.name,
                "expected at least two training images of some class to hold one out, found one per class",
                "use more images",
            ));
        }
        kept.sort_unstable();
        held.sort_unstable();
        Ok((self.train.select(&kept), self.train.select(&held)))
    }

    /// Keeps `n` training images, as [`Split::limit`] does, and all test images.
    ///
    /// # Errors
    /// [`Error::Data`] if `n` is 0 or larger than the number of training images.
    pub fn limit_train(mut self, n: usize, seed: u64) -> Result<Self> {
        let total = self.train.images.len();
        if n == 0 || n > total {
            return Err(Error::data(
                &self.name,
                format!("expected 1 to {total} training images to keep, found {n}"),
                "leave the limit out to use them all",
            ));
        }
        self.train = self.train.limit(self.classes.len(), n, seed);
        Ok(self)
    }
}

impl Split {
    /// Selects `n` random images in their original order. Each of `classes` classes keeps its
    /// share, rounded by the method of largest remainders.
    ///
    /// # Panics
    /// If `n` is 0 or larger than the number of images.
    pub fn limit(&self, classes: usize, n: usize, seed: u64) -> Self {
        self.select(&self.limited(classes, n, seed))
    }

    /// Indices of the images that [`Split::limit`] selects.
    ///
    /// # Panics
    /// As [`Split::limit`].
    pub fn limited(&self, classes: usize, n: usize, seed: u64) -> Vec<usize> {
        let total = self.images.len();
        assert!(
            (1..=total).contains(&n),
            "expected 1 to {total} images to keep, found {n}"
        );
        let classes = self.shuffled_classes(classes, seed);
        // In u128 because n × len of two counts may pass a 32-bit usize.
        let share = |len: usize| (n as u128 * len as u128, total as u128);
        let mut quota: Vec<usize> = classes
            .iter()
            .map(|class| {
                let (part, whole) = share(class.len());
                (part / whole) as usize
            })
            .collect();
        let mut by_remainder: Vec<usize> = (0..classes.len()).collect();
        // A stable sort: ties go to the lower label.
        by_remainder.sort_by_key(|&c| {
            let (part, whole) = share(classes[c].len());
            std::cmp::Reverse(part % whole)
        });
        let odd = n - quota.iter().sum::<usize>();
        for &c in &by_remainder[..odd] {
            quota[c] += 1;
        }
        let mut kept: Vec<usize> = Vec::with_capacity(n);
        for (class, count) in classes.iter().zip(quota) {
            kept.extend_from_slice(&class[..count]);
        }
        kept.sort_unstable();
        kept
    }

    /// Indices of the images by class, shuffled within each class; one class if there are no
    /// labels.
    fn shuffled_classes(&self, classes: usize, seed: u64) -> Vec<Vec<usize>> {
        let labels = &self.labels;
        let mut classes = if labels.is_empty() {
            vec![(0..self.images.len()).collect()]
        } else {
            let mut classes = vec![Vec::new(); classes];
            for (i, &label) in labels.iter().enumerate() {
                classes[label].push(i);
            }
            classes
        };
        // Not `random::generator`: it draws other numbers, and every recorded split and limit with
        // them.
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for class in &mut classes {
            shuffle(class, &mut rng);
        }
        classes
    }
}

/// Shuffles by Fisher–Yates. Written out because the shuffle of `rand` may change between its
/// versions, and with it every published figure. The bias of multiply-and-shift is below len /
/// 2^64.
fn shuffle(items: &mut [usize], rng: &mut impl rand::Rng) {
    for i in (1..items.len()).rev() {
        let j = (u128::from(rng.next_u64()) * (i as u128 + 1)) >> 64;
        items.swap(i, j as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Images;

    /// `counts[c]` one-pixel images of class c, interleaved; the pixel is the image's own number.
    fn dataset(class_counts: &[usize], labeled: bool) -> Dataset {
        let longest = class_counts.iter().max().copied().unwrap_or(0);
        let labels: Vec<usize> = (0..longest)
            .flat_map(|k| (0..class_counts.len()).filter(move |&c| k < class_counts[c]))
            .collect();
        let split = |labels: Vec<usize>, len: u8| Split {
            images: Images::new((0..len).collect(), [1, 1, 1]),
            labels: if labeled { labels } else { vec![] },
        };
        Dataset {
            name: "toy".into(),
            classes: if labeled {
                (0..class_counts.len()).map(|c| c.to_string()).collect()
            } else {
                vec![]
            },
            train: split(labels.clone(), labels.len() as u8),
            test: split(vec![], 0),
            notes: Vec::new(),
            val: None,
            reading: Default::default(),
        }
    }

    #[test]
    fn holdout_is_stratified_disjoint_and_seeded() {
        let set = dataset(&[50, 20, 4, 1], true);
        let (kept, held) = set.holdout(0.1, 3).unwrap();
        assert_eq!(held.counts(4), [5, 2, 1, 0]);
        assert_eq!(kept.counts(4), [45, 18, 3, 1]);
        let (kept, held_out) = (kept.images.pixels(), held.images.pixels());
        let mut all = [kept.as_slice(), held_out.as_slice()].concat();
        assert!(held_out.is_sorted() && kept.is_sorted());
        all.sort_unstable();
        assert_eq!(all, set.train.images.pixels());
        assert_eq!(set.holdout(0.1, 3).unwrap().1, held);
        assert_ne!(set.holdout(0.1, 4).unwrap().1, held);
    }

    #[test]
    fn the_shuffle_is_the_same_for_ever() {
        let mut items: Vec<usize> = (0..8).collect();
        shuffle(&mut items, &mut ChaCha8Rng::seed_from_u64(0));
        // Recorded once: another order means that old runs can no longer be reproduced.
        assert_eq!(items, [7, 2, 1, 6, 0, 4, 3, 5]);
    }

    #[test]
    fn holdout_of_unlabeled_images() {
        let (kept, held) = dataset(&[40], false).holdout(0.25, 0).unwrap();
        assert_eq!((kept.images.len(), held.images.len()), (30, 10));
        assert!(held.labels.is_empty());
    }

    #[test]
    fn holdout_refuses_fractions_that_make_no_sense() {
        for fraction in [0.0, 1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
            let result = dataset(&[10], true).holdout(fraction, 0);
            assert!(matches!(result, Err(Error::Data { .. })), "{fraction}");
        }
        assert!(dataset(&[1, 1], true).holdout(0.5, 0).is_err());
    }

    #[test]
    fn limit_keeps_each_class_in_its_share() {
        let set = dataset(&[60, 30, 10], true);
        for (n, expected) in [
            (10, [6, 3, 1]),
            (11, [7, 3, 1]),
            (1, [1, 0, 0]),
            (100, [60, 30, 10]),
        ] {
            let small = set.clone().limit_train(n, 1).unwrap();
            assert_eq!(small.train.counts(3), expected);
            assert_eq!(small.test, set.test);
        }
        assert_ne!(
            set.clone().limit_train(50, 1).unwrap(),
            set.clone().limit_train(50, 2).unwrap()
        );
        for n in [0, 101] {
            let error = set.clone().limit_train(n, 1).unwrap_err().to_string();
            assert!(error.contains(&format!(
                "expected 1 to 100 training images to keep, found {n}"
            )));
        }
    }
}
