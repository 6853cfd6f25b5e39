//! Methods and modes side by side: the rows of one recipe over several seeds, and which differences
//! exceed their noise.

mod comparison;
mod statistics;
mod summary;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::experiment::{
    Cell, Data, Experiment, FolderRecipe, Outcome, Purpose, Sources, Stale, has_recipe, save_recipe,
};
use crate::recipe::{Recipe, in_words};
use crate::run::{About, FolderKind, Layout, layout, require_inside};
use crate::session::{Context, Event};
use crate::{files, ranks};

pub use comparison::{
    ComparedAccuracy, Comparison, ComparisonRow, DifferenceVerdict, FailedRow, FinetuningGap,
    LEVEL, MethodDifference, Power, RowFinding, same_suite, suites,
};
pub use statistics::{POWER, Spread, detectable, holm, paired};

/// The run folder of a seed.
pub fn folder_of(folder: &Path, seed: u64) -> PathBuf {
    Layout::new(folder).seed(seed).root().to_path_buf()
}

/// Does `work`, which writes files of the comparison itself beside its runs, on the first rank for all. Processes that compare
/// other seeds in the same folder wait for each other here. Removes what processes left there that were killed while they wrote.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] where something else stands in the place of the lock; those of `work`.
pub fn write_into(folder: &Path, work: impl FnOnce() -> Result<()>) -> Result<()> {
    ranks::first("comparison's files", || {
        let lock = files::open_own(&Layout::new(folder).lock())?;
        // Some file systems have no locks, which is no reason to keep no results.
        let _ = lock.lock();
        files::remove_parts(folder)?;
        work()
    })
}

/// Runs `recipe` for each of its seeds, in folders below `folder`, and compares the results.
/// Existing results are not computed again. A row that fails is reported, and the others continue.
///
/// Rows are those of `methods`, or of all where none is named; what they learn from is made too.
///
/// `device` is the device's name, for the log; `on_failure` is called with each failure as it
/// happens.
///
/// # Errors
/// [`Error::Interrupted`]; what is wrong with the recipe, its data, or a folder, before anything is
/// computed.
pub fn compare(
    recipe: &Recipe,
    methods: &[String],
    folder: &Path,
    device: &str,
    stale: Stale,
    context: &mut Context,
    mut on_failure: impl FnMut(&FailedRow),
) -> Result<Comparison> {
    let seeds = recipe.seeds();
    for name in methods {
        recipe.pretrain.require(name)?;
    }
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
        let run = folder_of(folder, seed);
        if run.exists() {
            require_inside(folder, &run)?;
        }
        let experiment = Experiment::with_data(own, data, run)?;
        Ok::<_, Error>(experiment.with_stale(stale))
    };
    // Ranks share every row where its batches have shards for them; otherwise each has seeds of its own.
    let together = recipe.shards.is_multiple_of(ranks::count());
    let check = || {
        // All folders are checked now: one of another recipe is better refused before hours of work.
        for &seed in &seeds {
            let experiment = open(seed)?;
            experiment.check_ready(context)?;
            experiment.remember(context)?;
        }
        // From now on the folder knows what it is for.
        write_into(folder, || save_recipe(&layout, recipe, about.clone()))
    };
    match together {
        true => check()?,
        false => ranks::first("comparison", check)?,
    }
    let rows = |seeds: &[u64], context: &mut Context, on_failure: &mut dyn FnMut(&FailedRow)| {
        rows_of(recipe, methods, folder, seeds, &open, context, on_failure)
    };
    let (mut outcomes, failures) = match together {
        true => rows(&seeds, context, &mut on_failure)?,
        false => {
            let own = seeds.iter().skip(ranks::own()).step_by(ranks::count());
            let own: Vec<u64> = own.copied().collect();
            let found = ranks::alone(|| rows(&own, context, &mut on_failure));
            // Whoever has stopped has saved; the others are waited for.
            let failed = ranks::gather_each("rows", found.is_err());
            let (outcomes, failures) = found?;
            if let Some(rank) = failed.iter().position(|failed| *failed) {
                return Err(Error::OtherRank { rank });
            }
            let failures = ranks::gather_each("failed rows", failures);
            for failure in failures.iter().skip(1).flatten() {
                on_failure(failure);
            }
            (
                ranks::gather_each("rows", outcomes).concat(),
                failures.concat(),
            )
        }
    };
    let place = |seed: u64| seeds.iter().position(|other| *other == seed);
    outcomes.sort_by_key(|(seed, _)| place(*seed));
    Ok(Comparison::of_methods(recipe, methods, &outcomes, failures))
}

/// Outcomes of rows, each with its seed, and the rows that could not be computed.
type Rows = (Vec<(u64, Outcome)>, Vec<FailedRow>);

/// Makes all rows of some seeds.
fn rows_of(
    recipe: &Recipe,
    methods: &[String],
    folder: &Path,
    seeds: &[u64],
    open: &dyn Fn(u64) -> Result<Experiment>,
    context: &mut Context,
    on_failure: &mut dyn FnMut(&FailedRow),
) -> Result<Rows> {
    let mut outcomes = Vec::new();
    let mut failures = Vec::new();
    for &seed in seeds {
        (context.observe)(&Event::Seed {
            seed,
            folder: folder_of(folder, seed),
        });
        let experiment = open(seed)?;
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
        let chosen = |name: &String| methods.is_empty() || methods.contains(name);
        let entries = recipe.pretrain.entries().iter();
        for entry in entries.filter(|entry| chosen(&entry.name)) {
            let cells = experiment.cells(Some(&entry.name), None)?;
            let encoder = row_outcome(experiment.prepare_row(&entry.name, context))?;
            for cell in &cells {
                if let Err(error) = &encoder {
                    failed(cell, error);
                    continue;
                }
                match row_outcome(experiment.complete_row(cell, context))? {
                    Ok(outcome) => outcomes.push((seed, outcome)),
                    Err(error) => failed(cell, &error),
                }
            }
        }
    }
    Ok((outcomes, failures))
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
fn row_outcome<T>(outcome: Result<T>) -> Result<Result<T>> {
    match outcome {
        Err(error @ Error::Interrupted { .. }) => Err(error),
        other => Ok(other),
    }
}
