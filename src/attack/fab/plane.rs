//! FAB's view of the decision boundaries: hyperplanes, from logits and their gradients.

use burn::tensor::{Tensor, TensorData};

use super::{Walk, length};
use crate::attack::host::{batch, finite};
use crate::attack::{Norm, Victim, pgd};
use crate::error::Result;
use crate::tensor::to_vec;

/// Linear approximation of a decision boundary at a walk's current point.
pub(super) struct BoundaryPlane {
    /// Difference of two logits.
    pub gap: f64,
    /// Gradient of the difference.
    pub slope: Vec<f32>,
}

/// Boundary between each image's label and the class that `rival` names for it.
pub(super) fn planes(
    walking: &[Walk],
    victim: &Victim,
    rival: impl Fn(&Walk) -> Option<usize>,
) -> Result<Vec<Option<BoundaryPlane>>> {
    let places: Vec<usize> = walking.iter().map(|walk| walk.place).collect();
    let rivals: Vec<Option<usize>> = walking.iter().map(rival).collect();
    let mut computed = None;
    let mut difference = |x: Tensor<4>| {
        let logits = (victim.logits)(x);
        computed = Some(logits.clone().inner());
        let shape = logits.dims();
        let mut weights = vec![0.0f32; shape[0] * shape[1]];
        for (row, (&place, rival)) in places.iter().zip(&rivals).enumerate() {
            if let Some(rival) = rival {
                weights[row * shape[1] + rival] = 1.0;
                weights[row * shape[1] + victim.labels[place]] = -1.0;
            }
        }
        // An image's gradient does not depend on the others of the batch: the sum, not the mean.
        let weights = TensorData::new(weights, shape);
        (logits * Tensor::from_data(weights, &victim.images.device())).sum()
    };
    let images = batch(walking.iter().map(|walk| &walk.x[..]), victim);
    let slopes = to_vec(pgd::gradient(&mut difference, images));
    let logits = computed.expect("the gradient is that of computed logits");
    let logits = finite("fab", victim, &places, logits)?;
    let size = slopes.len() / walking.len();
    let slopes = slopes.chunks(size);
    let each = logits.rows().zip(slopes).zip(places.iter().zip(&rivals));
    let plane = each.map(|((row, slope), (&place, rival))| {
        rival.map(|rival| BoundaryPlane {
            gap: f64::from(row[rival]) - f64::from(row[victim.labels[place]]),
            slope: slope.to_vec(),
        })
    });
    Ok(plane.collect())
}

/// Boundary of each image that looks nearest, among those between its label and any other class.
pub(super) fn nearest_planes(
    walking: &[Walk],
    classes: usize,
    victim: &Victim,
) -> Result<Vec<BoundaryPlane>> {
    let norm = victim.ball.norm;
    let mut nearest: Vec<Option<(f64, BoundaryPlane)>> = walking.iter().map(|_| None).collect();
    for class in 0..classes {
        let other = |walk: &Walk| (class != victim.labels[walk.place]).then_some(class);
        for (best, plane) in nearest.iter_mut().zip(planes(walking, victim, other)?) {
            let Some(plane) = plane else { continue };
            let steepness = match norm {
                Norm::Linf => plane.slope.iter().map(|w| f64::from(w.abs())).sum(),
                Norm::L2 => length(norm, &plane.slope),
            };
            let distance = plane.gap.abs() / (1e-12 + steepness);
            if best.as_ref().is_none_or(|(least, _)| distance < *least) {
                *best = Some((distance, plane));
            }
        }
    }
    let nearest = nearest.into_iter().flatten();
    Ok(nearest.map(|(_, plane)| plane).collect())
}
