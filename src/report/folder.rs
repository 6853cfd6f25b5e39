//! Reads run folders and comparisons: recipes and all that was measured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::strength::{Left, strongest};
use super::training::{TrainingStage, training};
use crate::attack::{Pgd, Tally};
use crate::compare::{Comparison, folder_of, seeds_in, suites};
use crate::error::{Error, Result};
use crate::evaluate::Attacked;
use crate::evaluate::measures::Transfer;
use crate::experiment::{Cell, FolderRecipe, Outcome, Summary, has_recipe, kept_outcomes};
use crate::files::read_json;
use crate::interval::Interval;
use crate::recipe::{Recipe, from_text};
use crate::run::{Layout, ModelInfo};

/// The results of one run.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedRun {
    /// The folder, as it was given.
    #[serde(serialize_with = "crate::files::as_text")]
    pub path: PathBuf,
    /// The folder's own name; after that of its comparison, where it is a seed of one.
    pub name: String,
    /// The comparison's folder, where it is a seed of one.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::files::as_optional_text"
    )]
    pub comparison: Option<PathBuf>,
    /// The recipe that the results belong to.
    pub recipe: Recipe,
    /// Version, device, cores: `run.json`.
    pub machine: Option<serde_json::Value>,
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
    /// Accuracy under the strongest attack, where others than PGD ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst: Option<Interval>,
    /// Whether the figures are under the recipe's conditions: threat model, PGD and split.
    pub current: bool,
    /// The table's row, with attacks, checks and all that was measured beside it.
    pub outcome: Outcome,
}

impl ReportedRow {
    fn new(cell: &Cell, outcome: Outcome, recipe: &Recipe) -> Self {
        let total = &outcome.accuracy.total;
        let robust = Interval::wilson(total.robust, total.images);
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
            worst: worst(&outcome, robust),
            robust,
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

/// Accuracy under the strongest attack of an outcome, `robust` under PGD; none where nothing else ran.
fn worst(outcome: &Outcome, robust: Option<Interval>) -> Option<Interval> {
    let suites: Vec<&Attacked> = suites(outcome).collect();
    let share = |tally: &Tally| tally.robust as f64 / tally.images as f64;
    let of_all = outcome.robust_accuracy;
    let strongest = strongest(&suites, |one| Left {
        suite: &one.suite,
        images: one.images,
        robust: one.robust_accuracy(),
        pgd: one.pgd.as_ref().map_or(of_all, share),
        thorough: one.is_thorough(),
    });
    match strongest {
        Some(suite) => suite.robust_interval(),
        None => robust.filter(|_| !suites.is_empty()),
    }
}

/// The means and tests of a comparison's runs.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedComparison {
    /// The comparison's folder, as it was given.
    #[serde(serialize_with = "crate::files::as_text")]
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
    let mut run = ReportedRun::read(path, recipe_of(path)?)?;
    run.choose(None);
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

/// Reads the runs below a comparison's folder: those of its recipe's seeds, under its conditions and on equally many images. A row that
/// was evaluated under others alone is missing.
fn read_comparison(
    path: &Path,
    found: Vec<u64>,
) -> Result<(Vec<ReportedRun>, Option<ReportedComparison>)> {
    let shared = recipe_of(path)?;
    let seeds = shared.seeds().into_iter();
    let seeds = seeds.filter(|seed| found.contains(seed));
    let runs = seeds.map(|seed| {
        let recipe = Recipe {
            seed,
            compare: None,
            ..shared.clone()
        };
        let mut run = ReportedRun::read(&folder_of(path, seed), recipe)?;
        run.comparison = Some(path.to_path_buf());
        run.name = format!("{}, {}", name_of(path), run.name);
        Ok(run)
    });
    let mut runs: Vec<ReportedRun> = runs.collect::<Result<_>>()?;
    let (images, mut outcomes) = (images_of(&runs), Vec::new());
    let mut made = BTreeMap::new();
    for run in &mut runs {
        run.choose(images);
        // A mean must not mix classifiers that were trained, or figures that were measured, by different
        // settings.
        let (layout, seed) = (Layout::new(&run.path), run.recipe.seed);
        let mut rows = Vec::new();
        for row in std::mem::take(&mut run.rows) {
            if row.current && made_alike(&layout, &row, &run.recipe, &mut made)? {
                rows.push(row);
            } else if !run.missing.contains(&row.classifier) {
                run.missing.push(row.classifier);
            }
        }
        let evaluated = |stage: &String| rows.iter().any(|row| row.classifier == *stage);
        run.missing.retain(|stage| !evaluated(stage));
        run.rows = rows;
        outcomes.extend(run.rows.iter().map(|row| (seed, row.outcome.clone())));
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

/// Number of images that the rows of a comparison were evaluated on under its recipe: the most that the recipe's limit allows, since
/// evaluations on fewer of them stand beside its own.
fn images_of(runs: &[ReportedRun]) -> Option<usize> {
    let most = |of_source: bool| {
        let rows = runs.iter().flat_map(|run| {
            let recipe = &run.recipe;
            let limit = match &recipe.downstream {
                Some(target) => target.test_limit,
                None => recipe.data.test_limit,
            };
            let rows = run.rows.iter().filter(|row| row.current);
            rows.filter(move |row| !of_source || is_of_source(&row.outcome, recipe))
                .map(|row| row.outcome.images)
                .filter(move |images| limit.is_none_or(|limit| *images <= limit))
        });
        rows.max()
    };
    most(true).or_else(|| most(false))
}

/// Whether a row's classifier was made by the same settings as that of the first seed, which a comparison
/// makes again first. `made` has the settings of the first seed's classifiers.
fn made_alike(
    layout: &Layout,
    row: &ReportedRow,
    recipe: &Recipe,
    made: &mut BTreeMap<String, Table>,
) -> Result<bool> {
    let stage = row.cell(recipe).map(|cell| cell.model_stage());
    let info = match stage {
        Some(stage) => ModelInfo::load(&layout.model(&stage))?,
        None => None,
    };
    let Some(mut table) = info.and_then(|info| from_text(&info.recipe)) else {
        return Ok(false);
    };
    without_seed(&mut table);
    let first = made
        .entry(row.classifier.clone())
        .or_insert_with(|| table.clone());
    Ok(*first == table)
}

/// Removes the seed and the fingerprints of the images, which depend on it, here and in all tables below.
fn without_seed(table: &mut Table) {
    table.remove("seed");
    table.remove("images");
    for (_, value) in table.iter_mut() {
        if let Value::Table(inner) = value {
            without_seed(inner);
        }
    }
}

impl ReportedRun {
    /// Reads a run's results as far as they belong to `recipe`. Of each classifier all rows under its conditions are current; see
    /// [`ReportedRun::choose`].
    fn read(path: &Path, recipe: Recipe) -> Result<Self> {
        let layout = Layout::new(path);
        let machine: Option<serde_json::Value> = optional(&layout.about())?;
        let version = machine
            .as_ref()
            .and_then(|note| note["advcl_version"].as_str());
        let old = |error: Error| of_another_version(error, path, version);
        let summary: Option<Summary> = optional(&layout.summary()).map_err(&old)?;
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        for cell in Cell::of(&recipe, None, None)? {
            let kept = kept_outcomes(&layout, &cell).map_err(&old)?;
            let kept = kept.into_iter().filter(|(_, outcome)| outcome.images > 0);
            let before = rows.len();
            rows.extend(kept.map(|(_, outcome)| ReportedRow::new(&cell, outcome, &recipe)));
            if rows.len() == before {
                missing.push(cell.stage());
            }
        }
        let transfer = summary.and_then(|summary| transfer_of(summary, &rows));
        Ok(Self {
            name: name_of(path),
            comparison: None,
            transfer,
            rows,
            missing,
            training: training(&layout.metrics())?,
            path: path.to_path_buf(),
            recipe,
            machine,
        })
    }

    /// Leaves one row of each classifier current, and puts it first: of several evaluations under the recipe's conditions the latest,
    /// or the latest on `images` images.
    fn choose(&mut self, images: Option<usize>) {
        let recipe = &self.recipe;
        let own = |row: &ReportedRow| {
            row.current && images.is_none_or(|images| row.outcome.images == images)
        };
        let of_one = |a: &ReportedRow, b: &ReportedRow| a.classifier == b.classifier;
        for rows in self.rows.chunk_by_mut(of_one) {
            let of_source = |row: &ReportedRow| own(row) && is_of_source(&row.outcome, recipe);
            let latest = rows.iter().rposition(of_source);
            let latest = latest.or_else(|| rows.iter().rposition(own));
            for (number, row) in rows.iter_mut().enumerate() {
                row.current = Some(number) == latest;
            }
            rows.sort_by_key(|row| !row.current);
        }
    }
}

/// The transfer in a summary, where it is of the classifiers that the rows are of.
fn transfer_of(summary: Summary, rows: &[ReportedRow]) -> Option<Transfer> {
    let same = |a: &Outcome, b: &Outcome| {
        (&a.method, &a.finetuning, &a.accuracy) == (&b.method, &b.finetuning, &b.accuracy)
    };
    let transfer = summary.transfer?;
    let summed = summary.outcomes.iter().chain(&summary.other_conditions);
    let holds = |classifier: &String| {
        let mut own = rows.iter().filter(|row| row.classifier == *classifier);
        own.any(|row| summed.clone().any(|outcome| same(outcome, &row.outcome)))
    };
    let all = transfer.classifiers.iter().all(holds);
    all.then_some(transfer)
}

/// Whether the images that a row was evaluated on have the name of the recipe's. Where the recipe's are
/// another data set of the same name is not known without reading them.
fn is_of_source(outcome: &Outcome, recipe: &Recipe) -> bool {
    let target = recipe.downstream.as_ref().map(|target| &target.source);
    let source = Path::new(target.unwrap_or(&recipe.data.source));
    let name = outcome.evaluated.data.as_str();
    let names = [
        Some(source.as_os_str()),
        source.file_name(),
        source.file_stem(),
    ];
    names.into_iter().flatten().any(|other| other == name)
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
