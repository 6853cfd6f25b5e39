//! Projected gradient ascent (Madry et al., ICLR 2018), written once: pretraining, finetuning and evaluation all
//! climb their own closure with it.

use burn::tensor::Tensor;
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Ball, Found, Tell, Victim, select};
use crate::error::Result;
use crate::loss::cross_entropy_each;
use crate::pixels::Pixels;

/// How PGD climbs.
///
/// Its objective is any closure from images to a loss, of a model of your own too:
///
/// ```
/// use advcl::attack::{Ball, Norm, Pgd};
/// use advcl::burn::tensor::Tensor;
///
/// let device = advcl::device::open("cpu")?;
/// let images = Tensor::<4>::full([2, 3, 8, 8], 0.5, &device);
/// // The sum over the batch: an image's gradient does not depend on the others.
/// let loss = |x: Tensor<4>| (x - 0.4).square().sum();
/// let ball = Ball { norm: Norm::Linf, radius: 0.1 };
/// let pgd = Pgd { steps: 10, step_size: 0.025 };
/// let attacked = pgd.maximize(loss, &images, ball, &mut advcl::random::generator(0, "example", 0));
/// let farthest = (attacked - images).abs().max().into_scalar::<f32>();
/// assert!((farthest - 0.1).abs() < 1e-6);
/// # Ok::<(), advcl::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pgd {
    /// Gradient steps.
    pub steps: usize,
    /// α, in pixels of [0, 1].
    pub step_size: f64,
}

impl Pgd {
    /// PGD in `ball`; the step size is a quarter of its radius where a recipe leaves it out.
    pub fn new(steps: usize, step_size: Option<&Pixels>, ball: Ball) -> Self {
        Self {
            steps,
            step_size: step_size.map_or(ball.radius / 4.0, Pixels::value),
        }
    }

    /// Climbs `objective` from a random start in `ball`.
    ///
    /// `objective` gets images that require a gradient and returns `[1]`; whatever else it uses should carry no
    /// autodiff, so that no gradient but the images' is computed. The result carries none.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]`, kept.
    pub fn maximize(
        &self,
        objective: impl FnMut(Tensor<4>) -> Tensor<1>,
        images: &Tensor<4>,
        ball: Ball,
        rng: &mut ChaCha8Rng,
    ) -> Tensor<4> {
        self.climb(objective, ball.random_start(images, rng), images, ball)
    }

    /// As [`Pgd::maximize`], from a given start.
    pub fn climb(
        &self,
        mut objective: impl FnMut(Tensor<4>) -> Tensor<1>,
        start: Tensor<4>,
        images: &Tensor<4>,
        ball: Ball,
    ) -> Tensor<4> {
        (0..self.steps).fold(start, |x, _| {
            let gradient = gradient(&mut objective, x.clone());
            ball.project(ball.step(x, gradient, self.step_size), images)
        })
    }
}

/// The gradient of `objective` with respect to its images; zero where it does not depend on them.
pub fn gradient(objective: &mut impl FnMut(Tensor<4>) -> Tensor<1>, x: Tensor<4>) -> Tensor<4> {
    let x = x.inner().autodiff().require_grad();
    let gradients = objective(x.clone()).backward();
    x.grad(&gradients).unwrap_or_else(|| x.inner().zeros_like())
}

/// PGD on the cross-entropy as an attack of a suite: an image is broken where its last iterate is misclassified.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restarted {
    /// Gradient steps.
    pub steps: usize,
    /// α, as a share of the radius.
    pub step: f64,
    /// Random starts, each on the images that the ones before it left.
    pub restarts: usize,
}

impl Default for Restarted {
    fn default() -> Self {
        Self {
            steps: 20,
            step: 0.25,
            restarts: 1,
        }
    }
}

impl Restarted {
    /// Attacks.
    ///
    /// # Errors
    /// What `tell` answers; [`Error::Logits`](crate::Error::Logits).
    pub fn run(&self, victim: &Victim, tell: Tell) -> Result<Found> {
        let (mut found, ball) = (Found::nothing(victim), victim.ball);
        let pgd = Pgd {
            steps: self.steps,
            step_size: ball.radius * self.step,
        };
        for restart in 0..self.restarts {
            tell(restart as f64 / self.restarts as f64)?;
            let rows = found.left();
            if rows.is_empty() {
                break;
            }
            let start = victim.draw(&format!("pgd/{restart}"), &rows, |image, rng| {
                ball.random_start(image, rng)
            });
            let labels = victim.labels_of(&rows);
            let climb = |x| cross_entropy_each((victim.logits)(x), labels.clone()).sum();
            let images = select(victim.images, &rows);
            found.judge(victim, &rows, pgd.climb(climb, start, &images, ball))?;
        }
        Ok(found)
    }
}
