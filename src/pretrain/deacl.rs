//! DeACL, decoupled adversarial contrastive learning (Zhang, Zhang, Zhang, Niu, Feng, Yoo, Kweon: "Decoupled Adversarial
//! Contrastive Learning for Self-supervised Adversarial Robustness", ECCV 2022).
//!
//! A standard encoder, the teacher, is made first. A second encoder then learns to say what the teacher says of an image
//! (its features' direction), and to say the same of the attacked image:
//! `−cos(S(x), T(x)) − 2 cos(S(x′), S(x))`, where x′ is attacked, in evaluation mode, so that `cos(S(x′), T(x))` is small.
//! The second encoder starts from the teacher's weights where it is built alike, else afresh.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Method, Trained, Trainer, ViewAttack};
use crate::check::Check;
use crate::data::Images;
use crate::data::augment::Weak;
use crate::error::Result;
use crate::loss::cosine;
use crate::nn::{Backbone, FrozenEncoder, Mode, Route};
use crate::pixels::Pixels;
use crate::tensor::to_tensor;
use crate::train::{Loss, Objective, Plan, Step};

/// What a recipe says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long and how fast.
    pub plan: Plan,
    /// The standard encoder: a method of this recipe, or a model file of any run.
    #[serde(default = "simclr")]
    pub teacher: String,
    /// Weight of the second term: 2 in the paper.
    #[serde(default = "two")]
    pub robust_weight: f64,
    /// Of the attack.
    pub attack_steps: usize,
    /// Of the attack, in pixels; a quarter of the radius where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// What both see.
    #[serde(default)]
    pub weak: Weak,
}

fn simclr() -> String {
    "simclr".to_owned()
}

fn two() -> f64 {
    2.0
}

impl Method for Settings {
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

    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained> {
        let (inputs, step_size) = (trainer.inputs, self.attack_step_size.as_ref());
        let teacher = inputs.source.expect("the method names a source");
        let (wide, own) = (teacher.info.encoder.features(), inputs.encoder.features());
        if wide != own {
            let check = Check::new("").within("pretrain", trainer.stage.name);
            let problem = format!("the teacher has {wide} features, the encoder {own}");
            return check.refuse(
                "teacher",
                problem,
                "they must have as many: choose [encoder] alike",
            );
        }
        let objective = Deacl {
            images: &inputs.train.images,
            settings: self,
            teacher: FrozenEncoder::new(&teacher.backbone.encoder, teacher.info.route),
            attack: ViewAttack::new(inputs.ball, self.attack_steps, step_size),
        };
        // The student starts as its teacher, where it is built alike.
        let mut fresh = trainer.fresh_backbone(self.routes(), &[]);
        if teacher.info.encoder == *inputs.encoder {
            fresh.encoder = teacher.backbone.encoder.on_route(teacher.info.route);
        }
        Ok(trainer.fit("", &objective, &self.plan, fresh)?.into())
    }
}

/// The objective.
struct Deacl<'a> {
    images: &'a Images,
    settings: &'a Settings,
    teacher: FrozenEncoder,
    attack: ViewAttack,
}

impl Objective for Deacl<'_> {
    type Model = Backbone;

    fn loss(&self, step: Step<Backbone>) -> Loss {
        let settings = self.settings;
        let images = settings.weak.apply(self.images, step.indices, step.rng);
        let images = to_tensor(images, step.device);
        let taught = self.teacher.features(images.clone());

        let student = FrozenEncoder::new(&step.detached.encoder, Route::Normal);
        let climb = |x| away(student.features(x), taught.clone());
        let attacked = self.attack.maximize(climb, &images, step.rng);

        let mut mode = Mode::Train(step.statistics);
        let encoder = &step.tracked.encoder;
        let mut features = |x: Tensor<4>| encoder.features(x, Route::Normal, &mut mode);
        // One batch, as in the released code.
        let mut both = features(Tensor::cat(vec![images, attacked], 0)).chunk(2, 0);
        let attacked = both.pop().expect("two halves");
        let clean = both.pop().expect("two halves");
        let [distilled, robust] = terms(clean, attacked, taught);
        Loss {
            total: distilled.clone() + robust.clone() * settings.robust_weight,
            parts: vec![("distilled", distilled), ("robust", robust)],
        }
    }
}

/// What the attack climbs: −cos(S(x′), T(x)).
pub(crate) fn away(attacked: Tensor<2>, taught: Tensor<2>) -> Tensor<1> {
    -cosine(attacked, taught)
}

/// −cos(S(x), T(x)) and −cos(S(x′), S(x)). Gradients flow into both of the student's features.
pub(crate) fn terms(clean: Tensor<2>, attacked: Tensor<2>, taught: Tensor<2>) -> [Tensor<1>; 2] {
    [-cosine(clean.clone(), taught), -cosine(attacked, clean)]
}
