//! Sums over the rows of each channel, for BatchNorm's statistics and gradients.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::memory::Shared;
use crate::rows::ROWS;
use crate::simd::dispatch;
use crate::vector::{load, load_some, relu_gate, store, store_some};

/// Which values of the gradient pass through ReLU.
#[derive(Clone, Copy)]
pub(crate) enum ReluMask<'a> {
    /// All: there is no ReLU.
    None,
    /// Those where this output is positive. [`sum_rows`] then replaces the gradient by the masked
    /// one.
    Output(&'a [f32]),
    /// Those where the output is positive that this centre, scale and shift make of the input.
    Input(&'a [Vec<f32>; 3]),
}

/// The two sums of each channel, with `d = x - pivot`.
#[derive(Clone, Copy)]
pub(crate) enum Sums<'a> {
    /// Sums of `d` and of `d²`.
    Input,
    /// Sums of the masked gradient `g` and of `g · d`.
    Gradient {
        /// The whole gradient, as long as all of `x`.
        gradient: Shared,
        /// Start of the task's part.
        at: usize,
        /// Mask of the gradient.
        mask: ReluMask<'a>,
    },
}

/// Computes two sums for each channel: in f32 over the [`ROWS`] rows of a task, in f64 over the
/// tasks. `sums` gets a task's start; `pivot` is repeated to a period.
pub(crate) fn sum_rows<'a>(
    x: &'a [f32],
    pivot: &[f32],
    channels: usize,
    sums: impl Fn(usize) -> Sums<'a> + Sync,
) -> (Vec<f64>, Vec<f64>) {
    let chunk = ROWS * channels;
    let parts: Vec<(Vec<f32>, Vec<f32>)> = (0..x.len().div_ceil(chunk))
        .into_par_iter()
        .map(|task| {
            let (start, end) = (task * chunk, x.len().min((task + 1) * chunk));
            dispatch(SumRows {
                x: &x[start..end],
                pivot,
                sums: sums(start),
            })
        })
        .collect();
    let (mut first, mut second) = (vec![0.0; channels], vec![0.0; channels]);
    for (a, b) in &parts {
        for p in 0..pivot.len() {
            first[p % channels] += f64::from(a[p]);
            second[p % channels] += f64::from(b[p]);
        }
    }
    (first, second)
}

/// The task of [`sum_rows`] for some rows.
struct SumRows<'a> {
    x: &'a [f32],
    pivot: &'a [f32],
    sums: Sums<'a>,
}

impl WithSimd for SumRows<'_> {
    type Output = (Vec<f32>, Vec<f32>);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { x, pivot, sums } = self;
        let period = pivot.len();
        let (mut first, mut second) = (vec![0.0; period], vec![0.0; period]);
        let zero = simd.splat_f32s(0.0);
        for p in (0..period).step_by(S::F32_LANES) {
            // SAFETY: a period is whole vectors; `count` values are left from `at` on in `x`, and
            // from the task's start on in the gradient, where no other task touches them; a mask's
            // output is as long as the gradient.
            unsafe {
                let centre = load(simd, pivot.as_ptr().add(p));
                let (mut a, mut b) = (zero, zero);
                let mut at = p;
                while at < x.len() {
                    let count = x.len() - at;
                    let value = load_some(simd, x.as_ptr().add(at), count);
                    let d = simd.sub_f32s(value, centre);
                    match sums {
                        // Lanes behind the end would hold -pivot: the next case sets them to zero.
                        Sums::Input if count >= S::F32_LANES => {
                            a = simd.add_f32s(a, d);
                            b = simd.mul_add_e_f32s(d, d, b);
                        }
                        Sums::Input => {
                            let mut tail = [0.0f32; 16];
                            store(simd, tail.as_mut_ptr(), d);
                            tail[count..].fill(0.0);
                            let d = load(simd, tail.as_ptr());
                            a = simd.add_f32s(a, d);
                            b = simd.mul_add_e_f32s(d, d, b);
                        }
                        Sums::Gradient {
                            gradient,
                            at: start,
                            mask,
                        } => {
                            // Lanes behind the end hold a zero gradient.
                            let address = gradient.at(start + at);
                            let g = load_some(simd, address, count);
                            let g = masked(simd, g, value, mask, p, start + at, count);
                            if let ReluMask::Output(_) = mask {
                                store_some(simd, address, count, g);
                            }
                            a = simd.add_f32s(a, g);
                            b = simd.mul_add_e_f32s(g, d, b);
                        }
                    }
                    at += period;
                }
                store(simd, first.as_mut_ptr().add(p), a);
                store(simd, second.as_mut_ptr().add(p), b);
            }
        }
        (first, second)
    }
}

/// Masks the gradient `g`: zero where the output is not positive. `x` is the input there, `p` the
/// index in the period, `at` the index in the output.
///
/// # Safety
/// A mask's output has `count` values from `at` on, or a vector; a mask's constants have a vector
/// from `p` on.
#[inline(always)]
pub(crate) unsafe fn masked<S: Simd>(
    simd: S,
    g: S::f32s,
    x: S::f32s,
    mask: ReluMask,
    p: usize,
    at: usize,
    count: usize,
) -> S::f32s {
    // SAFETY: the caller's promise.
    let y = unsafe {
        match mask {
            ReluMask::None => return g,
            ReluMask::Output(y) => load_some(simd, y.as_ptr().add(at), count),
            ReluMask::Input([centre, scale, shift]) => simd.mul_add_e_f32s(
                simd.sub_f32s(x, load(simd, centre.as_ptr().add(p))),
                load(simd, scale.as_ptr().add(p)),
                load(simd, shift.as_ptr().add(p)),
            ),
        }
    };
    relu_gate(simd, y, g)
}
