//! Finetuning: from an encoder to a classifier. A mode is data: what it trains, with which loss, on
//! which labels.

mod class_weights;
mod solver;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::check::Check;
use crate::criterion::{Criterion, Task};
use crate::data::Images;
use crate::error::{Error, Result};
use crate::loss::soft_cross_entropy;
use crate::nn::{Classifier, Encoder, FrozenEncoder, Linear, Route};
use crate::ranks;
use crate::session::Context;
use crate::tables::{self, Registered, Tables};
use crate::tensor::{label_tensor, rows_of_all_ranks, to_tensor, to_vec};
use crate::train::{Loss, Objective, Plan, Step};

pub use class_weights::ClassWeights;
pub use solver::{Solver, closed};

/// Images whose features are checked at a time.
const CHECKED: usize = 1 << 12;

/// The part of the model that a mode trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trains {
    /// The linear classifier on a frozen encoder in evaluation mode.
    Head,
    /// Encoder and classifier.
    Everything,
}

/// A mode by its name, with the settings that its tables have by default.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FinetuneMode {
    /// Name in recipes and on the command line.
    pub name: &'static str,
    /// Name in tables for people.
    pub title: &'static str,
    /// One-line description.
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

/// All modes, cheapest first.
pub const MODES: &[FinetuneMode] = &[
    FinetuneMode {
        name: SLF,
        title: "SLF",
        about: "standard linear: the head, on clean images",
        trains: Trains::Head,
        loss: || Criterion::Standard,
        labels: 1.0,
        soft_labels: false,
    },
    FinetuneMode {
        name: "alf",
        title: "ALF",
        about: "adversarial linear: the head, on PGD-10 images",
        trains: Trains::Head,
        loss: pgd10,
        labels: 1.0,
        soft_labels: false,
    },
    FinetuneMode {
        name: "standard-full",
        title: "standard full",
        about: "everything, on clean images",
        trains: Trains::Everything,
        loss: || Criterion::Standard,
        labels: 1.0,
        soft_labels: false,
    },
    FinetuneMode {
        name: AFF,
        title: "AFF",
        about: "adversarial full: everything, by TRADES (or PGD: loss = { pgd = { steps = 10 } })",
        trains: Trains::Everything,
        loss: trades6,
        labels: 1.0,
        soft_labels: false,
    },
    FinetuneMode {
        name: "semi-supervised",
        title: "semi-supervised",
        about: "everything, by TRADES, on a tenth of the labels and on soft labels for the other images",
        trains: Trains::Everything,
        loss: trades6,
        labels: 0.1,
        soft_labels: true,
    },
];

/// Keys of a table below `[finetune]`; the mode's own settings are the defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FinetuneSettings {
    /// Epochs, batch size and optimizer; only the solver "lbfgs" does without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Whether images are randomly cropped and flipped. Without that and without an attack, the
    /// features of a frozen encoder are computed once.
    #[serde(default)]
    pub augment: bool,
    /// Part of the model that is trained; the mode's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trains: Option<Trains>,
    /// Loss; the mode's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Criterion>,
    /// Share of the labels that is used, equal for all classes; the mode's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<f64>,
    /// Whether images without a label are used too, with soft labels by a standard full finetuning
    /// on the labeled ones; the mode's choice by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_labels: Option<bool>,
    /// Weights of the classes in the cross-entropy with the labels, for unequal numbers of images.
    #[serde(default, skip_serializing_if = "ClassWeights::is_none")]
    pub class_weights: ClassWeights,
    /// Way to the linear classifier on clean images: by a plan of steps, or to the minimum at once.
    #[serde(default, skip_serializing_if = "Solver::is_sgd")]
    pub solver: Solver,
}

impl Registered for FinetuneSettings {
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
pub type Finetune = Tables<FinetuneSettings>;

/// A table below `[finetune]`: a mode, or one of several variants of it.
pub type Entry = tables::Entry<FinetuneSettings>;

/// A table's name as written for people, "AFF (pgd)"; "end to end" for a classifier that was not
/// finetuned.
pub fn title(name: &str) -> String {
    tables::title::<FinetuneSettings>(name).unwrap_or_else(|| name.replace('-', " "))
}

impl Entry {
    fn mode(&self) -> &'static FinetuneMode {
        let mut modes = MODES.iter();
        modes
            .find(|mode| mode.name == self.base())
            .expect("the base is one of the registry's names")
    }

    /// The part of the model that is trained.
    pub fn trains(&self) -> Trains {
        self.settings.trains.unwrap_or(self.mode().trains)
    }

    /// The loss.
    pub fn loss(&self) -> Criterion {
        let usual = self.mode().loss;
        self.settings.loss.clone().unwrap_or_else(usual)
    }

    /// Whether images pass the encoder in every step: those of a frozen one that are neither cropped nor attacked pass it once, before.
    pub fn encodes(&self) -> bool {
        self.trains() == Trains::Everything || self.settings.augment || self.loss().attacks()
    }

    /// Share of the labels that is used.
    pub fn labels(&self) -> f64 {
        self.settings.labels.unwrap_or(self.mode().labels)
    }

    /// Whether images without a label are used too.
    pub fn soft_labels(&self) -> bool {
        self.settings.soft_labels.unwrap_or(self.mode().soft_labels)
    }

    /// Refuses impossible settings.
    ///
    /// # Errors
    /// [`Error::Recipe`].
    pub fn check(&self, check: &Check) -> Result<()> {
        match &self.settings.plan {
            Some(plan) => check.plan("plan", plan)?,
            None if self.settings.solver.is_sgd() => {
                let hint = "such as plan = { epochs = 25, batch_size = 256, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }";
                return check.refuse("plan", "missing", hint);
            }
            None => {}
        }
        self.check_solver(check)?;
        self.loss().check("loss", check)?;
        let labels = self.labels();
        if !(labels > 0.0 && labels <= 1.0) {
            let problem = format!("expected a share above 0, up to 1, found {labels}");
            return check.refuse("labels", problem, "0.1 is a tenth of the labels");
        }
        if self.soft_labels() && self.trains() == Trains::Head {
            let problem = "images without a label are used only where everything trains";
            let hint = "leave soft_labels out, or set trains = \"everything\"";
            return check.refuse("soft_labels", problem, hint);
        }
        if self.soft_labels() && !self.settings.class_weights.is_none() {
            let problem = "images without a label are used, which have no class to weigh";
            let hint = "leave class_weights out, or set soft_labels = false";
            return check.refuse("class_weights", problem, hint);
        }
        Ok(())
    }

    /// Refuses the solver "lbfgs" for what it cannot fit.
    fn check_solver(&self, check: &Check) -> Result<()> {
        if self.settings.solver.is_sgd() {
            return Ok(());
        }
        if self.trains() != Trains::Head || self.loss().attacks() {
            let problem = "\"lbfgs\" fits a linear classifier on a frozen encoder and clean images";
            return check.refuse("solver", problem, "leave solver out, or use slf");
        }
        if self.settings.augment {
            let problem = "\"lbfgs\" fits the images as they are, without crops and flips";
            return check.refuse("solver", problem, "leave augment out, or solver");
        }
        Ok(())
    }
}

/// Computes the features of all images in evaluation mode, `[images, features]`, on the context's
/// device.
///
/// # Errors
/// As [`require_finite`]; [`Error::Interrupted`] when asked to stop.
pub fn features(
    stage: &str,
    encoder: &Encoder,
    route: Route,
    images: &Images,
    batch_size: usize,
    context: &mut Context,
) -> Result<Tensor<2>> {
    let encoder = FrozenEncoder::new(encoder, route);
    let indices: Vec<usize> = ranks::own_batches(images.len(), batch_size).collect();
    let mut features = Vec::new();
    let mut done = 0;
    for chunk in indices.chunks(batch_size) {
        let batch = to_tensor(images.batch(chunk), &context.device);
        features.push(encoder.features(batch));
        done = (done + chunk.len() * ranks::count()).min(images.len());
        context.progress(&format!("{stage}/features"), done, images.len(), "images")?;
    }
    let features = rows_of_all_ranks(features, &context.device);
    for start in (0..images.len()).step_by(CHECKED) {
        let count = CHECKED.min(images.len() - start);
        let rows = to_vec(features.clone().narrow(0, start, count));
        require_finite(stage, &rows, count, |row| {
            let path = images.path(start + row);
            path.map_or_else(
                || format!("image {}", start + row),
                |path| path.display().to_string(),
            )
        })?;
    }
    Ok(features)
}

/// Refuses features of `images` images, row-major, that are not finite numbers. `name` gives an image's name by its row.
///
/// # Errors
/// [`Error::Features`].
pub fn require_finite(
    stage: &str,
    features: &[f32],
    images: usize,
    name: impl Fn(usize) -> String,
) -> Result<()> {
    match features.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Features {
            stage: stage.to_owned(),
            image: name(at / (features.len() / images)),
            value: features[at],
        }),
    }
}

/// Computes a classifier's probabilities for all images, `[images, classes]`, on the context's
/// device.
///
/// # Errors
/// As [`features`].
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

/// Objective of a linear classifier on a frozen encoder. The encoder is not part of the trained
/// model, so neither its weights nor its statistics can change.
pub struct HeadOnly<'a> {
    encoder: FrozenEncoder,
    task: Task<'a>,
    criterion: Criterion,
    /// Features of the images that are used, if these are the same in every epoch.
    cached: Option<Tensor<2>>,
}

impl<'a> HeadOnly<'a> {
    /// Trains on the features `cached` of the images that are used, see [`features`]; without
    /// these, computes the features of each batch.
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

    fn encodes(&self) -> bool {
        self.cached.is_none()
    }

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
        let batch = self.task.batch(step.indices, step.own(), step.rng);
        let shards = step.shards();
        let features = |x| self.encoder.features(x);
        let detached = |x| step.detached.forward(features(x));
        let tracked = |x| step.tracked.forward(shards.map(x, features));
        let within = (self.task.ball, shards);
        (self.criterion).loss(detached, tracked, batch, within, step.rng)
    }
}
