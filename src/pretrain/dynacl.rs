//! DynACL, dynamic adversarial contrastive learning (Luo, Wang, Wang: "Rethinking the Effect of
//! Data Augmentation in Adversarial Contrastive Learning", ICLR 2023).
//!
//! ACL with an annealed strong augmentation: its strength is s(e) = 1 − ⌊e/K⌋·K/E in epoch e of E,
//! with periods of K epochs, until only flips remain. The weight of the adversarial term grows as
//! the views become alike: the terms have the weights (1 ± λ(1 − s))/2. The second view passes
//! through a moving average of the network, in both streams and in the attack; downstream tasks use
//! that average, on the route `pgd`.
//!
//! As in the released code, the average takes the weights from before the step and keeps BatchNorm
//! statistics of its own, and the network is in evaluation mode during the attack. Departures: the
//! terms' weights change together with the augmentation (in the released code one epoch earlier);
//! scale of the loss and projection head as in [`super::acl`].

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::advcl::cluster_term;
use super::{HasEncoder, Inputs, Method, Trained, Trainer, ViewAttack, frozen_features};
use crate::check::Check;
use crate::cluster::PseudoLabels;
use crate::data::Images;
use crate::data::augment::{Jitter, Strong};
use crate::error::Result;
use crate::loss::contrastive;
use crate::nn::{Backbone, Encoder, Mode, Route, moving_average, unshared};
use crate::pixels::Pixels;
use crate::tensor::to_tensor;
use crate::train::{Loss, Objective, Plan, Step};

/// Keys of a table `[pretrain.dynacl]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DynAclSettings {
    /// Epochs, batch size and optimizer.
    pub plan: Plan,
    /// Temperature of the contrastive losses.
    pub temperature: f64,
    /// Epochs between two strengths of the augmentation, K; 50 of 1000 in the paper.
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

pub(super) fn two_thirds() -> f64 {
    2.0 / 3.0
}

pub(super) fn released_momentum() -> f64 {
    0.99
}

impl DynAclSettings {
    /// Strength s(e) of the augmentation, decreasing from 1; `epoch` counts from 0.
    pub fn strength(&self, epoch: usize) -> f64 {
        let whole_periods = epoch / self.period * self.period;
        1.0 - whole_periods as f64 / self.plan.epochs as f64
    }

    /// Weights of the clean and of the adversarial term in an epoch.
    pub fn weights(&self, epoch: usize) -> [f64; 2] {
        let won = self.reweighting * (1.0 - self.strength(epoch));
        [(1.0 - won) / 2.0, (1.0 + won) / 2.0]
    }

    /// The augmentation of an epoch.
    pub fn strong_at(&self, epoch: usize) -> Strong {
        let (s, full) = (self.strength(epoch) as f32, &self.strong);
        Strong {
            scale: (
                full.scale.1 - (full.scale.1 - full.scale.0) * s,
                full.scale.1,
            ),
            jitter: Jitter {
                brightness: full.jitter.brightness * s,
                contrast: full.jitter.contrast * s,
                saturation: full.jitter.saturation * s,
                hue: full.jitter.hue * s,
                probability: full.jitter.probability * s,
            },
            grayscale: full.grayscale * s,
            ..full.clone()
        }
    }
}

/// AdvCL's augmentation with the released code's crops, which are smaller.
pub(super) fn released_strong() -> Strong {
    Strong {
        scale: (0.1, 1.0),
        ..Strong::default()
    }
}

impl Method for DynAclSettings {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn check(&self, check: &Check) -> Result<()> {
        check.in_range("temperature", self.temperature, 0.01, 100.0)?;
        check.at_least_one("period", self.period)?;
        check.in_range("reweighting", self.reweighting, 0.0, 1.0)?;
        check.in_range("average_momentum", self.average_momentum, 0.0, 1.0)?;
        check.at_least_one("attack_steps", self.attack_steps)?;
        check.views("strong", self.strong.check())
    }

    fn without_effect(&self) -> Option<(&'static str, String)> {
        let (period, epochs) = (self.period, self.plan.epochs);
        // A single epoch has full strength whatever the period is.
        if epochs == 1 || period < epochs {
            return None;
        }
        let reason = format!(
            "with a period of {period} and {epochs} epochs the augmentation never weakens; expected less than {epochs}"
        );
        Some(("period", reason))
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
        let none = PseudoLabels::default();
        let objective = DynAcl::new(self, &none, 0.0, trainer.inputs);
        objective.train(self.routes(), trainer)
    }
}

/// A network and the moving average of its weights.
#[derive(Module, Debug)]
pub struct WithAverage {
    /// The network that gradients update.
    pub online: Backbone,
    /// The average of its weights, which gets no gradient.
    pub average: Backbone,
}

impl WithAverage {
    /// Starts the average as a copy of the network that shares no tensors with it.
    pub fn new(online: Backbone) -> Self {
        Self {
            average: unshared(&online),
            online,
        }
    }
}

impl HasEncoder for WithAverage {
    fn encoder(&self) -> Option<&Encoder> {
        self.average.encoder()
    }
}

/// Objective: both streams, weighted by the epoch; and for [`super::advcl_plus`] a term of pseudo-labels.
pub(super) struct DynAcl<'a> {
    images: &'a Images,
    settings: &'a DynAclSettings,
    labels: &'a PseudoLabels,
    cluster_weight: f64,
    attack: ViewAttack,
}

impl<'a> DynAcl<'a> {
    pub(super) fn new(
        settings: &'a DynAclSettings,
        labels: &'a PseudoLabels,
        cluster_weight: f64,
        inputs: Inputs<'a>,
    ) -> Self {
        let step_size = settings.attack_step_size.as_ref();
        Self {
            images: &inputs.train.images,
            settings,
            labels,
            cluster_weight,
            attack: ViewAttack::new(inputs.ball, settings.attack_steps, step_size),
        }
    }

    /// Trains a network; the result is its average.
    pub(super) fn train(&self, routes: usize, trainer: &mut Trainer) -> Result<Trained> {
        let fresh = WithAverage::new(trainer.fresh_backbone(routes, &self.labels.counts()));
        let trained = trainer.fit("", self, &self.settings.plan, fresh)?;
        Ok(trained.average.into())
    }
}

impl Objective for DynAcl<'_> {
    type Model = WithAverage;

    fn loss(&self, step: Step<WithAverage>) -> Loss {
        let (settings, temperature) = (self.settings, self.settings.temperature);
        let (strong, own) = (settings.strong_at(step.epoch), step.own());
        let mut view = || {
            let view = strong.apply_at(own.clone(), self.images, step.indices, step.rng);
            to_tensor(view, step.device)
        };
        let (first, second) = (view(), view());
        let unattacked = first.clone();
        let labels = self.labels.batch(step.indices, step.device);
        let [clean_weight, adversarial_weight] = settings.weights(step.epoch);

        let WithAverage { online, average } = step.detached;
        let features = [online, average].map(|model| frozen_features(model, Route::Pgd));
        let count = first.dims()[0];
        // BatchNorm does not mix images in evaluation mode, so the attack may change both views as
        // one batch.
        let both_features = |both: Tensor<4>| {
            let views = both.chunk(2, 0).into_iter();
            let each = views.zip(&features).map(|(view, features)| features(view));
            Tensor::cat(each.collect(), 0)
        };
        let loss = |both: Tensor<2>| {
            let views = both.clone().chunk(2, 0).into_iter().zip([online, average]);
            let views = views.map(|(view, model)| model.project(view, &mut Mode::Eval));
            let pairs = contrastive(views.collect(), temperature);
            if labels.is_empty() {
                return pairs;
            }
            let cluster = cluster_term(online, &both.narrow(0, 0, count), &labels);
            cluster * self.cluster_weight + pairs * adversarial_weight
        };
        let gradient = step.shards().gradient_of(both_features, loss);
        let both = Tensor::cat(vec![first.clone(), second.clone()], 0);
        let attacked = self.attack.maximize(gradient, &both, step.rng);

        let mut mode = Mode::Train(step.statistics);
        let mut stream = |first, second, route| {
            let second = step.detached.average.embed(second, route, &mut mode);
            let [features, first] = step.tracked.online.forward(first, route, &mut mode);
            // The average gets no gradient: its half of the pair is a constant.
            (
                features,
                contrastive(vec![first, second.autodiff()], temperature),
            )
        };
        let (adversarial_features, adversarial) = stream(
            attacked.clone().narrow(0, 0, count),
            attacked.narrow(0, count, count),
            Route::Pgd,
        );
        let (clean_features, clean) = stream(first, second, Route::Normal);
        let pairs = clean.clone() * clean_weight + adversarial.clone() * adversarial_weight;
        let parts = vec![("clean", clean), ("adversarial", adversarial)];
        let mut loss = Loss {
            total: pairs,
            parts,
        };
        if !labels.is_empty() {
            let cluster = cluster_term(&step.tracked.online, &adversarial_features, &labels);
            loss.total = loss.total + cluster.clone() * self.cluster_weight;
            loss.parts.push(("cluster", cluster));
        }
        step.seen
            .add(&unattacked, [adversarial_features, clean_features]);
        loss
    }

    fn before_update(&self, model: WithAverage) -> WithAverage {
        let momentum = self.settings.average_momentum;
        WithAverage {
            average: moving_average(model.average, &model.online, momentum),
            online: model.online,
        }
    }
}
