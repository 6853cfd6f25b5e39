//! The tables of a comparison: means over the seeds, differences from the baseline, and their tests.

use std::fmt;

use serde::Serialize;

use super::{Spread, holm, paired};
use crate::evaluate::Tally;
use crate::evaluate::soundness::{Finding, Soundness, Verdict};
use crate::experiment::Outcome;
use crate::finetune::{AFF, SLF};
use crate::recipe::Recipe;

/// Significance level for the corrected p-values.
pub const LEVEL: f64 = 0.05;

/// A row that could not be computed.
#[derive(Clone, Debug, Serialize)]
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
    /// Seconds of pretraining: the encoder, its pseudo-labels, and the encoders that either learns from.
    pub pretrain: Spread,
    /// Seconds of finetuning; none where the method trained the classifier itself.
    pub finetune: Option<Spread>,
    /// Seconds of clean and PGD accuracy.
    pub evaluate: Spread,
    /// Soundness checks of all its seeds, made or not.
    pub checks: usize,
}

/// Robust accuracy under PGD after adversarial full finetuning less that after standard linear finetuning, in points.
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

    /// The accuracy in percent; none where the attacks did not run.
    pub fn of(self, outcome: &Outcome) -> Option<f64> {
        match self {
            Self::Attacked => {
                let attacked = outcome.attacked.as_ref()?;
                Some(100.0 * attacked.robust_accuracy())
            }
            Self::Robust => Some(100.0 * outcome.robust_accuracy),
            Self::Clean => Some(100.0 * outcome.clean_accuracy),
        }
    }
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
    /// p-value of a paired, two-sided t-test; none where there are fewer than two seeds, or no spread.
    pub p: Option<f64>,
    /// The p-value corrected for all differences of the comparison (Holm).
    pub p_corrected: Option<f64>,
    /// Whether the corrected p-value is below [`LEVEL`].
    pub significant: bool,
}

/// What the test of a difference shows.
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
    /// What its test shows.
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
    /// Soundness checks, all rows and seeds together, made or not.
    pub checks: usize,
    /// Checks that were made and warn.
    pub warnings: Vec<RowFinding>,
    /// Checks that could not be made.
    pub not_checked: Vec<RowFinding>,
    /// Rows that could not be computed.
    pub failures: Vec<FailedRow>,
}

impl Comparison {
    /// Compares the outcomes of each seed, all of this recipe.
    pub fn new(recipe: &Recipe, outcomes: &[(u64, Outcome)], failures: Vec<FailedRow>) -> Self {
        let keys = keys(recipe, outcomes);
        let of = |method: &str, finetuning: &str| of(outcomes, method, finetuning);
        let rows = keys.iter().map(|(method, mode)| row(&of(method, mode)));
        let rows: Vec<ComparisonRow> = rows.collect();
        let gap = |method: &str| {
            let (full, linear) = (of(method, AFF), of(method, SLF));
            let points = paired_points(&full, &linear, ComparedAccuracy::Robust);
            (!points.is_empty()).then(|| FinetuningGap {
                method: method.to_owned(),
                points: Spread::of(&points),
            })
        };
        let entries = recipe.pretrain.entries().iter();
        let baseline = recipe.baseline();
        let findings = |verdict| findings(outcomes, verdict);
        Self {
            checks: rows.iter().map(|row| row.checks).sum(),
            advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
            data: recipe.data.source.clone(),
            seeds: recipe.seeds(),
            attack: (recipe.evaluate.attack.as_ref()).map(|suite| suite.name().to_owned()),
            attack_steps: recipe.evaluate.steps,
            rows,
            gaps: entries.filter_map(|entry| gap(&entry.name)).collect(),
            baseline: baseline.map(str::to_owned),
            differences: baseline.map_or(Vec::new(), |name| differences(name, &keys, outcomes)),
            warnings: findings(Verdict::Warns),
            not_checked: findings(Verdict::NotChecked),
            failures,
        }
    }
}

/// The method and the finetuning of every row, in the recipe's order.
fn keys(recipe: &Recipe, outcomes: &[(u64, Outcome)]) -> Vec<(String, String)> {
    let mut keys: Vec<(String, String)> = Vec::new();
    for (_, outcome) in outcomes {
        let key = (outcome.method.clone(), outcome.finetuning.clone());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    // A row that only a later seed has comes where the recipe has it.
    let place = |method: &str| {
        let entries = recipe.pretrain.entries();
        entries.iter().position(|entry| entry.name == method)
    };
    keys.sort_by_key(|(method, _)| place(method));
    keys
}

/// The outcomes of one row, by seed.
fn of<'a>(
    outcomes: &'a [(u64, Outcome)],
    method: &str,
    finetuning: &str,
) -> Vec<(u64, &'a Outcome)> {
    let same = |(_, o): &&(u64, Outcome)| o.method == method && o.finetuning == finetuning;
    outcomes.iter().filter(same).map(|(s, o)| (*s, o)).collect()
}

/// Accuracy of `a` less that of `b`, in points, for each seed that has both.
fn paired_points(
    a: &[(u64, &Outcome)],
    b: &[(u64, &Outcome)],
    measure: ComparedAccuracy,
) -> Vec<f64> {
    let difference = |(seed, a): &(u64, &Outcome)| {
        let (_, b) = b.iter().find(|(other, _)| other == seed)?;
        Some(measure.of(a)? - measure.of(b)?)
    };
    a.iter().filter_map(difference).collect()
}

/// Every method against the baseline, by mode and accuracy.
fn differences(
    baseline: &str,
    keys: &[(String, String)],
    outcomes: &[(u64, Outcome)],
) -> Vec<MethodDifference> {
    let mut modes: Vec<&String> = Vec::new();
    for (_, finetuning) in keys {
        if !modes.contains(&finetuning) {
            modes.push(finetuning);
        }
    }
    let mut differences = Vec::new();
    for finetuning in modes {
        let against = of(outcomes, baseline, finetuning);
        for measure in ComparedAccuracy::ALL {
            for (method, other) in keys {
                if other != finetuning || method == baseline {
                    continue;
                }
                let points = paired_points(&of(outcomes, method, finetuning), &against, measure);
                if !points.is_empty() {
                    differences.push(MethodDifference {
                        finetuning: finetuning.clone(),
                        method: method.clone(),
                        measure,
                        points: Spread::of(&points),
                        p: paired(&points),
                        p_corrected: None,
                        significant: false,
                    });
                }
            }
        }
    }
    // One correction for them all: a table with forty differences must not claim two by chance.
    let corrected = holm(&differences.iter().map(|d| d.p).collect::<Vec<_>>());
    for (difference, p_corrected) in differences.iter_mut().zip(corrected) {
        difference.p_corrected = p_corrected;
        difference.significant = p_corrected.is_some_and(|p| p < LEVEL);
    }
    differences
}

/// The checks with this outcome, row by row.
fn findings(outcomes: &[(u64, Outcome)], verdict: Verdict) -> Vec<RowFinding> {
    let mut found = Vec::new();
    for (seed, outcome) in outcomes {
        let of_row = outcome
            .soundness
            .iter()
            .flat_map(|all: &Soundness| all.with(verdict));
        found.extend(of_row.map(|finding| RowFinding {
            seed: *seed,
            method: outcome.method.clone(),
            finetuning: outcome.finetuning.clone(),
            finding: finding.clone(),
        }));
    }
    found
}

/// The number of checks of a row's seeds.
fn checks(outcomes: &[(u64, &Outcome)]) -> usize {
    let soundness = outcomes.iter().filter_map(|(_, o)| o.soundness.as_ref());
    soundness.map(|all| all.findings.len()).sum()
}

/// Counts of PGD on the images that the attacks beside it ran on, where they are known.
pub fn pgd_on_attacked(outcome: &Outcome) -> Option<Tally> {
    let attacked = outcome.attacked.as_ref()?;
    let total = &outcome.accuracy.total;
    (attacked.images == total.images).then(|| total.clone())
}

/// A row over its seeds, of which there is at least one.
fn row(outcomes: &[(u64, &Outcome)]) -> ComparisonRow {
    let first = outcomes[0].1;
    let spread = |value: &dyn Fn(&Outcome) -> f64| {
        let values: Vec<f64> = outcomes.iter().map(|(_, o)| value(o)).collect();
        Spread::of(&values)
    };
    // A mean of what only some seeds have would be of other seeds than its neighbours in the table.
    let of_all = |value: &dyn Fn(&Outcome) -> Option<f64>| {
        let values: Option<Vec<f64>> = outcomes.iter().map(|(_, o)| value(o)).collect();
        values.map(|values| Spread::of(&values))
    };
    let on_attacked = |outcome: &Outcome| {
        let tally = pgd_on_attacked(outcome)?;
        Some(100.0 * tally.robust as f64 / tally.images as f64)
    };
    let finetuned = outcomes.iter().all(|(_, o)| o.seconds.finetune > 0.0);
    let attacked = of_all(&|o| ComparedAccuracy::Attacked.of(o));
    ComparisonRow {
        method: first.method.clone(),
        finetuning: first.finetuning.clone(),
        seeds: outcomes.iter().map(|(seed, _)| *seed).collect(),
        images: first.images,
        clean: spread(&|o| 100.0 * o.clean_accuracy),
        robust: spread(&|o| 100.0 * o.robust_accuracy),
        attacked_images: attacked.and(first.attacked.as_ref()).map(|all| all.images),
        attacked,
        robust_on_attacked: of_all(&on_attacked),
        pretrain: spread(&|o| o.seconds.pretrain),
        finetune: finetuned.then(|| spread(&|o| o.seconds.finetune)),
        evaluate: spread(&|o| o.seconds.evaluate),
        checks: checks(outcomes),
    }
}
