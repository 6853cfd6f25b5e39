//! Weak augmentation of supervised training: random crop with zero padding, flip.

use std::ops::Range;

use rand::{RngExt, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

use super::draw::{chance, check_probability, require, views};
use super::geometry::{Window, hflip, pad_crop_into};
use crate::data::images::Images;
use crate::tensor::Batch;

/// Settings of weak views: random crop with zero padding, then flip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Weak {
    /// Width of the zero padding on each side, in pixels.
    pub padding: usize,
    /// Probability of a horizontal flip.
    pub flip: f32,
}

impl Default for Weak {
    fn default() -> Self {
        Self {
            padding: 4,
            flip: 0.5,
        }
    }
}

impl Weak {
    /// Makes one weak view of each image at `indices`. Shapes, order of draws and panics are those
    /// of [`Strong::apply`](super::Strong::apply).
    pub fn apply(&self, images: &Images, indices: &[usize], rng: &mut ChaCha8Rng) -> Batch {
        self.apply_at(0..indices.len(), images, indices, rng)
    }

    /// Makes the views at the places `own` of the batch alone, the same ones as [`Weak::apply`] by the same random numbers; the
    /// other rows are zeros.
    pub fn apply_at(
        &self,
        own: Range<usize>,
        images: &Images,
        indices: &[usize],
        rng: &mut ChaCha8Rng,
    ) -> Batch {
        let shape = images.shape();
        let parameters: Vec<_> = (indices.iter())
            .map(|_| {
                let top = rng.random_range(0..=2 * self.padding);
                let left = rng.random_range(0..=2 * self.padding);
                (top, left, chance(rng, self.flip))
            })
            .collect();
        views(
            own,
            images,
            indices,
            &parameters,
            |drawn, image, view, _| {
                let &(top, left, flip) = drawn;
                let window = Window {
                    top,
                    left,
                    height: images.height,
                    width: images.width,
                };
                pad_crop_into(image, shape, self.padding, window, view);
                if flip {
                    hflip(view, images.width);
                }
            },
        )
    }

    /// Refuses invalid settings in one sentence: the key, what is expected, what was found.
    pub fn check(&self) -> Result<(), String> {
        // More than any image needs, and far from overflow.
        let valid = self.padding <= 1024;
        require(valid, "padding", "at most 1024 pixels", self.padding)?;
        check_probability("flip", self.flip)
    }
}
