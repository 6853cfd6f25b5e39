//! Winograd's F(4 × 4, 3 × 3) (Lavin and Gray, CVPR 2016) for stride 1: 36 products where the
//! direct sum takes 144.
//!
//! A tile is 4 × 4 output pixels of one image. Its 6 × 6 input pixels are transformed (`Bᵀ d B`),
//! as are the kernels (`G g Gᵀ`). At each of the 36 positions of a transformed tile, the values of
//! all tiles form a matrix, here called a plane, `[tiles, channels]`, which is multiplied by the
//! kernels' matrix of this position, `[in, out]`. The products are transformed back (`Aᵀ m A`). The
//! transforms are plain vector code over `batch × channels`.

// Both indices of a transform's intermediate matrix are used, one of them in its columns: iterators
// would hide which.
#![allow(clippy::needless_range_loop)]

mod convolve;
mod outer;
mod pack;
mod planes;
mod tiling;
mod transform;
mod weight;

pub(crate) use convolve::convolve;
pub(crate) use pack::pack;
pub(crate) use tiling::products;
pub(crate) use weight::weight_gradient;
