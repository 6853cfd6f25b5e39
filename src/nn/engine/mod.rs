//! The encoder's operations on `[height, width, batch, channels]` activations, differentiable on every device.
//!
//! One trait says what they are. Its bodies compose Burn's own operations ([`composite`]), which GPUs run fused; for BatchNorm
//! they have kernels of our own ([`cube`]). On the CPU, [`flex`] puts the kernels of `advcl-kernels` in their place.
//! [`autodiff`] gives each its way back, once for all backends: gradients that nobody asks for are not computed.

mod autodiff;
mod composite;
#[cfg(feature = "_gpu")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "flex")]
mod packs;
#[cfg(all(test, feature = "flex"))]
pub(super) mod tests;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Device, Shape, Tensor};
use serde::{Deserialize, Serialize};

use crate::ranks;

/// How the CPU computes convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuKernels {
    /// "amx", "avx512", "avx2", "neon" or "portable".
    pub instructions: &'static str,
    /// Whether convolutions multiply bf16 when they are asked to.
    pub bf16: bool,
    /// Winograd's algorithm for 3 × 3 convolutions of stride 1, about 1e-5 off; else direct sums.
    pub winograd: bool,
}

impl CpuKernels {
    /// "winograd" or "direct".
    pub fn algorithm(&self) -> &'static str {
        if self.winograd { "winograd" } else { "direct" }
    }
}

/// What is in use on the CPU; none in a build without it.
pub fn cpu_kernels() -> Option<CpuKernels> {
    #[cfg(feature = "flex")]
    return Some(flex::in_use());
    #[cfg(not(feature = "flex"))]
    None
}

/// The instruction sets that this processor has, best first.
pub fn instruction_sets() -> Vec<&'static str> {
    #[cfg(feature = "flex")]
    return advcl_kernels::available()
        .into_iter()
        .map(|isa| isa.name())
        .collect();
    #[cfg(not(feature = "flex"))]
    Vec::new()
}

/// Chooses for the rest of the process: an instruction set by name, or none for the best, and the algorithm.
///
/// # Errors
/// [`crate::Error::Device`] for an instruction set that this processor does not have.
pub fn choose_cpu_kernels(instructions: Option<&str>, winograd: bool) -> crate::Result<()> {
    #[cfg(feature = "flex")]
    flex::choose(instructions, winograd)?;
    let _ = (instructions, winograd);
    Ok(())
}

/// What convolutions multiply. Sums, BatchNorm and weights are f32 always.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// bf16 on the CPU, where the processor has it ([`has_bf16`]) and the shape allows; else f32.
    Bf16,
    /// The faster one on the device: bf16 on a CPU whose processor has it, else f32.
    Auto,
}

/// Whether this processor multiplies bf16.
pub fn has_bf16() -> bool {
    #[cfg(feature = "flex")]
    return advcl_kernels::has_bf16();
    #[cfg(not(feature = "flex"))]
    false
}

/// Whether convolutions of this precision multiply bf16 on `device`, with the kernels that were chosen.
pub(crate) fn multiplies_bf16(device: &Device, precision: Precision) -> bool {
    precision != Precision::F32
        && crate::device::name(device) == "cpu"
        && cpu_kernels().is_some_and(|kernels| kernels.bf16)
}

/// How this process computes on `device`, as far as it changes the last bits of a result: "cpu, avx512, winograd,
/// f32".
pub fn arithmetic(device: &Device, precision: Precision) -> String {
    let name = crate::device::name(device);
    match cpu_kernels() {
        Some(kernels) if name == "cpu" => {
            let products = match multiplies_bf16(device, precision) {
                true => "bf16",
                false => "f32",
            };
            let instructions = match kernels.instructions {
                // Tiles multiply bf16 alone: the rest has the bits of AVX-512.
                "amx" if products == "f32" => "avx512",
                instructions => instructions,
            };
            let algorithm = kernels.algorithm();
            format!("{name}, {instructions}, {algorithm}, {products}")
        }
        _ => format!("{name}, f32"),
    }
}

/// How all ranks compute, each of which takes part: as one process, see [`arithmetic`], or where they differ each way once, "cpu,
/// avx512, winograd, f32 beside cpu, avx2, winograd, f32". What depends on it is decided alike by all.
pub fn arithmetic_of_all_ranks(device: &Device, precision: Precision) -> String {
    ranks::different("arithmetic", arithmetic(device, precision)).join(" beside ")
}

/// Runs `work` with convolutions of this precision, in the whole process; then f32 again.
pub fn with_precision<R>(precision: Precision, work: impl FnOnce() -> R) -> R {
    #[cfg(feature = "flex")]
    let _then = flex::WithPrecision::new(precision);
    #[cfg(not(feature = "flex"))]
    let _ = precision;
    work()
}

/// To be called after convolutions' weights were replaced: lets go of what was made of the old ones.
pub(crate) fn weights_replaced() {
    #[cfg(feature = "flex")]
    packs::forget();
}

/// Added to a variance before its root is taken.
pub(super) const EPSILON: f64 = 1e-5;

/// `[height, width, batch, channels]` as `[rows, channels]`.
fn rows(shape: &Shape) -> Shape {
    let channels = shape[3];
    Shape::new([shape.num_elements() / channels.max(1), channels])
}

/// Output, mean, biased variance, and the shift after centring and scaling; or as many gradients.
pub(super) type Normed<B> = (
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
);

/// The operations. Activations are `[height, width, batch, channels]`, weights `[out, in, kernel, kernel]`.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "_gpu"),
    Fusion: cfg(feature = "_gpu"),
    Autodiff
)]
#[allow(clippy::type_complexity)] // the macro wants tuples spelt out
pub(super) trait EngineOps: Backend {
    /// Convolution whose padding keeps the size at stride 1.
    #[fusion(default)]
    fn engine_conv(x: FloatTensor<Self>, w: FloatTensor<Self>, stride: usize) -> FloatTensor<Self> {
        composite::conv::<Self>(x, w, stride)
    }

    /// The gradient of its input, which had `x`'s shape.
    #[fusion(default)]
    fn engine_conv_data(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        stride: usize,
    ) -> FloatTensor<Self> {
        composite::conv_data::<Self>(x, w, dy, stride)
    }

    /// The gradient of its weight, which had `w`'s shape.
    #[fusion(default)]
    fn engine_conv_weight(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        stride: usize,
    ) -> FloatTensor<Self> {
        composite::conv_weight::<Self>(x, w, dy, stride)
    }

    /// As [`EngineOps::engine_conv`], then `+ shift`, one of each channel, and ReLU where asked for: BatchNorm in
    /// evaluation mode whose scale is in the weight.
    #[fusion(default)]
    fn engine_conv_shift(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        stride: usize,
        relu: bool,
    ) -> FloatTensor<Self> {
        composite::conv_shift::<Self>(x, w, shift, stride, relu)
    }

    /// As [`EngineOps::engine_conv_shift`], with a residual added before ReLU.
    #[fusion(default)]
    fn engine_conv_shift_add(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        stride: usize,
    ) -> FloatTensor<Self> {
        composite::conv_shift_add::<Self>(x, w, shift, residual, stride)
    }

    /// The gradient behind ReLU, given its output.
    #[fusion(default)]
    fn engine_relu_backward(dy: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        composite::relu_backward::<Self>(dy, y)
    }

    /// Mean over the pixels: `[height, width, batch, channels]` to `[batch, channels]`.
    #[fusion(default)]
    fn engine_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        composite::pool::<Self>(x)
    }

    /// The gradient of its input, which had `x`'s shape.
    #[fusion(default)]
    fn engine_pool_backward(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        composite::pool_backward::<Self>(x, dy)
    }

    /// Maxima of 3 × 3 pixels, two apart, padded by one: half the height and width, rounded up.
    #[fusion(default)]
    fn engine_max_pool(x: FloatTensor<Self>) -> FloatTensor<Self> {
        composite::max_pool::<Self>(x)
    }

    /// The gradient of its input `x`, given its output `y`: each goes to the first pixel that has the maximum.
    #[fusion(default)]
    fn engine_max_pool_backward(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        composite::max_pool_backward::<Self>(x, y, dy)
    }

    /// BatchNorm with the batch's statistics, then ReLU where asked for.
    #[fusion(meta = |x, weight, bias, _relu| (x.clone(), weight.clone(), weight.clone(), bias.clone()))]
    fn engine_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        relu: bool,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        composite::norm::<Self>(x, weight, bias, relu)
    }

    /// As [`EngineOps::engine_norm`], with a residual added before ReLU.
    #[fusion(meta = |x, weight, bias, _residual| (x.clone(), weight.clone(), weight.clone(), bias.clone()))]
    fn engine_norm_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        residual: FloatTensor<Self>,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        composite::norm_add::<Self>(x, weight, bias, residual)
    }

    /// The gradients of [`EngineOps::engine_norm`]'s input, weight and bias; `y` is its output. From `x` and `shift` it
    /// can be made again, which a backend may find cheaper than to read it.
    #[allow(clippy::too_many_arguments)]
    #[fusion(meta = |_dy, x, _y, weight, _mean, _var, _shift, _relu| (x.clone(), weight.clone(), weight.clone()))]
    fn engine_norm_backward(
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        var: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        relu: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        composite::norm_backward::<Self>(dy, x, y, weight, mean, var, shift, relu)
    }

    /// The gradients of [`EngineOps::engine_norm_add`]'s input, weight, bias and residual.
    #[fusion(meta = |_dy, x, _y, weight, _mean, _var, _shift| (x.clone(), weight.clone(), weight.clone(), x.clone()))]
    fn engine_norm_add_backward(
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        var: FloatTensor<Self>,
        shift: FloatTensor<Self>,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    ) {
        composite::norm_add_backward::<Self>(dy, x, y, weight, mean, var, shift)
    }

    /// `x · scale + shift`, one of each a channel, then ReLU where asked for: BatchNorm in evaluation mode.
    #[fusion(default)]
    fn engine_affine(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self> {
        composite::affine::<Self>(x, scale, shift, relu)
    }

    /// As [`EngineOps::engine_affine`], with a residual added before ReLU.
    #[fusion(default)]
    fn engine_affine_add(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        residual: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        composite::affine_add::<Self>(x, scale, shift, residual)
    }

    /// The gradient of [`EngineOps::engine_affine`]'s input.
    #[fusion(default)]
    fn engine_affine_backward(
        dy: FloatTensor<Self>,
        y: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        relu: bool,
    ) -> FloatTensor<Self> {
        composite::affine_backward::<Self>(dy, y, scale, relu)
    }

    /// The gradients of [`EngineOps::engine_affine_add`]'s input and residual.
    #[fusion(default)]
    fn engine_affine_add_backward(
        dy: FloatTensor<Self>,
        y: FloatTensor<Self>,
        scale: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composite::affine_add_backward::<Self>(dy, y, scale)
    }
}

/// Images in the engine's layout: all images' values of a pixel together.
///
/// # Shapes
/// `[batch, channels, height, width]` to `[height, width, batch, channels]`.
pub(super) fn inside(images: Tensor<4>) -> Tensor<4> {
    images.permute([2, 3, 0, 1])
}

/// # Shapes
/// `[height, width, batch, in]` to `[⌈height / stride⌉, ⌈width / stride⌉, batch, out]`; `weight` is
/// `[out, in, kernel, kernel]`.
pub(super) fn conv(x: Tensor<4>, weight: Tensor<4>, stride: usize) -> Tensor<4> {
    let y = <Dispatch as EngineOps>::engine_conv(x.into_dispatch(), weight.into_dispatch(), stride);
    Tensor::from_dispatch(y)
}

/// Convolution, `+ shift` of each output channel, plus the residual and ReLU where asked for (a residual wants ReLU).
///
/// # Shapes
/// As [`conv`]; `shift` `[out]`, the residual as the result.
pub(super) fn conv_shift(
    x: Tensor<4>,
    weight: Tensor<4>,
    shift: Tensor<1>,
    residual: Option<Tensor<4>>,
    stride: usize,
    relu: bool,
) -> Tensor<4> {
    let (x, w, shift) = (
        x.into_dispatch(),
        weight.into_dispatch(),
        shift.into_dispatch(),
    );
    Tensor::from_dispatch(match residual {
        Some(r) => {
            <Dispatch as EngineOps>::engine_conv_shift_add(x, w, shift, r.into_dispatch(), stride)
        }
        None => <Dispatch as EngineOps>::engine_conv_shift(x, w, shift, stride, relu),
    })
}

/// Mean over the pixels.
///
/// # Shapes
/// `[height, width, batch, channels]` to `[batch, channels]`.
pub(super) fn pool(x: Tensor<4>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as EngineOps>::engine_pool(x.into_dispatch()))
}

/// Maxima of 3 × 3 pixels, two apart, padded by one, as behind the first layer of ResNets for large images.
///
/// # Shapes
/// `[height, width, batch, channels]` to `[⌈height / 2⌉, ⌈width / 2⌉, batch, channels]`.
pub(super) fn max_pool(x: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as EngineOps>::engine_max_pool(x.into_dispatch()))
}

/// BatchNorm with the batch's statistics, plus the residual and ReLU where asked for (a residual wants ReLU):
/// output, mean, biased variance.
///
/// # Shapes
/// `[height, width, batch, channels]`, kept; parameters and statistics `[channels]`.
pub(super) fn norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    residual: Option<Tensor<4>>,
    relu: bool,
) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    let (x, weight, bias) = (
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    );
    let (y, mean, var, _shift) = match residual {
        Some(r) => <Dispatch as EngineOps>::engine_norm_add(x, weight, bias, r.into_dispatch()),
        None => <Dispatch as EngineOps>::engine_norm(x, weight, bias, relu),
    };
    (
        Tensor::from_dispatch(y),
        Tensor::from_dispatch(mean),
        Tensor::from_dispatch(var),
    )
}

/// `x · scale + shift`, plus the residual and ReLU as in [`norm`]. Shapes as there.
pub(super) fn affine(
    x: Tensor<4>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    residual: Option<Tensor<4>>,
    relu: bool,
) -> Tensor<4> {
    let (x, scale, shift) = (
        x.into_dispatch(),
        scale.into_dispatch(),
        shift.into_dispatch(),
    );
    Tensor::from_dispatch(match residual {
        Some(r) => <Dispatch as EngineOps>::engine_affine_add(x, scale, shift, r.into_dispatch()),
        None => <Dispatch as EngineOps>::engine_affine(x, scale, shift, relu),
    })
}
