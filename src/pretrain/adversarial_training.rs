//! Adversarial training (Madry, Makelov, Schmidt, Tsipras, Vladu: "Towards Deep Learning Models Resistant to
//! Adversarial Attacks", ICLR 2018), with the labels of all training images: the ceiling that methods without
//! labels are held against.
//!
//! A saddle point (equation 2.1): the weights minimize the mean over the images of the largest cross-entropy that
//! an attacker finds in the ball around each. PGD does the inner part, SGD the outer one, on the attacked images
//! alone. Encoder and classifier are trained together, so nothing is left to finetune.
//!
//! The attack sees the batch's statistics, as in the authors' released code: it climbs the very loss that is then
//! minimized, and early in training the running ones say little. (TRADES' released code attacks with the running
//! ones.) Unlike the released code, the attack's passes leave the running statistics alone: they follow the
//! images that are trained on, once a step.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::attack::{Ball, Pgd};
use crate::cluster::label_tensor;
use crate::data::Split;
use crate::data::augment::Weak;
use crate::loss::cross_entropy;
use crate::nn::{Classifier, Mode};
use crate::pixels::Pixels;
use crate::train::{Loss, Objective, Plan, Step, to_tensor};

/// What a recipe says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long and how fast.
    pub plan: Plan,
    /// Of the attack: 7 in the paper, 10 in its released code.
    pub attack_steps: usize,
    /// Of the attack, in pixels; a quarter of the radius where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_step_size: Option<Pixels>,
    /// What is attacked: a crop and a flip, as in finetuning.
    #[serde(default)]
    pub weak: Weak,
}

/// The objective.
pub struct AdversarialTraining<'a> {
    /// Labeled.
    pub split: &'a Split,
    /// The recipe's.
    pub settings: &'a Settings,
    /// What the attacker may do.
    pub ball: Ball,
    /// Where views go.
    pub device: Device,
}

impl Objective for AdversarialTraining<'_> {
    type Model = Classifier;

    fn loss(&self, step: Step<Classifier>) -> Loss {
        let Self {
            split, settings, ..
        } = self;
        let images = settings.weak.apply(&split.images, step.indices, step.rng);
        let images = to_tensor(images, &self.device);
        let labels: Vec<usize> = step.indices.iter().map(|&i| split.labels[i]).collect();
        let labels = label_tensor(&labels, &self.device);

        let step_size = settings.attack_step_size.as_ref();
        let pgd = Pgd::new(settings.attack_steps, step_size, self.ball);
        let climb = |x| cross_entropy(step.plain.forward(x, &mut Mode::Batch), labels.clone());
        let attacked = pgd.maximize(climb, &images, self.ball, step.rng);

        let logits = (step.live).forward(attacked, &mut Mode::Train(step.statistics));
        Loss {
            total: cross_entropy(logits, labels),
            parts: Vec::new(),
        }
    }
}
