//! Adversarial training (Madry, Makelov, Schmidt, Tsipras, Vladu: "Towards Deep Learning Models Resistant to
//! Adversarial Attacks", ICLR 2018), with the labels of all training images: the ceiling that methods without
//! labels are held against.
//!
//! A saddle point (equation 2.1): the weights minimize the mean over the images of the largest cross-entropy that
//! an attacker finds in the ball around each. PGD does the inner part, SGD the outer one, on the attacked images
//! alone. Encoder and classifier are trained together, so nothing is left to finetune.
//!
//! Unlike in the released code, the attack's passes leave the running statistics alone: they follow the
//! images that are trained on, once a step.

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
    /// Of the attack: 7 in the paper, 10 in its released code.
    pub attack_steps: usize,
    /// Of the attack, in pixels; a quarter of the radius where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// What is attacked: a crop and a flip, as in finetuning.
    #[serde(default)]
    pub weak: Weak,
}

impl Method for Settings {
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

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let criterion = Criterion::Pgd {
            steps: self.attack_steps,
            step_size: self.attack_step_size.clone(),
        };
        trainer.train_classifier(&self.plan, &self.weak, criterion)
    }
}
