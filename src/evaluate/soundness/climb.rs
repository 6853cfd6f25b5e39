//! Checks of an attack by gradients on a classifier.

use burn::tensor::Tensor;

use super::{BLACK_BOX, FEW, Finding, GRADIENTS, LOSS, PERTURBATIONS, RADIUS};
use crate::attack::pgd::gradient;
use crate::attack::{Ball, Norm, Pgd, Square, Victim, select};
use crate::error::Result;
use crate::evaluate::adversarial::inside;
use crate::evaluate::predictions;
use crate::loss::cross_entropy_each;
use crate::random;
use crate::tensor::{label_tensor, to_vec};

/// The loss is looked at after so many steps.
const STEPS: [usize; 4] = [0, 5, 20, 40];

/// Of Square, for each image that PGD leaves.
const QUERIES: usize = 100;

/// Steps at other radii.
const OTHER_STEPS: usize = 10;

/// More images than this share of those classified correctly, and more than one, are no accident.
const ACCIDENT: f64 = 0.05;

/// A larger share of images without a gradient is told.
const NO_GRADIENT: f64 = 0.02;

/// A loss may fall by this share of what it rose before: PGD's steps go to and fro.
const TO_AND_FRO: f64 = 0.1;

/// Is told how many checks are done; an error ends the work.
pub(super) type Tell<'a> = &'a mut dyn FnMut(usize) -> Result<()>;

/// Climbs the cross-entropy of a classifier.
pub(super) struct Climber<'a> {
    pub logits: &'a dyn Fn(Tensor<4>) -> Tensor<2>,
    pub ball: Ball,
    pub pgd: Pgd,
    pub batch_size: usize,
    pub seed: u64,
}

/// Images and their classes.
#[derive(Clone)]
pub(super) struct Sample {
    pub images: Tensor<4>,
    pub labels: Vec<usize>,
}

impl Sample {
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn select(&self, chosen: &[usize]) -> Self {
        Self {
            images: select(&self.images, chosen),
            labels: chosen.iter().map(|&i| self.labels[i]).collect(),
        }
    }
}

/// Whether so many images of the sample are more than an accident.
fn many(count: usize, of: usize) -> bool {
    count > 1 && count as f64 > ACCIDENT * of as f64
}

/// A radius in few digits.
fn short(radius: f64) -> f64 {
    (radius * 1e4).round() / 1e4
}

impl Climber<'_> {
    /// # Shapes
    /// `[images, channels, height, width]` to `[images, classes]`.
    pub fn logits_of(&self, images: &Tensor<4>) -> Tensor<2> {
        let parts = images.clone().split(self.batch_size, 0);
        Tensor::cat(parts.into_iter().map(self.logits).collect(), 0)
    }

    /// The images that are given their class.
    pub fn right(&self, images: &Tensor<4>, labels: &[usize]) -> Vec<usize> {
        let said = predictions(self.logits_of(images));
        (0..labels.len())
            .filter(|&i| said[i] == labels[i])
            .collect()
    }

    /// Does `work` on a batch at a time: start, images and labels of a part.
    fn by_batch(
        &self,
        start: &Tensor<4>,
        sample: &Sample,
        work: impl Fn(Tensor<4>, &Tensor<4>, &[usize]) -> Tensor<4>,
    ) -> Tensor<4> {
        let starts = start.clone().split(self.batch_size, 0);
        let images = sample.images.clone().split(self.batch_size, 0);
        let parts = starts.into_iter().zip(&images);
        let parts = parts.zip(sample.labels.chunks(self.batch_size));
        Tensor::cat(parts.map(|((s, i), l)| work(s, i, l)).collect(), 0)
    }

    /// The sum, not the mean: an image's gradient does not depend on who else is in the batch.
    fn loss(&self, x: Tensor<4>, labels: &[usize]) -> Tensor<1> {
        let labels = label_tensor(labels, &x.device());
        cross_entropy_each((self.logits)(x), labels).sum()
    }

    fn climb(&self, pgd: Pgd, start: &Tensor<4>, sample: &Sample, ball: Ball) -> Tensor<4> {
        self.by_batch(start, sample, |start, images, labels| {
            pgd.climb(|x| self.loss(x, labels), start, images, ball)
        })
    }

    /// The mean cross-entropy, in nats: in f64, where a loss that f32 rounds to nothing still rises.
    fn mean_loss(&self, x: &Tensor<4>, labels: &[usize]) -> f64 {
        let logits = self.logits_of(x);
        let classes = logits.dims()[1];
        let loss = |(row, &label): (&[f32], &usize)| {
            let ahead = |v: &f32| f64::from(*v) - f64::from(row[label]);
            let most = row.iter().map(ahead).fold(0.0, f64::max);
            let others = row.iter().enumerate().filter(|(class, _)| *class != label);
            let others: f64 = others.map(|(_, v)| (ahead(v) - most).exp()).sum();
            // With the largest taken out; the own class is what makes it 1 where it is the largest.
            match most > 0.0 {
                true => most + ((-most).exp() + others).ln(),
                false => others.ln_1p(),
            }
        };
        let values = to_vec(logits);
        let losses = values.chunks(classes).zip(labels).map(loss);
        losses.sum::<f64>() / labels.len() as f64
    }

    /// PGD with small steps within another radius, from a random start.
    fn attack_within(&self, radius: f64, sample: &Sample) -> Tensor<4> {
        let ball = Ball {
            radius,
            ..self.ball
        };
        let pgd = Pgd {
            steps: OTHER_STEPS,
            step_size: radius / 4.0,
        };
        let mut rng = random::generator(self.seed, "soundness/radius", 0);
        let start = ball.random_start(&sample.images, &mut rng);
        self.climb(pgd, &start, sample, ball)
    }

    /// The checks, of images with their labels. A `steady` classifier says the same of an image whenever it is asked.
    ///
    /// # Errors
    /// What `tell` answers; [`Error::Logits`](crate::Error::Logits) for logits that are not finite.
    pub fn findings(
        &self,
        images: Tensor<4>,
        labels: &[usize],
        steady: bool,
        tell: Tell,
    ) -> Result<Vec<Finding>> {
        let said = predictions(self.logits_of(&images));
        let right: Vec<usize> = (0..labels.len())
            .filter(|&i| said[i] == labels[i])
            .collect();
        let all = Sample {
            images,
            labels: labels.to_vec(),
        };
        if right.len() < FEW {
            let (count, of) = (right.len(), labels.len());
            let reason =
                format!("{count} of {of} images are classified correctly, which are too few");
            let checks = [GRADIENTS, PERTURBATIONS, LOSS, RADIUS, BLACK_BOX];
            return Ok(checks.map(|check| check.cannot_tell(&reason)).into());
        }
        let sample = all.select(&right);
        let mut findings = vec![self.gradients(&sample)];
        tell(1)?;

        let mut rng = random::generator(self.seed, "soundness", 0);
        let start = self.ball.random_start(&sample.images, &mut rng);
        let mut iterates = vec![start];
        for pair in STEPS.windows(2) {
            let pgd = Pgd {
                steps: pair[1] - pair[0],
                ..self.pgd
            };
            let last = iterates.last().expect("the start");
            iterates.push(self.climb(pgd, last, &sample, self.ball));
            tell(1)?;
        }
        let attacked = Tensor::cat(iterates.clone(), 0);
        let originals = to_vec(sample.images.clone()).repeat(iterates.len());
        findings.push(perturbations(
            self.ball,
            &to_vec(attacked),
            &originals,
            originals.len() / (iterates.len() * sample.len()),
        ));
        let withstand: Vec<Vec<usize>> = iterates
            .iter()
            .map(|x| self.right(x, &sample.labels))
            .collect();
        findings.push(self.rises(&iterates, &sample));
        tell(3)?;

        let mut classes = said;
        classes.sort_unstable();
        classes.dedup();
        findings.push(self.falls(&sample, &withstand[2], classes.len(), tell)?);
        tell(4)?;

        // What withstands the climb, wherever it is looked at.
        let left = |i: &usize| withstand[1..].iter().all(|right| right.contains(i));
        let left: Vec<usize> = (0..sample.len()).filter(left).collect();
        findings.push(match steady {
            true => self.black_box(&sample, &left, tell)?,
            false => BLACK_BOX.cannot_tell("the same image is not always given the same logits"),
        });
        tell(5)?;
        Ok(findings)
    }

    fn gradients(&self, sample: &Sample) -> Finding {
        if self.classes(sample) < 2 {
            return GRADIENTS.cannot_tell("there is one class");
        }
        let all = self.by_batch(&sample.images, sample, |x, _, labels| {
            gradient(&mut |x| self.loss(x, labels), x)
        });
        let values = to_vec(all);
        let useless = |image: &&[f32]| {
            image.iter().all(|v| *v == 0.0) || image.iter().any(|v| !v.is_finite())
        };
        let images = values.chunks(values.len() / sample.len());
        let (count, of) = (images.filter(useless).count(), sample.len());
        let found = format!("{count} of {of} images have no gradient of the cross-entropy");
        GRADIENTS.finding(count as f64 <= NO_GRADIENT * of as f64, found)
    }

    fn classes(&self, sample: &Sample) -> usize {
        (self.logits)(sample.images.clone().narrow(0, 0, 1)).dims()[1]
    }

    /// The loss, step by step.
    fn rises(&self, iterates: &[Tensor<4>], sample: &Sample) -> Finding {
        if self.ball.radius == 0.0 {
            return LOSS.cannot_tell("within a radius of 0 there is nothing to climb");
        }
        if self.classes(sample) < 2 {
            return LOSS.cannot_tell("there is one class");
        }
        let losses: Vec<f64> = iterates
            .iter()
            .map(|x| self.mean_loss(x, &sample.labels))
            .collect();
        let mut best = losses[0];
        let mut holds = losses[1] > losses[0];
        for &loss in &losses[1..] {
            // Also where the loss is no number.
            holds &= loss >= best - TO_AND_FRO * (best - losses[0]);
            best = best.max(loss);
        }
        let word = |loss: &f64| match best < 0.01 {
            true => format!("{loss:.1e}"),
            false => format!("{loss:.3}"),
        };
        let words: Vec<String> = losses.iter().map(word).collect();
        let steps = STEPS.map(|steps| steps.to_string()).join(", ");
        let words = words.join(", ");
        LOSS.finding(
            holds,
            format!("mean cross-entropy {words} after {steps} steps"),
        )
    }

    /// The accuracy, radius by radius. `withstand` are the images that withstand the claimed radius, `said` counts the classes
    /// that are said of the sample.
    fn falls(
        &self,
        sample: &Sample,
        withstand: &[usize],
        said: usize,
        tell: Tell,
    ) -> Result<Finding> {
        if said < 2 {
            return Ok(RADIUS.cannot_tell("the same class is said of every image"));
        }
        let [_, channels, height, width] = sample.images.dims();
        // Any image is in a ball of this radius around any other.
        let whole = match self.ball.norm {
            Norm::Linf => 1.0,
            Norm::L2 => ((channels * height * width) as f64).sqrt(),
        };
        let own = self.ball.radius;
        let mut words = vec![format!("{} within {}", withstand.len(), short(own))];
        let mut left = withstand.to_vec();
        let mut grown = false;
        let mut radius = own;
        if 0.0 < own && 2.0 * own < whole {
            radius = 2.0 * own;
            // All of them again: that the smaller radius broke one says nothing of this attack.
            let again = self.right(&self.attack_within(radius, sample), &sample.labels);
            words.push(format!("{} within {}", again.len(), short(radius)));
            grown = many(again.len().saturating_sub(withstand.len()), sample.len());
            left.retain(|i| again.contains(i));
            tell(3)?;
        }
        while !left.is_empty() && radius < whole {
            radius = (4.0 * radius).max(whole / 16.0).min(whole);
            left = self.withstand(&left, sample, |sample| self.attack_within(radius, sample));
            words.push(format!("{} within {}", left.len(), short(radius)));
            tell(3)?;
        }
        if !left.is_empty() {
            // From the images themselves, in smaller steps.
            let (pgd, ball) = (
                Pgd {
                    steps: STEPS[3],
                    step_size: whole / 20.0,
                },
                Ball {
                    radius: whole,
                    ..self.ball
                },
            );
            let attack = |sample: &Sample| self.climb(pgd, &sample.images, sample, ball);
            left = self.withstand(&left, sample, attack);
            words.push(format!("{} of these in smaller steps", left.len()));
        }
        let (of, words) = (sample.len(), words.join(", "));
        let found = format!("of {of} images classified correctly, PGD leaves {words}");
        Ok(RADIUS.finding(!grown && !many(left.len(), of), found))
    }

    /// Those of `left` that an attack leaves.
    fn withstand(
        &self,
        left: &[usize],
        sample: &Sample,
        attack: impl Fn(&Sample) -> Tensor<4>,
    ) -> Vec<usize> {
        let rest = sample.select(left);
        let right = self.right(&attack(&rest), &rest.labels);
        right.into_iter().map(|at| left[at]).collect()
    }

    fn black_box(&self, sample: &Sample, left: &[usize], tell: Tell) -> Result<Finding> {
        if self.ball.radius == 0.0 {
            return Ok(BLACK_BOX.cannot_tell("within a radius of 0 there is nothing to search"));
        }
        if self.classes(sample) < 2 {
            return Ok(BLACK_BOX.cannot_tell("there is one class"));
        }
        let rest = sample.select(left);
        let square = Square {
            queries: QUERIES,
            ..Square::default()
        };
        let victim = Victim {
            logits: self.logits,
            images: &rest.images,
            labels: &rest.labels,
            indices: left,
            ball: self.ball,
            seed: self.seed,
        };
        let broken = match left.len() {
            0 => 0,
            _ => {
                let found = square.run(&victim, &mut |_| tell(4))?;
                found.broken.iter().filter(|broken| **broken).count()
            }
        };
        let found = format!(
            "of the {} images that {} steps of PGD leave, {QUERIES} queries of Square break {broken}",
            left.len(),
            STEPS[3]
        );
        Ok(BLACK_BOX.finding(!many(broken, sample.len()), found))
    }
}

/// Whether all of `attacked` are inside `ball` and [0, 1]; images of `size` values, one after the other, in both.
pub fn perturbations(ball: Ball, attacked: &[f32], originals: &[f32], size: usize) -> Finding {
    let pairs = attacked.chunks(size).zip(originals.chunks(size));
    let outside = pairs.filter(|(image, original)| !inside(ball, image, original));
    let (outside, of) = (outside.count(), attacked.len() / size);
    let found = format!("{outside} of {of} attacked images outside");
    PERTURBATIONS.finding(outside == 0, found)
}
