//! The result of a comparison: means over the seeds, differences from the baseline, and their
//! tests.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Spread;
use crate::evaluate::Attacked;
use crate::evaluate::soundness::Finding;
use crate::experiment::Outcome;

/// Significance level for the corrected p-values.
pub const LEVEL: f64 = 0.05;

/// A row that could not be computed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailedRow {
    /// Seed of the run.
    pub seed: u64,
    /// The method's table.
    pub method: String,
    /// The mode's table, or "end-to-end".
    pub finetuning: String,
    /// The error's message.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A row of the comparison, over the seeds.
#[derive(Clone, Debug, Serialize)]
pub struct ComparisonRow {
    /// The method's table.
    pub method: String,
    /// The mode's table, or "end-to-end".
    pub finetuning: String,
    /// The seeds that it was computed for.
    pub seeds: Vec<u64>,
    /// Images evaluated for each seed: clean, and under PGD.
    pub images: usize,
    /// Clean accuracy in percent.
    pub clean: Spread,
    /// Accuracy under PGD in percent.
    pub robust: Spread,
    /// Images for each seed that the recipe's attacks beside PGD ran on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attacked_images: Option<usize>,
    /// Accuracy under these attacks in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attacked: Option<Spread>,
    /// Accuracy under PGD in percent, on the same images as these attacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub robust_on_attacked: Option<Spread>,
    /// Seconds of pretraining: the encoder, its pseudo-labels, and the encoders that either learns
    /// from.
    pub pretrain: Spread,
    /// Seconds of finetuning; none where the method trained the classifier itself.
    pub finetune: Option<Spread>,
    /// Seconds of clean and PGD accuracy.
    pub evaluate: Spread,
    /// Soundness checks of all its seeds, made or not.
    pub checks: usize,
}

/// Robust accuracy under PGD after adversarial full finetuning less that after standard linear
/// finetuning, in points.
#[derive(Clone, Debug, Serialize)]
pub struct FinetuningGap {
    /// The method's table.
    pub method: String,
    /// Points, over the seeds that have both.
    pub points: Spread,
}

/// An accuracy by which methods are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ComparedAccuracy {
    /// Under the recipe's attacks beside PGD.
    Attacked,
    /// Under PGD.
    Robust,
    /// On clean images.
    Clean,
}

impl ComparedAccuracy {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 3] = [Self::Attacked, Self::Robust, Self::Clean];

    /// The accuracy in percent; none where the suite `like` did not run.
    pub fn of(self, outcome: &Outcome, like: Option<&Attacked>) -> Option<f64> {
        match self {
            Self::Attacked => {
                let attacked = same_suite(outcome, like?)?;
                Some(100.0 * attacked.robust_accuracy())
            }
            Self::Robust => Some(100.0 * outcome.robust_accuracy),
            Self::Clean => Some(100.0 * outcome.clean_accuracy),
        }
    }
}

/// Suites of attacks beside PGD that ran on a classifier, the latest first.
pub fn suites(outcome: &Outcome) -> impl Iterator<Item = &Attacked> {
    outcome.attacked.iter().chain(&outcome.other_attacks)
}

/// The outcome of the same attacks on as many images: figures of others cannot be compared.
pub fn same_suite<'a>(outcome: &'a Outcome, like: &Attacked) -> Option<&'a Attacked> {
    let names = |attacked: &Attacked| -> Vec<String> {
        let attacks = attacked.attacks.iter();
        attacks.map(|tried| tried.attack.to_string()).collect()
    };
    suites(outcome).find(|one| {
        (&one.suite, one.images) == (&like.suite, like.images) && names(one) == names(like)
    })
}

/// A method's accuracy less the baseline's, by the same mode, seed by seed.
#[derive(Clone, Debug, Serialize)]
pub struct MethodDifference {
    /// The mode's table.
    pub finetuning: String,
    /// The method's table.
    pub method: String,
    /// The accuracy that is compared.
    pub measure: ComparedAccuracy,
    /// Points, over the seeds that have both.
    pub points: Spread,
    /// p-value of a paired, two-sided t-test; none where there are fewer than two seeds, or no
    /// spread.
    pub p: Option<f64>,
    /// The p-value corrected for all differences of the comparison (Holm).
    pub p_corrected: Option<f64>,
    /// Whether the corrected p-value is below [`LEVEL`].
    pub significant: bool,
}

/// Differences that the tests of a comparison can show, by the deviations that were measured.
#[derive(Clone, Debug, Serialize)]
pub struct Power {
    /// The accuracy that is compared.
    pub measure: ComparedAccuracy,
    /// Pairs of each difference: seeds.
    pub seeds: usize,
    /// Deviation of the differences in points, over all of them.
    pub deviation: f64,
    /// Points of a true difference that a test alone shows in four of five comparisons.
    pub points: f64,
    /// The same after the correction, for the smallest of all p-values.
    pub points_corrected: f64,
}

/// Result of the test of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceVerdict {
    /// There is no test: fewer than two seeds, or no spread.
    Unknown,
    /// The difference does not exceed the noise of the seeds.
    NotShown,
    /// The method's accuracy is higher than the baseline's.
    Higher,
    /// The method's accuracy is lower than the baseline's.
    Lower,
}

impl fmt::Display for DifferenceVerdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::NotShown => "not shown",
            Self::Higher => "higher",
            Self::Lower => "lower",
        })
    }
}

impl MethodDifference {
    /// Result of its test.
    pub fn verdict(&self) -> DifferenceVerdict {
        if self.p.is_none() {
            DifferenceVerdict::Unknown
        } else if !self.significant {
            DifferenceVerdict::NotShown
        } else if self.points.mean > 0.0 {
            DifferenceVerdict::Higher
        } else {
            DifferenceVerdict::Lower
        }
    }
}

/// A soundness check of one row.
#[derive(Clone, Debug, Serialize)]
pub struct RowFinding {
    /// Seed of the run.
    pub seed: u64,
    /// The method's table.
    pub method: String,
    /// The mode's table, or "end-to-end".
    pub finetuning: String,
    /// The check and its outcome.
    #[serde(flatten)]
    pub finding: Finding,
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// This program's version.
    pub advcl_version: String,
    /// The data set.
    pub data: String,
    /// The recipe's seeds.
    pub seeds: Vec<u64>,
    /// The attacks beside PGD: "autoattack", "square", "custom".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack: Option<String>,
    /// Steps of PGD.
    pub attack_steps: usize,
    /// Methods and modes in the recipe's order.
    pub rows: Vec<ComparisonRow>,
    /// The gap of each method that has both modes.
    pub gaps: Vec<FinetuningGap>,
    /// The method that the others are compared with.
    pub baseline: Option<String>,
    /// Differences of each other method from the baseline, by mode.
    pub differences: Vec<MethodDifference>,
    /// What the tests of these differences can show; none where nothing was tested.
    pub power: Vec<Power>,
    /// Soundness checks, all rows and seeds together, made or not.
    pub checks: usize,
    /// Checks that were made and warn.
    pub warnings: Vec<RowFinding>,
    /// Checks that could not be made.
    pub not_checked: Vec<RowFinding>,
    /// Rows that could not be computed.
    pub failures: Vec<FailedRow>,
}
