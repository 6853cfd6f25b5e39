//! ACL, adversarial contrastive learning (Jiang, Chen, Chen, Wang: "Robust Pre-Training by Adversarial Contrastive
//! Learning", NeurIPS 2020).
//!
//! Two strong views of every image. In the dual stream (section 3.2, the paper's best) the loss is the mean of two
//! contrastive ones: of the clean views, on the BatchNorm route `normal`, and of both views attacked together, on `pgd`.
//!
//! As in the released code, the attack sees the network in evaluation mode, and both views of a stream share a batch.
//! Departures: the contrastive loss has AdvCL's
//! scale (temperature / 0.07, which a learning rate undoes), and the projection head is the one that all methods here
//! share (features – BatchNorm – ReLU – 128, one BatchNorm for both streams) where ACL's keeps 512 values and has one for
//! each.

use burn::tensor::Tensor;
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Given, Method, Trained, Trainer, frozen_embedding};
use crate::attack::{Attacker, Ball, Pgd};
use crate::check::Check;
use crate::data::Images;
use crate::data::augment::Strong;
use crate::error::Result;
use crate::loss::{FixedViews, contrastive};
use crate::nn::{Backbone, Mode, Route};
use crate::pixels::Pixels;
use crate::tensor::to_tensor;
use crate::train::{Loss, Objective, Plan, Step};

/// What is contrasted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Streams {
    /// Clean views with clean ones, attacked ones with attacked ones: "DS".
    #[default]
    Dual,
    /// Attacked views alone: "A2A".
    AdversarialAdversarial,
    /// An attacked view with a clean one: "A2S".
    AdversarialStandard,
}

/// What a recipe says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long and how fast.
    pub plan: Plan,
    /// Of the contrastive loss.
    pub temperature: f64,
    /// What is contrasted.
    #[serde(default)]
    pub streams: Streams,
    /// Of the attack.
    pub attack_steps: usize,
    /// Of the attack, in pixels; a quarter of the radius where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
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
        check.at_least_one("attack_steps", self.attack_steps)?;
        check.views("strong", self.strong.check())
    }

    fn routes(&self) -> usize {
        2
    }

    fn route(&self) -> Route {
        Route::Pgd
    }

    fn pretrain(&self, given: &Given, trainer: &mut Trainer) -> Result<Trained> {
        let objective = Acl {
            images: &given.train.images,
            settings: self,
            ball: given.ball,
        };
        let fresh = trainer.fresh_backbone(self.routes(), &[]);
        Ok(trainer.fit("", &objective, &self.plan, fresh)?.into())
    }
}

/// The objective.
struct Acl<'a> {
    images: &'a Images,
    settings: &'a Settings,
    ball: Ball,
}

impl Objective for Acl<'_> {
    type Model = Backbone;

    fn loss(&self, step: Step<Backbone>) -> Loss {
        let settings = self.settings;
        let mut view = || {
            let view = settings.strong.apply(self.images, step.indices, step.rng);
            to_tensor(view, step.device)
        };
        let views = [view(), view()];
        let pgd = Pgd::new(
            settings.attack_steps,
            settings.attack_step_size.as_ref(),
            self.ball,
        );
        let temperature = settings.temperature;
        let mut mode = Mode::Train(step.statistics);

        if settings.streams == Streams::AdversarialStandard {
            let [first, second] = views;
            let target = frozen_embedding(step.plain, Route::Normal)(second.clone());
            let fixed = FixedViews::new(vec![target], temperature);
            let attacked = frozen_embedding(step.plain, Route::Pgd);
            let climb = |x| fixed.contrastive(attacked(x));
            let first = pgd.maximize(climb, &first, self.ball, step.rng);
            let first = step.live.embed(first, Route::Pgd, &mut mode);
            let second = step.live.embed(second, Route::Normal, &mut mode);
            return Loss {
                total: contrastive(vec![first, second], temperature),
                parts: Vec::new(),
            };
        }
        let ball = self.ball;
        let attacker = Attacker { ball, pgd };
        let attacked = attack_both(step.plain, &views, temperature, attacker, step.rng);
        let mut stream = |views: &[Tensor<4>], route| {
            let views = step.live.embed_together(views, route, &mut mode);
            contrastive(views, temperature)
        };
        let adversarial = stream(&attacked, Route::Pgd);
        if settings.streams == Streams::AdversarialAdversarial {
            return Loss {
                total: adversarial,
                parts: Vec::new(),
            };
        }
        let clean = stream(&views, Route::Normal);
        Loss {
            total: (clean.clone() + adversarial.clone()) / 2.0,
            parts: vec![("clean", clean), ("adversarial", adversarial)],
        }
    }
}

/// The contrastive loss of two views, one below the other, on the route `pgd` in evaluation mode.
///
/// Images do not see each other there, so that both views go through the network at once.
pub(crate) fn both_views(model: &Backbone, temperature: f64) -> impl Fn(Tensor<4>) -> Tensor<1> {
    let embed = frozen_embedding(model, Route::Pgd);
    move |both| contrastive(embed(both).chunk(2, 0), temperature)
}

/// Two views perturbed together, so that they look like different images on the route `pgd` in evaluation mode.
fn attack_both(
    model: &Backbone,
    views: &[Tensor<4>; 2],
    temperature: f64,
    Attacker { ball, pgd }: Attacker,
    rng: &mut ChaCha8Rng,
) -> [Tensor<4>; 2] {
    let climb = both_views(model, temperature);
    let both = Tensor::cat(views.to_vec(), 0);
    let mut both = pgd.maximize(climb, &both, ball, rng).chunk(2, 0);
    let second = both.pop().expect("two views");
    [both.pop().expect("two views"), second]
}
