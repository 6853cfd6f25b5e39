//! Methods and modes side by side: the rows of one recipe, over several seeds.

mod statistics;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::evaluate::soundness::{Finding, Soundness};
use crate::experiment::{
    Cell, Data, Experiment, FolderRecipe, Outcome, Purpose, Sources, Stale, has_recipe, save_recipe,
};
use crate::recipe::{Recipe, in_words};
use crate::run::{About, FolderKind, Layout, layout};
use crate::session::{Context, Event};

pub use statistics::{Spread, holm, paired};

/// What is claimed must be less probable than this where nothing is the matter.
pub const LEVEL: f64 = 0.05;

/// A row that could not be computed.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// Of the run.
    pub seed: u64,
    /// The method's table.
    pub method: String,
    /// The mode's table, or "end-to-end".
    pub finetuning: String,
    /// Why.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A row of the comparison, over the seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The method's table.
    pub method: String,
    /// The mode's table, or "end-to-end".
    pub finetuning: String,
    /// The seeds that it was computed for.
    pub seeds: Vec<u64>,
    /// In percent.
    pub clean: Spread,
    /// In percent, under PGD.
    pub robust: Spread,
    /// In percent, under the attacks that the recipe asks for beside PGD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attacked: Option<Spread>,
    /// Seconds, with all that the encoder stands on: pseudo-labels and encoders that it learns from.
    pub pretrain: Spread,
    /// Seconds; none where the method trained the classifier itself.
    pub finetune: Option<Spread>,
    /// Robust accuracy in percent for each minute of finetuning.
    pub robust_per_minute: Option<Spread>,
}

/// What is lost by cheap finetuning: robust accuracy after AFF less that after SLF, in points.
#[derive(Clone, Debug, Serialize)]
pub struct Gap {
    /// The method's table.
    pub method: String,
    /// Over the seeds.
    pub points: Spread,
}

/// A method's accuracy less the baseline's, by the same mode, seed by seed.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The mode's table.
    pub finetuning: String,
    /// The method's table.
    pub method: String,
    /// "clean", "robust" (PGD) or "attacked" (the recipe's attacks beside it).
    pub measure: &'static str,
    /// In points.
    pub points: Spread,
    /// Of a paired, two-sided t-test; none where there are fewer than two seeds, or no spread.
    pub p: Option<f64>,
    /// The same, corrected for being one of all the comparison's differences (Holm).
    pub p_corrected: Option<f64>,
    /// Whether it exceeds the noise of the seeds.
    pub significant: bool,
}

/// A check that does not hold for a row.
#[derive(Clone, Debug, Serialize)]
pub struct Warning {
    /// Of the run.
    pub seed: u64,
    /// The method's table.
    pub method: String,
    /// The mode's table, or "end-to-end".
    pub finetuning: String,
    /// The check.
    #[serde(flatten)]
    pub finding: Finding,
}

/// The outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// This program's version.
    pub advcl_version: String,
    /// The data set.
    pub data: String,
    /// All that were asked for.
    pub seeds: Vec<u64>,
    /// The attacks beside PGD: "autoattack", say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack: Option<String>,
    /// In the recipe's order.
    pub rows: Vec<Row>,
    /// Of each method with both modes.
    pub gaps: Vec<Gap>,
    /// Whom the others are held against.
    pub baseline: Option<String>,
    /// Of each other method, by mode.
    pub differences: Vec<Difference>,
    /// How many soundness checks were made, all rows and seeds together.
    pub checks: usize,
    /// Those that do not hold.
    pub warnings: Vec<Warning>,
    /// What could not be computed.
    pub failures: Vec<Failure>,
}

/// The run folder of a seed.
pub fn folder_of(folder: &Path, seed: u64) -> PathBuf {
    Layout::new(folder).seed(seed).root().to_path_buf()
}

/// Carries out `recipe` for each of its seeds below `folder`, and compares. What is there is not computed again. A row
/// that fails is reported, and the others go on.
///
/// `device` is the device's name, for the log; `hear` is told of each failure as it happens.
///
/// # Errors
/// [`Error::Interrupted`]; what is wrong with the recipe, its data, or a folder, before anything is computed.
pub fn compare(
    recipe: &Recipe,
    folder: &Path,
    device: &str,
    stale: Stale,
    context: &mut Context,
    mut hear: impl FnMut(&Failure),
) -> Result<Comparison> {
    let seeds = recipe.seeds();
    let layout = Layout::new(folder);
    let about = About::require(&layout, FolderKind::Comparison)?;
    let about = about.unwrap_or_else(|| About::new(FolderKind::Comparison, device, recipe.seed));
    require_same_recipe(recipe, &layout)?;
    // Read once; the images of one seed are in memory at a time.
    let sources = Sources::load(recipe)?;
    let open = |seed: u64| {
        let own = Recipe {
            seed,
            compare: None,
            ..recipe.clone()
        };
        let data = Data::split(sources.clone(), &own, Purpose::Train)?;
        let experiment = Experiment::with_data(own, data, folder_of(folder, seed))?;
        Ok::<_, Error>(experiment.with_stale(stale))
    };
    // All of them now: a folder of another recipe is better known before hours of work.
    for &seed in &seeds {
        let experiment = open(seed)?;
        experiment.check_ready(context)?;
        experiment.remember(device)?;
    }
    // From now on the folder knows what it is for.
    save_recipe(&layout, recipe, about)?;
    let mut outcomes = Vec::new();
    let mut failures = Vec::new();
    for &seed in &seeds {
        (context.observe)(&Event::Seed {
            seed,
            folder: folder_of(folder, seed),
        });
        let experiment = open(seed)?;
        let mut failed = |cell: &Cell, error: &Error| {
            let failure = Failure {
                seed,
                method: cell.method.clone(),
                finetuning: cell.mode_name().to_owned(),
                error: error.to_string(),
                hint: error.hint().map(str::to_owned),
            };
            hear(&failure);
            failures.push(failure);
        };
        for entry in recipe.pretrain.entries() {
            let cells = experiment.cells(Some(&entry.name), None)?;
            let encoder = carried_out(experiment.prepare_row(&entry.name, context))?;
            for cell in &cells {
                if let Err(error) = &encoder {
                    failed(cell, error);
                    continue;
                }
                match carried_out(experiment.complete_row(cell, context))? {
                    Ok(outcome) => outcomes.push((seed, outcome)),
                    Err(error) => failed(cell, &error),
                }
            }
        }
    }
    Ok(summed_up(recipe, seeds, &outcomes, failures))
}

/// Refuses seeds beside those of another recipe in the same folder: they would be averaged.
fn require_same_recipe(recipe: &Recipe, layout: &Layout) -> Result<()> {
    let Some(before) = FolderRecipe::load(layout.root(), &[])? else {
        return Ok(());
    };
    let asked = recipe.seeds();
    let others = seeds_in(layout.root());
    let others: Vec<u64> = others
        .into_iter()
        .filter(|seed| !asked.contains(seed))
        .collect();
    let found = recipe.contradictions(&before.recipe);
    if others.is_empty() || found.is_empty() {
        return Ok(());
    }
    let others: Vec<String> = others.iter().map(u64::to_string).collect();
    let problem = format!(
        "it compares seeds {} of another recipe: {}",
        others.join(", "),
        in_words(&found)
    );
    let hint = "name another folder with --run";
    Err(Error::run(layout.root(), problem, hint))
}

/// Seeds that have a run folder in a comparison's folder, in rising order.
pub fn seeds_in(folder: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let seed = |entry: std::fs::DirEntry| -> Option<u64> {
        let name = entry.file_name();
        let seed = name.to_str()?.strip_prefix(layout::SEED)?.parse().ok()?;
        has_recipe(&entry.path()).then_some(seed)
    };
    let mut seeds: Vec<u64> = entries.filter_map(seed).collect();
    seeds.sort_unstable();
    seeds
}

/// Passes an interruption on; every other error is returned as the row's failure.
fn carried_out<T>(outcome: Result<T>) -> Result<Result<T>> {
    match outcome {
        Err(error @ Error::Interrupted { .. }) => Err(error),
        other => Ok(other),
    }
}

/// The tables.
fn summed_up(
    recipe: &Recipe,
    seeds: Vec<u64>,
    outcomes: &[(u64, Outcome)],
    failures: Vec<Failure>,
) -> Comparison {
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
    let of = |method: &str, finetuning: &str| -> Vec<(u64, &Outcome)> {
        let same = |(_, o): &&(u64, Outcome)| o.method == method && o.finetuning == finetuning;
        outcomes.iter().filter(same).map(|(s, o)| (*s, o)).collect()
    };
    let rows: Vec<Row> = keys
        .iter()
        .map(|(method, finetuning)| row(method, finetuning, &of(method, finetuning)))
        .collect();

    // Seed by seed, where both are there.
    let points = |a: &[(u64, &Outcome)], b: &[(u64, &Outcome)], measure: &str| -> Vec<f64> {
        let value = |o: &Outcome| match measure {
            "clean" => Some(100.0 * o.clean_accuracy),
            "robust" => Some(100.0 * o.robust_accuracy),
            _ => attacked(o),
        };
        let same = |(seed, a): &(u64, &Outcome)| {
            let other = b.iter().find(|(other, _)| other == seed)?;
            Some(value(a)? - value(other.1)?)
        };
        a.iter().filter_map(same).collect()
    };
    let mut gaps = Vec::new();
    for entry in recipe.pretrain.entries() {
        let (aff, slf) = (of(&entry.name, "aff"), of(&entry.name, "slf"));
        let lost = points(&aff, &slf, "robust");
        if !lost.is_empty() {
            gaps.push(Gap {
                method: entry.name.clone(),
                points: Spread::of(&lost),
            });
        }
    }
    let baseline = recipe.baseline().map(str::to_owned);
    let mut differences = Vec::new();
    let mut modes: Vec<&String> = Vec::new();
    for (_, finetuning) in &keys {
        if !modes.contains(&finetuning) {
            modes.push(finetuning);
        }
    }
    for finetuning in modes {
        for measure in ["attacked", "robust", "clean"] {
            let Some(baseline) = &baseline else { continue };
            let against = of(baseline, finetuning);
            for (method, other) in &keys {
                if other != finetuning || method == baseline {
                    continue;
                }
                let points = points(&of(method, finetuning), &against, measure);
                if !points.is_empty() {
                    differences.push(Difference {
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
    let soundness = outcomes.iter().filter_map(|(seed, outcome)| {
        let soundness = outcome.soundness.as_ref()?;
        Some((*seed, outcome, soundness))
    });
    let warnings = |(seed, outcome, soundness): (u64, &Outcome, &Soundness)| {
        let warning = |finding: &Finding| Warning {
            seed,
            method: outcome.method.clone(),
            finetuning: outcome.finetuning.clone(),
            finding: finding.clone(),
        };
        soundness.warnings().map(warning).collect::<Vec<_>>()
    };
    Comparison {
        advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
        data: recipe.data.source.clone(),
        seeds,
        attack: (recipe.evaluate.attack.as_ref()).map(|suite| suite.name().to_owned()),
        rows,
        gaps,
        baseline,
        differences,
        checks: soundness.clone().map(|(_, _, s)| s.findings.len()).sum(),
        warnings: soundness.flat_map(warnings).collect(),
        failures,
    }
}

/// Accuracy under the attacks beside PGD, in percent.
fn attacked(outcome: &Outcome) -> Option<f64> {
    let attacked = outcome.attacked.as_ref()?;
    Some(100.0 * attacked.robust_accuracy())
}

fn row(method: &str, finetuning: &str, outcomes: &[(u64, &Outcome)]) -> Row {
    let spread = |value: &dyn Fn(&Outcome) -> f64| {
        let values: Vec<f64> = outcomes.iter().map(|(_, o)| value(o)).collect();
        Spread::of(&values)
    };
    let finetuned = outcomes.iter().all(|(_, o)| o.seconds.finetune > 0.0);
    let attacked: Option<Vec<f64>> = outcomes.iter().map(|(_, o)| attacked(o)).collect();
    let rate = |o: &Outcome| 100.0 * o.robust_accuracy / (o.seconds.finetune / 60.0);
    Row {
        method: method.to_owned(),
        finetuning: finetuning.to_owned(),
        seeds: outcomes.iter().map(|(seed, _)| *seed).collect(),
        clean: spread(&|o| 100.0 * o.clean_accuracy),
        robust: spread(&|o| 100.0 * o.robust_accuracy),
        attacked: attacked.map(|values| Spread::of(&values)),
        pretrain: spread(&|o| o.seconds.pretrain),
        finetune: finetuned.then(|| spread(&|o| o.seconds.finetune)),
        robust_per_minute: finetuned.then(|| spread(&rate)),
    }
}
