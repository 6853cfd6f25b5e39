//! Weights, packed in the order in which the kernels read them.

use crate::columns::Columns;
use crate::settings::{Algorithm, Precision};
use crate::shape::Pass;

/// A convolution's weight, packed in the order in which the kernels read it, for any number of
/// calls.
///
/// It keeps the algorithm and the precision that were set when it was packed. The instruction set
/// may be changed only to one with vectors of the same length.
pub struct Packed {
    pub(crate) pass: Pass,
    pub(crate) algorithm: Algorithm,
    pub(crate) precision: Precision,
    /// `[out, in, kernel, stride]` of the convolution.
    pub(crate) shape: [usize; 4],
    pub(crate) columns: Columns,
    /// Number of summed channels, in cells.
    pub(crate) depth: usize,
    /// Direct: `[block][kernel²][depth][block columns]`; Winograd: `[position][block][depth][block
    /// columns]`.
    pub(crate) values: Vec<f32>,
    /// Winograd: distance between two positions.
    pub(crate) stride: usize,
}
