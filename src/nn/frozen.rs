//! An encoder whose weights do not change any more, on one route in evaluation mode: every BatchNorm's scale is
//! multiplied into the weights before it, and its shift is added where the convolution writes its output.

use burn::tensor::Tensor;

use super::engine;
use super::layer::{Conv, Linear};
use super::norm::{Route, RouteNorm};
use super::resnet::{Block, Encoder, Normalize};

/// A convolution with the BatchNorm behind it.
pub struct Folded {
    /// `[out, in, kernel, kernel]`, with the norm's scale; its padding is half the kernel.
    pub weight: Tensor<4>,
    /// What is added to the output, `[out]`.
    pub shift: Tensor<1>,
    /// In both directions.
    pub stride: usize,
}

impl Folded {
    fn new(conv: &Conv, norm: &RouteNorm, route: Route) -> Self {
        let (scale, shift) = norm.bn_list[route as usize].scale_and_shift();
        let [channels] = scale.dims();
        Self {
            weight: conv.weight.val() * scale.reshape([channels, 1, 1, 1]),
            shift,
            stride: conv.stride,
        }
    }

    fn forward(&self, x: Tensor<4>, residual: Option<Tensor<4>>, relu: bool) -> Tensor<4> {
        let (weight, shift) = (self.weight.clone(), self.shift.clone());
        engine::conv_shift(x, weight, shift, residual, self.stride, relu)
    }
}

/// A residual block: ReLU follows every convolution but the shortcut's, and the last one after the sum.
pub struct FrozenBlock {
    /// All but the last.
    pub first: Vec<Folded>,
    /// Its output and the shortcut's are added.
    pub last: Folded,
    /// The projection of the shortcut; none where the input is added as it is.
    pub shortcut: Option<Folded>,
}

impl FrozenBlock {
    fn new(block: &Block, route: Route) -> Self {
        let fold = |conv, norm| Folded::new(conv, norm, route);
        let mut first = vec![fold(&block.conv1, &block.bn1)];
        let mut last = fold(&block.conv2, &block.bn2);
        if let (Some(conv3), Some(bn3)) = (&block.conv3, &block.bn3) {
            first.push(std::mem::replace(&mut last, fold(conv3, bn3)));
        }
        let shortcut = block.downsample.as_ref().map(|d| fold(&d.conv, &d.bn));
        Self {
            first,
            last,
            shortcut,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let residual = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x.clone(), None, false),
            None => x.clone(),
        };
        let x = self.first.iter().fold(x, |x, c| c.forward(x, None, true));
        self.last.forward(x, Some(residual), true)
    }
}

/// An [`Encoder`] that does not change any more. Its features are those of the encoder in evaluation mode, to rounding.
pub struct FrozenEncoder {
    /// The first convolution.
    pub stem: Folded,
    /// Whether maxima are taken behind it.
    pub is_pooled: bool,
    /// In the order in which they follow each other.
    pub blocks: Vec<FrozenBlock>,
    /// What is done to the images before.
    pub normalize: Option<Normalize>,
}

impl FrozenEncoder {
    /// Of `encoder` as it is now, on one route.
    ///
    /// # Panics
    /// When the encoder was built without this route.
    pub fn new(encoder: &Encoder, route: Route) -> Self {
        let blocks = encoder.blocks();
        Self {
            stem: Folded::new(&encoder.conv1, &encoder.bn1, route),
            is_pooled: encoder.is_pooled,
            blocks: blocks.map(|block| FrozenBlock::new(block, route)).collect(),
            normalize: encoder.normalize().cloned(),
        }
    }

    /// # Shapes
    /// `[batch, channels, height, width]` in [0, 1] to `[batch, features]`.
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        let images = Normalize::apply(self.normalize.as_ref(), images);
        let x = self.stem.forward(engine::inside(images), None, true);
        let x = match self.is_pooled {
            true => engine::max_pool(x),
            false => x,
        };
        engine::pool(self.blocks.iter().fold(x, |x, block| block.forward(x)))
    }
}

/// A classifier that does not change any more: what is evaluated and attacked.
pub struct FrozenClassifier {
    encoder: FrozenEncoder,
    linear: Linear,
}

impl FrozenClassifier {
    pub(super) fn new(encoder: FrozenEncoder, linear: Linear) -> Self {
        Self { encoder, linear }
    }

    /// # Shapes
    /// `[batch, channels, height, width]` in [0, 1] to logits `[batch, classes]`.
    pub fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.linear.forward(self.encoder.features(images))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use rand::RngExt;

    use super::*;
    use crate::nn::{Depth, EncoderConfig, Mode, Statistics, Stem};
    use crate::tensor::to_vec;
    use crate::{attack::pgd, device, random};

    #[test]
    fn features_and_their_gradients_are_those_of_evaluation_mode() {
        let _turn = engine::tests::Turn::take();
        let device = device::open("cpu").expect("the CPU");
        for (depth, stem) in [
            (Depth::D10, Stem::Cifar),
            (Depth::D50, Stem::Strided),
            (Depth::D18, Stem::Imagenet),
        ] {
            let mut rng = random::generator(1, "frozen", 0);
            let config = EncoderConfig {
                depth,
                width: 9,
                stem,
            };
            let encoder = Encoder::new(&config, 3, 2, &mut rng, &device);
            let mut images = || {
                let values: Vec<f32> = (0..5 * 3 * 81).map(|_| rng.random()).collect();
                Tensor::from_data(TensorData::new(values, [5, 3, 9, 9]), &device)
            };
            // Statistics that are not those of a fresh encoder.
            let mut seen = Statistics::default();
            encoder.features(images(), Route::Pgd, &mut Mode::Train(&mut seen));
            let encoder = seen.absorb_into(encoder);
            let frozen = FrozenEncoder::new(&encoder, Route::Pgd);
            let x = images();
            let thawed = |x| encoder.features(x, Route::Pgd, &mut Mode::Eval);
            let outputs = [thawed(x.clone()), frozen.features(x.clone())].map(to_vec);
            let gradients = [
                pgd::gradient(&mut |x| thawed(x).square().mean(), x.clone()),
                pgd::gradient(&mut |x| frozen.features(x).square().mean(), x),
            ]
            .map(to_vec);
            for [expected, found] in [outputs, gradients] {
                let size = expected.iter().map(|e| e * e).sum::<f32>().sqrt();
                let gaps = expected.iter().zip(&found).map(|(e, f)| (e - f).powi(2));
                let gap = gaps.sum::<f32>().sqrt();
                assert!(
                    size > 0.0 && gap < 1e-4 * size,
                    "{gap} of {size}, {depth:?}"
                );
            }
        }
    }
}
