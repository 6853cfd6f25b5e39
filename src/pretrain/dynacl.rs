//! DynACL, dynamic adversarial contrastive learning (Luo, Wang, Wang: "Rethinking the Effect of Data Augmentation in
//! Adversarial Contrastive Learning", ICLR 2023).
//!
//! ACL whose strong augmentation is annealed: strength s(e) = 1 − ⌊e/K⌋·K/E after each period of K epochs of E, down to none
//! but flips; and whose adversarial term gains weight as the views grow alike, (1 ± λ(1 − s))/2. The second view goes
//! through a moving average of the network, in both streams and in the attack; that average is what downstream tasks
//! use, on the route `pgd`.
//!
//! As in the released code the average takes the weights of before the step, keeps BatchNorm statistics of its own, and the
//! attack is in evaluation mode. Departures: the weights move with the augmentation (released one epoch earlier); scale of
//! the loss and projection head as in [`super::acl`].

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{HasEncoder, Method, Trained, Trainer, ViewAttack, frozen_embedding};
use crate::check::Check;
use crate::data::Images;
use crate::data::augment::{Jitter, Strong};
use crate::error::Result;
use crate::loss::contrastive;
use crate::nn::{Backbone, Encoder, Mode, Route, moving_average, unshared};
use crate::pixels::Pixels;
use crate::tensor::to_tensor;
use crate::train::{Loss, Objective, Plan, Step};

/// What a recipe says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long and how fast.
    pub plan: Plan,
    /// Of the contrastive losses.
    pub temperature: f64,
    /// Epochs between two strengths of the augmentation: K, 50 of 1000 in the paper.
    pub period: usize,
    /// λ: how much weight the adversarial term has won at the end.
    #[serde(default = "two_thirds")]
    pub reweighting: f64,
    /// Of the moving average: how much of it stays at each step.
    #[serde(default = "released_momentum")]
    pub average_momentum: f64,
    /// Of the attack.
    pub attack_steps: usize,
    /// Of the attack, in pixels; a quarter of the radius where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// Both views, at full strength.
    #[serde(default = "released_strong")]
    pub strong: Strong,
}

fn two_thirds() -> f64 {
    2.0 / 3.0
}

fn released_momentum() -> f64 {
    0.99
}

impl Settings {
    /// s(e), from 1 down; `epoch` counts from 0.
    pub fn strength(&self, epoch: usize) -> f64 {
        let whole_periods = epoch / self.period * self.period;
        1.0 - whole_periods as f64 / self.plan.epochs as f64
    }

    /// Weights of the clean and of the adversarial term.
    pub fn weights(&self, epoch: usize) -> [f64; 2] {
        let won = self.reweighting * (1.0 - self.strength(epoch));
        [(1.0 - won) / 2.0, (1.0 + won) / 2.0]
    }

    /// The strong view of an epoch.
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

/// The released code's crops, which are smaller than AdvCL's.
fn released_strong() -> Strong {
    Strong {
        scale: (0.1, 1.0),
        ..Strong::default()
    }
}

impl Method for Settings {
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

    fn routes(&self) -> usize {
        2
    }

    fn route(&self) -> Route {
        Route::Pgd
    }

    // Strength of the augmentation and weights of the terms follow the share of the epochs that is done.
    fn depends_on_epochs(&self) -> bool {
        true
    }

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let (inputs, step_size) = (trainer.inputs, self.attack_step_size.as_ref());
        let objective = DynAcl {
            images: &inputs.train.images,
            settings: self,
            attack: ViewAttack::new(inputs.ball, self.attack_steps, step_size),
        };
        let fresh = WithAverage::new(trainer.fresh_backbone(self.routes(), &[]));
        let trained = trainer.fit("", &objective, &self.plan, fresh)?;
        Ok(trained.average.into())
    }
}

/// A network and the moving average of its weights.
#[derive(Module, Debug)]
pub struct WithAverage {
    /// What gradients move.
    pub online: Backbone,
    /// What follows it; no gradient.
    pub average: Backbone,
}

impl WithAverage {
    /// The average begins as the network, and shares nothing with it.
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

/// The objective.
struct DynAcl<'a> {
    images: &'a Images,
    settings: &'a Settings,
    attack: ViewAttack,
}

impl Objective for DynAcl<'_> {
    type Model = WithAverage;

    fn loss(&self, step: Step<WithAverage>) -> Loss {
        let (settings, temperature) = (self.settings, self.settings.temperature);
        let strong = settings.strong_at(step.epoch);
        let mut view = || {
            to_tensor(
                strong.apply(self.images, step.indices, step.rng),
                step.device,
            )
        };
        let (first, second) = (view(), view());

        let online = frozen_embedding(&step.detached.online, Route::Pgd);
        let average = frozen_embedding(&step.detached.average, Route::Pgd);
        let count = first.dims()[0];
        // In evaluation mode images do not see each other: both views are one batch, and each goes its way.
        let climb = |x: Tensor<4>| {
            let (first, second) = (x.clone().narrow(0, 0, count), x.narrow(0, count, count));
            contrastive(vec![online(first), average(second)], temperature)
        };
        let both = Tensor::cat(vec![first.clone(), second.clone()], 0);
        let attacked = self.attack.maximize(climb, &both, step.rng);

        let mut mode = Mode::Train(step.statistics);
        let mut stream = |first, second, route| {
            let second = step.detached.average.embed(second, route, &mut mode);
            let first = step.tracked.online.embed(first, route, &mut mode);
            // The average gets no gradient: its half of the pair is a constant.
            contrastive(vec![first, second.autodiff()], temperature)
        };
        let adversarial = stream(
            attacked.clone().narrow(0, 0, count),
            attacked.narrow(0, count, count),
            Route::Pgd,
        );
        let clean = stream(first, second, Route::Normal);
        let [clean_weight, adversarial_weight] = settings.weights(step.epoch);
        Loss {
            total: clean.clone() * clean_weight + adversarial.clone() * adversarial_weight,
            parts: vec![("clean", clean), ("adversarial", adversarial)],
        }
    }

    fn before_update(&self, model: WithAverage) -> WithAverage {
        let momentum = self.settings.average_momentum;
        WithAverage {
            average: moving_average(model.average, &model.online, momentum),
            online: model.online,
        }
    }
}
