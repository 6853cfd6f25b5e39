//! Checks of what a classifier says, without any attack.

use burn::tensor::Tensor;

use super::climb::Climber;
use super::{BATCH, CLEAN, DETERMINISTIC, Finding, LOGITS, Suspect};
use crate::error::Result;
use crate::evaluate::{predictions, require_finite};
use crate::session::Context;
use crate::tensor::{to_tensor, to_vec};

/// The same sums in another order differ by less than this share of the largest logit.
const ROUNDING: f32 = 1e-3;

/// The same sums in the same order differ by less; on a GPU they may.
const REPEATED: f32 = 1e-5;

/// So many images are looked at alone.
const ALONE: usize = 8;

impl Suspect<'_> {
    pub(super) fn of_outputs(
        &self,
        stage: &str,
        indices: &[usize],
        images: &Tensor<4>,
        climber: &Climber,
        context: &mut Context,
    ) -> Result<Vec<Finding>> {
        let logits = climber.logits_of(images);
        let classes = logits.dims()[1];
        let said = predictions(logits.clone());
        let logits = to_vec(logits);
        for (&index, row) in indices.iter().zip(logits.chunks(classes)) {
            require_finite(stage, index, row)?;
        }
        let largest = logits.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
        let mut findings = vec![are_logits(&logits, classes)];

        let again = gap(&logits, &to_vec(climber.logits_of(images)));
        let found = format!("the same images twice: logits differ by {again:.1e} of {largest:.1e}");
        findings.push(DETERMINISTIC.finding(again <= REPEATED * largest, found));
        context.progress(stage, findings.len(), 9, "checks")?;

        let count = indices.len().min(ALONE);
        let alone = (0..count).map(|i| (self.logits)(images.clone().narrow(0, i, 1)));
        let alone = gap(
            &logits[..count * classes],
            &to_vec(Tensor::cat(alone.collect(), 0)),
        );
        let found = format!("{count} images alone: logits differ by {alone:.1e} of {largest:.1e}");
        // Lots are drawn anew for every call; that is another check's.
        let rounding = (ROUNDING * largest).max(2.0 * again);
        findings.push(match indices.len() {
            1 => BATCH.cannot_tell("there is one image"),
            _ => BATCH.finding(alone <= rounding, found),
        });
        context.progress(stage, findings.len(), 9, "checks")?;

        findings.push(self.is_what_predict_says(indices, &said, rounding, context)?);
        context.progress(stage, findings.len(), 9, "checks")?;
        Ok(findings)
    }

    /// All judged images, by the way of `advcl predict`: as many right, and the same said of the sample. Where two classes are
    /// equal to rounding, either will do.
    fn is_what_predict_says(
        &self,
        indices: &[usize],
        said: &[usize],
        rounding: f32,
        context: &mut Context,
    ) -> Result<Finding> {
        let (split, total) = (self.split, self.split.images.len());
        let stage = format!("{}/soundness", self.classifier);
        let (mut classes, mut sure) = (Vec::new(), Vec::new());
        for chunk in (0..total).collect::<Vec<_>>().chunks(self.batch_size) {
            let batch = to_tensor(split.images.batch(chunk), &context.device);
            let logits = (self.predict)(batch);
            classes.extend(predictions(logits.clone()));
            let width = logits.dims()[1];
            let logits = to_vec(logits);
            sure.extend(logits.chunks(width).map(|row| is_sure(row, rounding)));
            context.progress(&stage, 3, 9, "checks")?;
        }
        let right = |i: &usize| classes[*i] == split.labels[*i];
        let right = (0..total).filter(right).count();
        let unsure = sure.iter().filter(|sure| !**sure).count();
        let differs = |(i, said): &(&usize, &usize)| classes[**i] != **said && sure[**i];
        let other = indices.iter().zip(said).filter(differs).count();
        let found = format!(
            "{} of {total} images right, {right} by the way of advcl predict; another class for {other} of {}",
            self.clean,
            indices.len()
        );
        let holds = right.abs_diff(self.clean) <= unsure && other == 0;
        Ok(CLEAN.finding(holds, found))
    }
}

/// Whether no rounding could make another class of it. # Shapes: the logits of one image.
fn is_sure(logits: &[f32], rounding: f32) -> bool {
    let mut sorted = logits.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted.len() < 2 || sorted[0] - sorted[1] > rounding
}

fn are_logits(outputs: &[f32], classes: usize) -> Finding {
    if classes < 2 {
        return LOGITS.cannot_tell("there is one class");
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
    LOGITS.finding(!probabilities, found)
}

/// The largest difference; infinite where one is no number.
fn gap(a: &[f32], b: &[f32]) -> f32 {
    let gaps = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    gaps.fold(0.0, |most, gap| match gap.is_nan() {
        true => f32::INFINITY,
        false => most.max(gap),
    })
}
