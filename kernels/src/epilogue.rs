//! What follows a convolution while its output is still in registers or the first-level cache.

use pulp::Simd;

use crate::memory::Shared;
use crate::rows::repeat_to_period;
use crate::vector::{load, load_some, relu_gate, store_some};

/// Operations on a convolution's output: a shift of each channel, a residual, and ReLU. With a
/// BatchNorm's scale multiplied into the weight, they complete that BatchNorm in evaluation mode.
#[derive(Clone, Copy)]
pub struct Epilogue<'a> {
    /// Values added to the output, `[channels]`.
    pub shift: &'a [f32],
    /// Values added after that, of the output's shape.
    pub residual: Option<&'a [f32]>,
    /// Whether ReLU follows both.
    pub relu: bool,
}

/// An [`Epilogue`] whose shift is ready to be loaded as vectors.
pub(crate) struct PreparedEpilogue<'a> {
    /// Shift of each channel, repeated to one period: lcm(channels, 16) values.
    pub shift: Vec<f32>,
    residual: Option<&'a [f32]>,
    relu: bool,
}

impl<'a> PreparedEpilogue<'a> {
    /// Prepares an epilogue for an output with `channels` and `output` values in all.
    ///
    /// # Panics
    /// If the shift does not have `channels` values, or the residual not `output`.
    pub fn new(epilogue: &Epilogue<'a>, channels: usize, output: usize) -> Self {
        assert_eq!(
            epilogue.shift.len(),
            channels,
            "the shift does not have one value for each output channel"
        );
        assert!(
            epilogue.residual.is_none_or(|r| r.len() == output),
            "the residual does not have the output's length"
        );
        Self {
            shift: repeat_to_period(epilogue.shift),
            residual: epilogue.residual,
            relu: epilogue.relu,
        }
    }

    /// Applies the epilogue to a vector of the output, or to its first `count` values. `p` is its
    /// start in the period, `at` its start in the output.
    ///
    /// # Safety
    /// The output has a vector, or `count` values, from `at` on. `p` is a multiple of the lanes,
    /// less than the period.
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
                value = relu_gate(simd, value, value);
            }
            value
        }
    }

    /// Applies the epilogue to rows `from..to` of the output, in place. They are whole rows, so the
    /// period begins with the first.
    ///
    /// # Safety
    /// `output` is the whole output. Its rows `from..to` are initialised, and no other thread
    /// touches them.
    #[inline(always)]
    pub unsafe fn apply_rows<S: Simd>(
        &self,
        simd: S,
        output: Shared,
        channels: usize,
        from: usize,
        to: usize,
    ) {
        let (end, mut p) = (to * channels, 0);
        for at in (from * channels..end).step_by(S::F32_LANES) {
            let count = end - at;
            // SAFETY: the caller's promise; a period is whole vectors.
            unsafe {
                let value = load_some(simd, output.at(at), count);
                let value = self.apply(simd, value, p, at, count);
                store_some(simd, output.at(at), count, value);
            }
            p += S::F32_LANES;
            if p >= self.shift.len() {
                p = 0;
            }
        }
    }
}
