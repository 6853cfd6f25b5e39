//! The CPU's own kernels, layer by layer, without Burn around them.

use serde::Serialize;

use super::{GemmPeak, Layer, Setup};
use crate::device;
use crate::error::Result;

/// Of a convolution or one of its gradients.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Speed {
    /// Of a call, the median.
    pub seconds: f64,
    /// [`Layer::operations`] of the batch over `seconds`, in 10⁹ a second.
    pub gflops: f64,
    /// `gflops` over the matrix product's; above 1 where Winograd saves more than it costs.
    pub of_gemm_peak: f64,
}

/// Of one kind of layer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LayerSpeed {
    /// Which.
    #[serde(flatten)]
    pub layer: Layer,
    /// The convolution.
    pub forward: Speed,
    /// The gradient of its input.
    pub data_gradient: Speed,
    /// The gradient of its weight.
    pub weight_gradient: Speed,
}

/// Bytes that each value costs, forward and backward. What does not fit the caches must pass this
/// often: the statistics need all values before the first output. So forward reads its input twice
/// and writes the output; backward reads gradient and input twice and writes a gradient.
pub const BATCH_NORM_BYTES: [usize; 2] = [12, 20];

/// Of one way through a BatchNorm.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bandwidth {
    /// Of a call, the median.
    pub seconds: f64,
    /// 10⁹ bytes a second, of [`BATCH_NORM_BYTES`].
    pub gb_per_second: f64,
}

/// Of a BatchNorm with ReLU that takes its statistics from the batch.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BatchNormSpeed {
    /// Of its input.
    pub channels: usize,
    /// Height and width of its input, in pixels.
    pub size: usize,
    /// Of the output.
    pub forward: Bandwidth,
    /// Of the gradients.
    pub backward: Bandwidth,
}

/// The outcome.
#[derive(Clone, Debug, Serialize)]
pub struct KernelSpeeds {
    /// Channels of the first stage.
    pub width: usize,
    /// Batch, channels, height, width.
    pub shape: [usize; 4],
    /// "avx512", "avx2", "neon" or "portable".
    pub instructions: &'static str,
    /// "winograd" (for 3 × 3 kernels of stride 1 with 8 channels or more, "direct" for the others)
    /// or "direct".
    pub algorithm: &'static str,
    /// That the kernels and the matrix product use.
    pub threads: usize,
    /// The fastest matrix product, measured before the layers.
    pub gemm: GemmPeak,
    /// The convolutions of a ResNet-18, in its order.
    pub layers: Vec<LayerSpeed>,
    /// One for each of its stages.
    pub batch_norm: Vec<BatchNormSpeed>,
}

/// Times each distinct layer of a ResNet-18 on the CPU; all figures are medians of `setup.runs`.
///
/// # Errors
/// [`Error::Recipe`](crate::Error::Recipe) for an impossible shape,
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
    use advcl_kernels::{Activation, Convolution, Packed, Way};
    use burn::tensor::Device;

    use super::*;
    use crate::bench::{gemm_peak, median, seconds};
    use crate::nn;

    /// A run of a short call repeats it for about as long: the clock and the threads' waking are
    /// coarser.
    const RUN_SECONDS: f64 = 0.003;

    /// The median time of a call, after one to warm up.
    fn typical<T>(runs: usize, mut call: impl FnMut() -> T) -> f64 {
        let mut work = || drop(call());
        work();
        let calls = (RUN_SECONDS / seconds(&mut work)).clamp(1.0, 1000.0).ceil() as usize;
        let run = |_| seconds(&mut || (0..calls).for_each(|_| work())) / calls as f64;
        median(&(0..runs).map(run).collect::<Vec<_>>())
    }

    /// Values between -1/2 and 1/2.
    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect()
    }

    pub(super) fn all(setup: &Setup, device: &Device) -> KernelSpeeds {
        let gemm = gemm_peak(device);
        let in_use = nn::cpu_kernels().expect("the CPU is in this build");
        let layers = setup.layers();
        // The repeated layers are those that keep their shape: a stage's BatchNorms have it too.
        let stages = layers.iter().filter(|layer| layer.count > 1);
        KernelSpeeds {
            width: setup.width,
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
        // As in a step: packed once, used often.
        let [forward, back] = [Way::Forward, Way::Back].map(|way| Packed::new(&conv, &w, way));
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

    fn batch_norm(setup: &Setup, layer: &Layer) -> BatchNormSpeed {
        let (channels, epsilon) = (layer.output, 1e-5);
        let count = layer.size * layer.size * setup.batch * channels;
        let (x, mut dy) = (values(count), values(count));
        // About the input's deviation, so that a gradient that is transformed in place keeps its
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
