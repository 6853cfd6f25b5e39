//! AdvCL+, our own form of AdvCL: AdvCL's pseudo-labels in ACL's two streams.
//!
//! Two strong views of every image, as ACL has them ([`super::acl`], dual stream): the clean pair on the BatchNorm route
//! `normal`, and the pair attacked on `pgd`. The attacked views are also classified into AdvCL's clusters (Fan et al., NeurIPS
//! 2021, equation 5). One perturbation of each view raises half of the contrastive loss and the weighted cluster term together,
//! where AdvCL makes one for each term: there is no further attack and no further forward pass, and a step costs what
//! ACL's does.
//!
//! loss = (contrastive(clean) + contrastive(attacked)) / 2 + w · cross-entropy(clusters of the attacked)
//!
//! With w = 0 it is ACL. RESULTS.md has the trials behind it and what they do not show.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::acl::joint_loss;
use super::advcl::cluster_term;
use super::{Method, Trained, Trainer, ViewAttack, frozen_features};
use crate::check::Check;
use crate::cluster::PseudoLabels;
use crate::data::Images;
use crate::data::augment::Strong;
use crate::error::Result;
use crate::loss::contrastive;
use crate::nn::{Backbone, Mode, Route};
use crate::pixels::Pixels;
use crate::tensor::to_tensor;
use crate::train::{Loss, Objective, Plan, Step};

/// Keys of a table `[pretrain."advcl+"]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdvClPlusSettings {
    /// Epochs, batch size and optimizer.
    pub plan: Plan,
    /// Temperature of the contrastive losses.
    pub temperature: f64,
    /// Weight of the pseudo-label term.
    pub cluster_weight: f64,
    /// Numbers of clusters, of those in `[cluster]`: all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusters: Option<Vec<usize>>,
    /// Gradient steps of the attack.
    pub attack_steps: usize,
    /// Step size of the attack, in pixels; a quarter of the radius by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// Augmentation of both views.
    #[serde(default)]
    pub strong: Strong,
}

impl Method for AdvClPlusSettings {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn check(&self, check: &Check) -> Result<()> {
        check.in_range("temperature", self.temperature, 0.01, 100.0)?;
        check.in_range("cluster_weight", self.cluster_weight, 0.0, 1e6)?;
        if self.clusters == Some(Vec::new()) {
            let hint = "without pseudo-labels this is ACL: a table [pretrain.acl]";
            return check.refuse("clusters", "expected a number or more, found none", hint);
        }
        check.at_least_one("attack_steps", self.attack_steps)?;
        check.views("strong", self.strong.check())
    }

    fn clustered(&self) -> bool {
        true
    }

    fn cluster_counts(&self) -> Option<&[usize]> {
        self.clusters.as_deref()
    }

    fn routes(&self) -> usize {
        2
    }

    fn route(&self) -> Route {
        Route::Pgd
    }

    fn passes(&self) -> usize {
        4
    }

    fn stacked(&self) -> usize {
        2
    }

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let (inputs, step_size) = (trainer.inputs, self.attack_step_size.as_ref());
        let labels = match &self.clusters {
            Some(counts) => &inputs.pseudo_labels.only(counts),
            None => inputs.pseudo_labels,
        };
        let objective = AdvClPlus {
            images: &inputs.train.images,
            settings: self,
            labels,
            attack: ViewAttack::new(inputs.ball, self.attack_steps, step_size),
        };
        trainer.train_backbone(self, &labels.counts(), &objective)
    }
}

/// Objective: the mean of both streams' contrastive losses, and the pseudo-label term.
struct AdvClPlus<'a> {
    images: &'a Images,
    settings: &'a AdvClPlusSettings,
    labels: &'a PseudoLabels,
    attack: ViewAttack,
}

impl Objective for AdvClPlus<'_> {
    type Model = Backbone;

    fn loss(&self, step: Step<Backbone>) -> Loss {
        let (settings, own) = (self.settings, step.own());
        let (temperature, weight) = (settings.temperature, settings.cluster_weight);
        let mut view = || {
            let strong = &settings.strong;
            let view = strong.apply_at(own.clone(), self.images, step.indices, step.rng);
            to_tensor(view, step.device)
        };
        let both = Tensor::cat(vec![view(), view()], 0);
        let labels = self.labels.batch(step.indices, step.device).into_iter();
        let labels: Vec<_> = labels.map(|labels| labels.repeat_dim(0, 2)).collect();

        // BatchNorm does not mix images in evaluation mode, so both views can be one batch.
        let features = frozen_features(step.detached, Route::Pgd);
        let pairs = joint_loss(step.detached, temperature);
        let raised =
            |z: Tensor<2>| cluster_term(step.detached, &z, &labels) * weight + pairs(z) / 2.0;
        let gradient = step.shards().gradient_of(features, raised);
        let attacked = self.attack.maximize(gradient, &both, step.rng);

        // Both views of a stream are one batch, so that BatchNorm's statistics are of both.
        let mut mode = Mode::Train(step.statistics);
        let mut stream = |both, route| {
            let [features, projections] = step.tracked.forward(both, route, &mut mode);
            (features, contrastive(projections.chunk(2, 0), temperature))
        };
        let (attacked, adversarial) = stream(attacked, Route::Pgd);
        let (unattacked, clean) = stream(both.clone(), Route::Normal);
        let cluster = cluster_term(step.tracked, &attacked, &labels);
        step.seen.add(&both, [attacked, unattacked]);
        let pairs = (clean.clone() + adversarial.clone()) / 2.0;
        Loss {
            total: pairs + cluster.clone() * weight,
            parts: vec![
                ("clean", clean),
                ("adversarial", adversarial),
                ("cluster", cluster),
            ],
        }
    }
}
