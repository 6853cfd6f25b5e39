//! FAB, the fast adaptive boundary attack (Croce and Hein, ICML 2020): walks along the decision boundary and searches for its
//! point nearest to the image, whatever ε is.

mod plane;
mod projection;

use rand::RngExt;
use rand_distr::StandardNormal;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::host::{batch, gather, margins};
use super::settings::at_least_one;
use super::{AttackResult, Norm, Progress, Victim};
use crate::error::Result;
use crate::random;
use crate::tensor::to_vec;
use plane::{BoundaryPlane, nearest_planes, planes};
pub(crate) use projection::shift_to_plane;

/// Settings of FAB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fab {
    /// Steps of a walk.
    pub iterations: usize,
    /// Walks for each target: the first from the image itself, the others from random points within ε / 2.
    pub restarts: usize,
    /// Number of target classes, the most probable first; at most all other classes. 0 walks to the nearest boundary of any
    /// class, which costs as many gradients a step as there are classes.
    pub targets: usize,
    /// Largest weight with which a step is pulled back to the original image.
    pub alpha_max: f64,
    /// Length of a step relative to the distance to the boundary: 1 ends on it, more goes beyond.
    pub eta: f64,
    /// Share of its distance to the image that a walk keeps after it crossed the boundary.
    pub beta: f64,
}

impl Default for Fab {
    fn default() -> Self {
        Self {
            iterations: 100,
            restarts: 1,
            targets: 9,
            alpha_max: 0.1,
            eta: 1.05,
            beta: 0.9,
        }
    }
}

/// Walk from one image.
struct Walk<'a> {
    place: usize,
    original: &'a [f32],
    x: Vec<f32>,
    /// Class to reach; without one, any class but the label.
    target: Option<usize>,
}

impl Walk<'_> {
    /// Steps towards the boundary, from the current point and, with a small weight, from the image (the paper's algorithm 1).
    fn step(&mut self, plane: &BoundaryPlane, norm: Norm, fab: &Fab) {
        let BoundaryPlane { gap, slope } = plane;
        let moved = self.original.iter().zip(&self.x).zip(slope);
        let gained = moved.map(|((o, x), w)| (f64::from(*o) - f64::from(*x)) * f64::from(*w));
        let from_here = shift_to_plane(norm, &self.x, slope, *gap);
        let from_image = shift_to_plane(norm, self.original, slope, gap + gained.sum::<f64>());
        let [here, image] = [&from_here, &from_image].map(|shift| length(norm, shift).max(1e-8));
        let alpha = (here / (here + image)).min(fab.alpha_max) as f32;
        let eta = fab.eta as f32;
        let shifts = from_here.iter().zip(&from_image);
        for ((x, original), (here, image)) in self.x.iter_mut().zip(self.original).zip(shifts) {
            let moved = (*x + eta * here) * (1.0 - alpha) + (original + eta * image) * alpha;
            *x = moved.clamp(0.0, 1.0);
        }
    }
}

/// Length of a perturbation.
fn length(norm: Norm, delta: &[f32]) -> f64 {
    norm.length(delta.iter().map(|d| f64::from(*d)))
}

impl Fab {
    /// Refuses settings that cannot be carried out: "iterations: expected 1 or more, found 0".
    pub(super) fn check(&self) -> Result<(), String> {
        at_least_one("iterations", self.iterations)?;
        at_least_one("restarts", self.restarts)?;
        let shares = [("alpha_max", self.alpha_max), ("beta", self.beta)];
        for (key, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("{key}: expected a share in [0, 1], found {value}"));
            }
        }
        if !(self.eta >= 1.0 && self.eta.is_finite()) {
            let found = self.eta;
            return Err(format!("eta: expected 1 or more, found {found}"));
        }
        Ok(())
    }

    /// Refuses settings that cannot be carried out target by target.
    pub(super) fn check_targeted(&self) -> Result<(), String> {
        at_least_one("targets", self.targets)?;
        self.check()
    }

    /// Attacks the images of `victim`. Each target is tried on the images that the ones before it left. An image's walk ends as
    /// soon as a point across the boundary is within ε: a nearer point would not change the outcome.
    ///
    /// # Errors
    /// An error of `progress`; [`Error::Logits`](crate::Error::Logits).
    pub fn run(&self, victim: &Victim, progress: Progress) -> Result<AttackResult> {
        let count = victim.images.dims()[0];
        let originals = to_vec(victim.images.clone());
        let size = originals.len() / count.max(1);
        let mut found = vec![None; count];
        let ranked = victim.targets()?;
        let others = ranked.first().map_or(0, Vec::len);
        let targets: Vec<Option<usize>> = match self.targets {
            0 if others > 0 => vec![None],
            targets => (0..targets.min(others)).map(Some).collect(),
        };
        // Within a radius of 0 there is nothing but the images themselves.
        let restarts = if victim.ball.radius > 0.0 {
            self.restarts
        } else {
            0
        };
        let walks = targets.len() * restarts;
        for walk in 0..walks {
            let (target, restart) = (targets[walk / restarts], walk % restarts);
            let left = (0..count).filter(|place| found[*place].is_none());
            let start = |place: usize| {
                let original = &originals[place * size..][..size];
                let purpose = format!("fab/{walk}");
                let x = match restart {
                    0 => original.to_vec(),
                    _ => random_start(original, victim, place, &purpose),
                };
                let target = target.map(|rank| ranked[place][rank]);
                Walk {
                    place,
                    original,
                    x,
                    target,
                }
            };
            let mut walking: Vec<Walk> = left.map(start).collect();
            for iteration in 0..self.iterations {
                if walking.is_empty() {
                    break;
                }
                self.step(&mut walking, others + 1, victim)?;
                self.check_walks(&mut walking, victim, &mut found)?;
                let done = (iteration + 1) as f64 / self.iterations as f64;
                progress((walk as f64 + done) / walks as f64)?;
            }
        }
        Ok(gather(victim, originals, found))
    }

    /// Moves every walk by one step.
    fn step(&self, walking: &mut [Walk], classes: usize, victim: &Victim) -> Result<()> {
        let planes = match walking[0].target {
            Some(_) => planes(walking, victim, |walk| walk.target)?
                .into_iter()
                .flatten()
                .collect(),
            None => nearest_planes(walking, classes, victim)?,
        };
        let norm = victim.ball.norm;
        let steps = walking.par_iter_mut().zip(planes);
        steps.for_each(|(walk, plane)| walk.step(&plane, norm, self));
        Ok(())
    }

    /// Ends the walks that are across the boundary and within ε, and pulls back the others that are across.
    fn check_walks(
        &self,
        walking: &mut Vec<Walk>,
        victim: &Victim,
        found: &mut [Option<Vec<f32>>],
    ) -> Result<()> {
        let places: Vec<usize> = walking.iter().map(|walk| walk.place).collect();
        let images = batch(walking.iter().map(|walk| &walk.x[..]), victim);
        let mut margins = margins("fab", victim, &places, (victim.logits)(images))?.into_iter();
        walking.retain_mut(|walk| {
            if margins.next().is_none_or(|margin| margin >= 0.0) {
                return true;
            }
            let moved = walk.x.iter().zip(walk.original);
            let delta: Vec<f32> = moved.map(|(x, original)| x - original).collect();
            if length(victim.ball.norm, &delta) <= victim.ball.radius {
                found[walk.place] = Some(std::mem::take(&mut walk.x));
                return false;
            }
            for (x, (original, delta)) in walk.x.iter_mut().zip(walk.original.iter().zip(delta)) {
                *x = original + delta * self.beta as f32;
            }
            true
        });
        Ok(())
    }
}

/// Random point at a distance of ε / 2 from an image, clamped into [0, 1].
fn random_start(original: &[f32], victim: &Victim, place: usize, purpose: &str) -> Vec<f32> {
    let mut rng = random::generator(victim.seed, purpose, victim.indices[place] as u64);
    let draw = |_: &f32| match victim.ball.norm {
        Norm::Linf => rng.random_range(-1.0..=1.0f32),
        Norm::L2 => rng.sample(StandardNormal),
    };
    let noise: Vec<f32> = original.iter().map(draw).collect();
    let length = length(victim.ball.norm, &noise).max(f64::MIN_POSITIVE);
    let scale = (victim.ball.radius / 2.0 / length) as f32;
    let moved = original.iter().zip(noise);
    moved
        .map(|(x, n)| (x + n * scale).clamp(0.0, 1.0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Ball;
    use super::super::host::tests::{Linear, attacked, case};
    use super::*;

    /// Half of the values at 1, where rising does not help; a rival that needs a rise, and one that is further away.
    fn linear(rise: f32) -> (Linear, Vec<f32>, usize) {
        let size = 3 * 4 * 5;
        let steepness = |at: usize| 0.5 + (at % 7) as f32;
        let weights = [
            vec![0.0; size],
            (0..size).map(steepness).collect(),
            (0..size).map(|at| -0.1 * steepness(at)).collect(),
        ];
        let image: Vec<f32> = [0.5, 1.0].into_iter().cycle().take(size).collect();
        let now: f32 = image.iter().zip(&weights[1]).map(|(x, w)| x * w).sum();
        let linear = Linear {
            weights: weights.to_vec(),
            offsets: vec![0.0, -now - rise, -1e3],
            shape: [3, 4, 5],
        };
        (linear, image, size)
    }

    #[test]
    fn the_distance_to_a_plane_is_found_to_a_percent_where_the_box_is_in_the_way_and_where_not() {
        // From 0.5 on: rising is free. From 1: half of the values cannot rise.
        for blocked in [false, true] {
            let (linear, image, size) = linear(4.0);
            let image = if blocked { image } else { vec![0.5; size] };
            let now: f32 = image
                .iter()
                .zip(&linear.weights[1])
                .map(|(x, w)| x * w)
                .sum();
            let gap = f64::from(-linear.offsets[1] - now);
            let free = image
                .iter()
                .zip(&linear.weights[1])
                .filter(|(x, _)| **x < 1.0);
            let steep: Vec<f64> = free.map(|(_, w)| f64::from(*w)).collect();
            let distances = [
                (Norm::Linf, gap / steep.iter().sum::<f64>()),
                (
                    Norm::L2,
                    gap / steep.iter().map(|w| w * w).sum::<f64>().sqrt(),
                ),
            ];
            for (norm, distance) in distances {
                for targets in [0, 9] {
                    let fab = Fab {
                        targets,
                        ..Fab::default()
                    };
                    let broken = [0.99, 1.01].map(|share| {
                        let radius = distance * share;
                        let ball = Ball { norm, radius };
                        attacked(&linear, &image, &[0], ball, |v| fab.run(v, &mut |_| Ok(())))
                            .broken
                    });
                    let what =
                        format!("{norm:?}, {targets} targets, blocked: {blocked}, {distance}");
                    assert_eq!(broken, [[false], [true]], "{what}");
                }
            }
        }
    }

    #[test]
    fn a_plane_is_met_exactly_or_the_corner_next_to_it() {
        let (point, slope) = ([0.2f32, 0.9, 0.5, 0.0], [1.0f32, -2.0, 0.0, 3.0]);
        for norm in [Norm::Linf, Norm::L2] {
            // All it can lose is 0.2 + 0.2; all it can gain is 0.8 + 1.8 + 3.
            for (residual, lost) in [
                (0.3, 0.3),
                (0.5, 0.4),
                (-1.0, -1.0),
                (-9.0, -5.6),
                (0.0, 0.0),
            ] {
                let shift = shift_to_plane(norm, &point, &slope, residual);
                let change: f32 = shift.iter().zip(&slope).map(|(d, w)| d * w).sum();
                assert!(
                    (change + lost).abs() < 1e-5,
                    "{norm:?} {residual}: {shift:?}"
                );
                let inside = point
                    .iter()
                    .zip(&shift)
                    .all(|(x, d)| (-1e-6..1.000001).contains(&(x + d)));
                assert!(inside && shift[2] == 0.0, "{norm:?} {residual}: {shift:?}");
            }
            for slope in [[0.0; 4], [f32::NAN; 4], [f32::INFINITY, 1.0, 1.0, 1.0]] {
                let shift = shift_to_plane(norm, &point, &slope, 0.5);
                assert_eq!(shift, [0.0; 4], "{norm:?} {slope:?}");
            }
        }
    }

    #[test]
    fn an_image_alone_fares_as_in_a_batch() {
        let fab = Fab {
            restarts: 3,
            iterations: 5,
            ..Fab::default()
        };
        case::same_alone(|victim| fab.run(victim, &mut |_| Ok(())));
    }

    #[test]
    fn odd_images_and_classifiers_are_no_trouble() {
        for targets in [0, 9] {
            let fab = Fab {
                targets,
                iterations: 4,
                restarts: 2,
                ..Fab::default()
            };
            case::odd(|victim| fab.run(victim, &mut |_| Ok(())));
        }
    }
}
