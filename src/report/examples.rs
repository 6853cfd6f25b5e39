//! Images before and after the attack, and a classifier's predictions for both.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use super::ReportedModel;
use crate::attack::{Ball, Pgd};
use crate::data::Split;
use crate::error::Result;
use crate::evaluate::{predictions, require_finite};
use crate::loss::cross_entropy_each;
use crate::nn::FrozenClassifier;
use crate::random;
use crate::session::Context;
use crate::tensor::{label_tensor, to_tensor, to_vec};

/// Number of images from which those to be shown are chosen.
const CANDIDATES: usize = 200;
/// Candidates that are classified at a time.
const BATCH: usize = 50;

/// A clean image and its adversarial image.
#[derive(Clone, Debug)]
pub struct Example {
    /// Index of the image in the split.
    pub index: usize,
    /// Its class.
    pub label: usize,
    /// The clean image, `[channels, height, width]`, pixels in [0, 1].
    pub clean: Vec<f32>,
    /// The adversarial image.
    pub attacked: Vec<f32>,
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// Predicted probability of each class for the clean image.
    pub probabilities: Vec<f32>,
    /// Predicted probability of each class for the adversarial image.
    pub probabilities_attacked: Vec<f32>,
}

/// Chooses `count` images to show, or as many as there are: images that every model classifies
/// correctly, of different classes as far as there are classes, and others where these do not
/// suffice. The choice is random and depends on the seed alone.
///
/// # Errors
/// [`crate::Error::Interrupted`]; [`crate::Error::Logits`].
pub fn choose(
    models: &[&ReportedModel],
    split: &Split,
    classes: usize,
    count: usize,
    context: &mut Context,
) -> Result<Vec<usize>> {
    let len = split.images.len();
    let count = count.min(len);
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut rng = random::generator(context.seed, "report/images", 0);
    let mut candidates = split.limited(classes, CANDIDATES.min(len), context.seed);
    let order = random::permutation(candidates.len(), &mut rng);
    candidates = order.into_iter().map(|at| candidates[at]).collect();
    let mut right = vec![true; candidates.len()];
    for model in models {
        let stage = format!("{}/images", model.row.classifier);
        for (number, chunk) in candidates.chunks(BATCH).enumerate() {
            let images = to_tensor(split.images.batch(chunk), &context.device);
            let predicted = predictions(model.classifier.logits(images));
            let start = number * BATCH;
            let chunk_right = right[start..].iter_mut().zip(chunk);
            for ((right, &index), predicted) in chunk_right.zip(predicted) {
                *right &= split.labels[index] == predicted;
            }
            context.progress(&stage, start + chunk.len(), candidates.len(), "images")?;
        }
    }
    let (good, rest): (Vec<_>, Vec<_>) =
        candidates.iter().zip(right).partition(|(_, right)| *right);
    let only = |pairs: Vec<(&usize, bool)>| pairs.into_iter().map(|(&i, _)| i).collect::<Vec<_>>();
    let (mut good, rest) = (only(good), only(rest));
    let mut chosen: Vec<usize> = Vec::new();
    // In rounds, one image of each class a round.
    while chosen.len() < count && !good.is_empty() {
        let mut seen = vec![false; classes];
        good.retain(|&index| {
            let fresh = !std::mem::replace(&mut seen[split.labels[index]], true);
            if fresh {
                chosen.push(index);
            }
            !fresh
        });
    }
    chosen.extend(rest);
    chosen.truncate(count);
    chosen.sort_by_key(|&index| (split.labels[index], index));
    Ok(chosen)
}

/// Predicts the probability of each class for each image: rows of `[images, classes]`.
///
/// # Errors
/// [`crate::Error::Logits`].
pub fn probabilities(
    classifier: &FrozenClassifier,
    images: Tensor<4>,
    indices: &[usize],
) -> Result<Vec<Vec<f32>>> {
    let logits = classifier.logits(images);
    let classes = logits.dims()[1];
    for (&index, row) in indices.iter().zip(to_vec(logits.clone()).chunks(classes)) {
        require_finite("report", index, row)?;
    }
    let all = to_vec(softmax(logits, 1));
    Ok(all.chunks(classes).map(<[f32]>::to_vec).collect())
}

/// Attacks the chosen images by PGD on the cross-entropy, misclassified ones too.
///
/// # Shapes
/// Returns `[chosen, channels, height, width]`.
pub(super) fn attacked(
    model: &ReportedModel,
    split: &Split,
    chosen: &[usize],
    (ball, pgd): (Ball, Pgd),
    context: &Context,
) -> Tensor<4> {
    let images = to_tensor(split.images.batch(chosen), &context.device);
    let labels: Vec<usize> = chosen.iter().map(|&i| split.labels[i]).collect();
    let labels = label_tensor(&labels, &context.device);
    // Random numbers of each image's own: its attack does not depend on the others in the batch.
    let start = |(image, &index): (Tensor<4>, &usize)| {
        let mut rng = random::generator(context.seed, "report/pgd", index as u64);
        ball.random_start(&image, &mut rng)
    };
    let each = images.clone().split(1, 0).into_iter().zip(chosen);
    let start = Tensor::cat(each.map(start).collect(), 0);
    let loss = |x| cross_entropy_each(model.classifier.logits(x), labels.clone()).sum();
    pgd.climb(loss, start, &images, ball)
}

/// Attacks the chosen images and predicts their classes before and after.
///
/// # Errors
/// [`crate::Error::Logits`].
pub fn examples(
    model: &ReportedModel,
    split: &Split,
    chosen: &[usize],
    attack: (Ball, Pgd),
    context: &mut Context,
) -> Result<Vec<Example>> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let images = &split.images;
    let attacked = attacked(model, split, chosen, attack, context);
    let clean = to_tensor(images.batch(chosen), &context.device);
    let before = probabilities(&model.classifier, clean, chosen)?;
    let after = probabilities(&model.classifier, attacked.clone(), chosen)?;
    let size = images.image_len();
    let (clean, attacked) = (images.batch(chosen).data, to_vec(attacked));
    let of = |all: &[f32], row: usize| all[row * size..(row + 1) * size].to_vec();
    let all = chosen.iter().zip(before.into_iter().zip(after)).enumerate();
    Ok(all
        .map(|(row, (&index, (before, after)))| Example {
            index,
            label: split.labels[index],
            clean: of(&clean, row),
            attacked: of(&attacked, row),
            shape: [images.channels, images.height, images.width],
            probabilities: before,
            probabilities_attacked: after,
        })
        .collect())
}
