//! What a classifier says: the class of each image, and refusing what is no number.

use burn::tensor::Tensor;

use crate::error::{Error, Result};
use crate::tensor::to_vec;

/// The most probable class of each image.
pub fn predictions(logits: Tensor<2>) -> Vec<usize> {
    let classes = logits.dims()[1];
    to_vec(logits).chunks(classes).map(most_probable).collect()
}

fn most_probable(logits: &[f32]) -> usize {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(class, _)| class)
}

/// Refuses logits that are no numbers: a classifier that says nothing is neither right nor wrong.
///
/// # Errors
/// [`Error::Logits`], naming the image by its place in the split.
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

/// As [`predictions`], of images at `indices` of a split, which must have finite logits.
///
/// # Errors
/// As [`require_finite`].
pub fn classes_said(stage: &str, indices: &[usize], logits: Tensor<2>) -> Result<Vec<usize>> {
    let (classes, values) = (logits.dims()[1], to_vec(logits));
    let rows = indices.iter().zip(values.chunks(classes));
    rows.map(|(&index, row)| {
        require_finite(stage, index, row)?;
        Ok(most_probable(row))
    })
    .collect()
}
