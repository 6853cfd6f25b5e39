//! Pretraining methods, one file each, and their registry: [`METHODS`].
//!
//! All methods have in common, whatever their released code does, that encoders get pixels that are
//! not normalized by a mean and a deviation (the first BatchNorm has the same effect); that strong
//! views are by default those of AdvCL (crops of at least a fifth of the image), which
//! `strong = { scale = … }` changes; and that the projection head has one form. The file of a
//! method lists its other departures.

pub mod acl;
pub mod advcl;
pub mod advcl_plus;
pub mod adversarial_training;
mod common;
pub mod deacl;
pub mod dynacl;
pub mod dynacl_plus_plus;
pub mod memory;
#[cfg(all(test, feature = "flex"))]
mod micro_tests;
mod pull;
mod registry;
pub mod rocl;
pub mod simclr;
mod start;
pub mod supervised;
pub mod trades;
mod trainer;

use burn::tensor::Tensor;
use rand::rngs::ChaCha8Rng;

use crate::attack::{Ball, Pgd};
use crate::check::Check;
use crate::data::Images;
use crate::error::Result;
use crate::nn::{Backbone, EncoderConfig, FrozenEncoder, Route};
use crate::pixels::Pixels;
use crate::run::ModelInfo;
use crate::train::Plan;

pub use common::CommonSettings;
pub use registry::{Entry, METHODS, MethodInfo, MethodSettings, MethodTable, Pretrain, title};
pub use start::Start;
pub use trainer::{HasEncoder, Inputs, Stage, Trained, Trainer};

/// A method of pretraining: what it needs, and how it makes an encoder.
pub trait Method {
    /// Epochs, batch size and optimizer.
    fn plan(&self) -> &Plan;

    /// Refuses settings that are impossible whatever the images; the plan is checked already.
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe).
    fn check(&self, check: &Check) -> Result<()>;

    /// Refuses settings that are impossible with these images.
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe).
    fn check_images(&self, _images: &Images, _check: &Check) -> Result<()> {
        Ok(())
    }

    /// A key of the table that changes nothing beside the others, and the reason in words.
    fn without_effect(&self) -> Option<(&'static str, String)> {
        None
    }

    /// Whether the method learns from the labels of the training images. Such a method trains its
    /// classifier together with its encoder; that classifier is evaluated, and none is finetuned.
    fn supervised(&self) -> bool {
        false
    }

    /// Whether the method learns from pseudo-labels, which are made before it.
    fn clustered(&self) -> bool {
        false
    }

    /// Numbers of clusters that the method needs; all of the recipe's by default.
    fn cluster_counts(&self) -> Option<&[usize]> {
        None
    }

    /// Whether the method attacks its images, so that the recipe's threat model matters.
    fn attacks(&self) -> bool {
        true
    }

    /// Whether more than the learning rate depends on the plan's number of epochs: the loss, the
    /// augmentation, or something that an earlier phase keeps in the method's folder. The first
    /// epochs of a longer training then differ from a shorter one, which therefore cannot be
    /// continued.
    fn depends_on_epochs(&self) -> bool {
        false
    }

    /// The encoder that the method learns from or starts from: a method of the same recipe, or a
    /// model file.
    fn source(&self) -> Option<&str> {
        None
    }

    /// Refuses an encoder to learn from that does not suit the one to make, whose architecture is `own`.
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe).
    fn check_source(
        &self,
        _source: &SourceInfo,
        _own: &EncoderConfig,
        _check: &Check,
    ) -> Result<()> {
        Ok(())
    }

    /// The key that names the encoder whose weights the training begins at, for a method that cannot begin elsewhere.
    fn starts_at(&self) -> Option<&'static str> {
        None
    }

    /// Number of BatchNorm branches of the encoder.
    fn routes(&self) -> usize {
        1
    }

    /// Number of forward passes of a batch whose intermediate results are kept at once: those of its loss.
    fn passes(&self) -> usize;

    /// Largest number of views of an image that pass an encoder together.
    fn stacked(&self) -> usize {
        1
    }

    /// The BatchNorm branch that downstream tasks use.
    fn route(&self) -> Route {
        Route::Normal
    }

    /// Makes the encoder: trains fresh models by objectives on the trainer's inputs.
    ///
    /// # Errors
    /// Those of [`train::fit`](crate::train::fit).
    fn pretrain(&self, trainer: &mut Trainer) -> Result<Trained>;
}

/// What is known of an encoder to learn from, also before it is made.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceInfo {
    /// Depth, width and stem.
    pub encoder: EncoderConfig,
    /// Whether it has a projection head.
    pub projection: bool,
}

impl SourceInfo {
    /// The encoder of a model file.
    pub fn of(info: &ModelInfo) -> Self {
        Self {
            encoder: info.encoder.clone(),
            projection: info.projection,
        }
    }
}

/// The attack of a method on its views: PGD in the recipe's threat model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ViewAttack {
    pgd: Pgd,
    ball: Ball,
}

impl ViewAttack {
    /// The attack that a recipe describes by `attack_steps` and `attack_step_size`.
    pub(crate) fn new(ball: Ball, steps: usize, step_size: Option<&Pixels>) -> Self {
        Self {
            pgd: Pgd::new(steps, step_size, ball),
            ball,
        }
    }

    /// The views attacked along `gradient`, from a random start; [`Shards::gradient_of`](crate::nn::Shards::gradient_of) makes such a function.
    pub(crate) fn maximize(
        &self,
        gradient: impl FnMut(Tensor<4>) -> Tensor<4>,
        views: &Tensor<4>,
        rng: &mut ChaCha8Rng,
    ) -> Tensor<4> {
        let start = self.ball.random_start(views, rng);
        self.pgd.ascend(gradient, start, views, self.ball)
    }
}

/// The function from images to features in evaluation mode, with BatchNorm folded into the weights; for attacks on a
/// network whose statistics are fixed.
pub(crate) fn frozen_features(
    model: &Backbone,
    route: Route,
) -> impl Fn(Tensor<4>) -> Tensor<2> + Sync + use<> {
    let encoder = FrozenEncoder::new(&model.encoder, route);
    move |images| encoder.features(images)
}
