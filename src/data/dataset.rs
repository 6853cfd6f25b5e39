//! Splits and data sets: images with labels, and the checks of every data set.

use std::collections::HashSet;

use super::images::Images;
use super::reading::Reading;
use crate::error::{Error, Result};

/// A sentence about a data set with labels and without test images.
pub(super) const NO_TEST: &str = "no test images (data.test_share keeps some for it)";

/// What becomes of the validation images of a data set, at the end of a sentence.
pub(super) const HELD_OUT: &str = "held out (evaluate.split = \"holdout\"), unless data.holdout takes training images in their place";

/// A sentence about an archive whose only images are named test images.
pub(crate) const TEST_ALONE: &str =
    "there are test images alone: they are taken for the images of the data set";

/// A sentence about images for tests, where images without labels are asked for.
pub(super) fn not_used(count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some("1 test image is not used".to_owned()),
        count => Some(format!("{count} test images are not used")),
    }
}

/// Images, with labels if there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The images.
    pub images: Images,
    /// Class index of each image; empty if the images are unlabeled.
    pub labels: Vec<usize>,
}

/// Data set with class names, training split and test split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Name in messages and model files.
    pub name: String,
    /// Class names in label order; empty if the images are unlabeled.
    pub classes: Vec<String>,
    /// Images for training.
    pub train: Split,
    /// Images for the final evaluation only; no images for a flat folder.
    pub test: Split,
    /// Things to be said to the user about the data set, such as files that were left out: whole
    /// sentences without a full stop.
    pub notes: Vec<String>,
    /// Images of a validation split, beside those of the test split.
    pub val: Option<Split>,
    /// How the images were read, so that others are read in the same way.
    pub reading: Reading,
}

impl Split {
    /// Selects the images at `indices` with their labels, in that order.
    ///
    /// # Panics
    /// If an index is not below the number of images.
    pub fn select(&self, indices: &[usize]) -> Self {
        let labels = if self.labels.is_empty() {
            Vec::new()
        } else {
            indices.iter().map(|&i| self.labels[i]).collect()
        };
        Self {
            images: self.images.select(indices),
            labels,
        }
    }

    /// The split with labels of another list of classes, which are matched by name.
    ///
    /// # Errors
    /// A class of `own` that is not in `known`.
    pub fn labeled_by<'a>(&self, own: &'a [String], known: &[String]) -> Result<Self, &'a String> {
        let place = |name: &'a String| known.iter().position(|other| other == name).ok_or(name);
        let places: Vec<usize> = own.iter().map(place).collect::<Result<_, _>>()?;
        Ok(Self {
            images: self.images.clone(),
            labels: self.labels.iter().map(|&label| places[label]).collect(),
        })
    }

    /// Counts the images of each class `0..classes`; all zeros if the split is unlabeled.
    ///
    /// # Panics
    /// If a label is not below `classes`.
    pub fn counts(&self, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        for &label in &self.labels {
            counts[label] += 1;
        }
        counts
    }
}

impl Dataset {
    /// Refuses a data set with fewer than two classes, for the stages that need labels.
    ///
    /// # Errors
    /// [`Error::Data`] if the data set has fewer than two classes.
    pub fn require_labels(&self) -> Result<()> {
        let problem = match self.classes.as_slice() {
            [] => "expected labeled images, found images without classes".to_owned(),
            // Every prediction would be right, and robust.
            [only] => format!("expected two classes or more, found {only:?} alone"),
            _ => return Ok(()),
        };
        Err(Error::data(
            &self.name,
            problem,
            "put the images into train/<class>/ and test/<class>/; without labels, only self-supervised pretraining is possible",
        ))
    }

    /// Refuses a split in which some class has no image. `what` ("training", "test") names the
    /// split in the message.
    ///
    /// # Errors
    /// [`Error::Data`] with the name of the class.
    pub fn require_every_class(&self, split: &Split, what: &str) -> Result<()> {
        let counts = split.counts(self.classes.len());
        let Some(empty) = counts.iter().position(|&count| count == 0) else {
            return Ok(());
        };
        let problem = format!("class {:?} has no {what} images", self.classes[empty]);
        let hint =
            "add some, or leave the class out; a limit or a share held out may leave none too";
        Err(Error::data(&self.name, problem, hint))
    }

    /// The data set with its images in the size and with the channels that are asked for.
    pub(super) fn read_as(mut self, reading: &Reading) -> Self {
        self.train.images = self.train.images.read_as(reading);
        self.test.images = self.test.images.read_as(reading);
        self.val = self.val.map(|val| Split {
            images: val.images.read_as(reading),
            ..val
        });
        self.reading = *reading;
        self
    }

    /// The training images alone, without labels.
    pub(super) fn ignoring_labels(mut self) -> Self {
        let val = self.val.take().map_or(0, |val| val.images.len());
        let unused = not_used(self.test.images.len() + val);
        self.notes.extend(unused);
        self.classes.clear();
        self.train.labels.clear();
        self.test = self.test.select(&[]);
        self.test.labels.clear();
        self
    }

    /// The training images without their labels, for pretraining together with others.
    pub fn without_labels(&self) -> Self {
        Self {
            name: self.name.clone(),
            classes: Vec::new(),
            train: Split {
                images: self.train.images.clone(),
                labels: Vec::new(),
            },
            test: Split {
                images: self.test.images.select(&[]),
                labels: Vec::new(),
            },
            notes: self.notes.clone(),
            val: None,
            reading: self.reading,
        }
    }

    /// Adds the training images of another data set to a data set without labels. Those that are there already, pixel by
    /// pixel, count once, and those that are among `judged` are left out: no encoder is trained on images for testing.
    ///
    /// # Errors
    /// [`Error::Data`] for images of another size, and of other channels unless they can become colour ones.
    pub fn join(&mut self, other: &Self, judged: &[&Images]) -> Result<()> {
        let own = &mut self.train.images;
        let mut more = other.train.images.clone();
        if (own.height, own.width) != (more.height, more.width) {
            let problem = format!(
                "expected images of {} × {} (height × width) as in {}, found {} × {}",
                own.height, own.width, self.name, more.height, more.width
            );
            let hint = "--set 'data.size = 64' brings all of them to one size";
            return Err(Error::data(&other.name, problem, hint));
        }
        if own.channels != more.channels {
            *own = own.with_channels(3);
            more = more.with_channels(3);
        }
        let known = hashes([&*own]);
        let judged: Vec<Images> = (judged.iter())
            .map(|images| images.with_channels(own.channels))
            .collect();
        let judged = hashes(&judged);
        let (mut new, mut again, mut tests) = (Vec::new(), 0, 0);
        for i in 0..more.len() {
            let hash = more.hash(i);
            if judged.contains(&hash) {
                tests += 1;
            } else if known.contains(&hash) {
                again += 1;
            } else {
                new.push(i);
            }
        }
        own.append(&more.select(&new));
        let are = |count: usize| match count {
            1 => "1 image is".to_owned(),
            count => format!("{count} images are"),
        };
        let name = &other.name;
        if again > 0 {
            let note = format!(
                "{name}: {} in another source too, and counted once",
                are(again)
            );
            self.notes.push(note);
        }
        if tests > 0 {
            let note = format!(
                "{name}: {} among those for testing, and left out",
                are(tests)
            );
            self.notes.push(note);
        }
        let named = |note: &String| format!("{}: {note}", other.name);
        self.notes.extend(other.notes.iter().map(named));
        Ok(())
    }

    /// Refuses a data set without test images, for the stages that evaluate.
    ///
    /// # Errors
    /// [`Error::Data`] if `judged` has no images.
    pub fn require_judged(&self, judged: &Split) -> Result<()> {
        if !judged.images.is_empty() {
            return Ok(());
        }
        let hint = "--set 'data.test_share = 0.2' keeps a fifth of each class's images for testing";
        Err(Error::data(&self.name, "no test images", hint))
    }

    /// Checks what every format must provide: training images, images of each class in every split that there is,
    /// and one shape for all.
    pub(super) fn checked(self) -> Result<Self> {
        self.check()?;
        Ok(self.with_note_of_repeats())
    }

    /// The checks of [`Self::checked`] alone.
    pub(super) fn check(&self) -> Result<()> {
        if self.train.images.is_empty() {
            let problem = "expected training images, found none";
            return Err(Error::data(&self.name, problem, "check its files"));
        }
        self.require_every_class(&self.train, "training")?;
        if !self.test.images.is_empty() {
            self.require_every_class(&self.test, "test")?;
        }
        let (train, test) = (self.train.images.shape(), self.test.images.shape());
        if train != test && !self.test.images.is_empty() {
            return Err(Error::data(
                &self.name,
                format!(
                    "expected one shape [channels, height, width], found {train:?} in the training images and {test:?} in the test images"
                ),
                "resize or convert one of the two",
            ));
        }
        Ok(())
    }

    /// Says that there are no test images, where there are labels, and what becomes of validation images.
    pub(super) fn with_notes_of_splits(mut self) -> Self {
        if self.val.is_some() {
            let note = format!("the validation images are {HELD_OUT}");
            self.notes.push(note);
        }
        if self.test.images.is_empty() && !self.classes.is_empty() {
            self.notes.push(NO_TEST.to_owned());
        }
        self
    }

    /// Says how many test images are training images too, pixel by pixel: accuracy on them says nothing.
    fn with_note_of_repeats(mut self) -> Self {
        let (train, test) = (&self.train.images, &self.test.images);
        let known = hashes([train]);
        let repeated = (0..test.len()).filter(|&i| known.contains(&test.hash(i)));
        let (repeated, all) = (repeated.count(), test.len());
        if repeated > 0 {
            self.notes.push(format!(
                "{repeated} of {all} test images are duplicates of training images, pixel by pixel: figures on them say nothing"
            ));
        }
        self
    }
}

/// Hashes of images, to find copies of them.
fn hashes<'a>(images: impl IntoIterator<Item = &'a Images>) -> HashSet<u64> {
    let all = images.into_iter();
    all.flat_map(|images| (0..images.len()).map(|i| images.hash(i)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Images {
        Images::new((0..12).map(|i| i * 20).collect(), [1, 2, 2])
    }

    #[test]
    fn select_keeps_labels_with_their_images() {
        let split = Split {
            images: images(),
            labels: vec![7, 8, 9],
        };
        assert_eq!(split.select(&[2, 0]).labels, [9, 7]);
    }

    #[test]
    fn a_class_without_images_is_refused_by_name() {
        let split = |labels: [usize; 3]| Split {
            images: images(),
            labels: labels.to_vec(),
        };
        for (train, test, words) in [
            ([0, 1, 0], [0, 1, 1], None),
            ([0, 0, 0], [0, 1, 1], Some("\"dog\" has no training images")),
            ([0, 1, 0], [1, 1, 1], Some("\"cat\" has no test images")),
        ] {
            let dataset = Dataset {
                name: "x".into(),
                classes: vec!["cat".into(), "dog".into()],
                train: split(train),
                test: split(test),
                notes: Vec::new(),
                val: None,
                reading: Default::default(),
            };
            match (dataset.checked(), words) {
                (Ok(_), None) => {}
                (Err(error), Some(words)) => {
                    assert!(error.to_string().contains(words), "{error}")
                }
                (outcome, words) => panic!("{words:?}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn train_and_test_of_different_shapes_are_refused() {
        let split = Split {
            images: images(),
            labels: vec![0; 3],
        };
        let mut test = split.clone();
        test.images.width = 4;
        test.images.height = 1;
        let dataset = Dataset {
            name: "x".into(),
            classes: vec!["a".into()],
            train: split,
            test,
            notes: Vec::new(),
            val: None,
            reading: Default::default(),
        };
        let error = dataset.checked().unwrap_err().to_string();
        assert!(
            error.contains("[1, 2, 2]") && error.contains("[1, 1, 4]"),
            "{error}"
        );
    }
}
