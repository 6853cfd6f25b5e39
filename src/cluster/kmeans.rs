//! k-means: k-means++ starts and Lloyd's iterations.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::ranks;
use crate::tensor::to_vec;

/// Points whose distances are computed together. A point's do not depend on it, as far as a row of a product of matrices
/// depends on its factors alone.
const BLOCK: usize = 1 << 12;

/// Effort of a clustering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KMeans {
    /// Number of starts, of which the best is kept.
    pub restarts: usize,
    /// Largest number of Lloyd's iterations from each start.
    pub iterations: usize,
}

/// Result of a clustering.
#[derive(Clone, Debug, PartialEq)]
pub struct Clustering {
    /// Centres, `[clusters, dimensions]`, row-major.
    pub centres: Vec<f32>,
    /// Index of each point's nearest centre.
    pub labels: Vec<usize>,
    /// Sum of the points' squared distances to their nearest centres.
    pub inertia: f64,
}

/// Points to cluster: on the device for distances, on the host for means.
pub struct Points {
    tensor: Tensor<2>,
    host: Vec<f32>,
    dimensions: usize,
    squares: Vec<f32>,
}

impl Points {
    /// Points from a tensor, `[points, dimensions]`.
    pub fn new(tensor: Tensor<2>) -> Self {
        let dimensions = tensor.dims()[1];
        let host = to_vec(tensor.clone());
        let squares = host.chunks(dimensions).map(square).collect();
        Self {
            tensor,
            host,
            dimensions,
            squares,
        }
    }

    fn len(&self) -> usize {
        self.squares.len()
    }

    fn point(&self, index: usize) -> &[f32] {
        &self.host[index * self.dimensions..(index + 1) * self.dimensions]
    }

    /// Runs Lloyd's iterations from given centres (`[clusters, dimensions]`, row-major) until no
    /// label changes, at most `iterations` times; an empty cluster keeps its centre.
    pub fn lloyd(&self, centres: Vec<f32>, iterations: usize) -> Clustering {
        self.lloyd_unless(&AtomicBool::new(false), centres, iterations)
            .expect("the flag is never set")
    }

    /// Runs [`Points::lloyd`]; returns nothing if `stop` is set meanwhile.
    fn lloyd_unless(
        &self,
        stop: &AtomicBool,
        mut centres: Vec<f32>,
        iterations: usize,
    ) -> Option<Clustering> {
        let (mut labels, mut inertia) = self.assign(&centres);
        for _ in 0..iterations {
            if ranks::any("clustering", stop.load(Ordering::Relaxed)) {
                return None;
            }
            self.move_to_means(&mut centres, &labels);
            let (next, next_inertia) = self.assign(&centres);
            let settled = next == labels;
            (labels, inertia) = (next, next_inertia);
            if settled {
                break;
            }
        }
        Some(Clustering {
            centres,
            labels,
            inertia,
        })
    }

    /// Clusters by Lloyd's iterations from k-means++ centres (Arthur and Vassilvitskii, 2007), and
    /// returns the best result of all starts; nothing if `stop` is set meanwhile.
    pub fn cluster(
        &self,
        count: usize,
        effort: KMeans,
        rng: &mut ChaCha8Rng,
        stop: &AtomicBool,
    ) -> Option<Clustering> {
        let mut best: Option<Clustering> = None;
        for _ in 0..effort.restarts {
            let start = self.plus_plus(count, rng);
            let found = self.lloyd_unless(stop, start, effort.iterations)?;
            if best
                .as_ref()
                .is_none_or(|best| found.inertia < best.inertia)
            {
                best = Some(found);
            }
        }
        best
    }

    /// Draws centres one by one, each point with a probability proportional to its squared distance
    /// from the centres before it.
    fn plus_plus(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let mut centres = Vec::with_capacity(count * self.dimensions);
        let mut nearest = vec![f32::INFINITY; self.len()];
        let mut chosen = rng.random_range(0..self.len());
        for _ in 0..count {
            let centre = self.point(chosen);
            centres.extend_from_slice(centre);
            for (index, nearest) in nearest.iter_mut().enumerate() {
                *nearest = nearest.min(distance(self.point(index), centre));
            }
            let total: f64 = nearest.iter().map(|&d| f64::from(d)).sum();
            let mut left = rng.random::<f64>() * total;
            let drawn = nearest.iter().position(|&d| {
                left -= f64::from(d);
                left < 0.0
            });
            // All points coincide with a centre, or rounding errors exceed the total: any point
            // will do.
            chosen = drawn.unwrap_or_else(|| rng.random_range(0..self.len()));
        }
        centres
    }

    /// Assigns each point to its nearest centre; returns the labels and the sum of squared
    /// distances.
    fn assign(&self, centres: &[f32]) -> (Vec<usize>, f64) {
        let count = centres.len() / self.dimensions;
        let data = TensorData::new(centres.to_vec(), [count, self.dimensions]);
        let centre_tensor = Tensor::<2>::from_data(data, &self.tensor.device()).transpose();
        let squares: Vec<f32> = centres.chunks(self.dimensions).map(square).collect();
        // By blocks of points, of which each rank has its part.
        let own = ranks::own_batches(self.len(), BLOCK);
        let (mut labels, mut distances) = (Vec::new(), Vec::new());
        for start in own.clone().step_by(BLOCK) {
            let rows = BLOCK.min(own.end - start);
            let block = self.tensor.clone().narrow(0, start, rows);
            let products = to_vec(block.matmul(centre_tensor.clone()));
            for (row, own) in products.chunks(count).zip(&self.squares[start..]) {
                // |x - c|² = |x|² - 2 x·c + |c|²; the first term is the same for all centres.
                let score = |k: &usize| squares[*k] - 2.0 * row[*k];
                let best = (0..count).min_by(|a, b| score(a).total_cmp(&score(b)));
                let best = best.expect("at least one centre");
                labels.push(best);
                distances.push((own + score(&best)).max(0.0));
            }
        }
        let distances = ranks::gather("distances", &distances);
        let labels = ranks::gather_each("labels", labels).concat();
        (labels, distances.into_iter().map(f64::from).sum())
    }

    /// Moves each centre to the mean of its points.
    fn move_to_means(&self, centres: &mut [f32], labels: &[usize]) {
        let mut sums = vec![0.0f64; centres.len()];
        let mut sizes = vec![0usize; centres.len() / self.dimensions];
        for (index, &label) in labels.iter().enumerate() {
            sizes[label] += 1;
            let sum = &mut sums[label * self.dimensions..][..self.dimensions];
            for (sum, value) in sum.iter_mut().zip(self.point(index)) {
                *sum += f64::from(*value);
            }
        }
        let rows = centres
            .chunks_mut(self.dimensions)
            .zip(sums.chunks(self.dimensions));
        for ((centre, sum), size) in rows.zip(sizes) {
            if size > 0 {
                for (centre, sum) in centre.iter_mut().zip(sum) {
                    *centre = (sum / size as f64) as f32;
                }
            }
        }
    }
}

fn square(point: &[f32]) -> f32 {
    point.iter().map(|value| value * value).sum()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_found_unless_asked_to_stop() {
        let device = crate::device::open("cpu").expect("the CPU");
        let values: Vec<f32> = (0..40)
            .map(|i| (i % 2 * 10) as f32 + i as f32 / 100.0)
            .collect();
        let points = Points::new(Tensor::from_data(TensorData::new(values, [40, 1]), &device));
        let effort = KMeans {
            restarts: 2,
            iterations: 10,
        };
        let cluster = |stop: bool| {
            let mut rng = crate::random::generator(0, "test", 0);
            points.cluster(2, effort, &mut rng, &AtomicBool::new(stop))
        };
        let labels = cluster(false).expect("the flag is not set").labels;
        assert!(
            (0..40).all(|i| (labels[i] == labels[0]) == (i % 2 == 0)),
            "{labels:?}"
        );
        assert_eq!(cluster(true), None);
    }
}
