//! Resumable runs of an attack suite: the result of every batch is kept, so that an interrupted run goes on where it stopped.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Deserializer, Serialize};

use super::adversarial::{Adversarial, BatchInfo, ExamplesInfo};
use super::{Accuracy, Evaluator, StageProgress};
use crate::attack::{
    AttackTally, Ball, Job, JobResult, PerImage, Suite, Tally, run_confirmed, run_suite, suite_name,
};
use crate::error::{Error, Result};
use crate::files;
use crate::interval::Interval;
use crate::session::Context;
use crate::tensor::to_vec;
use crate::weights;

/// Result of an attack suite on one classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attacked {
    /// Name of the suite: "autoattack", "square", "custom".
    #[serde(deserialize_with = "read_name")]
    pub suite: String,
    /// Evaluated images.
    pub images: usize,
    /// Images that are classified correctly when clean.
    pub clean: usize,
    /// Images that are classified correctly after every attack.
    pub robust: usize,
    /// Counts and times, attack by attack.
    pub attacks: Vec<AttackTally>,
    /// Outcome of each image of the split; empty in files of earlier versions.
    #[serde(default)]
    pub per_image: PerImage,
    /// Counts of PGD on the same images, for comparison; see [`Attacked::with_pgd`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pgd: Option<Tally>,
}

/// Reads the name of a suite; files of earlier versions have both names of AutoAttack.
fn read_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    Ok(suite_name(&name).to_owned())
}

impl Attacked {
    /// Whether its attacks are more than weak ones.
    pub fn is_thorough(&self) -> bool {
        !self.attacks.iter().all(|tried| tried.attack.is_weak())
    }

    /// Share of all images that no attack broke, in [0, 1].
    pub fn robust_accuracy(&self) -> f64 {
        self.robust as f64 / self.images as f64
    }

    /// Share of all images that no attack broke, with its 95 % interval; none without images.
    pub fn robust_interval(&self) -> Option<Interval> {
        Interval::wilson(self.robust, self.images)
    }

    /// Refuses counts that cannot be, of a file that was changed.
    ///
    /// # Errors
    /// [`Error::Format`] naming `path`.
    pub fn require_possible(&self, path: &Path) -> Result<()> {
        let Self {
            images,
            clean,
            robust,
            ..
        } = *self;
        let tally = Tally {
            images,
            clean,
            robust,
        };
        tally.require_possible(path)?;
        self.per_image.require_counts(&tally, path)?;
        let mut left = clean;
        for AttackTally {
            attack,
            images,
            broken,
            seconds,
        } in &self.attacks
        {
            if *images != left || broken > images || !is_time(*seconds) {
                let expected = format!("some of {left} images, in a time that can be");
                let found = format!("{broken} of {images} broken in {seconds} seconds");
                let place = format!("attack {attack}");
                return Err(Error::format(path, place, expected, found));
            }
            // The next attack gets the images that this one left.
            left -= broken;
        }
        if robust == left {
            return Ok(());
        }
        let expected = format!("{left}, which the attacks left");
        Err(Error::format(path, "robust", expected, robust.to_string()))
    }

    /// Adds the counts of PGD on the images that this suite was run on, as far as `accuracy` has their outcomes.
    #[must_use]
    pub fn with_pgd(self, accuracy: &Accuracy) -> Self {
        let pgd = accuracy.per_image.tally_on(&self.per_image);
        Self { pgd, ..self }
    }
}

/// Whether a file's seconds of an attack can be.
fn is_time(seconds: f64) -> bool {
    (0.0..1e12).contains(&seconds)
}

/// A resumable run of an attack suite on one classifier.
pub struct SuiteRun<'a> {
    /// The classifier, its images and the batch size; results do not depend on the latter.
    pub evaluator: Evaluator<'a>,
    /// Attacks to run.
    pub suite: &'a Suite,
    /// Threat model.
    pub ball: Ball,
    /// Indices of the images to evaluate.
    pub among: &'a [usize],
    /// Folder for the files of finished batches, which the caller removes once the result is kept elsewhere; none where
    /// an interrupted run begins anew.
    pub folder: Option<&'a Path>,
    /// Everything that the result depends on, as TOML: files of other work in the folder are not used.
    pub recipe: &'a str,
}

impl SuiteRun<'_> {
    /// Attacks those images that are classified correctly. Returns the counts, and an adversarial example of each image that
    /// was broken.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when asked to stop; [`Error::Logits`]; [`Error::Format`] for a changed file of a finished
    /// batch.
    pub fn run(&self, context: &mut Context) -> Result<(Attacked, Adversarial)> {
        let (evaluator, count) = (&self.evaluator, self.among.len());
        let name = format!("{}/clean", evaluator.name);
        let mut stage = StageProgress::new(&name, count);
        let predicted = evaluator.predict_clean(self.among, &mut stage, context)?;
        let correct = evaluator.correct(self.among, &predicted);
        let mut examples = Adversarial::of_shape(evaluator.split.images.shape());
        let (attacks, robust) = run_suite(self.suite, &correct, evaluator.batch_size, |job| {
            let path = self.folder.map(|folder| batch_file(folder, job));
            let finished = path.as_deref().map(|path| self.load(path, job.indices));
            let (found, seconds) = match finished.transpose()?.flatten() {
                Some(finished) => finished,
                None => self.attack(job, path.as_deref(), context)?,
            };
            let broken = found.indices.clone();
            examples.extend(found);
            Ok(JobResult { broken, seconds })
        })?;
        let mut examples = examples.of_all_ranks();
        examples.sort();
        let all = evaluator.split.images.len();
        let outcome = Attacked {
            suite: self.suite.name().to_owned(),
            images: count,
            clean: correct.len(),
            robust: robust.len(),
            attacks,
            per_image: PerImage::new(all, self.among, &correct, &robust),
            pgd: None,
        };
        Ok((outcome, examples))
    }

    /// Runs one attack on one batch and keeps the result in `path`, where there is one.
    fn attack(
        &self,
        job: &Job,
        path: Option<&Path>,
        context: &mut Context,
    ) -> Result<(Adversarial, f64)> {
        let started = Instant::now();
        let evaluator = &self.evaluator;
        let stage = format!("{}/{}", evaluator.name, job.attack.kind());
        let batch = evaluator.batch(job.indices, &context.device);
        let victim = evaluator.victim(&batch, self.ball, context.seed);
        let result = run_confirmed(job.attack, &victim, &stage, &mut |share| {
            let done = job.done + (share * job.indices.len() as f64) as usize;
            context.progress(&stage, done, job.total, "images")
        })?;
        let mut found = Adversarial::of_shape(evaluator.split.images.shape());
        let values = to_vec(result.images);
        let size = evaluator.split.images.image_len();
        for (row, &index) in job.indices.iter().enumerate() {
            if result.broken[row] {
                found.indices.push(index);
                found.images.extend(&values[row * size..][..size]);
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        if let (Some(folder), Some(path)) = (self.folder, path) {
            // Every rank keeps its own batches.
            std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
            let batch = BatchInfo {
                tried: job.indices.to_vec(),
                seconds,
            };
            found.save_here(path, &self.info(Some(batch)))?;
        }
        Ok((found, seconds))
    }

    /// Result and seconds of a batch that an earlier session finished; none without a file, or where this run would not have made
    /// such a one: of other images, or with an example twice.
    fn load(&self, path: &Path, indices: &[usize]) -> Result<Option<(Adversarial, f64)>> {
        if !path.exists() {
            return Ok(None);
        }
        let content = files::read(path)?;
        weights::require_checksum(&content, path)?;
        let (found, info) = Adversarial::parse(&content, path)?;
        // Examples are in the order of the batch.
        let mut tried = indices.iter();
        let in_order = (found.indices.iter()).all(|index| tried.any(|other| other == index));
        let fits = in_order
            && found.shape == self.evaluator.split.images.shape()
            && info.recipe == self.recipe;
        let finished = |batch: &BatchInfo| fits && batch.tried == indices && is_time(batch.seconds);
        let batch = info.batch.filter(finished);
        Ok(batch.map(|batch| (found, batch.seconds)))
    }

    /// Description in a file of this run's examples; `batch` where they are those of a single batch.
    pub fn info(&self, batch: Option<BatchInfo>) -> ExamplesInfo {
        ExamplesInfo {
            among: self.among.to_vec(),
            classifier: self.evaluator.name.to_owned(),
            norm: self.ball.norm,
            radius: self.ball.radius,
            recipe: self.recipe.to_owned(),
            batch,
        }
    }
}

fn batch_file(folder: &Path, job: &Job) -> PathBuf {
    let (number, kind, batch) = (job.number, job.attack.kind(), job.batch);
    folder.join(format!("{number:02}-{kind}-{batch:05}.safetensors"))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::attack::{AttackKind, Norm};
    use crate::data::{Images, Split};

    #[test]
    fn a_kept_batch_that_the_run_would_not_have_made_is_attacked_again() {
        // Two pixels, which are the logits. The third image is near the boundary.
        let pixels = vec![200, 100, 100, 200, 140, 120, 0, 255];
        let split = Split {
            images: Images::new(pixels, [1, 1, 2]),
            labels: vec![0, 1, 0, 1],
        };
        let logits = |images: Tensor<4>| {
            let [batch, ..] = images.dims();
            images.reshape([batch, 2])
        };
        let suite = Suite::named("fgsm").expect("an attack");
        let folder = tempfile::tempdir().expect("a folder");
        let run = SuiteRun {
            evaluator: Evaluator {
                name: "simclr/slf",
                logits: &logits,
                classes: 2,
                split: &split,
                batch_size: 4,
            },
            suite: &suite,
            ball: Ball {
                norm: Norm::Linf,
                radius: 0.1,
            },
            among: &[0, 1, 2, 3],
            folder: Some(folder.path()),
            recipe: "seed = 3\n",
        };
        let mut context = Context::cpu().expect("a CPU");
        let (attacked, examples) = run.run(&mut context).expect("logits");
        assert_eq!((attacked.clean, attacked.robust), (4, 3));
        assert_eq!(examples.indices, [2]);
        let path = folder.path().join("00-fgsm-00000.safetensors");
        let (found, info) = Adversarial::load(&path).expect("the batch");
        let batch = info.batch.expect("a batch");
        type Change = fn(&mut Adversarial, &mut BatchInfo);
        let changes: [(&str, Change); 6] = [
            ("another shape", |found, _| found.shape = [1, 2, 1]),
            ("smaller images", |found, _| {
                found.shape = [1, 1, 1];
                found.images.truncate(1);
            }),
            ("an example twice", |found, _| {
                found.indices.push(2);
                found.images.extend([0.5, 0.5]);
            }),
            ("another order", |found, _| {
                found.indices.push(0);
                found.images.extend([0.5, 0.5]);
            }),
            ("another image", |found, _| found.indices = vec![9]),
            ("a time before it began", |_, batch| batch.seconds = -1.0),
        ];
        for (what, change) in changes {
            let (mut found, mut batch) = (found.clone(), batch.clone());
            change(&mut found, &mut batch);
            found.save(&path, &run.info(Some(batch))).expect("a file");
            let (again, others) = run.run(&mut context).expect(what);
            assert_eq!((again.clean, again.robust), (4, 3), "{what}");
            assert!(again.attacks[0].seconds >= 0.0, "{what}");
            assert_eq!(others, examples, "{what}");
        }
        // What it would have made is used as it is.
        let seconds = 1234.5;
        let batch = BatchInfo { seconds, ..batch };
        found.save(&path, &run.info(Some(batch))).expect("a file");
        let (again, others) = run.run(&mut context).expect("logits");
        assert_eq!(again.attacks[0].seconds, seconds);
        assert_eq!(others, examples);
    }

    #[test]
    fn a_suite_has_one_name_and_is_thorough_with_one_attack_that_is() {
        let read = |suite: &str, attacks: &[&str]| -> Attacked {
            let tried = attacks.iter().map(|attack| {
                serde_json::json!({"attack": attack, "images": 1, "broken": 0, "seconds": 1.0})
            });
            let attacks: Vec<_> = tried.collect();
            let attacked = serde_json::json!({
                "suite": suite, "images": 1, "clean": 1, "robust": 1, "attacks": attacks,
            });
            serde_json::from_value(attacked).expect("an outcome")
        };
        for (suite, attacks, name, thorough) in [
            ("standard", &["apgd-ce", "square"][..], "autoattack", true),
            ("autoattack", &["apgd-ce"], "autoattack", true),
            ("custom", &["fgsm", "pgd", "noise"], "custom", false),
            ("custom", &["fgsm", "fab"], "custom", true),
        ] {
            let read = read(suite, attacks);
            assert_eq!((read.suite.as_str(), read.is_thorough()), (name, thorough));
        }
    }

    #[test]
    fn counts_of_a_suite_that_contradict_each_other_are_refused() {
        let tried = |attack, images, broken| AttackTally {
            attack,
            images,
            broken,
            seconds: 1.0,
        };
        let whole = Attacked {
            suite: "custom".to_owned(),
            images: 5,
            clean: 4,
            robust: 1,
            attacks: vec![
                tried(AttackKind::ApgdCe, 4, 2),
                tried(AttackKind::Square, 2, 1),
            ],
            per_image: PerImage::new(5, &[0, 1, 2, 3, 4], &[0, 1, 2, 3], &[3]),
            pgd: None,
        };
        let path = Path::new("attack.json");
        whole.require_possible(path).expect("its own counts");
        let refused = |words: &str, change: &dyn Fn(&mut Attacked)| {
            let mut changed = whole.clone();
            change(&mut changed);
            let error = changed.require_possible(path).expect_err(words);
            assert!(error.to_string().contains(words), "{error}");
        };
        refused("attack apgd-ce: expected some of 4 images", &|one| {
            one.attacks[0].images = 5
        });
        refused("attack square: expected some of 2 images", &|one| {
            one.attacks[1] = tried(AttackKind::Square, 4, 4);
        });
        refused("attack square: expected some of 2 images", &|one| {
            one.attacks[1].broken = 3
        });
        refused("attack square: expected some of 2 images", &|one| {
            one.attacks[1].seconds = -1.0
        });
        refused("robust: expected 2, which the attacks left", &|one| {
            one.attacks[1].broken = 0
        });
        refused("per_image: expected 1 robust, 4 correct", &|one| {
            one.per_image.0.truncate(4)
        });
    }
}
