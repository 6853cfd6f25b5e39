//! Resumable runs of an attack suite: the result of every batch is kept, so that an interrupted run goes on where it stopped.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::adversarial::{Adversarial, BatchInfo, ExamplesInfo};
use super::{Accuracy, Evaluator, StageProgress};
use crate::attack::{
    AttackTally, Ball, Job, JobResult, PerImage, Suite, Tally, run_confirmed, run_suite,
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

impl Attacked {
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
        Tally {
            images,
            clean,
            robust,
        }
        .require_possible(path)?;
        for AttackTally {
            attack,
            images,
            broken,
            seconds,
        } in &self.attacks
        {
            if broken > images || !(0.0..1e12).contains(seconds) {
                let found = format!("{broken} of {images} broken in {seconds} seconds");
                let place = format!("attack {attack}");
                return Err(Error::format(
                    path,
                    place,
                    "counts and times that can be",
                    found,
                ));
            }
        }
        Ok(())
    }

    /// Adds the counts of PGD on the images that this suite was run on, as far as `accuracy` has their outcomes.
    #[must_use]
    pub fn with_pgd(self, accuracy: &Accuracy) -> Self {
        let pgd = accuracy.per_image.tally_on(&self.per_image);
        Self { pgd, ..self }
    }
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

    /// Result and seconds of a batch that an earlier session finished; none without a file, or where it is of other images.
    fn load(&self, path: &Path, indices: &[usize]) -> Result<Option<(Adversarial, f64)>> {
        if !path.exists() {
            return Ok(None);
        }
        let content = files::read(path)?;
        weights::require_checksum(&content, path)?;
        let (found, info) = Adversarial::parse(&content, path)?;
        let inside = found.indices.iter().all(|index| indices.contains(index));
        let same =
            |batch: &BatchInfo| batch.tried == indices && inside && info.recipe == self.recipe;
        let finished = info.batch.as_ref().filter(|batch| same(batch));
        Ok(finished.map(|batch| (found, batch.seconds)))
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
