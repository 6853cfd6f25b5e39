//! Methods and modes side by side: the rows of one recipe over several seeds, and which differences
//! exceed their noise.

mod comparison;
mod statistics;
mod summary;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::experiment::{Cell, Data, Experiment, Sources};
use crate::files;
use crate::recipe::Recipe;
use crate::session::{Context, Event};

pub use comparison::{
    ComparedAccuracy, Comparison, ComparisonRow, DifferenceVerdict, FailedRow, FinetuningGap,
    LEVEL, MethodDifference, RowFinding,
};
pub use statistics::{Spread, holm, paired};
pub use summary::pgd_on_attacked;

/// The run folder of a seed.
pub fn folder_of(folder: &Path, seed: u64) -> PathBuf {
    folder.join(format!("seed-{seed}"))
}

/// Runs `recipe` for each of its seeds, in folders below `folder`, and compares the results.
/// Existing results are not computed again. A row that fails is reported, and the others continue.
///
/// `device` is the device's name, for the log; `on_failure` is called with each failure as it
/// happens.
///
/// # Errors
/// [`Error::Interrupted`]; what is wrong with the recipe, its data, or a folder, before anything is
/// computed.
pub fn compare(
    recipe: &Recipe,
    folder: &Path,
    device: &str,
    context: &mut Context,
    mut on_failure: impl FnMut(&FailedRow),
) -> Result<Comparison> {
    let seeds = recipe.seeds();
    // Read once; the images of one seed are in memory at a time.
    let sources = Sources::load(recipe)?;
    let open = |seed: u64| {
        let own = Recipe {
            seed,
            compare: None,
            ..recipe.clone()
        };
        let data = Data::split(sources.clone(), &own)?;
        Experiment::with_data(own, data, &folder_of(folder, seed))
    };
    // All folders are checked now: one of another recipe is better refused before hours of work.
    for &seed in &seeds {
        let experiment = open(seed)?;
        experiment.check_ready(context)?;
        experiment.note_machine(device)?;
    }
    // A later `advcl compare --run` needs no recipe.
    files::write_atomic(&folder.join("recipe.toml"), recipe.to_toml().as_bytes())?;
    let mut outcomes = Vec::new();
    let mut failures = Vec::new();
    for &seed in &seeds {
        (context.observe)(&Event::Seed {
            seed,
            folder: folder_of(folder, seed),
        });
        let experiment = open(seed)?;
        let all = &mut *context.observe;
        let mut observe = |event: &Event| {
            experiment.run.log(event);
            all(event);
        };
        let context = &mut Context {
            device: context.device.clone(),
            seed,
            precision: context.precision,
            stop: context.stop,
            observe: &mut observe,
        };
        let mut failed = |cell: &Cell, error: &Error| {
            let failure = FailedRow {
                seed,
                method: cell.method.clone(),
                finetuning: cell.mode_name().to_owned(),
                error: error.to_string(),
                hint: error.hint().map(str::to_owned),
            };
            on_failure(&failure);
            failures.push(failure);
        };
        for entry in recipe.pretrain.entries() {
            let cells = experiment.cells(Some(&entry.name), None)?;
            let encoder = row_outcome(experiment.make_encoder(&entry.name, context))?;
            for cell in &cells {
                if let Err(error) = &encoder {
                    failed(cell, error);
                    continue;
                }
                let classifier = experiment.finetune(cell, context);
                let outcome = classifier.and_then(|()| experiment.evaluate(cell, context));
                match row_outcome(outcome)? {
                    Ok(outcome) => outcomes.push((seed, outcome)),
                    Err(error) => failed(cell, &error),
                }
            }
        }
    }
    Ok(Comparison::new(recipe, &outcomes, failures))
}

/// Passes an interruption on; every other error is returned as the row's failure.
fn row_outcome<T>(outcome: Result<T>) -> Result<Result<T>> {
    match outcome {
        Err(error @ Error::Interrupted { .. }) => Err(error),
        other => Ok(other),
    }
}
