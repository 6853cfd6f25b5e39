//! Accuracy that counts every class alike: balanced accuracy, and the class with the lowest accuracy.

use serde::{Deserialize, Serialize};

use super::Tally;

/// Accuracy class by class in a few figures, clean and under PGD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ByClass {
    /// Figures of clean images.
    pub clean: ClassFigures,
    /// Figures under PGD.
    pub robust: ClassFigures,
}

/// Balanced accuracy and the worst class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassFigures {
    /// Mean of the classes' accuracies (recalls), in [0, 1]; every class counts alike, however many images it has. The
    /// same as `balanced_accuracy_score` of scikit-learn.
    pub balanced_accuracy: f64,
    /// Class with the lowest accuracy; of several, the first in label order.
    pub worst_class: String,
    /// Its accuracy, in [0, 1].
    pub worst_accuracy: f64,
    /// Its images.
    pub worst_images: usize,
}

/// The largest class has at least this many times the images of the smallest: accuracy and balanced accuracy may tell
/// different stories.
const UNEVEN: f64 = 1.5;

impl ByClass {
    /// Figures from the counts of each class, in label order, and the classes' names. Classes without images do not
    /// count; none where no class has any.
    pub fn new(classes: &[Tally], names: &[String]) -> Option<Self> {
        let figures = |correct: fn(&Tally) -> usize| ClassFigures::new(classes, names, correct);
        Some(Self {
            clean: figures(|tally| tally.clean)?,
            robust: figures(|tally| tally.robust)?,
        })
    }

    /// The same over several seeds: means of the balanced accuracies, and the worst class of the worst seed. None
    /// without seeds.
    pub fn over_seeds(seeds: &[&Self]) -> Option<Self> {
        let over = |of: fn(&Self) -> &ClassFigures| {
            let all = || seeds.iter().map(|seed| of(seed));
            let worst = all().min_by(|a, b| a.worst_accuracy.total_cmp(&b.worst_accuracy))?;
            let sum: f64 = all().map(|figures| figures.balanced_accuracy).sum();
            Some(ClassFigures {
                balanced_accuracy: sum / seeds.len() as f64,
                ..worst.clone()
            })
        };
        Some(Self {
            clean: over(|seed| &seed.clean)?,
            robust: over(|seed| &seed.robust)?,
        })
    }
}

impl ClassFigures {
    fn new(classes: &[Tally], names: &[String], correct: impl Fn(&Tally) -> usize) -> Option<Self> {
        let accuracy = |tally: &Tally| correct(tally) as f64 / tally.images as f64;
        let present = || {
            let all = classes.iter().enumerate();
            all.filter(|(_, tally)| tally.images > 0)
                .map(|(class, tally)| (class, tally, accuracy(tally)))
        };
        let (class, tally, worst_accuracy) = present().min_by(|a, b| a.2.total_cmp(&b.2))?;
        let sum: f64 = present().map(|(.., accuracy)| accuracy).sum();
        let name = names.get(class).cloned();
        Some(Self {
            balanced_accuracy: sum / present().count() as f64,
            worst_class: name.unwrap_or_else(|| format!("class {class}")),
            worst_accuracy,
            worst_images: tally.images,
        })
    }
}

/// Images of the smallest and of the largest class, where they differ so much that accuracy and balanced accuracy may
/// too. Classes without images do not count.
pub fn uneven(classes: &[Tally]) -> Option<(usize, usize)> {
    let images = || {
        let all = classes.iter().map(|tally| tally.images);
        all.filter(|images| *images > 0)
    };
    let (fewest, most) = (images().min()?, images().max()?);
    (most as f64 >= UNEVEN * fewest as f64).then_some((fewest, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(images: usize, clean: usize, robust: usize) -> Tally {
        Tally {
            images,
            clean,
            robust,
        }
    }

    #[test]
    fn every_class_counts_alike() {
        let names = ["cat", "none", "dog", "owl"].map(str::to_owned);
        // Accuracy is 98 of 110; the mean of 0.9, 0.75 and 0.75 is 0.8.
        let classes = [
            tally(100, 90, 50),
            tally(0, 0, 0),
            tally(4, 3, 2),
            tally(4, 3, 0),
        ];
        let found = ByClass::new(&classes, &names).expect("images");
        assert!((found.clean.balanced_accuracy - 0.8).abs() < 1e-12);
        assert_eq!(found.clean.worst_class, "dog", "the first of two");
        assert_eq!(
            (found.clean.worst_accuracy, found.clean.worst_images),
            (0.75, 4)
        );
        assert!((found.robust.balanced_accuracy - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(found.robust.worst_class, "owl");
        assert_eq!(uneven(&classes), Some((4, 100)));
        assert_eq!(uneven(&[tally(20, 0, 0), tally(29, 0, 0)]), None);
        assert_eq!(uneven(&[]), None);
        assert_eq!(ByClass::new(&[tally(0, 0, 0)], &names), None);
    }

    #[test]
    fn seeds_are_averaged_and_the_worst_class_is_that_of_the_worst_seed() {
        let names = ["cat", "dog"].map(str::to_owned);
        let seed = |cat, dog| {
            let classes = [tally(10, cat, cat), tally(10, dog, dog)];
            ByClass::new(&classes, &names).expect("images")
        };
        let (first, second) = (seed(9, 5), seed(3, 7));
        let found = ByClass::over_seeds(&[&first, &second]).expect("seeds");
        assert!((found.clean.balanced_accuracy - 0.6).abs() < 1e-12);
        assert_eq!(
            (found.clean.worst_class.as_str(), found.clean.worst_accuracy),
            ("cat", 0.3)
        );
        assert_eq!(ByClass::over_seeds(&[]), None);
    }
}
