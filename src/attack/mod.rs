//! Attacks: the threat model, and ways to climb a loss inside it. They know tensors and closures, no networks.

pub mod pgd;

use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

pub use pgd::Pgd;

/// How a perturbation is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// The largest change of any value.
    Linf,
    /// The Euclidean length of the change of an image.
    L2,
}

/// The threat model: images no further than `radius` from the original, and inside [0, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ball {
    /// How distance is measured.
    pub norm: Norm,
    /// ε, in pixels of [0, 1].
    pub radius: f64,
}

/// Each image's Euclidean length, at least 1e-12, as `[batch, 1, 1, 1]`.
fn length(x: Tensor<4>) -> Tensor<4> {
    x.square().sum_dims(&[1, 2, 3]).sqrt().clamp_min(1e-12)
}

impl Ball {
    /// A random point of the ball: uniform in the cube for L∞; for L2 a uniform direction and length.
    ///
    /// Drawn on the host, so that runs agree across devices. Unlike the released code, the start is clamped into
    /// [0, 1] like every other iterate: no model sees anything but images.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]`, kept.
    pub fn random_start(&self, images: &Tensor<4>, rng: &mut ChaCha8Rng) -> Tensor<4> {
        let shape = images.dims();
        let count = shape.iter().product();
        let noise = |shape: [usize; 4], values: Vec<f32>| {
            Tensor::<4>::from_data(TensorData::new(values, shape), &images.device())
        };
        let delta = match self.norm {
            Norm::Linf => {
                let values = (0..count)
                    .map(|_| rng.random_range(-1.0..=1.0f32))
                    .collect();
                noise(shape, values) * self.radius
            }
            Norm::L2 => {
                let values = (0..count).map(|_| rng.sample(StandardNormal)).collect();
                let direction = noise(shape, values);
                let lengths = (0..shape[0]).map(|_| rng.random::<f32>()).collect();
                let lengths = noise([shape[0], 1, 1, 1], lengths);
                direction.clone() / length(direction) * lengths * self.radius
            }
        };
        self.project(images.clone() + delta, images)
    }

    /// The steepest ascent of length `size` (α, in pixels) along `gradient`: its sign, or its direction.
    pub fn step(&self, x: Tensor<4>, gradient: Tensor<4>, size: f64) -> Tensor<4> {
        match self.norm {
            Norm::Linf => x + gradient.sign() * size,
            Norm::L2 => {
                let length = length(gradient.clone());
                x + gradient / length * size
            }
        }
    }

    /// The nearest point of the ball around `images`, clamped into [0, 1].
    pub fn project(&self, x: Tensor<4>, images: &Tensor<4>) -> Tensor<4> {
        match self.norm {
            Norm::Linf => {
                let upper = images.clone() + self.radius;
                let lower = images.clone() - self.radius;
                x.max_pair(lower).min_pair(upper).clamp(0.0, 1.0)
            }
            Norm::L2 => {
                let delta = x - images.clone();
                let shrink = length(delta.clone())
                    .recip()
                    .mul_scalar(self.radius)
                    .clamp_max(1.0);
                (images.clone() + delta * shrink).clamp(0.0, 1.0)
            }
        }
    }
}
