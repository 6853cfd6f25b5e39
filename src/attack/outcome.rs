//! Outcomes of attacks: image by image, and counted.

use std::fmt::Write;
use std::path::Path;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::AttackKind;
use crate::error::{Error, Result};

/// Outcome of an evaluation for one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ImageOutcome {
    /// The image was not evaluated.
    #[default]
    NotEvaluated,
    /// The clean image is misclassified, so it was not attacked.
    Wrong,
    /// The clean image is classified correctly, its attacked version is not.
    Broken,
    /// Both the clean and the attacked image are classified correctly.
    Robust,
}

impl ImageOutcome {
    const ALL: [Self; 4] = [Self::NotEvaluated, Self::Wrong, Self::Broken, Self::Robust];

    /// Character in a stored [`PerImage`].
    fn letter(self) -> char {
        match self {
            Self::NotEvaluated => '-',
            Self::Wrong => 'w',
            Self::Broken => 'b',
            Self::Robust => 'r',
        }
    }
}

/// Outcome of every image of a split, by index.
///
/// Stored as one character an image: `r` robust, `b` broken by the attack, `w` wrong already when clean, `-` not
/// evaluated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerImage(pub Vec<ImageOutcome>);

impl PerImage {
    /// Outcomes of a split with `count` images, of which those at `among` were evaluated, those at `correct` are classified
    /// correctly and those at `robust` are so under attack too.
    ///
    /// # Panics
    /// Where an index is not below `count`.
    pub fn new(count: usize, among: &[usize], correct: &[usize], robust: &[usize]) -> Self {
        let mut all = vec![ImageOutcome::NotEvaluated; count];
        for (indices, outcome) in [
            (among, ImageOutcome::Wrong),
            (correct, ImageOutcome::Broken),
            (robust, ImageOutcome::Robust),
        ] {
            indices.iter().for_each(|&index| all[index] = outcome);
        }
        Self(all)
    }

    /// Counts over all evaluated images.
    pub fn tally(&self) -> Tally {
        self.0.iter().copied().collect()
    }

    /// Refuses outcomes that do not add up to these counts, of a file that was changed. Files of earlier versions have
    /// none.
    ///
    /// # Errors
    /// [`Error::Format`] naming `path`.
    pub fn require_counts(&self, counts: &Tally, path: &Path) -> Result<()> {
        let found = self.tally();
        if self.0.is_empty() || found == *counts {
            return Ok(());
        }
        let (expected, found) = (counts.in_words(), found.in_words());
        Err(Error::format(path, "per_image", expected, found))
    }

    /// Counts over the images that `other` evaluated; none unless all of them were evaluated here too.
    pub fn tally_on(&self, other: &Self) -> Option<Tally> {
        let evaluated = |outcome: ImageOutcome| outcome != ImageOutcome::NotEvaluated;
        let chosen = (0..other.0.len()).filter(|&index| evaluated(other.0[index]));
        let own = chosen.map(|index| self.0.get(index).copied().filter(|own| evaluated(*own)));
        let tally = own.collect::<Option<Tally>>()?;
        (tally.images > 0).then_some(tally)
    }
}

impl Serialize for PerImage {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let letters: String = self.0.iter().map(|outcome| outcome.letter()).collect();
        serializer.serialize_str(&letters)
    }
}

impl<'de> Deserialize<'de> for PerImage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let outcome = |letter: char| {
            let known = ImageOutcome::ALL.into_iter();
            let mut same = known.filter(|outcome| outcome.letter() == letter);
            same.next().ok_or_else(|| {
                let mut problem = format!("unknown outcome {letter:?} of an image, known:");
                for outcome in ImageOutcome::ALL {
                    let _ = write!(problem, " {:?}", outcome.letter());
                }
                D::Error::custom(problem)
            })
        };
        let letters = String::deserialize(deserializer)?;
        letters
            .chars()
            .map(outcome)
            .collect::<std::result::Result<_, _>>()
            .map(Self)
    }
}

/// Numbers of images that are classified correctly, clean and under attack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Evaluated images.
    pub images: usize,
    /// Images that are classified correctly when clean.
    pub clean: usize,
    /// Images that are classified correctly both clean and under attack.
    pub robust: usize,
}

impl Tally {
    /// Refuses counts that cannot be, of a file that was changed.
    ///
    /// # Errors
    /// [`Error::Format`] naming `path`.
    pub fn require_possible(&self, path: &Path) -> Result<()> {
        if self.robust <= self.clean && self.clean <= self.images {
            return Ok(());
        }
        let expected = "no more robust than correct images, and no more correct ones than images";
        Err(Error::format(path, "counts", expected, self.in_words()))
    }

    /// The counts for messages: "3 robust, 12 correct, 20 images".
    pub(crate) fn in_words(&self) -> String {
        let Self {
            images,
            clean,
            robust,
        } = self;
        format!("{robust} robust, {clean} correct, {images} images")
    }
}

impl FromIterator<ImageOutcome> for Tally {
    fn from_iter<I: IntoIterator<Item = ImageOutcome>>(outcomes: I) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            tally.images += usize::from(outcome != ImageOutcome::NotEvaluated);
            let correct = matches!(outcome, ImageOutcome::Broken | ImageOutcome::Robust);
            tally.clean += usize::from(correct);
            tally.robust += usize::from(outcome == ImageOutcome::Robust);
        }
        tally
    }
}

/// Counts and time of one attack of a suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttackTally {
    /// The attack.
    pub attack: AttackKind,
    /// Images that it was run on: those that the attacks before it left.
    pub images: usize,
    /// Images that it broke, out of these.
    pub broken: usize,
    /// Seconds of computation, over all sessions of an interrupted run.
    pub seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_one_letter_an_image_and_counted_on_any_subset() {
        let all = PerImage::new(6, &[0, 1, 2, 3, 4, 5], &[0, 2, 3, 5], &[3, 5]);
        let text = serde_json::to_string(&all).expect("a text");
        assert_eq!(text, "\"bwbrwr\"");
        assert_eq!(
            serde_json::from_str::<PerImage>(&text).expect("itself"),
            all
        );
        let tally = |images, clean, robust| Tally {
            images,
            clean,
            robust,
        };
        assert_eq!(all.tally(), tally(6, 4, 2));
        let some = PerImage::new(6, &[1, 2, 3], &[2, 3], &[2]);
        assert_eq!(some.tally(), tally(3, 2, 1));
        assert_eq!(all.tally_on(&some), Some(tally(3, 2, 1)));
        assert_eq!(some.tally_on(&all), None, "not all of them were evaluated");
        // Files of earlier versions do not have it.
        assert_eq!(PerImage::default().tally_on(&some), None);
        assert_eq!(all.tally_on(&PerImage::default()), None);
        let error = serde_json::from_str::<PerImage>("\"rx\"").expect_err("no outcome");
        assert!(error.to_string().contains("'x' of an image"), "{error}");
    }
}
