//! TRADES (Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan: "Theoretically Principled Trade-off between Robustness and
//! Accuracy", ICML 2019), with the labels of all training images: the other ceiling.
//!
//! Equation 5: cross-entropy on the images as they are, and β times the divergence of what is said of attacked ones; the
//! attack climbs that divergence. As in the released code the attack begins at Gaussian noise of deviation 0.001
//! beside the image and sees the network in evaluation mode.

use serde::{Deserialize, Serialize};

use super::{Method, Trained, Trainer};
use crate::check::Check;
use crate::criterion::Criterion;
use crate::data::augment::Weak;
use crate::error::Result;
use crate::pixels::Pixels;
use crate::train::Plan;

/// What a recipe says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long and how fast.
    pub plan: Plan,
    /// Weight of the divergence, the paper's 1/λ: 6 in most of its tables.
    pub beta: f64,
    /// Of the attack: 10 in the paper.
    pub attack_steps: usize,
    /// Of the attack, in pixels; a quarter of the radius where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// What is attacked: a crop and a flip.
    #[serde(default)]
    pub weak: Weak,
}

impl Method for Settings {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn check(&self, check: &Check) -> Result<()> {
        check.at_least_one("attack_steps", self.attack_steps)?;
        check.in_range("beta", self.beta, 0.0, 1e6)?;
        check.views("weak", self.weak.check())
    }

    fn supervised(&self) -> bool {
        true
    }

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let criterion = Criterion::Trades {
            beta: self.beta,
            steps: self.attack_steps,
            step_size: self.attack_step_size.clone(),
        };
        trainer.train_classifier(&self.plan, &self.weak, criterion)
    }
}
