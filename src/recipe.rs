//! Typed recipes: what changes the numbers of a run. Read, overridden, checked once, never changed after.

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::attack::{Ball, Norm};
use crate::cluster;
use crate::data::Dataset;
use crate::error::{Error, Result, nearest};
use crate::nn::{EncoderConfig, Route};
use crate::pixels::Pixels;
use crate::pretrain::{advcl, simclr};
use crate::train::{Plan, Schedule};

/// The recipes inside the binary: name, one line about it, text.
pub const SHIPPED: [(&str, &str, &str); 4] = [
    (
        "quickstart",
        "embedded Fashion-MNIST: SimCLR and AdvCL side by side, minutes on two cores",
        include_str!("../recipes/quickstart.toml"),
    ),
    (
        "smoke",
        "the same steps in seconds, to see that everything works; its numbers mean nothing",
        include_str!("../recipes/smoke.toml"),
    ),
    (
        "cifar10-12k-cpu",
        "colour on a laptop: 12,000 CIFAR-10 images, a small ResNet, hours on two cores",
        include_str!("../recipes/cifar10-12k-cpu.toml"),
    ),
    (
        "cifar10-advcl",
        "the paper's setting: CIFAR-10, ResNet-18, batch 512, 1000 epochs; wants a GPU",
        include_str!("../recipes/cifar10-advcl.toml"),
    ),
];

/// Everything that decides a run's numbers, with the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Of all random numbers.
    pub seed: u64,
    /// Which images.
    pub data: Data,
    /// The network.
    pub encoder: EncoderConfig,
    /// What an attacker may do, in pretraining and evaluation.
    pub threat: Threat,
    /// The encoders to make.
    pub pretrain: Pretrain,
    /// Pseudo-labels for AdvCL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<cluster::Settings>,
    /// The classifier on a frozen encoder.
    pub finetune: Finetune,
    /// The final figures.
    pub evaluate: Evaluate,
}

/// Which images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The name of the embedded set, or a path.
    pub source: String,
    /// Use only so many training images, the same share of each class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// This share of the training images is kept out of training, to choose settings on.
    #[serde(default)]
    pub holdout: f64,
    /// Evaluate on so many images of the split, the same share of each class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
}

/// What an attacker may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threat {
    /// How a perturbation is measured.
    pub norm: Norm,
    /// ε, in pixels.
    pub radius: Pixels,
}

impl Threat {
    /// The ball.
    pub fn ball(&self) -> Ball {
        Ball {
            norm: self.norm,
            radius: self.radius.value(),
        }
    }
}

/// The encoders to make: each method that has a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pretrain {
    /// The standard encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simclr: Option<simclr::Settings>,
    /// The robust encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advcl: Option<advcl::Settings>,
}

/// A pretraining method: the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// [`simclr`].
    Simclr,
    /// [`advcl`].
    Advcl,
}

impl Method {
    /// All methods, in the order in which a run makes them: later ones may use earlier ones' features.
    pub const ALL: [Self; 2] = [Self::Simclr, Self::Advcl];

    /// As written in recipes and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simclr => "simclr",
            Self::Advcl => "advcl",
        }
    }

    /// As written in tables for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Simclr => "SimCLR",
            Self::Advcl => "AdvCL",
        }
    }

    /// How many BatchNorm branches its encoder has.
    pub fn routes(self) -> usize {
        match self {
            Self::Simclr => 1,
            Self::Advcl => Route::ALL.len(),
        }
    }

    /// The BatchNorm branch that downstream tasks use.
    pub fn route(self) -> Route {
        match self {
            Self::Simclr => Route::Normal,
            Self::Advcl => Route::Pgd,
        }
    }
}

impl std::str::FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|method| method.name() == name)
            .ok_or_else(|| {
                let hint = nearest(name, Self::ALL.map(Self::name));
                Error::recipe("method", format!("no pretraining method {name:?}"), hint)
            })
    }
}

/// Standard linear finetuning (SLF): a linear classifier on the frozen encoder, on clean images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finetune {
    /// How long and how fast.
    pub plan: Plan,
    /// Random crops and flips. Without them the features are computed once.
    #[serde(default)]
    pub augment: bool,
}

/// The final figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// `test`, or `holdout` while settings are being chosen.
    pub split: SplitName,
    /// Images at a time.
    pub batch_size: usize,
    /// Of PGD.
    pub steps: usize,
    /// Of PGD, in pixels.
    pub step_size: Pixels,
}

/// Which images are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitName {
    /// The test set.
    Test,
    /// The part of the training set that was kept out (`data.holdout`).
    Holdout,
}

impl Recipe {
    /// A shipped recipe by name, or one from a file; `overrides` are `KEY = VALUE` texts, applied in order.
    ///
    /// # Errors
    /// [`Error::Recipe`] with file, line and column; [`Error::Io`].
    pub fn load(name: &str, overrides: &[String]) -> Result<Self> {
        let (place, text) = Self::source(name)?;
        Self::parse(&place, &text, overrides)
    }

    /// Where a recipe stands and its text.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn source(name: &str) -> Result<(String, String)> {
        if let Some((name, _, text)) = SHIPPED.iter().find(|(shipped, ..)| *shipped == name) {
            return Ok((format!("{name} (shipped)"), (*text).to_owned()));
        }
        let path = Path::new(name);
        if !path.exists() && !name.contains(['/', '\\', '.']) {
            let hint = nearest(name, SHIPPED.map(|(name, ..)| name));
            return Err(Error::recipe(
                name,
                "no shipped recipe of this name, and no such file",
                hint,
            ));
        }
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Ok((name.to_owned(), text))
    }

    /// A recipe from its text; `place` is for messages.
    ///
    /// # Errors
    /// [`Error::Recipe`] with line and column.
    pub fn parse(place: &str, text: &str, overrides: &[String]) -> Result<Self> {
        let at = |error: toml::de::Error, text: &str, place: &str| {
            let offset = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = &text[..offset];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            let problem = error.message().trim().replace('\n', "; ");
            Error::recipe(
                format!("{place}, line {line}, column {column}"),
                problem,
                "`advcl recipe show quickstart` prints a recipe with every key",
            )
        };
        // Read once without overrides, so that errors have a line and a column.
        let as_written: Self = toml::from_str(text).map_err(|error| at(error, text, place))?;
        if overrides.is_empty() {
            as_written.check(place)?;
            return Ok(as_written);
        }
        let mut table: Table = toml::from_str(text).map_err(|error| at(error, text, place))?;
        for line in overrides {
            let place = format!("--set {line:?}");
            let change: Table = toml::from_str(line).map_err(|error| at(error, line, &place))?;
            merge(&mut table, change.clone());
            // Checked one by one, so that the error names the override at fault.
            if let Err(error) = Value::Table(table.clone()).try_into::<Self>() {
                let key = error.message().trim().replace('\n', "; ");
                let hint = "keys are written in full, values as in TOML: --set 'pretrain.advcl.plan.epochs = 5'";
                return Err(Error::recipe(place, key, hint));
            }
        }
        let recipe: Self = Value::Table(table)
            .try_into()
            .map_err(|error: toml::de::Error| Error::recipe(place, error.message(), ""))?;
        recipe.check(place)?;
        Ok(recipe)
    }

    /// The recipe as a file's text, every key written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables of plain values")
    }

    /// The methods that the recipe has a table for, in order.
    pub fn methods(&self) -> Vec<Method> {
        let there = |method: &Method| match method {
            Method::Simclr => self.pretrain.simclr.is_some(),
            Method::Advcl => self.pretrain.advcl.is_some(),
        };
        Method::ALL.into_iter().filter(there).collect()
    }

    /// The numbers of clusters.
    pub fn cluster_counts(&self) -> &[usize] {
        self.cluster.as_ref().map_or(&[], |cluster| &cluster.counts)
    }

    /// What can be known to be impossible before any data is read.
    fn check(&self, place: &str) -> Result<()> {
        let refuse = |key: &str, problem: String, hint: &str| {
            Err(Error::recipe(format!("{place}, {key}"), problem, hint))
        };
        let in_range = |key: &str, value: f64, low: f64, high: f64| {
            if value >= low && value <= high {
                return Ok(());
            }
            refuse(
                key,
                format!("expected a number from {low} to {high}, found {value}"),
                "",
            )
        };
        if self.encoder.width == 0 || self.encoder.width > 1024 {
            let found = self.encoder.width;
            return refuse(
                "encoder.width",
                format!("expected 1 to 1024 channels, found {found}"),
                "",
            );
        }
        in_range("data.holdout", self.data.holdout, 0.0, 0.9)?;
        if self.evaluate.split == SplitName::Holdout && self.data.holdout == 0.0 {
            let problem = "holdout images are to be evaluated, but none are held out".to_owned();
            return refuse("evaluate.split", problem, "set data.holdout to 0.2, say");
        }
        if self.methods().is_empty() {
            let problem = "no method to pretrain with".to_owned();
            return refuse(
                "pretrain",
                problem,
                "add a table [pretrain.simclr] or [pretrain.advcl]",
            );
        }
        if let Some(simclr) = &self.pretrain.simclr {
            check_plan(place, "pretrain.simclr", &simclr.plan)?;
            in_range(
                "pretrain.simclr.temperature",
                simclr.temperature,
                0.01,
                100.0,
            )?;
            check_views(place, "pretrain.simclr.strong", simclr.strong.check())?;
        }
        if let Some(advcl) = &self.pretrain.advcl {
            check_plan(place, "pretrain.advcl", &advcl.plan)?;
            in_range("pretrain.advcl.temperature", advcl.temperature, 0.01, 100.0)?;
            in_range(
                "pretrain.advcl.cluster_weight",
                advcl.cluster_weight,
                0.0,
                1e6,
            )?;
            let radius = f64::from(advcl.high_frequency_radius);
            in_range("pretrain.advcl.high_frequency_radius", radius, 0.0, 1e6)?;
            check_views(place, "pretrain.advcl.strong", advcl.strong.check())?;
            check_views(place, "pretrain.advcl.weak", advcl.weak.check())?;
            match &self.cluster {
                None => {
                    let hint = "add a table [cluster]; counts = [] trains without pseudo-labels";
                    return refuse("cluster", "AdvCL needs pseudo-labels".to_owned(), hint);
                }
                Some(cluster)
                    if cluster.labels_file.is_none() && self.pretrain.simclr.is_none() =>
                {
                    let problem =
                        "no features to cluster: there is no [pretrain.simclr]".to_owned();
                    return refuse("cluster", problem, "add it, or name a cluster.labels_file");
                }
                Some(_) => {}
            }
        }
        if let Some(cluster) = &self.cluster {
            let mut sorted = cluster.counts.clone();
            sorted.sort_unstable();
            sorted.dedup();
            if sorted.len() != cluster.counts.len() || sorted.first().is_some_and(|&k| k < 2) {
                let problem = format!(
                    "expected different numbers, 2 or more, found {:?}",
                    cluster.counts
                );
                return refuse("cluster.counts", problem, "");
            }
        }
        check_plan(place, "finetune", &self.finetune.plan)?;
        if self.evaluate.batch_size == 0 {
            return refuse(
                "evaluate.batch_size",
                "expected 1 or more, found 0".to_owned(),
                "",
            );
        }
        Ok(())
    }

    /// What is impossible with this data set.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the key.
    pub fn check_data(&self, data: &Dataset) -> Result<()> {
        let images = data.train.images.len();
        let plans = [
            (
                "pretrain.simclr",
                self.pretrain.simclr.as_ref().map(|s| &s.plan),
            ),
            (
                "pretrain.advcl",
                self.pretrain.advcl.as_ref().map(|s| &s.plan),
            ),
            ("finetune", Some(&self.finetune.plan)),
        ];
        for (key, plan) in plans {
            if let Some(plan) = plan.filter(|plan| plan.batch_size > images) {
                let batch = plan.batch_size;
                let problem =
                    format!("a batch of {batch} is larger than the {images} training images");
                let hint = format!(
                    "--set '{key}.plan.batch_size = {}'",
                    images.min(batch / 2).max(2)
                );
                return Err(Error::recipe(
                    format!("{key}.plan.batch_size"),
                    problem,
                    hint,
                ));
            }
        }
        if let Some(count) = self.cluster_counts().iter().find(|count| **count > images) {
            let problem = format!("{count} clusters of only {images} training images");
            return Err(Error::recipe(
                "cluster.counts",
                problem,
                "leave the largest numbers out",
            ));
        }
        Ok(())
    }
}

fn check_views(place: &str, key: &str, outcome: Result<(), String>) -> Result<()> {
    outcome.map_err(|problem| Error::recipe(format!("{place}, {key}"), problem, ""))
}

fn check_plan(place: &str, key: &str, plan: &Plan) -> Result<()> {
    let refuse = |name: &str, problem: String| {
        Err(Error::recipe(
            format!("{place}, {key}.plan.{name}"),
            problem,
            "",
        ))
    };
    if plan.epochs == 0 {
        return refuse("epochs", "expected 1 or more, found 0".to_owned());
    }
    if plan.batch_size < 2 {
        // BatchNorm has no variance, and the contrastive loss no negatives, in a batch of one.
        return refuse(
            "batch_size",
            format!("expected 2 or more, found {}", plan.batch_size),
        );
    }
    for (name, value, high) in [
        ("lr", plan.lr, 1e3),
        ("momentum", plan.momentum, 1.0),
        ("weight_decay", plan.weight_decay, 1.0),
    ] {
        if !(value >= 0.0 && value <= high) {
            return refuse(
                name,
                format!("expected a number from 0 to {high}, found {value}"),
            );
        }
    }
    match &plan.schedule {
        Schedule::Cosine { warmup_epochs, .. } if *warmup_epochs > plan.epochs => {
            let problem = format!("{warmup_epochs} warm-up epochs of {} epochs", plan.epochs);
            refuse("schedule.cosine.warmup_epochs", problem)
        }
        _ => Ok(()),
    }
}

/// Puts `change` over `table`, table by table.
fn merge(table: &mut Table, change: Table) {
    for (key, value) in change {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(change)) => merge(inner, change),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}
