//! Accuracy against radius, against steps, on corrupted images.

use burn::tensor::Tensor;

use super::{Corrupted, Curve, Point};
use crate::attack::{Attacker, Ball, Norm, Pgd, Victim, in_stage, select};
use crate::data::Split;
use crate::data::corrupt::{KINDS, SEVERITIES, corrupt};
use crate::error::Result;
use crate::evaluate::{Evaluator, StageProgress};
use crate::nn::{Classifier, FrozenEncoder, Linear};
use crate::ranks;
use crate::session::Context;
use crate::tensor::to_tensor;

/// Radii of a curve, in multiples of the recipe's.
const MULTIPLES: [f64; 9] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0];
/// Steps of PGD at each radius.
const STEPS: usize = 20;
/// Numbers of steps at which the ascent is evaluated.
const STEP_COUNTS: [usize; 7] = [1, 2, 5, 10, 20, 50, 100];

/// A classifier with the images and the attack of its measures.
pub struct MeasuredClassifier<'a> {
    /// Name in events: METHOD/MODE.
    pub name: String,
    /// Images to features, in evaluation mode.
    pub encoder: FrozenEncoder,
    /// Features to logits.
    pub linear: Linear,
    /// Images and labels.
    pub split: &'a Split,
    /// Indices of the images that are measured.
    pub among: &'a [usize],
    /// The recipe's threat model and PGD.
    pub attacker: Attacker,
    /// Images in a forward pass; results do not depend on it.
    pub batch_size: usize,
}

/// Radii of a norm's curve, from 0: the multiples 1/4 to 4 of the recipe's radius. For the other norm, of a corresponding
/// radius: ε · √values / 4 in L2 for ε in L∞, a quarter of the length of a perturbation of ε in every value (0.43 for 8/255
/// and the 3,072 values of CIFAR). Radii that reach beyond every image are left out.
pub fn radii(ball: Ball, norm: Norm, values: usize) -> Vec<f64> {
    let side = (values as f64).sqrt();
    let unit = match (ball.norm, norm) {
        (Norm::Linf, Norm::Linf) | (Norm::L2, Norm::L2) => ball.radius,
        (Norm::Linf, Norm::L2) => ball.radius * side / 4.0,
        (Norm::L2, Norm::Linf) => ball.radius * 4.0 / side,
    };
    let farthest = norm.farthest(values);
    let mut radii = MULTIPLES.map(|times| (times * unit).min(farthest)).to_vec();
    radii.dedup();
    radii
}

impl<'a> MeasuredClassifier<'a> {
    /// A classifier with its present weights.
    pub fn new(
        name: String,
        classifier: &Classifier,
        (split, among): (&'a Split, &'a [usize]),
        attacker: Attacker,
        batch_size: usize,
    ) -> Self {
        Self {
            name,
            encoder: FrozenEncoder::new(&classifier.encoder, classifier.route),
            linear: classifier.linear.clone(),
            split,
            among,
            attacker,
            batch_size,
        }
    }

    /// Logits of a batch.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]` in [0, 1] to `[batch, classes]`.
    pub fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.linear.forward(self.encoder.features(images))
    }

    /// Calls `work` with the classifier's evaluator.
    fn evaluate<T>(&self, work: impl FnOnce(Evaluator) -> T) -> T {
        work(Evaluator {
            name: &self.name,
            logits: &|x| self.logits(x),
            classes: self.linear.outputs(),
            split: self.split,
            batch_size: self.batch_size,
        })
    }

    /// Clean images of one batch.
    pub(super) fn images(&self, indices: &[usize], context: &Context) -> Tensor<4> {
        to_tensor(self.split.images.batch(indices), &context.device)
    }

    /// Images of one batch after the recipe's PGD.
    pub(super) fn attacked(&self, indices: &[usize], context: &Context) -> Tensor<4> {
        self.evaluate(|evaluator| evaluator.pgd(indices, self.attacker, context))
    }

    /// Accuracy against radius, in the recipe's norm first: PGD-20 with steps of a quarter of the radius. Balls are nested:
    /// an image that is broken at one radius is broken at larger ones, so only the others are attacked there.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted), [`Error::Logits`](crate::Error::Logits).
    pub fn radius(&self, context: &mut Context) -> Result<Vec<Curve>> {
        let ball = self.attacker.ball;
        let norms = match ball.norm {
            Norm::Linf => [Norm::Linf, Norm::L2],
            Norm::L2 => [Norm::L2, Norm::Linf],
        };
        let values = self.split.images.image_len();
        let grids = norms.map(|norm| (norm, radii(ball, norm, values)));
        let count = self.among.len();
        let total = count * grids.iter().map(|(_, radii)| radii.len()).sum::<usize>();
        let name = format!("{}/radius", self.name);
        let (mut stage, mut done) = (StageProgress::new(&name, total), 0);
        let mut curves = Vec::new();
        for (norm, radii) in grids {
            let mut left = self.among.to_vec();
            let mut points = Vec::new();
            for radius in radii {
                let attacker = Attacker::new(Ball { norm, radius }, STEPS, None);
                left = self.evaluate(|evaluator| {
                    let images = |batch: &[usize], context: &Context| {
                        Ok(if radius > 0.0 {
                            evaluator.pgd(batch, attacker, context)
                        } else {
                            evaluator.images(batch, &context.device)
                        })
                    };
                    let predicted = evaluator.predict(&left, &mut stage, context, images)?;
                    Ok(evaluator.correct(&left, &predicted))
                })?;
                // Broken images are done without any work.
                done += count;
                stage.done = done;
                points.push(Point::new(radius, left.len(), count));
            }
            curves.push(Curve { norm, points });
        }
        Ok(curves)
    }

    /// Accuracy after 0 (clean) to 100 steps of PGD at the recipe's radius, each a quarter of it: one ascent, evaluated on
    /// its way. An image that is broken goes no further and stays broken.
    ///
    /// # Errors
    /// As [`MeasuredClassifier::radius`].
    pub fn steps(&self, context: &mut Context) -> Result<Vec<Point>> {
        let ball = self.attacker.ball;
        let (correct, robust) =
            self.robust_counts("steps", ball, context, |victim, stage, context| {
                self.ascent(victim, stage, context)
            })?;
        let counts = [correct].into_iter().chain(robust);
        let at = [0].into_iter().chain(STEP_COUNTS);
        let point = |(steps, hits)| Point::new(steps as f64, hits, self.among.len());
        Ok(at.zip(counts).map(point).collect())
    }

    /// Number of images that are classified correctly, and the numbers of those that `attack` leaves, given one batch of them after
    /// the other and the progress before it. `what` names the measure in events.
    ///
    /// # Errors
    /// Those of `attack`, and of [`MeasuredClassifier::radius`].
    pub(super) fn robust_counts<const N: usize>(
        &self,
        what: &str,
        ball: Ball,
        context: &mut Context,
        mut attack: impl FnMut(&Victim, &StageProgress, &mut Context) -> Result<[usize; N]>,
    ) -> Result<(usize, Vec<usize>)> {
        self.evaluate(|evaluator| {
            let name = format!("{}/{what}", self.name);
            let total = 2 * self.among.len();
            let mut stage = StageProgress::new(&name, total);
            let predicted = evaluator.predict_clean(self.among, &mut stage, context)?;
            let correct = evaluator.correct(self.among, &predicted);
            let mut robust = vec![0; N];
            let own = ranks::own_batches(correct.len(), self.batch_size);
            for batch in correct[own].chunks(self.batch_size) {
                let images = evaluator.batch(batch, &context.device);
                let victim = evaluator.victim(&images, ball, context.seed);
                let left = attack(&victim, &stage, context)?;
                robust
                    .iter_mut()
                    .zip(left)
                    .for_each(|(sum, left)| *sum += left);
                stage.done += batch.len();
            }
            let robust = ranks::sum_counts("robust images", robust);
            context.progress(&name, total, total, "images")?;
            Ok((correct.len(), robust))
        })
    }

    /// Number of the images of one batch that are left after each of [`STEP_COUNTS`] steps.
    fn ascent(
        &self,
        victim: &Victim,
        stage: &StageProgress,
        context: &mut Context,
    ) -> Result<[usize; STEP_COUNTS.len()]> {
        let mut left = [0; STEP_COUNTS.len()];
        let images = victim.labels.len();
        let mut rows: Vec<usize> = (0..images).collect();
        let mut x = victim.random_start(&rows, 0);
        let mut taken = 0;
        for (left, steps) in left.iter_mut().zip(STEP_COUNTS) {
            let pgd = Pgd::new(steps - taken, None, victim.ball);
            x = victim.maximize_cross_entropy(pgd, &rows, x);
            taken = steps;
            let wrong = victim.misclassified(&rows, self.logits(x.clone()));
            let wrong = wrong.map_err(in_stage(stage.name))?;
            let kept: Vec<usize> = (0..rows.len()).filter(|&place| !wrong[place]).collect();
            *left = kept.len();
            if kept.is_empty() {
                break;
            }
            x = select(&x, &kept);
            rows = kept.iter().map(|&place| rows[place]).collect();
            let share = steps * images / STEP_COUNTS[STEP_COUNTS.len() - 1];
            context.progress(stage.name, stage.done + share, stage.total, "images")?;
        }
        Ok(left)
    }

    /// Accuracy on corrupted images: every kind at every severity.
    ///
    /// # Errors
    /// As [`MeasuredClassifier::radius`]; [`Error::Data`](crate::Error::Data) for images that cannot be corrupted.
    pub fn corruptions(&self, context: &mut Context) -> Result<Vec<Corrupted>> {
        let name = format!("{}/corruptions", self.name);
        let count = self.among.len();
        let mut stage = StageProgress::new(&name, count * KINDS.len() * SEVERITIES);
        let mut found = Vec::new();
        for kind in KINDS {
            let mut hits = [0; SEVERITIES];
            for (place, hits) in hits.iter_mut().enumerate() {
                let images = |batch: &[usize], context: &Context| {
                    let all = &self.split.images;
                    let images = corrupt(all, batch, kind, place + 1, context.seed)?;
                    let rows: Vec<usize> = (0..batch.len()).collect();
                    Ok(to_tensor(images.batch(&rows), &context.device))
                };
                *hits = self.evaluate(|evaluator| {
                    let predicted = evaluator.predict(self.among, &mut stage, context, images)?;
                    Ok(evaluator.correct(self.among, &predicted).len())
                })?;
            }
            found.push(Corrupted::new(kind.0, hits, count));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_norms_have_corresponding_radii() {
        let of = |norm, radius, other| radii(Ball { norm, radius }, other, 3072);
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
