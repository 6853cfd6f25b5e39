//! Accuracy against radius, against steps, on corrupted images.

use burn::tensor::Tensor;

use super::{Corrupted, Curve, Point};
use crate::attack::{Ball, Norm, Pgd};
use crate::data::Split;
use crate::data::corrupt::{KINDS, SEVERITIES, corrupt};
use crate::error::Result;
use crate::evaluate::climb;
use crate::logits::classes_said;
use crate::nn::{Classifier, FrozenEncoder, Linear};
use crate::random;
use crate::session::Context;
use crate::tensor::{label_tensor, to_tensor};

/// In multiples of the recipe's radius.
const MULTIPLES: [f64; 9] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0];
/// Of PGD at each radius.
const STEPS: usize = 20;
/// Where the ascent is looked at.
const STEP_COUNTS: [usize; 7] = [1, 2, 5, 10, 20, 50, 100];

/// Who is measured, on which images, against which attacker.
pub struct Subject<'a> {
    /// METHOD/MODE, for logs.
    pub stage: String,
    /// Images to features, in evaluation mode.
    pub encoder: FrozenEncoder,
    /// Features to logits.
    pub linear: Linear,
    /// The images and more.
    pub split: &'a Split,
    /// Which of them are measured.
    pub among: &'a [usize],
    /// The recipe's.
    pub ball: Ball,
    /// The recipe's.
    pub pgd: Pgd,
    /// Images at a time; random numbers do not depend on it.
    pub batch_size: usize,
}

/// The radii of a norm's curve, from 0: the multiples 1/4 to 4 of the recipe's radius; for the other norm, of the radius that
/// an L∞ radius ε answers to, ε · √values / 4: a quarter of the length of a perturbation of ε everywhere, 0.43 for 8/255
/// and CIFAR's 3,072 values. What reaches beyond every image is left out.
pub fn radii(ball: Ball, norm: Norm, values: usize) -> Vec<f64> {
    let side = (values as f64).sqrt();
    let (unit, farthest) = match (ball.norm, norm) {
        (Norm::Linf, Norm::Linf) => (ball.radius, 1.0),
        (Norm::L2, Norm::L2) => (ball.radius, side),
        (Norm::Linf, Norm::L2) => (ball.radius * side / 4.0, side),
        (Norm::L2, Norm::Linf) => (ball.radius * 4.0 / side, 1.0),
    };
    let mut radii = MULTIPLES.map(|times| (times * unit).min(farthest)).to_vec();
    radii.dedup();
    radii
}

impl<'a> Subject<'a> {
    /// A classifier as it is now.
    pub fn new(
        stage: String,
        classifier: &Classifier,
        (split, among): (&'a Split, &'a [usize]),
        (ball, pgd): (Ball, Pgd),
        batch_size: usize,
    ) -> Self {
        Self {
            stage,
            encoder: FrozenEncoder::new(&classifier.encoder, classifier.route),
            linear: classifier.linear.clone(),
            split,
            among,
            ball,
            pgd,
            batch_size,
        }
    }

    /// # Shapes
    /// `[batch, channels, height, width]` in [0, 1] to logits `[batch, classes]`.
    pub fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.linear.forward(self.encoder.features(images))
    }

    /// Images as they are.
    pub(super) fn images(&self, indices: &[usize], context: &Context) -> Tensor<4> {
        to_tensor(self.split.images.batch(indices), &context.device)
    }

    /// A start in `ball` for each image, of its own random numbers.
    fn start(&self, images: &Tensor<4>, indices: &[usize], ball: Ball, seed: u64) -> Tensor<4> {
        let purpose = format!("measure/{:?}/{}", ball.norm, ball.radius);
        let each = images.clone().split(1, 0).into_iter().zip(indices);
        let start = |(image, &index): (Tensor<4>, &usize)| {
            let mut rng = random::generator(seed, &purpose, index as u64);
            ball.random_start(&image, &mut rng)
        };
        Tensor::cat(each.map(start).collect(), 0)
    }

    /// What PGD makes of images in `ball`.
    pub(super) fn attacked(
        &self,
        indices: &[usize],
        (ball, pgd): (Ball, Pgd),
        context: &Context,
    ) -> Tensor<4> {
        let images = self.images(indices, context);
        let start = self.start(&images, indices, ball, context.seed);
        self.climb(indices, start, &images, (ball, pgd))
    }

    fn climb(
        &self,
        indices: &[usize],
        start: Tensor<4>,
        images: &Tensor<4>,
        attack: (Ball, Pgd),
    ) -> Tensor<4> {
        let labels: Vec<usize> = indices.iter().map(|&i| self.split.labels[i]).collect();
        climb(|x| self.logits(x), &labels, start, images, attack)
    }

    /// Which of them are classified correctly, in a form given.
    fn right(&self, stage: &str, indices: &[usize], images: Tensor<4>) -> Result<Vec<bool>> {
        let said = classes_said(stage, indices, self.logits(images))?;
        let labels = indices.iter().map(|&i| self.split.labels[i]);
        Ok(labels
            .zip(said)
            .map(|(label, class)| label == class)
            .collect())
    }

    /// Those of `indices` that are classified correctly after `form` gave them a form, batch by batch.
    fn survivors(
        &self,
        stage: &str,
        indices: &[usize],
        (done, total): (usize, usize),
        context: &mut Context,
        form: impl Fn(&[usize], &Context) -> Tensor<4>,
    ) -> Result<Vec<usize>> {
        let mut left = Vec::new();
        for (number, batch) in indices.chunks(self.batch_size).enumerate() {
            let right = self.right(stage, batch, form(batch, context))?;
            left.extend(
                batch
                    .iter()
                    .zip(right)
                    .filter(|(_, right)| *right)
                    .map(|(i, _)| *i),
            );
            let now = done + number * self.batch_size + batch.len();
            context.progress(stage, now, total, "images")?;
        }
        Ok(left)
    }

    fn share(&self, count: usize) -> f64 {
        count as f64 / self.among.len() as f64
    }

    /// Accuracy against radius, in the recipe's norm first: PGD-20 with steps of a quarter of the radius. Balls are nested, so
    /// an image that is broken at a radius is broken at larger ones, and only the others are attacked there.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted), [`Error::Logits`](crate::Error::Logits).
    pub fn radius(&self, context: &mut Context) -> Result<Vec<Curve>> {
        let norms = match self.ball.norm {
            Norm::Linf => [Norm::Linf, Norm::L2],
            Norm::L2 => [Norm::L2, Norm::Linf],
        };
        let (stage, images) = (format!("{}/radius", self.stage), &self.split.images);
        let grids = norms.map(|norm| (norm, radii(self.ball, norm, images.image_len())));
        let count = self.among.len();
        let total = count * grids.iter().map(|(_, radii)| radii.len()).sum::<usize>();
        let mut done = 0;
        let mut curves = Vec::new();
        for (norm, radii) in grids {
            let mut left = self.among.to_vec();
            let mut points = Vec::new();
            for radius in radii {
                let ball = Ball { norm, radius };
                let pgd = Pgd::new(STEPS, None, ball);
                let form = |batch: &[usize], context: &Context| match radius > 0.0 {
                    true => self.attacked(batch, (ball, pgd), context),
                    false => self.images(batch, context),
                };
                left = self.survivors(&stage, &left, (done, total), context, form)?;
                done += count;
                points.push(Point {
                    at: radius,
                    accuracy: self.share(left.len()),
                });
            }
            curves.push(Curve { norm, points });
        }
        Ok(curves)
    }

    /// Accuracy after 0 (clean) to 100 steps of PGD at the recipe's radius, each a quarter of it: one ascent, looked at on its
    /// way. An image that is broken goes no further and stays broken.
    ///
    /// # Errors
    /// As [`Subject::radius`].
    pub fn steps(&self, context: &mut Context) -> Result<Vec<Point>> {
        let (stage, ball) = (format!("{}/steps", self.stage), self.ball);
        let count = self.among.len();
        let clean = |batch: &[usize], context: &Context| self.images(batch, context);
        let left = self.survivors(&stage, self.among, (0, 2 * count), context, clean)?;
        let mut right = vec![left.len()];
        right.resize(1 + STEP_COUNTS.len(), 0);
        for (number, batch) in left.chunks(self.batch_size).enumerate() {
            let mut left = batch.to_vec();
            let mut images = self.images(&left, context);
            let mut x = self.start(&images, &left, ball, context.seed);
            let mut taken = 0;
            for (place, steps) in STEP_COUNTS.into_iter().enumerate() {
                let pgd = Pgd::new(steps - taken, None, ball);
                x = self.climb(&left, x, &images, (ball, pgd));
                taken = steps;
                let held = self.right(&stage, &left, x.clone())?;
                let rows: Vec<usize> = (0..left.len()).filter(|&row| held[row]).collect();
                right[1 + place] += rows.len();
                if rows.is_empty() {
                    break;
                }
                let kept = label_tensor(&rows, &context.device);
                (x, images) = (x.select(0, kept.clone()), images.select(0, kept));
                left = rows.iter().map(|&row| left[row]).collect();
                let share = steps * batch.len() / STEP_COUNTS[STEP_COUNTS.len() - 1];
                let now = count + number * self.batch_size + share;
                context.progress(&stage, now, 2 * count, "images")?;
            }
        }
        let at = std::iter::once(0).chain(STEP_COUNTS);
        let point = |(steps, count): (usize, usize)| Point {
            at: steps as f64,
            accuracy: self.share(count),
        };
        Ok(at.zip(right).map(point).collect())
    }

    /// Accuracy on corrupted images: every kind at every severity.
    ///
    /// # Errors
    /// As [`Subject::radius`]; [`Error::Data`](crate::Error::Data) for images that cannot be corrupted.
    pub fn corruptions(&self, context: &mut Context) -> Result<Vec<Corrupted>> {
        let stage = format!("{}/corruptions", self.stage);
        let total = self.among.len() * KINDS.len() * SEVERITIES;
        let mut done = 0;
        let mut found = Vec::new();
        for kind in KINDS {
            let mut accuracy = [0.0; SEVERITIES];
            for (place, share) in accuracy.iter_mut().enumerate() {
                let mut right = 0;
                for batch in self.among.chunks(self.batch_size) {
                    let all = &self.split.images;
                    let images = corrupt(all, batch, kind, place + 1, context.seed)?;
                    let rows: Vec<usize> = (0..batch.len()).collect();
                    let images = to_tensor(images.batch(&rows), &context.device);
                    let held = self.right(&stage, batch, images)?;
                    right += held.into_iter().filter(|right| *right).count();
                    done += batch.len();
                    context.progress(&stage, done, total, "images")?;
                }
                *share = self.share(right);
            }
            found.push(Corrupted {
                kind: kind.0.to_owned(),
                accuracy,
            });
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_norms_have_radii_that_answer_to_each_other() {
        let of = |norm, radius, asked| radii(Ball { norm, radius }, asked, 3072);
        let linf = of(Norm::Linf, 8.0 / 255.0, Norm::Linf);
        assert_eq!((linf.len(), linf[0], linf[4]), (9, 0.0, 8.0 / 255.0));
        let l2 = of(Norm::Linf, 8.0 / 255.0, Norm::L2);
        assert!((l2[4] - 0.4347).abs() < 1e-4, "{l2:?}");
        // There and back.
        let back = of(Norm::L2, l2[4], Norm::Linf);
        assert!(
            back.iter().zip(&linf).all(|(a, b)| (a - b).abs() < 1e-12),
            "{back:?}"
        );
        // None twice, none beyond all images.
        assert_eq!(of(Norm::Linf, 0.0, Norm::L2), [0.0]);
        assert_eq!(of(Norm::Linf, 1.0, Norm::Linf), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(of(Norm::L2, 30.0, Norm::L2).last(), Some(&3072f64.sqrt()));
    }
}
