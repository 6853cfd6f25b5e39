//! Checkpoints: weights, statistics, velocities and position, in one safetensors file.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::Loss;
use super::gradients::ids;
use super::sgd::{Plan, Sgd};
use crate::error::{Error, Result, first_difference};
use crate::session::Event;
use crate::tensor::to_vec;
use crate::weights::{self, Tensors};

/// Progress of a training; the metadata of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Stage of the run.
    pub stage: String,
    /// Epochs that are done.
    pub epoch: usize,
    /// Steps of the next epoch that are done.
    pub step: usize,
    /// Everything that the weights depend on, as TOML.
    pub recipe: String,
    /// Seconds of training so far, over all sittings.
    pub seconds: f64,
    /// Format of the file.
    #[serde(default)]
    pub format: usize,
    /// Sums of the loss and its parts over the steps of the next epoch that are done.
    #[serde(default)]
    pub sums: Vec<(String, f32)>,
    /// The last epoch that is done, for the log.
    #[serde(default)]
    pub last: Option<LastEpoch>,
    /// Number of velocities in the file.
    #[serde(default)]
    pub velocities: Option<usize>,
    /// Ways in which it was computed so far, in their order; see [`crate::nn::arithmetic`].
    #[serde(default)]
    pub arithmetic: Vec<String>,
}

/// Format of the checkpoints that this version writes. Those of before there was a number have none of the
/// fields with a default.
const FORMAT: usize = 1;

/// Figures of an epoch that was saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastEpoch {
    /// Means of the loss and its parts over the epoch's steps.
    pub losses: Vec<(String, f32)>,
    /// Learning rate of its last step.
    pub lr: f64,
    /// Seconds (since the last resume).
    pub seconds: f64,
    /// Images a second (since the last resume).
    pub images_per_second: f64,
}

impl LastEpoch {
    /// The epoch's event.
    pub(super) fn event(
        &self,
        stage: &str,
        epoch: usize,
        plan: &Plan,
        images: usize,
        figures: Vec<(&'static str, f32)>,
    ) -> Event {
        Event::Epoch {
            stage: stage.to_owned(),
            epoch,
            epochs: plan.epochs,
            losses: self.losses.clone(),
            figures,
            lr: self.lr,
            seconds: self.seconds,
            images_per_second: self.images_per_second,
            images: images / plan.batch_size * plan.batch_size,
        }
    }
}

impl Position {
    /// The beginning of a training.
    pub fn new(stage: &str, recipe: &str) -> Self {
        Self {
            stage: stage.to_owned(),
            epoch: 0,
            step: 0,
            recipe: recipe.to_owned(),
            seconds: 0.0,
            format: FORMAT,
            sums: Vec::new(),
            last: None,
            velocities: None,
            arithmetic: Vec::new(),
        }
    }

    /// Number of epochs of which a step is done.
    pub fn begun_epochs(&self) -> usize {
        self.epoch.saturating_add(usize::from(self.step > 0))
    }

    /// Adds a step's loss, read from the device in one go; returns its total, or the first part not finite.
    pub(super) fn add(&mut self, loss: Loss) -> Result<f32, (&'static str, f32)> {
        let (mut names, mut tensors): (Vec<_>, Vec<_>) = loss.parts.into_iter().unzip();
        names.push("loss");
        tensors.push(loss.total);
        let tensors = tensors.into_iter().map(Tensor::inner).collect();
        let values = to_vec(Tensor::cat(tensors, 0));
        if !names.iter().eq(self.sums.iter().map(|(name, _)| name)) {
            self.sums = names.iter().map(|name| ((*name).to_owned(), 0.0)).collect();
        }
        for ((name, value), (_, sum)) in names.into_iter().zip(&values).zip(&mut self.sums) {
            if !value.is_finite() {
                return Err((name, *value));
            }
            *sum += value;
        }
        Ok(*values.last().expect("the total was pushed"))
    }

    /// Means over an epoch of so many steps; the sums of the next epoch are zero.
    pub(super) fn take_means(&mut self, steps: usize) -> Vec<(String, f32)> {
        let sums = std::mem::take(&mut self.sums).into_iter();
        sums.map(|(name, sum)| (name, sum / steps as f32)).collect()
    }

    /// Progress that a checkpoint file has; none where there is no file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`].
    pub fn load(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        Self::parse(path, &weights::load_metadata(path)?).map(Some)
    }

    fn parse(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Self> {
        let wrong =
            |found: String| Error::format(path, "metadata", format!("an {METADATA} entry"), found);
        let text = metadata.get(METADATA);
        let text = text.ok_or_else(|| wrong("none".to_owned()))?;
        let found: Self = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if found.format > FORMAT {
            let expected = format!("format {FORMAT} or less");
            let found = found.format.to_string();
            return Err(Error::format(path, "metadata", expected, found));
        }
        let is_time = |seconds: f64| seconds.is_finite() && seconds >= 0.0;
        if !is_time(found.seconds) {
            let seconds = found.seconds.to_string();
            return Err(Error::format(
                path,
                "metadata, seconds",
                "0 or more",
                seconds,
            ));
        }
        Ok(found)
    }
}

/// Checkpoints that a training continues.
#[derive(Clone, Copy)]
pub struct Resume<'a> {
    /// Everything that the weights depend on, as TOML: a checkpoint of the same text is continued.
    pub recipe: &'a str,
    /// Another text whose checkpoints are continued too: a shorter training that did the same so far.
    pub continues: Option<&'a str>,
    /// Whether a checkpoint of any other text is passed over, and replaced in time; it is refused
    /// otherwise.
    pub replaces: bool,
}

/// Checkpoint file of a training: weights, statistics, velocities and position.
#[derive(Clone, Copy)]
pub struct Checkpoint<'a> {
    /// The file.
    pub path: &'a Path,
    /// Which content is continued.
    pub resume: Resume<'a>,
    /// Longest time between two checkpoints within an epoch.
    pub interval: Duration,
}

const METADATA: &str = "advcl_checkpoint";
/// Beginning of the names of weights and statistics.
const MODEL: &str = "model.";
/// Beginning of the names of velocities.
const VELOCITY: &str = "velocity.";

impl<'a> Checkpoint<'a> {
    /// Checkpoint that continues what has the same dependencies, and refuses anything else; saved between
    /// epochs.
    pub fn new(path: &'a Path, recipe: &'a str) -> Self {
        let resume = Resume {
            recipe,
            continues: None,
            replaces: false,
        };
        Self {
            path,
            resume,
            interval: Duration::MAX,
        }
    }

    /// Saves; [`Error::Diverged`] for weights that are not finite, and nothing is written.
    pub(super) fn save<M: Module>(
        &self,
        model: &M,
        sgd: &Sgd,
        position: &Position,
        steps: usize,
    ) -> Result<()> {
        let mut tensors = Tensors::new();
        weights::visit(model, |name, shape, values| {
            tensors.insert(format!("{MODEL}{name}"), (shape, to_vec(values)));
        });
        for (name, id) in ids(model) {
            if let Some(velocity) = sgd.velocity.get(&id) {
                let values = to_vec(velocity.clone());
                tensors.insert(format!("{VELOCITY}{name}"), (vec![values.len()], values));
            }
        }
        // A loss may be finite while the update that it led to is not: such weights replace no good ones.
        for (name, (_, values)) in &tensors {
            if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                let (epoch, step) = match position.step {
                    0 => (position.epoch, steps),
                    step => (position.epoch + 1, step),
                };
                return Err(Error::Diverged {
                    stage: position.stage.clone(),
                    part: name.clone(),
                    value,
                    at: format!("epoch {epoch}, step {step}"),
                });
            }
        }
        let velocities = tensors.keys().filter(|name| name.starts_with(VELOCITY));
        let position = Position {
            velocities: Some(velocities.count()),
            ..position.clone()
        };
        let position = serde_json::to_string(&position).expect("a plain struct");
        weights::save(self.path, &tensors, &[(METADATA, position)])
    }

    /// Saved state, where there is one, of a training of so many epochs with so many steps each.
    pub(super) fn load<M: Module>(
        &self,
        model: M,
        sgd: &mut Sgd,
        wanted: &mut Position,
        [epochs, steps]: [usize; 2],
    ) -> Result<M> {
        if !self.path.exists() {
            return Ok(model);
        }
        let (mut tensors, metadata) = weights::load(self.path)?;
        let mut position = Position::parse(self.path, &metadata)?;
        require_consistent(&tensors, &position, self.path)?;
        let same = position.stage == wanted.stage
            && (position.recipe == wanted.recipe
                || self.resume.continues == Some(&position.recipe));
        if !same && self.resume.replaces {
            return Ok(model);
        }
        let hint = "it belongs to another training: train in another folder";
        if position.stage != wanted.stage {
            let (wanted, found) = (&wanted.stage, &position.stage);
            let problem = format!("expected a checkpoint of {wanted}, found one of {found}");
            return Err(Error::model(self.path, problem, hint));
        }
        if !same {
            let difference = first_difference(&position.recipe, &wanted.recipe);
            let problem = format!("a checkpoint of another recipe ({difference})");
            return Err(Error::model(self.path, problem, hint));
        }
        // A place that this training never comes to: what is there would pass as a finished one.
        let place = (position.epoch, position.step);
        if position.step >= steps || place > (epochs, 0) {
            let expected = format!("at most {epochs} epochs of {steps} steps each");
            let found = format!("{} whole epochs and {} steps", place.0, place.1);
            return Err(Error::format(self.path, "metadata", expected, found));
        }
        position.recipe.clone_from(&wanted.recipe);
        position.format = FORMAT;
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
        let (mut values, velocities) = (part(MODEL), part(VELOCITY));
        let model = weights::import(model, &mut values, &[], self.path)?;
        if let Some(name) = tensors.keys().next() {
            let problem = format!("tensor {name} is part of no checkpoint");
            return Err(Error::model(self.path, problem, hint));
        }
        let ids = ids(&model);
        for (name, (_, values)) in velocities {
            let Some(id) = ids.get(&name) else {
                let problem = format!("velocity of unknown tensor {name}");
                return Err(Error::model(self.path, problem, hint));
            };
            let device = model.devices()[0].clone();
            let length = values.len();
            let velocity = Tensor::from_data(TensorData::new(values, [length]), &device);
            sgd.velocity.insert(*id, velocity);
        }
        *wanted = position;
        Ok(model)
    }
}

/// Refuses a checkpoint that contradicts itself, whatever training it is of: a velocity without its tensor or of another
/// length, one that is missing, values that are not finite. Such a file was changed or damaged, and is not replaced unasked.
fn require_consistent(tensors: &Tensors, position: &Position, path: &Path) -> Result<()> {
    weights::require_finite(tensors, path)?;
    let mut velocities = 0;
    for (name, (shape, _)) in tensors {
        let Some(of) = name.strip_prefix(VELOCITY) else {
            continue;
        };
        velocities += 1;
        let place = format!("tensor {name}");
        let Some((weight, _)) = tensors.get(&format!("{MODEL}{of}")) else {
            let expected = format!("a tensor {MODEL}{of} beside it");
            return Err(Error::format(path, place, expected, "none"));
        };
        let length: usize = weight.iter().product();
        if *shape != [length] {
            let (expected, found) = (format!("shape [{length}]"), format!("{shape:?}"));
            return Err(Error::format(path, place, expected, found));
        }
    }
    if position.epoch == 0 && position.last.is_some() {
        let (expected, found) = ("no figures before the end of an epoch", "those of one");
        return Err(Error::format(path, "metadata, last", expected, found));
    }
    match position.velocities {
        Some(expected) if expected != velocities => {
            let expected = format!("{expected} tensors {VELOCITY}*");
            Err(Error::format(
                path,
                "tensors",
                expected,
                velocities.to_string(),
            ))
        }
        _ => Ok(()),
    }
}
