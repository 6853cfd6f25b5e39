//! Weights, packed in the order in which the kernels read them.

use crate::columns::Columns;
use crate::settings::Precision;
use crate::shape::Pass;

/// The kernels that compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Direct sums in vectors.
    Direct(Precision),
    /// Winograd's algorithm in vectors.
    Winograd(Precision),
    /// Direct sums of bf16 products in AMX tiles.
    Tiles,
}

/// A convolution's weight, packed in the order in which the kernels read it, for any number of
/// calls.
///
/// It keeps the algorithm and the precision that were set when it was packed. The instruction set
/// may be changed only to one with vectors of the same length.
pub struct Packed {
    pub(crate) pass: Pass,
    pub(crate) method: Method,
    /// `[out, in, kernel, stride]` of the convolution.
    pub(crate) shape: [usize; 4],
    pub(crate) columns: Columns,
    /// Number of summed channels, in cells.
    pub(crate) depth: usize,
    /// Direct: `[block][kernel²][depth][block columns]`; Winograd: `[position][block][depth][block
    /// columns]`; tiles: `[block][kernel²][step][two tiles]`.
    pub(crate) values: Vec<f32>,
    /// Winograd: distance between two positions.
    pub(crate) stride: usize,
}
