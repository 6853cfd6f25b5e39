//! Pretraining methods, one file each, and their registry: [`METHODS`].
//!
//! What holds for all of them, whatever their released code does: encoders see pixels in [0, 1], not normalised by a mean and a
//! deviation (the first BatchNorm does as much); strong views are by default those of AdvCL (crops of at least a fifth of
//! the image), which `strong = { scale = … }` changes; and the projection head is one and the same. A method's file says
//! where else it departs.

pub mod acl;
pub mod advcl;
pub mod adversarial_training;
pub mod deacl;
pub mod dynacl;
pub mod dynacl_plus_plus;
mod registry;
pub mod rocl;
pub mod simclr;
pub mod supervised;
pub mod trades;

use std::path::Path;

use burn::tensor::{Device, Tensor};

use crate::attack::Ball;
use crate::check::Check;
use crate::cluster::PseudoLabels;
use crate::data::{Images, Split};
use crate::error::Result;
use crate::nn::{
    self, Backbone, Classifier, Encoder, EncoderConfig, FrozenEncoder, Linear, Mode, Precision,
    Route,
};
use crate::probe::Probe;
use crate::random;
use crate::run::{Model, layout};
use crate::session::{Context, Event};
use crate::train::{self, Checkpoint, Loss, Objective, Plan, Step};

pub use registry::{About, Entry, METHODS, Pretrain, Settings, title};

/// A way to make an encoder: what its settings need, and what it does with them.
pub trait Method {
    /// How long and how fast.
    fn plan(&self) -> &Plan;

    /// Refuses settings that cannot be; the plan is checked already.
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe).
    fn check(&self, check: &Check) -> Result<()>;

    /// Refuses settings that cannot be with these images.
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe).
    fn check_images(&self, _images: &Images, _check: &Check) -> Result<()> {
        Ok(())
    }

    /// Whether it learns from the labels of the training images. Such a method trains its classifier together with
    /// its encoder; that classifier is evaluated, and none is finetuned.
    fn supervised(&self) -> bool {
        false
    }

    /// Whether it learns from pseudo-labels, which must be there before it.
    fn clustered(&self) -> bool {
        false
    }

    /// The numbers of clusters that it wants; all of the recipe's where it does not say.
    fn cluster_counts(&self) -> Option<&[usize]> {
        None
    }

    /// Whether it attacks its images, so that the recipe's threat model matters.
    fn attacks(&self) -> bool {
        true
    }

    /// Whether losses, views or phases follow from how many epochs there are in all, so that a finished
    /// training cannot be continued for more.
    fn depends_on_epochs(&self) -> bool {
        false
    }

    /// The encoder that it learns from or begins with: a method of the same recipe, or a model file.
    fn source(&self) -> Option<&str> {
        None
    }

    /// How many BatchNorm branches its encoder has.
    fn routes(&self) -> usize {
        1
    }

    /// The BatchNorm branch that downstream tasks use.
    fn route(&self) -> Route {
        Route::Normal
    }

    /// Trains.
    ///
    /// # Errors
    /// As [`train::fit`].
    fn pretrain(&self, given: &Given, trainer: &mut Trainer) -> Result<Trained>;
}

/// Images to projections in evaluation mode, for attacks on a network that stands still: BatchNorm is folded into the
/// weights.
pub(crate) fn frozen_embedding(model: &Backbone, route: Route) -> impl Fn(Tensor<4>) -> Tensor<2> {
    let encoder = FrozenEncoder::new(&model.encoder, route);
    move |images| model.project(encoder.features(images), &mut Mode::Eval)
}

/// What a method works on.
pub struct Given<'a> {
    /// The training images; with labels where the data has some.
    pub train: &'a Split,
    /// How many classes.
    pub classes: usize,
    /// Empty unless the method asked for them.
    pub labels: &'a PseudoLabels,
    /// The encoder that it asked for.
    pub source: Option<&'a Model>,
    /// What the attacker may do.
    pub ball: Ball,
    /// Where tensors live.
    pub device: Device,
}

/// What a method made.
pub struct Trained {
    /// The encoder and the heads that it was trained with.
    pub backbone: Backbone,
    /// Of a supervised method.
    pub linear: Option<Linear>,
}

impl From<Backbone> for Trained {
    fn from(backbone: Backbone) -> Self {
        Self {
            backbone,
            linear: None,
        }
    }
}

impl From<Classifier> for Trained {
    fn from(trained: Classifier) -> Self {
        Self {
            backbone: Backbone::without_heads(trained.encoder),
            linear: Some(trained.linear),
        }
    }
}

/// The loop with the folder that its checkpoints go to.
pub struct Trainer<'a, 'b> {
    /// The method's name in the recipe: its folder, and its stage in logs.
    pub name: &'a str,
    /// Its folder.
    pub folder: &'a Path,
    /// Everything that the encoder's checkpoints depend on, as TOML.
    pub recipe: &'a str,
    /// Dependencies of a shorter training whose checkpoints are continued.
    pub continues: Option<&'a str>,
    /// Whether checkpoints of another training are replaced.
    pub replaces: bool,
    /// The network.
    pub encoder: &'a EncoderConfig,
    /// Channels of the images.
    pub channels: usize,
    /// How many images there are.
    pub images: usize,
    /// The BatchNorm branch that downstream tasks use.
    pub route: Route,
    /// A look at the encoder while it is made.
    pub probe: Option<Probe<'a>>,
    /// Device, seed, the wish to stop.
    pub context: &'a mut Context<'b>,
    /// Spent in training, all sittings together.
    pub seconds: f64,
}

impl Trainer<'_, '_> {
    /// What a method with heads of its own starts from; `clusters` are the numbers of its pseudo-classes.
    pub fn fresh_backbone(&self, routes: usize, clusters: &[usize]) -> Backbone {
        let (config, device) = (self.encoder, &self.context.device);
        let mut rng = random::generator(self.context.seed, &format!("{}/init", self.name), 0);
        Backbone::new(config, self.channels, routes, clusters, &mut rng, device)
    }

    /// What a supervised method starts from.
    pub fn fresh_classifier(&self, classes: usize) -> Classifier {
        let (config, device) = (self.encoder, &self.context.device);
        let mut rng = random::generator(self.context.seed, &format!("{}/init", self.name), 0);
        Classifier {
            encoder: Encoder::new(config, self.channels, 1, &mut rng, device),
            linear: Linear::new(config.features(), classes, &mut rng, device),
            route: Route::Normal,
        }
    }

    /// Trains `fresh`, from the checkpoint of this part where there is one. A method of one part calls it "".
    ///
    /// # Errors
    /// As [`train::fit`].
    pub fn fit<O>(
        &mut self,
        part: &str,
        objective: &O,
        plan: &Plan,
        fresh: O::Model,
    ) -> Result<O::Model>
    where
        O: Objective,
        O::Model: HasEncoder,
    {
        let (stage, file) = layout::part(self.name, part);
        let checkpoint = Checkpoint {
            path: &self.folder.join(file),
            recipe: self.recipe,
            continues: self.continues,
            replaces: self.replaces,
        };
        let objective = Probed {
            objective,
            probe: self.probe,
            route: self.route,
        };
        let (images, context) = (self.images, &mut *self.context);
        let precision = context.precision;
        if precision == Precision::Bf16 {
            let text = match nn::has_bf16() {
                true => "convolutions multiply bf16 and sum in f32",
                false => "this processor does not multiply bf16: convolutions are f32",
            };
            (context.observe)(&Event::Note {
                stage: stage.clone(),
                text: text.to_owned(),
            });
        }
        let (model, seconds) = nn::with_precision(precision, || {
            train::fit(&stage, &objective, fresh, plan, images, checkpoint, context)
        })?;
        self.seconds += seconds;
        Ok(model)
    }
}

/// What is trained in pretraining: where its encoder is, where it has one.
pub trait HasEncoder {
    /// The one that downstream tasks get.
    fn encoder(&self) -> Option<&Encoder>;
}

impl HasEncoder for Backbone {
    fn encoder(&self) -> Option<&Encoder> {
        Some(&self.encoder)
    }
}

impl HasEncoder for Classifier {
    fn encoder(&self) -> Option<&Encoder> {
        Some(&self.encoder)
    }
}

impl HasEncoder for Linear {
    fn encoder(&self) -> Option<&Encoder> {
        None
    }
}

/// An objective whose encoder is looked at after some epochs.
struct Probed<'a, O> {
    objective: &'a O,
    probe: Option<Probe<'a>>,
    route: Route,
}

impl<O> Objective for Probed<'_, O>
where
    O: Objective,
    O::Model: HasEncoder,
{
    type Model = O::Model;

    fn loss(&self, step: Step<O::Model>) -> Loss {
        self.objective.loss(step)
    }

    fn before_update(&self, model: O::Model) -> O::Model {
        self.objective.before_update(model)
    }

    fn after_epoch(
        &self,
        stage: &str,
        model: &O::Model,
        epoch: usize,
        context: &mut Context,
    ) -> Result<Vec<(&'static str, f32)>> {
        let (Some(probe), Some(encoder)) = (&self.probe, model.encoder()) else {
            return Ok(Vec::new());
        };
        if !(epoch + 1).is_multiple_of(probe.settings.every) {
            return Ok(Vec::new());
        }
        let share = probe.accuracy(stage, encoder, self.route, context)?;
        let images = probe.held_out.images.len();
        let percent = 100.0 * share;
        (context.observe)(&Event::Note {
            stage: stage.to_owned(),
            text: format!("nearest neighbours classify {percent:.1} % of {images} held-out images"),
        });
        Ok(vec![("knn", share)])
    }
}
