//! DeACL, decoupled adversarial contrastive learning (Zhang, Zhang, Zhang, Niu, Feng, Yoo, Kweon:
//! "Decoupled Adversarial Contrastive Learning for Self-supervised Adversarial Robustness", ECCV
//! 2022).
//!
//! A standard encoder, the teacher, is trained first. A second encoder, the student, then learns
//! the direction of the teacher's features of an image, and the same direction for the adversarial
//! image: `−cos(S(x), T(x)) − 2 cos(S(x′), S(x))`, where x′ is attacked in evaluation mode to make
//! `cos(S(x′), T(x))` small. The student starts from the teacher's weights if it has the same
//! architecture, otherwise from random ones; `init` names others.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Method, SourceInfo, Trained, Trainer, ViewAttack};
use crate::check::Check;
use crate::data::Images;
use crate::data::augment::Weak;
use crate::error::Result;
use crate::loss::cosine;
use crate::nn::{Backbone, EncoderConfig, FrozenEncoder, Mode, Route};
use crate::pixels::Pixels;
use crate::tensor::to_tensor;
use crate::train::{Loss, Objective, Plan, Step};

/// Keys of a table `[pretrain.deacl]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeaclSettings {
    /// Epochs, batch size and optimizer.
    pub plan: Plan,
    /// The standard encoder: a method of this recipe, `simclr` by default, or a model file of any
    /// run.
    #[serde(default = "simclr")]
    pub teacher: String,
    /// Weight of the second term; 2 by default, as in the paper.
    #[serde(default = "two")]
    pub robust_weight: f64,
    /// Gradient steps of the attack.
    pub attack_steps: usize,
    /// Step size of the attack, in pixels; a quarter of the radius by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// Augmentation of the images that teacher and student get.
    #[serde(default)]
    pub weak: Weak,
}

fn simclr() -> String {
    "simclr".to_owned()
}

fn two() -> f64 {
    2.0
}

impl Method for DeaclSettings {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn check(&self, check: &Check) -> Result<()> {
        check.in_range("robust_weight", self.robust_weight, 0.0, 1e6)?;
        check.at_least_one("attack_steps", self.attack_steps)?;
        check.views("weak", self.weak.check())
    }

    fn source(&self) -> Option<&str> {
        Some(&self.teacher)
    }

    fn check_source(&self, source: &SourceInfo, own: &EncoderConfig, check: &Check) -> Result<()> {
        let (theirs, own) = (source.encoder.features(), own.features());
        if theirs == own {
            return Ok(());
        }
        let problem = format!("the teacher has {theirs} features, the encoder {own}");
        let hint = "they must have as many: choose [encoder] alike";
        check.refuse("teacher", problem, hint)
    }

    fn passes(&self) -> usize {
        2
    }

    fn stacked(&self) -> usize {
        2
    }

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let (inputs, step_size) = (trainer.inputs, self.attack_step_size.as_ref());
        let teacher = trainer.source(self)?;
        let objective = Deacl {
            images: &inputs.train.images,
            settings: self,
            teacher: FrozenEncoder::new(&teacher.backbone.encoder, teacher.info.route),
            attack: ViewAttack::new(inputs.ball, self.attack_steps, step_size),
        };
        let mut fresh = trainer.fresh_backbone(self.routes(), &[]);
        if inputs.start.is_none() && teacher.info.encoder == *inputs.encoder {
            fresh.encoder = teacher.backbone.encoder.on_route(teacher.info.route);
        }
        Ok(trainer.fit("", &objective, &self.plan, fresh)?.into())
    }
}

/// Objective: distillation of clean images, and consistency of adversarial ones.
struct Deacl<'a> {
    images: &'a Images,
    settings: &'a DeaclSettings,
    teacher: FrozenEncoder,
    attack: ViewAttack,
}

impl Objective for Deacl<'_> {
    type Model = Backbone;

    fn loss(&self, step: Step<Backbone>) -> Loss {
        let (settings, own) = (self.settings, step.own());
        let weak = &settings.weak;
        let images = weak.apply_at(own, self.images, step.indices, step.rng);
        let images = to_tensor(images, step.device);
        let shards = step.shards();
        let teacher = shards.map(images.clone(), |x| self.teacher.features(x));

        let student = FrozenEncoder::new(&step.detached.encoder, Route::Normal);
        let loss = |z| attack_loss(z, teacher.clone());
        let gradient = shards.gradient_of(|x| student.features(x), loss);
        let attacked = self.attack.maximize(gradient, &images, step.rng);

        let mut mode = Mode::Train(step.statistics);
        let encoder = &step.tracked.encoder;
        let mut features = |x: Tensor<4>| encoder.features(x, Route::Normal, &mut mode);
        // Clean and adversarial images share a batch, as in the released code.
        let mut both = features(Tensor::cat(vec![images.clone(), attacked], 0)).chunk(2, 0);
        let attacked = both.pop().expect("two halves");
        let clean = both.pop().expect("two halves");
        step.seen.add(&images, [clean.clone(), attacked.clone()]);
        let [distilled, robust] = terms(clean, attacked, teacher);
        Loss {
            total: distilled.clone() + robust.clone() * settings.robust_weight,
            parts: vec![("distilled", distilled), ("robust", robust)],
        }
    }
}

/// The loss that the attack maximizes: −cos(S(x′), T(x)).
pub(crate) fn attack_loss(student: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    -cosine(student, teacher)
}

/// Both terms of the loss, −cos(S(x), T(x)) and −cos(S(x′), S(x)), from the student's features of
/// clean and adversarial images and the teacher's. Gradients flow into both of the student's
/// features.
pub(crate) fn terms(
    clean: Tensor<2>,
    adversarial: Tensor<2>,
    teacher: Tensor<2>,
) -> [Tensor<1>; 2] {
    [-cosine(clean.clone(), teacher), -cosine(adversarial, clean)]
}
