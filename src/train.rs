//! The one training loop. It knows an [`Objective`], never which.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::data::Batch;
use crate::error::{Error, Result};
use crate::nn::Statistics;
use crate::nn::weights::{self, Tensors};
use crate::random;

/// What a training step is given.
pub struct Step<'a, M> {
    /// The model with gradients.
    pub live: &'a M,
    /// The same weights without autodiff: for attacks, which need no gradient of weights.
    pub plain: &'a M,
    /// Which images.
    pub indices: &'a [usize],
    /// Counted from 0.
    pub epoch: usize,
    /// This step's generator.
    pub rng: &'a mut ChaCha8Rng,
    /// Takes the batch statistics that the running ones shall follow.
    pub statistics: &'a mut Statistics,
}

/// A loss and its named parts, each `[1]`.
pub struct Loss {
    /// What is differentiated.
    pub total: Tensor<1>,
    /// For people and logs.
    pub parts: Vec<(&'static str, Tensor<1>)>,
}

/// A way to train a model: it owns its images, its views and its attack.
pub trait Objective {
    /// What is trained.
    type Model: Module;
    /// The loss of one batch.
    fn loss(&self, step: Step<Self::Model>) -> Loss;
}

/// A host batch on a device.
pub fn to_tensor(batch: Batch, device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(batch.data, batch.shape), device)
}

/// Stochastic gradient descent with momentum and L2 weight decay, in PyTorch's form.
///
/// Burn's own keeps its velocity private, so a checkpoint could not store it under the parameter's name.
pub struct Sgd {
    /// Momentum.
    pub momentum: f64,
    /// Added to the gradient times the weight.
    pub weight_decay: f64,
    velocity: HashMap<ParamId, Tensor<1>>,
}

impl Sgd {
    /// Without velocity yet.
    pub fn new(momentum: f64, weight_decay: f64) -> Self {
        Self {
            momentum,
            weight_decay,
            velocity: HashMap::new(),
        }
    }

    /// One update of `plain` with the gradients that `live`'s parameters have; the others stay as they are.
    pub fn step<M: Module>(&mut self, lr: f64, plain: M, live: &M, gradients: &Gradients) -> M {
        let mut found = Collect {
            gradients,
            by_id: HashMap::new(),
        };
        live.visit(&mut found);
        plain.map(&mut Update {
            sgd: self,
            lr,
            gradients: found.by_id,
        })
    }
}

struct Collect<'a> {
    gradients: &'a Gradients,
    by_id: HashMap<ParamId, Tensor<1>>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.by_id.insert(param.id, gradient.reshape([-1]));
        }
    }
}

struct Update<'a> {
    sgd: &'a mut Sgd,
    lr: f64,
    gradients: HashMap<ParamId, Tensor<1>>,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.remove(&param.id) else {
            return param;
        };
        let id = param.id;
        param.map(|weight| {
            let shape = weight.dims();
            let weight = weight.reshape([-1]);
            let gradient = gradient + weight.clone() * self.sgd.weight_decay;
            let velocity = match self.sgd.velocity.remove(&id) {
                Some(velocity) => velocity * self.sgd.momentum + gradient,
                None => gradient,
            };
            self.sgd.velocity.insert(id, velocity.clone());
            (weight - velocity * self.lr).reshape(shape)
        })
    }
}

/// How the learning rate moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// From `lr` to `lr / 1000` along a cosine; before that, linearly up from `warmup_from`.
    ///
    /// Followed step by step, unlike the released code, which moves once an epoch after the warm-up: with few
    /// epochs the difference shows.
    Cosine {
        /// Epochs of warm-up, part of the whole.
        #[serde(default)]
        warmup_epochs: usize,
        /// The learning rate of the first step.
        #[serde(default)]
        warmup_from: f64,
    },
    /// A tenth after each of these epochs.
    Steps {
        /// Counted from 1.
        milestones: Vec<usize>,
    },
}

impl Schedule {
    /// The learning rate at `progress` epochs (whole and fraction) out of `epochs`.
    pub fn rate(&self, lr: f64, progress: f64, epochs: usize) -> f64 {
        match self {
            Self::Cosine {
                warmup_epochs,
                warmup_from,
            } => {
                let floor = lr / 1000.0;
                let cosine = |at: f64| {
                    let turn = std::f64::consts::PI * at / epochs as f64;
                    floor + (lr - floor) * (1.0 + turn.cos()) / 2.0
                };
                let warmup = *warmup_epochs as f64;
                if progress < warmup {
                    warmup_from + (cosine(warmup) - warmup_from) * progress / warmup
                } else {
                    cosine(progress)
                }
            }
            Self::Steps { milestones } => {
                let passed = milestones.iter().filter(|m| progress >= **m as f64).count();
                lr * 0.1f64.powi(passed as i32)
            }
        }
    }
}

/// How long and how fast.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Passes over the images.
    pub epochs: usize,
    /// Images a step; an epoch's remainder is left out.
    pub batch_size: usize,
    /// The schedule's peak.
    pub lr: f64,
    /// How it moves.
    pub schedule: Schedule,
    /// Of SGD.
    pub momentum: f64,
    /// Of SGD.
    pub weight_decay: f64,
}

/// What leaves the loop for people and logs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A step is done.
    Step {
        /// The stage of the run.
        stage: String,
        /// Counted from 1.
        epoch: usize,
        /// Out of.
        epochs: usize,
        /// Counted from 1 within the epoch.
        step: usize,
        /// Out of.
        steps: usize,
        /// Images in a step.
        images: usize,
        /// The loss's total.
        loss: f32,
    },
    /// An epoch is done and saved.
    Epoch {
        /// The stage of the run.
        stage: String,
        /// Counted from 1.
        epoch: usize,
        /// Out of.
        epochs: usize,
        /// Means over this epoch's steps (since the last resume).
        losses: Vec<(&'static str, f32)>,
        /// At its last step.
        lr: f64,
        /// Seconds (since the last resume).
        seconds: f64,
        /// Images a second.
        images_per_second: f64,
    },
    /// Something worth a line.
    Note {
        /// The stage of the run.
        stage: String,
        /// The line.
        text: String,
    },
}

/// What surrounds a stage: device, seed, the wish to stop, the ear for events.
pub struct Context<'a> {
    /// Where tensors live.
    pub device: Device,
    /// The run's seed.
    pub seed: u64,
    /// Set by Ctrl-C.
    pub stop: &'a AtomicBool,
    /// Hears every event.
    pub observe: &'a mut dyn FnMut(&Event),
}

/// Where training stands; the metadata of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    stage: String,
    epoch: usize,
    step: usize,
    seed: u64,
    images: usize,
    plan: Plan,
    /// Spent so far, all sittings together.
    seconds: f64,
}

/// A checkpoint file: weights, statistics, velocities and position.
struct Checkpoint<'a> {
    path: &'a Path,
}

const METADATA: &str = "advcl_checkpoint";

impl Checkpoint<'_> {
    fn save<M: Module>(&self, model: &M, sgd: &Sgd, position: &Position) -> Result<()> {
        let mut tensors = Tensors::new();
        weights::visit(model, |name, shape, values| {
            tensors.insert(format!("model.{name}"), (shape, weights::to_vec(values)));
        });
        for (name, id) in ids(model) {
            if let Some(velocity) = sgd.velocity.get(&id) {
                let values = weights::to_vec(velocity.clone());
                tensors.insert(format!("velocity.{name}"), (vec![values.len()], values));
            }
        }
        let position = serde_json::to_string(position).expect("a plain struct");
        weights::save(self.path, &tensors, &[(METADATA, position)])
    }

    /// The saved state, where there is one; it must be of the same stage, seed, data and plan.
    fn load<M: Module>(&self, model: M, sgd: &mut Sgd, wanted: &mut Position) -> Result<M> {
        if !self.path.exists() {
            return Ok(model);
        }
        let (mut tensors, metadata) = weights::load(self.path)?;
        let hint = "it belongs to another recipe: use another --run folder, or delete this one";
        let position: Position = metadata
            .get(METADATA)
            .and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(|| {
                let found = "none that this version understands";
                Error::format(self.path, "metadata", format!("an {METADATA} entry"), found)
            })?;
        let same = position.stage == wanted.stage
            && position.seed == wanted.seed
            && position.images == wanted.images
            && position.plan == wanted.plan;
        if !same {
            let problem = format!("expected a checkpoint of {wanted:?}, found {position:?}");
            return Err(Error::model(self.path, problem, hint));
        }
        let mut part = |prefix: &str| -> Tensors {
            let names: Vec<String> = tensors
                .keys()
                .filter(|name| name.starts_with(prefix))
                .cloned()
                .collect();
            let take = |name: String| {
                let tensor = tensors.remove(&name)?;
                Some((name[prefix.len()..].to_owned(), tensor))
            };
            names.into_iter().filter_map(take).collect()
        };
        let (mut values, velocities) = (part("model."), part("velocity."));
        let model = weights::import(model, &mut values, &[], self.path)?;
        let ids = ids(&model);
        for (name, (shape, values)) in velocities {
            let id = ids.get(&name).ok_or_else(|| {
                Error::model(
                    self.path,
                    format!("velocity of unknown tensor {name}"),
                    hint,
                )
            })?;
            let device = model.devices()[0].clone();
            let velocity = Tensor::from_data(TensorData::new(values, [shape[0]]), &device);
            sgd.velocity.insert(*id, velocity);
        }
        *wanted = position;
        Ok(model)
    }
}

/// Each parameter's gradient, by its published name; parameters without one are left out.
pub fn named_gradients<M: Module>(live: &M, gradients: &Gradients) -> HashMap<String, Vec<f32>> {
    let mut found = Collect {
        gradients,
        by_id: HashMap::new(),
    };
    live.visit(&mut found);
    let take =
        |(name, id): (String, ParamId)| Some((name, weights::to_vec(found.by_id.remove(&id)?)));
    ids(live).into_iter().filter_map(take).collect()
}

/// Each parameter's identity, by its published name.
fn ids<M: Module>(model: &M) -> HashMap<String, ParamId> {
    struct Ids(Vec<ParamId>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.id);
        }
    }
    let mut found = Ids(Vec::new());
    model.visit(&mut found);
    let mut names = Vec::new();
    weights::visit(model, |name, _, _| names.push(name));
    names.into_iter().zip(found.0).collect()
}

/// Trains `model` on `images` images by `plan`, from the checkpoint at `checkpoint` where there is one.
///
/// Saves after every epoch, and when asked to stop. A run that was stopped anywhere and goes on computes what
/// one that was not would have computed, bit for bit. Returns the model and the seconds spent, all sittings together.
///
/// # Errors
/// [`Error::Diverged`] for a loss that is not finite (the last checkpoint stays), [`Error::Interrupted`] when
/// asked to stop, and whatever reading and writing the checkpoint meets.
pub fn fit<O: Objective>(
    stage: &str,
    objective: &O,
    model: O::Model,
    plan: &Plan,
    images: usize,
    checkpoint: &Path,
    context: &mut Context,
) -> Result<(O::Model, f64)> {
    let steps = images / plan.batch_size;
    assert!(
        steps > 0,
        "a batch is no larger than the data: checked with the recipe"
    );
    let mut position = Position {
        stage: stage.to_owned(),
        epoch: 0,
        step: 0,
        seed: context.seed,
        images,
        plan: plan.clone(),
        seconds: 0.0,
    };
    let saved = Checkpoint { path: checkpoint };
    let mut sgd = Sgd::new(plan.momentum, plan.weight_decay);
    let mut model = saved.load(model, &mut sgd, &mut position)?;
    let (first_epoch, mut first_step) = (position.epoch, position.step);
    if (first_epoch, first_step) != (0, 0) && first_epoch < plan.epochs {
        let text = format!(
            "going on at epoch {}, step {}",
            first_epoch + 1,
            first_step + 1
        );
        (context.observe)(&Event::Note {
            stage: stage.to_owned(),
            text,
        });
    }
    for epoch in first_epoch..plan.epochs {
        let mut order = random::generator(context.seed, &format!("{stage}/order"), epoch as u64);
        let order = random::permutation(images, &mut order);
        let started = Instant::now();
        let seconds_before = position.seconds;
        let mut means = Means::default();
        let mut lr = plan.lr;
        for step in first_step..steps {
            let count = (epoch * steps + step) as u64;
            let mut rng = random::generator(context.seed, &format!("{stage}/step"), count);
            let mut statistics = Statistics::default();
            let live = model.clone().train();
            let loss = objective.loss(Step {
                live: &live,
                plain: &model,
                indices: &order[step * plan.batch_size..(step + 1) * plan.batch_size],
                epoch,
                rng: &mut rng,
                statistics: &mut statistics,
            });
            let gradients = loss.total.backward();
            let progress = epoch as f64 + step as f64 / steps as f64;
            lr = plan.schedule.rate(plan.lr, progress, plan.epochs);
            model = sgd.step(lr, model, &live, &gradients);
            model = statistics.absorb_into(model);

            let total = means.add(loss).map_err(|(part, value)| Error::Diverged {
                stage: stage.to_owned(),
                part: part.to_owned(),
                value,
                epoch: epoch + 1,
                step: step + 1,
            })?;
            (context.observe)(&Event::Step {
                stage: stage.to_owned(),
                epoch: epoch + 1,
                epochs: plan.epochs,
                step: step + 1,
                steps,
                images: plan.batch_size,
                loss: total,
            });
            if context.stop.load(Ordering::Relaxed) {
                (position.epoch, position.step) = (epoch, step + 1);
                position.seconds = seconds_before + started.elapsed().as_secs_f64();
                if position.step == steps {
                    (position.epoch, position.step) = (epoch + 1, 0);
                }
                saved.save(&model, &sgd, &position)?;
                return Err(Error::Interrupted {
                    at: format!("{stage}, epoch {}, step {} of {steps}", epoch + 1, step + 1),
                    path: checkpoint
                        .parent()
                        .map_or_else(PathBuf::new, Path::to_path_buf),
                });
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        (position.epoch, position.step) = (epoch + 1, 0);
        position.seconds = seconds_before + seconds;
        saved.save(&model, &sgd, &position)?;
        let done = (steps - first_step) * plan.batch_size;
        (context.observe)(&Event::Epoch {
            stage: stage.to_owned(),
            epoch: epoch + 1,
            epochs: plan.epochs,
            losses: means.finish(),
            lr,
            seconds,
            images_per_second: done as f64 / seconds,
        });
        first_step = 0;
    }
    Ok((model, position.seconds))
}

/// Running sums of the loss and its parts.
#[derive(Default)]
struct Means {
    sums: Vec<(&'static str, f32)>,
    steps: usize,
}

impl Means {
    /// Adds a step's loss, read from the device in one go; returns its total, or the first part not finite.
    fn add(&mut self, loss: Loss) -> Result<f32, (&'static str, f32)> {
        let (mut names, mut tensors): (Vec<_>, Vec<_>) = loss.parts.into_iter().unzip();
        names.push("loss");
        tensors.push(loss.total);
        let tensors = tensors.into_iter().map(Tensor::inner).collect();
        let values = weights::to_vec(Tensor::cat(tensors, 0));
        if self.sums.is_empty() {
            self.sums = names.iter().map(|name| (*name, 0.0)).collect();
        }
        for ((name, value), (_, sum)) in names.into_iter().zip(&values).zip(&mut self.sums) {
            if !value.is_finite() {
                return Err((name, *value));
            }
            *sum += value;
        }
        self.steps += 1;
        Ok(*values.last().expect("the total was pushed"))
    }

    fn finish(self) -> Vec<(&'static str, f32)> {
        self.sums
            .into_iter()
            .map(|(name, sum)| (name, sum / self.steps as f32))
            .collect()
    }
}
