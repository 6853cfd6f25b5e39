//! Checks of a classifier's outputs, without any attack.

use burn::tensor::Tensor;

use super::balance::class_balance;
use super::{CheckName, Finding, SoundnessChecks};
use crate::error::Result;
use crate::evaluate::{Evaluator, LabeledBatch, StageProgress};
use crate::logits::LogitRows;
use crate::session::Context;
use crate::tensor::to_vec;

/// Largest difference between the same sums in another order, as a share of the largest logit.
const ROUNDING: f32 = 1e-3;

/// Largest difference between the same sums in the same order, as a share of the largest logit; on a GPU they may differ.
const REPEATED: f32 = 1e-5;

/// Number of images that are classified in a batch of their own.
const ALONE: usize = 8;

impl SoundnessChecks<'_> {
    /// Checks the outputs for a sample of the images, and the predictions for all of them.
    pub(super) fn check_outputs(
        &self,
        sample: &LabeledBatch,
        context: &mut Context,
    ) -> Result<Vec<Finding>> {
        let evaluator = &self.evaluator;
        let stage = format!("{}/soundness", evaluator.name);
        let rows = LogitRows::read(self.logits_of(&sample.images));
        rows.require_finite(&stage, &sample.indices)?;
        let (logits, classes) = (rows.values(), rows.classes());
        let largest = logits.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
        let mut findings = vec![are_logits(logits, classes)];

        let again = gap(logits, &to_vec(self.logits_of(&sample.images)));
        let found = format!("the same images twice: logits differ by {again:.1e} of {largest:.1e}");
        findings.push(CheckName::Deterministic.finding(again <= REPEATED * largest, found));
        self.report(&findings, context)?;

        let count = sample.labels.len().min(ALONE);
        let alone = (0..count).map(|i| (evaluator.logits)(sample.images.clone().narrow(0, i, 1)));
        let alone = to_vec(Tensor::cat(alone.collect(), 0));
        let alone = gap(&logits[..count * classes], &alone);
        // A random classifier varies between calls anyway, which `deterministic` reports: twice that variation is tolerated.
        let tolerance = (ROUNDING * largest).max(2.0 * again);
        findings.push(if count == 1 {
            CheckName::BatchIndependent.not_checked("only one image")
        } else {
            let found =
                format!("{count} images alone: logits differ by {alone:.1e} of {largest:.1e}");
            CheckName::BatchIndependent.finding(alone <= tolerance, found)
        });
        self.report(&findings, context)?;

        let all: Vec<usize> = (0..evaluator.split.images.len()).collect();
        let predicted = self.predict_all(&all, context)?;
        findings.push(self.compare_with_predict(sample, &rows, &predicted, tolerance));
        let classes = evaluator.classes.max(predicted.classes());
        let labels = &evaluator.split.labels;
        findings.push(class_balance(labels, &predicted.predictions(), classes));
        self.report(&findings, context)?;
        Ok(findings)
    }

    /// Logits of all images, computed as `advcl predict` does.
    fn predict_all(&self, all: &[usize], context: &mut Context) -> Result<LogitRows> {
        let name = format!("{}/soundness/predict", self.evaluator.name);
        let predict = Evaluator {
            logits: self.predict,
            ..self.evaluator
        };
        let clean = |batch: &[usize], context: &Context| Ok(predict.images(batch, &context.device));
        predict.logit_rows(
            all,
            &mut StageProgress::new(&name, all.len()),
            context,
            clean,
        )
    }

    /// Compares the evaluation with `advcl predict`: as many correct images, and the same predictions for the sample. Where
    /// two classes are equal up to rounding, either will do.
    fn compare_with_predict(
        &self,
        sample: &LabeledBatch,
        evaluated: &LogitRows,
        predicted: &LogitRows,
        tolerance: f32,
    ) -> Finding {
        let (labels, total) = (&self.evaluator.split.labels, predicted.rows().len());
        let classes = predicted.predictions();
        let correct = labels
            .iter()
            .zip(&classes)
            .filter(|(label, class)| label == class)
            .count();
        let clear: Vec<bool> = predicted
            .rows()
            .map(|row| is_clear(row, tolerance))
            .collect();
        let unclear = clear.iter().filter(|clear| !**clear).count();
        let pairs = sample.indices.iter().zip(evaluated.predictions());
        let other = pairs
            .filter(|(i, class)| classes[**i] != *class && clear[**i])
            .count();
        let found = format!(
            "{} of {total} images correct, {correct} by advcl predict; another class for {other} of {}",
            self.clean,
            sample.indices.len()
        );
        let holds = correct.abs_diff(self.clean) <= unclear && other == 0;
        CheckName::CleanAccuracy.finding(holds, found)
    }
}

/// Whether the prediction for one image leads by more than rounding.
fn is_clear(logits: &[f32], rounding: f32) -> bool {
    let mut sorted = logits.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted.len() < 2 || sorted[0] - sorted[1] > rounding
}

fn are_logits(outputs: &[f32], classes: usize) -> Finding {
    if classes < 2 {
        return CheckName::Logits.not_checked("only one class");
    }
    let probabilities = outputs.chunks(classes).all(|row| {
        let inside = row.iter().all(|v| (-1e-6..=1.0 + 1e-6).contains(v));
        inside && (row.iter().sum::<f32>() - 1.0).abs() < 1e-3
    });
    let (low, high) = outputs
        .iter()
        .fold((f32::MAX, f32::MIN), |(low, high), &v| {
            (low.min(v), high.max(v))
        });
    let sums = if probabilities {
        "always"
    } else {
        "not always"
    };
    let found = format!("outputs between {low:.3} and {high:.3}, {sums} with a sum of 1");
    CheckName::Logits.finding(!probabilities, found)
}

/// Largest difference between two lists; infinite where a value is not a number.
fn gap(a: &[f32], b: &[f32]) -> f32 {
    let gaps = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    gaps.fold(0.0, |most, gap| {
        if gap.is_nan() {
            f32::INFINITY
        } else {
            most.max(gap)
        }
    })
}
