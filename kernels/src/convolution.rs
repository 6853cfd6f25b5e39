//! Convolutions and their gradients, with the algorithm and the precision that are set.

use crate::amx;
use crate::columns::Columns;
use crate::direct;
use crate::element::{Half, Single};
use crate::epilogue::{Epilogue, PreparedEpilogue};
use crate::packed::{Method, Packed};
use crate::settings::Precision::{self, Bf16, F32};
use crate::settings::{Algorithm, algorithm, precision};
use crate::shape::{Activation, Convolution, Pass};
use crate::simd::{Isa, detected, has_bf16_vectors, lanes};
use crate::winograd;

impl Packed {
    /// Packs `w`, `[out, in, kernel, kernel]`, for one pass.
    ///
    /// # Panics
    /// If `w` does not have the length of its shape.
    pub fn new(conv: &Convolution, w: &[f32], pass: Pass) -> Self {
        let (depth, _) = conv.depth_and_columns(pass);
        Self::for_method(conv, w, pass, method_of(conv, depth))
    }

    /// Packs `w` for certain kernels.
    pub(crate) fn for_method(conv: &Convolution, w: &[f32], pass: Pass, method: Method) -> Self {
        conv.check_weight_values(w);
        let (depth, count) = conv.depth_and_columns(pass);
        let (values, stride) = match method {
            Method::Direct(F32) => (direct::pack::<Single>(conv, w, pass), 0),
            Method::Direct(Bf16) => (direct::pack::<Half>(conv, w, pass), 0),
            Method::Winograd(F32) => winograd::pack::<Single>(conv, w, pass),
            Method::Winograd(Bf16) => winograd::pack::<Half>(conv, w, pass),
            Method::Tiles => (amx::pack(conv, w, pass), 0),
        };
        Self {
            pass,
            method,
            shape: conv.weight_shape(),
            columns: Columns::new(count),
            depth: match method {
                Method::Direct(F32) | Method::Winograd(F32) => depth,
                Method::Direct(Bf16) | Method::Winograd(Bf16) => depth / 2,
                Method::Tiles => amx::depth(depth),
            },
            values,
            stride,
        }
    }

    /// Whether [`Packed::new`] would make the same now from the same weight.
    pub fn fits(&self, conv: &Convolution, pass: Pass) -> bool {
        let (depth, _) = conv.depth_and_columns(pass);
        self.pass == pass
            && self.shape == conv.weight_shape()
            && self.method == method_of(conv, depth)
            && self.columns.lanes == lanes()
    }
}

/// The kernels for sums over `depth` channels: tiles where bf16 is set, AMX is in use and the sums
/// fill half of a tile; there they beat Winograd's fewer products.
fn method_of(conv: &Convolution, depth: usize) -> Method {
    if tiles_in_use() && depth >= amx::FEWEST {
        return Method::Tiles;
    }
    // No cell of two values may reach into the next image.
    let precision = vector_precision(depth.is_multiple_of(2));
    match algorithm_of(conv, depth) {
        Algorithm::Direct => Method::Direct(precision),
        Algorithm::Winograd => Method::Winograd(precision),
    }
}

/// Whether convolutions that are large enough are computed on tiles.
fn tiles_in_use() -> bool {
    detected() == Isa::Amx && precision() == Bf16
}

/// The precision of vector kernels: bf16 where it is set, and the processor and the shape have it.
fn vector_precision(allowed: bool) -> Precision {
    match precision() {
        Bf16 if allowed && has_bf16_vectors() => Bf16,
        _ => F32,
    }
}

/// The algorithm for sums over `depth` channels: Winograd where it is set and faster. With few
/// channels the transforms cost more than they save, and most of a tile that reaches far beyond a
/// small image is wasted.
fn algorithm_of(conv: &Convolution, depth: usize) -> Algorithm {
    let Activation { height, width, .. } = conv.input;
    // A direct sum takes one matrix product for each pair of an output and an input pixel under its
    // kernel.
    let pairs = |side: usize| (3 * side).saturating_sub(2);
    let fits = conv.kernel == 3
        && conv.stride == 1
        && depth >= 8
        && pairs(height) * pairs(width) >= 2 * winograd::products(height, width);
    match algorithm() {
        Algorithm::Winograd if fits => Algorithm::Winograd,
        _ => Algorithm::Direct,
    }
}

/// The output of a convolution, or the gradient of its input, depending on the pass that `packed`
/// is for.
///
/// In the forward pass `source` has the shape of the input, and the result that of the output. In
/// the backward pass it is the reverse.
///
/// # Panics
/// If `source` does not have the length of its shape, or `packed` belongs to another convolution.
pub fn convolve(conv: &Convolution, source: &[f32], packed: &Packed) -> Vec<f32> {
    convolve_any(conv, source, packed, None)
}

/// The output of a convolution with an epilogue, which is applied before the output leaves the
/// caches.
///
/// # Panics
/// As [`convolve`]; also if `packed` is for the backward pass, or the epilogue does not fit the
/// output's shape.
pub fn convolve_with_epilogue(
    conv: &Convolution,
    source: &[f32],
    packed: &Packed,
    epilogue: &Epilogue,
) -> Vec<f32> {
    assert_eq!(
        packed.pass,
        Pass::Forward,
        "an epilogue needs a weight packed for the forward pass"
    );
    let epilogue = PreparedEpilogue::new(epilogue, conv.channels, conv.output().len());
    convolve_any(conv, source, packed, Some(&epilogue))
}

fn convolve_any(
    conv: &Convolution,
    source: &[f32],
    packed: &Packed,
    epilogue: Option<&PreparedEpilogue>,
) -> Vec<f32> {
    conv.check_source(source, packed.pass);
    assert_eq!(
        packed.shape,
        conv.weight_shape(),
        "the packed weight belongs to another convolution: [out, in, kernel, stride]"
    );
    assert_eq!(
        packed.columns.lanes,
        lanes(),
        "the weight was packed for vectors of another length"
    );
    match packed.method {
        Method::Direct(F32) => direct::convolve::<Single>(conv, source, packed, epilogue),
        Method::Direct(Bf16) => direct::convolve::<Half>(conv, source, packed, epilogue),
        Method::Winograd(F32) => winograd::convolve::<Single>(conv, source, packed, epilogue),
        Method::Winograd(Bf16) => winograd::convolve::<Half>(conv, source, packed, epilogue),
        Method::Tiles => amx::convolve(conv, source, packed, epilogue),
    }
}

/// The output of a convolution. `x` has the input's shape, `w` is `[out, in, kernel, kernel]`, and
/// the result has the output's shape.
///
/// # Panics
/// If a slice does not have the length of its shape.
pub fn forward(conv: &Convolution, x: &[f32], w: &[f32]) -> Vec<f32> {
    convolve(conv, x, &Packed::new(conv, w, Pass::Forward))
}

/// The gradient of a convolution's input: `dy` has the output's shape, the result the input's.
///
/// # Panics
/// As [`forward`].
pub fn backward_data(conv: &Convolution, dy: &[f32], w: &[f32]) -> Vec<f32> {
    convolve(conv, dy, &Packed::new(conv, w, Pass::Backward))
}

/// The gradient of a convolution's weight, `[out, in, kernel, kernel]`.
///
/// # Panics
/// As [`forward`].
pub fn backward_weight(conv: &Convolution, x: &[f32], dy: &[f32]) -> Vec<f32> {
    conv.check_weight_gradient(x, dy);
    let fewest = conv.input.channels.min(conv.channels);
    if tiles_in_use() && fewest >= amx::FEWEST {
        return amx::weight_gradient(conv, x, dy);
    }
    let even = conv.input.batch.is_multiple_of(2)
        && conv.input.channels.is_multiple_of(16)
        && conv.channels.is_multiple_of(16);
    match (algorithm_of(conv, fewest), vector_precision(even)) {
        (Algorithm::Direct, F32) => direct::weight_gradient::<Single>(conv, x, dy),
        (Algorithm::Direct, Bf16) => direct::weight_gradient::<Half>(conv, x, dy),
        (Algorithm::Winograd, F32) => winograd::weight_gradient::<Single>(conv, x, dy),
        (Algorithm::Winograd, Bf16) => winograd::weight_gradient::<Half>(conv, x, dy),
    }
}
