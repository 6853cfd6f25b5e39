//! The one training loop. It knows an [`Objective`], never which.

mod checkpoint;
mod gradients;
mod objective;
mod sgd;
mod step;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::nn::{BatchNormOver, Shards};
use crate::session::{Context, Event};
use crate::{device, nn, random, ranks};

pub use checkpoint::{Checkpoint, LastEpoch, Position, Resume};
pub use gradients::{WeightGradients, named_gradients};
pub use objective::{Loss, Objective, Seen, Step};
pub use sgd::{Optimizer, Plan, Schedule, Sgd};
pub use step::{Batch, Differentiated, differentiate, update};

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
    let mut model = checkpoint.load(model, &mut sgd, &mut position, [plan.epochs, steps])?;
    let (first_epoch, mut first_step) = (position.epoch, position.step);
    let arithmetic = nn::arithmetic_of_all_ranks(&context.device, context.precision);
    let on_cpu = device::name(&context.device) == "cpu";
    let shards = Shards::new(plan.batch_size, context.shards, plan.micro_batch);
    if objective.encodes() {
        require_ranks(shards.count())?;
        if context.shards.batchnorm == BatchNormOver::Global && !on_cpu {
            let problem = "\"global\" is computed on the CPU alone";
            return Err(Error::recipe(
                "batchnorm",
                problem,
                "\"shard\" works on every device",
            ));
        }
    }
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
        && !ranks::told("log", || (context.logged)(stage, first_epoch, &last.losses))
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
            let batch = Batch {
                indices: &order[step * plan.batch_size..(step + 1) * plan.batch_size],
                epoch,
                shards,
                device: &context.device,
            };
            let loss;
            (model, loss) = update(objective, model, &mut sgd, lr, batch, &mut rng);

            // Reading a value waits for the device. A GPU has the next step to work on by then, while this thread makes the
            // views of the one after it; the CPU has nothing else to do.
            let due = unread.replace((loss, step));
            for (loss, step) in due.into_iter().chain(unread.take_if(|_| on_cpu)) {
                read(loss, step, &mut position, context)?;
            }
            let due = saved.elapsed() >= checkpoint.interval;
            let [stopped, due] = agreed(context, due);
            // The last step's checkpoint is the epoch's.
            if step + 1 < steps && (stopped || due) {
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
        let [stopped, _] = agreed(context, false);
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

/// Whether anyone asked to stop, and whether a checkpoint is due: the same on all ranks.
fn agreed(context: &Context, due: bool) -> [bool; 2] {
    let stopped = context.stop.load(Ordering::Relaxed);
    let all = ranks::gather_each("step", [stopped, due]);
    let any = |which: usize| all.iter().any(|own| own[which]);
    [any(0), any(1)]
}

/// Refuses ranks that cannot have equally many shards each.
///
/// # Errors
/// [`Error::Ranks`].
pub fn require_ranks(shards: usize) -> Result<()> {
    let count = ranks::count();
    if shards.is_multiple_of(count) {
        return Ok(());
    }
    let problem = match shards {
        1 => format!("{count} of them, and batches that are not cut into shards"),
        _ => format!("{count} of them, and batches of {shards} shards: expected as many for each"),
    };
    let hint = format!(
        "--shards {} cuts them for {count} ranks, and for any number that divides it; results are those of that number of shards",
        shards.next_multiple_of(count)
    );
    Err(Error::Ranks { problem, hint })
}

/// What all sittings of a training came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sittings {
    /// Seconds of training.
    pub seconds: f64,
    /// Ways in which it was computed, in their order; see [`nn::arithmetic_of_all_ranks`].
    pub arithmetic: Vec<String>,
}

fn interrupted(stage: &str, [epoch, step, steps]: [usize; 3], checkpoint: &Checkpoint) -> Error {
    let folder = checkpoint.path.parent();
    Error::Interrupted {
        at: format!("{stage}, epoch {epoch}, step {step} of {steps}"),
        path: folder.map_or_else(PathBuf::new, Path::to_path_buf),
    }
}
