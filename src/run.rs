//! The run folder: recipe, checkpoints, metrics, models. The folder is the run; running again resumes.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, first_difference};
use crate::files::write_atomic;
use crate::nn::{Backbone, Classifier, Encoder, EncoderConfig, Linear, Normalize, Route};
use crate::random;
use crate::session::Event;
use crate::weights::{self, Tensors};

/// A run folder, held by this process.
pub struct Run {
    path: PathBuf,
    metrics: File,
    // Unlocked when dropped.
    _lock: File,
}

impl Run {
    /// Opens the folder, making it where it is missing, and locks it. `recipe` is the resolved recipe's text: a
    /// folder that holds another one is refused. Only the table `[evaluate]` may change: nothing that is made
    /// depends on it, and figures are measured anew.
    ///
    /// # Errors
    /// [`Error::Run`] for another recipe or another process at work; [`Error::Io`].
    pub fn open(path: &Path, recipe: &str) -> Result<Self> {
        fs::create_dir_all(path).map_err(Error::io("create", path))?;
        let lock_path = path.join(".lock");
        let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            let hint = "wait for it, or name another folder with --run";
            return Err(Error::run(
                path,
                "another advcl is at work in this folder",
                hint,
            ));
        }
        let saved = path.join("recipe.toml");
        if saved.exists() {
            let found = fs::read_to_string(&saved).map_err(Error::io("read", &saved))?;
            let (fixed, wanted) = (
                without_evaluate(&found, &saved)?,
                without_evaluate(recipe, &saved)?,
            );
            if fixed != wanted {
                let difference = first_difference(&fixed, &wanted);
                let problem = format!("made with another recipe ({difference})");
                let hint = "name another folder with --run, or delete this one to start anew";
                return Err(Error::run(path, problem, hint));
            }
            if found != recipe {
                write_atomic(&saved, recipe.as_bytes())?;
            }
        } else {
            write_atomic(&saved, recipe.as_bytes())?;
        }
        let metrics_path = path.join("metrics.jsonl");
        let metrics = File::options()
            .create(true)
            .append(true)
            .open(&metrics_path);
        let metrics = metrics.map_err(Error::io("write", &metrics_path))?;
        Ok(Self {
            path: path.to_path_buf(),
            metrics,
            _lock: lock,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of one stage, made where it is missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn stage(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        Ok(path)
    }

    /// Appends an event to `metrics.jsonl`; steps and progress within a stage are for people, not for the log.
    pub fn log(&self, event: &Event) {
        if matches!(event, Event::Step { .. } | Event::Progress { .. }) {
            return;
        }
        let line = serde_json::to_string(event).expect("plain values");
        // The log is for reading along; a full disk stops the run at the next checkpoint.
        let _ = writeln!(&self.metrics, "{line}");
    }
}

/// A recipe's text without the one table that may change.
fn without_evaluate(recipe: &str, path: &Path) -> Result<String> {
    let parsed = toml::from_str::<toml::Table>(recipe);
    let mut table = parsed.map_err(|error| {
        let found = error.message().trim().replace('\n', "; ");
        Error::format(path, "recipe", "the recipe that this program wrote", found)
    })?;
    table.remove("evaluate");
    Ok(toml::to_string(&table).expect("it was parsed"))
}

/// What a model file says of itself: enough to build the model and to use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Of this description.
    pub format: usize,
    /// How it was pretrained.
    pub method: String,
    /// Depth, width, stem.
    #[serde(flatten)]
    pub encoder: EncoderConfig,
    /// Of the images: 1 or 3.
    pub channels: usize,
    /// Height and width of the images, in pixels.
    pub image_size: [usize; 2],
    /// In label order; empty while no classifier was fitted.
    pub classes: Vec<String>,
    /// The BatchNorm branches, in order.
    pub routes: Vec<Route>,
    /// The one to use.
    pub route: Route,
    /// Whether the projection head `head_proj` is there: methods that compare no projections have none.
    #[serde(default = "usual_projection")]
    pub projection: bool,
    /// Numbers of clusters, one head `fc_K` each.
    pub clusters: Vec<usize>,
    /// Where the pseudo-labels came from.
    pub pseudo_labels: Option<String>,
    /// How the classifier was fitted: "slf", or "end-to-end" where it was trained together with the encoder.
    pub finetuning: Option<String>,
    /// By what images are normalised inside the encoder; weights that were made here do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// All that the weights depend on, as TOML: the recipe's part, how many images, their fingerprint.
    pub recipe: String,
    /// The program that wrote it.
    pub advcl_version: String,
}

/// Files from before there were methods without a projection head do not say that they have one.
fn usual_projection() -> bool {
    true
}

/// The method of a model whose weights were made elsewhere.
pub const IMPORTED: &str = "imported";

const METADATA: &str = "advcl";
const LINEAR: &str = "linear.";

/// A model file read back.
pub struct Model {
    /// What it says of itself.
    pub info: ModelInfo,
    /// Encoder and heads of pretraining.
    pub backbone: Backbone,
    /// The classifier, where one was fitted.
    pub linear: Option<Linear>,
}

impl Model {
    /// Writes the model file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Diverged`] for weights that are not finite, and nothing is written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = weights::export(&self.backbone);
        if let Some(linear) = &self.linear {
            let prefixed = |(name, tensor)| (format!("{LINEAR}{name}"), tensor);
            tensors.extend(weights::export(linear).into_iter().map(prefixed));
        }
        for (name, (_, values)) in &tensors {
            if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::Diverged {
                    stage: self.info.method.clone(),
                    part: name.clone(),
                    value,
                    at: "the end of training".to_owned(),
                });
            }
        }
        let info = serde_json::to_string(&self.info).expect("plain values");
        weights::save(path, &tensors, &[(METADATA, info)])
    }

    /// Reads a model file, strictly.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::Model`].
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let (mut tensors, metadata) = weights::load(path)?;
        let info: ModelInfo = match metadata
            .get(METADATA)
            .map(|text| serde_json::from_str(text))
        {
            Some(Ok(info)) => info,
            Some(Err(error)) => {
                let expected = "a description that this version understands";
                return Err(Error::format(
                    path,
                    "metadata advcl",
                    expected,
                    error.to_string(),
                ));
            }
            None => {
                let problem = "no advcl metadata: this is not a model.safetensors of a run folder";
                let hint =
                    "give the path of a model in a run folder: advcl/slf/model.safetensors, say";
                return Err(Error::model(path, problem, hint));
            }
        };
        if !info.routes.contains(&info.route) {
            let expected = format!("one of the routes {:?}", info.routes);
            let found = info.route.name();
            return Err(Error::format(
                path,
                "metadata advcl, route",
                expected,
                found,
            ));
        }
        if !info.projection && info.classes.is_empty() && info.method != IMPORTED {
            let expected = "a projection head or a classifier";
            return Err(Error::format(path, "metadata advcl", expected, "neither"));
        }
        // The initial values are replaced, every one: any generator will do.
        let mut rng = random::generator(0, "placeholder", 0);
        let (encoder, channels, routes) = (&info.encoder, info.channels, info.routes.len());
        let fresh = match info.projection {
            true => Backbone::new(encoder, channels, routes, &info.clusters, &mut rng, device),
            false => {
                Backbone::without_heads(Encoder::new(encoder, channels, routes, &mut rng, device))
            }
        };
        let mut backbone = weights::import(fresh, &mut tensors, &[LINEAR], path)?;
        backbone.encoder = backbone.encoder.normalized(info.normalize.clone());
        let mut linear = None;
        if !info.classes.is_empty() {
            let fresh = Linear::new(
                info.encoder.features(),
                info.classes.len(),
                &mut rng,
                device,
            );
            let strip = |(name, tensor): (String, _)| (name[LINEAR.len()..].to_owned(), tensor);
            let mut tensors: Tensors = tensors.into_iter().map(strip).collect();
            linear = Some(weights::import(fresh, &mut tensors, &[], path)?);
        } else if let Some(name) = tensors.keys().next() {
            let problem = format!("tensor {name} without class names in the metadata");
            return Err(Error::model(
                path,
                problem,
                "the file was changed after it was written",
            ));
        }
        Ok(Self {
            info,
            backbone,
            linear,
        })
    }

    /// The encoder with its classifier.
    ///
    /// # Errors
    /// [`Error::Model`] when none was fitted.
    pub fn classifier(&self, path: &Path) -> Result<Classifier> {
        let Some(linear) = self.linear.clone() else {
            let below = path.parent().map(models_below).unwrap_or_default();
            let hint = if below.is_empty() {
                let folder = path.ancestors().nth(2);
                let folder = folder.filter(|run| run.join("recipe.toml").exists());
                let run = folder.map_or("DIR".to_owned(), |run| run.display().to_string());
                format!("make one first: advcl finetune --run {run}")
            } else {
                let names = below.iter().map(|path| path.display().to_string());
                format!("name one: {}", names.collect::<Vec<_>>().join(", "))
            };
            let problem = "an encoder alone: the model has no classifier";
            return Err(Error::model(path, problem, hint));
        };
        let encoder: Encoder = self.backbone.encoder.clone();
        Ok(Classifier {
            encoder,
            linear,
            route: self.info.route,
        })
    }
}

/// The folders in `folder` that have a model, in order of their names.
pub fn models_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.join("model.safetensors").exists());
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Depth, Stem};

    #[test]
    fn only_evaluate_may_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let text =
            |seed: u64, steps: usize| format!("seed = {seed}\n\n[evaluate]\nsteps = {steps}\n");
        let open = |seed, steps| Run::open(folder.path(), &text(seed, steps)).map(drop);
        open(1, 20).expect("a new folder");
        open(1, 50).expect("the same but for evaluate");
        let saved = folder.path().join("recipe.toml");
        assert_eq!(fs::read_to_string(&saved).expect("a recipe"), text(1, 50));
        let error = open(2, 50).expect_err("another seed").to_string();
        assert!(
            error.contains("(it has `seed = 1`, this one `seed = 2`)"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&saved).expect("a recipe"), text(1, 50));
    }

    #[test]
    fn weights_that_are_not_finite_are_never_saved() {
        let device = crate::device::open("cpu").expect("the CPU");
        let encoder = EncoderConfig {
            depth: Depth::D10,
            width: 2,
            stem: Stem::Strided,
        };
        let mut rng = random::generator(0, "test", 0);
        let mut backbone = Backbone::new(&encoder, 1, 1, &[], &mut rng, &device);
        let mut tensors = weights::export(&backbone);
        let (_, values) = tensors.get_mut("conv1.weight").expect("a stem");
        values[3] = f32::INFINITY;
        backbone =
            weights::import(backbone, &mut tensors, &[], Path::new("test")).expect("its own");
        let info = ModelInfo {
            format: 1,
            method: "simclr".to_owned(),
            encoder,
            channels: 1,
            image_size: [8, 8],
            classes: Vec::new(),
            routes: vec![Route::Normal],
            route: Route::Normal,
            projection: true,
            clusters: Vec::new(),
            pseudo_labels: None,
            finetuning: None,
            normalize: None,
            recipe: String::new(),
            advcl_version: String::new(),
        };
        let model = Model {
            info,
            backbone,
            linear: None,
        };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.safetensors");
        let error = model.save(&path).expect_err("not finite").to_string();
        assert_eq!(error, "simclr: conv1.weight is inf at the end of training");
        assert!(!path.exists());
    }
}
