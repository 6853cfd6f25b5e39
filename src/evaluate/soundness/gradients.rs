//! Checks of an attack by gradients on a classifier.

use burn::tensor::Tensor;

use super::{CheckName, FEW, Finding, SoundnessChecks};
use crate::attack::pgd::gradient;
use crate::attack::{Ball, Pgd, Square};
use crate::error::Result;
use crate::evaluate::LabeledBatch;
use crate::logits::{LogitRows, predictions};
use crate::loss::cross_entropy_each;
use crate::session::Context;
use crate::tensor::{label_tensor, to_vec};

/// Numbers of steps at which the ascent is evaluated.
const STEPS: [usize; 4] = [0, 5, 20, 40];

/// Queries of Square for each image that PGD leaves.
const QUERIES: usize = 100;

/// Steps of PGD at other radii.
const OTHER_STEPS: usize = 10;

/// Warn if more images than this share of those classified correctly, and more than one, behave wrongly.
const ACCIDENT: f64 = 0.05;

/// Warn if more than this share of the images has no gradient.
const NO_GRADIENT: f64 = 0.02;

/// Share of its rise so far by which a loss may fall again: PGD's steps overshoot.
const OVERSHOOT: f64 = 0.1;

/// Whether so many images of the sample are more than an accident.
fn many(count: usize, of: usize) -> bool {
    count > 1 && count as f64 > ACCIDENT * of as f64
}

/// Radius in few digits.
fn short(radius: f64) -> f64 {
    (radius * 1e4).round() / 1e4
}

impl SoundnessChecks<'_> {
    /// Logits of a sample, batch by batch.
    ///
    /// # Shapes
    /// `[images, channels, height, width]` to `[images, classes]`.
    pub(super) fn logits_of(&self, images: &Tensor<4>) -> Tensor<2> {
        let parts = images.clone().split(self.evaluator.batch_size, 0);
        Tensor::cat(parts.into_iter().map(self.evaluator.logits).collect(), 0)
    }

    /// Rows of the images that are classified as their labels.
    fn correct(&self, images: &Tensor<4>, labels: &[usize]) -> Vec<usize> {
        let predicted = predictions(self.logits_of(images));
        (0..labels.len())
            .filter(|&i| predicted[i] == labels[i])
            .collect()
    }

    /// Calls `work` on one batch of the sample after another: the rows of `start`, and the batch.
    fn in_parts(
        &self,
        start: &Tensor<4>,
        sample: &LabeledBatch,
        work: impl Fn(Tensor<4>, &LabeledBatch) -> Tensor<4>,
    ) -> Tensor<4> {
        let size = self.evaluator.batch_size;
        let starts = start.clone().split(size, 0).into_iter();
        let parts = starts.zip(sample.split(size));
        Tensor::cat(parts.map(|(start, part)| work(start, &part)).collect(), 0)
    }

    /// Iterates of `pgd` on the cross-entropy from `start`.
    fn climb(
        &self,
        pgd: Pgd,
        start: &Tensor<4>,
        sample: &LabeledBatch,
        ball: Ball,
        context: &Context,
    ) -> Tensor<4> {
        self.in_parts(start, sample, |start, part| {
            let victim = self.evaluator.victim(part, ball, context.seed);
            victim.maximize_cross_entropy(pgd, &part.rows(), start)
        })
    }

    /// Random starts of PGD in `ball`.
    fn start(&self, sample: &LabeledBatch, ball: Ball, context: &Context) -> Tensor<4> {
        let victim = self.evaluator.victim(sample, ball, context.seed);
        victim.random_start(&sample.rows(), 0)
    }

    /// Mean cross-entropy, in nats: in f64, where a loss that f32 rounds to zero still rises.
    fn mean_loss(&self, x: &Tensor<4>, labels: &[usize]) -> f64 {
        let logits = LogitRows::read(self.logits_of(x));
        let loss = |(row, &label): (&[f32], &usize)| {
            let ahead = |v: &f32| f64::from(*v) - f64::from(row[label]);
            let most = row.iter().map(ahead).fold(0.0, f64::max);
            let others = row.iter().enumerate().filter(|(class, _)| *class != label);
            let others: f64 = others.map(|(_, v)| (ahead(v) - most).exp()).sum();
            // The largest logit is taken out of the sum; the label's own term is 1 where it is the largest.
            if most > 0.0 {
                most + ((-most).exp() + others).ln()
            } else {
                others.ln_1p()
            }
        };
        logits.rows().zip(labels).map(loss).sum::<f64>() / labels.len() as f64
    }

    /// Images after PGD within another radius, in steps of a quarter of it.
    fn attack_within(&self, radius: f64, sample: &LabeledBatch, context: &Context) -> Tensor<4> {
        let ball = Ball {
            radius,
            ..self.attacker.ball
        };
        let pgd = Pgd::new(OTHER_STEPS, None, ball);
        self.climb(
            pgd,
            &self.start(sample, ball, context),
            sample,
            ball,
            context,
        )
    }

    /// Checks the attack on a sample of the images. The logits of a `steady` classifier for an image are the same in every
    /// call.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) when asked to stop; [`Error::Logits`](crate::Error::Logits) for
    /// logits that are not finite.
    pub(super) fn check_attack(
        &self,
        all: &LabeledBatch,
        steady: bool,
        findings: &mut Vec<Finding>,
        context: &mut Context,
    ) -> Result<()> {
        let predicted = predictions(self.logits_of(&all.images));
        let correct: Vec<usize> = (0..all.labels.len())
            .filter(|&i| predicted[i] == all.labels[i])
            .collect();
        if correct.len() < FEW {
            let reason = format!("fewer than {FEW} images classified correctly");
            use CheckName::{BlackBox, Gradients, Loss, Perturbations, Radius};
            let checks = [Gradients, Perturbations, Loss, Radius, BlackBox];
            findings.extend(checks.map(|check| check.not_checked(reason.clone())));
            return Ok(());
        }
        let (sample, ball) = (all.select(&correct), self.attacker.ball);
        findings.push(self.check_gradients(&sample));
        self.report(findings, context)?;

        let mut iterates = vec![self.start(&sample, ball, context)];
        for pair in STEPS.windows(2) {
            let pgd = Pgd {
                steps: pair[1] - pair[0],
                ..self.attacker.pgd
            };
            let last = iterates.last().expect("the start");
            iterates.push(self.climb(pgd, last, &sample, ball, context));
            self.report(findings, context)?;
        }
        let attacked = to_vec(Tensor::cat(iterates.clone(), 0));
        let originals = to_vec(sample.images.clone()).repeat(iterates.len());
        let size = originals.len() / (iterates.len() * sample.labels.len());
        findings.push(perturbations(ball, &attacked, &originals, size));
        findings.push(self.check_loss(&iterates, &sample));
        self.report(findings, context)?;

        let robust: Vec<Vec<usize>> = iterates
            .iter()
            .map(|x| self.correct(x, &sample.labels))
            .collect();
        let mut classes = predicted;
        classes.sort_unstable();
        classes.dedup();
        let radius = self.check_radius(&sample, &robust[2], classes.len(), findings, context)?;
        findings.push(radius);
        self.report(findings, context)?;

        // The images that are classified correctly at every evaluated step.
        let left = |i: &usize| robust[1..].iter().all(|correct| correct.contains(i));
        let left: Vec<usize> = (0..sample.labels.len()).filter(left).collect();
        let black_box = if steady {
            self.check_black_box(&sample, &left, findings, context)?
        } else {
            CheckName::BlackBox.not_checked("logits of an image vary")
        };
        findings.push(black_box);
        self.report(findings, context)
    }

    fn check_gradients(&self, sample: &LabeledBatch) -> Finding {
        if self.classes(sample) < 2 {
            return CheckName::Gradients.not_checked("only one class");
        }
        let all = self.in_parts(&sample.images, sample, |x, part| {
            let labels = label_tensor(&part.labels, &x.device());
            // The sum, not the mean: an image's gradient does not depend on the others in the batch.
            let mut loss = |x| cross_entropy_each((self.evaluator.logits)(x), labels.clone()).sum();
            gradient(&mut loss, x)
        });
        let values = to_vec(all);
        let useless = |image: &&[f32]| {
            image.iter().all(|v| *v == 0.0) || image.iter().any(|v| !v.is_finite())
        };
        let of = sample.labels.len();
        let images = values.chunks(values.len() / of);
        let count = images.filter(useless).count();
        let found = format!("{count} of {of} images have no gradient of the cross-entropy");
        CheckName::Gradients.finding(count as f64 <= NO_GRADIENT * of as f64, found)
    }

    fn classes(&self, sample: &LabeledBatch) -> usize {
        (self.evaluator.logits)(sample.images.clone().narrow(0, 0, 1)).dims()[1]
    }

    /// Checks that the loss rises from one iterate to the next.
    fn check_loss(&self, iterates: &[Tensor<4>], sample: &LabeledBatch) -> Finding {
        if self.attacker.ball.radius == 0.0 {
            return CheckName::Loss.not_checked("radius of 0");
        }
        if self.classes(sample) < 2 {
            return CheckName::Loss.not_checked("only one class");
        }
        let losses: Vec<f64> = iterates
            .iter()
            .map(|x| self.mean_loss(x, &sample.labels))
            .collect();
        let mut best = losses[0];
        let mut holds = losses[1] > losses[0];
        for &loss in &losses[1..] {
            // Also where the loss is not a number.
            holds &= loss >= best - OVERSHOOT * (best - losses[0]);
            best = best.max(loss);
        }
        let digits = |loss: &f64| {
            if best < 0.01 {
                format!("{loss:.1e}")
            } else {
                format!("{loss:.3}")
            }
        };
        let losses: Vec<String> = losses.iter().map(digits).collect();
        let steps = STEPS.map(|steps| steps.to_string()).join(", ");
        let losses = losses.join(", ");
        CheckName::Loss.finding(
            holds,
            format!("mean cross-entropy {losses} after {steps} steps"),
        )
    }

    /// Checks that accuracy falls as the radius grows. `robust`: rows of the images that are correct at the claimed radius.
    /// `classes`: number of distinct predicted classes.
    fn check_radius(
        &self,
        sample: &LabeledBatch,
        robust: &[usize],
        classes: usize,
        findings: &[Finding],
        context: &mut Context,
    ) -> Result<Finding> {
        if classes < 2 {
            return Ok(CheckName::Radius.not_checked("one class predicted for every image"));
        }
        let [_, channels, height, width] = sample.images.dims();
        let own = self.attacker.ball.radius;
        let farthest = self.attacker.ball.norm.farthest(channels * height * width);
        let mut counts = vec![format!("{} within {}", robust.len(), short(own))];
        let mut left = robust.to_vec();
        let mut grown = false;
        let mut radius = own;
        if 0.0 < own && 2.0 * own < farthest {
            radius = 2.0 * own;
            // All images again: one that the smaller radius broke may resist this weaker attack.
            let attacked = self.attack_within(radius, sample, context);
            let again = self.correct(&attacked, &sample.labels);
            counts.push(format!("{} within {}", again.len(), short(radius)));
            let more = again.len().saturating_sub(robust.len());
            grown = many(more, sample.labels.len());
            left.retain(|i| again.contains(i));
            self.report(findings, context)?;
        }
        while !left.is_empty() && radius < farthest {
            radius = (4.0 * radius).max(farthest / 16.0).min(farthest);
            let rest = sample.select(&left);
            let attacked = self.attack_within(radius, &rest, context);
            left = self.remaining(&left, &rest, &attacked);
            counts.push(format!("{} within {}", left.len(), short(radius)));
            self.report(findings, context)?;
        }
        if !left.is_empty() {
            // From the clean images, in smaller steps.
            let pgd = Pgd {
                steps: STEPS[3],
                step_size: farthest / 20.0,
            };
            let ball = Ball {
                radius: farthest,
                ..self.attacker.ball
            };
            let rest = sample.select(&left);
            let attacked = self.climb(pgd, &rest.images, &rest, ball, context);
            left = self.remaining(&left, &rest, &attacked);
            counts.push(format!("{} of these in smaller steps", left.len()));
        }
        let (of, counts) = (sample.labels.len(), counts.join(", "));
        let found = format!("of {of} images classified correctly, PGD leaves {counts}");
        Ok(CheckName::Radius.finding(!grown && !many(left.len(), of), found))
    }

    /// Rows of the sample, out of `left`, that are still classified correctly; `rest` are the images at `left`.
    fn remaining(&self, left: &[usize], rest: &LabeledBatch, attacked: &Tensor<4>) -> Vec<usize> {
        let correct = self.correct(attacked, &rest.labels);
        correct.into_iter().map(|row| left[row]).collect()
    }

    fn check_black_box(
        &self,
        sample: &LabeledBatch,
        left: &[usize],
        findings: &[Finding],
        context: &mut Context,
    ) -> Result<Finding> {
        let ball = self.attacker.ball;
        if ball.radius == 0.0 {
            return Ok(CheckName::BlackBox.not_checked("radius of 0"));
        }
        if self.classes(sample) < 2 {
            return Ok(CheckName::BlackBox.not_checked("only one class"));
        }
        let square = Square {
            queries: QUERIES,
            ..Square::default()
        };
        let mut broken = 0;
        if !left.is_empty() {
            let rest = sample.select(left);
            let victim = self.evaluator.victim(&rest, ball, context.seed);
            let result = square.run(&victim, &mut |_| self.report(findings, context))?;
            broken = result.broken.iter().filter(|broken| **broken).count();
        }
        let found = format!(
            "of the {} images that {} steps of PGD leave, {QUERIES} queries of Square break {broken}",
            left.len(),
            STEPS[3]
        );
        Ok(CheckName::BlackBox.finding(!many(broken, sample.labels.len()), found))
    }
}

/// Checks that every image of `attacked` is inside `ball` and [0, 1]; both lists have images of `size` values, one after the
/// other.
pub fn perturbations(ball: Ball, attacked: &[f32], originals: &[f32], size: usize) -> Finding {
    let pairs = attacked.chunks(size).zip(originals.chunks(size));
    let outside = pairs.filter(|(image, original)| !ball.contains(image, original));
    let (outside, of) = (outside.count(), attacked.len() / size);
    let found = format!("{outside} of {of} attacked images outside");
    CheckName::Perturbations.finding(outside == 0, found)
}
