//! The attacked classifier with its images, and an attack's result: shared by all attacks of a suite.

use burn::tensor::{Int, Tensor};
use rand::rngs::ChaCha8Rng;

use super::Ball;
use crate::error::{Error, Result};
use crate::logits::{LogitRows, finite_predictions};
use crate::random;
use crate::tensor::label_tensor;

/// Stage in errors of logits under attack.
const STAGE: &str = "under attack";

/// A classifier under attack and a batch of images.
pub struct Victim<'a> {
    /// Classifier, from `[batch, channels, height, width]` in [0, 1] to logits `[batch, classes]`. A row of logits depends
    /// on its image alone.
    pub logits: &'a dyn Fn(Tensor<4>) -> Tensor<2>,
    /// Images, all classified correctly; [`Victim::last_iterates`] takes others too.
    pub images: &'a Tensor<4>,
    /// Label of each image.
    pub labels: &'a [usize],
    /// Index of each image in its split. An image's random numbers are drawn by its index, so that they do not depend on
    /// the batch.
    pub indices: &'a [usize],
    /// Threat model.
    pub ball: Ball,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// Progress callback; receives the finished fraction in [0, 1]. Returning an error aborts the attack.
pub type Progress<'a> = &'a mut dyn FnMut(f64) -> Result<()>;

/// For `map_err`: names the stage in which logits under attack were not finite.
pub(crate) fn in_stage(stage: &str) -> impl FnOnce(Error) -> Error {
    move |error| match error {
        Error::Logits { image, value, .. } => Error::Logits {
            stage: stage.to_owned(),
            image,
            value,
        },
        other => other,
    }
}

/// Result of an attack on a batch.
pub struct AttackResult {
    /// Whether each image is broken.
    pub broken: Vec<bool>,
    /// Adversarial example of each broken image; an image without meaning in the other rows.
    pub images: Tensor<4>,
}

/// Images at `rows` of a batch, in that order.
pub fn select(images: &Tensor<4>, rows: &[usize]) -> Tensor<4> {
    let index = label_tensor(rows, &images.device());
    images.clone().select(0, index)
}

impl Victim<'_> {
    /// Labels of the images at `rows`.
    pub fn labels_of(&self, rows: &[usize]) -> Tensor<1, Int> {
        let labels: Vec<usize> = rows.iter().map(|&row| self.labels[row]).collect();
        label_tensor(&labels, &self.images.device())
    }

    /// Whether each of the images at `rows` is misclassified, by logits of their attacked versions.
    ///
    /// # Errors
    /// [`Error::Logits`](crate::Error::Logits) for logits that are not finite: the image is neither right nor wrong.
    pub fn misclassified(&self, rows: &[usize], logits: Tensor<2>) -> Result<Vec<bool>> {
        let indices: Vec<usize> = rows.iter().map(|&row| self.indices[row]).collect();
        let predicted = finite_predictions(STAGE, &indices, logits)?;
        let pairs = rows.iter().zip(predicted);
        Ok(pairs
            .map(|(&row, class)| self.labels[row] != class)
            .collect())
    }

    /// Classes other than the label for each image, the largest logit of the clean image first: the order in which targeted
    /// attacks try them.
    ///
    /// # Errors
    /// As [`Victim::misclassified`].
    pub fn targets(&self) -> Result<Vec<Vec<usize>>> {
        let logits = LogitRows::read((self.logits)(self.images.clone()));
        logits.require_finite(STAGE, self.indices)?;
        let targets = |(logits, &label): (&[f32], &usize)| {
            let mut others: Vec<usize> = (0..logits.len()).filter(|&c| c != label).collect();
            others.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            others
        };
        Ok(logits.rows().zip(self.labels).map(targets).collect())
    }

    /// Something random for each of the images at `rows`, by a generator of its own: `draw` gets one image at a time,
    /// `[1, channels, height, width]`.
    pub fn random(
        &self,
        purpose: &str,
        rows: &[usize],
        draw: impl Fn(&Tensor<4>, &mut ChaCha8Rng) -> Tensor<4>,
    ) -> Tensor<4> {
        let each = rows.iter().map(|&row| {
            let mut rng = random::generator(self.seed, purpose, self.indices[row] as u64);
            draw(&self.images.clone().narrow(0, row, 1), &mut rng)
        });
        Tensor::cat(each.collect(), 0)
    }
}

impl AttackResult {
    /// Result of an attack that has not begun: nothing is broken.
    pub fn unbroken(victim: &Victim) -> Self {
        Self {
            broken: vec![false; victim.labels.len()],
            images: victim.images.clone(),
        }
    }

    /// Rows of the images that are not broken yet.
    pub fn remaining(&self) -> Vec<usize> {
        let rows = 0..self.broken.len();
        rows.filter(|&row| !self.broken[row]).collect()
    }

    /// Records adversarial examples of the images at `rows`.
    pub fn record(&mut self, rows: &[usize], examples: Tensor<4>) {
        let count = self.broken.len();
        let mut order: Vec<usize> = (0..count).collect();
        for (place, &row) in rows.iter().enumerate() {
            self.broken[row] = true;
            order[row] = count + place;
        }
        let all = Tensor::cat(vec![self.images.clone(), examples], 0);
        self.images = select(&all, &order);
    }

    /// Queries the classifier about `candidates`, one for each of the images at `rows`, and records those that it
    /// misclassifies.
    ///
    /// # Errors
    /// As [`Victim::misclassified`].
    pub fn query(&mut self, victim: &Victim, rows: &[usize], candidates: Tensor<4>) -> Result<()> {
        let wrong = victim.misclassified(rows, (victim.logits)(candidates.clone()))?;
        let places: Vec<usize> = (0..rows.len()).filter(|&place| wrong[place]).collect();
        if !places.is_empty() {
            let rows: Vec<usize> = places.iter().map(|&place| rows[place]).collect();
            self.record(&rows, select(&candidates, &places));
        }
        Ok(())
    }
}
