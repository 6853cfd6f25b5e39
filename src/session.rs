//! The runtime environment of a stage: device, seed, stop flag and event observer.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use serde::Serialize;

use crate::device;
use crate::error::{Error, Result};
use crate::nn::{Precision, Sharding};

/// Event of training or evaluation, for people and logs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A step is done.
    Step {
        /// The stage of the run.
        stage: String,
        /// Counted from 1.
        epoch: usize,
        /// Epochs in all.
        epochs: usize,
        /// Counted from 1 within the epoch.
        step: usize,
        /// Steps of an epoch.
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
        /// Epochs in all.
        epochs: usize,
        /// Means over this epoch's steps.
        losses: Vec<(String, f32)>,
        /// Figures of the model after it, where it was probed: "knn", the share of held-out images that nearest
        /// neighbours classify correctly.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        figures: Vec<(&'static str, f32)>,
        /// Learning rate of its last step.
        lr: f64,
        /// Seconds (since the last resume).
        seconds: f64,
        /// Images a second (since the last resume).
        images_per_second: f64,
        /// Images an epoch.
        images: usize,
    },
    /// Part of a stage without a loss is done: features, clustering, evaluation.
    Progress {
        /// The stage of the run.
        stage: String,
        /// Units that are done.
        done: usize,
        /// Units in all.
        total: usize,
        /// What is counted: "images", "clusterings".
        unit: &'static str,
    },
    /// Accuracies of a finished stage, in [0, 1]: "clean", "robust", "attacked".
    Figures {
        /// The stage of the run.
        stage: String,
        /// Names and values.
        figures: Vec<(&'static str, f64)>,
    },
    /// Another run of a comparison begins.
    Seed {
        /// Its seed.
        seed: u64,
        /// Its run folder.
        #[serde(serialize_with = "crate::files::as_text")]
        folder: PathBuf,
    },
    /// Line for people.
    Note {
        /// The stage of the run.
        stage: String,
        /// The line.
        text: String,
    },
}

/// Question whether a log has an epoch, counted from 1, of a stage with these losses.
pub type Logged<'a> = &'a (dyn Fn(&str, usize, &[(String, f32)]) -> bool + 'a);

/// Runtime environment of a stage: device, seed, precision, stop flag and event observer.
///
/// An [`Experiment`](crate::experiment::Experiment) puts its recipe's seed in the place of `seed`.
///
/// ```
/// use std::sync::atomic::AtomicBool;
///
/// use advcl::Context;
/// use advcl::session::Event;
///
/// let stop = AtomicBool::new(false); // a signal handler may set it
/// let mut context = Context::cpu()?.stopped_by(&stop).observed(|event| {
///     if let Event::Epoch { stage, epoch, losses, .. } = event {
///         println!("{stage}, epoch {epoch}: {losses:?}");
///     }
/// });
/// context.note("example", "every observer gets this line");
/// # Ok::<(), advcl::Error>(())
/// ```
pub struct Context<'a> {
    /// Device of all tensors.
    pub device: Device,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Precision of the convolutions in pretraining. Finetuning and evaluation are f32 always.
    pub precision: Precision,
    /// How training batches are cut.
    pub shards: Sharding,
    /// Flag that asks to stop, as Ctrl-C does.
    pub stop: &'a AtomicBool,
    /// Observer of every event.
    pub observe: Box<dyn FnMut(&Event) + 'a>,
    /// Whether the log has an epoch, counted from 1, of a stage with these losses; yes where there is no log.
    pub logged: Logged<'a>,
}

/// Answer of contexts without a log.
fn no_log(_: &str, _: usize, _: &[(String, f32)]) -> bool {
    true
}

/// Flag of contexts that nobody stops.
static NEVER: AtomicBool = AtomicBool::new(false);

impl<'a> Context<'a> {
    /// Environment on `device` with seed 0, f32, nobody who stops it and nobody who watches.
    pub fn new(device: Device) -> Self {
        Self {
            device,
            seed: 0,
            precision: Precision::default(),
            shards: Sharding::default(),
            stop: &NEVER,
            observe: Box::new(|_| ()),
            logged: &no_log,
        }
    }

    /// [`Context::new`] on the CPU.
    ///
    /// # Errors
    /// [`Error::Device`] where the crate was built without the feature `flex`.
    pub fn cpu() -> Result<Self> {
        Ok(Self::new(device::open("cpu")?))
    }

    /// The same environment with another seed.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same environment with an observer of its events.
    pub fn observed(self, observe: impl FnMut(&Event) + 'a) -> Self {
        Self {
            observe: Box::new(observe),
            ..self
        }
    }

    /// The same environment with a flag that asks to stop.
    pub fn stopped_by(self, stop: &'a AtomicBool) -> Self {
        Self { stop, ..self }
    }

    /// The same environment with a log that is asked before an epoch of an earlier process is logged late.
    pub fn logged_by(self, logged: Logged<'a>) -> Self {
        Self { logged, ..self }
    }

    /// The same environment, in which nobody asks to stop: for work that is to be whole.
    pub fn unstopped(&mut self) -> Context<'_> {
        self.watched(|_| ()).stopped_by(&NEVER)
    }

    /// The same environment, with another observer that gets every event first.
    pub fn watched<'b>(&'b mut self, mut watch: impl FnMut(&Event) + 'b) -> Context<'b> {
        let observe = &mut self.observe;
        Context {
            device: self.device.clone(),
            seed: self.seed,
            precision: self.precision,
            shards: self.shards,
            stop: self.stop,
            logged: self.logged,
            observe: Box::new(move |event| {
                watch(event);
                observe(event);
            }),
        }
    }

    /// Sends a line for people.
    pub fn note(&mut self, stage: impl Into<String>, text: impl Into<String>) {
        (self.observe)(&Event::Note {
            stage: stage.into(),
            text: text.into(),
        });
    }

    /// Sends that `done` of `total` units are done, and stops there if asked to.
    ///
    /// # Errors
    /// [`Error::Interrupted`], without a path: nothing of such a stage is saved.
    pub fn progress(
        &mut self,
        stage: &str,
        done: usize,
        total: usize,
        unit: &'static str,
    ) -> Result<()> {
        (self.observe)(&Event::Progress {
            stage: stage.to_owned(),
            done,
            total,
            unit,
        });
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Interrupted {
                at: format!("{stage}, {done} of {total} {unit}"),
                path: PathBuf::new(),
            });
        }
        Ok(())
    }
}
