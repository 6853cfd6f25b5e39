//! Adversarial training (Madry, Makelov, Schmidt, Tsipras, Vladu: "Towards Deep Learning Models
//! Resistant to Adversarial Attacks", ICLR 2018) with the labels of all training images: the upper
//! bound that methods without labels are compared with.
//!
//! A saddle point (equation 2.1): the weights minimize the mean over the images of the largest
//! cross-entropy that an attacker finds in the ball around each. PGD solves the inner problem, SGD
//! the outer one, on adversarial images only. Encoder and classifier are trained together, so there
//! is nothing to finetune.
//!
//! Unlike in the released code, forward passes of the attack do not change the running statistics:
//! these follow the images that are trained on, once a step.

use serde::{Deserialize, Serialize};

use super::{Method, Trained, Trainer};
use crate::check::Check;
use crate::criterion::Criterion;
use crate::data::augment::Weak;
use crate::error::Result;
use crate::pixels::Pixels;
use crate::train::Plan;

/// Keys of a table `[pretrain.adversarial-training]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdversarialTrainingSettings {
    /// Epochs, batch size and optimizer.
    pub plan: Plan,
    /// Gradient steps of the attack; 7 in the paper, 10 in its released code.
    pub attack_steps: usize,
    /// Step size of the attack, in pixels; a quarter of the radius by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// Augmentation of the images before the attack: a crop and a flip.
    #[serde(default)]
    pub weak: Weak,
}

impl Method for AdversarialTrainingSettings {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn check(&self, check: &Check) -> Result<()> {
        check.at_least_one("attack_steps", self.attack_steps)?;
        check.views("weak", self.weak.check())
    }

    fn supervised(&self) -> bool {
        true
    }

    fn passes(&self) -> usize {
        1
    }

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let criterion = Criterion::Pgd {
            steps: self.attack_steps,
            step_size: self.attack_step_size.clone(),
        };
        trainer.train_classifier(&self.plan, &self.weak, criterion)
    }
}
