//! SimCLR (Chen et al., ICML 2020): two strong views, no attack. The standard encoder that robust ones are held
//! against, and the source of pseudo-labels.

use serde::{Deserialize, Serialize};

use super::{Method, Trained, Trainer};
use crate::check::Check;
use crate::data::Images;
use crate::data::augment::Strong;
use crate::error::Result;
use crate::loss::contrastive;
use crate::nn::{Backbone, Mode, Route};
use crate::tensor::to_tensor;
use crate::train::{Loss, Objective, Plan, Step};

/// What a recipe says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long and how fast.
    pub plan: Plan,
    /// Of the contrastive loss.
    pub temperature: f64,
    /// Both views.
    #[serde(default)]
    pub strong: Strong,
}

impl Method for Settings {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn check(&self, check: &Check) -> Result<()> {
        check.in_range("temperature", self.temperature, 0.01, 100.0)?;
        check.views("strong", self.strong.check())
    }

    fn attacks(&self) -> bool {
        false
    }

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let objective = SimClr {
            images: &trainer.inputs.train.images,
            settings: self,
        };
        trainer.train_backbone(self, &[], &objective)
    }
}

/// The objective.
pub struct SimClr<'a> {
    /// Unlabeled.
    pub images: &'a Images,
    /// The recipe's.
    pub settings: &'a Settings,
}

impl Objective for SimClr<'_> {
    type Model = Backbone;

    fn loss(&self, step: Step<Backbone>) -> Loss {
        let mut mode = Mode::Train(step.statistics);
        let mut embed = || {
            let view = self
                .settings
                .strong
                .apply(self.images, step.indices, step.rng);
            step.tracked
                .embed(to_tensor(view, step.device), Route::Normal, &mut mode)
        };
        let total = contrastive(vec![embed(), embed()], self.settings.temperature);
        Loss {
            total,
            parts: Vec::new(),
        }
    }
}
