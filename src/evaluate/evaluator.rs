//! The one way from a classifier, images and an attack to predictions and accuracies, batch by batch.

use std::ops::Range;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::attack::{Attacker, Ball, PerImage, Tally, Victim, in_stage, select};
use crate::data::Split;
use crate::error::{Error, Result};
use crate::logits::LogitRows;
use crate::ranks;
use crate::session::Context;
use crate::tensor::to_tensor;

/// Position of a loop over images within its stage, for progress events.
#[derive(Clone, Debug)]
pub struct StageProgress<'a> {
    /// Name of the stage in events: METHOD/MODE/….
    pub name: &'a str,
    /// Images that are done.
    pub done: usize,
    /// Images of the whole stage.
    pub total: usize,
}

impl<'a> StageProgress<'a> {
    /// Beginning of a stage with this many images.
    pub fn new(name: &'a str, total: usize) -> Self {
        Self {
            name,
            done: 0,
            total,
        }
    }

    /// Calls `work` for one batch of indices after another and reports each as done.
    ///
    /// # Errors
    /// An error of `work`; [`Error::Interrupted`] when asked to stop.
    pub fn by_batch(
        &mut self,
        indices: &[usize],
        batch_size: usize,
        context: &mut Context,
        work: impl FnMut(&[usize], &mut Context) -> Result<()>,
    ) -> Result<()> {
        self.by_batch_of(indices, (0..indices.len(), 1), batch_size, context, work)
    }

    /// Calls `work` for this rank's own part of the batches alone, and takes the other ranks to be as far; the caller brings the
    /// results of all ranks together.
    ///
    /// # Errors
    /// Those of [`StageProgress::by_batch`].
    pub fn by_own_batch(
        &mut self,
        indices: &[usize],
        batch_size: usize,
        context: &mut Context,
        work: impl FnMut(&[usize], &mut Context) -> Result<()>,
    ) -> Result<()> {
        let own = ranks::own_batches(indices.len(), batch_size);
        self.by_batch_of(indices, (own, ranks::count()), batch_size, context, work)
    }

    /// Calls `work` for the batches of `own`, a part of the indices, while `ranks` work on parts of their own.
    fn by_batch_of(
        &mut self,
        indices: &[usize],
        (own, ranks): (Range<usize>, usize),
        batch_size: usize,
        context: &mut Context,
        mut work: impl FnMut(&[usize], &mut Context) -> Result<()>,
    ) -> Result<()> {
        let end = self.done + indices.len();
        for batch in indices[own].chunks(batch_size) {
            work(batch, context)?;
            self.done = (self.done + batch.len() * ranks).min(end);
            context.progress(self.name, self.done, self.total, "images")?;
        }
        self.done = end;
        Ok(())
    }
}

/// A classifier and the images that it is evaluated on.
///
/// Random numbers are drawn for each image by its index, and the rows of logits depend on their images alone: no result
/// depends on the batch size or on the order of the images.
#[derive(Clone, Copy)]
pub struct Evaluator<'a> {
    /// Name of the classifier in events: METHOD/MODE.
    pub name: &'a str,
    /// Classifier, from `[batch, channels, height, width]` in [0, 1] to logits `[batch, classes]`.
    pub logits: &'a dyn Fn(Tensor<4>) -> Tensor<2>,
    /// Number of classes.
    pub classes: usize,
    /// Images and labels.
    pub split: &'a Split,
    /// Images in a forward pass.
    pub batch_size: usize,
}

/// Images on a device with their labels.
pub struct LabeledBatch {
    /// Pixels, `[batch, channels, height, width]`.
    pub images: Tensor<4>,
    /// Label of each image.
    pub labels: Vec<usize>,
    /// Index of each image in its split.
    pub indices: Vec<usize>,
}

impl LabeledBatch {
    /// Every row.
    pub fn rows(&self) -> Vec<usize> {
        (0..self.labels.len()).collect()
    }

    /// The images at these rows.
    pub fn select(&self, rows: &[usize]) -> Self {
        let pick = |values: &[usize]| rows.iter().map(|&row| values[row]).collect();
        Self {
            images: select(&self.images, rows),
            labels: pick(&self.labels),
            indices: pick(&self.indices),
        }
    }

    /// Parts of at most `size` images, in their order.
    pub fn split(&self, size: usize) -> Vec<Self> {
        self.rows()
            .chunks(size)
            .map(|rows| self.select(rows))
            .collect()
    }
}

/// Accuracy, clean and under PGD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Counts over all images.
    pub total: Tally,
    /// Counts by class, in label order.
    pub classes: Vec<Tally>,
    /// Outcome of each image of the split; empty in files of earlier versions.
    #[serde(default)]
    pub per_image: PerImage,
}

impl Accuracy {
    /// Refuses counts that cannot be, or that contradict each other, of a file that was changed.
    ///
    /// # Errors
    /// [`Error::Format`] naming `path`.
    pub fn require_possible(&self, path: &Path) -> Result<()> {
        for tally in self.classes.iter().chain([&self.total]) {
            tally.require_possible(path)?;
        }
        let sum = |count: fn(&Tally) -> usize| {
            let counts = self.classes.iter().map(count);
            counts.fold(0, usize::saturating_add)
        };
        let found = Tally {
            images: sum(|tally| tally.images),
            clean: sum(|tally| tally.clean),
            robust: sum(|tally| tally.robust),
        };
        if found != self.total {
            let expected = format!("{} in all classes together", self.total.in_words());
            let found = found.in_words();
            return Err(Error::format(path, "accuracy.classes", expected, found));
        }
        self.per_image.require_counts(&self.total, path)
    }
}

impl Evaluator<'_> {
    /// Clean images at these indices.
    pub fn images(&self, indices: &[usize], device: &Device) -> Tensor<4> {
        to_tensor(self.split.images.batch(indices), device)
    }

    /// Labels of the images at these indices.
    pub fn labels(&self, indices: &[usize]) -> Vec<usize> {
        indices.iter().map(|&i| self.split.labels[i]).collect()
    }

    /// Clean images at these indices with their labels.
    pub fn batch(&self, indices: &[usize], device: &Device) -> LabeledBatch {
        LabeledBatch {
            images: self.images(indices, device),
            labels: self.labels(indices),
            indices: indices.to_vec(),
        }
    }

    /// The classifier and a batch as an attack sees them.
    pub fn victim<'a>(&'a self, batch: &'a LabeledBatch, ball: Ball, seed: u64) -> Victim<'a> {
        Victim {
            logits: self.logits,
            images: &batch.images,
            labels: &batch.labels,
            indices: &batch.indices,
            ball,
            seed,
        }
    }

    /// Last iterates of PGD on the cross-entropy for one batch of images, whether the clean ones are classified correctly
    /// or not.
    pub fn pgd(&self, indices: &[usize], attacker: Attacker, context: &Context) -> Tensor<4> {
        let batch = self.batch(indices, &context.device);
        let victim = self.victim(&batch, attacker.ball, context.seed);
        victim.last_iterates(attacker.pgd)
    }

    /// Logits of some version of the images at these indices; `images` makes it for a batch.
    ///
    /// # Errors
    /// [`Error::Logits`] for logits that are not finite; an error of `images`;
    /// [`Error::Interrupted`].
    pub fn logit_rows(
        &self,
        indices: &[usize],
        stage: &mut StageProgress,
        context: &mut Context,
        mut images: impl FnMut(&[usize], &Context) -> Result<Tensor<4>>,
    ) -> Result<LogitRows> {
        let (mut all, name) = (LogitRows::default(), stage.name);
        stage.by_own_batch(indices, self.batch_size, context, |batch, context| {
            let logits = LogitRows::read((self.logits)(images(batch, context)?));
            logits.require_finite(name, batch)?;
            all.extend(logits);
            Ok(())
        })?;
        Ok(all.of_all_ranks())
    }

    /// Predicted class of some version of the images at these indices; `images` makes it for a batch.
    ///
    /// # Errors
    /// As [`Evaluator::logit_rows`].
    pub fn predict(
        &self,
        indices: &[usize],
        stage: &mut StageProgress,
        context: &mut Context,
        images: impl FnMut(&[usize], &Context) -> Result<Tensor<4>>,
    ) -> Result<Vec<usize>> {
        let logits = self.logit_rows(indices, stage, context, images)?;
        Ok(logits.predictions())
    }

    /// Predicted class of the clean images at these indices.
    ///
    /// # Errors
    /// As [`Evaluator::logit_rows`].
    pub fn predict_clean(
        &self,
        indices: &[usize],
        stage: &mut StageProgress,
        context: &mut Context,
    ) -> Result<Vec<usize>> {
        let clean = |batch: &[usize], context: &Context| Ok(self.images(batch, &context.device));
        self.predict(indices, stage, context, clean)
    }

    /// Those of the images at these indices whose prediction is their label.
    pub fn correct(&self, indices: &[usize], predicted: &[usize]) -> Vec<usize> {
        let pairs = indices.iter().zip(predicted);
        let correct = pairs.filter(|(index, class)| self.split.labels[**index] == **class);
        correct.map(|(index, _)| *index).collect()
    }

    /// Accuracy on the images at `among`, clean and under PGD on the cross-entropy.
    ///
    /// Only images that are classified correctly are attacked; the others count as not robust.
    ///
    /// # Errors
    /// As [`Evaluator::logit_rows`].
    pub fn accuracy(
        &self,
        among: &[usize],
        attacker: Attacker,
        context: &mut Context,
    ) -> Result<Accuracy> {
        let attack = format!("{}/pgd-{}", self.name, attacker.pgd.steps);
        let clean = format!("{attack}/clean");
        let predicted =
            self.predict_clean(among, &mut StageProgress::new(&clean, among.len()), context)?;
        let correct = self.correct(among, &predicted);

        let mut robust = Vec::new();
        let mut stage = StageProgress::new(&attack, correct.len());
        stage.by_own_batch(&correct, self.batch_size, context, |batch, context| {
            let images = self.batch(batch, &context.device);
            let victim = self.victim(&images, attacker.ball, context.seed);
            let result = attacker.pgd.attack(&victim, 1, &mut |_| Ok(()));
            let result = result.map_err(in_stage(&attack))?;
            let left = batch
                .iter()
                .zip(result.broken)
                .filter(|(_, broken)| !broken);
            robust.extend(left.map(|(index, _)| *index));
            Ok(())
        })?;
        let robust = ranks::gather_each("robust images", robust).concat();
        let count = self.split.images.len();
        Ok(self.summed_up(PerImage::new(count, among, &correct, &robust)))
    }

    /// Counts in all and by class.
    fn summed_up(&self, per_image: PerImage) -> Accuracy {
        let of_class = |class: usize| {
            let pairs = per_image.0.iter().zip(&self.split.labels);
            pairs
                .filter(move |(_, label)| **label == class)
                .map(|(outcome, _)| *outcome)
                .collect()
        };
        Accuracy {
            total: per_image.tally(),
            classes: (0..self.classes).map(of_class).collect(),
            per_image,
        }
    }
}
