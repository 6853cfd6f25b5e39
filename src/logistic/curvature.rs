//! The curvature that the loss of logistic regression has at most, as a beginning for L-BFGS.

use rayon::prelude::*;

use super::dot;

/// Images from which the covariance of the features is estimated, evenly spread over all.
const SAMPLE: usize = 4_096;

/// Covariance of scaled features, `[features, features]`, row by row: the lower triangle.
pub fn covariance(scaled: &[f32], features: usize) -> Vec<f64> {
    let images = scaled.len() / features.max(1);
    let step = images.div_ceil(SAMPLE).max(1);
    let chosen: Vec<usize> = (0..images).step_by(step).collect();
    // Feature by feature.
    let columns = (0..features).flat_map(|feature| {
        let values = chosen.iter();
        values.map(move |image| scaled[image * features + feature])
    });
    let columns: Vec<f32> = columns.collect();
    let wide: Vec<f64> = columns.iter().map(|&value| f64::from(value)).collect();
    let (count, mut all) = (chosen.len().max(1), vec![0.0; features * features]);
    let rows = all.par_chunks_mut(features.max(1)).enumerate();
    rows.for_each(|(row, values)| {
        for (column, value) in values.iter_mut().enumerate().take(row + 1) {
            let a = &columns[row * chosen.len()..][..chosen.len()];
            let b = &wide[column * chosen.len()..][..chosen.len()];
            *value = dot(a, b) / count as f64;
        }
    });
    all
}

/// Cholesky factor of the curvature that the objective has where all classes are equally probable, the same for each of
/// them: (k - 1) / k² of the covariance, plus the penalty (Böhning, Annals of the Institute of Statistical Mathematics
/// 1992, has half the covariance as a bound everywhere).
#[derive(Clone, Debug)]
pub struct Curvature {
    /// Lower triangle, `[features, features]`, row by row.
    factor: Vec<f64>,
    features: usize,
    /// Curvature of a bias.
    bias: f64,
}

impl Curvature {
    pub fn new(covariance: &[f64], features: usize, classes: usize, strength: f64) -> Self {
        let bias = (classes.max(2) - 1) as f64 / (classes.max(2) * classes.max(2)) as f64;
        let mut factor: Vec<f64> = covariance.iter().map(|value| value * bias).collect();
        for row in 0..features {
            // Rounding of the covariance must not make it indefinite.
            factor[row * features + row] += strength + 1e-9;
            for column in 0..=row {
                let (own, other) = (row * features, column * features);
                let sum: f64 = (0..column)
                    .map(|k| factor[own + k] * factor[other + k])
                    .sum();
                let rest = factor[own + column] - sum;
                factor[own + column] = match row == column {
                    true => rest.max(1e-12).sqrt(),
                    false => rest / factor[other + column],
                };
            }
        }
        Self {
            factor,
            features,
            bias,
        }
    }

    /// Weights of all classes, then biases, divided by the curvature.
    pub fn divide(&self, point: &[f64]) -> Vec<f64> {
        let n = self.features;
        let weights = point.len() / (n + 1) * n;
        let mut out = point.to_vec();
        for x in out[..weights].chunks_exact_mut(n.max(1)) {
            for row in 0..n {
                let sum: f64 = (0..row).map(|k| self.factor[row * n + k] * x[k]).sum();
                x[row] = (x[row] - sum) / self.factor[row * n + row];
            }
            for row in (0..n).rev() {
                x[row] /= self.factor[row * n + row];
                for k in 0..row {
                    x[k] -= self.factor[row * n + k] * x[row];
                }
            }
        }
        out[weights..]
            .iter_mut()
            .for_each(|bias| *bias /= self.bias);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_multiplied_is_divided_again() {
        // Four images of two centred features: covariance [[2.5, 2], [2, 2.5]].
        let scaled = [2.0, 1.0, -2.0, -1.0, 1.0, 2.0, -1.0, -2.0];
        let covariance = covariance(&scaled, 2);
        assert_eq!(
            (covariance[0], covariance[2], covariance[3]),
            (2.5, 2.0, 2.5)
        );
        // Two classes: a quarter of it, plus the penalty; a quarter for the biases.
        let curvature = Curvature::new(&covariance, 2, 2, 0.5);
        let times = |x: [f64; 2]| {
            [
                0.625 * x[0] + 0.5 * x[1] + 0.5 * x[0],
                0.5 * x[0] + 0.625 * x[1] + 0.5 * x[1],
            ]
        };
        let ([a, b], [c, d]) = (times([1.0, -3.0]), times([0.0, 2.0]));
        let found = curvature.divide(&[a, b, c, d, 0.25, -0.5]);
        for (found, expected) in found.iter().zip([1.0, -3.0, 0.0, 2.0, 1.0, -2.0]) {
            assert!(
                (found - expected).abs() < 1e-7,
                "{found}, expected {expected}"
            );
        }
    }
}
