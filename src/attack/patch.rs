//! An adversarial patch: a square of the image in which any values are allowed.
//!
//! Sources: Brown, Mané, Roy, Abadi and Gilmer, "Adversarial patch" (2017), for the threat; Rao, Stutz and Schiele, "Adversarial
//! training against location-optimized adversarial patches" (2020), for a patch of each image's own at several places. Places are
//! random here, and not moved by the attack.
//!
//! It is no attack of a suite: those stay within a ball, and a patch changes few pixels by any amount.

use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::{AttackResult, Progress, Victim, select};
use crate::error::Result;
use crate::loss::cross_entropy_each;
use crate::pixels::Pixels;
use crate::random;
use crate::tensor::gradient;

/// Settings of the adversarial patch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Patch {
    /// Share of the image's area that the square covers.
    pub size: f64,
    /// Random places of the square in each image; every one is tried.
    pub places: usize,
    /// Gradient steps at each place.
    pub steps: usize,
    /// Size of these steps, in pixels.
    pub step_size: Pixels,
}

impl Default for Patch {
    fn default() -> Self {
        Self {
            size: 0.05,
            places: 4,
            steps: 20,
            step_size: "0.1".parse().expect("a number"),
        }
    }
}

/// Squares of a batch of images: their places, and the values in them at first.
struct Placed {
    /// 1 inside of the square, 0 elsewhere, `[batch, 1, height, width]`.
    mask: Tensor<4>,
    /// Random values in [0, 1] inside of the square, 0 elsewhere, `[batch, channels, height, width]`.
    values: Tensor<4>,
}

impl Patch {
    /// Refuses settings that cannot be carried out, by their key and the problem.
    ///
    /// # Errors
    /// The key and what is expected of it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let counts = [("places", self.places), ("steps", self.steps)];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err((key, "expected 1 or more, found 0".to_owned()));
        }
        let shares = [("size", self.size), ("step_size", self.step_size.value())];
        match shares
            .into_iter()
            .find(|(_, share)| !(*share > 0.0 && *share <= 1.0))
        {
            Some((key, share)) => Err((
                key,
                format!("expected more than 0, at most 1, found {share}"),
            )),
            None => Ok(()),
        }
    }

    /// Side of the square in images of this height and width, in pixels.
    pub fn side(&self, height: usize, width: usize) -> usize {
        let side = (self.size * (height * width) as f64).sqrt().round() as usize;
        side.clamp(1, height.min(width).max(1))
    }

    /// Attacks the images of `victim`, place after place on the images that are left: steps along the sign of the gradient of the
    /// cross-entropy from random values. An image is broken as soon as it is misclassified, at the start or after any step. The
    /// victim's ball does not count. More places try the same places first.
    ///
    /// # Errors
    /// An error of `progress`; [`Error::Logits`](crate::Error::Logits).
    pub fn run(&self, victim: &Victim, progress: Progress) -> Result<AttackResult> {
        let mut result = AttackResult::unbroken(victim);
        let attempts = self.places * (self.steps + 1);
        for place in 0..self.places {
            let mut rows = result.remaining();
            if rows.is_empty() {
                break;
            }
            let Placed { mut mask, values } = self.place(victim, &rows, place);
            let outside = mask.clone().neg() + 1.0;
            let mut x = select(victim.images, &rows) * outside + values;
            for step in 0..=self.steps {
                let done = place * (self.steps + 1) + step;
                progress(done as f64 / attempts as f64)?;
                if step > 0 {
                    let labels = victim.labels_of(&rows);
                    let mut loss = |x| cross_entropy_each((victim.logits)(x), labels.clone()).sum();
                    let gradient = gradient(&mut loss, x.clone());
                    let change = gradient.sign() * mask.clone() * self.step_size.value();
                    x = (x + change).clamp(0.0, 1.0);
                }
                result.query(victim, &rows, x.clone())?;
                // Images that are broken need no further steps.
                let left = |at: &usize| !result.broken[rows[*at]];
                let kept: Vec<usize> = (0..rows.len()).filter(left).collect();
                if kept.is_empty() {
                    break;
                }
                if kept.len() < rows.len() {
                    (x, mask) = (select(&x, &kept), select(&mask, &kept));
                    rows = kept.into_iter().map(|at| rows[at]).collect();
                }
            }
        }
        Ok(result)
    }

    /// Squares of the images at `rows` at one of their places, with random values. They depend on the seed, the image's index and
    /// the number of the place.
    fn place(&self, victim: &Victim, rows: &[usize], place: usize) -> Placed {
        let [_, channels, height, width] = victim.images.dims();
        let (side, plane) = (self.side(height, width), height * width);
        let mut mask = vec![0.0f32; rows.len() * plane];
        let mut values = vec![0.0f32; rows.len() * channels * plane];
        let purpose = format!("patch/{place}");
        for (at, &row) in rows.iter().enumerate() {
            let mut rng = random::generator(victim.seed, &purpose, victim.indices[row] as u64);
            let top = rng.random_range(0..=height - side);
            let left = rng.random_range(0..=width - side);
            for y in top..top + side {
                let line = at * plane + y * width;
                mask[line + left..line + left + side].fill(1.0);
                for channel in 0..channels {
                    let line = (at * channels + channel) * plane + y * width;
                    let inside = values[line + left..line + left + side].iter_mut();
                    inside.for_each(|value| *value = rng.random());
                }
            }
        }
        let device = victim.images.device();
        let tensor = |values, channels| {
            let shape = [rows.len(), channels, height, width];
            Tensor::from_data(TensorData::new(values, shape), &device)
        };
        Placed {
            mask: tensor(mask, 1),
            values: tensor(values, channels),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Ball, Norm};
    use crate::tensor::to_vec;

    const SHAPE: [usize; 4] = [6, 2, 8, 10];

    /// Images before and after, and which are broken: values between 0.3 and 0.7, and two classes, the first for images whose mean
    /// is above `border`.
    fn attacked(patch: &Patch, border: f32) -> (Vec<f32>, Vec<f32>, Vec<bool>) {
        let device = crate::device::open("cpu").expect("the CPU");
        let mut rng = random::generator(1, "images", 0);
        let count = SHAPE.iter().product();
        let values: Vec<f32> = (0..count).map(|_| rng.random_range(0.3..0.7)).collect();
        let data = TensorData::new(values.clone(), SHAPE);
        let images = Tensor::<4>::from_data(data, &device);
        let logits = |x: Tensor<4>| {
            let rows = x.dims()[0];
            let sum = x.reshape([rows, 160]).mean_dim(1) - border;
            Tensor::cat(vec![sum.clone(), sum.neg()], 1)
        };
        let victim = Victim {
            logits: &logits,
            images: &images,
            labels: &[0; 6],
            indices: &[4, 1, 7, 3, 0, 9],
            ball: Ball {
                norm: Norm::Linf,
                radius: 1.0,
            },
            seed: 5,
        };
        let result = patch.run(&victim, &mut |_| Ok(())).expect("finite logits");
        (values, to_vec(result.images), result.broken)
    }

    #[test]
    fn sides_are_those_of_the_share_within_the_image() {
        let side = |size, height, width| {
            Patch {
                size,
                ..Patch::default()
            }
            .side(height, width)
        };
        // √(0.05 · 784) is 6.3, √(0.05 · 1024) is 7.2.
        assert_eq!((side(0.05, 28, 28), side(0.05, 32, 32)), (6, 7));
        assert_eq!(
            (side(1e-9, 28, 28), side(1.0, 28, 28), side(1.0, 8, 50)),
            (1, 28, 8)
        );
    }

    #[test]
    fn only_the_square_is_changed_and_the_image_stays_one() {
        let patch = Patch {
            size: 0.2,
            ..Patch::default()
        };
        let side = patch.side(8, 10);
        assert_eq!(side, 4);
        // Mean values are near 0.5, and 4 · 4 of 80 pixels can take 0.1 away.
        let (before, after, broken) = attacked(&patch, 0.42);
        assert_eq!(broken, [true; 6], "a linear classifier is fooled");
        for (before, after) in before.chunks(160).zip(after.chunks(160)) {
            assert!(after.iter().all(|value| (0.0..=1.0).contains(value)));
            let changed = |at: usize| before[at] != after[at];
            let at: Vec<usize> = (0..160)
                .filter(|&at| changed(at))
                .map(|at| at % 80)
                .collect();
            let ends = |axis: fn(usize) -> usize| {
                let places = at.iter().map(|&at| axis(at));
                (
                    places.clone().min().expect("a change"),
                    places.max().expect("a change"),
                )
            };
            for (low, high) in [ends(|at| at / 10), ends(|at| at % 10)] {
                assert!(high - low < side, "{low} to {high}");
            }
        }
    }

    #[test]
    fn what_no_patch_can_change_stays_and_more_places_never_leave_more() {
        // The mean would have to fall by more than a patch of black pixels can take away.
        let patch = Patch {
            size: 0.2,
            ..Patch::default()
        };
        let (before, after, broken) = attacked(&patch, 0.3);
        assert_eq!((broken, before == after), (vec![false; 6], true));
        // A border at which one place is enough for some of them, and one step for none.
        let left = |places, steps| {
            let patch = Patch {
                size: 0.2,
                places,
                steps,
                ..Patch::default()
            };
            let (_, _, broken) = attacked(&patch, 0.4);
            broken
        };
        let counts: Vec<Vec<bool>> = [1, 2, 4, 8].map(|places| left(places, 20)).to_vec();
        for pair in counts.windows(2) {
            let mut images = pair[0].iter().zip(&pair[1]);
            assert!(images.all(|(fewer, more)| !fewer || *more), "{counts:?}");
        }
        let broken = |all: &[bool]| all.iter().filter(|broken| **broken).count();
        assert!(broken(&counts[0]) < broken(&counts[3]), "{counts:?}");
        assert!(
            broken(&left(1, 1)) < broken(&left(1, 20)),
            "steps do nothing"
        );
    }

    #[test]
    fn impossible_settings_are_named() {
        let key = |change: fn(&mut Patch)| {
            let mut patch = Patch::default();
            change(&mut patch);
            patch.check().err().map(|(key, _)| key)
        };
        assert_eq!(key(|_| ()), None);
        assert_eq!(key(|patch| patch.places = 0), Some("places"));
        assert_eq!(key(|patch| patch.steps = 0), Some("steps"));
        assert_eq!(key(|patch| patch.size = 0.0), Some("size"));
        assert_eq!(key(|patch| patch.size = f64::NAN), Some("size"));
        assert_eq!(key(|patch| patch.size = 1.1), Some("size"));
        assert_eq!(
            key(|patch| patch.step_size = "2".parse().expect("a distance")),
            Some("step_size")
        );
    }
}
