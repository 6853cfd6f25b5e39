//! The surroundings of every method: its inputs, the training of its parts, and the result.

use std::path::Path;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use rand::rngs::ChaCha8Rng;

use super::pull::Pulled;
use super::{Method, SourceInfo, Start};
use crate::attack::Ball;
use crate::check::Check;
use crate::cluster::PseudoLabels;
use crate::criterion::{Criterion, EndToEnd, Task};
use crate::data::Split;
use crate::data::augment::Weak;
use crate::error::Result;
use crate::nn::{self, Backbone, Classifier, Encoder, EncoderConfig, Linear, Precision, Route};
use crate::probe::Probe;
use crate::random;
use crate::run::{Model, layout};
use crate::session::Context;
use crate::train::{self, Checkpoint, Loss, Objective, Plan, Resume, Sittings, Step};

/// Everything that a method learns from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// Training images, with labels where the data has them.
    pub train: &'a Split,
    /// Number of classes.
    pub classes: usize,
    /// Pseudo-labels; empty unless [`Method::clustered`].
    pub pseudo_labels: &'a PseudoLabels,
    /// The encoder that [`Method::source`] names.
    pub source: Option<&'a Model>,
    /// The weights that the training begins at; random ones without it.
    pub start: Option<Start<'a>>,
    /// Architecture of the encoder to make.
    pub encoder: &'a EncoderConfig,
    /// Threat model.
    pub ball: Ball,
}

/// The result of a method.
pub struct Trained {
    /// The encoder and the heads that it was trained with.
    pub backbone: Backbone,
    /// The classifier of a supervised method.
    pub linear: Option<Linear>,
}

impl From<Backbone> for Trained {
    fn from(backbone: Backbone) -> Self {
        Self {
            backbone,
            linear: None,
        }
    }
}

impl From<Classifier> for Trained {
    fn from(trained: Classifier) -> Self {
        Self {
            backbone: Backbone::without_heads(trained.encoder),
            linear: Some(trained.linear),
        }
    }
}

/// Name and files of a method in a run.
#[derive(Clone, Copy)]
pub struct Stage<'a> {
    /// The method's name in the recipe, which is also its stage in logs.
    pub name: &'a str,
    /// Folder of the checkpoints.
    pub folder: &'a Path,
    /// Checkpoints that the training continues.
    pub resume: Resume<'a>,
    /// Longest time between two checkpoints within an epoch.
    pub interval: Duration,
}

/// Trainer of the parts of a method, each with a checkpoint in the method's folder.
pub struct Trainer<'a, 'b> {
    /// Name and files of the method.
    pub stage: Stage<'a>,
    /// Data, encoders and threat model for the method.
    pub inputs: Inputs<'a>,
    /// A probe of the encoder after some of the epochs.
    pub probe: Option<Probe<'a>>,
    /// Device, seed, stop flag and event observer.
    pub context: &'a mut Context<'b>,
    sittings: Sittings,
}

impl<'a, 'b> Trainer<'a, 'b> {
    /// A trainer without a probe.
    pub fn new(stage: Stage<'a>, inputs: Inputs<'a>, context: &'a mut Context<'b>) -> Self {
        Self {
            stage,
            inputs,
            probe: None,
            context,
            sittings: Sittings::default(),
        }
    }

    /// Seconds and arithmetic of the training so far, of all sittings together.
    pub fn sittings(&self) -> &Sittings {
        &self.sittings
    }

    /// Does work beside [`Trainer::fit`] that counts as training time.
    pub fn timed<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let started = Instant::now();
        let result = work(self);
        self.sittings.seconds += started.elapsed().as_secs_f64();
        result
    }

    /// The encoder that `method` learns from, held against what the method needs of it.
    ///
    /// # Errors
    /// Those of [`Method::check_source`].
    ///
    /// # Panics
    /// Where [`Method::source`] names one and the inputs have none.
    pub fn source(&self, method: &impl Method) -> Result<&'a Model> {
        let source = self.inputs.source.expect("the method names a source");
        let check = Check::new("").within("pretrain", self.stage.name);
        method.check_source(&SourceInfo::of(&source.info), self.inputs.encoder, &check)?;
        Ok(source)
    }

    /// The device of the method's tensors.
    pub fn device(&self) -> &Device {
        &self.context.device
    }

    /// The generator of random weights.
    fn init(&self) -> ChaCha8Rng {
        random::generator(self.context.seed, &format!("{}/init", self.stage.name), 0)
    }

    /// A backbone to train: heads of random weights, `clusters` the numbers of pseudo-classes, and an encoder of random
    /// weights or of those that the training begins at.
    pub fn fresh_backbone(&self, routes: usize, clusters: &[usize]) -> Backbone {
        let (inputs, device) = (&self.inputs, self.device());
        let (config, channels) = (inputs.encoder, inputs.train.images.channels);
        let random = Backbone::new(config, channels, routes, clusters, &mut self.init(), device);
        match &inputs.start {
            Some(start) => Backbone {
                encoder: start.encoder(routes),
                ..random
            },
            None => random,
        }
    }

    /// A linear classifier of random weights, and an encoder of random weights or of those that the training begins at.
    pub fn fresh_classifier(&self) -> Classifier {
        let (inputs, device, mut rng) = (&self.inputs, self.device(), self.init());
        let (config, channels) = (inputs.encoder, inputs.train.images.channels);
        let random = Encoder::new(config, channels, 1, &mut rng, device);
        Classifier {
            encoder: inputs.start.map_or(random, |start| start.encoder(1)),
            linear: Linear::new(config.features(), inputs.classes, &mut rng, device),
            route: Route::Normal,
        }
    }

    /// Trains a fresh backbone by one objective, which is all that most methods without labels do.
    ///
    /// # Errors
    /// Those of [`train::fit`].
    pub fn train_backbone(
        &mut self,
        method: &impl Method,
        clusters: &[usize],
        objective: &impl Objective<Model = Backbone>,
    ) -> Result<Trained> {
        let fresh = self.fresh_backbone(method.routes(), clusters);
        Ok(self.fit("", objective, method.plan(), fresh)?.into())
    }

    /// Trains a fresh encoder and its classifier together with all labels, which is what every
    /// supervised method does.
    ///
    /// # Errors
    /// Those of [`train::fit`].
    pub fn train_classifier(
        &mut self,
        plan: &Plan,
        weak: &Weak,
        criterion: Criterion,
    ) -> Result<Trained> {
        let Inputs {
            train,
            classes,
            ball,
            ..
        } = self.inputs;
        let (images, labels, weak) = (&train.images, &train.labels, Some(weak.clone()));
        let objective = EndToEnd {
            task: Task::new(images, labels, classes, weak, ball, self.device()),
            criterion,
        };
        let fresh = self.fresh_classifier();
        Ok(self.fit("", &objective, plan, fresh)?.into())
    }

    /// Trains `fresh`, or continues from the checkpoint of this part where there is one. A method
    /// that has one part names it "".
    ///
    /// # Errors
    /// Those of [`train::fit`].
    pub fn fit<O>(
        &mut self,
        part: &str,
        objective: &O,
        plan: &Plan,
        fresh: O::Model,
    ) -> Result<O::Model>
    where
        O: Objective,
        O::Model: HasEncoder,
    {
        let (name, file) = layout::part(self.stage.name, part);
        let checkpoint = Checkpoint {
            path: &self.stage.folder.join(file),
            resume: self.stage.resume,
            interval: self.stage.interval,
        };
        let start = self.inputs.start;
        let pulled = Pulled {
            objective,
            start: start.as_ref().and_then(Start::held),
        };
        let objective = Probed {
            objective: &pulled,
            probe: self.probe,
        };
        let (images, context) = (self.inputs.train.images.len(), &mut *self.context);
        let precision = context.precision;
        let note = match precision {
            _ if nn::multiplies_bf16(&context.device, precision) => {
                Some("convolutions multiply bf16 and sum in f32")
            }
            Precision::Bf16 => Some("nothing multiplies bf16 here: convolutions are f32"),
            Precision::F32 | Precision::Auto => None,
        };
        if let Some(text) = note {
            context.note(&name, text);
        }
        let (model, sittings) = nn::with_precision(precision, || {
            train::fit(&name, &objective, fresh, plan, images, checkpoint, context)
        })?;
        self.sittings.seconds += sittings.seconds;
        for way in sittings.arithmetic {
            if !self.sittings.arithmetic.contains(&way) {
                self.sittings.arithmetic.push(way);
            }
        }
        Ok(model)
    }
}

/// A model that is trained in pretraining, and the encoder in it that a probe looks at.
pub trait HasEncoder {
    /// The encoder that downstream tasks get; none for a classifier on a frozen encoder.
    fn encoder(&self) -> Option<&Encoder>;
}

impl HasEncoder for Backbone {
    fn encoder(&self) -> Option<&Encoder> {
        Some(&self.encoder)
    }
}

impl HasEncoder for Classifier {
    fn encoder(&self) -> Option<&Encoder> {
        Some(&self.encoder)
    }
}

impl HasEncoder for Linear {
    fn encoder(&self) -> Option<&Encoder> {
        None
    }
}

/// An objective whose encoder is probed after some of the epochs.
struct Probed<'a, O> {
    objective: &'a O,
    probe: Option<Probe<'a>>,
}

impl<O> Objective for Probed<'_, O>
where
    O: Objective,
    O::Model: HasEncoder,
{
    type Model = O::Model;

    fn loss(&self, step: Step<O::Model>) -> Loss {
        self.objective.loss(step)
    }

    fn before_update(&self, model: O::Model) -> O::Model {
        self.objective.before_update(model)
    }

    fn encodes(&self) -> bool {
        self.objective.encodes()
    }

    fn after_epoch(
        &self,
        stage: &str,
        model: &O::Model,
        epoch: usize,
        context: &mut Context,
    ) -> Result<Vec<(&'static str, f32)>> {
        match (&self.probe, model.encoder()) {
            (Some(probe), Some(encoder)) => probe.after_epoch(stage, encoder, epoch, context),
            _ => Ok(Vec::new()),
        }
    }
}
