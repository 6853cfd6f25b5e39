//! Convolution and BatchNorm on the CPU for small images, forward and backward.
//!
//! Activations are `[height, width, batch, channels]`: the values of one pixel in all images are
//! contiguous. So an output pixel of a 3 × 3 convolution is a sum of at most nine dense products
//! (batch × in) · (in × out) over contiguous rows: no im2col, no padding, and stride 2 or the
//! gradient of the input are other lists of products for the same kernel. A channel's statistics
//! are sums over contiguous rows as well.
//!
//! The work is split in the same way for every number of threads, so the results have the same
//! bits.
//!
//! # Unsafe code
//! The kernels write their results through raw pointers: each task of a parallel loop its own part
//! of a buffer. The structs that implement `WithSimd` and hold such pointers are private to their
//! module's parent, and whoever builds one promises what its fields' documentation says. Buffers
//! are not zeroed first; they stay `MaybeUninit` until all of their values are written (see
//! `memory`).

mod affine;
mod amx;
mod batch_norm;
mod columns;
mod convolution;
mod direct;
mod element;
mod epilogue;
mod memory;
mod packed;
mod permission;
mod pool;
mod rows;
mod settings;
mod shape;
mod simd;
mod sums;
mod tile;
mod vector;
mod winograd;

pub use affine::{affine, affine_backward, relu_backward};
pub use batch_norm::{
    BatchNormGradients, BatchNormOutput, BatchNormState, Direction, Join, PartSums, batch_norm,
    batch_norm_add_backward, batch_norm_add_backward_of_part, batch_norm_backward,
    batch_norm_backward_of_part, batch_norm_of_part, join,
};
pub use convolution::{backward_data, backward_weight, convolve, convolve_with_epilogue, forward};
pub use epilogue::Epilogue;
pub use packed::Packed;
pub use pool::{max_pool, max_pool_backward, mean_pool, mean_pool_backward};
pub use settings::{Algorithm, Precision, algorithm, precision, set_algorithm, set_precision};
pub use shape::{Activation, Convolution, Pass};
pub use simd::{Isa, available, detected, has_bf16, select};
