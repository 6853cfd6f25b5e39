//! A run folder read back: its recipe and whatever was measured in it.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::training::{Stage, training};
use crate::error::{Error, Result};
use crate::evaluate::Attacked;
use crate::evaluate::measures::{Measures, Transfer};
use crate::evaluate::soundness::Soundness;
use crate::experiment::{Cell, Outcome, Summary};
use crate::files::read_json;
use crate::interval::Interval;
use crate::recipe::Recipe;

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
    /// What the figures depended on when they were measured, as TOML.
    #[serde(skip)]
    pub record: String,
}

impl Row {
    /// The row of the table that it is.
    pub fn cell(&self, recipe: &Recipe) -> Option<Cell> {
        let cells = Cell::of(recipe, None, None).ok()?;
        cells
            .into_iter()
            .find(|cell| cell.stage() == self.classifier)
    }
}

/// What a file says that its figures depend on.
#[derive(Deserialize)]
struct Record {
    recipe: String,
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
        let recipe_path = path.join("recipe.toml");
        if !recipe_path.exists() {
            let hint =
                "name the folder that `advcl run` or `advcl compare` wrote: runs/quickstart, say";
            return Err(Error::run(path, "no run: it has no recipe.toml", hint));
        }
        let seeds = seeds_below(path);
        if !seeds.is_empty() {
            let mut folders = Vec::new();
            for seed in seeds {
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
        let recipe = Recipe::load(&path.join("recipe.toml").display().to_string(), &[])?;
        let machine: Option<Value> = optional(&path.join("run.json"))?;
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
        let summary: Option<Summary> = optional(&path.join("summary.json")).map_err(&old)?;
        let transfer = match &summary {
            Some(summary) => summary.transfer.clone(),
            None => optional(&path.join("transfer.json")).map_err(&old)?,
        };
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        for cell in Cell::of(&recipe, None, None)? {
            match read_row(path, &cell, summary.as_ref()).map_err(&old)? {
                Some(row) => rows.push(row),
                None => missing.push(cell.stage()),
            }
        }
        Ok(Self {
            name: name_of(path),
            comparison: None,
            rows,
            missing,
            transfer,
            training: training(&path.join("metrics.jsonl"))?,
            path: path.to_path_buf(),
            recipe,
            machine,
        })
    }
}

/// The summary has all that holds for the recipe as it is. Where there is none, as in a comparison, or where it is older than
/// the row's own figures, there are the row's files.
fn read_row(run: &Path, cell: &Cell, summary: Option<&Summary>) -> Result<Option<Row>> {
    let folder = run.join(cell.stage());
    let result = folder.join("result.json");
    let Some(mut outcome) = optional::<Outcome>(&result)? else {
        return Ok(None);
    };
    let record: Record = read_json(&result)?;
    let same = |other: &&Outcome| {
        (&other.method, &other.finetuning) == (&outcome.method, &outcome.finetuning)
            && other.accuracy == outcome.accuracy
    };
    let summed = summary.and_then(|summary| summary.outcomes.iter().find(same));
    if let Some(summed) = summed {
        outcome = summed.clone();
    } else {
        let attacked = optional::<Attacked>(&folder.join("attack.json"))?;
        outcome.attacked = attacked.map(|attacked| attacked.with_pgd(&outcome.accuracy));
        outcome.soundness = optional::<Soundness>(&folder.join("soundness.json"))?;
        if let (Some(soundness), Some(attacked)) = (&mut outcome.soundness, &outcome.attacked) {
            soundness.include_attack_results(attacked);
        }
        outcome.measures = optional::<Measures>(&folder.join("measures.json"))?;
    }
    if outcome.accuracy.total.images == 0 {
        return Ok(None);
    }
    let (total, worst) = (&outcome.accuracy.total, outcome.attacked.as_ref());
    Ok(Some(Row {
        classifier: cell.stage(),
        clean: Interval::wilson(total.clean, total.images),
        robust: Interval::wilson(total.robust, total.images),
        worst: worst.and_then(|all| Interval::wilson(all.robust, all.images)),
        record: record.recipe,
        outcome,
    }))
}

/// A file's content; none where there is no file.
fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    path.exists().then(|| read_json(path)).transpose()
}

/// The run folders of a comparison, by rising seed.
fn seeds_below(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut seeds: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let seed = entry
                .file_name()
                .to_str()?
                .strip_prefix("seed-")?
                .parse()
                .ok()?;
            Some((seed, entry.path()))
        })
        .filter(|(_, folder)| folder.join("recipe.toml").exists())
        .collect();
    seeds.sort();
    seeds.into_iter().map(|(_, folder)| folder).collect()
}

/// The folder's own name: of `.` too.
fn name_of(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = whole.file_name().unwrap_or(whole.as_os_str());
    name.to_string_lossy().into_owned()
}
