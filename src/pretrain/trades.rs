//! TRADES (Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan: "Theoretically Principled Trade-off between
//! Robustness and Accuracy", ICML 2019) with the labels of all training images: the other upper
//! bound.
//!
//! The loss is equation 5: cross-entropy on clean images, plus β times the divergence between the
//! predictions on clean and on adversarial images; the attack maximizes that divergence. As in the
//! released code, the attack starts from the image plus Gaussian noise of deviation 0.001, and the
//! network is in evaluation mode during it.

use serde::{Deserialize, Serialize};

use super::{Method, Trained, Trainer};
use crate::check::Check;
use crate::criterion::Criterion;
use crate::data::augment::Weak;
use crate::error::Result;
use crate::pixels::Pixels;
use crate::train::Plan;

/// Keys of a table `[pretrain.trades]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TradesSettings {
    /// Epochs, batch size and optimizer.
    pub plan: Plan,
    /// Weight β of the divergence, the paper's 1/λ; 6 in most of its tables.
    pub beta: f64,
    /// Gradient steps of the attack; 10 in the paper.
    pub attack_steps: usize,
    /// Step size of the attack, in pixels; a quarter of the radius by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// Augmentation of the images before the attack: a crop and a flip.
    #[serde(default)]
    pub weak: Weak,
}

impl Method for TradesSettings {
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

    fn passes(&self) -> usize {
        2
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
