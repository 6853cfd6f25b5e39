//! The runtime environment of a stage: device, seed, stop flag and event observer.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::nn::Precision;

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
        /// Of the model after it, where it was probed: "knn", the share of held-out images that nearest neighbours
        /// classify.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        figures: Vec<(&'static str, f32)>,
        /// At its last step.
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
        /// So many of them.
        done: usize,
        /// Out of.
        total: usize,
        /// What is counted: "images", "clusterings".
        unit: &'static str,
    },
    /// What a finished stage comes to: "clean" and "robust" accuracy, in [0, 1].
    Figures {
        /// The stage of the run.
        stage: String,
        /// By name.
        figures: Vec<(&'static str, f64)>,
    },
    /// Another run of a comparison begins.
    Seed {
        /// Its seed.
        seed: u64,
        /// Its run folder.
        folder: PathBuf,
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
    /// Of the convolutions in pretraining. Finetuning and evaluation are f32 always.
    pub precision: Precision,
    /// Set by Ctrl-C.
    pub stop: &'a AtomicBool,
    /// Hears every event.
    pub observe: &'a mut dyn FnMut(&Event),
}

impl Context<'_> {
    /// Tells that `done` of `total` are done, and hears whether to stop there.
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
