//! What a classifier says of images as they are and under attack: confusion, calibration, features, transfer.

use burn::tensor::Tensor;

use super::{Bin, Calibration, Neighbours, Subject};
use crate::error::Result;
use crate::logits::{classes_said, require_finite};
use crate::probe::Known;
use crate::session::Context;
use crate::tensor::to_vec;

/// Neighbours that vote on a feature.
pub const NEIGHBOURS: usize = 20;
/// Training images among which neighbours are sought, at most.
pub const REFERENCES: usize = 5_000;
/// Of confidence, in calibration.
const BINS: usize = 15;

/// What a classifier makes of the measured images, in their order.
#[derive(Clone)]
pub struct Answers {
    /// `[images, features]`.
    features: Tensor<2>,
    /// The class that is said of each, and its probability.
    said: Vec<(usize, f32)>,
    /// The right one.
    labels: Vec<usize>,
    classes: usize,
}

impl Subject<'_> {
    /// Of all measured images as they are, or all attacked by the recipe's PGD: those that are wrong already too, for what is
    /// measured is how answers move, not only whether they stay right.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted), [`Error::Logits`](crate::Error::Logits).
    pub fn answers(&self, attacked: bool, context: &mut Context) -> Result<Answers> {
        let kind = if attacked { "attacked" } else { "clean" };
        let stage = format!("{}/{kind}", self.stage);
        let (mut features, mut said, mut classes) = (Vec::new(), Vec::new(), 0);
        for (number, batch) in self.among.chunks(self.batch_size).enumerate() {
            let images = match attacked {
                true => self.attacked(batch, (self.ball, self.pgd), context),
                false => self.images(batch, context),
            };
            let seen = self.encoder.features(images);
            let logits = self.linear.forward(seen.clone());
            classes = logits.dims()[1];
            for (row, &index) in to_vec(logits).chunks(classes).zip(batch) {
                require_finite(&stage, index, row)?;
                said.push(most_probable(row));
            }
            features.push(seen);
            let done = number * self.batch_size + batch.len();
            context.progress(&stage, done, self.among.len(), "images")?;
        }
        Ok(Answers {
            features: Tensor::cat(features, 0),
            said,
            labels: self.among.iter().map(|&i| self.split.labels[i]).collect(),
            classes,
        })
    }
}

/// The class of the largest logit and its probability.
fn most_probable(logits: &[f32]) -> (usize, f32) {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    let (class, most) = best.expect("a classifier has classes");
    let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
    (class, 1.0 / sum)
}

impl Answers {
    /// `[true class][class said]`, in images.
    pub fn confusion(&self) -> Vec<Vec<usize>> {
        let mut table = vec![vec![0; self.classes]; self.classes];
        for (&label, &(class, _)) in self.labels.iter().zip(&self.said) {
            table[label][class] += 1;
        }
        table
    }

    /// Confidence against accuracy.
    pub fn calibration(&self) -> Calibration {
        let answers = self.labels.iter().zip(&self.said);
        let answers = answers.map(|(label, &(class, confidence))| (confidence, *label == class));
        calibration(&answers.collect::<Vec<_>>())
    }

    /// The share whose class is that of their nearest neighbours among `known`.
    pub fn neighbours(&self, known: &Known) -> f64 {
        known.accuracy(self.features.clone(), &self.labels, NEIGHBOURS)
    }
}

/// How far nearest neighbours still say the right class under attack.
impl Neighbours {
    /// Of both answers of a classifier.
    pub fn new(clean: &Answers, attacked: &Answers, known: &Known) -> Self {
        Self {
            k: NEIGHBOURS,
            clean: clean.neighbours(known),
            attacked: attacked.neighbours(known),
        }
    }
}

/// Expected calibration error (Guo, Pleiss, Sun, Weinberger, ICML 2017, equation 3): the mean gap between confidence and
/// accuracy, over 15 bins of equal width that hold their upper end, weighted by their images.
fn calibration(answers: &[(f32, bool)]) -> Calibration {
    let mut sums = [(0usize, 0.0f64, 0usize); BINS];
    for &(confidence, right) in answers {
        let place = (f64::from(confidence) * BINS as f64).ceil() as usize;
        let bin = &mut sums[place.clamp(1, BINS) - 1];
        bin.0 += 1;
        bin.1 += f64::from(confidence);
        bin.2 += usize::from(right);
    }
    let mean = |sum: f64, images: usize| sum / images.max(1) as f64;
    let bins = sums.map(|(images, confidence, right)| Bin {
        images,
        confidence: mean(confidence, images),
        accuracy: mean(right as f64, images),
    });
    let gap = |bin: &Bin| bin.images as f64 * (bin.confidence - bin.accuracy).abs();
    Calibration {
        error: mean(bins.iter().map(gap).sum(), answers.len()),
        bins: bins.to_vec(),
    }
}

/// What all of `others` make of the images that PGD makes on `source`: the share that each classifies correctly, in their
/// order; on the images as they are where there is no source.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted), [`Error::Logits`](crate::Error::Logits).
pub fn transfer(
    source: Option<&Subject>,
    others: &[Subject],
    context: &mut Context,
) -> Result<Vec<f64>> {
    let Some(first) = source.or(others.first()) else {
        return Ok(Vec::new());
    };
    let stage = match source {
        Some(source) => format!("{}/transfer", source.stage),
        None => "transfer/clean".to_owned(),
    };
    let mut right = vec![0; others.len()];
    for (number, batch) in first.among.chunks(first.batch_size).enumerate() {
        let images = match source {
            Some(source) => source.attacked(batch, (source.ball, source.pgd), context),
            None => first.images(batch, context),
        };
        for (other, right) in others.iter().zip(&mut right) {
            let said = classes_said(&other.stage, batch, other.logits(images.clone()))?;
            let labels = batch.iter().map(|&i| other.split.labels[i]);
            *right += labels
                .zip(said)
                .filter(|(label, class)| label == class)
                .count();
        }
        let done = number * first.batch_size + batch.len();
        context.progress(&stage, done, first.among.len(), "images")?;
    }
    let share = |right| right as f64 / first.among.len() as f64;
    Ok(right.into_iter().map(share).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_by_hand() {
        // Bins of 1/15: (0.6, 0.667] holds two, (0.867, 0.933] two, the last one.
        let answers = [
            (0.65, true),
            (0.61, false),
            (0.9, true),
            (0.9, true),
            (1.0, false),
        ];
        let found = calibration(&answers);
        assert_eq!(found.bins.len(), 15);
        let counts: Vec<usize> = found.bins.iter().map(|bin| bin.images).collect();
        assert_eq!(counts, [0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 1][..]);
        assert_eq!(found.bins[9].accuracy, 0.5);
        assert!((found.bins[9].confidence - 0.63).abs() < 1e-6);
        // (2 · |0.63 - 0.5| + 2 · |0.9 - 1| + 1 · |1 - 0|) / 5.
        assert!((found.error - 1.46 / 5.0).abs() < 1e-6, "{}", found.error);
        assert_eq!(calibration(&[(1.0, true)]).error, 0.0);
        assert_eq!(calibration(&[]).error, 0.0);
        assert_eq!(calibration(&[(0.0, false)]).bins[0].images, 1);
    }

    #[test]
    fn confidence_is_the_softmax_of_the_class_said() {
        assert_eq!(most_probable(&[3.0]), (0, 1.0));
        let (class, confidence) = most_probable(&[0.0, 1000.0, 1000.0 + f32::ln(3.0)]);
        assert_eq!(class, 2);
        assert!((confidence - 0.75).abs() < 1e-4, "{confidence}");
    }
}
