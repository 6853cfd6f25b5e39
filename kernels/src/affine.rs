//! BatchNorm in evaluation mode: a fixed scale and shift of each channel, fused with a residual and
//! ReLU.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::memory::Shared;
use crate::rows::{for_each_from_last, repeat_to_period};
use crate::simd::dispatch;
use crate::vector::{load, load_some, relu_gate, store_some};

/// BatchNorm in evaluation mode: `y = relu?(x · scale + shift + residual?)`, with one scale and
/// shift for each channel.
///
/// # Panics
/// If the lengths of the slices do not match.
pub fn affine(
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
) -> Vec<f32> {
    let channels = scale.len();
    assert_eq!(shift.len(), channels, "scale and shift differ in length");
    assert!(
        channels > 0 && x.len().is_multiple_of(channels),
        "the input is not a whole number of rows"
    );
    assert!(
        residual.is_none_or(|r| r.len() == x.len()),
        "the residual does not have the input's length"
    );
    scaled(x, [&vec![0.0; channels], scale, shift], residual, relu)
}

/// Computes `relu?((x - centre) · scale + shift + residual?)`; `constants` are centre, scale and
/// shift. The centre is subtracted first, because `x · scale + shift` would lose digits in a
/// channel far from zero.
pub(crate) fn scaled(
    x: &[f32],
    constants: [&[f32]; 3],
    residual: Option<&[f32]>,
    relu: bool,
) -> Vec<f32> {
    let channels = constants[0].len();
    let constants = constants.map(repeat_to_period);
    let mut y = Box::<[f32]>::new_uninit_slice(x.len());
    let result = Shared::uninit(&mut y);
    for_each_from_last(x.len(), channels, |start, end| {
        dispatch(Affine {
            x,
            residual,
            constants: &constants,
            relu,
            start,
            end,
            y: result,
        });
    });
    // SAFETY: the tasks cover the whole length, and each wrote all values of its part.
    unsafe { y.assume_init() }.into_vec()
}

/// The task of [`scaled`] for values `start..end`.
struct Affine<'a> {
    x: &'a [f32],
    residual: Option<&'a [f32]>,
    /// Centre, scale and shift, repeated to a period.
    constants: &'a [Vec<f32>; 3],
    relu: bool,
    start: usize,
    end: usize,
    y: Shared,
}

impl WithSimd for Affine<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [centre, scale, shift] = self.constants;
        let mut at = self.start;
        while at < self.end {
            for p in (0..scale.len()).step_by(S::F32_LANES) {
                let count = self.end.saturating_sub(at + p);
                if count == 0 {
                    break;
                }
                // SAFETY: `count` values are left from `at + p` on in `x`, `residual` and `y`, and
                // this task alone touches `start..end` of `y`; a period is whole vectors.
                unsafe {
                    let x = load_some(simd, self.x.as_ptr().add(at + p), count);
                    let x = simd.sub_f32s(x, load(simd, centre.as_ptr().add(p)));
                    let (scale, shift) = (
                        load(simd, scale.as_ptr().add(p)),
                        load(simd, shift.as_ptr().add(p)),
                    );
                    let mut y = simd.mul_add_e_f32s(x, scale, shift);
                    if let Some(residual) = self.residual {
                        let r = load_some(simd, residual.as_ptr().add(at + p), count);
                        y = simd.add_f32s(y, r);
                    }
                    if self.relu {
                        y = relu_gate(simd, y, y);
                    }
                    store_some(simd, self.y.at(at + p), count, y);
                }
            }
            at += scale.len();
        }
    }
}

/// The gradient of [`affine`]'s input; `y` is its output. With ReLU, `dy` is replaced by the
/// gradient before ReLU, which is the gradient of a residual; without, it is left unchanged.
///
/// # Panics
/// If the lengths of the slices do not match.
pub fn affine_backward(dy: &mut [f32], y: &[f32], scale: &[f32], relu: bool) -> Vec<f32> {
    check_rows(dy, y, scale.len());
    if relu {
        relu_backward(dy, y);
    }
    let zeros = vec![0.0; scale.len()];
    scaled(dy, [&zeros, scale, &zeros], None, false)
}

/// The gradient of ReLU's input, in place: zero where the output `y` is zero.
///
/// # Panics
/// If the lengths differ.
pub fn relu_backward(dy: &mut [f32], y: &[f32]) {
    assert_eq!(dy.len(), y.len(), "output and gradient differ in length");
    const CHUNK: usize = 1 << 14;
    dy.par_chunks_mut(CHUNK)
        .zip(y.par_chunks(CHUNK))
        .for_each(|(dy, y)| dispatch(Relu { dy, y }));
}

/// The task of [`relu_backward`] for some values.
struct Relu<'a> {
    dy: &'a mut [f32],
    y: &'a [f32],
}

impl WithSimd for Relu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // Simple enough for the compiler to vectorise.
        for (dy, y) in self.dy.iter_mut().zip(self.y) {
            *dy = if *y <= 0.0 { 0.0 } else { *dy };
        }
    }
}

/// Checks that a gradient is whole rows and as long as the input or output that belongs to it.
///
/// # Panics
/// If not.
pub(crate) fn check_rows(dy: &[f32], x: &[f32], channels: usize) {
    assert!(
        channels > 0 && dy.len().is_multiple_of(channels),
        "the gradient is not a whole number of rows"
    );
    assert_eq!(
        x.len(),
        dy.len(),
        "input or output and gradient differ in length"
    );
}
