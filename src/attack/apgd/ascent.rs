//! The state of Auto-PGD: images with their step sizes and best points.

use burn::tensor::{Tensor, TensorData};

use crate::attack::{Ball, select};

/// Share of a step that is new (α in the paper's equations 2 and 3); the rest repeats the step before.
const MOMENTUM: f64 = 0.75;

/// Iterations, counted from 1, after which step sizes are reviewed.
///
/// The paper's p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06), p_1 = 0.22, in whole iterations as its released code
/// rounds them.
pub fn checkpoints(iterations: usize) -> Vec<usize> {
    let share = |share: f64| ((share * iterations as f64) as usize).max(1);
    let (mut wait, least, less) = (share(0.22), share(0.06), share(0.03));
    let (mut all, mut next) = (Vec::new(), wait);
    while next <= iterations {
        all.push(next);
        wait = wait.saturating_sub(less).max(least);
        next += wait;
    }
    all
}

/// Step size and losses of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageState {
    /// Step size η, in pixels.
    pub step: f32,
    /// Highest loss so far.
    pub best: f32,
    /// Highest loss up to the last checkpoint.
    best_then: f32,
    /// Whether the step was halved at the last checkpoint. It counts as halved at the start.
    halved: bool,
    /// Loss before the last step.
    last: f32,
    /// Steps since the last checkpoint that raised the loss.
    rises: usize,
}

/// Auto-PGD's ascent of a batch of images.
///
/// Every image moves as if it were alone: rows can be dropped at any time ([`Ascent::keep`]).
pub struct Ascent {
    ball: Ball,
    rho: f64,
    checkpoints: Vec<usize>,
    iteration: usize,
    originals: Tensor<4>,
    /// Current iterates.
    x: Tensor<4>,
    /// Iterates before the last step.
    before: Tensor<4>,
    /// Gradient at `x`.
    gradient: Tensor<4>,
    best: Tensor<4>,
    best_gradient: Tensor<4>,
    states: Vec<ImageState>,
}

impl Ascent {
    /// Begins at `start`, where the loss has this gradient and, image by image, these values. The first step is 2ε long.
    ///
    /// # Shapes
    /// `originals`, `start` and `gradient`: `[images, channels, height, width]`.
    pub fn new(
        (ball, rho, iterations): (Ball, f64, usize),
        originals: Tensor<4>,
        start: Tensor<4>,
        gradient: Tensor<4>,
        losses: &[f32],
    ) -> Self {
        let states = losses.iter().map(|&loss| ImageState {
            step: (2.0 * ball.radius) as f32,
            best: loss,
            best_then: loss,
            halved: true,
            // As in the released code, which compares the first step's loss with 0, not with the start's. It matters at
            // the first checkpoint alone.
            last: 0.0,
            rises: 0,
        });
        Self {
            ball,
            rho,
            checkpoints: checkpoints(iterations),
            iteration: 0,
            originals,
            before: start.clone(),
            best: start.clone(),
            x: start,
            best_gradient: gradient.clone(),
            gradient,
            states: states.collect(),
        }
    }

    /// Moves all images by a step and returns the new iterates; [`Ascent::see`] takes the loss there.
    pub fn step(&mut self) -> Tensor<4> {
        let sizes: Vec<f32> = self.states.iter().map(|image| image.step).collect();
        let shape = [sizes.len(), 1, 1, 1];
        let sizes = Tensor::<4>::from_data(TensorData::new(sizes, shape), &self.x.device());
        let ahead = self.x.clone() + self.ball.direction(self.gradient.clone()) * sizes;
        let ahead = self.ball.project(ahead, &self.originals);
        let next = if self.iteration == 0 {
            ahead
        } else {
            let (new, old) = (ahead - self.x.clone(), self.x.clone() - self.before.clone());
            let moved = self.x.clone() + new * MOMENTUM + old * (1.0 - MOMENTUM);
            self.ball.project(moved, &self.originals)
        };
        self.before = std::mem::replace(&mut self.x, next.clone());
        next
    }

    /// Takes gradient and losses at the current iterates. At a checkpoint, step sizes that did not help are halved, and their
    /// images go back to their best point.
    ///
    /// # Shapes
    /// `gradient` as the images; one loss for each.
    pub fn see(&mut self, gradient: Tensor<4>, losses: &[f32]) {
        self.gradient = gradient;
        self.iteration += 1;
        let mut higher = vec![false; losses.len()];
        for (row, (image, &loss)) in self.states.iter_mut().zip(losses).enumerate() {
            image.rises += usize::from(loss > image.last);
            image.last = loss;
            if loss > image.best {
                image.best = loss;
                higher[row] = true;
            }
        }
        self.best = choose(&higher, &self.x, &self.best);
        self.best_gradient = choose(&higher, &self.gradient, &self.best_gradient);

        let Ok(place) = self.checkpoints.binary_search(&self.iteration) else {
            return;
        };
        let since = self.iteration - place.checked_sub(1).map_or(0, |p| self.checkpoints[p]);
        for (row, image) in self.states.iter_mut().enumerate() {
            // The paper's two conditions: too few steps rose; or nothing was gained since the last checkpoint, and the step
            // was not halved there.
            let few = image.rises as f64 <= self.rho * since as f64;
            let stuck = !image.halved && image.best_then >= image.best;
            image.halved = few || stuck;
            image.best_then = image.best;
            image.rises = 0;
            if image.halved {
                image.step /= 2.0;
            }
            higher[row] = image.halved;
        }
        // `before` stays: the next step's momentum leads from there to the best point, as in the released code.
        self.x = choose(&higher, &self.best, &self.x);
        self.gradient = choose(&higher, &self.best_gradient, &self.gradient);
    }

    /// Keeps the images at `rows` only.
    pub fn keep(&mut self, rows: &[usize]) {
        for tensor in [
            &mut self.originals,
            &mut self.x,
            &mut self.before,
            &mut self.gradient,
            &mut self.best,
            &mut self.best_gradient,
        ] {
            *tensor = select(tensor, rows);
        }
        self.states = rows.iter().map(|&r| self.states[r].clone()).collect();
    }

    /// Step size and losses of each image.
    pub fn states(&self) -> &[ImageState] {
        &self.states
    }

    /// Iterate of each image with the highest loss.
    pub fn best(&self) -> &Tensor<4> {
        &self.best
    }
}

/// Chooses row by row between `yes` and `no`.
fn choose(which: &[bool], yes: &Tensor<4>, no: &Tensor<4>) -> Tensor<4> {
    let count = which.len();
    match which.iter().filter(|&&yes| yes).count() {
        0 => no.clone(),
        all if all == count => yes.clone(),
        _ => {
            let rows = which.iter().enumerate();
            let order: Vec<usize> = rows
                .map(|(row, &yes)| if yes { row } else { count + row })
                .collect();
            let both = Tensor::cat(vec![yes.clone(), no.clone()], 0);
            select(&both, &order)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_come_faster_until_a_least_distance() {
        assert_eq!(checkpoints(100), [22, 41, 57, 70, 80, 87, 93, 99]);
        assert_eq!(checkpoints(10), [2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(checkpoints(1), [1]);
        assert!(checkpoints(0).is_empty());
    }
}
