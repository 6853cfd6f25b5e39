//! SimCLR (Chen, Kornblith, Norouzi, Hinton: "A Simple Framework for Contrastive Learning of Visual
//! Representations", ICML 2020): two strong views, no attack.
//!
//! It makes the standard encoder that robust ones are compared with, and whose features give the
//! pseudo-labels.

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

// The book shows what is between ANCHORs: docs/book/src/adding-a-method.md.
// ANCHOR: settings
/// Keys of a table `[pretrain.simclr]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SimClrSettings {
    /// Epochs, batch size and optimizer.
    pub plan: Plan,
    /// Temperature of the contrastive loss.
    pub temperature: f64,
    /// Augmentation of both views.
    #[serde(default)]
    pub strong: Strong,
}
// ANCHOR_END: settings

// ANCHOR: method
impl Method for SimClrSettings {
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

    fn passes(&self) -> usize {
        2
    }

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let objective = SimClr {
            images: &trainer.inputs.train.images,
            settings: self,
        };
        trainer.train_backbone(self, &[], &objective)
    }
}
// ANCHOR_END: method

// ANCHOR: objective
/// Objective: the contrastive loss of two views.
pub struct SimClr<'a> {
    /// Training images.
    pub images: &'a Images,
    /// Settings of the method.
    pub settings: &'a SimClrSettings,
}

impl Objective for SimClr<'_> {
    type Model = Backbone;

    fn loss(&self, step: Step<Backbone>) -> Loss {
        let own = step.own();
        let mut mode = Mode::Train(step.statistics);
        let mut embed = || {
            let strong = &self.settings.strong;
            let view = strong.apply_at(own.clone(), self.images, step.indices, step.rng);
            let view = to_tensor(view, step.device);
            let [features, projections] =
                step.tracked.forward(view.clone(), Route::Normal, &mut mode);
            step.seen.add(&view, [features]);
            projections
        };
        let total = contrastive(vec![embed(), embed()], self.settings.temperature);
        Loss {
            total,
            parts: Vec::new(),
        }
    }
}
// ANCHOR_END: objective
