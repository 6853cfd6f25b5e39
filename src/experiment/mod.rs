//! A recipe carried out in a run folder, stage by stage; what is done already is not done again.

mod classifier;
mod data;
mod encoder;
mod figures;
mod measuring;
mod outcome;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::data::{Dataset, Images};
use crate::error::{Error, Result, first_difference};
use crate::recipe::{Fingerprint, Fingerprints, Part, Recipe, hash};
use crate::run::{Model, Run};
use crate::session::Context;
use crate::{device, files};

pub use data::{Data, Sources};
pub use outcome::{Outcome, Seconds, Summary};

const MODEL: &str = "model.safetensors";
const TIMES: &str = "times.json";

/// A recipe, its images and its folder.
pub struct Experiment {
    /// The resolved recipe.
    pub recipe: Recipe,
    /// Its folder.
    pub run: Run,
    /// Its images, the held-out ones taken out.
    pub data: Data,
    fingerprints: Fingerprints,
}

/// A row of the table: a method, and the mode by which its encoder is finetuned; none where the method trained the
/// classifier itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The method's table.
    pub method: String,
    /// The mode's table.
    pub mode: Option<String>,
}

/// How a classifier is called that was trained together with its encoder.
const END_TO_END: &str = "end-to-end";

impl Cell {
    /// The rows of the table: each method, or that one, in each mode, or in that one.
    ///
    /// # Errors
    /// [`Error::Recipe`] for names that the recipe does not have, and for a mode of methods that none finetunes.
    pub fn of(recipe: &Recipe, method: Option<&str>, mode: Option<&str>) -> Result<Vec<Self>> {
        let methods = match method {
            Some(name) => std::slice::from_ref(recipe.pretrain.require(name)?),
            None => recipe.pretrain.entries(),
        };
        let modes = match mode {
            Some(name) => std::slice::from_ref(recipe.finetune.require(name)?),
            None => recipe.finetune.entries(),
        };
        let mut cells = Vec::new();
        for entry in methods {
            let cell = |mode| Self {
                method: entry.name.clone(),
                mode,
            };
            // A classifier of the other images' classes is finetuned, whatever the encoder was trained on.
            if !entry.method().supervised() || recipe.downstream.is_some() {
                cells.extend(modes.iter().map(|mode| cell(Some(mode.name.clone()))));
            } else if mode.is_none() {
                cells.push(cell(None));
            }
        }
        if cells.is_empty() {
            let names: Vec<&str> = methods.iter().map(|entry| entry.name.as_str()).collect();
            let names = names.join(", ");
            let problem = format!("{names}: the classifier is trained with the encoder");
            let hint = "nothing is finetuned: leave the mode out";
            return Err(Error::recipe("mode", problem, hint));
        }
        Ok(cells)
    }

    /// The mode's table, or "end-to-end".
    pub fn mode_name(&self) -> &str {
        self.mode.as_deref().unwrap_or(END_TO_END)
    }

    /// As a path below the run folder, and in logs.
    pub fn stage(&self) -> String {
        format!("{}/{}", self.method, self.mode_name())
    }

    /// What its classifier depends on.
    pub fn classifier(&self) -> Part<'_> {
        Part::Classifier(&self.method, self.mode.as_deref())
    }

    /// What its figures depend on.
    pub fn figures(&self) -> Part<'_> {
        Part::Figures(&self.method, self.mode.as_deref())
    }

    fn attack(&self) -> Part<'_> {
        Part::Attack(&self.method, self.mode.as_deref())
    }
}

/// Of these images, and of the files that the recipe names.
///
/// # Errors
/// [`Error::Io`].
pub fn fingerprints(recipe: &Recipe, data: &Data) -> Result<Fingerprints> {
    let of = |data: &Dataset| Fingerprint::of(&data.train, &data.classes);
    let mut files = BTreeMap::new();
    for file in recipe.files() {
        let content = std::fs::read(file).map_err(Error::io("read", file))?;
        files.insert(file.to_owned(), hash(&content));
    }
    Ok(Fingerprints {
        train: of(&data.pretraining),
        downstream: data.downstream.as_ref().map(of),
        judged: Fingerprint::of(&data.judged, &data.target().classes),
        files,
    })
}

impl Experiment {
    /// Reads the data, checks the recipe against it, and opens the folder.
    ///
    /// # Errors
    /// Whatever is wrong with recipe, data or folder, before anything is computed.
    pub fn open(recipe: Recipe, folder: &Path) -> Result<Self> {
        let data = Data::load(&recipe)?;
        Self::with_data(recipe, data, folder)
    }

    /// As [`Experiment::open`], with images that were read before.
    ///
    /// # Errors
    /// Whatever is wrong with the folder.
    pub fn with_data(recipe: Recipe, data: Data, folder: &Path) -> Result<Self> {
        let run = Run::open(folder, &recipe.to_toml())?;
        Ok(Self {
            fingerprints: fingerprints(&recipe, &data)?,
            recipe,
            run,
            data,
        })
    }

    /// As [`Cell::of`], of this recipe.
    ///
    /// # Errors
    /// As [`Cell::of`].
    pub fn cells(&self, method: Option<&str>, mode: Option<&str>) -> Result<Vec<Cell>> {
        Cell::of(&self.recipe, method, mode)
    }

    /// All that a result depends on, as TOML.
    fn text_of(&self, part: Part) -> String {
        self.recipe.text_of(part, &self.fingerprints)
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
        target.require_every_class(&self.data.judged, "test")
    }

    /// Refuses data without the labels that one of `methods` learns from: before the work on any of them.
    ///
    /// # Errors
    /// [`Error::Data`]; [`Error::Recipe`] for a method that the recipe does not have.
    pub fn require_labels_of(&self, methods: &[String]) -> Result<()> {
        for name in methods {
            if self.recipe.pretrain.require(name)?.method().supervised() {
                self.require_training_labels(&self.data.pretraining)?;
            }
        }
        Ok(())
    }

    /// Says in which folder a stage was interrupted that saves nothing of its own.
    fn here(&self, error: Error) -> Error {
        match error {
            Error::Interrupted { at, path } if path.as_os_str().is_empty() => Error::Interrupted {
                at,
                path: self.run.path().to_path_buf(),
            },
            other => other,
        }
    }

    /// A method's encoder; with its classifier, where it is supervised.
    pub fn encoder_path(&self, method: &str) -> PathBuf {
        self.run.path().join(method).join(MODEL)
    }

    /// The model with a row's classifier.
    pub fn model_path(&self, cell: &Cell) -> PathBuf {
        match cell.mode {
            Some(_) => self.run.path().join(cell.stage()).join(MODEL),
            None => self.encoder_path(&cell.method),
        }
    }

    /// The model in `path`, where there is one; refused where it is another recipe's.
    fn load(
        &self,
        path: &Path,
        method: &str,
        part: Part,
        images: &Images,
        context: &Context,
    ) -> Result<Option<Model>> {
        if !path.exists() {
            return Ok(None);
        }
        let model = Model::load(path, &context.device)?;
        let info = &model.info;
        let refuse = |problem: String| {
            let hint = "the file does not belong to this run folder";
            Err(Error::model(path, problem, hint))
        };
        if info.encoder != self.recipe.encoder || info.method != method {
            return refuse(format!("a {} model of another encoder", info.method));
        }
        let found = (info.channels, info.image_size);
        let expected = (images.channels, [images.height, images.width]);
        if found != expected {
            return refuse(format!(
                "expected a model of images {expected:?}, found {found:?}"
            ));
        }
        let expected = self.text_of(part);
        if info.recipe != expected {
            let difference = first_difference(&info.recipe, &expected);
            return refuse(format!("a model of another recipe ({difference})"));
        }
        Ok(Some(model))
    }

    fn load_encoder(&self, method: &str, context: &Context) -> Result<Option<Model>> {
        let (path, images) = (
            self.encoder_path(method),
            &self.data.pretraining.train.images,
        );
        self.load(&path, method, Part::Encoder(method), images, context)
    }

    fn require_encoder(&self, method: &str, context: &Context) -> Result<Model> {
        self.load_encoder(method, context)?.ok_or_else(|| {
            let problem = format!("no {method} encoder yet");
            let run = self.run.path().display();
            let hint = format!("make it first: advcl pretrain --method {method} --run {run}");
            Error::run(self.run.path(), problem, hint)
        })
    }

    fn load_classifier(&self, cell: &Cell, context: &Context) -> Result<Option<Model>> {
        if cell.mode.is_none() {
            return self.load_encoder(&cell.method, context);
        }
        let (path, images) = (self.model_path(cell), &self.data.target().train.images);
        self.load(&path, &cell.method, cell.classifier(), images, context)
    }

    /// The seconds that are noted in a stage's folder.
    fn seconds(&self, stage: &str) -> Result<Seconds> {
        let path = self.run.path().join(stage).join(TIMES);
        if path.exists() {
            files::read_json(&path)
        } else {
            Ok(Seconds::default())
        }
    }

    fn set_seconds(&self, stage: &str, change: impl FnOnce(&mut Seconds)) -> Result<()> {
        let mut seconds = self.seconds(stage)?;
        change(&mut seconds);
        files::write_json(&self.run.stage(stage)?.join(TIMES), &seconds)
    }

    /// Pretrains one encoder, with the pseudo-labels that it asks for before it.
    ///
    /// # Errors
    /// As [`Experiment::cluster`] and [`Experiment::pretrain`].
    pub fn make_encoder(&self, name: &str, context: &mut Context) -> Result<()> {
        if self.recipe.pretrain.require(name)?.method().clustered() {
            self.cluster(context)?;
        }
        self.pretrain(name, context)
    }

    /// Refuses what is known now to be impossible later: better before hours of pretraining.
    ///
    /// # Errors
    /// [`Error::Data`] for labels that are missing, [`Error::Recipe`] for a share of them that leaves a class without any,
    /// [`Error::Model`] and others for an encoder of another run that cannot be learnt from.
    pub fn check_ready(&self, context: &Context) -> Result<()> {
        self.require_labels()?;
        self.attacked_images()?;
        let entries = self.recipe.pretrain.entries();
        let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
        self.require_labels_of(&names)?;
        for entry in self.recipe.finetune.entries() {
            self.labeled(entry)?;
        }
        for entry in entries {
            if let Some(source) = entry.method().source() {
                self.check_source(source, context)?;
            }
        }
        Ok(())
    }

    /// Everything, in order; ends with `summary.json`.
    ///
    /// # Errors
    /// Of any stage.
    pub fn all(&self, context: &mut Context) -> Result<Summary> {
        self.check_ready(context)?;
        let cells = self.cells(None, None)?;
        if self.labels_are_given() {
            self.cluster(context)?;
        }
        for entry in self.recipe.pretrain.entries() {
            self.make_encoder(&entry.name, context)?;
            for cell in cells.iter().filter(|cell| cell.method == entry.name) {
                self.finetune(cell, context)?;
            }
        }
        self.summary(&cells, context)
    }

    /// Notes version, device and machine in `run.json`, once.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn note_machine(&self, device_name: &str) -> Result<()> {
        let path = self.run.path().join("run.json");
        if path.exists() {
            return Ok(());
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let note = serde_json::json!({
            "advcl_version": env!("CARGO_PKG_VERSION"),
            "device": device_name,
            "devices_compiled_in": device::compiled_in(),
            "cores": cores,
            "os": std::env::consts::OS,
            "architecture": std::env::consts::ARCH,
            "seed": self.recipe.seed,
        });
        files::write_json(&path, &note)
    }
}
