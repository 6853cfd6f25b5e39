//! ACL, adversarial contrastive learning (Jiang, Chen, Chen, Wang: "Robust Pre-Training by
//! Adversarial Contrastive Learning", NeurIPS 2020).
//!
//! Two strong views of every image. In the dual stream (section 3.2, the paper's best) the loss is
//! the mean of two contrastive losses: that of the clean views, on the BatchNorm route `normal`,
//! and that of both views attacked together, on `pgd`.
//!
//! As in the released code, the network is in evaluation mode during the attack, and both views of
//! a stream share a batch. Departures: the contrastive loss has AdvCL's scale (temperature / 0.07,
//! which the learning rate can compensate), and the projection head is the one that all methods
//! here share (features – BatchNorm – ReLU – 128, one BatchNorm for both streams), whereas ACL's
//! keeps 512 values and has one for each.

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

/// Pairs of views that the contrastive loss pulls together.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Streams {
    /// Clean with clean views, and adversarial with adversarial ones: the paper's "DS".
    #[default]
    Dual,
    /// Adversarial with adversarial views only: "A2A".
    AdversarialAdversarial,
    /// Adversarial with clean views: "A2S".
    AdversarialStandard,
}

/// Keys of a table `[pretrain.acl]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AclSettings {
    /// Epochs, batch size and optimizer.
    pub plan: Plan,
    /// Temperature of the contrastive loss.
    pub temperature: f64,
    /// Pairs of views that are contrasted; the dual stream by default.
    #[serde(default)]
    pub streams: Streams,
    /// Gradient steps of the attack.
    pub attack_steps: usize,
    /// Step size of the attack, in pixels; a quarter of the radius by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// Augmentation of both views.
    #[serde(default)]
    pub strong: Strong,
}

impl Method for AclSettings {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn check(&self, check: &Check) -> Result<()> {
        check.in_range("temperature", self.temperature, 0.01, 100.0)?;
        check.at_least_one("attack_steps", self.attack_steps)?;
        check.views("strong", self.strong.check())
    }

    fn routes(&self) -> usize {
        2
    }

    fn route(&self) -> Route {
        Route::Pgd
    }

    fn passes(&self) -> usize {
        match self.streams {
            Streams::AdversarialStandard | Streams::AdversarialAdversarial => 2,
            Streams::Dual => 4,
        }
    }

    fn stacked(&self) -> usize {
        match self.streams {
            Streams::AdversarialStandard => 1,
            Streams::Dual | Streams::AdversarialAdversarial => 2,
        }
    }

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let (inputs, step_size) = (trainer.inputs, self.attack_step_size.as_ref());
        let objective = Acl {
            images: &inputs.train.images,
            settings: self,
            attack: ViewAttack::new(inputs.ball, self.attack_steps, step_size),
        };
        trainer.train_backbone(self, &[], &objective)
    }
}

/// Objective: the mean of both streams' contrastive losses.
struct Acl<'a> {
    images: &'a Images,
    settings: &'a AclSettings,
    attack: ViewAttack,
}

impl Objective for Acl<'_> {
    type Model = Backbone;

    fn loss(&self, step: Step<Backbone>) -> Loss {
        let (settings, own) = (self.settings, step.own());
        let mut view = || {
            let (strong, own) = (&settings.strong, own.clone());
            let view = strong.apply_at(own, self.images, step.indices, step.rng);
            to_tensor(view, step.device)
        };
        let views = [view(), view()];
        let (temperature, shards) = (settings.temperature, step.shards());
        let mut mode = Mode::Train(step.statistics);

        if settings.streams == Streams::AdversarialStandard {
            let [first, second] = views;
            let clean = frozen_features(step.detached, Route::Normal);
            let project = |z| step.detached.project(z, &mut Mode::Eval);
            let target = project(shards.map(second.clone(), clean));
            let fixed = FixedViews::new(vec![target], temperature);
            let features = frozen_features(step.detached, Route::Pgd);
            let gradient = shards.gradient_of(features, |z| fixed.contrastive(project(z)));
            let attacked = self.attack.maximize(gradient, &first, step.rng);
            let [adversarial, one] = step.tracked.forward(attacked, Route::Pgd, &mut mode);
            let [clean, other] = (step.tracked).forward(second.clone(), Route::Normal, &mut mode);
            step.seen.add(&first, [adversarial]);
            step.seen.add(&second, [clean]);
            return Loss {
                total: contrastive(vec![one, other], temperature),
                parts: Vec::new(),
            };
        }
        let both = Tensor::cat(views.to_vec(), 0);
        // BatchNorm does not mix images in evaluation mode, so both views can be one batch.
        let features = frozen_features(step.detached, Route::Pgd);
        let gradient = shards.gradient_of(features, joint_loss(step.detached, temperature));
        let attacked = self.attack.maximize(gradient, &both, step.rng);
        // Both views of a stream are one batch, so that BatchNorm's statistics are of both.
        let mut stream = |both, route| {
            let [features, projections] = step.tracked.forward(both, route, &mut mode);
            (features, contrastive(projections.chunk(2, 0), temperature))
        };
        let (adversarial_features, adversarial) = stream(attacked, Route::Pgd);
        if settings.streams == Streams::AdversarialAdversarial {
            step.seen.add(&both, [adversarial_features]);
            return Loss {
                total: adversarial,
                parts: Vec::new(),
            };
        }
        let (clean_features, clean) = stream(both.clone(), Route::Normal);
        step.seen.add(&both, [adversarial_features, clean_features]);
        Loss {
            total: (clean.clone() + adversarial.clone()) / 2.0,
            parts: vec![("clean", clean), ("adversarial", adversarial)],
        }
    }
}

/// The contrastive loss of the features of two views, concatenated along the batch, in evaluation mode.
pub(crate) fn joint_loss(model: &Backbone, temperature: f64) -> impl Fn(Tensor<2>) -> Tensor<1> {
    move |both| {
        let projections = model.project(both, &mut Mode::Eval);
        contrastive(projections.chunk(2, 0), temperature)
    }
}
