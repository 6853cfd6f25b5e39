//! RoCL, robust contrastive learning (Kim, Tack, Hwang: "Adversarial Self-Supervised Contrastive
//! Learning", NeurIPS 2020).
//!
//! Two strong views of every image; the first is attacked so that it looks like another image than
//! the second ("instance-wise attack", equation 4). The loss is contrastive over both views and the
//! adversarial one, plus a weighted second contrastive term of the adversarial view and its target
//! alone (equation 7). All views share one BatchNorm.
//!
//! As in the released code, the network is in evaluation mode during the attack, the views of a
//! term share a batch, and the adversarial pair is forwarded again together with the clean view.
//! Departures: gradients are those of the loss, whereas the released code treats one factor of each
//! similarity as a constant (half as long, cosine .9994 at the golden vectors); the contrastive
//! losses have AdvCL's scale; the projection head is the one that all methods here share.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Method, Trained, Trainer, ViewAttack, frozen_features};
use crate::check::Check;
use crate::data::Images;
use crate::data::augment::Strong;
use crate::error::Result;
use crate::loss::{FixedViews, contrastive};
use crate::nn::{Backbone, Mode, Route};
use crate::pixels::Pixels;
use crate::tensor::to_tensor;
use crate::train::{Loss, Objective, Plan, Step};

/// Keys of a table `[pretrain.rocl]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoclSettings {
    /// Epochs, batch size and optimizer.
    pub plan: Plan,
    /// Temperature of the contrastive losses.
    pub temperature: f64,
    /// Weight of the term of the adversarial view and its target, both terms summed over the
    /// positives; by default 1/256, as in the released code.
    #[serde(default = "released_weight")]
    pub target_weight: f64,
    /// Gradient steps of the attack; 7 in the paper.
    pub attack_steps: usize,
    /// Step size of the attack, in pixels; a quarter of the radius by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// Augmentation of both views.
    #[serde(default)]
    pub strong: Strong,
}

fn released_weight() -> f64 {
    1.0 / 256.0
}

impl Method for RoclSettings {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn check(&self, check: &Check) -> Result<()> {
        check.in_range("temperature", self.temperature, 0.01, 100.0)?;
        check.in_range("target_weight", self.target_weight, 0.0, 1e6)?;
        check.at_least_one("attack_steps", self.attack_steps)?;
        check.views("strong", self.strong.check())
    }

    // Two views of the pair, three of the other term.
    fn passes(&self) -> usize {
        5
    }

    fn stacked(&self) -> usize {
        3
    }

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let (inputs, step_size) = (trainer.inputs, self.attack_step_size.as_ref());
        let objective = Rocl {
            images: &inputs.train.images,
            settings: self,
            attack: ViewAttack::new(inputs.ball, self.attack_steps, step_size),
        };
        trainer.train_backbone(self, &[], &objective)
    }
}

/// Objective: both contrastive terms.
struct Rocl<'a> {
    images: &'a Images,
    settings: &'a RoclSettings,
    attack: ViewAttack,
}

impl Objective for Rocl<'_> {
    type Model = Backbone;

    fn loss(&self, step: Step<Backbone>) -> Loss {
        let (settings, own) = (self.settings, step.own());
        let mut view = || {
            let (strong, own) = (&settings.strong, own.clone());
            let view = strong.apply_at(own, self.images, step.indices, step.rng);
            to_tensor(view, step.device)
        };
        let (first, target) = (view(), view());
        let temperature = settings.temperature;
        let shards = step.shards();
        let features = frozen_features(step.detached, Route::Normal);
        let project = |z| step.detached.project(z, &mut Mode::Eval);
        let fixed = project(shards.map(target.clone(), &features));
        let fixed = FixedViews::new(vec![fixed], temperature);
        let gradient = shards.gradient_of(features, |z| fixed.contrastive(project(z)));
        let attacked = self.attack.maximize(gradient, &first, step.rng);

        let mut mode = Mode::Train(step.statistics);
        let mut term = |views: Vec<Tensor<4>>| {
            let (count, views) = (views.len(), Tensor::cat(views, 0));
            let [features, projections] = step.tracked.forward(views, Route::Normal, &mut mode);
            (
                features,
                contrastive(projections.chunk(count, 0), temperature),
            )
        };
        let (_, pair) = term(vec![attacked.clone(), target.clone()]);
        let (features, three) = term(vec![first.clone(), target.clone(), attacked]);
        step.seen.add(
            &Tensor::cat(vec![first.clone(), target, first], 0),
            [features],
        );
        Loss {
            total: released_balance(&three, &pair, settings.target_weight),
            parts: vec![("contrastive", three), ("target", pair)],
        }
    }
}

/// Converts means over the positives to the released code's sums: an anchor has two positives among
/// three views and one in a pair. Both are halved, so that the first term keeps its scale.
pub(crate) fn released_balance(three: &Tensor<1>, pair: &Tensor<1>, weight: f64) -> Tensor<1> {
    three.clone() + pair.clone() * (weight / 2.0)
}
