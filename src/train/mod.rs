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
use crate::nn::{self, Statistics};
use crate::session::{Context, Event};
use crate::{device, random};

pub use checkpoint::{Checkpoint, LastEpoch, Position, Resume};
pub use sgd::{Optimizer, Plan, Schedule, Sgd, named_gradients};

/// Features of a step's views, for a term that is added to the loss of any objective on an encoder.
#[derive(Default)]
pub struct Seen {
    wanted: bool,
    groups: Vec<(Tensor<4>, Vec<Tensor<2>>)>,
}

impl Seen {
    /// Collects features; the default passes over them.
    pub fn wanted() -> Self {
        Self {
            wanted: true,
            groups: Vec::new(),
        }
    }

    /// Takes the features of views, with gradients, of which all were `clean` before an attack or a filter, or are that
    /// still.
    ///
    /// # Shapes
    /// `clean` `[batch, channels, height, width]`, each of `views` `[batch, features]`.
    pub fn add(&mut self, clean: &Tensor<4>, views: impl IntoIterator<Item = Tensor<2>>) {
        if self.wanted {
            let views = views.into_iter().collect();
            self.groups.push((clean.clone(), views));
        }
    }

    /// Clean images, and the features of their views.
    pub fn into_groups(self) -> Vec<(Tensor<4>, Vec<Tensor<2>>)> {
        self.groups
    }
}

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
    /// Takes the features of the views.
    pub seen: &'a mut Seen,
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
        seen: &mut Seen::default(),
    });
    let gradients = loss.total.backward();
    let model = objective.before_update(model);
    let model = sgd.step(lr, model, &tracked, &gradients);
    (statistics.absorb_into(model), loss)
}

/// Trains `model` on `images` images by `plan`, from the checkpoint where there is one.
///
/// Saves after every epoch, within an epoch after every [`Checkpoint::interval`], and when asked to stop. A run that was
/// stopped or killed anywhere and goes on computes what one that was not would have computed, bit for bit, and every epoch
/// that was saved is in the log once. Returns the model, the seconds spent and the arithmetic used, all sittings together.
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
) -> Result<(O::Model, Sittings)> {
    let steps = images / plan.batch_size;
    assert!(
        steps > 0,
        "a batch is no larger than the data: checked with the recipe"
    );
    let mut position = Position::new(stage, checkpoint.resume.recipe);
    let mut sgd = Sgd::new(plan.momentum, plan.weight_decay, plan.optimizer);
    let mut model = checkpoint.load(model, &mut sgd, &mut position, steps)?;
    let (first_epoch, mut first_step) = (position.epoch, position.step);
    let arithmetic = nn::arithmetic(&context.device, context.precision);
    let on_cpu = device::name(&context.device) == "cpu";
    if (first_epoch, first_step) != (0, 0) && first_epoch < plan.epochs {
        let mut text = format!(
            "continuing at epoch {} of {}, step {}",
            first_epoch + 1,
            plan.epochs,
            first_step + 1
        );
        if let Some(before) = position.arithmetic.last()
            && *before != arithmetic
        {
            text += &format!(
                "; so far {before}, from here on {arithmetic}: not bit for bit what either alone would give"
            );
        }
        context.note(stage, text);
    }
    // An earlier process was killed after it had saved the epoch and before it could log it.
    if first_step == 0
        && let Some(last) = &position.last
        && !(context.logged)(stage, first_epoch, &last.losses)
    {
        let figures =
            objective.after_epoch(stage, &model, first_epoch - 1, &mut context.unstopped())?;
        (context.observe)(&last.event(stage, first_epoch, plan, images, figures));
    }
    if first_epoch < plan.epochs && !position.arithmetic.contains(&arithmetic) {
        position.arithmetic.push(arithmetic);
    }
    for epoch in first_epoch..plan.epochs {
        let mut order = random::generator(context.seed, &format!("{stage}/order"), epoch as u64);
        let order = random::permutation(images, &mut order);
        let started = Instant::now();
        let mut saved = started;
        let seconds_before = position.seconds;
        let mut lr = plan.lr;
        let read = |loss, step, position: &mut Position, context: &mut Context| {
            let diverged = |(part, value): (&str, f32)| Error::Diverged {
                stage: stage.to_owned(),
                part: part.to_owned(),
                value,
                at: format!("epoch {}, step {}", epoch + 1, step + 1),
            };
            let loss = position.add(loss).map_err(diverged)?;
            (context.observe)(&Event::Step {
                stage: stage.to_owned(),
                epoch: epoch + 1,
                epochs: plan.epochs,
                step: step + 1,
                steps,
                images: plan.batch_size,
                loss,
            });
            Ok(())
        };
        // The loss that nobody has read yet, and its step.
        let mut unread = None;
        for step in first_step..steps {
            let count = (epoch * steps + step) as u64;
            let mut rng = random::generator(context.seed, &format!("{stage}/step"), count);
            let progress = epoch as f64 + step as f64 / steps as f64;
            lr = plan.rate(progress);
            let indices = &order[step * plan.batch_size..(step + 1) * plan.batch_size];
            let loss;
            let at = (epoch, &context.device);
            (model, loss) = update(objective, model, &mut sgd, lr, indices, at, &mut rng);

            // Reading a value waits for the device. A GPU has the next step to work on by then, while this thread makes the
            // views of the one after it; the CPU has nothing else to do.
            let due = unread.replace((loss, step));
            for (loss, step) in due.into_iter().chain(unread.take_if(|_| on_cpu)) {
                read(loss, step, &mut position, context)?;
            }
            let stopped = context.stop.load(Ordering::Relaxed);
            // The last step's checkpoint is the epoch's.
            if step + 1 < steps && (stopped || saved.elapsed() >= checkpoint.interval) {
                if let Some((loss, step)) = unread.take() {
                    read(loss, step, &mut position, context)?;
                }
                (position.epoch, position.step) = (epoch, step + 1);
                position.seconds = seconds_before + started.elapsed().as_secs_f64();
                checkpoint.save(&model, &sgd, &position, steps)?;
                saved = Instant::now();
                if stopped {
                    return Err(interrupted(
                        stage,
                        [epoch + 1, step + 1, steps],
                        &checkpoint,
                    ));
                }
            }
        }
        if let Some((loss, step)) = unread.take() {
            read(loss, step, &mut position, context)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let done = (steps - first_step) * plan.batch_size;
        (position.epoch, position.step) = (epoch + 1, 0);
        position.seconds = seconds_before + seconds;
        let last = LastEpoch {
            losses: position.take_means(steps),
            lr,
            seconds,
            images_per_second: done as f64 / seconds,
        };
        position.last = Some(last.clone());
        checkpoint.save(&model, &sgd, &position, steps)?;
        let stopped = context.stop.load(Ordering::Relaxed);
        // A wish to stop waits for the epoch's figures, so that its line in the log is whole.
        let figures = objective.after_epoch(stage, &model, epoch, &mut context.unstopped())?;
        (context.observe)(&last.event(stage, epoch + 1, plan, images, figures));
        if stopped {
            return Err(interrupted(stage, [epoch + 1, steps, steps], &checkpoint));
        }
        first_step = 0;
    }
    let sittings = Sittings {
        seconds: position.seconds,
        arithmetic: position.arithmetic,
    };
    Ok((model, sittings))
}

/// What all sittings of a training came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sittings {
    /// Seconds of training.
    pub seconds: f64,
    /// Ways in which it was computed, in their order; see [`nn::arithmetic`].
    pub arithmetic: Vec<String>,
}

fn interrupted(stage: &str, [epoch, step, steps]: [usize; 3], checkpoint: &Checkpoint) -> Error {
    let folder = checkpoint.path.parent();
    Error::Interrupted {
        at: format!("{stage}, epoch {epoch}, step {step} of {steps}"),
        path: folder.map_or_else(PathBuf::new, Path::to_path_buf),
    }
}
