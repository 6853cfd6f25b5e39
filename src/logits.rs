//! Logits on the host: predicted classes, probabilities, margins, and a refusal of values that are not finite.

use burn::tensor::Tensor;

use crate::error::{Error, Result};
use crate::ranks;
use crate::tensor::to_vec;

/// Logits read from the device, one row an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogitRows {
    values: Vec<f32>,
    classes: usize,
}

impl LogitRows {
    /// Reads logits `[images, classes]`.
    pub fn read(logits: Tensor<2>) -> Self {
        Self {
            classes: logits.dims()[1],
            values: to_vec(logits),
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Logits of one image after the other.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> + Clone {
        self.values.chunks(self.classes.max(1))
    }

    /// All values, image by image.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Appends the rows of `other`, which has as many classes.
    pub fn extend(&mut self, other: Self) {
        self.classes = other.classes;
        self.values.extend(other.values);
    }

    /// Rows of all ranks, one rank's after the other's.
    pub(crate) fn of_all_ranks(self) -> Self {
        if ranks::count() == 1 {
            return self;
        }
        let (values, classes) = ranks::gather_rows("logits", &self.values, self.classes);
        Self { values, classes }
    }

    /// Predicted class of each image: that of the largest logit.
    pub fn predictions(&self) -> Vec<usize> {
        self.rows().map(prediction).collect()
    }

    /// Refuses values that are not finite: the image is neither classified correctly nor misclassified.
    ///
    /// # Errors
    /// [`Error::Logits`], naming the image by its place in `indices`.
    pub fn require_finite(&self, stage: &str, indices: &[usize]) -> Result<()> {
        let mut pairs = self.rows().zip(indices);
        pairs.try_for_each(|(row, &index)| require_finite(stage, index, row))
    }
}

/// Refuses logits of one image that are not finite; `index` is its place in the split.
///
/// # Errors
/// [`Error::Logits`].
pub fn require_finite(stage: &str, index: usize, logits: &[f32]) -> Result<()> {
    match logits.iter().find(|value| !value.is_finite()) {
        None => Ok(()),
        Some(&value) => Err(Error::Logits {
            stage: stage.to_owned(),
            image: index,
            value,
        }),
    }
}

/// Class of the largest logit.
fn prediction(logits: &[f32]) -> usize {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(class, _)| class)
}

/// Predicted class of each image.
pub fn predictions(logits: Tensor<2>) -> Vec<usize> {
    LogitRows::read(logits).predictions()
}

/// Predicted class of each image, which must have finite logits; `indices` are the images' places in their split.
///
/// # Errors
/// [`Error::Logits`].
pub fn finite_predictions(stage: &str, indices: &[usize], logits: Tensor<2>) -> Result<Vec<usize>> {
    let logits = LogitRows::read(logits);
    logits.require_finite(stage, indices)?;
    Ok(logits.predictions())
}

/// Softmax of one image's logits: the probability of each class.
pub fn probabilities(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let terms = logits.iter().map(|logit| (logit - largest).exp());
    let sum: f32 = terms.clone().sum();
    terms.map(|term| term / sum).collect()
}

/// Most probable class of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// Index of the class.
    pub class: usize,
    /// Its probability.
    pub probability: f32,
}

/// Most probable class by one image's logits.
pub fn most_probable(logits: &[f32]) -> Predicted {
    let class = prediction(logits);
    Predicted {
        class,
        probability: probabilities(logits).get(class).copied().unwrap_or(0.0),
    }
}

/// Logit of the label less the largest other logit: negative where the image is misclassified, however ties are broken.
/// Infinite where there is no other class.
pub fn margin(logits: &[f32], label: usize) -> f32 {
    let others = logits
        .iter()
        .enumerate()
        .filter(|(class, _)| *class != label);
    let largest = others
        .map(|(_, logit)| *logit)
        .fold(f32::NEG_INFINITY, f32::max);
    logits[label] - largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_the_softmax_also_of_huge_logits() {
        assert_eq!(probabilities(&[3.0]), [1.0]);
        let found = probabilities(&[0.0, 1000.0, 1000.0 + f32::ln(3.0)]);
        assert_eq!(found[0], 0.0);
        assert!((found[2] - 0.75).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn a_margin_is_negative_once_another_class_is_larger() {
        assert_eq!(margin(&[1.0, 3.0, 2.0], 1), 1.0);
        assert_eq!(margin(&[1.0, 3.0, 2.0], 0), -2.0);
        assert_eq!(margin(&[1.0], 0), f32::INFINITY);
    }
}
