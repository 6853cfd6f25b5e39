//! Convolutions and their gradients, with the algorithm and the precision that are set.

use crate::columns::Columns;
use crate::direct;
use crate::element::{Half, Single};
use crate::epilogue::{Epilogue, PreparedEpilogue};
use crate::packed::Packed;
use crate::settings::{Algorithm, Precision, algorithm, precision};
use crate::shape::{Activation, Convolution, Pass};
use crate::simd::lanes;
use crate::winograd;

impl Packed {
    /// Packs `w`, `[out, in, kernel, kernel]`, for one pass.
    ///
    /// # Panics
    /// If `w` does not have the length of its shape.
    pub fn new(conv: &Convolution, w: &[f32], pass: Pass) -> Self {
        conv.check_weight_values(w);
        let (depth, count) = conv.depth_and_columns(pass);
        let precision = precision_of(depth);
        let algorithm = algorithm_of(conv, depth);
        let columns = Columns::new(count);
        let (values, stride) = match (algorithm, precision) {
            (Algorithm::Direct, Precision::F32) => (direct::pack::<Single>(conv, w, pass), 0),
            (Algorithm::Direct, Precision::Bf16) => (direct::pack::<Half>(conv, w, pass), 0),
            (Algorithm::Winograd, Precision::F32) => winograd::pack::<Single>(conv, w, pass),
            (Algorithm::Winograd, Precision::Bf16) => winograd::pack::<Half>(conv, w, pass),
        };
        Self {
            pass,
            algorithm,
            precision,
            shape: conv.weight_shape(),
            columns,
            depth: match precision {
                Precision::F32 => depth,
                Precision::Bf16 => depth / 2,
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
            && self.algorithm == algorithm_of(conv, depth)
            && self.precision == precision_of(depth)
            && self.columns.lanes == lanes()
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

/// The precision for sums over `depth` channels: bf16 where it is set and no cell of two values
/// reaches into the next image.
fn precision_of(depth: usize) -> Precision {
    match precision() {
        Precision::Bf16 if depth.is_multiple_of(2) => Precision::Bf16,
        _ => Precision::F32,
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
    use Algorithm::{Direct, Winograd};
    use Precision::{Bf16, F32};
    match (packed.algorithm, packed.precision) {
        (Direct, F32) => direct::convolve::<Single>(conv, source, packed, epilogue),
        (Direct, Bf16) => direct::convolve::<Half>(conv, source, packed, epilogue),
        (Winograd, F32) => winograd::convolve::<Single>(conv, source, packed, epilogue),
        (Winograd, Bf16) => winograd::convolve::<Half>(conv, source, packed, epilogue),
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
