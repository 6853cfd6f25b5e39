//! Adversarial examples as pictures: rounding to 8 bits may undo them, and may carry them out of the ball.

use burn::tensor::{Tensor, TensorData};

use super::adversarial::{Adversarial, ExamplesInfo};
use super::{Evaluator, StageProgress};
use crate::attack::Ball;
use crate::data::Images;
use crate::error::Result;
use crate::logits::{LogitRows, Predicted, most_probable};
use crate::session::Context;

/// An adversarial example before and after it is rounded to 8 bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    /// Index of the original in the split.
    pub index: usize,
    /// Class of the original.
    pub label: usize,
    /// Prediction for the example.
    pub predicted: Predicted,
    /// Prediction for the example once it is rounded.
    pub rounded: Predicted,
    /// Distance of the rounded example from the original.
    pub distance: f64,
    /// Whether the rounded example is in the ball still.
    pub inside: bool,
}

impl Rounded {
    /// Whether the rounded example is misclassified.
    pub fn fools(&self) -> bool {
        self.rounded.class != self.label
    }
}

/// Adversarial examples with all that a picture of them says.
pub struct Pictured {
    /// The examples.
    pub examples: Adversarial,
    /// Description in their file.
    pub info: ExamplesInfo,
    /// Predictions for each example, as it is and rounded.
    pub rounded: Vec<Rounded>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// All images of the split that they are made from.
    pub originals: Images,
}

impl Pictured {
    /// Number of examples that fool the classifier once they are rounded.
    pub fn fooling(&self) -> usize {
        self.rounded
            .iter()
            .filter(|example| example.fools())
            .count()
    }

    /// Change of an example's original, magnified around gray so that the largest change of a value is black or white;
    /// with its original.
    pub fn change(&self, row: usize) -> (Vec<f32>, Vec<f32>) {
        let index = self.examples.indices[row];
        let original = self.originals.batch(&[index]).data;
        let (change, _) = magnified(&original, self.examples.image(row));
        (change, original)
    }
}

/// Change from one image to another, magnified around gray so that the largest change of a value is black or white; with
/// the factor. All gray where there is no change.
pub fn magnified(from: &[f32], to: &[f32]) -> (Vec<f32>, f32) {
    let pairs = || from.iter().zip(to);
    let largest = pairs().map(|(a, b)| (b - a).abs()).fold(0.0, f32::max);
    let times = if largest > 0.0 { 0.5 / largest } else { 1.0 };
    let change = pairs().map(|(a, b)| 0.5 + (b - a) * times);
    (change.collect(), times)
}

/// An image as 8 bits have it.
pub fn to_8_bits(image: &[f32]) -> Vec<f32> {
    let rounded = image
        .iter()
        .map(|value| (value.clamp(0.0, 1.0) * 255.0).round() / 255.0);
    rounded.collect()
}

/// Classifies adversarial examples as they are and once they are rounded to 8 bits, in their order.
///
/// # Panics
/// For an index that is not below the number of images.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted); [`Error::Logits`](crate::Error::Logits).
pub fn round(
    examples: &Adversarial,
    evaluator: &Evaluator,
    ball: Ball,
    context: &mut Context,
) -> Result<Vec<Rounded>> {
    let rows: Vec<usize> = (0..examples.indices.len()).collect();
    let name = format!("{}/rounded", evaluator.name);
    let mut stage = StageProgress::new(&name, rows.len());
    let mut all = Vec::new();
    let [channels, height, width] = examples.shape;
    stage.by_batch(&rows, evaluator.batch_size, context, |batch, context| {
        let indices: Vec<usize> = batch.iter().map(|&row| examples.indices[row]).collect();
        let images: Vec<Vec<f32>> = batch
            .iter()
            .map(|&row| to_8_bits(examples.image(row)))
            .collect();
        let predictions = |values: Vec<f32>| -> Result<Vec<Predicted>> {
            let data = TensorData::new(values, [batch.len(), channels, height, width]);
            let images = Tensor::from_data(data, &context.device);
            let logits = LogitRows::read((evaluator.logits)(images));
            logits.require_finite(&name, &indices)?;
            Ok(logits.rows().map(most_probable).collect())
        };
        let whole = batch.iter().flat_map(|&row| examples.image(row).to_vec());
        let before = predictions(whole.collect())?;
        let after = predictions(images.concat())?;
        for ((&index, image), (predicted, rounded)) in indices
            .iter()
            .zip(&images)
            .zip(before.into_iter().zip(after))
        {
            let original = evaluator.split.images.batch(&[index]).data;
            let distance = ball.norm.distance(image, &original);
            all.push(Rounded {
                index,
                label: evaluator.split.labels[index],
                predicted,
                rounded,
                distance,
                inside: ball.reaches(distance),
            });
        }
        Ok(())
    })?;
    Ok(all)
}
