//! Images before and after the attack, and a classifier's predictions for both.

use burn::tensor::Tensor;

use super::ReportedModel;
use crate::attack::Attacker;
use crate::data::Split;
use crate::error::Result;
use crate::evaluate::{Evaluator, StageProgress};
use crate::logits::{self, LogitRows};
use crate::nn::FrozenClassifier;
use crate::random;
use crate::session::Context;
use crate::tensor::{to_tensor, to_vec};

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
        let name = format!("{}/images", model.row.classifier);
        let mut stage = StageProgress::new(&name, candidates.len());
        let evaluator = Evaluator {
            name: &model.row.classifier,
            logits: &|x| model.classifier.logits(x),
            classes,
            split,
            batch_size: BATCH,
        };
        let predicted = evaluator.predict_clean(&candidates, &mut stage, context)?;
        for ((right, &index), class) in right.iter_mut().zip(&candidates).zip(predicted) {
            *right &= split.labels[index] == class;
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
    let logits = LogitRows::read(classifier.logits(images));
    logits.require_finite("report", indices)?;
    Ok(logits.rows().map(logits::probabilities).collect())
}

/// Attacks the chosen images by PGD on the cross-entropy, misclassified ones too.
///
/// # Shapes
/// Returns `[chosen, channels, height, width]`.
pub(super) fn attacked(
    model: &ReportedModel,
    split: &Split,
    chosen: &[usize],
    attacker: Attacker,
    context: &Context,
) -> Tensor<4> {
    let evaluator = Evaluator {
        name: &model.row.classifier,
        logits: &|x| model.classifier.logits(x),
        classes: model.row.outcome.accuracy.classes.len(),
        split,
        batch_size: BATCH,
    };
    evaluator.pgd(chosen, attacker, context)
}

/// Attacks the chosen images and predicts their classes before and after.
///
/// # Errors
/// [`crate::Error::Logits`].
pub fn examples(
    model: &ReportedModel,
    split: &Split,
    chosen: &[usize],
    attacker: Attacker,
    context: &mut Context,
) -> Result<Vec<Example>> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let images = &split.images;
    let attacked = attacked(model, split, chosen, attacker, context);
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
            shape: images.shape(),
            probabilities: before,
            probabilities_attacked: after,
        })
        .collect())
}
