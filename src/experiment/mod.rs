//! A recipe carried out in a run folder, stage by stage; what is done already is not done again.

mod outcome;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::attack::Pgd;
use crate::cluster::{Points, PseudoLabels, Settings};
use crate::data::{self, Dataset, Split};
use crate::error::{Error, Result, first_difference};
use crate::evaluate;
use crate::finetune::{LinearProbe, features};
use crate::nn::{self, Backbone, Classifier, Encoder, Linear, Precision, Route};
use crate::pretrain::adversarial_training::AdversarialTraining;
use crate::pretrain::{advcl::AdvCl, simclr::SimClr};
use crate::recipe::{Fingerprint, Method, Part, Recipe, SplitName};
use crate::run::{Model, ModelInfo, Run};
use crate::train::{self, Checkpoint, Context, Event, Objective, Plan};
use crate::{device, files, random};
use outcome::Record;
pub use outcome::{Outcome, Seconds, Summary};

/// A recipe, its images and its folder.
pub struct Experiment {
    /// The resolved recipe.
    pub recipe: Recipe,
    /// Its folder.
    pub run: Run,
    /// Training images without the held-out ones.
    pub data: Dataset,
    judged: Split,
    fingerprint: Fingerprint,
}

const MODEL: &str = "model.safetensors";
const TIMES: &str = "times.json";
const CLUSTER_TIME: &str = "cluster_time.json";

/// The images of a recipe: the data set with the training images that are used, and the images to judge by.
///
/// # Errors
/// Whatever is wrong with the data, or with the recipe for this data.
pub fn images(recipe: &Recipe) -> Result<(Dataset, Split)> {
    let seed = recipe.seed;
    let mut data = data::load(&recipe.data.source)?;
    let classes = data.classes.len();
    let limited = |key: &str, split: &Split, limit: usize| {
        let (least, found) = (classes.max(1), split.images.len());
        if (least..=found).contains(&limit) {
            return Ok(split.limit(classes, limit, seed));
        }
        let problem = format!("expected {least} to {found} images to keep, found {limit}");
        let hint = match limit < least && classes > 1 {
            true => format!("each of the {classes} classes needs an image"),
            false => "leave the limit out to use them all".to_owned(),
        };
        Err(Error::recipe(key, problem, hint))
    };
    if let Some(limit) = recipe.data.train_limit {
        data.train = limited("data.train_limit", &data.train, limit)?;
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
        judged = limited("data.test_limit", &judged, limit)?;
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
            fingerprint: Fingerprint::of(&data),
            recipe,
            run,
            data,
            judged,
        })
    }

    /// All that a result depends on, as TOML.
    fn text_of(&self, part: Part) -> String {
        self.recipe.text_of(part, &self.fingerprint)
    }

    /// Refuses data without labels, or with a class that has no training image.
    fn require_training_labels(&self) -> Result<()> {
        self.data.require_labels()?;
        self.data.require_every_class(&self.data.train, "training")
    }

    /// Refuses data without labels, or with a class that has no image.
    fn require_labels(&self) -> Result<()> {
        self.require_training_labels()?;
        self.data.require_every_class(&self.judged, "test")
    }

    /// Refuses data without the labels that one of `methods` learns from: before the work on any of them.
    ///
    /// # Errors
    /// [`Error::Data`].
    pub fn require_labels_of(&self, methods: &[Method]) -> Result<()> {
        match methods.iter().any(|method| method.supervised()) {
            true => self.require_training_labels(),
            false => Ok(()),
        }
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
        let expected = self.text_of(match model.linear {
            None => Part::Encoder(method),
            Some(_) => Part::Classifier(method),
        });
        if info.recipe != expected {
            let difference = first_difference(&info.recipe, &expected);
            let problem = format!("a model of another recipe ({difference})");
            let hint = "the file does not belong to this run folder";
            return Err(Error::model(path, problem, hint));
        }
        Ok(Some(model))
    }

    fn require(&self, method: Method, context: &Context) -> Result<Model> {
        self.load(method, context)?.ok_or_else(|| {
            let problem = format!("no {} encoder yet", method.name());
            let hint = format!(
                "make it first: advcl pretrain --method {} --run {}",
                method.name(),
                self.run.path().display()
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

    /// Trains `fresh` by a method's objective, from the checkpoint in its folder where there is one. Returns what was
    /// trained and the seconds spent.
    fn fit<O: Objective>(
        &self,
        method: Method,
        objective: &O,
        plan: &Plan,
        fresh: O::Model,
        context: &mut Context,
    ) -> Result<(O::Model, f64)> {
        let (stage, images) = (method.name(), self.data.train.images.len());
        let path = self.run.stage(stage)?.join("checkpoint.safetensors");
        let text = self.text_of(Part::Encoder(method));
        let checkpoint = Checkpoint {
            path: &path,
            recipe: &text,
        };
        let precision = context.precision;
        if precision == Precision::Bf16 {
            let text = match nn::has_bf16() {
                true => "convolutions multiply bf16 and sum in f32",
                false => "this processor does not multiply bf16: convolutions are f32",
            };
            (context.observe)(&Event::Note {
                stage: stage.to_owned(),
                text: text.to_owned(),
            });
        }
        nn::with_precision(precision, || {
            train::fit(stage, objective, fresh, plan, images, checkpoint, context)
        })
    }

    /// Pretrains one encoder; with its classifier, where the method is supervised.
    ///
    /// # Errors
    /// As [`train::fit`]; [`Error::Run`] when AdvCL's pseudo-labels are missing, [`Error::Data`] when a supervised
    /// method's labels are.
    pub fn pretrain(&self, method: Method, context: &mut Context) -> Result<()> {
        if self.load(method, context)?.is_some() {
            return Ok(());
        }
        let (images, recipe) = (&self.data.train.images, &self.recipe);
        let missing = || {
            let problem = format!("no table [pretrain.{}]", method.name());
            Error::recipe("pretrain", problem, "add it to the recipe")
        };
        let plan = recipe.pretrain.plan(method).ok_or_else(missing)?;
        self.require_labels_of(&[method])?;
        let labels = match method.clustered() {
            true => self.pseudo_labels()?,
            false => PseudoLabels::default(),
        };
        let clusters = labels.counts();
        let (ball, device) = (recipe.threat.ball(), context.device.clone());
        let (backbone, linear, seconds) = match method {
            Method::Simclr => {
                let objective = SimClr {
                    images,
                    settings: recipe.pretrain.simclr.as_ref().ok_or_else(missing)?,
                    device,
                };
                let fresh = self.fresh_backbone(method, &clusters, context);
                let (trained, seconds) = self.fit(method, &objective, plan, fresh, context)?;
                (trained, None, seconds)
            }
            Method::Advcl => {
                let settings = recipe.pretrain.advcl.as_ref().ok_or_else(missing)?;
                let objective = AdvCl::new(images, settings, &labels, ball, device);
                let fresh = self.fresh_backbone(method, &clusters, context);
                let (trained, seconds) = self.fit(method, &objective, plan, fresh, context)?;
                (trained, None, seconds)
            }
            Method::AdversarialTraining => {
                let settings = recipe.pretrain.adversarial_training.as_ref();
                let objective = AdversarialTraining {
                    split: &self.data.train,
                    settings: settings.ok_or_else(missing)?,
                    ball,
                    device,
                };
                let fresh = self.fresh_classifier(method, context);
                let (trained, seconds) = self.fit(method, &objective, plan, fresh, context)?;
                let backbone = Backbone::without_heads(trained.encoder);
                (backbone, Some(trained.linear), seconds)
            }
        };
        let (classes, finetuning) = match linear {
            Some(_) => (self.data.classes.clone(), Some("end-to-end".to_owned())),
            None => (Vec::new(), None),
        };
        let info = ModelInfo {
            format: 1,
            method: method.name().to_owned(),
            encoder: recipe.encoder.clone(),
            channels: images.channels,
            image_size: [images.height, images.width],
            classes,
            routes: Route::ALL[..method.routes()].to_vec(),
            route: method.route(),
            projection: backbone.head_proj.is_some(),
            clusters,
            pseudo_labels: Some(labels.origin).filter(|origin| !origin.is_empty()),
            finetuning,
            recipe: self.text_of(Part::Encoder(method)),
            advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.set_seconds(method, |times| times.pretrain = seconds)?;
        Model {
            info,
            backbone,
            linear,
        }
        .save(&self.model_path(method))
    }

    /// What a method with heads of its own starts from; `clusters` are the numbers of its pseudo-classes.
    fn fresh_backbone(&self, method: Method, clusters: &[usize], context: &Context) -> Backbone {
        let (config, device) = (&self.recipe.encoder, &context.device);
        let (channels, routes) = (self.data.train.images.channels, method.routes());
        let mut rng = random::generator(context.seed, &format!("{}/init", method.name()), 0);
        Backbone::new(config, channels, routes, clusters, &mut rng, device)
    }

    /// What a supervised method starts from.
    fn fresh_classifier(&self, method: Method, context: &Context) -> Classifier {
        let (config, device) = (&self.recipe.encoder, &context.device);
        let (channels, classes) = (self.data.train.images.channels, self.data.classes.len());
        let mut rng = random::generator(context.seed, &format!("{}/init", method.name()), 0);
        Classifier {
            encoder: Encoder::new(config, channels, method.routes(), &mut rng, device),
            linear: Linear::new(config.features(), classes, &mut rng, device),
            route: method.route(),
        }
    }

    /// The pseudo-labels' file.
    pub fn pseudo_label_path(&self) -> PathBuf {
        self.run.path().join("pseudo_labels.safetensors")
    }

    fn pseudo_labels(&self) -> Result<PseudoLabels> {
        let path = self.pseudo_label_path();
        if !path.exists() {
            let run = self.run.path().display();
            let hint = format!("make them first: advcl cluster --run {run}");
            return Err(Error::run(self.run.path(), "no pseudo-labels yet", hint));
        }
        PseudoLabels::load(
            &path,
            self.data.train.images.len(),
            self.recipe.cluster_counts(),
            Some(&self.text_of(Part::Labels)),
        )
    }

    /// The encoder whose features are clustered, and how its labels' origin calls it.
    fn clustered(&self, given: Option<&str>, context: &Context) -> Result<(Model, String)> {
        let images = &self.data.train.images;
        let describe = |info: &ModelInfo| {
            let (depth, width) = (usize::from(info.encoder.depth), info.encoder.width);
            format!("ResNet-{depth} (width {width})")
        };
        let Some(given) = given else {
            let model = self.require(Method::Simclr, context)?;
            let (network, count) = (describe(&model.info), images.len());
            let origin = format!("a SimCLR {network} trained on the same {count} images");
            return Ok((model, origin));
        };
        let path = Path::new(given);
        let model = Model::load(path, &context.device)?;
        let found = (model.info.channels, model.info.image_size);
        let expected = (images.channels, [images.height, images.width]);
        if found != expected {
            let problem = format!("expected a model of images {expected:?}, found {found:?}");
            let hint = "name a model of images of the same channels and size in cluster.model";
            return Err(Error::model(path, problem, hint));
        }
        let info = &model.info;
        let origin = format!("{given}, method {}, {}", info.method, describe(info));
        Ok((model, origin))
    }

    /// Clusters an encoder's features into pseudo-labels, the standard encoder's unless the recipe names another;
    /// or takes them from the recipe's file.
    ///
    /// # Errors
    /// [`Error::Run`] when there is no encoder yet; what reading the model or the labels file meets;
    /// [`Error::Interrupted`].
    pub fn cluster(&self, context: &mut Context) -> Result<()> {
        let path = self.pseudo_label_path();
        let Some(settings) = &self.recipe.cluster else {
            let problem = "no table [cluster]: there is nothing to do";
            return Err(Error::recipe("cluster", problem, "add it to the recipe"));
        };
        if path.exists() {
            return self.pseudo_labels().map(drop);
        }
        let started = Instant::now();
        let count = self.data.train.images.len();
        let labels = match &settings.labels_file {
            Some(file) => PseudoLabels::load(Path::new(file), count, &settings.counts, None)?,
            None => {
                let (model, whose) = self.clustered(settings.model.as_deref(), context)?;
                let batch = self.recipe.evaluate.batch_size;
                let (encoder, route) = (&model.backbone.encoder, model.info.route);
                let images = &self.data.train.images;
                let features = features("cluster", encoder, route, images, batch, context)
                    .map_err(|error| self.here(error))?;
                let origin = format!("k-means on the features of {whose}, seed {}", context.seed);
                let clusters = clusterings(&Points::new(features), settings, context)
                    .map_err(|error| self.here(error))?;
                PseudoLabels { clusters, origin }
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        (context.observe)(&Event::Note {
            stage: "cluster".to_owned(),
            text: format!("pseudo-labels for K = {:?}", labels.counts()),
        });
        files::write_json(&self.run.path().join(CLUSTER_TIME), &seconds)?;
        labels.save(&path, &self.text_of(Part::Labels))
    }

    /// Fits a linear classifier on a frozen encoder. Nothing is left to do where the classifier was trained together
    /// with the encoder.
    ///
    /// # Errors
    /// As [`train::fit`]; [`Error::Run`] when there is no encoder yet.
    pub fn finetune(&self, method: Method, context: &mut Context) -> Result<()> {
        let model = self.require(method, context)?;
        if model.linear.is_some() {
            return Ok(());
        }
        self.require_labels()?;
        let started = Instant::now();
        let settings = &self.recipe.finetune;
        let stage = format!("{}/slf", method.name());
        let (encoder, route, train) = (&model.backbone.encoder, model.info.route, &self.data.train);
        let batch = self.recipe.evaluate.batch_size;
        let cached = match settings.augment {
            true => None,
            false => Some(
                features(&stage, encoder, route, &train.images, batch, context)
                    .map_err(|error| self.here(error))?,
            ),
        };
        let objective = LinearProbe::new(encoder, route, train, cached, &context.device);
        let mut rng = random::generator(context.seed, &format!("{stage}/init"), 0);
        let features = self.recipe.encoder.features();
        let fresh = Linear::new(features, self.data.classes.len(), &mut rng, &context.device);
        let path = self.run.stage(method.name())?.join("slf.safetensors");
        let text = self.text_of(Part::Classifier(method));
        let checkpoint = Checkpoint {
            path: &path,
            recipe: &text,
        };
        let images = self.data.train.images.len();
        let plan = &settings.plan;
        let (linear, _) = train::fit(&stage, &objective, fresh, plan, images, checkpoint, context)?;
        self.set_seconds(method, |times| {
            times.finetune = started.elapsed().as_secs_f64()
        })?;
        let info = ModelInfo {
            classes: self.data.classes.clone(),
            finetuning: Some("slf".to_owned()),
            recipe: text,
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

    /// Measures a fitted model: clean, and under PGD. Figures that were measured by the same recipe are read back.
    ///
    /// # Errors
    /// [`Error::Run`] when there is no encoder or no classifier yet; [`Error::Interrupted`].
    pub fn evaluate(&self, method: Method, context: &mut Context) -> Result<Outcome> {
        let path = self.result_path(method);
        let text = self.text_of(Part::Figures(method));
        if path.exists() {
            let record: Record = files::read_json(&path)?;
            if record.recipe == text {
                return Ok(record.outcome);
            }
        }
        self.require_labels()?;
        let model = self.require(method, context)?;
        let classifier = model.classifier(&self.model_path(method))?;
        let settings = &self.recipe.evaluate;
        let started = Instant::now();
        let ball = self.recipe.threat.ball();
        let pgd = Pgd::new(settings.steps, settings.step_size.as_ref(), ball);
        let accuracy = evaluate::accuracy(
            &format!("{}/pgd-{}", method.name(), settings.steps),
            &classifier,
            &self.judged,
            (ball, pgd),
            settings.batch_size,
            context,
        );
        let accuracy = accuracy.map_err(|error| self.here(error))?;
        self.set_seconds(method, |times| {
            times.evaluate = started.elapsed().as_secs_f64()
        })?;
        let total = &accuracy.total;
        let fraction = |part: usize| part as f64 / total.images as f64;
        let outcome = Outcome {
            method,
            finetuning: model.info.finetuning.unwrap_or_default(),
            clean_accuracy: fraction(total.clean),
            robust_accuracy: fraction(total.robust),
            images: total.images,
            split: settings.split,
            threat: self.recipe.threat.clone(),
            attack_steps: settings.steps,
            attack_step_size: pgd.step_size,
            seconds: self.seconds(method)?,
            accuracy,
        };
        let record = Record {
            recipe: text,
            outcome,
        };
        files::write_json(&path, &record)?;
        Ok(record.outcome)
    }

    /// Everything, in order; ends with `summary.json`.
    ///
    /// # Errors
    /// Of any stage.
    pub fn all(&self, context: &mut Context) -> Result<Summary> {
        // Known now, and better said before hours of pretraining.
        self.require_labels()?;
        if self.recipe.cluster.as_ref().is_some_and(Settings::is_given) {
            self.cluster(context)?;
        }
        for method in self.recipe.methods() {
            if method.clustered() {
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
        let time = self.run.path().join(CLUSTER_TIME);
        let mut summary = Summary {
            advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: self.recipe.seed,
            data: self.recipe.data.source.clone(),
            classes: self.data.classes.clone(),
            cluster_seconds: time.exists().then(|| files::read_json(&time)).transpose()?,
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

/// Pseudo-labels for each number of clusters.
fn clusterings(
    points: &Points,
    settings: &Settings,
    context: &mut Context,
) -> Result<Vec<(usize, Vec<usize>)>> {
    let mut clusters = Vec::new();
    let total = settings.counts.len();
    for (done, &count) in settings.counts.iter().enumerate() {
        let mut rng = random::generator(context.seed, "cluster", count as u64);
        // Stopped in the middle, or after it: both are heard here.
        let found = points.cluster(count, settings, &mut rng, context.stop);
        let finished = done + usize::from(found.is_some());
        context.progress("cluster", finished, total, "clusterings")?;
        clusters.extend(found.map(|found| (count, found.labels)));
    }
    Ok(clusters)
}
