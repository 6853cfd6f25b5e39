//! Reads run folders and comparisons: recipes and all that was measured.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::layout::{MACHINE, METRICS, RECIPE, SEED, SUMMARY};
use super::stored::{self, optional};
use super::training::{TrainingStage, training};
use crate::compare::Comparison;
use crate::error::{Error, Result};
use crate::evaluate::measures::Transfer;
use crate::experiment::{Cell, Outcome, Summary};
use crate::interval::Interval;
use crate::recipe::Recipe;

/// The results of one run.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedRun {
    /// The folder, as it was given.
    pub path: PathBuf,
    /// The folder's own name; after that of its comparison, where it is a seed of one.
    pub name: String,
    /// The comparison's folder, where it is a seed of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<PathBuf>,
    /// The recipe that the results belong to.
    pub recipe: Recipe,
    /// Version, device, cores: `run.json`.
    pub machine: Option<Value>,
    /// Evaluated rows, in the recipe's order.
    pub rows: Vec<ReportedRow>,
    /// Rows of the recipe that were not evaluated: METHOD/MODE.
    pub missing: Vec<String>,
    /// Adversarial examples of one classifier on others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// Losses and probes of its stages, epoch by epoch.
    pub training: Vec<TrainingStage>,
}

/// A classifier and what was measured of it.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedRow {
    /// METHOD/MODE.
    pub classifier: String,
    /// Accuracy on clean images.
    pub clean: Option<Interval>,
    /// Accuracy under PGD.
    pub robust: Option<Interval>,
    /// Accuracy under the attacks beside PGD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst: Option<Interval>,
    /// Whether the figures belong to the recipe as it is now.
    pub current: bool,
    /// The table's row, with attacks, checks and all that was measured beside it.
    pub outcome: Outcome,
    /// Part of the recipe that the figures were measured by, as TOML.
    #[serde(skip)]
    pub recipe: String,
}

impl ReportedRow {
    /// The recipe's row with this classifier.
    pub fn cell(&self, recipe: &Recipe) -> Option<Cell> {
        let cells = Cell::of(recipe, None, None).ok()?;
        cells
            .into_iter()
            .find(|cell| cell.stage() == self.classifier)
    }
}

/// The means and tests of a comparison's runs.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedComparison {
    /// The comparison's folder, as it was given.
    pub path: PathBuf,
    /// The folder's own name.
    pub name: String,
    /// Means, differences and their tests, of the rows that are reported.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// Reads a run folder, or the folder of a comparison with the run of each seed.
///
/// # Errors
/// [`Error::Run`] for a folder that is no run, or has nothing to show yet; [`Error::Format`] for
/// files that this version does not understand.
pub fn read(path: &Path) -> Result<(Vec<ReportedRun>, Option<ReportedComparison>)> {
    if !path.is_dir() {
        let problem = if path.exists() {
            "a file, not a folder"
        } else {
            "no such folder"
        };
        return Err(Error::run(
            path,
            problem,
            "name a run folder, such as runs/quickstart",
        ));
    }
    if !path.join(RECIPE).exists() {
        let hint =
            "name the folder that `advcl run` or `advcl compare` wrote, such as runs/quickstart";
        return Err(Error::run(path, "no run: it has no recipe.toml", hint));
    }
    let seeds = seeds_below(path);
    if !seeds.is_empty() {
        return read_comparison(path, seeds);
    }
    let run = ReportedRun::read(path, recipe_of(path)?)?;
    if run.rows.is_empty() {
        let hint = format!("continue it: advcl run {}", path.display());
        return Err(Error::run(path, "nothing was evaluated yet", hint));
    }
    Ok((vec![run], None))
}

/// The recipe in a folder.
fn recipe_of(path: &Path) -> Result<Recipe> {
    Recipe::load(&path.join(RECIPE).display().to_string(), &[])
}

/// Reads the runs below a comparison's folder. All rows must belong to the comparison's recipe,
/// with the evaluation settings of the runs where these agree (after `advcl evaluate` with other
/// attacks on each of them). Other rows count as missing.
fn read_comparison(
    path: &Path,
    mut folders: Vec<(u64, PathBuf)>,
) -> Result<(Vec<ReportedRun>, Option<ReportedComparison>)> {
    let mut shared = recipe_of(path)?;
    let seeds = shared.seeds();
    folders.retain(|(seed, _)| seeds.contains(seed));
    let own: Vec<Recipe> = folders
        .iter()
        .map(|(_, folder)| recipe_of(folder))
        .collect::<Result<_>>()?;
    if let Some((first, others)) = own.split_first()
        && others.iter().all(|other| other.evaluate == first.evaluate)
    {
        shared.evaluate.clone_from(&first.evaluate);
    }
    let (mut runs, mut outcomes) = (Vec::new(), Vec::new());
    for (seed, folder) in folders {
        let recipe = Recipe {
            seed,
            compare: None,
            ..shared.clone()
        };
        let mut run = ReportedRun::read(&folder, recipe)?;
        run.comparison = Some(path.to_path_buf());
        run.name = format!("{}, {}", name_of(path), run.name);
        // A mean must not mix figures that were measured by different settings.
        let (current, stale) = run.rows.into_iter().partition(|row| row.current);
        run.rows = current;
        let stale: Vec<ReportedRow> = stale;
        run.missing
            .extend(stale.into_iter().map(|row| row.classifier));
        outcomes.extend(run.rows.iter().map(|row| (seed, row.outcome.clone())));
        runs.push(run);
    }
    runs.retain(|run| !run.rows.is_empty());
    if runs.is_empty() {
        let hint = format!("continue it: advcl compare --run {}", path.display());
        return Err(Error::run(path, "nothing was evaluated yet", hint));
    }
    let comparison = ReportedComparison {
        path: path.to_path_buf(),
        name: name_of(path),
        comparison: Comparison::new(&shared, &outcomes, Vec::new()),
    };
    Ok((runs, Some(comparison)))
}

impl ReportedRun {
    /// Reads a run's results as far as they belong to `recipe`.
    fn read(path: &Path, recipe: Recipe) -> Result<Self> {
        let machine: Option<Value> = optional(&path.join(MACHINE))?;
        let version = machine
            .as_ref()
            .and_then(|note| note["advcl_version"].as_str());
        let old = |error: Error| of_another_version(error, path, version);
        let summary: Option<Summary> = optional(&path.join(SUMMARY)).map_err(&old)?;
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        for cell in Cell::of(&recipe, None, None)? {
            match stored::row(path, &cell, &recipe, summary.as_ref()).map_err(&old)? {
                Some(row) => rows.push(row),
                None => missing.push(cell.stage()),
            }
        }
        Ok(Self {
            name: name_of(path),
            comparison: None,
            transfer: stored::transfer(path, &recipe, &rows).map_err(&old)?,
            rows,
            missing,
            training: training(&path.join(METRICS))?,
            path: path.to_path_buf(),
            recipe,
            machine,
        })
    }
}

/// Names the version that wrote the folder where it explains why a file is not understood.
fn of_another_version(error: Error, run: &Path, version: Option<&str>) -> Error {
    let this = env!("CARGO_PKG_VERSION");
    match (error, version) {
        (Error::Format { path, found, .. }, Some(version)) if version != this => {
            let problem = format!(
                "{}: not understood ({found}): the folder was written by advcl {version}, this is {this}",
                path.display(),
            );
            let hint = "use that version, or evaluate it again with this one";
            Error::run(run, problem, hint)
        }
        (error, _) => error,
    }
}

/// The run folders of a comparison and their seeds, by rising seed.
fn seeds_below(path: &Path) -> Vec<(u64, PathBuf)> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let seed = |entry: std::fs::DirEntry| {
        let seed = entry.file_name().to_str()?.strip_prefix(SEED)?.parse();
        Some((seed.ok()?, entry.path()))
    };
    let mut seeds: Vec<(u64, PathBuf)> = entries
        .filter_map(seed)
        .filter(|(_, folder)| folder.join(RECIPE).exists())
        .collect();
    seeds.sort();
    seeds
}

/// The folder's own name, also for `.`.
fn name_of(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = whole.file_name().unwrap_or(whole.as_os_str());
    name.to_string_lossy().into_owned()
}
