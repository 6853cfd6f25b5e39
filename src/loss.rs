//! Losses, as pure functions of tensors, and a check of whether they diverge.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Bool, Int, Tensor};

/// Divisor of the temperature in the scale of the released code's contrastive loss.
pub const BASE_TEMPERATURE: f64 = 0.07;

/// Contrastive loss over any number of views (AdvCL, equation 3; SimCLR's NT-Xent is the case of two).
///
/// Every view of every image is an anchor; its positives are the image's other views, its negatives the views of all other
/// images. The mean over anchors, in nats, is scaled by `temperature / 0.07`.
///
/// An anchor's loss is `logsumexp(similarities) - mean(similarities to positives)`. The second part needs only the sum of
/// an image's views, so a single similarity matrix is computed.
///
/// # Shapes
/// `views`: at least two, `[batch, dimensions]` each, unit vectors. Returns `[1]`.
pub fn contrastive(views: Vec<Tensor<2>>, temperature: f64) -> Tensor<1> {
    let count = views.len();
    let sum = total(&views);
    let z = Tensor::cat(views, 0);
    let positives = (sum.repeat_dim(0, count) - z.clone()) * z.clone();
    let positives = positives.sum_dim(1) / ((count - 1) as f64 * temperature);

    let others = logsumexp(similarities(z, temperature));
    (others - positives).mean() * (temperature / BASE_TEMPERATURE)
}

/// Similarity of each row to each other row. `[rows, dimensions]` to `[rows, rows]`, -∞ on the diagonal.
fn similarities(z: Tensor<2>, temperature: f64) -> Tensor<2> {
    let rows = z.dims()[0];
    let all = z.clone().matmul(z.transpose()) / temperature;
    let itself = Tensor::<2, Bool>::diag_mask([rows, rows], 0, &all.device());
    all.mask_fill(itself.bool_not(), f32::NEG_INFINITY)
}

/// Views that stay constant while an attack changes another one.
///
/// Similarities among them are computed once: an attack's step on one view of four then needs a quarter of the
/// similarities.
pub struct FixedViews {
    temperature: f64,
    count: usize,
    /// All views, one below the other: `[count · batch, dimensions]`.
    z: Tensor<2>,
    /// Sum of each image's views: `[batch, dimensions]`.
    sum: Tensor<2>,
    /// Logsumexp of each view's similarities to the other constant views: `[count · batch, 1]`.
    among: Tensor<2>,
    /// Sum of all similarities between views of one image, both ways: `[1]`.
    positives: Tensor<1>,
}

impl FixedViews {
    /// Computes what depends on the constant views alone.
    ///
    /// # Shapes
    /// `views`: at least one, `[batch, dimensions]` each, unit vectors.
    pub fn new(views: Vec<Tensor<2>>, temperature: f64) -> Self {
        let count = views.len();
        let sum = total(&views);
        let z = Tensor::cat(views, 0);
        let positives = ((sum.clone().repeat_dim(0, count) - z.clone()) * z.clone()).sum();
        Self {
            temperature,
            count,
            sum,
            among: logsumexp(similarities(z.clone(), temperature)),
            positives: positives / temperature,
            z,
        }
    }

    /// Contrastive loss of `view` and these views, as [`contrastive`] computes it.
    ///
    /// # Shapes
    /// `view`: `[batch, dimensions]`. Returns `[1]`.
    pub fn contrastive(&self, view: Tensor<2>) -> Tensor<1> {
        let anchors = (self.count + 1) * view.dims()[0];
        let across = self.z.clone().matmul(view.clone().transpose()) / self.temperature;
        let own = similarities(view.clone(), self.temperature);
        let theirs = Tensor::cat(vec![self.among.clone(), across.clone()], 1);
        let ours = Tensor::cat(vec![own, across.transpose()], 1);
        // A pair of the view and a constant one is a positive for both.
        let positives = (view * self.sum.clone()).sum() * (2.0 / self.temperature);
        let positives = (positives + self.positives.clone()) / self.count as f64;
        let all = logsumexp(theirs).sum() + logsumexp(ours).sum() - positives;
        all * (self.temperature / BASE_TEMPERATURE / anchors as f64)
    }
}

/// Sum of each image's views.
fn total(views: &[Tensor<2>]) -> Tensor<2> {
    let (first, rest) = views.split_first().expect("at least one view");
    rest.iter()
        .fold(first.clone(), |sum, view| sum + view.clone())
}

/// Logsumexp of each row, stable: the largest entry is taken out first. `[rows, columns]` to `[rows, 1]`.
fn logsumexp(x: Tensor<2>) -> Tensor<2> {
    let largest = x.clone().detach().max_dim(1);
    (x - largest.clone()).exp().sum_dim(1).log() + largest
}

/// Entry of each row at `index`. `[rows, columns]` and `[rows]` to `[rows]`.
fn pick(x: Tensor<2>, index: Tensor<1, Int>) -> Tensor<1> {
    x.gather(1, index.unsqueeze_dim(1)).squeeze_dim(1)
}

/// Cross-entropy of each sample, in nats.
///
/// # Shapes
/// `logits` `[batch, classes]`, `labels` `[batch]`. Returns `[batch]`.
pub fn cross_entropy_each(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    -pick(log_softmax(logits, 1), labels)
}

/// Mean cross-entropy, in nats. Shapes as [`cross_entropy_each`]; returns `[1]`.
pub fn cross_entropy(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    cross_entropy_each(logits, labels).mean()
}

/// Mean cross-entropy against target probabilities, in nats.
///
/// # Shapes
/// Both `[batch, classes]`. Returns `[1]`.
pub fn soft_cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    -(targets * log_softmax(logits, 1)).sum_dim(1).mean()
}

/// Mean cosine of the angle between rows.
///
/// # Shapes
/// Both `[batch, features]`. Returns `[1]`.
pub fn cosine(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    // PyTorch's cosine_similarity keeps each length at 1e-8 or more. Before the root, which has no slope at zero.
    let length = |x: &Tensor<2>| x.clone().square().sum_dim(1).clamp_min(1e-16).sqrt();
    let lengths = length(&a) * length(&b);
    ((a * b).sum_dim(1) / lengths).mean()
}

/// Mean cross-entropy over several heads, each with its own labels: the pseudo-supervision of AdvCL, equation 5.
///
/// # Shapes
/// `logits[h]` `[batch, K_h]`, `labels[h]` `[batch]`. Returns `[1]`.
pub fn mean_cross_entropy(logits: Vec<Tensor<2>>, labels: &[Tensor<1, Int>]) -> Tensor<1> {
    let heads = logits.len() as f64;
    let losses = logits
        .into_iter()
        .zip(labels)
        .map(|(z, y)| cross_entropy(z, y.clone()));
    losses.reduce(|a, b| a + b).expect("at least one head") / heads
}

/// Difference of logits ratio of each sample (Croce and Hein, ICML 2020, equation 6): positive once misclassified.
///
/// # Shapes
/// `logits` `[batch, classes]` with at least 3 classes, `labels` `[batch]`. Returns `[batch]`.
pub fn dlr(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let top = logits.clone().detach().topk_with_indices(3, 1).1;
    let rank = |r: usize| top.clone().narrow(1, r, 1).squeeze_dim::<1>(1);
    let (first, second, third) = (rank(0), rank(1), rank(2));
    let wrong = first.clone().not_equal(labels.clone());
    let rival = second.mask_where(wrong, first.clone());
    let margin = pick(logits.clone(), labels) - pick(logits.clone(), rival);
    let spread = pick(logits.clone(), first) - pick(logits, third) + 1e-12;
    -margin / spread
}

/// Targeted difference of logits ratio of each sample (the same paper, equation 7).
///
/// # Shapes
/// As [`dlr`], with at least 4 classes and `targets` `[batch]`.
pub fn dlr_targeted(
    logits: Tensor<2>,
    labels: Tensor<1, Int>,
    targets: Tensor<1, Int>,
) -> Tensor<1> {
    let top = logits.clone().detach().topk_with_indices(4, 1).1;
    let rank = |r: usize| {
        pick(
            logits.clone(),
            top.clone().narrow(1, r, 1).squeeze_dim::<1>(1),
        )
    };
    let margin = pick(logits.clone(), labels) - pick(logits.clone(), targets);
    let spread = rank(0) - (rank(2) + rank(3)) / 2.0 + 1e-12;
    -margin / spread
}

/// TRADES' regulariser (Zhang et al., ICML 2019): mean KL(clean ‖ adversarial), in nats.
///
/// # Shapes
/// Logits `[batch, classes]` both. Returns `[1]`.
pub fn trades_kl(clean: Tensor<2>, adversarial: Tensor<2>) -> Tensor<1> {
    let batch = clean.dims()[0] as f64;
    let gap = log_softmax(clean.clone(), 1) - log_softmax(adversarial, 1);
    (softmax(clean, 1) * gap).sum() / batch
}

/// Factor by which the loss of a diverging training grows at least.
const DIVERGENCE: f32 = 10.0;

/// Smallest loss, in nats, that growth is measured from: below it, a loss that grows tenfold is still small.
const SMALL: f32 = 0.1;

/// Values at the end of which the smallest counts, so that a single bad batch is no divergence.
const LAST: usize = 3;

/// Whether a training's cross-entropy diverges: ends at ten times its first value or more. Returns the reason.
///
/// `losses`: in nats, of the steps or the means of the epochs, in order. The first value should be that of the first step or
/// an early mean: a loss that explodes within the first epoch hides behind that epoch's mean.
pub fn diverges(losses: &[f32]) -> Option<String> {
    let (first, rest) = losses.split_first()?;
    let last = &rest[rest.len().saturating_sub(LAST)..];
    let end = last.iter().copied().reduce(f32::min)?;
    // Written so that losses that are not a number diverge too.
    if end < DIVERGENCE * first.max(SMALL) {
        return None;
    }
    Some(format!(
        "the training loss grew from {first:.3} to {end:.3}: training diverges"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_grows_tenfold_diverges_and_a_noisy_one_does_not() {
        for (losses, expected) in [
            (&[][..], false),
            (&[2.3], false),
            (&[2.3, 1.2, 0.4], false),
            (&[2.3, 22.0, 22.9], false),
            (&[2.3, 800.0, 40.0], true),
            (&[2.3, 40.0], true),
            // One bad batch at the end of many.
            (&[2.3, 1.0, 0.8, 90.0], false),
            // Tenfold, and still small.
            (&[0.01, 0.2, 0.3], false),
            (&[2.3, f32::NAN, f32::NAN], true),
            (&[2.3, 1e9, f32::INFINITY, f32::INFINITY], true),
        ] {
            assert_eq!(diverges(losses).is_some(), expected, "{losses:?}");
        }
        let reason = diverges(&[2.303, 700.0, 470.0]);
        let expected = "the training loss grew from 2.303 to 470.000: training diverges";
        assert_eq!(reason.as_deref(), Some(expected));
    }
}
