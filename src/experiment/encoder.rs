//! Stages that need no labels of images: encoders and pseudo-labels.

use std::path::{Path, PathBuf};
use std::time::Instant;

use toml::Table;

use super::Experiment;
use super::start;
use super::state::{Other, Stale, State, Work};
use crate::check::Check;
use crate::cluster::{ClusterSettings, Points, PseudoLabels};
use crate::error::{Error, Result};
use crate::finetune::features;
use crate::nn::Route;
use crate::pretrain::{Entry, Inputs, SourceInfo, Stage, Start, Trainer};
use crate::probe::Probe;
use crate::recipe::{Artifact, CLUSTERED_METHOD, differences, from_text, in_words, title, to_text};
use crate::run::{MODEL_FORMAT, Model, ModelInfo};
use crate::session::Context;
use crate::train::{self, Resume, Sittings};
use crate::{files, random};

impl Experiment {
    /// Pretrains encoders, all of the recipe or the one given; clusters the standard encoder's features
    /// before a method that needs pseudo-labels.
    ///
    /// # Errors
    /// As [`train::fit`](crate::train::fit); [`Error::Run`] when an encoder that a method learns from is
    /// missing, and for stale ones that took long; [`Error::Recipe`] for one that does not suit; [`Error::Data`] when a
    /// supervised method's labels are missing.
    pub fn pretrain(&self, method: Option<&str>, context: &mut Context) -> Result<()> {
        let methods = self.methods(method)?;
        train::require_ranks(self.recipe.shards)?;
        self.require_labels_of(&methods)?;
        self.require_sources_of(&methods, context)?;
        self.require_permission(&[], &methods)?;
        self.require_memory(&methods, context)?;
        self.remember(context)?;
        self.enter(context, |context| {
            for name in &methods {
                // One method alone finds its pseudo-labels there, or says that they are missing.
                if method.is_some() {
                    self.make_encoder(name, context)?;
                } else {
                    self.make_encoder_with_labels(name, context)?;
                }
            }
            Ok(())
        })
    }

    /// Pretrains one encoder, with the pseudo-labels that it needs before it.
    ///
    /// # Errors
    /// As [`Experiment::pretrain`].
    pub(super) fn make_encoder_with_labels(&self, name: &str, context: &mut Context) -> Result<()> {
        if self.recipe.pretrain.require(name)?.method().clustered() {
            self.make_labels(context)?;
        }
        self.make_encoder(name, context)
    }

    fn make_encoder(&self, name: &str, context: &mut Context) -> Result<()> {
        let entry = self.recipe.pretrain.require(name)?;
        let what = title(Artifact::Encoder(name));
        let work = self.work(&what, name, self.encoder_state(name)?, context)?;
        let Work::Compute {
            continues,
            replaces,
        } = work
        else {
            return Ok(());
        };
        self.warn_of_memory(name, context)?;
        let (recipe, data) = (&self.recipe, &self.data.pretraining);
        let (images, method) = (&data.train.images, entry.method());
        let labels = match method.clustered() {
            true => self.pseudo_labels()?,
            false => PseudoLabels::default(),
        };
        let source = method.source().map(|source| self.source(source, context));
        let source = source.transpose()?;
        let start = self.start(name, context)?;
        let begins = entry.common();
        let begins_at = start.as_ref().zip(begins.init.as_deref());
        let begins_at = begins_at.map(|(start, init)| start::in_words(init, &start.info));
        let expected = self.expected_encoder(name)?;
        let (text, begun) = (to_text(&expected), self.checkpoint_text(&expected));
        let inputs = Inputs {
            train: &data.train,
            classes: data.classes.len(),
            pseudo_labels: &labels,
            source: source.as_ref(),
            start: start.as_ref().map(|model| Start {
                model,
                pull: begins.pull,
            }),
            encoder: &recipe.encoder,
            ball: recipe.attack_ball(entry),
        };
        let stage = Stage {
            name,
            folder: &self.run.stage(name)?,
            resume: Resume {
                recipe: &begun,
                continues: continues.as_deref(),
                replaces,
            },
            interval: recipe.checkpoint.interval(),
        };
        if let (Some(start), Some(words)) = (&start, &begins_at)
            && continues.is_none()
            && !self.goes_on(name, &begun)?
        {
            self.say_start(name, start, words, context);
        }
        self.note_start(name, begins_at.as_deref())?;
        let mut trainer = Trainer::new(stage, inputs, context);
        trainer.probe = self.probe(method.route())?;
        let trained = method.pretrain(&mut trainer)?;
        let Sittings {
            seconds,
            arithmetic,
        } = trainer.sittings().clone();
        let (classes, finetuning) = match trained.linear {
            Some(_) => (
                data.classes.clone(),
                Some(super::rows::END_TO_END.to_owned()),
            ),
            None => (Vec::new(), None),
        };
        let heads = trained.backbone.fc.iter().map(|head| head.outputs());
        let info = ModelInfo {
            format: MODEL_FORMAT,
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
            start: begins_at,
            finetuning,
            normalize: trained.backbone.encoder.normalize().cloned(),
            recipe: text,
            reading: data.reading,
            arithmetic,
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

    /// Probe of encoders during pretraining, where the recipe asks for it; it needs labels.
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

    /// Encoder that a method learns from: another method's of this run, or a model file.
    fn source(&self, source: &str, context: &Context) -> Result<Model> {
        if self.recipe.pretrain.get(source).is_some() {
            return self.require_encoder(source, context);
        }
        self.foreign(source, context)
    }

    /// Refuses encoders that one of `methods` cannot learn from or begin at, before the work on any of them.
    ///
    /// # Errors
    /// [`Error::Recipe`] for an encoder that does not suit; what reading a model file meets.
    pub(super) fn require_sources_of(&self, methods: &[String], context: &Context) -> Result<()> {
        for name in methods {
            let entry = self.recipe.pretrain.require(name)?;
            if let Some(source) = entry.method().source() {
                let check = Check::new("").within("pretrain", name);
                let theirs = self.source_info(source, context)?;
                entry
                    .method()
                    .check_source(&theirs, &self.recipe.encoder, &check)?;
            }
            if self.begins_at_a_file(entry) {
                self.start(name, context)?;
            }
        }
        Ok(())
    }

    /// Facts about an encoder that a method learns from: of a model file, or of one that this run makes.
    fn source_info(&self, source: &str, context: &Context) -> Result<SourceInfo> {
        let Some(entry) = self.recipe.pretrain.get(source) else {
            return Ok(SourceInfo::of(&self.foreign(source, context)?.info));
        };
        // One that is used as it is may be of another recipe.
        let kept = match self.stale {
            Stale::Reuse => ModelInfo::load(&self.encoder_path(source))?,
            _ => None,
        };
        Ok(match kept {
            Some(info) => SourceInfo::of(&info),
            None => SourceInfo {
                encoder: self.recipe.encoder.clone(),
                projection: !entry.method().supervised(),
            },
        })
    }

    /// Seconds of making an encoder and everything that it needs: pseudo-labels, encoders that it learns from
    /// or begins at.
    pub fn whole_pretrain_seconds(&self, name: &str) -> Result<f64> {
        let mut needed = Vec::new();
        self.add_needed(name, &mut needed);
        let mut seconds = 0.0;
        for entry in &needed {
            seconds += self.seconds(&entry.name)?.pretrain;
        }
        if needed.iter().any(|entry| entry.method().clustered()) {
            seconds += self.cluster_seconds()?.unwrap_or(0.0);
        }
        Ok(seconds)
    }

    /// Adds a method of the recipe and those whose encoders it needs, each once.
    fn add_needed<'a>(&'a self, name: &str, needed: &mut Vec<&'a Entry>) {
        let Some(entry) = self.recipe.pretrain.get(name) else {
            return;
        };
        if needed.iter().any(|other| other.name == name) {
            return;
        }
        needed.push(entry);
        let method = entry.method();
        let clustered = method.clustered() && !self.labels_are_given();
        let others = clustered.then_some(CLUSTERED_METHOD).into_iter();
        let others = others.chain(method.source());
        let others = others.chain(entry.common().init.as_deref());
        others.for_each(|other| self.add_needed(other, needed));
    }

    /// Model file of any run, for images of the same channels and size.
    fn foreign(&self, path: &str, context: &Context) -> Result<Model> {
        let images = &self.data.pretraining.train.images;
        Model::load_for(Path::new(path), images.shape(), &context.device)
    }

    /// Whether the recipe's pseudo-labels need no encoder of this run.
    pub(super) fn labels_are_given(&self) -> bool {
        self.recipe
            .cluster
            .as_ref()
            .is_some_and(ClusterSettings::is_given)
    }

    /// Seconds of making pseudo-labels, where this run made them.
    pub(super) fn cluster_seconds(&self) -> Result<Option<f64>> {
        let path = self.layout().cluster_time();
        path.exists().then(|| files::read_json(&path)).transpose()
    }

    /// File of the pseudo-labels.
    pub fn pseudo_label_path(&self) -> PathBuf {
        self.layout().pseudo_labels()
    }

    fn pseudo_labels(&self) -> Result<PseudoLabels> {
        let path = self.pseudo_label_path();
        if !path.exists() {
            let run = self.run.path().display();
            let hint = if self.labels_are_given() || self.encoder_path(CLUSTERED_METHOD).exists() {
                format!("make them first: advcl cluster {run}")
            } else {
                format!(
                    "make them first: advcl pretrain {run} --method {CLUSTERED_METHOD}, then advcl cluster {run}"
                )
            };
            return Err(Error::run(self.run.path(), "no pseudo-labels yet", hint));
        }
        let images = self.data.pretraining.train.images.len();
        PseudoLabels::load(&path, images, self.recipe.cluster_counts())
    }

    /// Dependencies of the pseudo-labels that are there, without the order of their images.
    pub(super) fn recorded_labels(&self) -> Result<Option<Table>> {
        let recorded = PseudoLabels::recorded(&self.pseudo_label_path())?;
        Ok(recorded.map(|text| toml::from_str(&text).unwrap_or_default()))
    }

    /// State of the pseudo-labels. They are kept image by image: the order of the images matters too.
    pub(super) fn labels_state(&self) -> Result<State> {
        let Some(recorded) = PseudoLabels::recorded(&self.pseudo_label_path())? else {
            return Ok(State::Missing);
        };
        let expected = self.expected_labels()?;
        if recorded == self.checkpoint_text(&expected) {
            return Ok(State::Fresh);
        }
        let why = match from_text(&recorded) {
            Some(found) if found == expected => "the images are in another order".to_owned(),
            Some(found) => in_words(&differences(&found, &expected)),
            None => "made by an earlier version".to_owned(),
        };
        Ok(State::Stale(Other {
            why,
            seconds: self.cluster_seconds()?.unwrap_or(0.0),
            finished: true,
        }))
    }

    /// Encoder whose features are clustered, and its description in the labels' origin.
    fn clustered(&self, given: Option<&str>, context: &Context) -> Result<(Model, String)> {
        let images = &self.data.pretraining.train.images;
        let describe = |info: &ModelInfo| {
            let (depth, width) = (usize::from(info.encoder.depth), info.encoder.width);
            format!("ResNet-{depth} (width {width})")
        };
        let Some(given) = given else {
            let model = self.require_encoder(CLUSTERED_METHOD, context)?;
            let (network, count) = (describe(&model.info), images.len());
            let origin = format!("a SimCLR {network} trained on the same {count} images");
            return Ok((model, origin));
        };
        let model = self.foreign(given, context)?;
        let info = &model.info;
        let origin = format!("{given}, method {}, {}", info.method, describe(info));
        Ok((model, origin))
    }

    /// Clusters an encoder's features into pseudo-labels, the standard encoder's unless the recipe names
    /// another; or takes them from the recipe's file.
    ///
    /// # Errors
    /// [`Error::Run`] when there is no encoder yet; what reading the model or the labels file meets;
    /// [`Error::Features`]; [`Error::Interrupted`].
    pub fn cluster(&self, context: &mut Context) -> Result<()> {
        self.remember(context)?;
        self.enter(context, |context| self.make_labels(context))
    }

    pub(super) fn make_labels(&self, context: &mut Context) -> Result<()> {
        let path = self.pseudo_label_path();
        let Some(settings) = &self.recipe.cluster else {
            let problem = "no table [cluster]: there is nothing to do";
            return Err(Error::recipe("cluster", problem, "add it to the recipe"));
        };
        let what = title(Artifact::PseudoLabels);
        if self.work(&what, "cluster", self.labels_state()?, context)? == Work::Done {
            return Ok(());
        }
        let started = Instant::now();
        let count = self.data.pretraining.train.images.len();
        let labels = match &settings.labels_file {
            Some(file) => PseudoLabels::load(Path::new(file), count, &settings.counts)?,
            None => {
                let (model, whose) = self.clustered(settings.model.as_deref(), context)?;
                let batch = self.recipe.evaluate.batch_size;
                let (encoder, route) = (&model.backbone.encoder, model.info.route);
                let images = &self.data.pretraining.train.images;
                let features = features("cluster", encoder, route, images, batch, context)?;
                let origin = format!("k-means on the features of {whose}, seed {}", context.seed);
                let clusters = clusterings(&Points::new(features), settings, context)?;
                PseudoLabels { clusters, origin }
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        let mut words = format!("pseudo-labels for K = {:?}", labels.counts());
        // Nothing is learnt from the classes; they tell how much the clusters are worth.
        let classes = &self.data.pretraining.train.labels;
        if !classes.is_empty() && !labels.clusters.is_empty() {
            let purities = labels.purity(classes).into_iter();
            let purities = purities.map(|share| format!("{:.1} %", 100.0 * share));
            let purities: Vec<String> = purities.collect();
            words += &format!("; purity {}", purities.join(", "));
        }
        context.note("cluster", words);
        files::write_json(&self.layout().cluster_time(), &seconds)?;
        labels.save(&path, &self.checkpoint_text(&self.expected_labels()?))
    }
}

/// Pseudo-labels for each number of clusters.
fn clusterings(
    points: &Points,
    settings: &ClusterSettings,
    context: &mut Context,
) -> Result<Vec<(usize, Vec<usize>)>> {
    let mut clusters = Vec::new();
    let total = settings.counts.len();
    for (done, &count) in settings.counts.iter().enumerate() {
        let mut rng = random::generator(context.seed, "cluster", count as u64);
        // Stopped in the middle, or after it: both are heard here.
        let found = points.cluster(count, settings.k_means(), &mut rng, context.stop);
        let finished = done + usize::from(found.is_some());
        context.progress("cluster", finished, total, "clusterings")?;
        clusters.extend(found.map(|found| (count, found.labels)));
    }
    Ok(clusters)
}
