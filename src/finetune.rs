//! From an encoder to a classifier. A mode is data: what trains, by which loss, on which labels.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::check::Check;
use crate::criterion::{Criterion, Task};
use crate::data::Images;
use crate::error::Result;
use crate::loss::soft_cross_entropy;
use crate::nn::{Classifier, Encoder, FrozenEncoder, Linear, Route};
use crate::session::Context;
use crate::tables::{self, Registered, Tables};
use crate::tensor::{label_tensor, to_tensor};
use crate::train::{Loss, Objective, Plan, Step};

/// What a mode changes of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trains {
    /// The linear classifier; the encoder is frozen, in evaluation mode.
    Head,
    /// Encoder and classifier.
    Everything,
}

/// A mode by its name: what it does unless its table says otherwise.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Mode {
    /// As written in recipes and on the command line.
    pub name: &'static str,
    /// As written in tables for people.
    pub title: &'static str,
    /// A line.
    pub about: &'static str,
    trains: Trains,
    #[serde(skip)]
    loss: fn() -> Criterion,
    labels: f64,
    soft_labels: bool,
}

fn pgd10() -> Criterion {
    Criterion::Pgd {
        steps: 10,
        step_size: None,
    }
}

fn trades6() -> Criterion {
    Criterion::Trades {
        beta: 6.0,
        steps: 10,
        step_size: None,
    }
}

/// The name of standard linear finetuning.
pub const SLF: &str = "slf";
/// The name of adversarial full finetuning.
pub const AFF: &str = "aff";

/// The modes, cheapest first.
pub const MODES: &[Mode] = &[
    Mode {
        name: SLF,
        title: "SLF",
        about: "standard linear: the head, on clean images",
        trains: Trains::Head,
        loss: || Criterion::Standard,
        labels: 1.0,
        soft_labels: false,
    },
    Mode {
        name: "alf",
        title: "ALF",
        about: "adversarial linear: the head, on PGD-10 images",
        trains: Trains::Head,
        loss: pgd10,
        labels: 1.0,
        soft_labels: false,
    },
    Mode {
        name: "standard-full",
        title: "standard full",
        about: "everything, on clean images",
        trains: Trains::Everything,
        loss: || Criterion::Standard,
        labels: 1.0,
        soft_labels: false,
    },
    Mode {
        name: AFF,
        title: "AFF",
        about: "adversarial full: everything, by TRADES (or PGD: loss = { pgd = { steps = 10 } })",
        trains: Trains::Everything,
        loss: trades6,
        labels: 1.0,
        soft_labels: false,
    },
    Mode {
        name: "semi-supervised",
        title: "semi-supervised",
        about: "everything, by TRADES, on a tenth of the labels and on soft labels for the other images",
        trains: Trains::Everything,
        loss: trades6,
        labels: 0.1,
        soft_labels: true,
    },
];

/// A table below `[finetune]`. What is left out is the mode's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long and how fast.
    pub plan: Plan,
    /// Random crops and flips. Without them, and without an attack, the features of a frozen encoder are computed
    /// once.
    #[serde(default)]
    pub augment: bool,
    /// What trains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trains: Option<Trains>,
    /// By which loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Criterion>,
    /// This share of the labels is used, the same of each class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<f64>,
    /// Whether images without a label are used too, labeled softly by a standard full finetuning on those with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_labels: Option<bool>,
}

impl Registered for Settings {
    const WHAT: &'static str = "finetuning mode";
    const PARENT: &'static str = "finetune";
    const OPTION: &'static str = "mode";

    fn registry() -> impl Iterator<Item = (&'static str, &'static str)> {
        MODES.iter().map(|mode| (mode.name, mode.title))
    }

    fn read<'de, D: Deserializer<'de>>(_: &'static str, table: D) -> Result<Self, D::Error> {
        Self::deserialize(table)
    }
}

/// The tables below `[finetune]`, cheapest mode first.
pub type Finetune = Tables<Settings>;

/// A mode as a recipe has it.
pub type Entry = tables::Entry<Settings>;

/// A table's name as written for people: "SLF", "AFF (pgd)"; "end to end" where none was finetuned.
pub fn title(name: &str) -> String {
    tables::title::<Settings>(name).unwrap_or_else(|| name.replace('-', " "))
}

impl Entry {
    fn mode(&self) -> &'static Mode {
        let mut modes = MODES.iter();
        modes
            .find(|mode| mode.name == self.base())
            .expect("the registry's")
    }

    /// What trains.
    pub fn trains(&self) -> Trains {
        self.settings.trains.unwrap_or(self.mode().trains)
    }

    /// By which loss.
    pub fn loss(&self) -> Criterion {
        let usual = self.mode().loss;
        self.settings.loss.clone().unwrap_or_else(usual)
    }

    /// The share of the labels that is used.
    pub fn labels(&self) -> f64 {
        self.settings.labels.unwrap_or(self.mode().labels)
    }

    /// Whether images without a label are used too.
    pub fn soft_labels(&self) -> bool {
        self.settings.soft_labels.unwrap_or(self.mode().soft_labels)
    }

    /// Refuses settings that cannot be.
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe).
    pub fn check(&self, check: &Check) -> Result<()> {
        check.plan("plan", &self.settings.plan)?;
        self.loss().check("loss", check)?;
        let labels = self.labels();
        if !(labels > 0.0 && labels <= 1.0) {
            let problem = format!("expected a share above 0, up to 1, found {labels}");
            return check.refuse("labels", problem, "0.1 is a tenth of the labels");
        }
        if self.soft_labels() && self.trains() == Trains::Head {
            let problem = "images without a label are used where everything trains";
            let hint = "leave soft_labels out, or set trains = \"everything\"";
            return check.refuse("soft_labels", problem, hint);
        }
        Ok(())
    }
}

/// Features of all images, in evaluation mode. `[images, features]`, on the context's device.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) when asked to stop.
pub fn features(
    stage: &str,
    encoder: &Encoder,
    route: Route,
    images: &Images,
    batch_size: usize,
    context: &mut Context,
) -> Result<Tensor<2>> {
    let encoder = FrozenEncoder::new(encoder, route);
    let indices: Vec<usize> = (0..images.len()).collect();
    let mut features = Vec::new();
    let mut done = 0;
    for chunk in indices.chunks(batch_size) {
        let batch = to_tensor(images.batch(chunk), &context.device);
        features.push(encoder.features(batch));
        done += chunk.len();
        context.progress(&format!("{stage}/features"), done, images.len(), "images")?;
    }
    Ok(Tensor::cat(features, 0))
}

/// What a classifier says of all images, as probabilities. `[images, classes]`, on the context's device.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) when asked to stop.
pub fn soft_labels(
    stage: &str,
    classifier: &Classifier,
    images: &Images,
    batch_size: usize,
    context: &mut Context,
) -> Result<Tensor<2>> {
    let (encoder, route) = (&classifier.encoder, classifier.route);
    let features = features(stage, encoder, route, images, batch_size, context)?;
    Ok(softmax(classifier.linear.forward(features), 1))
}

/// The objective of a linear classifier on a frozen encoder. The encoder is no part of what is trained, so neither its
/// weights nor its statistics can move.
pub struct HeadOnly<'a> {
    encoder: FrozenEncoder,
    task: Task<'a>,
    criterion: Criterion,
    /// Of the images that are used, where nothing about them changes.
    cached: Option<Tensor<2>>,
}

impl<'a> HeadOnly<'a> {
    /// With `cached`, the [`features`] of the images that are used, these are what the classifier sees; without, the
    /// features of each batch are computed.
    pub fn new(
        encoder: &Encoder,
        route: Route,
        task: Task<'a>,
        criterion: Criterion,
        cached: Option<Tensor<2>>,
    ) -> Self {
        Self {
            encoder: FrozenEncoder::new(encoder, route),
            task,
            criterion,
            cached,
        }
    }
}

impl Objective for HeadOnly<'_> {
    type Model = Linear;

    fn loss(&self, step: Step<Linear>) -> Loss {
        if let Some(all) = &self.cached {
            let device: Device = all.device();
            let features = all.clone().select(0, label_tensor(step.indices, &device));
            let targets = self.task.targets_of(step.indices);
            return Loss {
                total: soft_cross_entropy(step.tracked.forward(features), targets),
                parts: Vec::new(),
            };
        }
        let batch = self.task.batch(step.indices, step.rng);
        let detached = |x| step.detached.forward(self.encoder.features(x));
        let tracked = |x| step.tracked.forward(self.encoder.features(x));
        (self.criterion).loss(detached, tracked, batch, self.task.ball, step.rng)
    }
}
