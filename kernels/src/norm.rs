//! BatchNorm over rows of channels, fused with a residual and ReLU.
//!
//! The values are `[rows, channels]`, contiguous. Whatever the number of channels, whole vectors are used: the
//! channel of a vector's lanes repeats after `period = lcm(channels, lanes)` values, so a channel's constants are
//! spread over one period and the data is walked period by period.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::memory::{Shared, uninitialised};
use crate::simd::{dispatch, lanes};
use crate::tile::{load, load_some, store, store_some};

/// Rows a task takes; a multiple of every vector's lanes, so that a task starts at a period's start.
const ROWS: usize = 512;

/// The output of [`batch_norm`].
pub struct BatchNormOutput {
    /// As long as the input.
    pub y: Vec<f32>,
    /// Of the batch, `[channels]`.
    pub mean: Vec<f32>,
    /// Of the batch, biased, `[channels]`.
    pub var: Vec<f32>,
}

/// The output of [`batch_norm_backward`].
pub struct BatchNormGradients {
    /// Of the input.
    pub x: Vec<f32>,
    /// Of the scale, `[channels]`.
    pub weight: Vec<f32>,
    /// Of the shift, `[channels]`.
    pub bias: Vec<f32>,
    /// Of the residual, where there was one.
    pub residual: Option<Vec<f32>>,
}

fn period(channels: usize) -> usize {
    let lanes = lanes();
    let (mut a, mut b) = (channels, lanes);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    channels / a * lanes
}

/// Values of one channel each, spread over a period.
fn spread(values: &[f32]) -> Vec<f32> {
    values
        .iter()
        .copied()
        .cycle()
        .take(period(values.len()))
        .collect()
}

fn as_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// `y = relu?(x · scale + shift + residual?)`, with one scale and shift a channel: BatchNorm in evaluation mode.
///
/// # Panics
/// When a slice is not of its length.
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
        "the input is no whole rows"
    );
    assert!(
        residual.is_none_or(|r| r.len() == x.len()),
        "the residual is not of the input's length"
    );
    scaled(x, [&vec![0.0; channels], scale, shift], residual, relu)
}

/// `relu?((x - centre) · scale + shift + residual?)`. The centre is taken off first: the difference of large numbers
/// that `x · scale + shift` can be would lose digits in a channel far from zero.
fn scaled(x: &[f32], constants: [&[f32]; 3], residual: Option<&[f32]>, relu: bool) -> Vec<f32> {
    let channels = constants[0].len();
    let constants = constants.map(spread);
    let mut y = uninitialised(x.len());
    let result = Shared::new(&mut y);
    let chunk = ROWS * channels;
    (0..x.len().div_ceil(chunk))
        .into_par_iter()
        .for_each(|task| {
            let (start, end) = (task * chunk, x.len().min((task + 1) * chunk));
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
    y
}

struct Affine<'a> {
    x: &'a [f32],
    residual: Option<&'a [f32]>,
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
        let zero = simd.splat_f32s(0.0);
        let [centre, scale, shift] = self.constants;
        let mut at = self.start;
        while at < self.end {
            for p in (0..scale.len()).step_by(S::F32_LANES) {
                let count = self.end.saturating_sub(at + p);
                if count == 0 {
                    break;
                }
                // SAFETY: `count` values are left from `at + p` on in `x`, in `residual` and in `y`, whose values
                // from `start` to `end` belong to this task; a period is whole vectors.
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
                        y = simd.max_f32s(y, zero);
                    }
                    store_some(simd, self.y.at(at + p), count, y);
                }
            }
            at += scale.len();
        }
    }
}

/// The gradient of [`affine`]'s input and, where there was one, of its residual. `y` is its output.
///
/// # Panics
/// When a slice is not of its length.
pub fn affine_backward(
    dy: &[f32],
    y: &[f32],
    scale: &[f32],
    relu: bool,
    with_residual: bool,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let zeros = vec![0.0; scale.len()];
    let parts = Parts { dy, y, x: dy, relu };
    parts.check(scale.len());
    let mut masked = with_residual.then(|| uninitialised(dy.len()));
    let dx = parts.combine([scale, &zeros, &zeros, &zeros], masked.as_deref_mut());
    (dx, masked)
}

/// BatchNorm with the batch's own statistics: `y = relu?((x - mean) / √(var + epsilon) · weight + bias + residual?)`.
///
/// # Panics
/// When a slice is not of its length, or there are no rows.
pub fn batch_norm(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    epsilon: f64,
) -> BatchNormOutput {
    let channels = weight.len();
    assert_eq!(bias.len(), channels, "weight and bias differ in length");
    assert!(channels > 0 && x.len() >= channels, "BatchNorm of no rows");
    let rows = (x.len() / channels) as f64;
    // Sums around a value of the channel itself: the difference of large numbers that a plain sum of squares
    // ends with would lose the variance of a channel far from zero.
    let pivot = x[..channels].to_vec();
    let (sums, squares) = moments(x, &pivot, |_| Source::Same);
    let mut mean = vec![0.0; channels];
    let mut var = vec![0.0; channels];
    for c in 0..channels {
        let offset = sums[c] / rows;
        mean[c] = f64::from(pivot[c]) + offset;
        var[c] = (squares[c] / rows - offset * offset).max(0.0);
    }
    let scale: Vec<f64> = (0..channels)
        .map(|c| f64::from(weight[c]) / (var[c] + epsilon).sqrt())
        .collect();
    let centre = as_f32(&mean);
    // What the mean loses by rounding to f32 goes into the shift.
    let lost = |c: usize| (f64::from(centre[c]) - mean[c]) * scale[c];
    let shift: Vec<f64> = (0..channels)
        .map(|c| f64::from(bias[c]) + lost(c))
        .collect();
    BatchNormOutput {
        y: scaled(
            x,
            [&centre, &as_f32(&scale), &as_f32(&shift)],
            residual,
            relu,
        ),
        mean: centre,
        var: as_f32(&var),
    }
}

/// The gradients of [`batch_norm`], given its input, output and statistics.
///
/// # Panics
/// When a slice is not of its length.
#[allow(clippy::too_many_arguments)]
pub fn batch_norm_backward(
    dy: &[f32],
    x: &[f32],
    y: &[f32],
    weight: &[f32],
    mean: &[f32],
    var: &[f32],
    epsilon: f64,
    relu: bool,
    with_residual: bool,
) -> BatchNormGradients {
    let channels = weight.len();
    assert!(
        mean.len() == channels && var.len() == channels,
        "statistics of another length"
    );
    let parts = Parts { dy, y, x, relu };
    parts.check(channels);
    let rows = (x.len() / channels) as f64;
    let (sums, products) = moments(x, mean, |at| Source::Gradient { dy, y, relu, at });
    let inverse: Vec<f64> = var
        .iter()
        .map(|&v| 1.0 / (f64::from(v) + epsilon).sqrt())
        .collect();
    // dx = a · g + b · (x - mean) + c, with g the gradient behind ReLU's mask.
    let channel = |c: usize| {
        let a = f64::from(weight[c]) * inverse[c];
        let b = -a * inverse[c] * inverse[c] * products[c] / rows;
        [a, b, -a * sums[c] / rows]
    };
    let constants: Vec<[f64; 3]> = (0..channels).map(channel).collect();
    let [a, b, c] = [0, 1, 2].map(|i| constants.iter().map(|k| k[i] as f32).collect::<Vec<_>>());
    let mut residual = with_residual.then(|| uninitialised(dy.len()));
    let dx = parts.combine([&a, &b, &c, mean], residual.as_deref_mut());
    BatchNormGradients {
        x: dx,
        weight: (0..channels)
            .map(|c| (products[c] * inverse[c]) as f32)
            .collect(),
        bias: as_f32(&sums),
        residual,
    }
}

/// What is summed beside `x - pivot`.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// Sums of `d = x - pivot`, and of `d²`.
    Same,
    /// Sums of the masked gradient `g`, and of `g · d`.
    Gradient {
        dy: &'a [f32],
        y: &'a [f32],
        relu: bool,
        at: usize,
    },
}

/// Two sums a channel, in f64 over tasks of [`ROWS`] rows, in f32 within one.
fn moments<'a>(
    x: &'a [f32],
    pivot: &[f32],
    source: impl Fn(usize) -> Source<'a> + Sync,
) -> (Vec<f64>, Vec<f64>) {
    let channels = pivot.len();
    let pivot = spread(pivot);
    let chunk = ROWS * channels;
    let parts: Vec<(Vec<f32>, Vec<f32>)> = (0..x.len().div_ceil(chunk))
        .into_par_iter()
        .map(|task| {
            let (start, end) = (task * chunk, x.len().min((task + 1) * chunk));
            dispatch(Moments {
                x: &x[start..end],
                pivot: &pivot,
                source: source(start),
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

struct Moments<'a> {
    x: &'a [f32],
    pivot: &'a [f32],
    source: Source<'a>,
}

impl WithSimd for Moments<'_> {
    type Output = (Vec<f32>, Vec<f32>);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let Self { x, pivot, source } = self;
        let period = pivot.len();
        let (mut first, mut second) = (vec![0.0; period], vec![0.0; period]);
        let zero = simd.splat_f32s(0.0);
        for p in (0..period).step_by(S::F32_LANES) {
            // SAFETY: a period is whole vectors; `count` values are left from `at` on in `x`, and as many from the
            // task's start on in the gradients (checked to be as long as all of `x`).
            unsafe {
                let around = load(simd, pivot.as_ptr().add(p));
                let (mut a, mut b) = (zero, zero);
                let mut at = p;
                while at < x.len() {
                    let count = x.len() - at;
                    let d = simd.sub_f32s(load_some(simd, x.as_ptr().add(at), count), around);
                    match source {
                        // Lanes past the end hold -pivot: the tail below takes them out.
                        Source::Same if count >= S::F32_LANES => {
                            a = simd.add_f32s(a, d);
                            b = simd.mul_add_e_f32s(d, d, b);
                        }
                        Source::Same => {
                            let mut tail = [0.0f32; 16];
                            store(simd, tail.as_mut_ptr(), d);
                            tail[count..].fill(0.0);
                            let d = load(simd, tail.as_ptr());
                            a = simd.add_f32s(a, d);
                            b = simd.mul_add_e_f32s(d, d, b);
                        }
                        Source::Gradient {
                            dy,
                            y,
                            relu,
                            at: start,
                        } => {
                            // Lanes past the end hold a zero gradient.
                            let g = masked(simd, dy, y, relu, start + at, count);
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

/// The gradient behind ReLU: zero where the output was.
///
/// # Safety
/// `count` values, or a vector's, are there from `at` on in `dy`, and in `y` with `relu`.
#[inline(always)]
unsafe fn masked<S: Simd>(
    simd: S,
    dy: &[f32],
    y: &[f32],
    relu: bool,
    at: usize,
    count: usize,
) -> S::f32s {
    // SAFETY: the caller's promise.
    unsafe {
        let g = load_some(simd, dy.as_ptr().add(at), count);
        if !relu {
            return g;
        }
        let zero = simd.splat_f32s(0.0);
        let y = load_some(simd, y.as_ptr().add(at), count);
        simd.select_f32s(simd.less_than_f32s(zero, y), g, zero)
    }
}

/// What a backward pass reads.
struct Parts<'a> {
    dy: &'a [f32],
    y: &'a [f32],
    x: &'a [f32],
    relu: bool,
}

impl Parts<'_> {
    fn check(&self, channels: usize) {
        let len = self.dy.len();
        assert!(
            channels > 0 && len.is_multiple_of(channels),
            "the gradient is no whole rows"
        );
        assert!(
            self.x.len() == len && self.y.len() == len,
            "input, output and gradient differ in length"
        );
    }

    /// `a · g + b · (x - centre) + c` with the masked gradient `g`, which is also written to `masked` where asked for.
    fn combine(&self, constants: [&[f32]; 4], masked: Option<&mut [f32]>) -> Vec<f32> {
        let channels = constants[0].len();
        let constants = constants.map(spread);
        let mut dx = uninitialised(self.dy.len());
        let (result, masked) = (Shared::new(&mut dx), masked.map(Shared::new));
        let chunk = ROWS * channels;
        (0..self.dy.len().div_ceil(chunk))
            .into_par_iter()
            .for_each(|task| {
                let (start, end) = (task * chunk, self.dy.len().min((task + 1) * chunk));
                dispatch(Combine {
                    parts: self,
                    constants: &constants,
                    start,
                    end,
                    result,
                    masked,
                });
            });
        dx
    }
}

struct Combine<'a> {
    parts: &'a Parts<'a>,
    constants: &'a [Vec<f32>; 4],
    start: usize,
    end: usize,
    result: Shared,
    masked: Option<Shared>,
}

impl WithSimd for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Parts { dy, y, x, relu } = *self.parts;
        let [a, b, c, centre] = self.constants;
        let mut at = self.start;
        while at < self.end {
            for p in (0..a.len()).step_by(S::F32_LANES) {
                let count = self.end.saturating_sub(at + p);
                if count == 0 {
                    break;
                }
                // SAFETY: as in `Affine`; the constants are one period long.
                unsafe {
                    let g = masked(simd, dy, y, relu, at + p, count);
                    if let Some(out) = self.masked {
                        store_some(simd, out.at(at + p), count, g);
                    }
                    let x = load_some(simd, x.as_ptr().add(at + p), count);
                    let x = simd.sub_f32s(x, load(simd, centre.as_ptr().add(p)));
                    let rest = simd.mul_add_e_f32s(
                        x,
                        load(simd, b.as_ptr().add(p)),
                        load(simd, c.as_ptr().add(p)),
                    );
                    let dx = simd.mul_add_e_f32s(g, load(simd, a.as_ptr().add(p)), rest);
                    store_some(simd, self.result.at(at + p), count, dx);
                }
            }
            at += a.len();
        }
    }
}
