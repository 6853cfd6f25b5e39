//! What is trained: an encoder with the heads of pretraining, or with a linear classifier.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::rngs::ChaCha8Rng;

use super::frozen::{FrozenClassifier, FrozenEncoder};
use super::layer::Linear;
use super::norm::{BatchNorm, Mode, Route};
use super::resnet::{Encoder, EncoderConfig};
use crate::tensor::unit_rows;

/// Length of a projection (the paper's, and SimCLR's).
pub const PROJECTION: usize = 128;

/// Place of a ReLU in a tuple of layers: it has no weights.
#[derive(Module, Debug)]
pub struct Relu {}

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
                Relu {},
                Linear::new(features, PROJECTION, rng, device),
            )),
            fc: clusters
                .iter()
                .map(|&k| Linear::new(features, k, rng, device))
                .collect(),
        }
    }

    /// Number of values in a weight file of one, with or without a projection head, saturating; see
    /// [`EncoderConfig::values`].
    pub fn values(
        config: &EncoderConfig,
        channels: usize,
        routes: usize,
        projection: bool,
        clusters: &[usize],
    ) -> usize {
        let features = config.features();
        let projection = match projection {
            true => [
                Linear::values(features, features),
                BatchNorm::values(features),
                Linear::values(features, PROJECTION),
            ],
            false => [0; 3],
        };
        let heads = clusters.iter().map(|&k| Linear::values(features, k));
        let parts = projection.into_iter().chain(heads);
        parts.fold(config.values(channels, routes), usize::saturating_add)
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

    /// Images to features, and these to unit vectors. # Shapes: `[batch, channels, height, width]` to `[batch, features]`
    /// and `[batch, 128]`.
    pub fn forward(&self, images: Tensor<4>, route: Route, mode: &mut Mode) -> [Tensor<2>; 2] {
        let features = self.encoder.features(images, route, mode);
        let projections = self.project(features.clone(), mode);
        [features, projections]
    }

    /// Images to unit vectors. # Shapes: `[batch, channels, height, width]` to `[batch, 128]`.
    pub fn embed(&self, images: Tensor<4>, route: Route, mode: &mut Mode) -> Tensor<2> {
        let [_, projections] = self.forward(images, route, mode);
        projections
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Depth, Stem};
    use crate::{device, random, weights};

    #[test]
    fn the_number_of_values_is_that_of_a_weight_file() {
        let device = device::open("cpu").expect("the CPU");
        let mut rng = random::generator(0, "values", 0);
        let count = |backbone: &Backbone| -> usize {
            let tensors = weights::export(backbone);
            tensors.values().map(|(_, values)| values.len()).sum()
        };
        for depth in [Depth::D10, Depth::D18, Depth::D34, Depth::D50] {
            for (width, channels, routes) in [(1, 1, 1), (2, 3, 2), (3, 1, 3)] {
                let stem = Stem::Strided;
                let config = EncoderConfig { depth, width, stem };
                let clusters: &[usize] = [&[][..], &[2], &[5, 10]][routes - 1];
                let whole = Backbone::new(&config, channels, routes, clusters, &mut rng, &device);
                let expected = Backbone::values(&config, channels, routes, true, clusters);
                assert_eq!(count(&whole), expected, "{config:?}");
                let bare = Backbone::without_heads(whole.encoder);
                let expected = Backbone::values(&config, channels, routes, false, &[]);
                assert_eq!(count(&bare), expected, "{config:?}");
                assert_eq!(config.values(channels, routes), expected);
            }
        }
        let linear = Linear::new(3, 4, &mut rng, &device);
        let tensors = weights::export(&linear);
        let values: usize = tensors.values().map(|(_, values)| values.len()).sum();
        assert_eq!(values, Linear::values(3, 4));
    }

    #[test]
    fn numbers_that_do_not_fit_saturate() {
        for (depth, stem) in [
            (Depth::D10, Stem::Cifar),
            (Depth::D50, Stem::Strided),
            (Depth::D18, Stem::Imagenet),
        ] {
            for width in [1 << 33, 1 << 62, usize::MAX] {
                let config = EncoderConfig { depth, width, stem };
                assert_eq!(config.values(3, 3), usize::MAX);
            }
            let config = EncoderConfig {
                depth,
                width: 1,
                stem,
            };
            assert_eq!(
                Backbone::values(&config, 1, 1, false, &[usize::MAX; 2]),
                usize::MAX
            );
        }
    }
}
