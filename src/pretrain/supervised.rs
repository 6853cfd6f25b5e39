//! Standard supervised training, with the labels of all training images: what is accurate and falls to any attack.

use serde::{Deserialize, Serialize};

use super::{Method, Trained, Trainer};
use crate::check::Check;
use crate::criterion::Criterion;
use crate::data::augment::Weak;
use crate::error::Result;
use crate::train::Plan;

/// What a recipe says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long and how fast.
    pub plan: Plan,
    /// What is seen: a crop and a flip.
    #[serde(default)]
    pub weak: Weak,
}

impl Method for Settings {
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

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        trainer.train_classifier(&self.plan, &self.weak, Criterion::Standard)
    }
}
