//! A recipe carried out in a run folder, stage by stage; what is done already is not done again.

mod checkup;
mod classifier;
mod data;
mod encoder;
mod evaluation;
mod examples;
mod folder;
mod fork;
mod kept;
mod labeling;
mod measuring;
mod outcome;
mod resources;
mod rows;
mod start;
mod state;

use std::path::{Path, PathBuf};

use crate::data::{Dataset, SplitFingerprint};
use crate::device;
use crate::error::{Error, Result};
use crate::files;
use crate::nn;
use crate::ranks;
use crate::recipe::{Artifact, Fingerprints, Recipe, title};
use crate::run::{About, FolderKind, Layout, Model, Run};
use crate::session::Context;
use crate::train;

pub use checkup::{CheckedFile, FileState, check};
pub use data::{Data, Purpose, Sources};
pub use folder::{FolderRecipe, has_begun, has_recipe, require_images, save as save_recipe};
pub use fork::Forked;
pub use kept::kept_outcomes;
pub(crate) use kept::{KeptMeasure, KeptSuite};
pub use labeling::{Labeled, Strategy, Wanted};
pub use outcome::{Evaluated, Outcome, Seconds, Summary};
pub use rows::Cell;
pub use state::Stale;

/// A recipe, its images and its run folder.
///
/// Every stage has one method, which finds out what is there already: [`Experiment::run`] carries all of
/// them out. Random numbers come from the recipe's seed, whatever seed the context has, and every event
/// is logged in the folder before the context's observer gets it.
///
/// ```
/// use advcl::{Context, Experiment, Model, Recipe};
///
/// # let temporary = tempfile::tempdir().expect("a folder");
/// # let folder = temporary.path();
/// # /*
/// let folder = "runs/encoder";
/// # */
/// // Small, so that it takes a second.
/// let small = ["data.train_limit = 64", "pretrain.simclr.plan.epochs = 1"].map(String::from);
/// let experiment = Experiment::open(Recipe::load("smoke", &small)?, folder)?;
/// let mut context = Context::cpu()?;
/// experiment.pretrain(Some("simclr"), &mut context)?;
/// let encoder = Model::load(&experiment.encoder_path("simclr"), &context.device)?;
/// assert_eq!(encoder.info.image_size, [28, 28]);
/// # Ok::<(), advcl::Error>(())
/// ```
pub struct Experiment {
    /// The recipe, with all overrides.
    pub recipe: Recipe,
    /// The run folder.
    pub run: Run,
    /// The images of the recipe.
    pub data: Data,
    fingerprints: Fingerprints,
    stale: Stale,
}

/// Fingerprints of a recipe's images and of the files that it names.
///
/// # Errors
/// [`Error::Io`].
fn fingerprints(recipe: &Recipe, data: &Data) -> Result<Fingerprints> {
    let of = |data: &Dataset| SplitFingerprint::new(&data.train, &data.classes);
    Ok(Fingerprints {
        train: of(&data.pretraining),
        downstream: data.downstream.as_ref().map(of),
        evaluated: SplitFingerprint::new(&data.judged, &data.target().classes),
        files: recipe.file_hashes()?,
    })
}

/// Name of a row's classifier in messages: "SLF classifier of AdvCL".
fn classifier_title(cell: &Cell) -> String {
    let mode = cell.mode_name();
    let method = crate::pretrain::title(&cell.method);
    format!("{} of {method}", title(Artifact::Classifier(mode)))
}

impl Experiment {
    /// Reads the images, checks the recipe against them, and opens the folder.
    ///
    /// # Errors
    /// Whatever is wrong with recipe, data or folder, before anything is computed.
    pub fn open(recipe: Recipe, folder: impl AsRef<Path>) -> Result<Self> {
        let data = Data::load(&recipe, Purpose::Train)?;
        Self::with_data(recipe, data, folder)
    }

    /// Opens the folder to evaluate the classifiers that are in it, on whatever images the recipe names.
    ///
    /// # Errors
    /// Whatever is wrong with recipe, data or folder.
    pub fn open_to_evaluate(recipe: Recipe, folder: impl AsRef<Path>) -> Result<Self> {
        let data = Data::load(&recipe, Purpose::Evaluate)?;
        Self::with_data(recipe, data, folder)
    }

    /// Opens the folder to read what is in it. Nothing in it is changed: it may be another user's, or on a medium that nobody can
    /// write to.
    ///
    /// # Errors
    /// As [`Experiment::open`].
    pub fn open_to_read(
        recipe: Recipe,
        purpose: Purpose,
        folder: impl AsRef<Path>,
    ) -> Result<Self> {
        let data = Data::load(&recipe, purpose)?;
        Self::in_run(recipe, data, folder.as_ref(), Run::open_to_read)
    }

    /// Opens the folder for images that were read before.
    ///
    /// # Errors
    /// Whatever is wrong with the folder.
    pub fn with_data(recipe: Recipe, data: Data, folder: impl AsRef<Path>) -> Result<Self> {
        let opened = Self::in_run(recipe, data, folder.as_ref(), Run::open)?;
        ranks::first("finished attacks", || {
            kept::remove_finished_pieces(opened.layout())
        })?;
        Ok(opened)
    }

    fn in_run(
        recipe: Recipe,
        data: Data,
        folder: &Path,
        open: impl FnOnce(&Path) -> Result<Run>,
    ) -> Result<Self> {
        let fingerprints = fingerprints(&recipe, &data)?;
        ranks::require_same("program", env!("CARGO_PKG_VERSION"))?;
        ranks::require_same("recipe", &recipe.to_toml())?;
        ranks::require_same("set of images", &format!("{fingerprints:#?}"))?;
        // A folder of a later version, or of a comparison, is refused before anything is written into it.
        About::require(&Layout::new(folder), FolderKind::Run)?;
        Ok(Self {
            run: open(folder)?,
            fingerprints,
            recipe,
            data,
            stale: Stale::Ask,
        })
    }

    /// The same experiment with another answer to stale results.
    pub fn with_stale(self, stale: Stale) -> Self {
        Self { stale, ..self }
    }

    /// Places of the run's files.
    pub fn layout(&self) -> &Layout {
        self.run.layout()
    }

    /// Rows of the recipe: each method, or the one given, in each mode, or in the one given.
    ///
    /// # Errors
    /// As [`Cell::of`].
    pub fn cells(&self, method: Option<&str>, mode: Option<&str>) -> Result<Vec<Cell>> {
        Cell::of(&self.recipe, method, mode)
    }

    /// Does `work` with the recipe's seed; events are logged in the folder too, and an interruption
    /// names the folder.
    fn enter<T>(
        &self,
        context: &mut Context,
        work: impl FnOnce(&mut Context) -> Result<T>,
    ) -> Result<T> {
        let has_logged =
            |stage: &str, epoch: usize, losses: &[_]| self.run.has_logged(stage, epoch, losses);
        let logged = context.watched(|event| self.run.log(event));
        let mut inner = logged.with_seed(self.recipe.seed).logged_by(&has_logged);
        inner.precision = self.recipe.precision;
        inner.shards = self.recipe.sharding();
        let done = work(&mut inner);
        drop(inner);
        let done = done.map_err(|error| match error {
            Error::Interrupted { at, path } if path.as_os_str().is_empty() => Error::Interrupted {
                at,
                path: self.run.path().to_path_buf(),
            },
            other => other,
        })?;
        self.run.finish_log()?;
        Ok(done)
    }

    /// Refuses data without labels, or with a class that has no training image.
    fn require_training_labels(&self, data: &Dataset) -> Result<()> {
        data.require_labels()?;
        data.require_every_class(&data.train, "training")
    }

    /// Refuses data without the labels that classifiers need.
    fn require_labels(&self) -> Result<()> {
        let target = self.data.target();
        self.require_training_labels(target)?;
        target.require_judged(&self.data.judged)?;
        target.require_every_class(&self.data.judged, "test")
    }

    /// Refuses data without the labels that one of `methods` learns from, before the work on any of them.
    ///
    /// # Errors
    /// [`Error::Data`]; [`Error::Recipe`] for a method that the recipe does not have, and for images without labels beside it.
    fn require_labels_of(&self, methods: &[String]) -> Result<()> {
        for name in methods {
            if !self.recipe.pretrain.require(name)?.method().supervised() {
                continue;
            }
            if !self.recipe.data.unlabeled.is_empty() {
                let problem = format!(
                    "{name} learns from labels, and the images of data.unlabeled ({}) have none",
                    self.recipe.data.unlabeled.join(", ")
                );
                let hint = "--set 'data.unlabeled = []' trains on the labeled images alone (in a run folder of its own); or leave the method's table out";
                return Err(Error::recipe(format!("pretrain.{name}"), problem, hint));
            }
            self.require_training_labels(&self.data.pretraining)?;
        }
        Ok(())
    }

    /// Model file of a method's encoder; with its classifier, where the method is supervised.
    pub fn encoder_path(&self, method: &str) -> PathBuf {
        self.layout().model(method)
    }

    /// Model file of a row's classifier.
    pub fn model_path(&self, cell: &Cell) -> PathBuf {
        self.layout().model(&cell.model_stage())
    }

    fn require_encoder(&self, method: &str, context: &Context) -> Result<Model> {
        let path = self.encoder_path(method);
        if path.exists() {
            return Model::load(&path, &context.device);
        }
        let problem = format!("no {method} encoder yet");
        let run = self.run.path().display();
        let hint = format!("make it first: advcl pretrain {run} --method {method}");
        Err(Error::run(self.run.path(), problem, hint))
    }

    /// Seconds that are noted in a stage's folder.
    fn seconds(&self, stage: &str) -> Result<Seconds> {
        let path = self.layout().times(stage);
        if path.exists() {
            files::read_json(&path)
        } else {
            Ok(Seconds::default())
        }
    }

    fn set_seconds(&self, stage: &str, change: impl FnOnce(&mut Seconds)) -> Result<()> {
        let mut seconds = self.seconds(stage)?;
        change(&mut seconds);
        self.run.stage(stage)?;
        files::write_json(&self.layout().times(stage), &seconds)
    }

    /// Refuses what is known now to be impossible later, before hours of pretraining.
    ///
    /// # Errors
    /// [`Error::Data`] for labels that are missing, [`Error::Recipe`] for a share of them that leaves a class or a shard without
    /// any, or for an encoder whose training cannot fit into memory; [`Error::Model`] and others for an encoder of another
    /// run that cannot be learnt from or begun at; [`Error::Run`] for stale results that took long, where nobody said what to do with
    /// them.
    pub fn check_ready(&self, context: &Context) -> Result<()> {
        train::require_ranks(self.recipe.shards)?;
        self.require_labels()?;
        self.attacked_images()?;
        let methods = self.methods(None)?;
        self.require_labels_of(&methods)?;
        for entry in self.recipe.finetune.entries() {
            self.labeled(entry)?;
        }
        self.require_sources_of(&methods, context)?;
        self.require_permission(&self.cells(None, None)?, &methods)?;
        self.require_memory(&methods, context)
    }

    /// Names of all methods of the recipe, or the one given.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a name that the recipe does not have.
    pub fn methods(&self, method: Option<&str>) -> Result<Vec<String>> {
        if let Some(name) = method {
            return Ok(vec![self.recipe.pretrain.require(name)?.name.clone()]);
        }
        let entries = self.recipe.pretrain.entries().iter();
        Ok(entries.map(|entry| entry.name.clone()).collect())
    }

    /// Keeps the recipe in the folder, and on which machine the folder was begun.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Run`].
    pub(crate) fn remember(&self, context: &Context) -> Result<()> {
        let about = About::load(self.layout())?;
        let (device, seed) = (device::name(&context.device), self.recipe.seed);
        let mut about = about.unwrap_or_else(|| About::new(FolderKind::Run, &device, seed));
        // Of all ranks, so that all of them take part in writing it, or none.
        let arithmetic = nn::arithmetic_of_all_ranks(&context.device, self.recipe.precision);
        if !about.arithmetic.contains(&arithmetic) {
            about.arithmetic.push(arithmetic);
            // Also where nothing else is new, which is all that `save` looks for.
            if self.layout().about().exists() {
                about.store(self.layout())?;
            }
        }
        folder::save(self.layout(), &self.recipe, about)
    }

    /// Pretrains one encoder, with what it needs before it, for a comparison.
    pub(crate) fn prepare_row(&self, method: &str, context: &mut Context) -> Result<()> {
        self.enter(context, |context| {
            self.make_encoder_with_labels(method, context)
        })
    }

    /// Finetunes and evaluates one row, for a comparison.
    pub(crate) fn complete_row(&self, cell: &Cell, context: &mut Context) -> Result<Outcome> {
        self.enter(context, |context| {
            self.make_classifier(cell, context)?;
            self.evaluate_row(cell, context)
        })
    }

    /// Carries out the whole recipe: pretraining, clustering, finetuning and evaluation, in order. Ends with
    /// `summary.json`.
    ///
    /// # Errors
    /// Of any stage.
    pub fn run(&self, context: &mut Context) -> Result<Summary> {
        self.check_ready(context)?;
        self.remember(context)?;
        self.enter(context, |context| {
            let cells = self.cells(None, None)?;
            if self.labels_are_given() {
                self.make_labels(context)?;
            }
            for entry in self.recipe.pretrain.entries() {
                self.make_encoder_with_labels(&entry.name, context)?;
                for cell in cells.iter().filter(|cell| cell.method == entry.name) {
                    self.make_classifier(cell, context)?;
                }
            }
            self.summarize(&cells, context)
        })
    }
}
