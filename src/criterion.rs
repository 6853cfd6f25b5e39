//! Losses of classifiers: on clean images, on adversarial ones (PGD), or on both (TRADES).
//! Supervised pretraining and all finetuning share them.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::attack::{Ball, Pgd, gaussian};
use crate::check::Check;
use crate::data::Images;
use crate::data::augment::Weak;
use crate::error::Result;
use crate::loss::{soft_cross_entropy, trades_kl};
use crate::nn::{Classifier, Mode, Shards};
use crate::pixels::Pixels;
use crate::tensor::{label_tensor, to_tensor};
use crate::train::{Loss, Objective, Step};

/// Loss of a classifier, as a recipe writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Criterion {
    /// Cross-entropy on clean images.
    Standard,
    /// Cross-entropy on adversarial images (Madry et al., ICLR 2018, equation 2.1).
    Pgd {
        /// Gradient steps of the attack.
        steps: usize,
        /// Step size of the attack, in pixels; a quarter of the radius by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step_size: Option<Pixels>,
    },
    /// Cross-entropy on clean images, plus the divergence between the predictions on clean and on
    /// adversarial ones (TRADES; Zhang et al., ICML 2019, equation 5).
    Trades {
        /// Weight β of the divergence, the paper's 1/λ.
        beta: f64,
        /// Gradient steps of the attack.
        steps: usize,
        /// Step size of the attack, in pixels; a quarter of the radius by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step_size: Option<Pixels>,
    },
}

impl Criterion {
    /// Refuses impossible values.
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe).
    pub fn check(&self, key: &str, check: &Check) -> Result<()> {
        match self {
            Self::Standard => Ok(()),
            Self::Pgd { steps, .. } => check.at_least_one(&format!("{key}.pgd.steps"), *steps),
            Self::Trades { beta, steps, .. } => {
                check.at_least_one(&format!("{key}.trades.steps"), *steps)?;
                check.in_range(&format!("{key}.trades.beta"), *beta, 0.0, 1e6)
            }
        }
    }

    /// Whether the loss attacks its images.
    pub fn attacks(&self) -> bool {
        *self != Self::Standard
    }

    /// The loss of a batch.
    ///
    /// Both functions map images to logits: `detached` without gradients of the weights, for the
    /// attack, shard by shard; `tracked` with them, for the loss.
    ///
    /// # Shapes
    /// `images` `[batch, channels, height, width]`, `targets` `[batch, classes]`: probabilities.
    pub fn loss(
        &self,
        detached: impl Fn(Tensor<4>) -> Tensor<2> + Sync,
        mut tracked: impl FnMut(Tensor<4>) -> Tensor<2>,
        (images, targets): (Tensor<4>, Tensor<2>),
        (ball, shards): (Ball, Shards),
        rng: &mut ChaCha8Rng,
    ) -> Loss {
        let images = match self {
            Self::Standard => images,
            Self::Pgd { steps, step_size } => {
                let loss = |z| soft_cross_entropy(z, targets.clone());
                let pgd = Pgd::new(*steps, step_size.as_ref(), ball);
                let start = ball.random_start(&images, rng);
                pgd.ascend(shards.gradient_of(detached, loss), start, &images, ball)
            }
            Self::Trades {
                beta,
                steps,
                step_size,
            } => {
                let pgd = Pgd::new(*steps, step_size.as_ref(), ball);
                let logits = shards.map(images.clone(), &detached);
                let loss = |z| trades_kl(logits.clone(), z);
                let gradient = shards.gradient_of(&detached, loss);
                // At the image itself the divergence is minimal and its gradient zero, so the
                // attack starts beside it. The deviation is that of TRADES' released code.
                let beside = images.clone() + gaussian(&images, rng) * 1e-3;
                let start = ball.project(beside, &images);
                let x = pgd.ascend(gradient, start, &images, ball);
                let clean = tracked(images);
                let natural = soft_cross_entropy(clean.clone(), targets);
                let robust = trades_kl(clean, tracked(x));
                return Loss {
                    total: natural.clone() + robust.clone() * *beta,
                    parts: vec![("natural", natural), ("robust", robust)],
                };
            }
        };
        Loss {
            total: soft_cross_entropy(tracked(images), targets),
            parts: Vec::new(),
        }
    }
}

/// Training data of a classifier: images, target probabilities, augmentation and threat model.
pub struct Task<'a> {
    /// All images, also those that are not used.
    pub images: &'a Images,
    /// Indices of the images that are used.
    pub chosen: Vec<usize>,
    /// Target probabilities of the images that are used, `[chosen, classes]`.
    pub targets: Tensor<2>,
    /// Random crops and flips; none for the images without change.
    pub augment: Option<Weak>,
    /// Threat model.
    pub ball: Ball,
}

impl<'a> Task<'a> {
    /// Training data with all images and their labels.
    pub fn new(
        images: &'a Images,
        labels: &[usize],
        classes: usize,
        augment: Option<Weak>,
        ball: Ball,
        device: &Device,
    ) -> Self {
        Self {
            images,
            chosen: (0..images.len()).collect(),
            targets: one_hot(labels, classes, device),
            augment,
            ball,
        }
    }

    /// Images and targets of a batch; `indices` are positions in `chosen`. Views are made at the places `own` alone.
    pub fn batch(
        &self,
        indices: &[usize],
        own: Range<usize>,
        rng: &mut ChaCha8Rng,
    ) -> (Tensor<4>, Tensor<2>) {
        let chosen: Vec<usize> = indices.iter().map(|&i| self.chosen[i]).collect();
        let batch = match &self.augment {
            Some(weak) => weak.apply_at(own, self.images, &chosen, rng),
            None => self.images.batch(&chosen),
        };
        let device = self.targets.device();
        (to_tensor(batch, &device), self.targets_of(indices))
    }

    /// Targets of a batch; `indices` are positions in `chosen`.
    pub fn targets_of(&self, indices: &[usize]) -> Tensor<2> {
        let device = self.targets.device();
        self.targets
            .clone()
            .select(0, label_tensor(indices, &device))
    }
}

/// Probabilities that are 1 for the label, `[images, classes]`.
pub fn one_hot(labels: &[usize], classes: usize, device: &Device) -> Tensor<2> {
    let mut values = vec![0.0f32; labels.len() * classes];
    for (row, &label) in values.chunks_exact_mut(classes.max(1)).zip(labels) {
        row[label] = 1.0;
    }
    Tensor::from_data(TensorData::new(values, [labels.len(), classes]), device)
}

/// Objective that trains encoder and classifier together.
pub struct EndToEnd<'a> {
    /// The training data.
    pub task: Task<'a>,
    /// The loss.
    pub criterion: Criterion,
}

impl Objective for EndToEnd<'_> {
    type Model = Classifier;

    fn loss(&self, step: Step<Classifier>) -> Loss {
        let batch = self.task.batch(step.indices, step.own(), step.rng);
        let clean = batch.0.clone();
        let within = (self.task.ball, step.shards());
        let mut mode = Mode::Train(step.statistics);
        let mut seen = Vec::new();
        let tracked = |x| {
            let Classifier {
                encoder,
                linear,
                route,
            } = step.tracked;
            let features = encoder.features(x, *route, &mut mode);
            seen.push(features.clone());
            linear.forward(features)
        };
        let loss = match self.criterion {
            // The attack uses the batch's statistics, as in Madry's released code: it maximizes the
            // very loss that is then minimized, and early in training the running statistics mean
            // little.
            Criterion::Standard | Criterion::Pgd { .. } => {
                let detached = |x| step.detached.forward(x, &mut Mode::Batch);
                (self.criterion).loss(detached, tracked, batch, within, step.rng)
            }
            // TRADES' released code attacks in evaluation mode.
            Criterion::Trades { .. } => {
                let frozen = step.detached.frozen();
                let detached = |x| frozen.logits(x);
                (self.criterion).loss(detached, tracked, batch, within, step.rng)
            }
        };
        step.seen.add(&clean, seen);
        loss
    }
}
