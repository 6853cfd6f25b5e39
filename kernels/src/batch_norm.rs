//! BatchNorm with the batch's statistics, fused with a residual and ReLU, and its gradients.

use pulp::{Simd, WithSimd};

use crate::affine::{check_rows, scaled};
use crate::memory::Shared;
use crate::rows::{for_each_from_last, repeat_to_period};
use crate::simd::dispatch;
use crate::sums::{ReluMask, Sums, masked, sum_rows};
use crate::vector::{load, load_some, store_some};

/// The output of [`batch_norm`].
pub struct BatchNormOutput {
    /// The output, as long as the input.
    pub y: Vec<f32>,
    /// Mean of the batch, `[channels]`.
    pub mean: Vec<f32>,
    /// Biased variance of the batch, `[channels]`.
    pub var: Vec<f32>,
    /// Shift that is added after centring and scaling, `[channels]`: the bias, and the rounding
    /// error of the mean.
    pub shift: Vec<f32>,
}

/// The gradients of a BatchNorm's parameters.
pub struct BatchNormGradients {
    /// Gradient of the scale, `[channels]`.
    pub weight: Vec<f32>,
    /// Gradient of the shift, `[channels]`.
    pub bias: Vec<f32>,
}

/// What a part of a batch adds to a BatchNorm over the whole: its number of rows, and two values of each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct PartSums {
    /// Number of rows.
    pub rows: f64,
    /// Forward the mean; backward the sum of the gradient.
    pub first: Vec<f64>,
    /// Forward the sum of the squared distances from the mean; backward the sum of the gradient times the distance.
    pub second: Vec<f64>,
}

/// Function from the sums of a part to those of the whole batch, of which other threads or processes have the rest: they are put together
/// by [`join`].
pub type Join<'a> = &'a dyn Fn(Direction, PartSums) -> PartSums;

/// Pass of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the input to the output.
    Forward,
    /// From the gradient of the output to that of the input.
    Backward,
}

/// Joins sums of all parts, in their order.
///
/// # Panics
/// For no parts.
pub fn join(direction: Direction, parts: Vec<PartSums>) -> PartSums {
    let join = match direction {
        Direction::Forward => joined_moments,
        Direction::Backward => joined_sums,
    };
    parts.into_iter().reduce(join).expect("at least one part")
}

/// Means and squared distances of two parts together (Chan, Golub, LeVeque: "Updating Formulae and a Pairwise Algorithm for
/// Computing Sample Variances", 1979).
fn joined_moments(a: PartSums, b: PartSums) -> PartSums {
    let rows = a.rows + b.rows;
    let apart = a.first.iter().zip(&b.first).map(|(a, b)| b - a);
    let apart: Vec<f64> = apart.collect();
    let mean = a.first.iter().zip(&apart);
    let squares = a.second.iter().zip(&b.second).zip(&apart);
    PartSums {
        rows,
        first: mean
            .map(|(mean, apart)| mean + apart * b.rows / rows)
            .collect(),
        second: squares
            .map(|((x, y), apart)| x + y + apart * apart * a.rows * b.rows / rows)
            .collect(),
    }
}

fn joined_sums(a: PartSums, b: PartSums) -> PartSums {
    let add = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(b).map(|(a, b)| a + b).collect();
    PartSums {
        rows: a.rows + b.rows,
        first: add(a.first, b.first),
        second: add(a.second, b.second),
    }
}

fn as_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// BatchNorm with the batch's statistics: `y = relu?((x - mean) / √(var + epsilon) · weight + bias
/// + residual?)`.
///
/// # Panics
/// If the lengths of the slices do not match, or there are no rows.
pub fn batch_norm(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    epsilon: f64,
) -> BatchNormOutput {
    batch_norm_of_part(x, weight, bias, residual, relu, epsilon, None)
}

/// [`batch_norm`] of a part of the batch, with the statistics of the whole where `join` finds them.
///
/// # Panics
/// As [`batch_norm`].
pub fn batch_norm_of_part(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    epsilon: f64,
    join: Option<Join>,
) -> BatchNormOutput {
    let channels = weight.len();
    assert_eq!(bias.len(), channels, "weight and bias differ in length");
    assert!(
        channels > 0 && x.len() >= channels && x.len().is_multiple_of(channels),
        "BatchNorm needs a whole number of rows, at least one"
    );
    assert!(
        residual.is_none_or(|r| r.len() == x.len()),
        "the residual does not have the input's length"
    );
    let rows = rows(x, channels);
    // Sums relative to a value of the channel itself: a plain sum of squares would lose the
    // variance of a channel far from zero in the difference of two large numbers.
    let pivot = x[..channels].to_vec();
    let (sums, squares) = sum_rows(x, &repeat_to_period(&pivot), channels, |_| Sums::Input);
    let mut mean = vec![0.0; channels];
    let mut var = vec![0.0; channels];
    for c in 0..channels {
        let offset = sums[c] / rows;
        mean[c] = f64::from(pivot[c]) + offset;
        let value = squares[c] / rows - offset * offset;
        // Not max(0), which would replace NaN.
        var[c] = if value < 0.0 { 0.0 } else { value };
    }
    if let Some(join) = join {
        let whole = join(
            Direction::Forward,
            PartSums {
                rows,
                first: mean,
                second: var.iter().map(|var| var * rows).collect(),
            },
        );
        mean = whole.first;
        var = (whole.second.iter())
            .map(|squares| squares / whole.rows)
            .collect();
    }
    let (centre, var) = (as_f32(&mean), as_f32(&var));
    let scale = scales(weight, &var, epsilon);
    // The shift makes up for rounding the mean to f32.
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

/// Weight divided by standard deviation, for each channel.
fn scales(weight: &[f32], var: &[f32], epsilon: f64) -> Vec<f32> {
    let scale = |(&w, &v): (&f32, &f32)| (f64::from(w) / (f64::from(v) + epsilon).sqrt()) as f32;
    weight.iter().zip(var).map(scale).collect()
}

/// The values of a BatchNorm's forward pass that its backward pass needs, `[channels]` each.
#[derive(Clone, Copy)]
pub struct BatchNormState<'a> {
    /// Scale of the BatchNorm.
    pub weight: &'a [f32],
    /// See [`BatchNormOutput`].
    pub mean: &'a [f32],
    /// See [`BatchNormOutput`].
    pub var: &'a [f32],
    /// See [`BatchNormOutput`].
    pub shift: &'a [f32],
}

impl BatchNormState<'_> {
    /// Checks the lengths, and returns the number of channels.
    fn check(&self) -> usize {
        let channels = self.weight.len();
        let others = [self.mean, self.var, self.shift];
        assert!(
            others.iter().all(|values| values.len() == channels),
            "the statistics do not have one value for each channel"
        );
        channels
    }

    /// The parameters' gradients, and the constants `[a, b, c]` of the input's, `a · g + b · (x -
    /// mean) + c`. `g` is the gradient before ReLU; the arguments are the sums over the rows of `g`
    /// and of `g · (x - mean)`.
    fn finish(
        &self,
        (sums, products): (Vec<f64>, Vec<f64>),
        rows: f64,
        epsilon: f64,
        join: Option<Join>,
    ) -> (BatchNormGradients, [Vec<f32>; 3]) {
        let part = PartSums {
            rows,
            first: sums,
            second: products,
        };
        // The parameters' gradients are the part's; the input's depends on the whole batch.
        let (sums, products) = (&part.first, &part.second);
        let joined = join.map(|join| join(Direction::Backward, part.clone()));
        let whole = joined.as_ref().unwrap_or(&part);
        let inverse: Vec<f64> = (self.var.iter())
            .map(|&v| 1.0 / (f64::from(v) + epsilon).sqrt())
            .collect();
        let channel = |c: usize| {
            let a = f64::from(self.weight[c]) * inverse[c];
            let b = -a * inverse[c] * inverse[c] * whole.second[c] / whole.rows;
            [a, b, -a * whole.first[c] / whole.rows]
        };
        let constants: Vec<[f64; 3]> = (0..inverse.len()).map(channel).collect();
        let weight = products.iter().zip(&inverse).map(|(p, i)| (p * i) as f32);
        (
            BatchNormGradients {
                weight: weight.collect(),
                bias: as_f32(sums),
            },
            [0, 1, 2].map(|i| constants.iter().map(|k| k[i] as f32).collect()),
        )
    }
}

/// The gradients of [`batch_norm`] without a residual. `dy` is replaced by the gradient of the
/// input.
///
/// The output, which tells where ReLU was active, is recomputed from the input in registers: that
/// takes less memory traffic than reading it.
///
/// # Panics
/// If the lengths of the slices do not match.
pub fn batch_norm_backward(
    dy: &mut [f32],
    x: &[f32],
    state: BatchNormState,
    relu: bool,
    epsilon: f64,
) -> BatchNormGradients {
    batch_norm_backward_of_part(dy, x, state, relu, epsilon, None)
}

/// [`batch_norm_backward`] of a part of the batch, which was normalised with the statistics of the whole.
///
/// # Panics
/// As [`batch_norm_backward`].
pub fn batch_norm_backward_of_part(
    dy: &mut [f32],
    x: &[f32],
    state: BatchNormState,
    relu: bool,
    epsilon: f64,
    join: Option<Join>,
) -> BatchNormGradients {
    let channels = state.check();
    check_rows(dy, x, channels);
    let scale = scales(state.weight, state.var, epsilon);
    let constants = [state.mean, &scale, state.shift].map(repeat_to_period);
    let mask = if relu {
        ReluMask::Input(&constants)
    } else {
        ReluMask::None
    };
    let gradient = Shared::new(dy);
    let sums = sum_rows(x, &constants[0], channels, |at| Sums::Gradient {
        gradient,
        at,
        mask,
    });
    let (gradients, [a, b, c]) = state.finish(sums, rows(x, channels), epsilon, join);
    input_gradient(x, [&a, &b, &c, state.mean], gradient, gradient, mask);
    gradients
}

/// The gradients of [`batch_norm`] with a residual and ReLU; `y` is its output. `dy` is replaced by
/// the gradient of the residual. Returns the gradient of the input, and those of the parameters.
///
/// # Panics
/// If the lengths of the slices do not match.
pub fn batch_norm_add_backward(
    dy: &mut [f32],
    x: &[f32],
    y: &[f32],
    state: BatchNormState,
    epsilon: f64,
) -> (Vec<f32>, BatchNormGradients) {
    batch_norm_add_backward_of_part(dy, x, y, state, epsilon, None)
}

/// [`batch_norm_add_backward`] of a part of the batch, which was normalised with the statistics of the whole.
///
/// # Panics
/// As [`batch_norm_add_backward`].
pub fn batch_norm_add_backward_of_part(
    dy: &mut [f32],
    x: &[f32],
    y: &[f32],
    state: BatchNormState,
    epsilon: f64,
    join: Option<Join>,
) -> (Vec<f32>, BatchNormGradients) {
    let channels = state.check();
    check_rows(dy, x, channels);
    check_rows(dy, y, channels);
    let gradient = Shared::new(dy);
    // The first pass replaces the gradient by the masked one, so that the second need not read the
    // output.
    let mean = repeat_to_period(state.mean);
    let sums = sum_rows(x, &mean, channels, |at| Sums::Gradient {
        gradient,
        at,
        mask: ReluMask::Output(y),
    });
    let (gradients, [a, b, c]) = state.finish(sums, rows(x, channels), epsilon, join);
    let mut dx = Box::<[f32]>::new_uninit_slice(x.len());
    let result = Shared::uninit(&mut dx);
    let constants = [&a[..], &b, &c, state.mean];
    input_gradient(x, constants, gradient, result, ReluMask::None);
    // SAFETY: `input_gradient` writes a value for each of `x`.
    (unsafe { dx.assume_init() }.into_vec(), gradients)
}

/// Number of rows.
fn rows(x: &[f32], channels: usize) -> f64 {
    (x.len() / channels) as f64
}

/// Computes `a · g + b · (x - centre) + c` with the masked gradient `g`, into `result`, which may
/// be the same buffer as `gradient`. Both are as long as `x`.
fn input_gradient(
    x: &[f32],
    constants: [&[f32]; 4],
    gradient: Shared,
    result: Shared,
    mask: ReluMask,
) {
    let channels = constants[0].len();
    let constants = constants.map(repeat_to_period);
    for_each_from_last(x.len(), channels, |start, end| {
        dispatch(InputGradient {
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

/// The task of [`input_gradient`] for values `start..end`.
struct InputGradient<'a> {
    x: &'a [f32],
    /// `a`, `b`, `c` and centre, repeated to a period.
    constants: &'a [Vec<f32>; 4],
    mask: ReluMask<'a>,
    gradient: Shared,
    start: usize,
    end: usize,
    result: Shared,
}

impl WithSimd for InputGradient<'_> {
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
                // SAFETY: `count` values are left from `at + p` on in `x`, `gradient` and `result`,
                // and no other task touches `start..end` of the last two; a period is whole
                // vectors.
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
