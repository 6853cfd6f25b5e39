//! AdvCL+, our own form of AdvCL: AdvCL's pseudo-labels in DynACL's two streams.
//!
//! Two strong views of every image, weaker from period to period, and a moving average of the network for the second of
//! them, as in DynACL (Luo, Wang, Wang, ICLR 2023; [`super::dynacl`]): the clean pair on the BatchNorm route `normal`, the
//! attacked pair on `pgd`. The attacked first view is also classified into AdvCL's clusters (Fan et al., NeurIPS 2021,
//! equation 5). Its one perturbation raises the weighted contrastive loss and the weighted cluster term together, where
//! AdvCL makes one for each term: there is no further attack and no further forward pass, and a step costs what DynACL's
//! does.
//!
//! loss = (1 − λ(1 − s))/2 · contrastive(clean) + (1 + λ(1 − s))/2 · contrastive(attacked)
//!        + w · cross-entropy(clusters of the attacked first view)
//!
//! With w = 0 it is DynACL. RESULTS.md has the trials behind it and what they do not show.

use serde::{Deserialize, Serialize};

use super::dynacl::{DynAcl, DynAclSettings, released_momentum, released_strong, two_thirds};
use super::{Method, Trained, Trainer};
use crate::check::Check;
use crate::data::augment::Strong;
use crate::error::Result;
use crate::nn::Route;
use crate::pixels::Pixels;
use crate::train::Plan;

/// Keys of a table `[pretrain."advcl+"]`: those of DynACL, and those of the pseudo-labels.
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
    /// Epochs between two strengths of the augmentation, K.
    pub period: usize,
    /// Growth of the adversarial term's weight until the end, λ; 2/3 by default.
    #[serde(default = "two_thirds")]
    pub reweighting: f64,
    /// Share of the moving average that remains at each step; 0.99 by default.
    #[serde(default = "released_momentum")]
    pub average_momentum: f64,
    /// Gradient steps of the attack.
    pub attack_steps: usize,
    /// Step size of the attack, in pixels; a quarter of the radius by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// Augmentation of both views at full strength.
    #[serde(default = "released_strong")]
    pub strong: Strong,
}

impl AdvClPlusSettings {
    /// The two streams without the pseudo-labels.
    fn streams(&self) -> DynAclSettings {
        DynAclSettings {
            plan: self.plan.clone(),
            temperature: self.temperature,
            period: self.period,
            reweighting: self.reweighting,
            average_momentum: self.average_momentum,
            attack_steps: self.attack_steps,
            attack_step_size: self.attack_step_size.clone(),
            strong: self.strong.clone(),
        }
    }
}

impl Method for AdvClPlusSettings {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn check(&self, check: &Check) -> Result<()> {
        self.streams().check(check)?;
        check.in_range("cluster_weight", self.cluster_weight, 0.0, 1e6)?;
        if self.clusters == Some(Vec::new()) {
            let hint = "without pseudo-labels this is DynACL: a table [pretrain.dynacl]";
            return check.refuse("clusters", "expected a number or more, found none", hint);
        }
        Ok(())
    }

    fn without_effect(&self) -> Option<(&'static str, String)> {
        self.streams().without_effect()
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

    // Strength of the augmentation and weights of the terms depend on the fraction of epochs done.
    fn depends_on_epochs(&self) -> bool {
        true
    }

    // The average's are not kept.
    fn passes(&self) -> usize {
        2
    }

    // Those that are attacked together.
    fn stacked(&self) -> usize {
        2
    }

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let inputs = trainer.inputs;
        let labels = match &self.clusters {
            Some(counts) => &inputs.pseudo_labels.only(counts),
            None => inputs.pseudo_labels,
        };
        let streams = self.streams();
        let objective = DynAcl::new(&streams, labels, self.cluster_weight, inputs);
        objective.train(self.routes(), trainer)
    }
}
