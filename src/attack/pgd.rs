//! Projected gradient ascent (Madry et al., ICLR 2018), written once: pretraining and finetuning maximize their own
//! closures with it, evaluation the cross-entropy.

use burn::tensor::Tensor;
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::settings::{at_least_one, positive};
use super::{AttackResult, Ball, Progress, Victim, select};
use crate::error::Result;
use crate::loss::cross_entropy_each;
use crate::pixels::Pixels;
pub use crate::tensor::gradient;

/// Number and size of PGD's steps.
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
    /// Step size α, in pixels of [0, 1].
    pub step_size: f64,
}

/// PGD within a threat model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attacker {
    /// The threat model.
    pub ball: Ball,
    /// The attack's steps.
    pub pgd: Pgd,
}

impl Pgd {
    /// PGD in `ball`; without a step size it is a quarter of the radius.
    pub fn new(steps: usize, step_size: Option<&Pixels>, ball: Ball) -> Self {
        Self {
            steps,
            step_size: step_size.map_or(ball.radius / 4.0, Pixels::value),
        }
    }

    /// Maximizes `objective` from a random start in `ball`.
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

    /// Maximizes `objective` from a given start; otherwise as [`Pgd::maximize`].
    pub fn climb(
        &self,
        mut objective: impl FnMut(Tensor<4>) -> Tensor<1>,
        start: Tensor<4>,
        images: &Tensor<4>,
        ball: Ball,
    ) -> Tensor<4> {
        self.ascend(|x| gradient(&mut objective, x), start, images, ball)
    }

    /// Goes up a gradient that is computed elsewhere, in parts maybe, from a given start; otherwise as [`Pgd::climb`].
    pub fn ascend(
        &self,
        mut gradient: impl FnMut(Tensor<4>) -> Tensor<4>,
        start: Tensor<4>,
        images: &Tensor<4>,
        ball: Ball,
    ) -> Tensor<4> {
        (0..self.steps).fold(start, |x, _| {
            let gradient = gradient(x.clone());
            ball.project(ball.step(x, gradient, self.step_size), images)
        })
    }

    /// Attacks a classifier by its cross-entropy: an image is broken where its last iterate is misclassified. Each random
    /// start is tried on the images that the ones before it left.
    ///
    /// # Errors
    /// An error of `progress`; [`Error::Logits`](crate::Error::Logits).
    pub fn attack(
        &self,
        victim: &Victim,
        restarts: usize,
        progress: Progress,
    ) -> Result<AttackResult> {
        let mut result = AttackResult::unbroken(victim);
        for restart in 0..restarts {
            progress(restart as f64 / restarts as f64)?;
            let rows = result.remaining();
            if rows.is_empty() {
                break;
            }
            let start = victim.random_start(&rows, restart);
            let last = victim.maximize_cross_entropy(*self, &rows, start);
            result.query(victim, &rows, last)?;
        }
        Ok(result)
    }
}

impl Attacker {
    /// PGD in `ball`; without a step size it is a quarter of the radius.
    pub fn new(ball: Ball, steps: usize, step_size: Option<&Pixels>) -> Self {
        Self {
            ball,
            pgd: Pgd::new(steps, step_size, ball),
        }
    }
}

/// PGD on a classifier's cross-entropy, by one rule for random numbers: they come from the seed, the number of the restart
/// and the image's index, so that no result depends on the batch, the order or the purpose of the attack.
impl Victim<'_> {
    /// Random starts of PGD for the images at `rows`.
    pub fn random_start(&self, rows: &[usize], restart: usize) -> Tensor<4> {
        self.random(&format!("pgd/{restart}"), rows, |image, rng| {
            self.ball.random_start(image, rng)
        })
    }

    /// Iterates of the images at `rows` after `pgd` on the cross-entropy from `start`.
    pub fn maximize_cross_entropy(&self, pgd: Pgd, rows: &[usize], start: Tensor<4>) -> Tensor<4> {
        let labels = self.labels_of(rows);
        // The sum, not the mean: an image's gradient does not depend on the others in the batch.
        let loss = |x| cross_entropy_each((self.logits)(x), labels.clone()).sum();
        pgd.climb(loss, start, &select(self.images, rows), self.ball)
    }

    /// Last iterates of `pgd` on the cross-entropy from the first random start, for all images: those that are misclassified
    /// when clean too.
    pub fn last_iterates(&self, pgd: Pgd) -> Tensor<4> {
        let rows: Vec<usize> = (0..self.labels.len()).collect();
        self.maximize_cross_entropy(pgd, &rows, self.random_start(&rows, 0))
    }
}

/// Settings of PGD as an attack of a suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestartedPgd {
    /// Gradient steps.
    pub steps: usize,
    /// Step size α, as a share of the radius.
    pub step: f64,
    /// Random starts, each for the images that the ones before it left.
    pub restarts: usize,
}

impl Default for RestartedPgd {
    fn default() -> Self {
        Self {
            steps: 20,
            step: 0.25,
            restarts: 1,
        }
    }
}

impl RestartedPgd {
    /// Refuses settings that cannot be carried out: "steps: expected 1 or more, found 0".
    pub(super) fn check(&self) -> Result<(), String> {
        at_least_one("steps", self.steps)?;
        positive("step", self.step)?;
        at_least_one("restarts", self.restarts)
    }

    /// Attacks the images of `victim`.
    ///
    /// # Errors
    /// An error of `progress`; [`Error::Logits`](crate::Error::Logits).
    pub fn run(&self, victim: &Victim, progress: Progress) -> Result<AttackResult> {
        let pgd = Pgd {
            steps: self.steps,
            step_size: victim.ball.radius * self.step,
        };
        pgd.attack(victim, self.restarts, progress)
    }
}
