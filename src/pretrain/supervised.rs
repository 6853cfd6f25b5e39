//! Standard supervised training with the labels of all training images: accurate, but not robust.

use serde::{Deserialize, Serialize};

use super::{Method, Trained, Trainer};
use crate::check::Check;
use crate::criterion::Criterion;
use crate::data::augment::Weak;
use crate::error::Result;
use crate::train::Plan;

/// Keys of a table `[pretrain.supervised]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SupervisedSettings {
    /// Epochs, batch size and optimizer.
    pub plan: Plan,
    /// Augmentation: a crop and a flip.
    #[serde(default)]
    pub weak: Weak,
}

impl Method for SupervisedSettings {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn check(&self, check: &Check) -> Result<()> {
        check.views("weak", self.weak.check())
    }

    fn supervised(&self) -> bool {
        true
    }

    fn attacks(&self) -> bool {
        false
    }

    fn passes(&self) -> usize {
        1
    }

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        trainer.train_classifier(&self.plan, &self.weak, Criterion::Standard)
    }
}
