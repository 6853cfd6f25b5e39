//! The objective of multinomial logistic regression, with its gradient, on scaled features.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::curvature::{Curvature, covariance};
use super::lbfgs::minimize;
use super::{Examples, dot};

/// No component of the gradient is larger than this at a minimum, in nats per unit of a weight.
pub const EXACT: f64 = 1e-8;
/// The same where minima are only compared by their loss on other images.
pub const ROUGH: f64 = 1e-5;
/// Images of which a sum is taken at once.
const PART: usize = 256;

/// Weights and biases of a linear classifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// `[classes, features]`, row by row.
    pub weight: Vec<f64>,
    /// `[classes]`.
    pub bias: Vec<f64>,
}

/// Features and labels, scaled. Its points are the weights, class by class, then the biases.
pub struct Regression<'a> {
    examples: Examples<'a>,
    /// Scaled features, `[images, features]`.
    scaled: Vec<f32>,
    features: usize,
    covariance: Vec<f64>,
    mean: Vec<f64>,
    scale: f64,
    stop: &'a AtomicBool,
}

impl<'a> Regression<'a> {
    pub fn new(examples: Examples<'a>, stop: &'a AtomicBool) -> Self {
        let images = examples.labels.len();
        let features = examples.features.len() / images.max(1);
        let rows = || examples.features.chunks_exact(features.max(1));
        let mut mean = vec![0.0; features];
        for row in rows() {
            mean.iter_mut()
                .zip(row)
                .for_each(|(m, x)| *m += f64::from(*x));
        }
        mean.iter_mut().for_each(|m| *m /= images as f64);
        let mut variance = vec![0.0; features];
        for row in rows() {
            let values = variance.iter_mut().zip(row).zip(&mean);
            values.for_each(|((v, x), m)| *v += (f64::from(*x) - m).powi(2));
        }
        let total = variance.iter().sum::<f64>() / (images * features).max(1) as f64;
        let scale = match total > 0.0 {
            true => 1.0 / total.sqrt(),
            false => 1.0,
        };
        let scaled = rows().flat_map(|row| {
            let values = row.iter().zip(&mean);
            values.map(|(x, m)| ((f64::from(*x) - m) * scale) as f32)
        });
        let scaled: Vec<f32> = scaled.collect();
        Self {
            covariance: covariance(&scaled, features),
            scaled,
            examples,
            features,
            mean,
            scale,
            stop,
        }
    }

    fn classes(&self) -> usize {
        self.examples.weights.len()
    }

    /// The point at which every class is equally probable.
    pub fn zeros(&self) -> Vec<f64> {
        vec![0.0; self.classes() * (self.features + 1)]
    }

    fn row(&self, image: usize) -> &[f32] {
        &self.scaled[image * self.features..][..self.features]
    }

    /// Weighted cross-entropy of an image; leaves the probabilities in `logits`.
    fn cross_entropy(&self, image: usize, point: &[f64], logits: &mut [f64]) -> f64 {
        let row = self.row(image);
        let (weights, biases) = point.split_at(self.classes() * self.features);
        let classes = weights.chunks_exact(self.features).zip(biases);
        for (logit, (weights, bias)) in logits.iter_mut().zip(classes) {
            *logit = dot(row, weights) + bias;
        }
        let label = self.examples.labels[image];
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let own = logits[label] - most;
        logits
            .iter_mut()
            .for_each(|logit| *logit = (*logit - most).exp());
        let sum: f64 = logits.iter().sum();
        logits.iter_mut().for_each(|p| *p /= sum);
        self.examples.weights[label] * (sum.ln() - own)
    }

    /// Sum of the weighted cross-entropies of some images.
    pub fn loss(&self, images: &[usize], point: &[f64]) -> f64 {
        let mut logits = vec![0.0; self.classes()];
        let losses = images.iter();
        losses
            .map(|&image| self.cross_entropy(image, point, &mut logits))
            .sum()
    }

    /// The objective on some images, and its gradient.
    fn objective(&self, images: &[usize], strength: f64, point: &[f64]) -> (f64, Vec<f64>) {
        let weights = self.classes() * self.features;
        let part = |images: &[usize]| {
            let (mut loss, mut gradient) = (0.0, vec![0.0; point.len()]);
            let mut errors = vec![0.0; self.classes()];
            for &image in images {
                loss += self.cross_entropy(image, point, &mut errors);
                let label = self.examples.labels[image];
                errors[label] -= 1.0;
                let weight = self.examples.weights[label];
                let row = self.row(image);
                for (class, error) in errors.iter().enumerate() {
                    let error = weight * error;
                    let own = &mut gradient[class * self.features..][..self.features];
                    own.iter_mut()
                        .zip(row)
                        .for_each(|(g, x)| *g += error * f64::from(*x));
                    gradient[weights + class] += error;
                }
            }
            (loss, gradient)
        };
        let parts: Vec<(f64, Vec<f64>)> = images.par_chunks(PART).map(part).collect();
        let (mut loss, mut gradient) = (0.0, vec![0.0; point.len()]);
        for (part, slope) in parts {
            loss += part;
            gradient.iter_mut().zip(slope).for_each(|(g, s)| *g += s);
        }
        let count = images.len() as f64;
        let mut squares = 0.0;
        for (index, (g, w)) in gradient.iter_mut().zip(point).enumerate() {
            *g /= count;
            if index < weights {
                *g += strength * w;
                squares += w * w;
            }
        }
        (loss / count + 0.5 * strength * squares, gradient)
    }

    /// The objective's minimum for some images, to a tolerance of the gradient.
    pub fn minimum(
        &self,
        images: &[usize],
        strength: f64,
        start: Vec<f64>,
        tolerance: f64,
    ) -> Vec<f64> {
        let objective = |point: &[f64]| self.objective(images, strength, point);
        let stopped = || self.stop.load(Ordering::Relaxed);
        let curvature = Curvature::new(&self.covariance, self.features, self.classes(), strength);
        let inverse = |point: &[f64]| curvature.divide(point);
        minimize(objective, inverse, start, tolerance, stopped)
    }

    /// Weights and biases for the features as they were given.
    pub fn unscaled(&self, point: &[f64]) -> Fitted {
        let (weights, biases) = point.split_at(self.classes() * self.features);
        let mut fitted = Fitted {
            weight: Vec::with_capacity(weights.len()),
            bias: biases.to_vec(),
        };
        for (class, row) in weights.chunks_exact(self.features.max(1)).enumerate() {
            let row: Vec<f64> = row.iter().map(|w| w * self.scale).collect();
            let shift: f64 = row.iter().zip(&self.mean).map(|(w, m)| w * m).sum();
            fitted.bias[class] -= shift;
            fitted.weight.extend(row);
        }
        fitted
    }
}
