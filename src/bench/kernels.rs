//! Benchmark of the CPU kernels, layer by layer, without Burn.

use serde::Serialize;

use super::layers::Layer;
use super::machine::GemmPeak;
use super::setup::Setup;
use crate::device;
use crate::error::Result;
use crate::nn::Stem;

/// Speed of a convolution or of one of its gradients.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Speed {
    /// Median duration of a call.
    pub seconds: f64,
    /// [`Layer::operations`] of the batch divided by `seconds`, in 10⁹ per second.
    pub gflops: f64,
    /// `gflops` relative to the matrix product; above 1 if Winograd saves more than it costs.
    pub of_gemm_peak: f64,
}

/// Speed of one convolution layer and of its gradients.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LayerSpeed {
    /// The layer.
    #[serde(flatten)]
    pub layer: Layer,
    /// The convolution.
    pub forward: Speed,
    /// The gradient of its input.
    pub data_gradient: Speed,
    /// The gradient of its weight.
    pub weight_gradient: Speed,
}

/// Memory traffic of BatchNorm in bytes per value, forward and backward, if the values do not fit
/// into the caches.
///
/// The statistics need all values before the first output. So the forward pass reads its input
/// twice and writes the output; the backward pass reads gradient and input twice and writes a
/// gradient.
pub const BATCH_NORM_BYTES: [usize; 2] = [12, 20];

/// Memory bandwidth of a BatchNorm pass.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bandwidth {
    /// Median duration of a call.
    pub seconds: f64,
    /// [`BATCH_NORM_BYTES`] of all values divided by `seconds`, in 10⁹ per second.
    pub gb_per_second: f64,
}

/// Speed of a BatchNorm with ReLU, with statistics of the batch.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BatchNormSpeed {
    /// Channels of its input.
    pub channels: usize,
    /// Height and width of its input, in pixels.
    pub size: usize,
    /// The forward pass.
    pub forward: Bandwidth,
    /// The backward pass.
    pub backward: Bandwidth,
}

/// Results of [`kernels`].
#[derive(Clone, Debug, Serialize)]
pub struct KernelSpeeds {
    /// Channels of the first stage.
    pub width: usize,
    /// First layer.
    pub stem: Stem,
    /// Batch, channels, height, width.
    pub shape: [usize; 4],
    /// Instruction set: "amx", "avx512", "avx2", "neon" or "portable".
    pub instructions: &'static str,
    /// Convolution algorithm: "direct", or "winograd", which is used for 3 × 3 kernels of stride 1
    /// with at least 8 channels.
    pub algorithm: &'static str,
    /// Threads of the kernels and of the matrix product.
    pub threads: usize,
    /// Fastest matrix product, measured before the layers.
    pub gemm: GemmPeak,
    /// Convolutions of a ResNet-18, in its order.
    pub layers: Vec<LayerSpeed>,
    /// BatchNorm of each stage.
    pub batch_norm: Vec<BatchNormSpeed>,
}

/// Times each distinct layer of a ResNet-18 on the CPU. All results are medians of `setup.runs`
/// measurements.
///
/// # Errors
/// [`Error::Recipe`](crate::Error::Recipe) for sizes that cannot be timed,
/// [`Error::Device`](crate::Error::Device) in a build without the CPU.
pub fn kernels(setup: &Setup) -> Result<KernelSpeeds> {
    setup.check("bench kernels", 1)?;
    let device = device::open("cpu")?;
    #[cfg(feature = "flex")]
    return Ok(timed::all(setup, &device));
    #[cfg(not(feature = "flex"))]
    unreachable!("{device:?} comes with the kernels")
}

#[cfg(feature = "flex")]
mod timed {
    use advcl_kernels as kernels;
    use advcl_kernels::{Activation, Convolution, Packed, Pass};
    use burn::tensor::Device;

    use super::*;
    use crate::bench::machine::{gemm_peak, seconds};
    use crate::bench::setup::median;
    use crate::nn;

    /// Duration of a measurement: a short call is repeated, because the clock and the wake-up of
    /// threads are coarse.
    const RUN_SECONDS: f64 = 0.003;

    /// Median duration of a call, after one warm-up.
    fn typical<T>(runs: usize, mut call: impl FnMut() -> T) -> f64 {
        let mut work = || drop(call());
        work();
        let calls = (RUN_SECONDS / seconds(&mut work)).clamp(1.0, 1000.0).ceil() as usize;
        let run = |_| seconds(&mut || (0..calls).for_each(|_| work())) / calls as f64;
        median(&(0..runs).map(run).collect::<Vec<_>>())
    }

    /// Makes values between -1/2 and 1/2.
    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect()
    }

    /// Times all layers.
    pub(super) fn all(setup: &Setup, device: &Device) -> KernelSpeeds {
        let gemm = gemm_peak(device);
        let in_use = nn::cpu_kernels().expect("the CPU is in this build");
        let layers = setup.layers();
        // Repeated layers keep their shape, which is also that of their stage's BatchNorms.
        let stages = layers.iter().filter(|layer| layer.count > 1);
        KernelSpeeds {
            width: setup.width,
            stem: setup.stem,
            shape: setup.shape(),
            instructions: in_use.instructions,
            algorithm: if in_use.winograd {
                "winograd"
            } else {
                "direct"
            },
            threads: rayon::current_num_threads(),
            gemm,
            batch_norm: stages.map(|layer| batch_norm(setup, layer)).collect(),
            layers: layers
                .iter()
                .map(|layer| convolution(setup, layer, gemm))
                .collect(),
        }
    }

    /// Times a convolution and its gradients.
    fn convolution(setup: &Setup, layer: &Layer, gemm: GemmPeak) -> LayerSpeed {
        let conv = Convolution {
            input: Activation {
                height: layer.size,
                width: layer.size,
                batch: setup.batch,
                channels: layer.input,
            },
            channels: layer.output,
            kernel: layer.kernel,
            stride: layer.stride,
        };
        let x = values(conv.input.len());
        let w = values(conv.weight_len());
        let dy = values(conv.output().len());
        // Weights are packed once and used often, as in a training step.
        let [forward, back] =
            [Pass::Forward, Pass::Backward].map(|pass| Packed::new(&conv, &w, pass));
        let speed = |seconds: f64| {
            let gflops = layer.operations() * setup.batch as f64 / seconds / 1e9;
            Speed {
                seconds,
                gflops,
                of_gemm_peak: gflops / gemm.gflops,
            }
        };
        let runs = setup.runs;
        LayerSpeed {
            layer: *layer,
            forward: speed(typical(runs, || kernels::convolve(&conv, &x, &forward))),
            data_gradient: speed(typical(runs, || kernels::convolve(&conv, &dy, &back))),
            weight_gradient: speed(typical(runs, || kernels::backward_weight(&conv, &x, &dy))),
        }
    }

    /// Times a BatchNorm with ReLU, forward and backward.
    fn batch_norm(setup: &Setup, layer: &Layer) -> BatchNormSpeed {
        let (channels, epsilon) = (layer.output, 1e-5);
        let count = layer.size * layer.size * setup.batch * channels;
        let (x, mut dy) = (values(count), values(count));
        // About the deviation of the input, so that the gradient, transformed in place, keeps its
        // size.
        let (weight, bias) = (vec![0.29; channels], vec![0.0; channels]);
        let forward = || kernels::batch_norm(&x, &weight, &bias, None, true, epsilon);
        let out = forward();
        let state = kernels::BatchNormState {
            weight: &weight,
            mean: &out.mean,
            var: &out.var,
            shift: &out.shift,
        };
        let backward = || kernels::batch_norm_backward(&mut dy, &x, state, true, epsilon);
        let bandwidth = |bytes: usize, seconds: f64| Bandwidth {
            seconds,
            gb_per_second: (bytes * count) as f64 / seconds / 1e9,
        };
        BatchNormSpeed {
            channels,
            size: layer.size,
            forward: bandwidth(super::BATCH_NORM_BYTES[0], typical(setup.runs, forward)),
            backward: bandwidth(super::BATCH_NORM_BYTES[1], typical(setup.runs, backward)),
        }
    }
}
