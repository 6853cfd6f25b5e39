//! Benchmark of a recipe's own training steps.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::ChaCha8Rng;
use serde::Serialize;

use super::launches::Launches;
use super::machine::{peak_memory_mib, reset_peak_memory};
use super::setup::median;
use crate::check::Check;
use crate::cluster::PseudoLabels;
use crate::criterion::{EndToEnd, Task, one_hot};
use crate::data::augment::Weak;
use crate::data::{Dataset, Split};
use crate::device;
use crate::error::{Error, Result};
use crate::finetune::{self, Trains};
use crate::nn::{Backbone, Classifier, Encoder, EncoderConfig, Linear, Route};
use crate::pretrain::{self, Inputs, Method, Stage, Start, Trainer};
use crate::random;
use crate::recipe::{Recipe, is_path};
use crate::run::{MODEL_FORMAT, Model, ModelInfo};
use crate::session::{Context, Event};
use crate::train::{self, Checkpoint, Plan, Resume};

/// Timing of a recipe's own step: augmentation, attack, loss and gradients, update.
#[derive(Clone, Debug, Serialize)]
pub struct StepTiming {
    /// Table of the recipe, as the recipe names it: `pretrain.advcl`, `finetune.aff`.
    pub table: String,
    /// The encoder.
    pub encoder: EncoderConfig,
    /// Batch, channels, height, width.
    pub shape: [usize; 4],
    /// Most images that pass the encoder at once, where that is fewer than the batch.
    pub micro_batch: Option<usize>,
    /// Duration of each measured step.
    pub seconds: Vec<f64>,
    /// Median of `seconds`.
    pub median_seconds: f64,
    /// Images per second, by the median.
    pub images_per_second: f64,
    /// Steps of an epoch.
    pub steps: usize,
    /// Epochs of the plan.
    pub epochs: usize,
    /// Seconds of an epoch's steps, by the median.
    pub epoch_seconds: f64,
    /// Seconds of all epochs' steps, by the median.
    pub training_seconds: f64,
    /// Peak resident memory of the process during these steps, in MiB, with whatever it kept of earlier ones; Linux only.
    pub peak_memory_mib: Option<f64>,
    /// Peak memory that the estimate foretells for the CPU, in MiB; of pretraining.
    pub expected_memory_mib: Option<f64>,
    /// Kernels that a GPU is given in a step, the median; none on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launches: Option<usize>,
    /// Threads of the operations on the CPU.
    pub threads: usize,
}

/// What was measured of each step.
#[derive(Default)]
struct Measured {
    seconds: Vec<f64>,
    launches: Vec<usize>,
}

/// A recipe whose steps are timed.
pub struct RecipeSteps<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Images that encoders are pretrained on.
    pub pretraining: &'a Dataset,
    /// Images that classifiers are finetuned on.
    pub target: &'a Dataset,
    /// Bytes of all images in memory.
    pub held: usize,
    /// Number of measurements; the median is reported.
    pub runs: usize,
    /// Folder for what the steps keep; what is in it afterwards is of no use.
    pub folder: &'a Path,
}

impl RecipeSteps<'_> {
    /// Times the steps of a pretraining method, after one that warms up. Other encoders that it learns from or begins at
    /// have random weights, unless they are files, and its pseudo-labels mean nothing: neither changes what a step takes.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a name that the recipe does not have, [`Error::Data`] for labels that are missing; those of
    /// [`train::fit`].
    pub fn pretraining(&self, name: &str, context: &Context) -> Result<StepTiming> {
        self.check()?;
        let entry = self.recipe.pretrain.require(name)?;
        let (data, plan) = (self.pretraining, entry.method().plan());
        if entry.method().supervised() {
            data.require_labels()?;
        }
        let longer = self.longer("pretrain", name, plan, data)?;
        let method = longer.pretrain.require(name)?.method();
        let start = entry.common();
        let train = self.enough(&data.train, method);
        let images = &train.images;
        let counts = method
            .cluster_counts()
            .unwrap_or(self.recipe.cluster_counts());
        let labels = PseudoLabels {
            clusters: match method.clustered() {
                true => (counts.iter())
                    .map(|&count| (count, (0..images.len()).map(|i| i % count).collect()))
                    .collect(),
                false => Vec::new(),
            },
            origin: "bench".to_owned(),
        };
        let source = method.source().map(|source| match is_path(source) {
            true => Model::load_for(Path::new(source), images.shape(), &context.device),
            false => Ok(self.random_model(images.shape(), context)),
        });
        let source = source.transpose()?;
        let begins = (start.init.is_some()).then(|| self.random_model(images.shape(), context));
        let inputs = Inputs {
            train: &train,
            classes: data.classes.len(),
            pseudo_labels: &labels,
            source: source.as_ref(),
            start: begins.as_ref().map(|model| Start {
                model,
                pull: start.pull,
            }),
            encoder: &self.recipe.encoder,
            ball: self.recipe.attack_ball(entry),
        };
        let found = self.time(name, context, |context| {
            let stage = Stage {
                name,
                folder: self.folder,
                resume: RESUME,
                interval: Duration::MAX,
            };
            let trained = method.pretrain(&mut Trainer::new(stage, inputs, context));
            trained.map(drop)
        })?;
        let expected =
            pretrain::memory::peak(method, &self.recipe.encoder, images.shape(), self.held);
        let mut timing = self.timing("pretrain", name, plan, data, found);
        let on_cpu = device::name(&context.device) == "cpu";
        timing.expected_memory_mib = on_cpu.then_some(expected as f64 / MIB);
        Ok(timing)
    }

    /// Times the steps of a finetuning mode that trains the encoder, after one that warms up. The encoder has random
    /// weights.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a name that the recipe does not have, for a mode that trains a head alone, and for shards without
    /// images; [`Error::Data`] for labels that are missing; those of [`train::fit`].
    pub fn finetuning(&self, name: &str, context: &Context) -> Result<StepTiming> {
        self.check()?;
        let entry = self.recipe.finetune.require(name)?;
        let data = self.target;
        let Some(plan) = trained_plan(entry) else {
            let problem = "the mode trains a linear classifier on a frozen encoder";
            let hint = "choose a mode that trains everything; a head's steps take next to nothing";
            return Err(Error::recipe(format!("finetune.{name}"), problem, hint));
        };
        data.require_labels()?;
        let images = data.train.images.len();
        self.recipe.check_labeled(&Check::new(""), entry, images)?;
        // Few labels: batches of all images, as in finetuning itself.
        let plan = &Plan {
            batch_size: plan.batch_size.min(data.train.images.len()),
            ..plan.clone()
        };
        let longer = Plan {
            epochs: self.epochs(plan, data),
            ..plan.clone()
        };
        let (device, classes) = (&context.device, data.classes.len());
        let (images, labels) = (&data.train.images, &data.train.labels);
        let objective = EndToEnd {
            task: Task {
                images,
                chosen: (0..images.len()).collect(),
                targets: (entry.settings.class_weights)
                    .weigh(one_hot(labels, classes, device), labels),
                augment: entry.settings.augment.then(Weak::default),
                ball: self.recipe.threat.ball(),
            },
            criterion: entry.loss(),
        };
        let (config, mut rng) = (&self.recipe.encoder, generator());
        let fresh = Classifier {
            encoder: Encoder::new(config, images.channels, 1, &mut rng, device),
            linear: Linear::new(config.features(), classes, &mut rng, device).zeros(),
            route: Route::Normal,
        };
        let found = self.time(name, context, |context| {
            let checkpoint = Checkpoint {
                path: &self.folder.join("finetune.safetensors"),
                resume: RESUME,
                interval: Duration::MAX,
            };
            let count = images.len();
            train::fit(name, &objective, fresh, &longer, count, checkpoint, context).map(drop)
        })?;
        Ok(self.timing("finetune", name, plan, data, found))
    }

    fn check(&self) -> Result<()> {
        if (1..=MOST_RUNS).contains(&self.runs) {
            return Ok(());
        }
        let problem = format!(
            "expected 1 to {MOST_RUNS} measurements, found {}",
            self.runs
        );
        Err(Error::input("--runs", problem, "5 are usual"))
    }

    /// Epochs of the plan, or as many as have the steps to measure.
    fn epochs(&self, plan: &Plan, data: &Dataset) -> usize {
        let steps = (data.train.images.len() / plan.batch_size).max(1);
        plan.epochs.max((self.runs + 1).div_ceil(steps))
    }

    /// The recipe with as many epochs of a method as there are steps to measure, where its plan has fewer.
    fn longer(&self, tables: &str, name: &str, plan: &Plan, data: &Dataset) -> Result<Recipe> {
        let epochs = self.epochs(plan, data);
        let set = format!("{tables}.{name:?}.plan.epochs = {epochs}");
        Recipe::parse("bench", &self.recipe.to_toml(), &[set])
    }

    /// The first images, as many as the steps need; all of them for a method that needs more to be possible.
    fn enough(&self, train: &Split, method: &dyn Method) -> Split {
        let wanted = method.plan().batch_size.saturating_mul(self.runs + 1);
        let all: Vec<usize> = (0..train.images.len()).collect();
        let some = train.select(&all[..wanted.min(all.len())]);
        match method.check_images(&some.images, &Check::new("")) {
            Ok(()) => some,
            Err(_) => train.clone(),
        }
    }

    /// An encoder of the recipe's shape that nobody trained.
    fn random_model(&self, [channels, height, width]: [usize; 3], context: &Context) -> Model {
        let encoder = &self.recipe.encoder;
        let device = &context.device;
        Model {
            info: ModelInfo {
                format: MODEL_FORMAT,
                method: "bench".to_owned(),
                encoder: encoder.clone(),
                channels,
                image_size: [height, width],
                classes: Vec::new(),
                routes: vec![Route::Normal],
                route: Route::Normal,
                projection: true,
                clusters: Vec::new(),
                pseudo_labels: None,
                start: None,
                finetuning: None,
                normalize: None,
                recipe: String::new(),
                reading: self.pretraining.reading,
                arithmetic: Vec::new(),
                advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            backbone: Backbone::new(encoder, channels, 1, &[], &mut generator(), device),
            linear: None,
        }
    }

    /// Durations of the steps of the stage `name` in `work`, which is stopped when there are enough.
    fn time(
        &self,
        name: &str,
        context: &Context,
        work: impl FnOnce(&mut Context) -> Result<()>,
    ) -> Result<Measured> {
        let (enough, mut found, mut last) = (AtomicBool::new(false), Measured::default(), None);
        let launches = Launches::watch();
        reset_peak_memory();
        let done = {
            let observe = |event: &Event| {
                let now = (Instant::now(), launches.so_far());
                match event {
                    // A stopped training may tell of one more.
                    Event::Step { stage, .. }
                        if stage == name && found.seconds.len() < self.runs =>
                    {
                        let before: Option<(Instant, usize)> = last.replace(now);
                        // The first step warms up.
                        if let Some((then, before)) = before {
                            found.seconds.push((now.0 - then).as_secs_f64());
                            found.launches.push(now.1 - before);
                        }
                    }
                    // What an epoch keeps is not part of its next step.
                    Event::Epoch { stage, .. } if stage == name => last = Some(now),
                    _ => {}
                }
                if found.seconds.len() == self.runs || context.stop.load(Ordering::Relaxed) {
                    enough.store(true, Ordering::Relaxed);
                }
            };
            let mut inner = Context::new(context.device.clone())
                .with_seed(self.recipe.seed)
                .stopped_by(&enough)
                .observed(observe);
            inner.precision = self.recipe.precision;
            inner.shards = self.recipe.sharding();
            work(&mut inner)
        };
        match done {
            Err(Error::Interrupted { .. }) if found.seconds.len() == self.runs => Ok(found),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    fn timing(
        &self,
        tables: &str,
        name: &str,
        plan: &Plan,
        data: &Dataset,
        found: Measured,
    ) -> StepTiming {
        // Before anything else takes memory.
        let peak_memory_mib = peak_memory_mib();
        let [channels, height, width] = data.train.images.shape();
        let (batch, median_seconds) = (plan.batch_size, median(&found.seconds));
        let mut launches = found.launches;
        launches.sort_unstable();
        let launches = launches.get(launches.len() / 2).copied();
        let steps = data.train.images.len() / batch;
        let epoch_seconds = steps as f64 * median_seconds;
        StepTiming {
            table: format!("{tables}.{name}"),
            encoder: self.recipe.encoder.clone(),
            shape: [batch, channels, height, width],
            micro_batch: plan.micro_batch.filter(|most| *most < batch),
            images_per_second: batch as f64 / median_seconds,
            seconds: found.seconds,
            median_seconds,
            launches: launches.filter(|count| *count > 0),
            steps,
            epochs: plan.epochs,
            epoch_seconds,
            training_seconds: plan.epochs as f64 * epoch_seconds,
            peak_memory_mib,
            expected_memory_mib: None,
            threads: rayon::current_num_threads(),
        }
    }
}

/// The plan of a mode that trains the encoder; none of one that trains a head.
pub fn trained_plan(entry: &finetune::Entry) -> Option<&Plan> {
    let plan = entry.settings.plan.as_ref();
    plan.filter(|_| entry.trains() == Trains::Everything)
}

/// Most measurements.
const MOST_RUNS: usize = 10_000;
const MIB: f64 = 1024.0 * 1024.0;
/// Nothing is continued.
const RESUME: Resume = Resume {
    recipe: "",
    continues: None,
    replaces: true,
};

fn generator() -> ChaCha8Rng {
    random::generator(0, "bench", 0)
}
