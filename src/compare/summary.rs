//! Means over the seeds, differences from the baseline, and their tests, computed from the outcomes
//! of all runs.

use super::comparison::{
    ComparedAccuracy, Comparison, ComparisonRow, FailedRow, FinetuningGap, LEVEL, MethodDifference,
    Power, RowFinding, same_suite, suites,
};
use super::{Spread, detectable, holm, paired};
use crate::evaluate::Attacked;
use crate::evaluate::soundness::{Soundness, Verdict};
use crate::experiment::Outcome;
use crate::finetune::{AFF, SLF};
use crate::recipe::Recipe;

impl Comparison {
    /// Compares outcomes of this recipe, each with its seed.
    pub fn new(recipe: &Recipe, outcomes: &[(u64, Outcome)], failures: Vec<FailedRow>) -> Self {
        Self::of_methods(recipe, &[], outcomes, failures)
    }

    /// Compares outcomes of some of the recipe's methods; of all where none is named. Where the recipe's baseline is not among them,
    /// the others are held against the first of them.
    pub fn of_methods(
        recipe: &Recipe,
        methods: &[String],
        outcomes: &[(u64, Outcome)],
        failures: Vec<FailedRow>,
    ) -> Self {
        let keys = keys(recipe, outcomes);
        let of = |method: &str, finetuning: &str| of(outcomes, method, finetuning);
        let suite = compared_suite(recipe, outcomes);
        let rows = keys
            .iter()
            .map(|(method, mode)| row(&of(method, mode), suite));
        let rows: Vec<ComparisonRow> = rows.collect();
        let gap = |method: &str| {
            let (full, linear) = (of(method, AFF), of(method, SLF));
            let points = paired_points(&full, &linear, |o| ComparedAccuracy::Robust.of(o, suite));
            (!points.is_empty()).then(|| FinetuningGap {
                method: method.to_owned(),
                points: Spread::of(&points),
            })
        };
        let entries = recipe.pretrain.entries().iter();
        // Of some of the methods: the first of them, where the recipe's is not among them.
        let chosen = |name: &&str| methods.is_empty() || methods.iter().any(|own| own == name);
        let baseline = recipe.baseline().filter(chosen);
        let baseline = baseline.or(methods.first().map(String::as_str));
        let differences =
            baseline.map_or(Vec::new(), |name| differences(name, &keys, outcomes, suite));
        let findings = |verdict| findings(outcomes, verdict);
        Self {
            checks: rows.iter().map(|row| row.checks).sum(),
            advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
            data: recipe.data.source.clone(),
            seeds: recipe.seeds(),
            attack: suite.map(|suite| suite.suite.clone()),
            attack_steps: recipe.evaluate.steps,
            rows,
            gaps: entries.filter_map(|entry| gap(&entry.name)).collect(),
            baseline: baseline.map(str::to_owned),
            power: power(&differences),
            differences,
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
    // A row that only a later seed has is sorted to its place in the recipe.
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
    accuracy: impl Fn(&Outcome) -> Option<f64>,
) -> Vec<f64> {
    let difference = |(seed, a): &(u64, &Outcome)| {
        let (_, b) = b.iter().find(|(other, _)| other == seed)?;
        Some(accuracy(a)? - accuracy(b)?)
    };
    a.iter().filter_map(difference).collect()
}

/// Every method against the baseline, by mode and accuracy.
fn differences(
    baseline: &str,
    keys: &[(String, String)],
    outcomes: &[(u64, Outcome)],
    suite: Option<&Attacked>,
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
                let own = of(outcomes, method, finetuning);
                let points = paired_points(&own, &against, |outcome| measure.of(outcome, suite));
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

/// What the tests of these differences can show, for each accuracy.
fn power(differences: &[MethodDifference]) -> Vec<Power> {
    let tests = differences.iter().filter(|d| d.p.is_some()).count();
    let of = |measure: ComparedAccuracy| {
        let tested = differences
            .iter()
            .filter(|d| d.measure == measure && d.p.is_some());
        let squares = tested
            .clone()
            .filter_map(|d| Some(d.points.deviation?.powi(2)));
        let deviation = (squares.sum::<f64>() / tested.clone().count() as f64).sqrt();
        let seeds = tested.map(|d| d.points.count).min()?;
        Some(Power {
            measure,
            seeds,
            deviation,
            points: detectable(deviation, seeds, LEVEL)?,
            points_corrected: detectable(deviation, seeds, LEVEL / tests as f64)?,
        })
    };
    ComparedAccuracy::ALL.into_iter().filter_map(of).collect()
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

/// The suite of attacks beside PGD that is compared: the recipe's where it has one; of several runs of it,
/// the one that most rows have.
fn compared_suite<'a>(recipe: &Recipe, outcomes: &'a [(u64, Outcome)]) -> Option<&'a Attacked> {
    let wanted = recipe.evaluate.attack.as_ref().map(|suite| suite.name());
    let all = outcomes.iter().flat_map(|(_, outcome)| suites(outcome));
    let all = all.filter(|one| wanted.is_none_or(|name| one.suite == name));
    let rows = |like: &&Attacked| {
        let has = |(_, outcome): &&(u64, Outcome)| same_suite(outcome, like).is_some();
        outcomes.iter().filter(has).count()
    };
    all.max_by_key(rows)
}

/// A row over its seeds, of which there is at least one.
fn row(outcomes: &[(u64, &Outcome)], suite: Option<&Attacked>) -> ComparisonRow {
    let first = outcomes[0].1;
    let spread = |value: &dyn Fn(&Outcome) -> f64| {
        let values: Vec<f64> = outcomes.iter().map(|(_, o)| value(o)).collect();
        Spread::of(&values)
    };
    // A mean of some of the seeds could not be compared with its neighbours in the table.
    let of_all = |value: &dyn Fn(&Outcome) -> Option<f64>| {
        let values: Option<Vec<f64>> = outcomes.iter().map(|(_, o)| value(o)).collect();
        values.map(|values| Spread::of(&values))
    };
    let on_attacked = |outcome: &Outcome| {
        let tally = same_suite(outcome, suite?)?.pgd?;
        Some(100.0 * tally.robust as f64 / tally.images as f64)
    };
    let finetuned = outcomes.iter().all(|(_, o)| o.seconds.finetune > 0.0);
    let attacked = of_all(&|o| ComparedAccuracy::Attacked.of(o, suite));
    ComparisonRow {
        method: first.method.clone(),
        finetuning: first.finetuning.clone(),
        seeds: outcomes.iter().map(|(seed, _)| *seed).collect(),
        images: first.images,
        clean: spread(&|o| 100.0 * o.clean_accuracy),
        robust: spread(&|o| 100.0 * o.robust_accuracy),
        attacked_images: attacked.and(suite).map(|suite| suite.images),
        attacked,
        robust_on_attacked: of_all(&on_attacked),
        pretrain: spread(&|o| o.seconds.pretrain),
        finetune: finetuned.then(|| spread(&|o| o.seconds.finetune)),
        evaluate: spread(&|o| o.seconds.evaluate),
        checks: checks(outcomes),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::compare::DifferenceVerdict;

    /// An outcome on 1000 images.
    fn outcome(method: &str, clean: usize, robust: usize) -> Outcome {
        let share = |count: usize| count as f64 / 1000.0;
        let outcome = json!({
            "method": method, "finetuning": "slf", "images": 1000, "split": "test",
            "clean_accuracy": share(clean), "robust_accuracy": share(robust),
            "threat": {"norm": "linf", "radius": "8/255"},
            "attack_steps": 20, "attack_step_size": 0.01,
            "seconds": {"pretrain": 60.0, "finetune": 1.0, "evaluate": 2.0},
            "accuracy": {
                "total": {"images": 1000, "clean": clean, "robust": robust}, "classes": [],
            },
        });
        serde_json::from_value(outcome).expect("an outcome")
    }

    #[test]
    fn differences_are_paired_by_seed_and_only_clear_ones_are_shown() {
        let recipe = Recipe::load("smoke", &["compare.seeds = [1, 2, 3, 4]".to_owned()]);
        let recipe = recipe.expect("a recipe");
        let mut outcomes = Vec::new();
        for (seed, less, more) in [(1, 50, 3), (2, 52, 0), (3, 49, 4), (4, 51, 1)] {
            let noise = 10 * seed as usize;
            outcomes.push((seed, outcome("advcl", 800 + noise, 500 + noise)));
            let other = outcome("simclr", 798 + noise + more, 500 + noise - less);
            outcomes.push((seed, other));
        }
        // A seed that the other method lacks counts in the baseline's mean alone.
        outcomes.push((5, outcome("advcl", 0, 0)));
        let found = Comparison::new(&recipe, &outcomes, Vec::new());
        let seeds: Vec<usize> = found.rows.iter().map(|row| row.seeds.len()).collect();
        assert_eq!(seeds, [4, 5], "in the recipe's order");
        assert_eq!((found.rows[0].images, found.checks), (1000, 0));
        let [robust, clean] = &found.differences[..] else {
            panic!("two differences: {:?}", found.differences);
        };
        assert_eq!(robust.measure, ComparedAccuracy::Robust);
        assert_eq!(robust.points.count, 4);
        assert!((robust.points.mean + 5.05).abs() < 1e-9, "{robust:?}");
        assert_eq!(robust.verdict(), DifferenceVerdict::Lower);
        assert_eq!(clean.measure, ComparedAccuracy::Clean);
        assert_eq!(clean.verdict(), DifferenceVerdict::NotShown);
        let [of_robust, of_clean] = &found.power[..] else {
            panic!("of two accuracies: {:?}", found.power);
        };
        assert_eq!((of_robust.seeds, of_clean.seeds), (4, 4));
        let measured = robust.points.deviation.expect("four seeds");
        assert!((of_robust.deviation - measured).abs() < 1e-9);
        assert!(of_robust.points < 5.05 && of_robust.points < of_robust.points_corrected);
        // Some of the methods: the first of them in the baseline's place.
        let simclr = ["simclr".to_owned()];
        let found = Comparison::of_methods(&recipe, &simclr, &outcomes, Vec::new());
        assert_eq!(found.baseline.as_deref(), Some("simclr"));
        let both = ["simclr".to_owned(), "advcl".to_owned()];
        let found = Comparison::of_methods(&recipe, &both, &outcomes, Vec::new());
        assert_eq!(found.baseline.as_deref(), Some("advcl"));
        // One seed tests nothing.
        let found = Comparison::new(&recipe, &outcomes[..2], Vec::new());
        for difference in &found.differences {
            assert_eq!(difference.verdict(), DifferenceVerdict::Unknown);
        }
        assert!(found.power.is_empty());
    }
}
