//! Projected gradient ascent (Madry et al., ICLR 2018), written once: pretraining, finetuning and evaluation all
//! climb their own closure with it.

use burn::tensor::Tensor;
use rand::rngs::ChaCha8Rng;

use super::Ball;
use crate::pixels::Pixels;

/// How PGD climbs.
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
