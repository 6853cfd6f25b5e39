//! Multinomial logistic regression by L-BFGS, its L2 penalty chosen by cross-validation.
//!
//! The problem is convex: the classifier is its minimum, whatever the start, and no learning rate or number of epochs has
//! to be chosen. Sums are taken over the same parts of the images in the same order for any number of threads.

mod curvature;
mod folds;
mod lbfgs;
mod regression;

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use crate::random;
pub use regression::Fitted;
use regression::{EXACT, ROUGH, Regression};

/// Number of parts of cross-validation.
pub const FOLDS: usize = 5;
/// Strengths of the L2 penalty that are tried, from strong to weak: half powers of ten, from 1e2 to 1e-6.
pub const STRENGTHS: usize = 17;
/// Strength where no class has two images, so that nothing can be held out.
const USUAL: f64 = 1e-2;
/// Weaker penalties are not tried after this many in a row that made the held-out loss worse: they take longest to fit.
const WORSE: usize = 3;

/// Values of a sum of products that are added side by side.
const LANES: usize = 8;

/// Sum of products.
fn dot(x: &[f32], w: &[f64]) -> f64 {
    let (xs, ws) = (x.chunks_exact(LANES), w.chunks_exact(LANES));
    let rest = xs.remainder().iter().zip(ws.remainder());
    let rest: f64 = rest.map(|(x, w)| f64::from(*x) * w).sum();
    let mut sums = [0.0; LANES];
    for (x, w) in xs.zip(ws) {
        for lane in 0..LANES {
            sums[lane] += f64::from(x[lane]) * w[lane];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// One of the strengths, in the order in which they are tried.
fn strength(place: usize) -> f64 {
    10f64.powf(2.0 - place as f64 / 2.0)
}

/// Features of images on a frozen encoder, with labels.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    /// Features, one image after the other, `[images, features]`.
    pub features: &'a [f32],
    /// Label of each image.
    pub labels: &'a [usize],
    /// Weight of each class in the loss; their mean over the images is 1.
    pub weights: &'a [f64],
}

/// A fitted classifier and how it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// Weights and biases.
    pub fitted: Fitted,
    /// Strength λ of the penalty that was chosen, in units of the scaled features.
    pub strength: f64,
    /// Mean cross-entropy of held-out images in nats, weighted as in training; none where nothing could be held out.
    pub held_out: Option<f64>,
}

/// Fits a linear classifier with the strength that has the lowest cross-entropy on held-out images.
///
/// Features are centred and divided by one number, the root of their mean variance: strengths mean the same for every
/// encoder, and directions keep their lengths. Dividing each feature by its own deviation would invite large weights on
/// features that hardly vary, which an attack uses. The objective is the mean cross-entropy plus λ/2 times the sum of
/// the squared weights; biases are not penalised. λ is chosen from [`STRENGTHS`] values by [`FOLDS`]-fold
/// cross-validation, stratified by class and drawn from `seed`; a class of one image is never held out.
///
/// `progress` gets the number of strengths that were tried, between fits. A fit ends early once `stop` is set; what is
/// returned then is no minimum, and `progress` must refuse it.
///
/// # Errors
/// An error of `progress`.
pub fn fit<E>(
    examples: Examples,
    seed: u64,
    stop: &AtomicBool,
    mut progress: impl FnMut(usize) -> Result<(), E>,
) -> Result<Chosen, E> {
    let regression = Regression::new(examples, stop);
    let mut rng = random::generator(seed, "logistic/folds", 0);
    let folds = folds::stratified(examples.labels, examples.weights.len(), FOLDS, &mut rng);
    let all: Vec<usize> = (0..examples.labels.len()).collect();
    let mut starts = vec![regression.zeros(); folds.len()];
    let mut best: Option<(f64, f64)> = None;
    let mut worse = 0;
    for place in 0..STRENGTHS {
        if folds.is_empty() || worse == WORSE {
            break;
        }
        let strength = strength(place);
        // Each fold starts where the next stronger penalty has its minimum.
        let fits: Vec<(Vec<f64>, f64)> = folds
            .par_iter()
            .zip(&starts)
            .map(|(fold, start)| {
                let point = regression.minimum(&fold.training, strength, start.clone(), ROUGH);
                let loss = regression.loss(&fold.held_out, &point);
                (point, loss)
            })
            .collect();
        let held_out: usize = folds.iter().map(|fold| fold.held_out.len()).sum();
        let sum: f64 = fits.iter().map(|(_, loss)| loss).sum();
        let loss = sum / held_out as f64;
        starts = fits.into_iter().map(|(point, _)| point).collect();
        if best.is_none_or(|(lowest, _)| loss < lowest) {
            (best, worse) = (Some((loss, strength)), 0);
        } else {
            worse += 1;
        }
        progress(place + 1)?;
    }
    let strength = best.map_or(USUAL, |(_, strength)| strength);
    let point = regression.minimum(&all, strength, regression.zeros(), EXACT);
    progress(STRENGTHS)?;
    Ok(Chosen {
        fitted: regression.unscaled(&point),
        strength,
        held_out: best.map(|(loss, _)| loss),
    })
}

#[cfg(test)]
mod tests;
