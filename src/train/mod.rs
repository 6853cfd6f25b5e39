//! The one training loop. It knows an [`Objective`], never which.

mod checkpoint;
mod sgd;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::rngs::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::nn::Statistics;
use crate::random;
use crate::session::{Context, Event};
use crate::tensor::to_vec;

pub use checkpoint::{Checkpoint, Position, Resume};
pub use sgd::{Optimizer, Plan, Schedule, Sgd, named_gradients};

/// What a training step is given.
pub struct Step<'a, M> {
    /// The model that tracks gradients of its weights; the loss is computed with it.
    pub tracked: &'a M,
    /// The same weights without autodiff, for attacks, which need no gradient of the weights.
    pub detached: &'a M,
    /// Which images.
    pub indices: &'a [usize],
    /// Counted from 0.
    pub epoch: usize,
    /// This step's generator.
    pub rng: &'a mut ChaCha8Rng,
    /// Where tensors live.
    pub device: &'a Device,
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

    /// Named figures of the model after an epoch, counted from 0, for the log; `stage` is the stage's name.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when asked to stop.
    fn after_epoch(
        &self,
        _stage: &str,
        _model: &Self::Model,
        _epoch: usize,
        _context: &mut Context,
    ) -> Result<Vec<(&'static str, f32)>> {
        Ok(Vec::new())
    }

    /// Changes the model beside what gradients do: after the loss, before the update.
    fn before_update(&self, model: Self::Model) -> Self::Model {
        model
    }
}

/// One step: the loss of a batch, its gradients, the update of weights and of running statistics.
pub fn update<O: Objective>(
    objective: &O,
    model: O::Model,
    sgd: &mut Sgd,
    lr: f64,
    indices: &[usize],
    (epoch, device): (usize, &Device),
    rng: &mut ChaCha8Rng,
) -> (O::Model, Loss) {
    let mut statistics = Statistics::default();
    let tracked = model.clone().train();
    let loss = objective.loss(Step {
        tracked: &tracked,
        detached: &model,
        indices,
        epoch,
        rng,
        device,
        statistics: &mut statistics,
    });
    let gradients = loss.total.backward();
    let model = objective.before_update(model);
    let model = sgd.step(lr, model, &tracked, &gradients);
    (statistics.absorb_into(model), loss)
}

/// Trains `model` on `images` images by `plan`, from the checkpoint where there is one.
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
    checkpoint: Checkpoint,
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
        recipe: checkpoint.resume.recipe.to_owned(),
        seconds: 0.0,
    };
    let mut sgd = Sgd::new(plan.momentum, plan.weight_decay, plan.optimizer);
    let mut model = checkpoint.load(model, &mut sgd, &mut position)?;
    let (first_epoch, mut first_step) = (position.epoch, position.step);
    if (first_epoch, first_step) != (0, 0) && first_epoch < plan.epochs {
        let text = format!(
            "continuing at epoch {} of {}, step {}",
            first_epoch + 1,
            plan.epochs,
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
            let progress = epoch as f64 + step as f64 / steps as f64;
            lr = plan.rate(progress);
            let indices = &order[step * plan.batch_size..(step + 1) * plan.batch_size];
            let loss;
            let at = (epoch, &context.device);
            (model, loss) = update(objective, model, &mut sgd, lr, indices, at, &mut rng);

            let total = means.add(loss).map_err(|(part, value)| Error::Diverged {
                stage: stage.to_owned(),
                part: part.to_owned(),
                value,
                at: format!("epoch {}, step {}", epoch + 1, step + 1),
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
                checkpoint.save(&model, &sgd, &position, steps)?;
                return Err(Error::Interrupted {
                    at: format!("{stage}, epoch {}, step {} of {steps}", epoch + 1, step + 1),
                    path: checkpoint
                        .path
                        .parent()
                        .map_or_else(PathBuf::new, Path::to_path_buf),
                });
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        (position.epoch, position.step) = (epoch + 1, 0);
        position.seconds = seconds_before + seconds;
        checkpoint.save(&model, &sgd, &position, steps)?;
        let done = (steps - first_step) * plan.batch_size;
        // The epoch is saved, and is in the log: a wish to stop meanwhile loses its figures, nothing else.
        let (figures, stopped) = match objective.after_epoch(stage, &model, epoch, context) {
            Ok(figures) => (figures, Ok(())),
            Err(stop @ Error::Interrupted { .. }) => (Vec::new(), Err(stop)),
            Err(error) => return Err(error),
        };
        (context.observe)(&Event::Epoch {
            stage: stage.to_owned(),
            epoch: epoch + 1,
            epochs: plan.epochs,
            losses: means.finish(),
            figures,
            lr,
            seconds,
            images_per_second: done as f64 / seconds,
            images: steps * plan.batch_size,
        });
        stopped?;
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
        let values = to_vec(Tensor::cat(tensors, 0));
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
