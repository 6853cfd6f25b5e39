//! BatchNorm over rows of channels, fused with a residual and ReLU.
//!
//! The values are `[rows, channels]`, contiguous. Whatever the number of channels, whole vectors are used: the
//! channel of a vector's lanes repeats after `period = lcm(channels, 16)` values, so a channel's constants are
//! spread over one period and the data is walked period by period.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::memory::Shared;
use crate::simd::dispatch;
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
    /// What is added after centring and scaling, `[channels]`: the bias, and what the mean lost by rounding.
    pub shift: Vec<f32>,
}

/// The gradients of a BatchNorm's parameters.
pub struct BatchNormGradients {
    /// Of the scale, `[channels]`.
    pub weight: Vec<f32>,
    /// Of the shift, `[channels]`.
    pub bias: Vec<f32>,
}

/// The shortest run of whole rows that is whole vectors, of whatever instruction set.
fn period(channels: usize) -> usize {
    const WIDEST: usize = 16;
    let (mut a, mut b) = (channels, WIDEST);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    channels / a * WIDEST
}

/// Values of one channel each, spread over a period.
pub(crate) fn spread(values: &[f32]) -> Vec<f32> {
    values
        .iter()
        .copied()
        .cycle()
        .take(period(values.len()))
        .collect()
}

/// `value` where `y` is positive, else zero; and where `y` is not a number, so that a network that has come to that is
/// seen to have.
#[inline(always)]
pub(crate) fn rectified<S: Simd>(simd: S, y: S::f32s, value: S::f32s) -> S::f32s {
    let zero = simd.splat_f32s(0.0);
    simd.select_f32s(simd.less_than_or_equal_f32s(y, zero), zero, value)
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
    let mut y = Box::<[f32]>::new_uninit_slice(x.len());
    let result = Shared::uninit(&mut y);
    backwards(x.len(), channels, |start, end| {
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

/// Runs `work` from a start to an end for each [`ROWS`] rows, the last first: what a pass over the same values read last
/// is still in the cache.
fn backwards(len: usize, channels: usize, work: impl Fn(usize, usize) + Sync) {
    let chunk = ROWS * channels;
    (0..len.div_ceil(chunk))
        .into_par_iter()
        .rev()
        .for_each(|task| work(task * chunk, len.min((task + 1) * chunk)));
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
                        y = rectified(simd, y, y);
                    }
                    store_some(simd, self.y.at(at + p), count, y);
                }
            }
            at += scale.len();
        }
    }
}

/// The gradient of [`affine`]'s input; `y` is its output. `dy` becomes the gradient of the residual where there was one
/// (behind ReLU); without ReLU it stays what it was.
///
/// # Panics
/// When a slice is not of its length.
pub fn affine_backward(dy: &mut [f32], y: &[f32], scale: &[f32], relu: bool) -> Vec<f32> {
    check_rows(dy, y, scale.len());
    if relu {
        relu_backward(dy, y);
    }
    let zeros = vec![0.0; scale.len()];
    scaled(dy, [&zeros, scale, &zeros], None, false)
}

/// The gradient behind ReLU, in place: zero where the output `y` was.
///
/// # Panics
/// When they differ in length.
pub fn relu_backward(dy: &mut [f32], y: &[f32]) {
    assert_eq!(dy.len(), y.len(), "output and gradient differ in length");
    const CHUNK: usize = 1 << 14;
    dy.par_chunks_mut(CHUNK)
        .zip(y.par_chunks(CHUNK))
        .for_each(|(dy, y)| dispatch(Relu { dy, y }));
}

struct Relu<'a> {
    dy: &'a mut [f32],
    y: &'a [f32],
}

impl WithSimd for Relu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // Simple enough for the compiler to make vectors of.
        for (dy, y) in self.dy.iter_mut().zip(self.y) {
            *dy = if *y <= 0.0 { 0.0 } else { *dy };
        }
    }
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
    assert!(
        channels > 0 && x.len() >= channels && x.len().is_multiple_of(channels),
        "BatchNorm of no rows, or no whole ones"
    );
    assert!(
        residual.is_none_or(|r| r.len() == x.len()),
        "the residual is not of the input's length"
    );
    let rows = (x.len() / channels) as f64;
    // Sums around a value of the channel itself: the difference of large numbers that a plain sum of squares
    // ends with would lose the variance of a channel far from zero.
    let pivot = x[..channels].to_vec();
    let (sums, squares) = moments(x, &spread(&pivot), channels, |_| Source::Same);
    let mut mean = vec![0.0; channels];
    let mut var = vec![0.0; channels];
    for c in 0..channels {
        let offset = sums[c] / rows;
        mean[c] = f64::from(pivot[c]) + offset;
        let value = squares[c] / rows - offset * offset;
        // Not max(0), which would make a number of what is none.
        var[c] = if value < 0.0 { 0.0 } else { value };
    }
    let (centre, var) = (as_f32(&mean), as_f32(&var));
    let scale = scales(weight, &var, epsilon);
    // What the mean loses by rounding to f32 goes into the shift.
    let lost = |c: usize| (f64::from(centre[c]) - mean[c]) * f64::from(scale[c]);
    let shift: Vec<f32> = (0..channels)
        .map(|c| (f64::from(bias[c]) + lost(c)) as f32)
        .collect();
    BatchNormOutput {
        y: scaled(x, [&centre, &scale, &shift], residual, relu),
        mean: centre,
        var,
        shift,
    }
}

/// Weight over deviation, of each channel.
fn scales(weight: &[f32], var: &[f32], epsilon: f64) -> Vec<f32> {
    let scale = |(&w, &v): (&f32, &f32)| (f64::from(w) / (f64::from(v) + epsilon).sqrt()) as f32;
    weight.iter().zip(var).map(scale).collect()
}

/// What a BatchNorm kept of its forward pass, `[channels]` each.
#[derive(Clone, Copy)]
pub struct BatchNormState<'a> {
    /// Its scale.
    pub weight: &'a [f32],
    /// See [`BatchNormOutput`].
    pub mean: &'a [f32],
    /// See [`BatchNormOutput`].
    pub var: &'a [f32],
    /// See [`BatchNormOutput`].
    pub shift: &'a [f32],
}

impl BatchNormState<'_> {
    fn check(&self) -> usize {
        let channels = self.weight.len();
        let others = [self.mean, self.var, self.shift];
        assert!(
            others.iter().all(|values| values.len() == channels),
            "statistics of another length"
        );
        channels
    }

    /// The gradients, from the sums over the rows of `g` and of `g · (x - mean)` with the gradient `g` behind ReLU; and
    /// `[a, b, c]` of the input's, `a · g + b · (x - mean) + c`.
    fn finish(
        &self,
        (sums, products): (Vec<f64>, Vec<f64>),
        rows: f64,
        epsilon: f64,
    ) -> (BatchNormGradients, [Vec<f32>; 3]) {
        let inverse: Vec<f64> = (self.var.iter())
            .map(|&v| 1.0 / (f64::from(v) + epsilon).sqrt())
            .collect();
        let channel = |c: usize| {
            let a = f64::from(self.weight[c]) * inverse[c];
            let b = -a * inverse[c] * inverse[c] * products[c] / rows;
            [a, b, -a * sums[c] / rows]
        };
        let constants: Vec<[f64; 3]> = (0..inverse.len()).map(channel).collect();
        let weight = products.iter().zip(&inverse).map(|(p, i)| (p * i) as f32);
        (
            BatchNormGradients {
                weight: weight.collect(),
                bias: as_f32(&sums),
            },
            [0, 1, 2].map(|i| constants.iter().map(|k| k[i] as f32).collect()),
        )
    }
}

/// The gradients of [`batch_norm`] without a residual. `dy` becomes the gradient of the input.
///
/// Where ReLU was is seen from the input: the output is made again in registers, as it was made.
///
/// # Panics
/// When a slice is not of its length.
pub fn batch_norm_backward(
    dy: &mut [f32],
    x: &[f32],
    state: BatchNormState,
    relu: bool,
    epsilon: f64,
) -> BatchNormGradients {
    let channels = state.check();
    check_rows(dy, x, channels);
    let scale = scales(state.weight, state.var, epsilon);
    let spreads = [state.mean, &scale, state.shift].map(spread);
    let mask = match relu {
        true => Mask::Input(&spreads),
        false => Mask::None,
    };
    let gradient = Shared::new(dy);
    let sums = moments(x, &spreads[0], channels, |at| Source::Gradient {
        gradient,
        at,
        mask,
    });
    let (gradients, [a, b, c]) = state.finish(sums, rows(x, channels), epsilon);
    combine(x, [&a, &b, &c, state.mean], gradient, gradient, mask);
    gradients
}

/// The gradients of [`batch_norm`] with a residual and ReLU; `y` is its output. `dy` becomes the gradient of the
/// residual; the gradient of the input is returned beside the parameters'.
///
/// # Panics
/// When a slice is not of its length.
pub fn batch_norm_add_backward(
    dy: &mut [f32],
    x: &[f32],
    y: &[f32],
    state: BatchNormState,
    epsilon: f64,
) -> (Vec<f32>, BatchNormGradients) {
    let channels = state.check();
    check_rows(dy, x, channels);
    check_rows(dy, y, channels);
    let gradient = Shared::new(dy);
    // The first pass leaves the masked gradient in place of the gradient, so the second reads no output.
    let sums = moments(x, &spread(state.mean), channels, |at| Source::Gradient {
        gradient,
        at,
        mask: Mask::Output(y),
    });
    let (gradients, [a, b, c]) = state.finish(sums, rows(x, channels), epsilon);
    let mut dx = Box::<[f32]>::new_uninit_slice(x.len());
    let result = Shared::uninit(&mut dx);
    combine(x, [&a, &b, &c, state.mean], gradient, result, Mask::None);
    // SAFETY: `combine` writes a value for each of `x`.
    (unsafe { dx.assume_init() }.into_vec(), gradients)
}

fn rows(x: &[f32], channels: usize) -> f64 {
    (x.len() / channels) as f64
}

fn check_rows(dy: &[f32], x: &[f32], channels: usize) {
    assert!(
        channels > 0 && dy.len().is_multiple_of(channels),
        "the gradient is no whole rows"
    );
    assert_eq!(
        x.len(),
        dy.len(),
        "input or output and gradient differ in length"
    );
}

/// Where ReLU let the gradient through.
#[derive(Clone, Copy)]
enum Mask<'a> {
    /// Everywhere.
    None,
    /// Where this output is positive; the masked gradient is written back.
    Output(&'a [f32]),
    /// Where the output made of the input with this centre, scale and shift is positive.
    Input(&'a [Vec<f32>; 3]),
}

/// What is summed beside `x - pivot`.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// Sums of `d = x - pivot`, and of `d²`.
    Same,
    /// Sums of the masked gradient `g`, and of `g · d`.
    Gradient {
        gradient: Shared,
        /// Where this task's part begins.
        at: usize,
        mask: Mask<'a>,
    },
}

/// Two sums a channel, in f64 over tasks of [`ROWS`] rows, in f32 within one.
fn moments<'a>(
    x: &'a [f32],
    pivot: &[f32],
    channels: usize,
    source: impl Fn(usize) -> Source<'a> + Sync,
) -> (Vec<f64>, Vec<f64>) {
    let chunk = ROWS * channels;
    let parts: Vec<(Vec<f32>, Vec<f32>)> = (0..x.len().div_ceil(chunk))
        .into_par_iter()
        .map(|task| {
            let (start, end) = (task * chunk, x.len().min((task + 1) * chunk));
            dispatch(Moments {
                x: &x[start..end],
                pivot,
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
    /// Of a period.
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
            // task's start on in the gradient (checked to be as long as all of `x`), which this task alone touches.
            unsafe {
                let around = load(simd, pivot.as_ptr().add(p));
                let (mut a, mut b) = (zero, zero);
                let mut at = p;
                while at < x.len() {
                    let count = x.len() - at;
                    let value = load_some(simd, x.as_ptr().add(at), count);
                    let d = simd.sub_f32s(value, around);
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
                            gradient,
                            at: start,
                            mask,
                        } => {
                            // Lanes past the end hold a zero gradient.
                            let place = gradient.at(start + at);
                            let g = load_some(simd, place, count);
                            let g = masked(simd, g, value, mask, p, start + at, count);
                            if let Mask::Output(_) = mask {
                                store_some(simd, place, count, g);
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

/// The gradient `g` behind ReLU: zero where the output was. `p` is the place in the period, `x` the input there.
///
/// # Safety
/// `count` values, or a vector's, are there from `at` on in a mask's output; a period is whole vectors.
#[inline(always)]
unsafe fn masked<S: Simd>(
    simd: S,
    g: S::f32s,
    x: S::f32s,
    mask: Mask,
    p: usize,
    at: usize,
    count: usize,
) -> S::f32s {
    // SAFETY: the caller's promise.
    let y = unsafe {
        match mask {
            Mask::None => return g,
            Mask::Output(y) => load_some(simd, y.as_ptr().add(at), count),
            Mask::Input([centre, scale, shift]) => simd.mul_add_e_f32s(
                simd.sub_f32s(x, load(simd, centre.as_ptr().add(p))),
                load(simd, scale.as_ptr().add(p)),
                load(simd, shift.as_ptr().add(p)),
            ),
        }
    };
    rectified(simd, y, g)
}

/// `a · g + b · (x - centre) + c` with the masked gradient `g`, into `result`, which may be the gradient's own place.
fn combine(x: &[f32], constants: [&[f32]; 4], gradient: Shared, result: Shared, mask: Mask) {
    let channels = constants[0].len();
    let constants = constants.map(spread);
    backwards(x.len(), channels, |start, end| {
        dispatch(Combine {
            x,
            constants: &constants,
            mask,
            gradient,
            start,
            end,
            result,
        });
    });
}

struct Combine<'a> {
    x: &'a [f32],
    constants: &'a [Vec<f32>; 4],
    mask: Mask<'a>,
    gradient: Shared,
    start: usize,
    end: usize,
    result: Shared,
}

impl WithSimd for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [a, b, c, centre] = self.constants;
        let mut at = self.start;
        while at < self.end {
            for p in (0..a.len()).step_by(S::F32_LANES) {
                let count = self.end.saturating_sub(at + p);
                if count == 0 {
                    break;
                }
                // SAFETY: as in `Affine`; the constants are one period long; nobody else touches this task's part of
                // gradient and result.
                unsafe {
                    let x = load_some(simd, self.x.as_ptr().add(at + p), count);
                    let g = load_some(simd, self.gradient.at(at + p), count);
                    let g = masked(simd, g, x, self.mask, p, at + p, count);
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
