//! Splits and data sets: images with labels, and the checks of every data set.

use super::images::Images;
use crate::error::{Error, Result};

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

    /// Checks what every format must provide: training images, test images if there are labels,
    /// images of each class, and one shape for all.
    pub(super) fn checked(self) -> Result<Self> {
        for (split, name) in [(&self.train, "training"), (&self.test, "test")] {
            if split.images.is_empty() && (name == "training" || !self.classes.is_empty()) {
                let problem = format!("expected {name} images, found none");
                return Err(Error::data(&self.name, problem, "check its files"));
            }
        }
        for (split, name) in [(&self.train, "training"), (&self.test, "test")] {
            self.require_every_class(split, name)?;
        }
        let shape = |images: &Images| [images.channels, images.height, images.width];
        let (train, test) = (shape(&self.train.images), shape(&self.test.images));
        if train != test {
            return Err(Error::data(
                &self.name,
                format!(
                    "expected one shape [channels, height, width], found {train:?} in the training images and {test:?} in the test images"
                ),
                "resize or convert one of the two",
            ));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Images {
        Images {
            pixels: (0..12).map(|i| i * 20).collect(),
            channels: 1,
            height: 2,
            width: 2,
        }
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
        };
        let error = dataset.checked().unwrap_err().to_string();
        assert!(
            error.contains("[1, 2, 2]") && error.contains("[1, 1, 4]"),
            "{error}"
        );
    }
}
