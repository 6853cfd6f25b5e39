//! Convolution and BatchNorm on the CPU for small images, forward and backward.
//!
//! Activations are `[height, width, batch, channels]`: all images' values of one pixel lie together. So an output
//! pixel of a 3 × 3 convolution is a sum of at most nine dense products (batch × in) · (in × out) over contiguous
//! rows: no im2col, no padding, and stride 2 or the way back are other lists of products for the same kernel. A
//! channel's statistics run over contiguous rows as well.
//!
//! The work is cut the same way whatever the number of threads, so the results have the same bits.

mod direct;
mod memory;
mod norm;
mod pack;
mod shape;
mod simd;
mod tile;
mod winograd;

pub use norm::{
    BatchNormGradients, BatchNormOutput, affine, affine_backward, batch_norm, batch_norm_backward,
};
pub use shape::{Activation, Convolution};
pub use simd::{Isa, available, detected, select};

use std::sync::atomic::{AtomicU8, Ordering};

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

/// Whether Winograd is used for this convolution: few channels do not pay for the transforms.
fn winograd(conv: &Convolution) -> bool {
    algorithm() == Algorithm::Winograd
        && conv.kernel == 3
        && conv.stride == 1
        && conv.input.channels >= 8
        && conv.channels >= 8
}

/// `y = x * w`. `x` has the convolution's input shape, `w` is `[out, in, kernel, kernel]`; the result has the
/// output shape.
///
/// # Panics
/// When a slice is not of its shape's length.
pub fn forward(conv: &Convolution, x: &[f32], w: &[f32]) -> Vec<f32> {
    conv.check(x, w);
    if winograd(conv) {
        winograd::convolve(conv, x, w, false)
    } else {
        direct::convolve(conv, x, w, false)
    }
}

/// The gradient of the input: `dy` has the output shape, the result the input shape.
///
/// # Panics
/// As [`forward`].
pub fn backward_data(conv: &Convolution, dy: &[f32], w: &[f32]) -> Vec<f32> {
    conv.check_backward(dy, w);
    if winograd(conv) {
        winograd::convolve(conv, dy, w, true)
    } else {
        direct::convolve(conv, dy, w, true)
    }
}

/// The gradient of the weight, `[out, in, kernel, kernel]`.
///
/// # Panics
/// As [`forward`].
pub fn backward_weight(conv: &Convolution, x: &[f32], dy: &[f32]) -> Vec<f32> {
    conv.check_weight(x, dy);
    if winograd(conv) {
        winograd::weight_gradient(conv, x, dy)
    } else {
        direct::weight_gradient(conv, x, dy)
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
