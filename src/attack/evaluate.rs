//! A suite of attacks on one classifier, batch by batch: each attack sees the images that the ones before it left.

use std::time::Instant;

use burn::tensor::Tensor;

use super::{
    AttackKind, AttackResult, AttackTally, Ball, Job, JobResult, PerImage, Suite, Tally, Victim,
    run_confirmed, run_suite, select,
};
use crate::error::{Error, Result};
use crate::logits::finite_predictions;
use crate::ranks;

/// Options of [`evaluate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Seed of the attacks' random numbers.
    pub seed: u64,
    /// Images in a forward pass. Results do not depend on it, as far as a row of logits depends on its image alone.
    pub batch_size: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            batch_size: 100,
        }
    }
}

/// Progress of a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuiteProgress {
    /// Running attack; none while the clean images are classified.
    pub attack: Option<AttackKind>,
    /// Images that this step is done with.
    pub done: usize,
    /// Images of this step.
    pub total: usize,
}

/// Result of a suite.
pub struct SuiteOutcome {
    /// Outcome of each image, in the order of the images.
    pub per_image: PerImage,
    /// Counts and times, attack by attack.
    pub attacks: Vec<AttackTally>,
    /// Adversarial example of each broken image, the clean image in the other rows:
    /// `[images, channels, height, width]`.
    pub images: Tensor<4>,
}

impl SuiteOutcome {
    /// Numbers of images that are classified correctly, clean and after all attacks.
    pub fn tally(&self) -> Tally {
        self.per_image.tally()
    }
}

/// Attacks a classifier of your own: any closure from images to logits.
///
/// Images that are misclassified when clean count as broken from the start. Each attack of the suite is run on the images
/// that are left, and every adversarial example is classified once more without gradients before it counts.
///
/// The closure gets batches on the device of `images`, sometimes with autodiff, and must be differentiable unless all
/// attacks are black boxes. Its own weights should carry no autodiff. `progress` may return an error to stop.
///
/// # Shapes
/// `images`: `[images, channels, height, width]` in [0, 1]; `logits`: such a batch to `[batch, classes]`.
///
/// # Errors
/// [`Error::Input`] for images, labels or a threat model that do not fit; [`Error::Logits`] for logits that are not finite;
/// an error of `progress`.
///
/// # Examples
///
/// AutoAttack's standard suite has the name "autoattack"; FGSM and Square are faster to show.
///
/// ```
/// use advcl::attack::{self, Attack, AttackKind, Ball, Norm, Options, Square, Suite};
/// use burn::tensor::Tensor;
///
/// let device = advcl::device::open("cpu")?;
/// // Class 1 for bright images, class 0 for dark ones.
/// let model = |x: Tensor<4>| {
///     let brightness = x.flatten::<2>(1, 3).mean_dim(1);
///     Tensor::cat(vec![-brightness.clone() + 0.5, brightness - 0.5], 1)
/// };
/// let images = Tensor::cat(
///     vec![
///         Tensor::<4>::full([1, 1, 4, 4], 0.48, &device),
///         Tensor::full([1, 1, 4, 4], 0.9, &device),
///     ],
///     0,
/// );
/// let square = Square { queries: 50, ..Square::default() };
/// let suite = Suite::new(vec![Attack::published(AttackKind::Fgsm), Attack::Square(square)])?;
/// let ball = Ball { norm: Norm::Linf, radius: 8.0 / 255.0 };
/// let outcome = attack::evaluate(
///     &model, images, &[0, 1], ball, &suite, Options::default(), &mut |_| Ok(()),
/// )?;
/// let tally = outcome.tally();
/// assert_eq!((tally.images, tally.clean, tally.robust), (2, 2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn evaluate(
    logits: &dyn Fn(Tensor<4>) -> Tensor<2>,
    images: Tensor<4>,
    labels: &[usize],
    ball: Ball,
    suite: &Suite,
    options: Options,
    progress: &mut dyn FnMut(SuiteProgress) -> Result<()>,
) -> Result<SuiteOutcome> {
    check_input(&images, labels, ball, options)?;
    let count = labels.len();
    let all: Vec<usize> = (0..count).collect();
    let labels_of = |rows: &[usize]| rows.iter().map(|&row| labels[row]).collect::<Vec<_>>();
    let mut correct = Vec::new();
    for rows in all.chunks(options.batch_size) {
        let found = logits(select(&images, rows));
        let [answers, classes] = found.dims();
        if answers != rows.len() {
            let problem = format!("expected logits of {} images, found {answers}", rows.len());
            return Err(Error::input("logits", problem, "return [batch, classes]"));
        }
        if let Some(row) = rows.iter().find(|&&row| labels[row] >= classes) {
            let label = labels[*row];
            let problem = format!("expected labels below {classes}, found {label} for image {row}");
            return Err(Error::input("labels", problem, "count classes from 0"));
        }
        let predicted = finite_predictions("clean", rows, found)?;
        let pairs = rows.iter().zip(predicted);
        correct.extend(
            pairs
                .filter(|(row, class)| labels[**row] == *class)
                .map(|(row, _)| *row),
        );
        progress(SuiteProgress {
            attack: None,
            done: rows[0] + rows.len(),
            total: count,
        })?;
    }
    let mut examples = Examples::new(images.clone());
    // The images are this process's own.
    let mut attacked = |job: &Job| {
        let started = Instant::now();
        let (batch, batch_labels) = (select(&images, job.indices), labels_of(job.indices));
        let victim = Victim {
            logits,
            images: &batch,
            labels: &batch_labels,
            indices: job.indices,
            ball,
            seed: options.seed,
        };
        let kind = job.attack.kind();
        let result = run_confirmed(job.attack, &victim, kind.name(), &mut |share| {
            progress(SuiteProgress {
                attack: Some(kind),
                done: job.done + (share * job.indices.len() as f64) as usize,
                total: job.total,
            })
        })?;
        progress(SuiteProgress {
            attack: Some(kind),
            done: job.done + job.indices.len(),
            total: job.total,
        })?;
        Ok(JobResult {
            broken: examples.add(job.indices, result),
            seconds: started.elapsed().as_secs_f64(),
        })
    };
    let (attacks, robust) =
        ranks::alone(|| run_suite(suite, &correct, options.batch_size, &mut attacked))?;
    Ok(SuiteOutcome {
        per_image: PerImage::new(count, &all, &correct, &robust),
        attacks,
        images: examples.images(),
    })
}

/// Refuses what no attack can be run on.
fn check_input(images: &Tensor<4>, labels: &[usize], ball: Ball, options: Options) -> Result<()> {
    let [count, ..] = images.dims();
    if count != labels.len() {
        let problem = format!(
            "expected a label for each of {count} images, found {}",
            labels.len()
        );
        return Err(Error::input("labels", problem, ""));
    }
    if count == 0 {
        return Err(Error::input(
            "images",
            "expected at least one, found none",
            "",
        ));
    }
    if !(ball.radius >= 0.0 && ball.radius.is_finite()) {
        let problem = format!("expected 0 or more, found {}", ball.radius);
        return Err(Error::input("radius", problem, "8.0 / 255.0 is usual"));
    }
    if options.batch_size == 0 {
        let problem = "expected 1 or more, found 0";
        return Err(Error::input("batch_size", problem, "100 is usual"));
    }
    // Also false for what is not a number.
    let from_0 = images.clone().greater_equal_elem(0.0);
    let in_box = from_0.bool_and(images.clone().lower_equal_elem(1.0));
    if !in_box.all().into_scalar::<bool>() {
        let problem = "expected pixels in [0, 1], found others";
        let hint = "normalise inside the closure, so that the radius is in pixels";
        return Err(Error::input("images", problem, hint));
    }
    Ok(())
}

/// Adversarial examples found so far, beside the clean images.
struct Examples {
    /// The clean images, then batches of results.
    tensors: Vec<Tensor<4>>,
    /// Row of each image in `tensors`, one below the other.
    rows: Vec<usize>,
    next: usize,
}

impl Examples {
    fn new(images: Tensor<4>) -> Self {
        let [count, ..] = images.dims();
        Self {
            tensors: vec![images],
            rows: (0..count).collect(),
            next: count,
        }
    }

    /// Keeps the broken images of a batch and returns their indices.
    fn add(&mut self, indices: &[usize], result: AttackResult) -> Vec<usize> {
        let places: Vec<usize> = (0..indices.len())
            .filter(|&row| result.broken[row])
            .collect();
        if !places.is_empty() {
            self.tensors.push(select(&result.images, &places));
        }
        let broken: Vec<usize> = places.iter().map(|&place| indices[place]).collect();
        for &index in &broken {
            self.rows[index] = self.next;
            self.next += 1;
        }
        broken
    }

    fn images(self) -> Tensor<4> {
        select(&Tensor::cat(self.tensors, 0), &self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Attack, ImageOutcome, Norm, Square};
    use super::*;
    use crate::device;
    use crate::tensor::to_vec;
    use burn::tensor::TensorData;

    /// Brightness on the left against brightness on the right, and a third class that never wins.
    fn model(x: Tensor<4>) -> Tensor<2> {
        let half = |at| x.clone().narrow(3, at, 2).flatten::<2>(1, 3).mean_dim(1);
        let (left, right) = (half(0), half(2));
        let third = left.clone() * 0.0 - 1.0;
        Tensor::cat(vec![left, right, third], 1)
    }

    fn images(contrasts: &[f32]) -> Tensor<4> {
        let device = device::open("cpu").expect("the CPU");
        let image = |c: &f32| [0.5 + c, 0.5 + c, 0.5 - c, 0.5 - c].repeat(3);
        let values: Vec<f32> = contrasts.iter().flat_map(image).collect();
        Tensor::from_data(TensorData::new(values, [contrasts.len(), 1, 3, 4]), &device)
    }

    fn suite() -> Suite {
        let square = Attack::Square(Square {
            queries: 30,
            ..Square::default()
        });
        let published = Attack::published;
        Suite::new(vec![
            published(AttackKind::Fgsm),
            published(AttackKind::ApgdCe),
            square,
        ])
        .expect("a suite")
    }

    const BALL: Ball = Ball {
        norm: Norm::Linf,
        radius: 0.1,
    };

    fn run(images: Tensor<4>, labels: &[usize], options: Options) -> Result<SuiteOutcome> {
        evaluate(&model, images, labels, BALL, &suite(), options, &mut |_| {
            Ok(())
        })
    }

    #[test]
    fn outcomes_are_those_of_the_distances_and_do_not_depend_on_the_batch() {
        let contrasts = [0.05, 0.2, -0.3, 0.09, -0.02, 0.3, 0.11];
        let labels = [0, 0, 0, 0, 1, 0, 0];
        let all = images(&contrasts);
        let whole = run(all.clone(), &labels, Options::default()).expect("an outcome");
        use ImageOutcome::{Broken, Robust, Wrong};
        let expected = [Broken, Robust, Wrong, Broken, Broken, Robust, Robust];
        assert_eq!(whole.per_image.0, expected);
        assert_eq!(whole.tally().robust, 3);
        assert_eq!(whole.attacks.len(), 3);
        let moved = to_vec(whole.images.clone());
        let clean = to_vec(all.clone());
        for (row, outcome) in expected.iter().enumerate() {
            let own = row * 12..(row + 1) * 12;
            let same = moved[own.clone()] == clean[own.clone()];
            assert_eq!(same, *outcome != Broken, "image {row}");
            assert!(BALL.contains(&moved[own.clone()], &clean[own]));
        }
        for batch_size in [1, 2, 3, 6] {
            let options = Options {
                batch_size,
                ..Options::default()
            };
            let other = run(all.clone(), &labels, options).expect("an outcome");
            assert_eq!(other.per_image, whole.per_image);
            assert_eq!(to_vec(other.images), moved, "batches of {batch_size}");
        }
    }

    #[test]
    fn input_that_does_not_fit_is_refused_with_the_reason() {
        let two = || images(&[0.2, -0.2]);
        let words = |result: Result<SuiteOutcome>| result.err().expect("a refusal").to_string();
        let options = Options::default();
        let found = words(run(two(), &[0], options));
        assert_eq!(
            found,
            "labels: expected a label for each of 2 images, found 1"
        );
        let found = words(run(two(), &[0, 3], options));
        assert_eq!(
            found,
            "labels: expected labels below 3, found 3 for image 1"
        );
        let found = words(run(two() * 2.0, &[0, 1], options));
        assert_eq!(found, "images: expected pixels in [0, 1], found others");
        let none = Options {
            batch_size: 0,
            ..options
        };
        let found = words(run(two(), &[0, 1], none));
        assert_eq!(found, "batch_size: expected 1 or more, found 0");
        let ball = Ball {
            radius: f64::NAN,
            ..BALL
        };
        let nan = evaluate(&model, two(), &[0, 1], ball, &suite(), options, &mut |_| {
            Ok(())
        });
        assert_eq!(words(nan), "radius: expected 0 or more, found NaN");
    }

    #[test]
    fn progress_is_reported_for_every_attack_and_can_stop() {
        let mut seen = Vec::new();
        let options = Options {
            batch_size: 2,
            ..Options::default()
        };
        let all = images(&[0.2, 0.3, 0.4]);
        let outcome = evaluate(
            &model,
            all.clone(),
            &[0; 3],
            BALL,
            &suite(),
            options,
            &mut |p| {
                assert!(p.done <= p.total, "{p:?}");
                seen.push((p.attack, p.done));
                Ok(())
            },
        );
        assert_eq!(outcome.expect("an outcome").tally().robust, 3);
        for attack in [None, Some(AttackKind::Fgsm), Some(AttackKind::Square)] {
            assert!(seen.contains(&(attack, 3)), "{attack:?} in {seen:?}");
        }
        let stop = evaluate(
            &model,
            all,
            &[0; 3],
            BALL,
            &suite(),
            options,
            &mut |progress| match progress.attack {
                Some(_) => Err(Error::input("stop", "requested", "")),
                None => Ok(()),
            },
        );
        assert_eq!(stop.err().expect("a stop").to_string(), "stop: requested");
    }
}
