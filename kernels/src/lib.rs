//! Convolution and BatchNorm on the CPU for small images, forward and backward.
//!
//! Activations are `[height, width, batch, channels]`: all images' values of one pixel lie together. So an output
//! pixel of a 3 × 3 convolution is a sum of at most nine dense products (batch × in) · (in × out) over contiguous
//! rows: no im2col, no padding, and stride 2 or the way back are other lists of products for the same kernel. A
//! channel's statistics run over contiguous rows as well.
//!
//! The work is cut the same way whatever the number of threads, so the results have the same bits.

mod direct;
mod element;
mod memory;
mod norm;
mod pack;
mod shape;
mod simd;
mod then;
mod tile;
mod winograd;

pub use norm::{
    BatchNormGradients, BatchNormOutput, BatchNormState, affine, affine_backward, batch_norm,
    batch_norm_add_backward, batch_norm_backward, relu_backward,
};
pub use pack::{Packed, Way};
pub use shape::{Activation, Convolution};
pub use simd::{Isa, available, detected, has_bf16, select};
pub use then::Epilogue;

use std::sync::atomic::{AtomicU8, Ordering};

use element::{Half, Single};
use then::Then;

/// How 3 × 3 convolutions of stride 1 are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// As sums of products: exact to rounding.
    Direct,
    /// Winograd's F(4 × 4, 3 × 3): a quarter of the multiplications, an error of about 1e-5.
    Winograd,
}

static ALGORITHM: AtomicU8 = AtomicU8::new(1);

/// Chooses the algorithm for all convolutions after this call.
pub fn set_algorithm(algorithm: Algorithm) {
    ALGORITHM.store(
        u8::from(algorithm == Algorithm::Winograd),
        Ordering::Relaxed,
    );
}

/// The algorithm in use.
pub fn algorithm() -> Algorithm {
    match ALGORITHM.load(Ordering::Relaxed) {
        0 => Algorithm::Direct,
        _ => Algorithm::Winograd,
    }
}

/// For sums over `depth` channels, Winograd where it is asked for and pays: few channels do not pay for the transforms, and
/// of a tile that reaches far over a small picture most is computed for nothing.
pub(crate) fn algorithm_of(conv: &Convolution, depth: usize) -> Algorithm {
    let Activation { height, width, .. } = conv.input;
    // Products of matrices that a direct sum takes: pairs of pixels that meet under the kernel.
    let meet = |side: usize| (3 * side).saturating_sub(2);
    let fits = conv.kernel == 3
        && conv.stride == 1
        && depth >= 8
        && meet(height) * meet(width) >= 2 * winograd::products(height, width);
    match algorithm() {
        Algorithm::Winograd if fits => Algorithm::Winograd,
        _ => Algorithm::Direct,
    }
}

/// What the products of convolutions are made of. Sums are f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// bf16, where the processor multiplies it and the shape allows: even depths forward and back; channels in
    /// sixteens and an even batch for the gradient of the weight.
    Bf16,
}

static PRECISION: AtomicU8 = AtomicU8::new(0);

/// Chooses the precision for all convolutions after this call.
pub fn set_precision(precision: Precision) {
    PRECISION.store(u8::from(precision == Precision::Bf16), Ordering::Relaxed);
}

/// The precision in use: bf16 where it was chosen, the processor has it, and AVX-512 was not forbidden.
pub fn precision() -> Precision {
    let chosen = PRECISION.load(Ordering::Relaxed) == 1;
    if chosen && detected() == Isa::Avx512 && has_bf16() {
        Precision::Bf16
    } else {
        Precision::F32
    }
}

/// The output, or the gradient of the input: what `packed` was made for.
///
/// Forward, `source` has the convolution's input shape and the result its output shape; back, the other way round.
///
/// # Panics
/// When `source` is not of its shape's length, or `packed` is another convolution's.
pub fn convolve(conv: &Convolution, source: &[f32], packed: &Packed) -> Vec<f32> {
    convolve_then(conv, source, packed, None)
}

/// As [`convolve`] forward, with what follows done before the output leaves the caches.
///
/// # Panics
/// As [`convolve`]; when `packed` was made for the way back, or the epilogue is not of the output's shape.
pub fn convolve_and(
    conv: &Convolution,
    source: &[f32],
    packed: &Packed,
    epilogue: &Epilogue,
) -> Vec<f32> {
    assert_eq!(packed.way, Way::Forward, "an epilogue follows the output");
    let then = Then::new(epilogue, conv.channels, conv.output().len());
    convolve_then(conv, source, packed, Some(&then))
}

fn convolve_then(
    conv: &Convolution,
    source: &[f32],
    packed: &Packed,
    then: Option<&Then>,
) -> Vec<f32> {
    conv.check_source(source, packed.way);
    assert_eq!(
        packed.shape,
        conv.weight_shape(),
        "the packed weight is another convolution's: [out, in, kernel, stride]"
    );
    assert_eq!(
        packed.columns.lanes,
        simd::lanes(),
        "the weight was packed for vectors of another length"
    );
    use Algorithm::{Direct, Winograd};
    use Precision::{Bf16, F32};
    match (packed.algorithm, packed.precision) {
        (Direct, F32) => direct::convolve::<Single>(conv, source, packed, then),
        (Direct, Bf16) => direct::convolve::<Half>(conv, source, packed, then),
        (Winograd, F32) => winograd::convolve::<Single>(conv, source, packed, then),
        (Winograd, Bf16) => winograd::convolve::<Half>(conv, source, packed, then),
    }
}

/// `y = x * w`. `x` has the convolution's input shape, `w` is `[out, in, kernel, kernel]`; the result has the
/// output shape.
///
/// # Panics
/// When a slice is not of its shape's length.
pub fn forward(conv: &Convolution, x: &[f32], w: &[f32]) -> Vec<f32> {
    convolve(conv, x, &Packed::new(conv, w, Way::Forward))
}

/// The gradient of the input: `dy` has the output shape, the result the input shape.
///
/// # Panics
/// As [`forward`].
pub fn backward_data(conv: &Convolution, dy: &[f32], w: &[f32]) -> Vec<f32> {
    convolve(conv, dy, &Packed::new(conv, w, Way::Back))
}

/// The gradient of the weight, `[out, in, kernel, kernel]`.
///
/// # Panics
/// As [`forward`].
pub fn backward_weight(conv: &Convolution, x: &[f32], dy: &[f32]) -> Vec<f32> {
    conv.check_weight_gradient(x, dy);
    let even = conv.input.batch.is_multiple_of(2)
        && conv.input.channels.is_multiple_of(16)
        && conv.channels.is_multiple_of(16);
    let fewest = conv.input.channels.min(conv.channels);
    match (algorithm_of(conv, fewest), precision()) {
        (Algorithm::Direct, Precision::Bf16) if even => {
            direct::weight_gradient::<Half>(conv, x, dy)
        }
        (Algorithm::Direct, _) => direct::weight_gradient::<Single>(conv, x, dy),
        (Algorithm::Winograd, Precision::Bf16) if even => {
            winograd::weight_gradient::<Half>(conv, x, dy)
        }
        (Algorithm::Winograd, _) => winograd::weight_gradient::<Single>(conv, x, dy),
    }
}

/// Mean over the pixels: `[height, width, batch, channels]` to `[batch, channels]`.
///
/// # Panics
/// When `x` is not of `shape`'s length.
pub fn mean_pool(shape: &Activation, x: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), shape.len(), "x is not of its shape");
    let row = shape.batch * shape.channels;
    let mut sum = vec![0.0; row];
    for pixel in x.chunks_exact(row.max(1)) {
        for (sum, value) in sum.iter_mut().zip(pixel) {
            *sum += value;
        }
    }
    let scale = 1.0 / (shape.height * shape.width) as f32;
    sum.iter_mut().for_each(|sum| *sum *= scale);
    sum
}

/// The gradient of [`mean_pool`]'s input, of `shape`.
///
/// # Panics
/// When `dy` is not `[batch, channels]`.
pub fn mean_pool_backward(shape: &Activation, dy: &[f32]) -> Vec<f32> {
    assert_eq!(
        dy.len(),
        shape.batch * shape.channels,
        "the gradient is not [batch, channels] of {shape:?}"
    );
    let pixels = shape.height * shape.width;
    let scale = 1.0 / pixels as f32;
    let pixel: Vec<f32> = dy.iter().map(|value| value * scale).collect();
    pixel.repeat(pixels)
}
