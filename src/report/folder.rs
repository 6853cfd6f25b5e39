//! Reads run folders and comparisons: recipes and all that was measured.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::training::{TrainingStage, training};
use crate::attack::Pgd;
use crate::compare::{Comparison, folder_of, seeds_in};
use crate::error::{Error, Result};
use crate::evaluate::measures::Transfer;
use crate::experiment::{Cell, FolderRecipe, Outcome, Summary, has_recipe, kept_outcomes};
use crate::files::read_json;
use crate::interval::Interval;
use crate::recipe::Recipe;
use crate::run::Layout;

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
    /// Whether the figures are under the recipe's conditions: threat model, PGD and split.
    pub current: bool,
    /// The table's row, with attacks, checks and all that was measured beside it.
    pub outcome: Outcome,
}

impl ReportedRow {
    fn new(cell: &Cell, outcome: Outcome, recipe: &Recipe) -> Self {
        let (total, worst) = (&outcome.accuracy.total, outcome.attacked.as_ref());
        let (wanted, ball) = (&recipe.evaluate, recipe.threat.ball());
        let pgd = Pgd::new(wanted.steps, wanted.step_size.as_ref(), ball);
        let conditions = (
            outcome.attack_steps,
            outcome.attack_step_size,
            outcome.split,
        );
        Self {
            classifier: cell.stage(),
            clean: Interval::wilson(total.clean, total.images),
            robust: Interval::wilson(total.robust, total.images),
            worst: worst.and_then(|all| Interval::wilson(all.robust, all.images)),
            current: outcome.threat == recipe.threat
                && conditions == (pgd.steps, pgd.step_size, wanted.split),
            outcome,
        }
    }

    /// The row of the table that it is.
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
    if !has_recipe(path) {
        let hint =
            "name the folder that `advcl run` or `advcl compare` wrote, such as runs/quickstart";
        return Err(Error::run(path, "no run: it has no recipe.toml", hint));
    }
    let seeds = seeds_in(path);
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

/// Reads the recipe in a folder.
fn recipe_of(path: &Path) -> Result<Recipe> {
    let found = FolderRecipe::load(path, &[])?;
    Ok(found.expect("it has one").recipe)
}

/// Reads the runs below a comparison's folder: those of its recipe's seeds, under its conditions. A row that was
/// evaluated under others alone is missing.
fn read_comparison(
    path: &Path,
    found: Vec<u64>,
) -> Result<(Vec<ReportedRun>, Option<ReportedComparison>)> {
    let shared = recipe_of(path)?;
    let seeds = shared.seeds().into_iter();
    let seeds = seeds.filter(|seed| found.contains(seed));
    let (mut runs, mut outcomes) = (Vec::new(), Vec::new());
    for seed in seeds {
        let folder = folder_of(path, seed);
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
        let layout = Layout::new(path);
        let machine: Option<Value> = optional(&layout.about())?;
        let version = machine
            .as_ref()
            .and_then(|note| note["advcl_version"].as_str());
        let old = |error: Error| of_another_version(error, path, version);
        let summary: Option<Summary> = optional(&layout.summary()).map_err(&old)?;
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        for cell in Cell::of(&recipe, None, None)? {
            let kept = kept_outcomes(&layout, &cell).map_err(&old)?;
            let kept = kept.into_iter().filter(|(_, outcome)| outcome.images > 0);
            let mut of_cell: Vec<ReportedRow> = kept
                .map(|(_, outcome)| ReportedRow::new(&cell, outcome, &recipe))
                .collect();
            if of_cell.is_empty() {
                missing.push(cell.stage());
            }
            // The recipe's own conditions first.
            of_cell.sort_by_key(|row| !row.current);
            rows.extend(of_cell);
        }
        Ok(Self {
            name: name_of(path),
            comparison: None,
            transfer: summary.and_then(|summary| summary.transfer),
            rows,
            missing,
            training: training(&layout.metrics())?,
            path: path.to_path_buf(),
            recipe,
            machine,
        })
    }
}

/// Reads a file; none where there is no file.
fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    path.exists().then(|| read_json(path)).transpose()
}

/// Explains a file that is not understood by the version that wrote the folder, where that is another one.
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

/// The folder's own name: of `.` too.
fn name_of(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = whole.file_name().unwrap_or(whole.as_os_str());
    name.to_string_lossy().into_owned()
}
