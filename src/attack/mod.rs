//! Attacks: the threat model, and ways to climb a loss inside it. They know tensors and closures, no networks.

pub mod apgd;
pub mod fab;
mod fgsm;
mod host;
pub mod noise;
pub mod pgd;
pub mod square;
mod suite;
mod victim;

use std::fmt;

use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

pub use apgd::Apgd;
pub use fab::Fab;
pub use noise::Noise;
pub use pgd::{Pgd, Restarted};
pub use square::Square;
pub use suite::{Attack, Suite};
pub use victim::{Found, Tell, Victim, select};

/// How a perturbation is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// The largest change of any value.
    Linf,
    /// The Euclidean length of the change of an image.
    L2,
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Linf => "L∞",
            Self::L2 => "L2",
        })
    }
}

/// The threat model: images no further than `radius` from the original, and inside [0, 1].
///
/// ```
/// use advcl::attack::{Ball, Norm};
/// use advcl::burn::tensor::Tensor;
///
/// let device = advcl::device::open("cpu")?;
/// let image = Tensor::<4>::full([1, 1, 2, 2], 0.5, &device);
/// let ball = Ball { norm: Norm::L2, radius: 0.2 };
/// let far = Tensor::ones([1, 1, 2, 2], &device);
/// // A change of 0.5 in each of four pixels has length 1; what is left has length 0.2.
/// let near = ball.project(far, &image);
/// assert!((near.max().into_scalar::<f32>() - 0.6).abs() < 1e-6);
/// # Ok::<(), advcl::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ball {
    /// How distance is measured.
    pub norm: Norm,
    /// ε, in pixels of [0, 1].
    pub radius: f64,
}

/// Each image's Euclidean length, as `[batch, 1, 1, 1]`; never zero, so that it can be divided by.
///
/// Squares are taken of the values over the largest of the image: a gradient of 1e-30 has a length too.
fn length(x: Tensor<4>) -> Tensor<4> {
    let axes = [1, 2, 3];
    let largest = x.clone().max_abs_dims(&axes).clamp_min(f32::MIN_POSITIVE);
    (x / largest.clone())
        .square()
        .sum_dims(&axes)
        .sqrt()
        .clamp_min(1.0)
        * largest
}

/// Standard normal noise of the images' shape, drawn on the host.
pub fn gaussian(images: &Tensor<4>, rng: &mut ChaCha8Rng) -> Tensor<4> {
    let shape = images.dims();
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| rng.sample(StandardNormal)).collect();
    Tensor::from_data(TensorData::new(values, shape), &images.device())
}

/// Noise of the images' shape, uniform in [-1, 1], drawn on the host.
fn uniform(images: &Tensor<4>, rng: &mut ChaCha8Rng) -> Tensor<4> {
    let shape = images.dims();
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| rng.random_range(-1.0..=1.0f32))
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &images.device())
}

impl Ball {
    /// A random point of the ball: uniform in the cube for L∞; for L2 of uniform direction and of uniform length,
    /// which is not uniform in volume: short perturbations are as frequent as long ones.
    ///
    /// Drawn on the host, so that runs agree across devices. Unlike the released code, the start is clamped into
    /// [0, 1] like every other iterate: no model sees anything but images.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]`, kept.
    pub fn random_start(&self, images: &Tensor<4>, rng: &mut ChaCha8Rng) -> Tensor<4> {
        let delta = match self.norm {
            Norm::Linf => uniform(images, rng) * self.radius,
            Norm::L2 => {
                let direction = gaussian(images, rng);
                let count = images.dims()[0];
                let lengths: Vec<f32> = (0..count).map(|_| rng.random::<f32>()).collect();
                let lengths = TensorData::new(lengths, [count, 1, 1, 1]);
                let lengths = Tensor::<4>::from_data(lengths, &images.device());
                direction.clone() / length(direction) * lengths * self.radius
            }
        };
        self.project(images.clone() + delta, images)
    }

    /// A random point on the edge of the ball, clamped into [0, 1]: for L∞ uniform noise, stretched so that its largest value
    /// is ε; for L2 of uniform direction. Where Auto-PGD starts.
    ///
    /// # Shapes
    /// As [`Ball::random_start`].
    pub fn edge(&self, images: &Tensor<4>, rng: &mut ChaCha8Rng) -> Tensor<4> {
        let (noise, length) = match self.norm {
            Norm::Linf => {
                let noise = uniform(images, rng);
                let largest = noise.clone().max_abs_dims(&[1, 2, 3]);
                (noise, largest.clamp_min(f32::MIN_POSITIVE))
            }
            Norm::L2 => {
                let noise = gaussian(images, rng);
                (noise.clone(), length(noise))
            }
        };
        (images.clone() + noise / length * self.radius).clamp(0.0, 1.0)
    }

    /// Where `gradient` rises most steeply: its sign, or its direction. Of length 1 where it is not zero.
    pub fn direction(&self, gradient: Tensor<4>) -> Tensor<4> {
        match self.norm {
            Norm::Linf => gradient.sign(),
            Norm::L2 => gradient.clone() / length(gradient),
        }
    }

    /// The steepest ascent of length `size` (α, in pixels) along `gradient`.
    pub fn step(&self, x: Tensor<4>, gradient: Tensor<4>, size: f64) -> Tensor<4> {
        x + self.direction(gradient) * size
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::to_vec;

    #[test]
    fn a_tiny_gradient_still_has_a_direction() {
        let device = crate::device::open("cpu").expect("the CPU");
        let ball = Ball {
            norm: Norm::L2,
            radius: 1.0,
        };
        let image = Tensor::<4>::zeros([3, 1, 1, 2], &device);
        let values = vec![3e-30, 4e-30, 0.0, 0.0, 3e30f32, 4e30];
        let gradient = Tensor::from_data(TensorData::new(values, [3, 1, 1, 2]), &device);
        let moved = to_vec(ball.step(image, gradient, 0.5));
        for (value, expected) in moved.iter().zip([0.3, 0.4, 0.0, 0.0, 0.3, 0.4]) {
            assert!((value - expected).abs() < 1e-6, "{moved:?}");
        }
    }
}
