//! Predictions for clean and adversarial images: confusion, calibration, features, transfer.

use burn::tensor::Tensor;

use super::{Bin, Calibration, Confusion, MeasuredClassifier, Neighbours};
use crate::error::Result;
use crate::evaluate::StageProgress;
use crate::logits::{LogitRows, finite_predictions, probabilities};
use crate::probe::Known;
use crate::ranks;
use crate::session::Context;
use crate::tensor::rows_of_all_ranks;

/// Neighbours that vote on the class of a feature.
pub const NEIGHBOURS: usize = 20;
/// Largest number of training images among which neighbours are searched.
pub const REFERENCES: usize = 5_000;
/// Bins of confidence, in calibration.
const BINS: usize = 15;

/// Features and predictions of the measured images, in their order.
#[derive(Clone)]
pub struct Predictions {
    /// Features, `[images, features]`.
    features: Tensor<2>,
    /// Predicted class of each image, and its probability.
    predicted: Vec<(usize, f32)>,
    /// Label of each image.
    labels: Vec<usize>,
    classes: usize,
}

impl MeasuredClassifier<'_> {
    /// Predictions for all measured images, clean or attacked by the recipe's PGD. Misclassified images are attacked too:
    /// the measures compare predictions, not only whether they stay correct.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted), [`Error::Logits`](crate::Error::Logits).
    pub fn predictions(&self, attacked: bool, context: &mut Context) -> Result<Predictions> {
        let kind = if attacked { "attacked" } else { "clean" };
        let name = format!("{}/{kind}", self.name);
        let mut stage = StageProgress::new(&name, self.among.len());
        let (mut features, mut all) = (Vec::new(), LogitRows::default());
        stage.by_own_batch(self.among, self.batch_size, context, |batch, context| {
            let images = if attacked {
                self.attacked(batch, context)
            } else {
                self.images(batch, context)
            };
            let found = self.encoder.features(images);
            let logits = LogitRows::read(self.linear.forward(found.clone()));
            logits.require_finite(&name, batch)?;
            features.push(found);
            all.extend(logits);
            Ok(())
        })?;
        let all = all.of_all_ranks();
        let features = rows_of_all_ranks(features, &context.device);
        let confident = |(class, logits): (usize, &[f32])| (class, probabilities(logits)[class]);
        Ok(Predictions {
            features,
            predicted: all
                .predictions()
                .into_iter()
                .zip(all.rows())
                .map(confident)
                .collect(),
            labels: self.among.iter().map(|&i| self.split.labels[i]).collect(),
            classes: all.classes(),
        })
    }
}

impl Predictions {
    /// Numbers of images by true and predicted class.
    pub fn confusion(&self) -> Confusion {
        let mut confusion = Confusion::new(self.classes);
        for (&label, &(class, _)) in self.labels.iter().zip(&self.predicted) {
            confusion.add(label, class);
        }
        confusion
    }

    /// Confidence against accuracy.
    pub fn calibration(&self) -> Calibration {
        let pairs = self.labels.iter().zip(&self.predicted);
        let pairs = pairs.map(|(label, &(class, confidence))| (confidence, *label == class));
        calibration(&pairs.collect::<Vec<_>>())
    }

    /// Number of images whose nearest neighbours among `known` vote for their class.
    fn neighbours(&self, known: &Known) -> usize {
        let share = known.accuracy(self.features.clone(), &self.labels, NEIGHBOURS);
        (share * self.labels.len() as f64).round() as usize
    }

    /// Nearest-neighbour accuracy of clean and of attacked features.
    pub fn compare_neighbours(clean: &Self, attacked: &Self, known: &Known) -> Neighbours {
        let (clean, images) = (clean.neighbours(known), clean.labels.len());
        Neighbours::new(NEIGHBOURS, clean, attacked.neighbours(known), images)
    }
}

/// Expected calibration error (Guo, Pleiss, Sun, Weinberger, ICML 2017, equation 3): the mean gap between confidence and
/// accuracy, over 15 bins of equal width that hold their upper end, weighted by their images.
fn calibration(predictions: &[(f32, bool)]) -> Calibration {
    let mut sums = [(0usize, 0.0f64, 0usize); BINS];
    for &(confidence, correct) in predictions {
        let place = (f64::from(confidence) * BINS as f64).ceil() as usize;
        let bin = &mut sums[place.clamp(1, BINS) - 1];
        bin.0 += 1;
        bin.1 += f64::from(confidence);
        bin.2 += usize::from(correct);
    }
    let mean = |sum: f64, images: usize| sum / images.max(1) as f64;
    let bins = sums.map(|(images, sum, correct)| Bin::new(images, mean(sum, images), correct));
    let gap = |bin: &Bin| bin.images as f64 * (bin.confidence - bin.accuracy).abs();
    Calibration {
        images: predictions.len(),
        error: mean(bins.iter().map(gap).sum(), predictions.len()),
        bins: bins.to_vec(),
    }
}

/// Number of the images that PGD makes on `source` which each of `others` classifies correctly; of the clean images where
/// there is no source.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted), [`Error::Logits`](crate::Error::Logits).
pub fn transfer(
    source: Option<&MeasuredClassifier>,
    others: &[MeasuredClassifier],
    context: &mut Context,
) -> Result<Vec<usize>> {
    let Some(first) = source.or(others.first()) else {
        return Ok(Vec::new());
    };
    let name = match source {
        Some(source) => format!("{}/transfer", source.name),
        None => "transfer/clean".to_owned(),
    };
    let mut correct = vec![0; others.len()];
    let mut stage = StageProgress::new(&name, first.among.len());
    stage.by_own_batch(first.among, first.batch_size, context, |batch, context| {
        let images = match source {
            Some(source) => source.attacked(batch, context),
            None => first.images(batch, context),
        };
        for (other, correct) in others.iter().zip(&mut correct) {
            let logits = other.logits(images.clone());
            let predicted = finite_predictions(&other.name, batch, logits)?;
            let pairs = batch.iter().zip(predicted);
            *correct += pairs
                .filter(|(i, class)| other.split.labels[**i] == *class)
                .count();
        }
        Ok(())
    })?;
    Ok(ranks::sum_counts("correct images", correct))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_by_hand() {
        // Bins of 1/15: (0.6, 0.667] holds two, (0.867, 0.933] two, the last one.
        let predictions = [
            (0.65, true),
            (0.61, false),
            (0.9, true),
            (0.9, true),
            (1.0, false),
        ];
        let found = calibration(&predictions);
        assert_eq!(found.bins.len(), 15);
        let counts: Vec<usize> = found.bins.iter().map(|bin| bin.images).collect();
        assert_eq!(counts, [0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 1][..]);
        assert_eq!(found.images, 5);
        assert_eq!(found.bins[9].accuracy, 0.5);
        assert!(found.bins[9].low < 0.1 && found.bins[9].high > 0.9);
        assert!((found.bins[9].confidence - 0.63).abs() < 1e-6);
        // (2 · |0.63 - 0.5| + 2 · |0.9 - 1| + 1 · |1 - 0|) / 5.
        assert!((found.error - 1.46 / 5.0).abs() < 1e-6, "{}", found.error);
        assert_eq!(calibration(&[(1.0, true)]).error, 0.0);
        assert_eq!(calibration(&[]).error, 0.0);
        assert_eq!(calibration(&[(0.0, false)]).bins[0].images, 1);
    }
}
