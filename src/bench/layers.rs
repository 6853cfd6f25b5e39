//! Convolutions of a ResNet-18, and their numbers of operations.

use serde::Serialize;

use crate::nn::Stem;

/// Convolution of an encoder, with the number of its occurrences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Channels of the input.
    pub input: usize,
    /// Channels of the output.
    pub output: usize,
    /// Height and width of the input, in pixels.
    pub size: usize,
    /// Height and width of the kernel: 1, 3 or 7.
    pub kernel: usize,
    /// Stride: 1 or 2.
    pub stride: usize,
    /// Number of occurrences in the encoder.
    pub count: usize,
}

impl Layer {
    /// Number of operations for one image, as a direct convolution: two (multiply, add) for each
    /// output value, input channel and kernel position, with the zeros of the padding. The
    /// gradients of input and weight are sums of the same products, so each needs as many
    /// operations.
    pub fn operations(&self) -> f64 {
        let pixels = self.size.div_ceil(self.stride).pow(2);
        2.0 * (pixels * self.output * self.input * self.kernel.pow(2)) as f64
    }
}

/// Lists the distinct convolutions of a ResNet-18 for images of `size` × `size` pixels, in order,
/// beginning with the stem.
pub fn resnet18(stem: Stem, width: usize, channels: usize, size: usize) -> Vec<Layer> {
    let layer = |input, output, size, kernel, stride, count| Layer {
        input,
        output,
        size,
        kernel,
        stride,
        count,
    };
    let first = layer(channels, width, size, stem.kernel(), stem.stride(), 1);
    let mut size = size.div_ceil(stem.stride());
    if stem.is_pooled() {
        size = size.div_ceil(2);
    }
    let mut layers = vec![first, layer(width, width, size, 3, 1, 4)];
    let mut channels = width;
    for _ in 1..4 {
        let (wider, smaller) = (2 * channels, size.div_ceil(2));
        layers.push(layer(channels, wider, size, 3, 2, 1));
        layers.push(layer(channels, wider, size, 1, 2, 1));
        layers.push(layer(wider, wider, smaller, 3, 1, 3));
        (channels, size) = (wider, smaller);
    }
    layers
}

/// Numbers of forward and backward passes of an image through an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// Forward passes.
    pub forward: usize,
    /// Backward passes to the image, in attacks. They compute no gradients of weights.
    pub to_images: usize,
    /// Backward passes to the weights, in updates. They compute no gradient of the image.
    pub to_weights: usize,
}

impl Passes {
    /// Passes of an AdvCL step. The three clean views are forwarded once, since they do not depend
    /// on the perturbation; each of the two adversarial views is forwarded and differentiated in
    /// each attack step; then both are forwarded once more, and the update differentiates all five
    /// views.
    pub fn advcl_step(attack_steps: usize) -> Self {
        Self {
            forward: 3 + 2 * attack_steps + 2,
            to_images: 2 * attack_steps,
            to_weights: 5,
        }
    }

    /// Passes of an evaluation: clean prediction, attack, prediction of the adversarial image.
    pub fn evaluation(attack_steps: usize) -> Self {
        Self {
            forward: 1 + attack_steps + 1,
            to_images: attack_steps,
            to_weights: 0,
        }
    }

    /// Direct-equivalent operations of the convolutions for one image; the first of `layers` is the
    /// stem.
    ///
    /// Every backward pass computes the gradient of every layer's input, except that of the stem,
    /// which is the image. BatchNorm, heads, losses and augmentation are not counted: they have few
    /// operations and are limited by memory bandwidth.
    pub fn operations(&self, layers: &[Layer]) -> f64 {
        let of = |(index, layer): (usize, &Layer)| {
            let updates = if index == 0 { 0 } else { self.to_weights };
            let data_gradients = self.to_images + updates;
            let passes = self.forward + data_gradients + self.to_weights;
            (passes * layer.count) as f64 * layer.operations()
        };
        layers.iter().enumerate().map(of).sum()
    }
}
