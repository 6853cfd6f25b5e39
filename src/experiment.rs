//! A recipe carried out in a run folder, stage by stage; what is done already is not done again.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::attack::Pgd;
use crate::cluster::{self, PseudoLabels};
use crate::data::{self, Dataset, Split};
use crate::error::{Error, Result};
use crate::evaluate::{self, Accuracy};
use crate::finetune::{LinearProbe, features};
use crate::nn::{Backbone, Linear, Route};
use crate::pretrain::{advcl::AdvCl, simclr::SimClr};
use crate::recipe::{Method, Recipe, SplitName};
use crate::run::{Model, ModelInfo, Run};
use crate::train::{self, Context, Event};
use crate::{device, files, random};

/// A recipe, its images and its folder.
pub struct Experiment {
    /// The resolved recipe.
    pub recipe: Recipe,
    /// Its folder.
    pub run: Run,
    /// Training images without the held-out ones.
    pub data: Dataset,
    judged: Split,
}

/// One row of the final table; `result.json` of a method's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The encoder.
    pub method: Method,
    /// The classifier.
    pub finetuning: String,
    /// Fraction right on the images as they are.
    pub clean_accuracy: f64,
    /// Fraction right under attack.
    pub robust_accuracy: f64,
    /// Images judged.
    pub images: usize,
    /// Which ones.
    pub split: SplitName,
    /// "linf" or "l2", and ε as written.
    pub threat: crate::recipe::Threat,
    /// Of PGD.
    pub attack_steps: usize,
    /// Of PGD, as written.
    pub attack_step_size: crate::pixels::Pixels,
    /// Wall-clock seconds of each stage.
    pub seconds: Seconds,
    /// Counts in all and by class.
    pub accuracy: Accuracy,
}

/// Wall-clock seconds of each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Of the encoder alone.
    pub pretrain: f64,
    /// Of the classifier.
    pub finetune: f64,
    /// Of clean and robust accuracy.
    pub evaluate: f64,
}

/// `summary.json`: the table and what it takes to repeat it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// This program's.
    pub advcl_version: String,
    /// Of the recipe.
    pub seed: u64,
    /// The data set.
    pub data: String,
    /// The classes, in label order.
    pub classes: Vec<String>,
    /// A row a method.
    pub outcomes: Vec<Outcome>,
}

const MODEL: &str = "model.safetensors";
const TIMES: &str = "times.json";

/// The images of a recipe: the data set with the training images that are used, and the images to judge by.
///
/// # Errors
/// Whatever is wrong with the data, or with the recipe for this data.
pub fn images(recipe: &Recipe) -> Result<(Dataset, Split)> {
    let seed = recipe.seed;
    let limited = |key: &str, data: Dataset, limit: usize| {
        let found = data.train.images.len();
        data.limit_train(limit, seed).map_err(|_| {
            let problem = format!("expected 1 to {found} images to keep, found {limit}");
            Error::recipe(key, problem, "leave the limit out to use them all")
        })
    };
    let mut data = data::load(&recipe.data.source)?;
    if let Some(limit) = recipe.data.train_limit {
        data = limited("data.train_limit", data, limit)?;
    }
    let mut judged = data.test.clone();
    if recipe.data.holdout > 0.0 {
        let (train, held_out) = data.holdout(recipe.data.holdout, seed)?;
        data.train = train;
        if recipe.evaluate.split == SplitName::Holdout {
            judged = held_out;
        }
    }
    // Unlabeled data has no test images, and nothing is judged by it.
    if let Some(limit) = recipe.data.test_limit.filter(|_| !judged.images.is_empty()) {
        let judged_alone = Dataset {
            train: judged,
            ..data.clone()
        };
        judged = limited("data.test_limit", judged_alone, limit)?.train;
    }
    recipe.check_data(&data)?;
    Ok((data, judged))
}

impl Experiment {
    /// Reads the data, checks the recipe against it, and opens the folder.
    ///
    /// # Errors
    /// Whatever is wrong with recipe, data or folder, before anything is computed.
    pub fn open(recipe: Recipe, folder: &Path) -> Result<Self> {
        let (data, judged) = images(&recipe)?;
        let run = Run::open(folder, &recipe.to_toml())?;
        Ok(Self {
            recipe,
            run,
            data,
            judged,
        })
    }

    /// A method's model file.
    pub fn model_path(&self, method: Method) -> PathBuf {
        self.run.path().join(method.name()).join(MODEL)
    }

    fn load(&self, method: Method, context: &Context) -> Result<Option<Model>> {
        let path = self.model_path(method);
        if !path.exists() {
            return Ok(None);
        }
        let model = Model::load(&path, &context.device)?;
        let (info, images) = (&model.info, &self.data.train.images);
        if info.encoder != self.recipe.encoder || info.method != method.name() {
            let problem = format!("a {} model of another encoder", info.method);
            let hint = "the file does not belong to this run folder";
            return Err(Error::model(path, problem, hint));
        }
        let found = (info.channels, info.image_size);
        let expected = (images.channels, [images.height, images.width]);
        if found != expected {
            let problem = format!("expected a model of images {expected:?}, found {found:?}");
            let hint = "the file does not belong to this run folder";
            return Err(Error::model(path, problem, hint));
        }
        Ok(Some(model))
    }

    fn require(&self, method: Method, context: &Context) -> Result<Model> {
        self.load(method, context)?.ok_or_else(|| {
            let problem = format!("no {} encoder yet", method.name());
            let hint = format!(
                "make it first: advcl pretrain --method {} --run DIR",
                method.name()
            );
            Error::run(self.run.path(), problem, hint)
        })
    }

    fn seconds(&self, method: Method) -> Result<Seconds> {
        let path = self.run.path().join(method.name()).join(TIMES);
        if path.exists() {
            files::read_json(&path)
        } else {
            Ok(Seconds::default())
        }
    }

    fn set_seconds(&self, method: Method, change: impl FnOnce(&mut Seconds)) -> Result<()> {
        let mut seconds = self.seconds(method)?;
        change(&mut seconds);
        files::write_json(&self.run.stage(method.name())?.join(TIMES), &seconds)
    }

    /// Pretrains one encoder.
    ///
    /// # Errors
    /// As [`train::fit`]; [`Error::Run`] when AdvCL's pseudo-labels are missing.
    pub fn pretrain(&self, method: Method, context: &mut Context) -> Result<()> {
        if self.load(method, context)?.is_some() {
            return Ok(());
        }
        let (images, recipe) = (&self.data.train.images, &self.recipe);
        let missing = || {
            let problem = format!("no table [pretrain.{}]", method.name());
            Error::recipe("pretrain", problem, "add it to the recipe")
        };
        if !recipe.methods().contains(&method) {
            return Err(missing());
        }
        let labels = match method {
            Method::Simclr => PseudoLabels {
                clusters: Vec::new(),
                origin: String::new(),
            },
            Method::Advcl => self.pseudo_labels()?,
        };
        let clusters = labels.counts();
        let mut rng = random::generator(context.seed, &format!("{}/init", method.name()), 0);
        let fresh = Backbone::new(
            &recipe.encoder,
            images.channels,
            method.routes(),
            &clusters,
            &mut rng,
            &context.device,
        );
        let checkpoint = self
            .run
            .stage(method.name())?
            .join("checkpoint.safetensors");
        let device = context.device.clone();
        let (backbone, seconds) = match method {
            Method::Simclr => {
                let settings = recipe.pretrain.simclr.as_ref().ok_or_else(missing)?;
                let objective = SimClr {
                    images,
                    settings,
                    device,
                };
                let count = images.len();
                train::fit(
                    "simclr",
                    &objective,
                    fresh,
                    &settings.plan,
                    count,
                    &checkpoint,
                    context,
                )?
            }
            Method::Advcl => {
                let settings = recipe.pretrain.advcl.as_ref().ok_or_else(missing)?;
                let objective = AdvCl::new(images, settings, &labels, recipe.threat.ball(), device);
                let count = images.len();
                train::fit(
                    "advcl",
                    &objective,
                    fresh,
                    &settings.plan,
                    count,
                    &checkpoint,
                    context,
                )?
            }
        };
        let info = ModelInfo {
            format: 1,
            method: method.name().to_owned(),
            encoder: recipe.encoder.clone(),
            channels: images.channels,
            image_size: [images.height, images.width],
            classes: Vec::new(),
            routes: Route::ALL[..method.routes()].to_vec(),
            route: method.route(),
            clusters,
            pseudo_labels: Some(labels.origin).filter(|origin| !origin.is_empty()),
            finetuning: None,
            advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.set_seconds(method, |times| times.pretrain = seconds)?;
        Model {
            info,
            backbone,
            linear: None,
        }
        .save(&self.model_path(method))
    }

    /// The pseudo-labels' file.
    pub fn pseudo_label_path(&self) -> PathBuf {
        self.run.path().join("pseudo_labels.safetensors")
    }

    fn pseudo_labels(&self) -> Result<PseudoLabels> {
        let path = self.pseudo_label_path();
        if !path.exists() {
            let hint = "make them first: advcl cluster --run DIR";
            return Err(Error::run(self.run.path(), "no pseudo-labels yet", hint));
        }
        PseudoLabels::load(
            &path,
            self.data.train.images.len(),
            self.recipe.cluster_counts(),
        )
    }

    /// Clusters the standard encoder's features into pseudo-labels, or takes them from the recipe's file.
    ///
    /// # Errors
    /// [`Error::Run`] when there is no encoder yet; what reading the labels file meets.
    pub fn cluster(&self, context: &mut Context) -> Result<()> {
        let path = self.pseudo_label_path();
        let Some(settings) = self.recipe.cluster.as_ref().filter(|_| !path.exists()) else {
            return Ok(());
        };
        let count = self.data.train.images.len();
        let labels = match &settings.labels_file {
            Some(file) => PseudoLabels::load(Path::new(file), count, &settings.counts)?,
            None => {
                let model = self.require(Method::Simclr, context)?;
                let batch = self.recipe.evaluate.batch_size;
                let features = features(
                    &model.backbone.encoder,
                    model.info.route,
                    &self.data.train.images,
                    batch,
                    &context.device,
                );
                let origin = format!(
                    "k-means on the features of a SimCLR ResNet-{} (width {}) trained on the same {count} images, seed {}",
                    usize::from(self.recipe.encoder.depth),
                    self.recipe.encoder.width,
                    context.seed
                );
                cluster::pseudo_labels(features, settings, origin, context.seed)
            }
        };
        (context.observe)(&Event::Note {
            stage: "cluster".to_owned(),
            text: format!("pseudo-labels for K = {:?}", labels.counts()),
        });
        labels.save(&path)
    }

    /// Fits a linear classifier on a frozen encoder.
    ///
    /// # Errors
    /// As [`train::fit`]; [`Error::Run`] when there is no encoder yet.
    pub fn finetune(&self, method: Method, context: &mut Context) -> Result<()> {
        let model = self.require(method, context)?;
        if model.linear.is_some() {
            return Ok(());
        }
        self.data.require_labels()?;
        let started = Instant::now();
        let settings = &self.recipe.finetune;
        let stage = format!("{}/slf", method.name());
        let objective = LinearProbe::new(
            &model.backbone.encoder,
            model.info.route,
            &self.data.train,
            settings.augment,
            self.recipe.evaluate.batch_size,
            &context.device,
        );
        let mut rng = random::generator(context.seed, &format!("{stage}/init"), 0);
        let features = self.recipe.encoder.features();
        let fresh = Linear::new(features, self.data.classes.len(), &mut rng, &context.device);
        let checkpoint = self.run.stage(method.name())?.join("slf.safetensors");
        let images = self.data.train.images.len();
        let plan = &settings.plan;
        let (linear, _) = train::fit(
            &stage,
            &objective,
            fresh,
            plan,
            images,
            &checkpoint,
            context,
        )?;
        self.set_seconds(method, |times| {
            times.finetune = started.elapsed().as_secs_f64()
        })?;
        let info = ModelInfo {
            classes: self.data.classes.clone(),
            finetuning: Some("slf".to_owned()),
            ..model.info
        };
        let backbone = model.backbone;
        Model {
            info,
            backbone,
            linear: Some(linear),
        }
        .save(&self.model_path(method))
    }

    fn result_path(&self, method: Method) -> PathBuf {
        self.run.path().join(method.name()).join("result.json")
    }

    /// Measures a fitted model: clean, and under PGD.
    ///
    /// # Errors
    /// [`Error::Run`] when there is no encoder or no classifier yet; [`Error::Interrupted`].
    pub fn evaluate(&self, method: Method, context: &mut Context) -> Result<Outcome> {
        let path = self.result_path(method);
        if path.exists() {
            return files::read_json(&path);
        }
        let model = self.require(method, context)?;
        let classifier = model.classifier(&self.model_path(method))?;
        let settings = &self.recipe.evaluate;
        let started = Instant::now();
        let pgd = Pgd {
            steps: settings.steps,
            step_size: settings.step_size.value(),
        };
        let accuracy = evaluate::accuracy(
            &format!("{}/pgd-{}", method.name(), settings.steps),
            &classifier,
            &self.judged,
            (self.recipe.threat.ball(), pgd),
            settings.batch_size,
            context,
        );
        let accuracy = accuracy.map_err(|error| match error {
            Error::Interrupted { at, .. } => Error::Interrupted {
                at,
                path: self.run.path().to_path_buf(),
            },
            other => other,
        })?;
        self.set_seconds(method, |times| {
            times.evaluate = started.elapsed().as_secs_f64()
        })?;
        let total = &accuracy.total;
        let fraction = |part: usize| part as f64 / total.images as f64;
        let outcome = Outcome {
            method,
            finetuning: "slf".to_owned(),
            clean_accuracy: fraction(total.clean),
            robust_accuracy: fraction(total.robust),
            images: total.images,
            split: settings.split,
            threat: self.recipe.threat.clone(),
            attack_steps: settings.steps,
            attack_step_size: settings.step_size.clone(),
            seconds: self.seconds(method)?,
            accuracy,
        };
        files::write_json(&path, &outcome)?;
        Ok(outcome)
    }

    /// Everything, in order; ends with `summary.json`.
    ///
    /// # Errors
    /// Of any stage.
    pub fn all(&self, context: &mut Context) -> Result<Summary> {
        // Known now, and better said before hours of pretraining.
        self.data.require_labels()?;
        let given = self
            .recipe
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.labels_file.as_ref());
        if given.is_some() {
            self.cluster(context)?;
        }
        for method in self.recipe.methods() {
            if method == Method::Advcl {
                self.cluster(context)?;
            }
            self.pretrain(method, context)?;
            self.finetune(method, context)?;
        }
        self.summary(&self.recipe.methods(), context)
    }

    /// Evaluates `methods` and writes `summary.json`, which keeps the rows of those evaluated before.
    ///
    /// # Errors
    /// As [`Experiment::evaluate`].
    pub fn summary(&self, methods: &[Method], context: &mut Context) -> Result<Summary> {
        let mut summary = Summary {
            advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: self.recipe.seed,
            data: self.recipe.data.source.clone(),
            classes: self.data.classes.clone(),
            outcomes: Vec::new(),
        };
        let mut asked = summary.clone();
        for method in self.recipe.methods() {
            let wanted = methods.contains(&method);
            if wanted || self.result_path(method).exists() {
                let outcome = self.evaluate(method, context)?;
                summary.outcomes.push(outcome.clone());
                asked.outcomes.extend(wanted.then_some(outcome));
            }
        }
        files::write_json(&self.run.path().join("summary.json"), &summary)?;
        Ok(asked)
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
