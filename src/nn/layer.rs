//! Convolution and linear layer, with PyTorch's weight layout and initialisation.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::engine;

/// A tensor of uniform numbers in [-bound, bound], drawn on the host.
fn uniform<const D: usize>(
    shape: [usize; D],
    bound: f32,
    rng: &mut ChaCha8Rng,
    device: &Device,
) -> Tensor<D> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| rng.random_range(-bound..=bound))
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A tensor of normal numbers with mean 0, drawn on the host.
fn normal<const D: usize>(
    shape: [usize; D],
    deviation: f32,
    rng: &mut ChaCha8Rng,
    device: &Device,
) -> Tensor<D> {
    let count = shape.iter().product();
    let values: Vec<f32> = rng.sample_iter(StandardNormal).take(count).collect();
    Tensor::from_data(TensorData::new(values, shape), device) * deviation
}

/// Convolution without bias; its padding keeps the size at stride 1 (kernel 1, 3 or 7).
#[derive(Module, Debug)]
pub struct Conv {
    /// `[out, in, kernel, kernel]`.
    pub weight: Param<Tensor<4>>,
    /// In both directions.
    pub stride: usize,
}

impl Conv {
    /// Kaiming normal, fan out, gain of ReLU: the paper's released initialisation.
    pub fn new(
        [input, output, kernel]: [usize; 3],
        stride: usize,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Self {
        let deviation = (2.0 / (output * kernel * kernel) as f32).sqrt();
        let weight = normal([output, input, kernel, kernel], deviation, rng, device);
        Self {
            weight: Param::from_tensor(weight),
            stride,
        }
    }

    /// # Shapes
    /// `[height, width, batch, in]` to `[⌈height / stride⌉, ⌈width / stride⌉, batch, out]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        engine::conv(x, self.weight.val(), self.stride)
    }
}

/// Fully connected layer with bias.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`, PyTorch's layout, so that checkpoints need no transposing.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// Weight and bias uniform in ±1/√in, PyTorch's default.
    pub fn new(input: usize, output: usize, rng: &mut ChaCha8Rng, device: &Device) -> Self {
        let bound = 1.0 / (input as f32).sqrt();
        Self {
            weight: Param::from_tensor(uniform([output, input], bound, rng, device)),
            bias: Param::from_tensor(uniform([output], bound, rng, device)),
        }
    }

    /// Number of values in a weight file of one of this shape, saturating.
    pub fn values(input: usize, output: usize) -> usize {
        input.saturating_mul(output).saturating_add(output)
    }

    /// The same with all weights zero: every class equally probable.
    pub fn zeros(&self) -> Self {
        let device = self.weight.val().device();
        Self {
            weight: Param::from_tensor(Tensor::zeros(self.weight.val().dims(), &device)),
            bias: Param::from_tensor(Tensor::zeros(self.bias.val().dims(), &device)),
        }
    }

    /// How many values come out.
    pub fn outputs(&self) -> usize {
        self.bias.val().dims()[0]
    }

    /// # Shapes
    /// `[batch, in]` to `[batch, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }
}
