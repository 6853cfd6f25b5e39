//! Attacks by name, one after the other: what a recipe or `--attack` asks for.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{Ball, Pgd};
use crate::cluster::label_tensor;
use crate::error::Result;
use crate::evaluate::predictions;
use crate::loss::cross_entropy_each;
use crate::random;

/// Images under attack, and the classifier that is to be fooled.
pub struct Victim<'a> {
    /// `[batch, channels, height, width]` in [0, 1] to logits `[batch, classes]`. A row depends on its image alone.
    pub logits: &'a dyn Fn(Tensor<4>) -> Tensor<2>,
    /// All of them classified correctly.
    pub images: &'a Tensor<4>,
    /// Of each image.
    pub labels: &'a [usize],
    /// Where each image is in its split. Its random numbers come from here, so that they do not depend on the batch.
    pub indices: &'a [usize],
    /// Where adversarial examples may be.
    pub ball: Ball,
    /// Of all random numbers.
    pub seed: u64,
}

/// Is told the share of the work that is done, in [0, 1]; an error ends the attack.
pub type Tell<'a> = &'a mut dyn FnMut(f64) -> Result<()>;

/// What an attack found.
pub struct Found {
    /// Which images it broke.
    pub broken: Vec<bool>,
    /// An adversarial example of each broken image; anything for the others.
    pub images: Tensor<4>,
}

/// Attacks, each on what the ones before it left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Suite(String);

/// One attack with its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Attack;

impl Suite {
    /// As the recipe names it: "autoattack", "square"; "custom" for a list.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// In order.
    pub fn attacks(&self) -> &[Attack] {
        &[Attack]
    }
}

impl Attack {
    /// Its name.
    pub fn name(&self) -> &str {
        "pgd"
    }

    /// Attacks.
    ///
    /// # Errors
    /// What `tell` answers.
    pub fn run(&self, victim: &Victim, tell: Tell) -> Result<Found> {
        tell(0.0)?;
        let mut rng = random::generator(victim.seed, "pgd", victim.indices[0] as u64);
        let targets = label_tensor(victim.labels, &victim.images.device());
        let climb = |x| cross_entropy_each((victim.logits)(x), targets.clone()).sum();
        let step_size = victim.ball.radius / 4.0;
        let pgd = Pgd {
            steps: 20,
            step_size,
        };
        let images = pgd.maximize(climb, victim.images, victim.ball, &mut rng);
        let said = predictions((victim.logits)(images.clone()));
        Ok(Found {
            broken: said
                .iter()
                .zip(victim.labels)
                .map(|(a, b)| a != b)
                .collect(),
            images,
        })
    }
}
