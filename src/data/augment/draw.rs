//! Functions that both augmentations share: random draws, checks of settings, parallel batches.

use std::fmt::Debug;
use std::ops::Range;

use rand::{Rng, RngExt};
use rayon::prelude::*;

use super::geometry::Resizer;
use crate::data::images::{Images, unit};
use crate::tensor::Batch;

/// Refuses a number that is not a probability.
pub(super) fn check_probability(key: &str, value: f32) -> Result<(), String> {
    let valid = (0.0..=1.0).contains(&value);
    require(valid, key, "a probability from 0 to 1", value)
}

/// Refuses an invalid value in one sentence: the key, what is expected, what was found.
pub(super) fn require(
    valid: bool,
    key: &str,
    expected: &str,
    found: impl Debug,
) -> Result<(), String> {
    if valid {
        return Ok(());
    }
    Err(format!("{key}: expected {expected}, found {found:?}"))
}

/// Draws `true` with the given probability.
pub(super) fn chance(rng: &mut impl Rng, probability: f32) -> bool {
    rng.random::<f32>() < probability
}

/// Draws a number from [low, high).
pub(super) fn uniform(rng: &mut impl Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.random::<f32>()
}

/// Fills a batch in parallel: calls `make(parameters, image as f32, view, resizer)` for each index at the places `own`; the
/// other rows are zeros.
pub(super) fn views<P: Sync>(
    own: Range<usize>,
    images: &Images,
    indices: &[usize],
    parameters: &[P],
    make: impl Fn(&P, &[f32], &mut [f32], &mut Resizer) + Sync,
) -> Batch {
    let len = images.image_len();
    let mut data = vec![0.0; indices.len() * len];
    data[own.start * len..own.end * len]
        .par_chunks_exact_mut(len.max(1))
        .zip(indices[own.clone()].par_iter().zip(&parameters[own]))
        .with_min_len(16)
        .for_each_init(
            || (Vec::with_capacity(len), Resizer::default()),
            |(image, resizer), (view, (&index, drawn))| {
                image.clear();
                image.extend(images.image(index).iter().copied().map(unit));
                make(drawn, image, view, resizer);
            },
        );
    Batch {
        data,
        shape: [indices.len(), images.channels, images.height, images.width],
    }
}
