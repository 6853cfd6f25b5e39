//! A search without gradients: what it finds and PGD does not is the sign of masked gradients.

use burn::tensor::{Tensor, TensorData};
use rand::RngExt;

use super::climb::{Climber, Sample, rows};
use crate::attack::Norm;
use crate::error::Result;
use crate::nn::weights::to_vec;
use crate::random;

/// Of each image.
pub(super) const QUERIES: usize = 100;

/// How many of the images fall to a random search: a square of one colour at a time, kept where the margin falls (in the
/// manner of Square, Andriushchenko et al., ECCV 2020; for a check a hundred queries do).
pub(super) fn broken(
    climber: &Climber,
    sample: &Sample,
    tell: &mut dyn FnMut() -> Result<()>,
) -> Result<usize> {
    let ball = climber.ball;
    let [_, channels, height, width] = sample.images.dims();
    let mut rng = random::generator(climber.seed, "soundness/search", 0);
    let mut left = sample.clone();
    let mut best = left.images.clone();
    let mut least = vec![f32::INFINITY; left.len()];
    for query in 0..QUERIES {
        let count = left.len();
        let mut values = vec![0.0f32; count * channels * height * width];
        // The first is a pattern of stripes, as wide as a pixel; then squares that become smaller.
        let share = 0.6 * (1.0 - query as f64 / QUERIES as f64) + 0.1;
        let sides = match query {
            0 => (height, 1),
            _ => [height, width]
                .map(|side| ((side as f64 * share) as usize).max(1))
                .into(),
        };
        let length = match ball.norm {
            Norm::Linf => 2.0 * ball.radius,
            Norm::L2 => ball.radius / ((channels * sides.0 * sides.1) as f64).sqrt(),
        };
        for image in values.chunks_mut(channels * height * width) {
            let corners: Vec<(usize, usize)> = match query {
                0 => (0..width).map(|x| (0, x)).collect(),
                _ => vec![(
                    rng.random_range(0..=height - sides.0),
                    rng.random_range(0..=width - sides.1),
                )],
            };
            for (top, first) in corners {
                for plane in image.chunks_mut(height * width) {
                    let value = length as f32 * [-1.0, 1.0][rng.random_range(0..2)];
                    for line in plane.chunks_mut(width).skip(top).take(sides.0) {
                        line[first..first + sides.1].fill(value);
                    }
                }
            }
        }
        let shape = left.images.dims();
        let patch = Tensor::from_data(TensorData::new(values, shape), &best.device());
        let tried = ball.project(best.clone() + patch, &left.images);
        let logits = climber.logits_of(&tried);
        let found = margins(&logits, &left.labels);
        // Row i of the new best is row i of one or the other.
        let mut from: Vec<usize> = Vec::new();
        let mut kept: Vec<usize> = Vec::new();
        for i in 0..count {
            if found[i] < 0.0 {
                continue;
            }
            let better = found[i] < least[i];
            least[i] = least[i].min(found[i]);
            from.push(if better { count + i } else { i });
            kept.push(i);
        }
        if kept.is_empty() {
            return Ok(sample.len());
        }
        best = rows(&Tensor::cat(vec![best, tried], 0), &from);
        if kept.len() < count {
            least = kept.iter().map(|&i| least[i]).collect();
            left = left.select(&kept);
        }
        tell()?;
    }
    Ok(sample.len() - left.len())
}

/// How far each image's class is ahead of its rival. Unlike the cross-entropy it tells where the softmax is saturated.
fn margins(logits: &Tensor<2>, labels: &[usize]) -> Vec<f32> {
    let classes = logits.dims()[1];
    let margin = |(row, &label): (&[f32], &usize)| {
        let others = row.iter().enumerate().filter(|(class, _)| *class != label);
        row[label] - others.fold(f32::NEG_INFINITY, |most, (_, v)| most.max(*v))
    };
    let rows = to_vec(logits.clone());
    rows.chunks(classes).zip(labels).map(margin).collect()
}
