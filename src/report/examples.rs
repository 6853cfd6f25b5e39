//! Images before and after the attack, and what a classifier says of both.

use burn::tensor::Tensor;

use super::Subject;
use crate::attack::Attacker;
use crate::data::Split;
use crate::error::Result;
use crate::evaluate::{Evaluator, StageProgress};
use crate::logits::{self, LogitRows};
use crate::nn::FrozenClassifier;
use crate::random;
use crate::session::Context;
use crate::tensor::{to_tensor, to_vec};

/// Images among which those to be shown are sought.
const SOUGHT: usize = 200;
/// Of these, at a time.
const BATCH: usize = 50;

/// An image, clean and attacked.
#[derive(Clone, Debug)]
pub struct Example {
    /// Its place in the split.
    pub index: usize,
    /// Its class.
    pub label: usize,
    /// `[channels, height, width]`, pixels in [0, 1].
    pub clean: Vec<f32>,
    /// The same under attack.
    pub attacked: Vec<f32>,
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// Of each class, in [0, 1], of the image as it is.
    pub probabilities: Vec<f32>,
    /// Under attack.
    pub probabilities_attacked: Vec<f32>,
}

/// `count` images to show, or as many as there are: such that every subject gets right as they are, each of another class
/// as far as there are classes; others where these do not suffice. Drawn from the seed, not picked.
///
/// # Errors
/// [`crate::Error::Interrupted`]; [`crate::Error::Logits`].
pub fn choose(
    subjects: &[&Subject],
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
    let mut sought = split.limited(classes, SOUGHT.min(len), context.seed);
    let order = random::permutation(sought.len(), &mut rng);
    sought = order.into_iter().map(|at| sought[at]).collect();
    let mut right = vec![true; sought.len()];
    for subject in subjects {
        let name = format!("{}/images", subject.row.classifier);
        let mut stage = StageProgress::new(&name, sought.len());
        let evaluator = Evaluator {
            name: &subject.row.classifier,
            logits: &|x| subject.classifier.logits(x),
            classes,
            split,
            batch_size: BATCH,
        };
        let predicted = evaluator.predict_clean(&sought, &mut stage, context)?;
        for ((right, &index), class) in right.iter_mut().zip(&sought).zip(predicted) {
            *right &= split.labels[index] == class;
        }
    }
    let (good, rest): (Vec<_>, Vec<_>) = sought.iter().zip(right).partition(|(_, right)| *right);
    let only = |pairs: Vec<(&usize, bool)>| pairs.into_iter().map(|(&i, _)| i).collect::<Vec<_>>();
    let (mut good, rest) = (only(good), only(rest));
    let mut chosen: Vec<usize> = Vec::new();
    // Round by round, one of each class.
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

/// The probability that `classifier` gives each class, of each image: rows of `[images, classes]`.
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

/// Attacks the chosen images by PGD on the cross-entropy, also those that are misclassified when clean.
///
/// # Shapes
/// Returns `[chosen, channels, height, width]`.
pub(super) fn attacked(
    subject: &Subject,
    split: &Split,
    chosen: &[usize],
    attacker: Attacker,
    context: &Context,
) -> Tensor<4> {
    let evaluator = Evaluator {
        name: &subject.row.classifier,
        logits: &|x| subject.classifier.logits(x),
        classes: subject.row.outcome.accuracy.classes.len(),
        split,
        batch_size: BATCH,
    };
    evaluator.pgd(chosen, attacker, context)
}

/// The chosen images and what PGD makes of them.
///
/// # Errors
/// [`crate::Error::Logits`].
pub fn examples(
    subject: &Subject,
    split: &Split,
    chosen: &[usize],
    attacker: Attacker,
    context: &mut Context,
) -> Result<Vec<Example>> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let images = &split.images;
    let attacked = attacked(subject, split, chosen, attacker, context);
    let clean = to_tensor(images.batch(chosen), &context.device);
    let before = probabilities(&subject.classifier, clean, chosen)?;
    let after = probabilities(&subject.classifier, attacked.clone(), chosen)?;
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
