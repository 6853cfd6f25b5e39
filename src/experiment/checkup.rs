//! Check of a whole run folder: formats, checksums, and which results hold under its recipe. Changes nothing.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::Serialize;

use super::kept::{KeptMeasure, KeptSuite, of_classifier};
use super::state::State;
use super::{
    Cell, Data, Experiment, FolderRecipe, Outcome, Purpose, Seconds, Stale, Summary, fingerprints,
    require_images, state,
};
use crate::cluster::PseudoLabels;
use crate::error::{Error, Result};
use crate::evaluate::adversarial::Adversarial;
use crate::evaluate::measures::Transfer;
use crate::evaluate::soundness::Soundness;
use crate::files;
use crate::recipe::Recipe;
use crate::run::layout::{self, ATTACK_PIECES, Layout};
use crate::run::{About, Bound, FolderKind, Model, ModelInfo, Results, Run};
use crate::train::Position;
use crate::weights;

/// State of a file or of a result in a run folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// The file is whole, and is what the recipe asks for as far as that is known.
    Holds,
    /// Work that goes on where it was.
    Unfinished,
    /// A whole file of other settings or images than the recipe asks for.
    Stale,
    /// A file that is not what was written, or that this version does not understand.
    Damaged,
}

/// A file in a run folder and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckedFile {
    /// The file, below the run folder.
    #[serde(serialize_with = "crate::files::as_text")]
    pub file: PathBuf,
    /// Its state.
    pub state: FileState,
    /// What was found.
    pub found: String,
    /// What to do; empty where there is nothing.
    pub hint: String,
}

/// Checks every file of a run folder, or of a comparison's folder with the runs in it, in the order of their names.
///
/// # Errors
/// [`Error::Run`] for a folder that is none; [`Error::Io`] for one that cannot be read. Whatever is wrong with a file or a folder
/// in it is among the results.
pub fn check(folder: &Path, overrides: &[String], device: &Device) -> Result<Vec<CheckedFile>> {
    let layout = Layout::new(folder);
    let there = |path: PathBuf| fs::symlink_metadata(path).is_ok();
    if !folder.is_dir() || !(there(layout.about()) || there(layout.recipe())) {
        let hint =
            "name a folder that `advcl run` or `advcl compare` wrote, such as runs/quickstart";
        return Err(Error::run(folder, "no run folder", hint));
    }
    let mut checkup = Checkup {
        layout: &layout,
        device,
        files: Vec::new(),
    };
    checkup.folder(overrides)?;
    Ok(checkup.files)
}

struct Checkup<'a> {
    layout: &'a Layout,
    device: &'a Device,
    files: Vec<CheckedFile>,
}

/// Names of what is in a folder, sorted: files, and folders that are no links.
fn names(folder: &Path) -> Result<(Vec<OsString>, Vec<OsString>)> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        let name = entry.file_name();
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => folders.push(name),
            false => files.push(name),
        }
    }
    files.sort();
    folders.sort();
    Ok((files, folders))
}

/// What to do about damaged figures of a classifier.
const EVALUATED_AGAIN: &str = "delete it: `advcl evaluate` computes it again";

impl Checkup<'_> {
    fn add(&mut self, file: impl Into<PathBuf>, state: FileState, found: String, hint: &str) {
        self.files.push(CheckedFile {
            file: file.into(),
            state,
            found,
            hint: hint.to_owned(),
        });
    }

    /// Adds a file by the outcome of reading it.
    fn read(
        &mut self,
        file: impl AsRef<Path>,
        hint: &str,
        read: impl FnOnce(&Path) -> Result<String>,
    ) {
        let file = file.as_ref();
        let path = self.layout.root().join(file);
        match read(&path) {
            Ok(found) => self.add(file, FileState::Holds, found, ""),
            Err(error) => self.add(file, FileState::Damaged, error.to_string(), hint),
        }
    }

    /// Names of what is in a folder of the run, as [`names`]. One that cannot be read is a line, and the others are checked.
    fn names(&mut self, folder: &Path) -> Option<(Vec<OsString>, Vec<OsString>)> {
        match names(&self.layout.root().join(folder)) {
            Ok(names) => Some(names),
            Err(error) => {
                self.add_unread(folder, &error);
                None
            }
        }
    }

    /// Adds a folder that cannot be checked.
    fn add_unread(&mut self, folder: &Path, error: &Error) {
        let hint = error.hint().unwrap_or_default();
        self.add(folder, FileState::Damaged, error.to_string(), hint);
    }

    fn folder(&mut self, overrides: &[String]) -> Result<()> {
        let root = self.layout.root();
        let mut comparison = false;
        let layout = self.layout;
        let copy = "take it from a copy of the folder";
        self.read(layout::ABOUT, copy, |_| {
            let about = About::load(layout)?;
            comparison = about
                .as_ref()
                .is_some_and(|a| a.kind == FolderKind::Comparison);
            Ok(about.map_or("none yet".to_owned(), |about| {
                format!("format {}, advcl {}", about.format, about.advcl_version)
            }))
        });
        let mut recipe = None;
        self.read(
            layout::RECIPE,
            "correct it, or take it from a copy of the folder",
            |_| {
                let found = FolderRecipe::load(root, overrides)?;
                let text = found.as_ref().map_or("none".to_owned(), |found| {
                    let name = found.path.file_name().unwrap_or_default();
                    format!("read from {}", name.display())
                });
                recipe = found.map(|found| found.recipe);
                Ok(text)
            },
        );
        let (files, folders) = names(root)?;
        for file in files {
            self.top_file(Path::new(&file));
        }
        for name in folders {
            let folder = Path::new(&name);
            let is_seed = |name: &str| name.starts_with(layout::SEED);
            if !(comparison && name.to_str().is_some_and(is_seed)) {
                self.stages(folder);
                continue;
            }
            match check(&root.join(folder), &[], self.device) {
                Ok(files) => {
                    let below = |found: CheckedFile| CheckedFile {
                        file: folder.join(&found.file),
                        ..found
                    };
                    self.files.extend(files.into_iter().map(below));
                }
                Err(error) => self.add_unread(folder, &error),
            }
        }
        if let Some(recipe) = recipe.filter(|_| !comparison) {
            self.results(recipe);
        }
        Ok(())
    }

    fn top_file(&mut self, file: &Path) {
        let again = "delete it: the next `advcl run` on the folder makes it again";
        match file.to_str().unwrap_or_default() {
            "metrics.jsonl" => self.read(
                file,
                "delete it: only the curves of the report need it",
                log,
            ),
            layout::PSEUDO_LABELS => self.read(
                file,
                "take it from a copy, or delete it: `advcl cluster` makes it again",
                |path| {
                    let (tensors, _) = weights::load(path)?;
                    PseudoLabels::recorded(path)?;
                    Ok(format!("labels for {} numbers of clusters", tensors.len()))
                },
            ),
            "cluster_time.json" => self.read(file, again, |path| {
                files::read_json::<f64>(path).map(|_| String::new())
            }),
            "summary.json" => self.read(file, again, |path| {
                let summary: Summary = files::read_json(path)?;
                Ok(format!("{} rows", summary.outcomes.len()))
            }),
            "transfer.json" => self.read(
                file,
                "delete it: `advcl evaluate` measures it again",
                |path| count(&Results::<Transfer>::load(path)?),
            ),
            "comparison.json" => {
                self.read(file, "delete it: `advcl compare` makes it again", |path| {
                    files::read_json::<serde_json::Value>(path).map(|_| String::new())
                })
            }
            _ => self.left_over(file),
        }
    }

    /// A file that a killed process left.
    fn left_over(&mut self, file: &Path) {
        if files::is_part(file) {
            let found = "left by a process that was killed while it wrote".to_owned();
            let hint = "the next command that works in the folder removes it";
            self.add(file, FileState::Unfinished, found, hint);
        }
    }

    /// A method's folder and those of its modes.
    fn stages(&mut self, stage: &Path) {
        let Some((files, folders)) = self.names(stage) else {
            return;
        };
        for file in files {
            self.stage_file(&stage.join(file));
        }
        let is_mode = stage.components().count() > 1;
        for folder in folders {
            let below = stage.join(&folder);
            if folder == ATTACK_PIECES {
                self.pieces(&below);
            } else if !is_mode {
                self.stages(&below);
            }
        }
    }

    fn pieces(&mut self, stage: &Path) {
        let Some((_, suites)) = self.names(stage) else {
            return;
        };
        for suite in suites {
            let folder = stage.join(suite);
            let Some((files, _)) = self.names(&folder) else {
                continue;
            };
            let is_batch = |file: &&OsString| file.to_string_lossy().ends_with(".safetensors");
            for file in files.iter().filter(is_batch) {
                let hint = "delete it: the attack on these images is repeated";
                self.read(folder.join(file), hint, examples);
            }
            let found = format!("{} batches of an unfinished attack", files.len());
            let hint = "the same `advcl evaluate` goes on with it";
            self.add(folder, FileState::Unfinished, found, hint);
        }
    }

    fn stage_file(&mut self, file: &Path) {
        let name = file.file_name().unwrap_or_default().to_str();
        let device = self.device;
        let again = EVALUATED_AGAIN;
        match name.unwrap_or_default() {
            layout::MODEL => {
                let hint =
                    "take it from a copy, or delete it: `advcl run` on the folder makes it again";
                self.read(file, hint, |path| {
                    let model = Model::load(path, device)?;
                    let ModelInfo {
                        format,
                        advcl_version,
                        ..
                    } = &model.info;
                    Ok(format!("format {format}, advcl {advcl_version}"))
                });
            }
            "times.json" => self.read(file, "delete it: only times are lost", |path| {
                files::read_json::<Seconds>(path).map(|_| String::new())
            }),
            "result.json" => self.read(file, again, |path| {
                let results: Results<Outcome> = Results::load(path)?;
                results
                    .iter()
                    .try_for_each(|one| one.value.require_possible(path))?;
                count(&results)
            }),
            "attack.json" => self.read(file, again, |path| {
                let results: Results<KeptSuite> = Results::load(path)?;
                results
                    .iter()
                    .try_for_each(|one| one.value.require_possible(path))?;
                count(&results)
            }),
            "soundness.json" => {
                self.read(file, again, |path| {
                    count(&Results::<Soundness>::load(path)?)
                });
            }
            "measures.json" => {
                self.read(file, again, |path| {
                    count(&Results::<KeptMeasure>::load(path)?)
                });
            }
            name if name.starts_with("checkpoint") && name.ends_with(".safetensors") => {
                let hint = "take it from a copy, or delete it: an unfinished training begins anew";
                self.read(file, hint, |path| {
                    let (tensors, _) = weights::load(path)?;
                    weights::require_finite(&tensors, path)?;
                    let position = Position::load(path)?;
                    Ok(
                        position.map_or(String::new(), |position| match position.step {
                            0 => format!("after epoch {}", position.epoch),
                            step => {
                                format!("epoch {}, after step {step}", position.begun_epochs())
                            }
                        }),
                    )
                });
            }
            name if name.starts_with("adversarial-") => self.read(file, again, examples),
            _ => self.left_over(file),
        }
    }

    /// Adds what the recipe says about the results.
    fn results(&mut self, recipe: Recipe) {
        if let Err(error) = self.compare_with_recipe(recipe) {
            let found = format!("what is stale was not looked for: {error}");
            let hint = error.hint().unwrap_or_default();
            self.add(layout::RECIPE, FileState::Stale, found, hint);
        }
    }

    fn compare_with_recipe(&mut self, recipe: Recipe) -> Result<()> {
        require_images(self.layout.root(), &recipe)?;
        let data = Data::load(&recipe, Purpose::Evaluate)?;
        let experiment = Experiment {
            fingerprints: fingerprints(&recipe, &data)?,
            run: Run::read_only(self.layout.root()),
            recipe,
            data,
            stale: Stale::Ask,
        };
        let file = |stage: &str| Path::new(stage).join(layout::MODEL);
        for name in experiment.methods(None)? {
            // What is damaged was said.
            if let Ok(state) = experiment.encoder_state(&name) {
                self.state(&file(&name), state);
            }
        }
        if experiment.recipe.cluster.is_some()
            && let Ok(state) = experiment.labels_state()
        {
            self.state(Path::new(layout::PSEUDO_LABELS), state);
        }
        for cell in experiment.cells(None, None)? {
            if cell.mode.is_some()
                && let Ok(state) = experiment.classifier_state(&cell)
            {
                self.state(&file(&cell.stage()), state);
            }
            self.figures(&cell);
        }
        Ok(())
    }

    /// Changes the state of a file that is whole.
    fn state(&mut self, file: &Path, state: State) {
        let (state, found, hint) = match state {
            State::Fresh => return,
            State::Missing => {
                let found = "not made yet".to_owned();
                (
                    FileState::Unfinished,
                    found,
                    "`advcl run` on the folder makes it",
                )
            }
            State::Shorter {
                epochs: [done, asked],
                ..
            } => {
                let found = format!("{done} of {asked} epochs");
                (
                    FileState::Unfinished,
                    found,
                    "`advcl run` on the folder goes on with it",
                )
            }
            State::Stale(other) => (
                FileState::Stale,
                format!("made with other settings or images: {}", other.why),
                "--replace makes it again, --reuse uses it as it is, `advcl fork` leaves it alone",
            ),
        };
        match self.files.iter_mut().find(|one| one.file == file) {
            Some(one) if one.state == FileState::Damaged => {}
            Some(one) => (one.state, one.found, one.hint) = (state, found, hint.to_owned()),
            None => self.add(file, state, found, hint),
        }
    }

    /// Says which results belong to a classifier that was made again since, and which cannot be the present one's.
    fn figures(&mut self, cell: &Cell) {
        let stage = cell.stage();
        let path = self.layout.results(&stage);
        let Ok(Some(info)) = ModelInfo::load(&self.layout.model(&cell.model_stage())) else {
            return;
        };
        let Ok(results) = Results::<Outcome>::load(&path) else {
            return;
        };
        let table = state::recorded(&info);
        let own: Vec<&Bound<Outcome>> = results
            .iter()
            .filter(|one| of_classifier(&one.depends_on, &table).is_some())
            .collect();
        let fits = |one: &&Bound<Outcome>| one.value.require_classes(info.classes.len(), &path);
        let wrong = own.iter().find_map(|one| fits(one).err());
        let (all, own) = (results.iter().count(), own.len());
        let file = Path::new(&stage).join("result.json");
        let mut files = self.files.iter_mut();
        let Some(one) = files.find(|one| one.file == file && one.state == FileState::Holds) else {
            return;
        };
        if let Some(error) = wrong {
            one.state = FileState::Damaged;
            one.found = error.to_string();
            one.hint = EVALUATED_AGAIN.to_owned();
        } else if own < all {
            one.found = format!(
                "{all} results, {} of them of an earlier classifier",
                all - own
            );
        }
    }
}

fn count<T>(results: &Results<T>) -> Result<String>
where
    T: Clone + Serialize + serde::de::DeserializeOwned,
{
    Ok(match results.iter().count() {
        1 => "1 result".to_owned(),
        count => format!("{count} results"),
    })
}

fn examples(path: &Path) -> Result<String> {
    let content = files::read(path)?;
    weights::require_checksum(&content, path)?;
    let (examples, _) = Adversarial::parse(&content, path)?;
    Ok(format!("{} adversarial examples", examples.indices.len()))
}

/// Lines of the log, every one of which is a JSON object.
fn log(path: &Path) -> Result<String> {
    let content = files::read(path)?;
    let mut lines = content.split(|byte| *byte == b'\n').collect::<Vec<_>>();
    // After the last line break.
    let unfinished = lines.pop().is_some_and(|rest| !rest.is_empty());
    for (number, line) in lines.iter().enumerate() {
        if let Err(error) = serde_json::from_slice::<serde_json::Map<_, _>>(line) {
            let place = format!("line {}", number + 1);
            return Err(Error::format(
                path,
                place,
                "a JSON object",
                error.to_string(),
            ));
        }
    }
    let cut = if unfinished {
        ", and one that a killed process did not finish"
    } else {
        ""
    };
    Ok(format!("{} lines{cut}", lines.len()))
}
