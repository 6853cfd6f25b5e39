//! A run folder read back: its recipe and whatever was measured in it.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::training::{Stage, training};
use crate::compare::{folder_of, seeds_in};
use crate::error::{Error, Result};
use crate::evaluate::measures::Transfer;
use crate::experiment::{Cell, FolderRecipe, Outcome, Summary, has_recipe, kept_outcomes};
use crate::files::read_json;
use crate::interval::Interval;
use crate::recipe::Recipe;
use crate::run::Layout;

/// What there is of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Folder {
    /// As it was given.
    pub path: PathBuf,
    /// The folder's own name; that of the comparison before it, where it is a seed of one.
    pub name: String,
    /// The comparison's folder, where it is a seed of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<PathBuf>,
    /// How it was made.
    pub recipe: Recipe,
    /// Version, device, cores: `run.json`.
    pub machine: Option<Value>,
    /// What was evaluated, in the recipe's order.
    pub rows: Vec<Row>,
    /// Rows of the recipe that were not: METHOD/MODE.
    pub missing: Vec<String>,
    /// Adversarial examples of one model shown to another: `transfer.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// The curves of its stages.
    pub training: Vec<Stage>,
}

/// A classifier and what was measured of it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// METHOD/MODE.
    pub classifier: String,
    /// On the images as they are.
    pub clean: Option<Interval>,
    /// Under PGD.
    pub robust: Option<Interval>,
    /// Under the attacks beside PGD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst: Option<Interval>,
    /// The table's row, with attacks, checks and all that was measured beside it.
    pub outcome: Outcome,
}

impl Row {
    fn new(cell: &Cell, outcome: Outcome) -> Self {
        let (total, worst) = (&outcome.accuracy.total, outcome.attacked.as_ref());
        Self {
            classifier: cell.stage(),
            clean: Interval::wilson(total.clean, total.images),
            robust: Interval::wilson(total.robust, total.images),
            worst: worst.and_then(|all| Interval::wilson(all.robust, all.images)),
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

impl Folder {
    /// Reads a run folder; or each seed's, where `path` is a comparison's.
    ///
    /// # Errors
    /// [`Error::Run`] for a folder that is no run, or has nothing to show yet; [`Error::Format`] for files that this version does
    /// not understand.
    pub fn read(path: &Path) -> Result<Vec<Self>> {
        if !path.is_dir() {
            let hint = "name a run folder: runs/quickstart, say";
            let problem = match path.exists() {
                true => "a file, not a folder",
                false => "no such folder",
            };
            return Err(Error::run(path, problem, hint));
        }
        if !has_recipe(path) {
            let hint =
                "name the folder that `advcl run` or `advcl compare` wrote: runs/quickstart, say";
            return Err(Error::run(path, "no run: it has no recipe.toml", hint));
        }
        let seeds = seeds_in(path);
        if !seeds.is_empty() {
            let mut folders = Vec::new();
            for seed in seeds {
                let seed = folder_of(path, seed);
                let mut folder = Self::one(&seed)?;
                folder.comparison = Some(path.to_path_buf());
                folder.name = format!("{}, {}", name_of(path), name_of(&seed));
                folders.push(folder);
            }
            folders.retain(|folder| !folder.rows.is_empty());
            if folders.is_empty() {
                let hint = format!("go on with it: advcl compare --run {}", path.display());
                return Err(Error::run(path, "nothing was evaluated yet", hint));
            }
            return Ok(folders);
        }
        let folder = Self::one(path)?;
        if folder.rows.is_empty() {
            let hint = format!("go on with it: advcl run {}", path.display());
            return Err(Error::run(path, "nothing was evaluated yet", hint));
        }
        Ok(vec![folder])
    }

    fn one(path: &Path) -> Result<Self> {
        let layout = Layout::new(path);
        let recipe = FolderRecipe::load(path, &[])?;
        let recipe = recipe.expect("it has one").recipe;
        let machine: Option<Value> = optional(&layout.about())?;
        let version = machine
            .as_ref()
            .and_then(|note| note["advcl_version"].as_str());
        let old = |error: Error| match (error, version) {
            (
                Error::Format {
                    path: file, found, ..
                },
                Some(version),
            ) if version != env!("CARGO_PKG_VERSION") => {
                let problem = format!(
                    "{}: not understood ({found}): the folder was written by advcl {version}, this is {}",
                    file.display(),
                    env!("CARGO_PKG_VERSION")
                );
                Error::run(
                    path,
                    problem,
                    "use that version, or evaluate it again with this one",
                )
            }
            (error, _) => error,
        };
        let summary: Option<Summary> = optional(&layout.summary()).map_err(&old)?;
        let transfer = summary.and_then(|summary| summary.transfer);
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        for cell in Cell::of(&recipe, None, None)? {
            let kept = kept_outcomes(&layout, &cell).map_err(&old)?;
            if kept.is_empty() {
                missing.push(cell.stage());
            }
            let evaluated = kept.into_iter().filter(|(_, outcome)| outcome.images > 0);
            rows.extend(evaluated.map(|(_, outcome)| Row::new(&cell, outcome)));
        }
        Ok(Self {
            name: name_of(path),
            comparison: None,
            rows,
            missing,
            transfer,
            training: training(&layout.metrics())?,
            path: path.to_path_buf(),
            recipe,
            machine,
        })
    }
}

/// A file's content; none where there is no file.
fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    path.exists().then(|| read_json(path)).transpose()
}

/// The folder's own name: of `.` too.
fn name_of(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = whole.file_name().unwrap_or(whole.as_os_str());
    name.to_string_lossy().into_owned()
}
