//! Images before and after the attack, and what a classifier says of both.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use super::Subject;
use crate::attack::{Ball, Pgd};
use crate::data::Split;
use crate::error::Result;
use crate::evaluate::{predictions, require_finite};
use crate::loss::cross_entropy_each;
use crate::nn::FrozenClassifier;
use crate::random;
use crate::session::Context;
use crate::tensor::{label_tensor, to_tensor, to_vec};

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
        let stage = format!("{}/images", subject.row.classifier);
        for (number, chunk) in sought.chunks(BATCH).enumerate() {
            let images = to_tensor(split.images.batch(chunk), &context.device);
            let said = predictions(subject.classifier.logits(images));
            let start = number * BATCH;
            for ((right, &index), said) in right[start..].iter_mut().zip(chunk).zip(said) {
                *right &= split.labels[index] == said;
            }
            context.progress(&stage, start + chunk.len(), sought.len(), "images")?;
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
    let logits = classifier.logits(images);
    let classes = logits.dims()[1];
    for (&index, row) in indices.iter().zip(to_vec(logits.clone()).chunks(classes)) {
        require_finite("report", index, row)?;
    }
    let all = to_vec(softmax(logits, 1));
    Ok(all.chunks(classes).map(<[f32]>::to_vec).collect())
}

/// Attacks the chosen images by `pgd` on the cross-entropy, those that are wrong already too.
///
/// # Shapes
/// Returns `[chosen, channels, height, width]`.
pub(super) fn attacked(
    subject: &Subject,
    split: &Split,
    chosen: &[usize],
    (ball, pgd): (Ball, Pgd),
    context: &Context,
) -> Tensor<4> {
    let images = to_tensor(split.images.batch(chosen), &context.device);
    let labels: Vec<usize> = chosen.iter().map(|&i| split.labels[i]).collect();
    let labels = label_tensor(&labels, &context.device);
    let climb = |x| cross_entropy_each(subject.classifier.logits(x), labels.clone()).sum();
    let first = chosen.first().map_or(0, |&i| i as u64);
    let mut rng = random::generator(context.seed, "report/pgd", first);
    pgd.maximize(climb, &images, ball, &mut rng)
}

/// The chosen images and what PGD makes of them.
///
/// # Errors
/// [`crate::Error::Logits`].
pub fn examples(
    subject: &Subject,
    split: &Split,
    chosen: &[usize],
    attack: (Ball, Pgd),
    context: &mut Context,
) -> Result<Vec<Example>> {
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let images = &split.images;
    let attacked = attacked(subject, split, chosen, attack, context);
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
