//! What is trained: an encoder with the heads of pretraining, or with a linear classifier.

use burn::module::Module;
use burn::nn::Relu;
use burn::tensor::{Device, Tensor};
use rand::rngs::ChaCha8Rng;

use super::frozen::{FrozenClassifier, FrozenEncoder};
use super::layer::Linear;
use super::norm::{BatchNorm, Mode, Route};
use super::resnet::{Encoder, EncoderConfig};
use crate::tensor::unit_rows;

/// Length of a projection (the paper's, and SimCLR's).
pub const PROJECTION: usize = 128;

/// Features – BatchNorm (one for all routes) – ReLU – 128. A tuple, so that its weights are called `head_proj.0`,
/// `.1`, `.3` as in PyTorch's `Sequential`; the ReLU is computed with the BatchNorm.
pub type Projection = (Linear, BatchNorm, Relu, Linear);

/// An encoder with the heads of pretraining.
#[derive(Module, Debug)]
pub struct Backbone {
    /// Images to features.
    pub encoder: Encoder,
    /// Features to what the contrastive losses compare; methods without such a loss have none.
    pub head_proj: Option<Projection>,
    /// One linear head for each number of clusters: `fc_002` … in weight files.
    pub fc: Vec<Linear>,
}

impl Backbone {
    /// A fresh one; `clusters` are the numbers of pseudo-classes.
    pub fn new(
        config: &EncoderConfig,
        channels: usize,
        routes: usize,
        clusters: &[usize],
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let features = config.features();
        Self {
            encoder: Encoder::new(config, channels, routes, rng, device),
            head_proj: Some((
                Linear::new(features, features, rng, device),
                BatchNorm::new(features, device),
                Relu::new(),
                Linear::new(features, PROJECTION, rng, device),
            )),
            fc: clusters
                .iter()
                .map(|&k| Linear::new(features, k, rng, device))
                .collect(),
        }
    }

    /// An encoder that was trained without heads of pretraining.
    pub fn without_heads(encoder: Encoder) -> Self {
        Self {
            encoder,
            head_proj: None,
            fc: Vec::new(),
        }
    }

    /// Features to unit vectors. # Shapes: `[batch, features]` to `[batch, 128]`.
    ///
    /// # Panics
    /// Without a projection head.
    pub fn project(&self, features: Tensor<2>, mode: &mut Mode) -> Tensor<2> {
        let head = self.head_proj.as_ref();
        let (first, norm, _, last) = head.expect("only what has a projection head is projected");
        let hidden = first.forward(features);
        let [batch, length] = hidden.dims();
        let hidden = norm.forward(hidden.reshape([1, 1, batch, length]), None, true, mode);
        unit_rows(last.forward(hidden.reshape([batch, length])))
    }

    /// Images to unit vectors. # Shapes: `[batch, channels, height, width]` to `[batch, 128]`.
    pub fn embed(&self, images: Tensor<4>, route: Route, mode: &mut Mode) -> Tensor<2> {
        let features = self.encoder.features(images, route, mode);
        self.project(features, mode)
    }

    /// Several views as one batch, so that BatchNorm's statistics are of all of them. # Shapes: as
    /// [`Backbone::embed`], for each view.
    pub fn embed_together(
        &self,
        views: &[Tensor<4>],
        route: Route,
        mode: &mut Mode,
    ) -> Vec<Tensor<2>> {
        let all = Tensor::cat(views.to_vec(), 0);
        self.embed(all, route, mode).chunk(views.len(), 0)
    }

    /// Features to the logits of each pseudo-label head. # Shapes: `[batch, features]` to `[batch, K]` each.
    pub fn cluster_logits(&self, features: &Tensor<2>) -> Vec<Tensor<2>> {
        self.fc
            .iter()
            .map(|head| head.forward(features.clone()))
            .collect()
    }
}

/// An encoder with a linear classifier, on one route.
#[derive(Module, Debug)]
pub struct Classifier {
    /// Images to features.
    pub encoder: Encoder,
    /// Features to logits.
    pub linear: Linear,
    /// The BatchNorm branch.
    #[module(skip)]
    pub route: Route,
}

impl Classifier {
    /// # Shapes
    /// `[batch, channels, height, width]` in [0, 1] to logits `[batch, classes]`.
    pub fn forward(&self, images: Tensor<4>, mode: &mut Mode) -> Tensor<2> {
        let features = self.encoder.features(images, self.route, mode);
        self.linear.forward(features)
    }

    /// As it is now, for evaluation: [`Classifier::forward`] in evaluation mode, to rounding, and faster.
    pub fn frozen(&self) -> FrozenClassifier {
        let encoder = FrozenEncoder::new(&self.encoder, self.route);
        FrozenClassifier::new(encoder, self.linear.clone())
    }
}
