//! Checkpoints: weights, statistics, velocities and position, in one safetensors file.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::sgd::{Sgd, ids};
use crate::error::{Error, Result, first_difference};
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
}

impl Position {
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
        let text = metadata.get(METADATA);
        text.and_then(|text| serde_json::from_str(text).ok())
            .ok_or_else(|| {
                let found = "none that this version understands";
                Error::format(path, "metadata", format!("an {METADATA} entry"), found)
            })
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
}

const METADATA: &str = "advcl_checkpoint";

impl<'a> Checkpoint<'a> {
    /// Checkpoint that continues what has the same dependencies, and refuses anything else.
    pub fn new(path: &'a Path, recipe: &'a str) -> Self {
        let resume = Resume {
            recipe,
            continues: None,
            replaces: false,
        };
        Self { path, resume }
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
            tensors.insert(format!("model.{name}"), (shape, to_vec(values)));
        });
        for (name, id) in ids(model) {
            if let Some(velocity) = sgd.velocity.get(&id) {
                let values = to_vec(velocity.clone());
                tensors.insert(format!("velocity.{name}"), (vec![values.len()], values));
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
        let position = serde_json::to_string(position).expect("a plain struct");
        weights::save(self.path, &tensors, &[(METADATA, position)])
    }

    /// Saved state, where there is one.
    pub(super) fn load<M: Module>(
        &self,
        model: M,
        sgd: &mut Sgd,
        wanted: &mut Position,
    ) -> Result<M> {
        if !self.path.exists() {
            return Ok(model);
        }
        let (mut tensors, metadata) = weights::load(self.path)?;
        let mut position = Position::parse(self.path, &metadata)?;
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
        position.recipe.clone_from(&wanted.recipe);
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
        let (mut values, velocities) = (part("model."), part("velocity."));
        let model = weights::import(model, &mut values, &[], self.path)?;
        let ids = ids(&model);
        for (name, (shape, values)) in velocities {
            let id = ids.get(&name).ok_or_else(|| {
                Error::model(
                    self.path,
                    format!("velocity of unknown tensor {name}"),
                    hint,
                )
            })?;
            let device = model.devices()[0].clone();
            let velocity = Tensor::from_data(TensorData::new(values, [shape[0]]), &device);
            sgd.velocity.insert(*id, velocity);
        }
        *wanted = position;
        Ok(model)
    }
}
