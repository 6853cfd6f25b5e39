//! The weak augmentation of supervised training: random crop with zero padding, flip.

use rand::{RngExt, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

use super::draw::{chance, check_probability, require, views};
use super::geometry::{Window, hflip, pad_crop_into};
use crate::data::{Batch, Images};

/// A weak view: random crop with zero padding, then flip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Weak {
    /// Pixels of zeros on each side before the crop.
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
    /// One weak view of each image named by `indices`; shapes, order of draws and panics as in
    /// [`Strong::apply`](super::Strong::apply).
    pub fn apply(&self, images: &Images, indices: &[usize], rng: &mut ChaCha8Rng) -> Batch {
        let shape = [images.channels, images.height, images.width];
        let parameters: Vec<_> = (indices.iter())
            .map(|_| {
                let top = rng.random_range(0..=2 * self.padding);
                let left = rng.random_range(0..=2 * self.padding);
                (top, left, chance(rng, self.flip))
            })
            .collect();
        views(images, indices, &parameters, |drawn, image, view, _| {
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
        })
    }

    /// Refuses values that cannot be meant, in one sentence: the key, what is expected, what was
    /// found.
    pub fn check(&self) -> Result<(), String> {
        // More than any image asks for, and far from overflow.
        let valid = self.padding <= 1024;
        require(valid, "padding", "at most 1024 pixels", self.padding)?;
        check_probability("flip", self.flip)
    }
}
