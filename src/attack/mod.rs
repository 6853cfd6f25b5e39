//! Attacks: the threat model, and ways to raise a loss inside it. They know tensors and closures, no networks.
//!
//! [`Ball`] is the threat model, and [`Pgd`] maximizes any closure inside it. A [`Suite`] is a list of attacks, such as
//! AutoAttack; [`evaluate`] runs one against any closure from images to logits.

pub mod apgd;
mod cascade;
mod evaluate;
pub mod fab;
mod fgsm;
mod host;
mod kind;
pub mod noise;
mod outcome;
pub mod patch;
pub mod pgd;
mod settings;
pub mod square;
mod suite;
mod victim;

use std::fmt;

use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

pub use apgd::{Apgd, TargetedApgd};
pub(crate) use cascade::{Job, JobResult, run_confirmed, run_suite};
pub use evaluate::{Options, SuiteOutcome, SuiteProgress, evaluate};
pub use fab::Fab;
pub use kind::AttackKind;
pub use noise::Noise;
pub use outcome::{AttackTally, ImageOutcome, PerImage, Tally};
pub use patch::Patch;
pub use pgd::{Attacker, Pgd, RestartedPgd};
pub use square::Square;
pub use suite::{AUTOATTACK, Attack, Suite, suite_name};
pub(crate) use victim::in_stage;
pub use victim::{AttackResult, Progress, Victim, select};

/// Norm that measures a perturbation.
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

impl Norm {
    /// Length of a perturbation; infinite where a value is not a number.
    pub fn length(self, delta: impl IntoIterator<Item = f64>) -> f64 {
        let values = delta.into_iter();
        let length = match self {
            Self::Linf => values.fold(0.0, |far: f64, d| {
                if d.is_nan() {
                    f64::INFINITY
                } else {
                    far.max(d.abs())
                }
            }),
            Self::L2 => values.map(|d| d * d).sum::<f64>().sqrt(),
        };
        if length.is_nan() {
            f64::INFINITY
        } else {
            length
        }
    }

    /// Distance between two images of equal size; infinite where a value is not a number.
    pub fn distance(self, a: &[f32], b: &[f32]) -> f64 {
        let pairs = a.iter().zip(b);
        self.length(pairs.map(|(a, b)| f64::from(*a) - f64::from(*b)))
    }

    /// Largest distance between two images with this many values: a ball of this radius around an image holds every image.
    pub fn farthest(self, values: usize) -> f64 {
        match self {
            Self::Linf => 1.0,
            Self::L2 => (values as f64).sqrt(),
        }
    }
}

/// Whether every value of an image is in [0, 1].
pub fn in_box(image: &[f32]) -> bool {
    image.iter().all(|value| (0.0..=1.0).contains(value))
}

/// Share of the radius by which rounding to f32 may exceed it.
const ROUNDING: f64 = 1e-5;

/// Threat model: images no further than `radius` from the original, and inside [0, 1].
///
/// ```
/// use advcl::attack::{Ball, Norm};
///
/// let ball = Ball { norm: Norm::Linf, radius: 8.0 / 255.0 };
/// assert!(ball.contains(&[0.52, 0.49], &[0.5, 0.5]));
/// assert!(!ball.contains(&[0.6, 0.5], &[0.5, 0.5]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ball {
    /// Norm that measures distances.
    pub norm: Norm,
    /// Radius ε, in pixels of [0, 1].
    pub radius: f64,
}

/// Euclidean length of each image, as `[batch, 1, 1, 1]`; never zero, so that it can be divided by.
///
/// Values are divided by the image's largest before they are squared, so that a gradient of 1e-30 has a length too.
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
    /// Random point of the ball: uniform in the cube for L∞; for L2 of uniform direction and of uniform length,
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

    /// Random point on the edge of the ball, clamped into [0, 1], as Auto-PGD's start: for L∞ uniform noise, scaled so that
    /// its largest value is ε; for L2 of uniform direction.
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

    /// Direction of the steepest ascent along `gradient`: its sign for L∞, the unit vector for L2; zero for no gradient.
    pub fn direction(&self, gradient: Tensor<4>) -> Tensor<4> {
        match self.norm {
            Norm::Linf => gradient.sign(),
            Norm::L2 => gradient.clone() / length(gradient),
        }
    }

    /// Steepest ascent step of length `size` (α, in pixels) along `gradient`.
    pub fn step(&self, x: Tensor<4>, gradient: Tensor<4>, size: f64) -> Tensor<4> {
        x + self.direction(gradient) * size
    }

    /// Largest change of every value alike that stays within the radius, for images of so many values.
    pub fn even_change(&self, values: usize) -> f64 {
        match self.norm {
            Norm::Linf => self.radius,
            Norm::L2 => self.radius / (values.max(1) as f64).sqrt(),
        }
    }

    /// Whether a distance is at most the radius, up to rounding to f32.
    pub fn reaches(&self, distance: f64) -> bool {
        distance <= self.radius * (1.0 + ROUNDING) + f64::from(f32::EPSILON)
    }

    /// Whether an attack may turn `original` into `image`: no further than the radius, and every value in [0, 1].
    pub fn contains(&self, image: &[f32], original: &[f32]) -> bool {
        in_box(image) && self.reaches(self.norm.distance(image, original))
    }

    /// Nearest point of the ball around `images`, clamped into [0, 1].
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
