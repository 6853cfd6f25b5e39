//! A ResNet-18's convolutions, and how many operations they are.

use serde::Serialize;

/// Equal convolutions of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// Channels of the input.
    pub input: usize,
    /// Channels of the output.
    pub output: usize,
    /// Height and width of the input, in pixels.
    pub size: usize,
    /// 1 or 3.
    pub kernel: usize,
    /// 1 or 2.
    pub stride: usize,
    /// How often the encoder has it.
    pub count: usize,
}

impl Layer {
    /// Operations of one pass over one image, as a direct convolution: two (multiply, add) for each
    /// output value, input channel and place of the kernel, the padding's zeros included. The
    /// gradient of the input and that of the weight are sums of the same products, so each is as
    /// many again.
    pub fn operations(&self) -> f64 {
        let pixels = self.size.div_ceil(self.stride).pow(2);
        2.0 * (pixels * self.output * self.input * self.kernel.pow(2)) as f64
    }
}

/// The distinct convolutions of a ResNet-18 with a 3 × 3 stem of stride 1, in its order, for images
/// of `size` × `size` pixels. The stem is first.
pub fn resnet18(width: usize, channels: usize, size: usize) -> Vec<Layer> {
    let layer = |input, output, size, kernel, stride, count| Layer {
        input,
        output,
        size,
        kernel,
        stride,
        count,
    };
    let mut layers = vec![
        layer(channels, width, size, 3, 1, 1),
        layer(width, width, size, 3, 1, 4),
    ];
    let (mut channels, mut size) = (width, size);
    for _ in 1..4 {
        let (wider, smaller) = (2 * channels, size.div_ceil(2));
        layers.push(layer(channels, wider, size, 3, 2, 1));
        layers.push(layer(channels, wider, size, 1, 2, 1));
        layers.push(layer(wider, wider, smaller, 3, 1, 3));
        (channels, size) = (wider, smaller);
    }
    layers
}

/// How often an image goes through an encoder, and which gradients come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// Forward.
    pub forward: usize,
    /// Back to the image: attacks. No gradient of a weight is computed there.
    pub to_images: usize,
    /// Back to the weights: updates. The image needs no gradient there.
    pub to_weights: usize,
}

impl Passes {
    /// An AdvCL step. The three clean views are forwarded once, as they do not depend on the
    /// perturbation; each of the two adversarial views is forwarded and differentiated in each
    /// attack step; then both are forwarded once more, and the update differentiates all five.
    pub fn advcl_step(attack_steps: usize) -> Self {
        Self {
            forward: 3 + 2 * attack_steps + 2,
            to_images: 2 * attack_steps,
            to_weights: 5,
        }
    }

    /// Clean and robust predictions of every image: forward, the attack, forward.
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
    /// Every way back goes through the gradient of every layer's input, but the stem's is the
    /// image's. BatchNorm, heads, losses and augmentation are not counted: they have few
    /// operations, and are bound by memory.
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
