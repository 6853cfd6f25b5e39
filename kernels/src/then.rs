//! What follows a convolution while its output is still in registers or the first-level cache.

use pulp::Simd;

use crate::norm::{rectified, spread};
use crate::tile::{load, load_some};

/// A shift of each channel, a residual where there is one, and ReLU: what is left of a BatchNorm in evaluation mode
/// whose scale was multiplied into the weight.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// Added to each output channel.
    pub shift: &'a [f32],
    /// Added after that, of the output's shape.
    pub residual: Option<&'a [f32]>,
    /// After both.
    pub relu: bool,
}

/// An epilogue ready for vectors.
pub(crate) struct Then<'a> {
    /// Of one period.
    pub shift: Vec<f32>,
    residual: Option<&'a [f32]>,
    relu: bool,
}

impl<'a> Then<'a> {
    /// # Panics
    /// When the shift is not of `channels`, or the residual not of the output's length.
    pub fn new(epilogue: &Epilogue<'a>, channels: usize, output: usize) -> Self {
        assert_eq!(
            epilogue.shift.len(),
            channels,
            "the shift is not of the output's channels"
        );
        assert!(
            epilogue.residual.is_none_or(|r| r.len() == output),
            "the residual is not of the output's length"
        );
        Self {
            shift: spread(epilogue.shift),
            residual: epilogue.residual,
            relu: epilogue.relu,
        }
    }

    /// On `count` values, or a vector, that are at `at` in the output and at `p` in the period.
    ///
    /// # Safety
    /// The output has these values; `p` is a vector's start in the period.
    #[inline(always)]
    pub unsafe fn apply<S: Simd>(
        &self,
        simd: S,
        value: S::f32s,
        p: usize,
        at: usize,
        count: usize,
    ) -> S::f32s {
        // SAFETY: the caller's promise; the residual is as long as the output.
        unsafe {
            let mut value = simd.add_f32s(value, load(simd, self.shift.as_ptr().add(p)));
            if let Some(residual) = self.residual {
                value = simd.add_f32s(value, load_some(simd, residual.as_ptr().add(at), count));
            }
            if self.relu {
                value = rectified(simd, value, value);
            }
            value
        }
    }

    /// On all values of rows `from..to` of the output, in place: whole rows, so the period begins with the first.
    ///
    /// # Safety
    /// `output` is the whole output's; nobody else touches these rows.
    #[inline(always)]
    pub unsafe fn apply_rows<S: Simd>(
        &self,
        simd: S,
        output: crate::memory::Shared,
        channels: usize,
        from: usize,
        to: usize,
    ) {
        let (end, mut p) = (to * channels, 0);
        for at in (from * channels..end).step_by(S::F32_LANES) {
            let count = end - at;
            // SAFETY: the caller's promise.
            unsafe {
                let value = load_some(simd, output.at(at), count);
                let value = self.apply(simd, value, p, at, count);
                crate::tile::store_some(simd, output.at(at), count, value);
            }
            p += S::F32_LANES;
            if p >= self.shift.len() {
                p = 0;
            }
        }
    }
}
