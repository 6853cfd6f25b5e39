//! Clean and robust accuracy of a classifier, in evaluation mode.

pub mod adversarial;
pub mod measures;
pub mod soundness;
mod suite;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::attack::{Ball, Pgd};
use crate::data::Split;
use crate::error::Result;
use crate::logits::classes_said;
use crate::loss::cross_entropy_each;
use crate::nn::Classifier;
use crate::random;
use crate::session::Context;
use crate::tensor::{label_tensor, to_tensor};

pub use crate::logits::{predictions, require_finite};
pub use suite::{Attacked, Siege, Tried};

/// How many of how many were right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Images.
    pub images: usize,
    /// Classified correctly as they are.
    pub clean: usize,
    /// Classified correctly as they are and after the attack.
    pub robust: usize,
}

/// The outcome on a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Over all images.
    pub total: Tally,
    /// By class, in label order.
    pub classes: Vec<Tally>,
}

/// What PGD on the cross-entropy makes of images, from `start`.
fn climb(
    logits: impl Fn(Tensor<4>) -> Tensor<2>,
    labels: &[usize],
    start: Tensor<4>,
    images: &Tensor<4>,
    (ball, pgd): (Ball, Pgd),
) -> Tensor<4> {
    let labels = label_tensor(labels, &images.device());
    // The sum, not the mean: an image's gradient does not depend on who else is in the batch.
    let loss = |x| cross_entropy_each(logits(x), labels.clone()).sum();
    pgd.climb(loss, start, images, ball)
}

/// Measures `classifier` on `split`: as the images are, and attacked by PGD on the cross-entropy.
///
/// Only images that are classified correctly are attacked; the others are lost already.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) when asked to stop; [`Error::Logits`](crate::Error::Logits) for logits that are not finite.
pub fn accuracy(
    stage: &str,
    classifier: &Classifier,
    split: &Split,
    (ball, pgd): (Ball, Pgd),
    batch_size: usize,
    context: &mut Context,
) -> Result<Accuracy> {
    let count = split.images.len();
    let classes = classifier.linear.bias.val().dims()[0];
    let device = context.device.clone();
    let all: Vec<usize> = (0..count).collect();
    let label = |i: &usize| split.labels[*i];

    let classifier = classifier.frozen();
    let right = |indices: &[usize], images: Tensor<4>| -> Result<Vec<usize>> {
        let predicted = classes_said(stage, indices, classifier.logits(images))?;
        let right = indices
            .iter()
            .zip(predicted)
            .filter(|(i, class)| label(i) == *class);
        Ok(right.map(|(i, _)| *i).collect())
    };
    let mut clean = Vec::new();
    for indices in all.chunks(batch_size) {
        let images = to_tensor(split.images.batch(indices), &device);
        clean.extend(right(indices, images)?);
        context.progress(
            &format!("{stage}/clean"),
            indices[0] + indices.len(),
            count,
            "images",
        )?;
    }

    let mut robust = Vec::new();
    let mut done = 0;
    for (number, indices) in clean.chunks(batch_size).enumerate() {
        let images = to_tensor(split.images.batch(indices), &device);
        let labels: Vec<usize> = indices.iter().map(label).collect();
        let mut rng = random::generator(context.seed, "evaluate", number as u64);
        let start = ball.random_start(&images, &mut rng);
        let logits = |x| classifier.logits(x);
        let attacked = climb(logits, &labels, start, &images, (ball, pgd));
        robust.extend(right(indices, attacked)?);
        done += indices.len();
        context.progress(stage, done, clean.len(), "images")?;
    }

    let mut outcome = Accuracy {
        total: Tally::default(),
        classes: vec![Tally::default(); classes],
    };
    for i in &all {
        outcome.classes[label(i)].images += 1;
    }
    for i in &clean {
        outcome.classes[label(i)].clean += 1;
    }
    for i in &robust {
        outcome.classes[label(i)].robust += 1;
    }
    outcome.total = Tally {
        images: count,
        clean: clean.len(),
        robust: robust.len(),
    };
    Ok(outcome)
}
