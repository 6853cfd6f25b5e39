//! The layers of a ResNet-18 of width 64 on a batch of 32 images: `cargo bench -p advcl-kernels`.
//!
//! "Gitem/s" are 10⁹ direct-equivalent operations a second: two a product of the plain sum, whatever algorithm is
//! used. A part of a name after `--` chooses benches. Every call allocates its result with the system's settings; the
//! program keeps large buffers, so `advcl bench kernels` is faster, and takes any shape.

use std::fmt;

use advcl_kernels::{
    Activation, BatchNormOutput, BatchNormState, Convolution, backward_data, backward_weight,
    batch_norm, batch_norm_backward, forward,
};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

fn main() {
    divan::main();
}

const BATCH: usize = 32;

/// Channels in and out, height and width of the input, kernel, stride.
struct Layer([usize; 5]);

const LAYERS: [Layer; 7] = [
    Layer([3, 64, 32, 3, 1]),
    Layer([64, 64, 32, 3, 1]),
    Layer([64, 128, 32, 3, 2]),
    Layer([64, 128, 32, 1, 2]),
    Layer([128, 128, 16, 3, 1]),
    Layer([256, 256, 8, 3, 1]),
    Layer([512, 512, 4, 3, 1]),
];

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [input, output, size, kernel, stride] = self.0;
        write!(
            f,
            "{input} to {output} at {size}, kernel {kernel}, stride {stride}"
        )
    }
}

impl Layer {
    fn convolution(&self) -> Convolution {
        let [input, output, size, kernel, stride] = self.0;
        Convolution {
            input: Activation {
                height: size,
                width: size,
                batch: BATCH,
                channels: input,
            },
            channels: output,
            kernel,
            stride,
        }
    }
}

/// Of one way through the convolution.
fn operations(conv: &Convolution) -> ItemsCount {
    let products = conv.output().len() * conv.input.channels * conv.kernel * conv.kernel;
    ItemsCount::new(2 * products)
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect()
}

mod convolution {
    use super::*;

    #[divan::bench(args = LAYERS)]
    fn forwards(bencher: Bencher, layer: &Layer) {
        let conv = layer.convolution();
        let (x, w) = (values(conv.input.len()), values(conv.weight_len()));
        bencher
            .counter(operations(&conv))
            .bench_local(|| forward(&conv, &x, &w));
    }

    #[divan::bench(args = LAYERS)]
    fn gradient_of_input(bencher: Bencher, layer: &Layer) {
        let conv = layer.convolution();
        let (dy, w) = (values(conv.output().len()), values(conv.weight_len()));
        bencher
            .counter(operations(&conv))
            .bench_local(|| backward_data(&conv, &dy, &w));
    }

    #[divan::bench(args = LAYERS)]
    fn gradient_of_weight(bencher: Bencher, layer: &Layer) {
        let conv = layer.convolution();
        let (x, dy) = (values(conv.input.len()), values(conv.output().len()));
        bencher
            .counter(operations(&conv))
            .bench_local(|| backward_weight(&conv, &x, &dy));
    }
}

/// BatchNorm with ReLU. Forward reads its input twice and writes once; backward reads gradient, input and output twice
/// and writes once.
mod norm {
    use super::*;

    const EPSILON: f64 = 1e-5;

    /// Channels, height and width.
    const SHAPES: [(usize, usize); 4] = [(64, 32), (128, 16), (256, 8), (512, 4)];

    fn once(x: &[f32], channels: usize) -> BatchNormOutput {
        let (weight, bias) = (vec![1.0; channels], vec![0.0; channels]);
        batch_norm(x, &weight, &bias, None, true, EPSILON)
    }

    #[divan::bench(args = SHAPES)]
    fn forwards(bencher: Bencher, (channels, size): (usize, usize)) {
        let x = values(size * size * BATCH * channels);
        bencher
            .counter(BytesCount::new(12 * x.len()))
            .bench_local(|| once(&x, channels));
    }

    #[divan::bench(args = SHAPES)]
    fn backward(bencher: Bencher, (channels, size): (usize, usize)) {
        let x = values(size * size * BATCH * channels);
        let out = once(&x, channels);
        // About the input's deviation, so that a gradient that is transformed in place keeps its size.
        let (mut dy, weight) = (x.clone(), vec![0.29; channels]);
        let state = BatchNormState {
            weight: &weight,
            mean: &out.mean,
            var: &out.var,
            shift: &out.shift,
        };
        bencher
            .counter(BytesCount::new(20 * x.len()))
            .bench_local(|| batch_norm_backward(&mut dy, &x, state, true, EPSILON));
    }
}
