//! Stages that need no labels of images: encoders and pseudo-labels.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Experiment;
use crate::cluster::{Points, PseudoLabels, Settings};
use crate::error::{Error, Result};
use crate::finetune::features;
use crate::nn::Route;
use crate::pretrain::{Inputs, Trainer};
use crate::probe::Probe;
use crate::recipe::Part;
use crate::run::{Model, ModelInfo};
use crate::session::{Context, Event};
use crate::{files, random};

const CLUSTER_TIME: &str = "cluster_time.json";

impl Experiment {
    /// Pretrains one encoder; with its classifier, where the method is supervised.
    ///
    /// # Errors
    /// As [`train::fit`](crate::train::fit); [`Error::Run`] when pseudo-labels or an encoder that it learns from are
    /// missing, [`Error::Data`] when a supervised method's labels are.
    pub fn pretrain(&self, name: &str, context: &mut Context) -> Result<()> {
        let entry = self.recipe.pretrain.require(name)?;
        if self.load_encoder(name, context)?.is_some() {
            return Ok(());
        }
        let (recipe, data) = (&self.recipe, &self.data.pretraining);
        let (images, method) = (&data.train.images, entry.method());
        self.require_labels_of(&[name.to_owned()])?;
        let labels = match method.clustered() {
            true => self.pseudo_labels()?,
            false => PseudoLabels::default(),
        };
        let source = method.source().map(|source| self.source(source, context));
        let source = source.transpose()?;
        let text = self.text_of(Part::Encoder(name));
        let inputs = Inputs {
            train: &data.train,
            classes: data.classes.len(),
            pseudo_labels: &labels,
            source: source.as_ref(),
            encoder: &recipe.encoder,
            ball: recipe.threat.ball(),
        };
        let folder = self.run.stage(name)?;
        let mut trainer = Trainer::new(name, &folder, &text, inputs, context);
        trainer.probe = self.probe(method.route())?;
        let trained = method.pretrain(&mut trainer);
        let trained = trained.map_err(|error| self.here(error))?;
        let seconds = trainer.seconds();
        let (classes, finetuning) = match trained.linear {
            Some(_) => (data.classes.clone(), Some(super::END_TO_END.to_owned())),
            None => (Vec::new(), None),
        };
        let heads = trained.backbone.fc.iter().map(|head| head.outputs());
        let info = ModelInfo {
            format: 1,
            method: name.to_owned(),
            encoder: recipe.encoder.clone(),
            channels: images.channels,
            image_size: [images.height, images.width],
            classes,
            routes: Route::ALL[..method.routes()].to_vec(),
            route: method.route(),
            projection: trained.backbone.head_proj.is_some(),
            clusters: heads.collect(),
            pseudo_labels: Some(labels.origin).filter(|origin| !origin.is_empty()),
            finetuning,
            normalize: trained.backbone.encoder.normalize().cloned(),
            recipe: text,
            advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.set_seconds(name, |times| times.pretrain = seconds)?;
        Model {
            info,
            backbone: trained.backbone,
            linear: trained.linear,
        }
        .save(&self.encoder_path(name))
    }

    /// The look at encoders that the recipe asks for; it needs labels.
    fn probe(&self, route: Route) -> Result<Option<Probe<'_>>> {
        let (Some(settings), Some(held_out)) = (&self.recipe.probe, &self.data.held_out) else {
            return Ok(None);
        };
        let data = &self.data.pretraining;
        data.require_labels()?;
        Ok(Some(Probe {
            settings,
            train: &data.train,
            held_out,
            classes: data.classes.len(),
            route,
        }))
    }

    /// The encoder that a method learns from: another method's of this run, or a model file.
    fn source(&self, source: &str, context: &Context) -> Result<Model> {
        if self.recipe.pretrain.get(source).is_some() {
            return self.require_encoder(source, context);
        }
        self.foreign(source, context)
    }

    /// Refuses a model file that cannot be learnt from.
    pub(super) fn check_source(&self, source: &str, context: &Context) -> Result<()> {
        match self.recipe.pretrain.get(source) {
            Some(_) => Ok(()),
            None => self.foreign(source, context).map(drop),
        }
    }

    /// Seconds of making an encoder and all that it stands on: pseudo-labels, the encoders that it learns from.
    pub fn whole_pretrain_seconds(&self, name: &str) -> Result<f64> {
        let mut seconds = self.seconds(name)?.pretrain;
        let Some(entry) = self.recipe.pretrain.get(name) else {
            return Ok(0.0);
        };
        let method = entry.method();
        if method.clustered() {
            seconds += self.cluster_seconds()?.unwrap_or(0.0);
            if !self.labels_are_given() {
                seconds += self.whole_pretrain_seconds("simclr")?;
            }
        }
        if let Some(source) = method.source() {
            seconds += self.whole_pretrain_seconds(source)?;
        }
        Ok(seconds)
    }

    /// A model file of any run, of images like these.
    fn foreign(&self, path: &str, context: &Context) -> Result<Model> {
        let images = &self.data.pretraining.train.images;
        let path = Path::new(path);
        let model = Model::load(path, &context.device)?;
        let found = (model.info.channels, model.info.image_size);
        let expected = (images.channels, [images.height, images.width]);
        if found != expected {
            let problem = format!("expected a model of images {expected:?}, found {found:?}");
            let hint = "name a model of images of the same channels and size";
            return Err(Error::model(path, problem, hint));
        }
        Ok(model)
    }

    /// Whether the recipe's pseudo-labels do not wait for any encoder of this run.
    pub(super) fn labels_are_given(&self) -> bool {
        self.recipe.cluster.as_ref().is_some_and(Settings::is_given)
    }

    /// Seconds of making pseudo-labels, where this run made them.
    pub(super) fn cluster_seconds(&self) -> Result<Option<f64>> {
        let path = self.run.path().join(CLUSTER_TIME);
        path.exists().then(|| files::read_json(&path)).transpose()
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
            self.data.pretraining.train.images.len(),
            self.recipe.cluster_counts(),
            Some(&self.text_of(Part::Labels)),
        )
    }

    /// The encoder whose features are clustered, and how its labels' origin calls it.
    fn clustered(&self, given: Option<&str>, context: &Context) -> Result<(Model, String)> {
        let images = &self.data.pretraining.train.images;
        let describe = |info: &ModelInfo| {
            let (depth, width) = (usize::from(info.encoder.depth), info.encoder.width);
            format!("ResNet-{depth} (width {width})")
        };
        let Some(given) = given else {
            let model = self.require_encoder("simclr", context)?;
            let (network, count) = (describe(&model.info), images.len());
            let origin = format!("a SimCLR {network} trained on the same {count} images");
            return Ok((model, origin));
        };
        let model = self.foreign(given, context)?;
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
        let count = self.data.pretraining.train.images.len();
        let labels = match &settings.labels_file {
            Some(file) => PseudoLabels::load(Path::new(file), count, &settings.counts, None)?,
            None => {
                let (model, whose) = self.clustered(settings.model.as_deref(), context)?;
                let batch = self.recipe.evaluate.batch_size;
                let (encoder, route) = (&model.backbone.encoder, model.info.route);
                let images = &self.data.pretraining.train.images;
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
