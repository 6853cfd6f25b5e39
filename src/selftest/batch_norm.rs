//! BatchNorm in training against sums in f64, on shapes that no network of the golden vectors has: GPUs have kernels of their
//! own for it.

use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::{GoldenCheck, Quantity};
use crate::nn::{BatchNorm, Mode, Statistics};
use crate::random;
use crate::tensor::to_vec;

/// Relative error allowed: sums of f32.
const TOLERANCE: f64 = 1e-4;
/// Added to a variance before its root is taken, as in PyTorch.
const EPSILON: f64 = 1e-5;
/// How near to zero a ReLU's input may be before its gradient is left out: rounding may put it on either side.
const KINK: f64 = 1e-3;

/// `[height, width, batch, channels]`: one channel, odd numbers, more channels than a vector or a warp has, many rows.
const SHAPES: [[usize; 4]; 6] = [
    [1, 1, 9, 1],
    [3, 2, 5, 5],
    [4, 4, 8, 16],
    [5, 3, 3, 33],
    [7, 8, 16, 70],
    [32, 32, 33, 3],
];

/// What BatchNorm computes, by f64; activations are `[rows, channels]`.
struct Reference {
    y: Vec<f64>,
    dx: Vec<f64>,
    dweight: Vec<f64>,
    dbias: Vec<f64>,
    dresidual: Vec<f64>,
}

/// An input of BatchNorm, and the gradient behind its output.
struct Case {
    shape: [usize; 4],
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    residual: Option<Vec<f32>>,
    relu: bool,
    dy: Vec<f32>,
}

impl Case {
    fn draw(shape: [usize; 4], add: bool, rng: &mut ChaCha8Rng) -> Self {
        let count = shape.iter().product();
        let mut draw = |count: usize, centre: f32| -> Vec<f32> {
            let values = (0..count).map(|_| centre + rng.random_range(-1.0..1.0f32));
            values.collect()
        };
        // Far from zero, where squares of the values themselves would lose the variance.
        let (x, weight, bias) = (draw(count, 8.0), draw(shape[3], 1.5), draw(shape[3], 0.0));
        let residual = add.then(|| draw(count, 0.0));
        let dy = draw(count, 0.0);
        let relu = add || shape[3].is_multiple_of(2);
        let mut case = Self {
            shape,
            x,
            weight,
            bias,
            residual,
            relu,
            dy,
        };
        if case.relu {
            let before = case.before_relu();
            for (dy, value) in case.dy.iter_mut().zip(before) {
                if value.abs() < KINK {
                    *dy = 0.0;
                }
            }
        }
        case
    }

    fn channels(&self) -> usize {
        self.shape[3]
    }

    fn rows(&self) -> f64 {
        (self.x.len() / self.channels()) as f64
    }

    /// Means over the rows of `value` of each index.
    fn means(&self, value: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut sums = vec![0.0; self.channels()];
        for at in 0..self.x.len() {
            sums[at % self.channels()] += value(at);
        }
        sums.iter().map(|sum| sum / self.rows()).collect()
    }

    /// Values centred and scaled, and what they were scaled by in each channel.
    fn normalized(&self) -> (Vec<f64>, Vec<f64>) {
        let c = self.channels();
        let mean = self.means(|at| f64::from(self.x[at]));
        let var = self.means(|at| (f64::from(self.x[at]) - mean[at % c]).powi(2));
        let inverse: Vec<f64> = var.iter().map(|v| 1.0 / (v + EPSILON).sqrt()).collect();
        let values = (self.x.iter().enumerate())
            .map(|(at, x)| (f64::from(*x) - mean[at % c]) * inverse[at % c]);
        (values.collect(), inverse)
    }

    fn before_relu(&self) -> Vec<f64> {
        let c = self.channels();
        let added = |at: usize| self.residual.as_ref().map_or(0.0, |r| f64::from(r[at]));
        let (values, _) = self.normalized();
        let shifted = values.iter().enumerate().map(|(at, value)| {
            value * f64::from(self.weight[at % c]) + f64::from(self.bias[at % c]) + added(at)
        });
        shifted.collect()
    }

    fn reference(&self) -> Reference {
        let c = self.channels();
        let before = self.before_relu();
        let (values, inverse) = self.normalized();
        let is_off = |at: usize| self.relu && before[at] <= 0.0;
        let masked: Vec<f64> = (self.dy.iter().enumerate())
            .map(|(at, dy)| if is_off(at) { 0.0 } else { f64::from(*dy) })
            .collect();
        let level = self.means(|at| masked[at]);
        let slope = self.means(|at| masked[at] * values[at]);
        let of_input = |at: usize| {
            let rest = masked[at] - level[at % c] - values[at] * slope[at % c];
            f64::from(self.weight[at % c]) * inverse[at % c] * rest
        };
        let sums = |means: &[f64]| means.iter().map(|mean| mean * self.rows()).collect();
        Reference {
            dx: (0..masked.len()).map(of_input).collect(),
            dweight: sums(&slope),
            dbias: sums(&level),
            y: (0..before.len())
                .map(|at| if is_off(at) { 0.0 } else { before[at] })
                .collect(),
            dresidual: masked,
        }
    }

    /// The same on a device; with `turned`, memory has the activations' axes in another order.
    fn computed(&self, turned: bool, device: &Device) -> Vec<(&'static str, Vec<f32>)> {
        let tensor = |values: &[f32]| {
            let tensor =
                Tensor::<4>::from_data(TensorData::new(values.to_vec(), self.shape), device);
            match turned {
                true => (tensor.permute([2, 0, 1, 3]) * 1.0).permute([1, 2, 0, 3]),
                false => tensor,
            }
        };
        let leaf = |values: &[f32]| tensor(values).autodiff().require_grad();
        let vector = |values: &[f32]| {
            let data = TensorData::new(values.to_vec(), [values.len()]);
            Tensor::<1>::from_data(data, device)
        };
        let mut norm = BatchNorm::new(self.channels(), device);
        norm.weight = norm.weight.map(|_| vector(&self.weight));
        norm.bias = norm.bias.map(|_| vector(&self.bias));
        let norm = burn::module::Module::train(norm);
        let x = leaf(&self.x);
        let residual = self.residual.as_deref().map(leaf);
        let mut statistics = Statistics::default();
        let mode = &mut Mode::Train(&mut statistics);
        let y = norm.forward(x.clone(), residual.clone(), self.relu, mode);
        let gradients = (y.clone() * tensor(&self.dy).autodiff()).sum().backward();
        let of = |leaf: &Tensor<4>| to_vec(leaf.grad(&gradients).expect("a leaf's gradient"));
        let of_vector =
            |leaf: &Tensor<1>| to_vec(leaf.grad(&gradients).expect("a leaf's gradient"));
        let mut parts = vec![
            ("y", to_vec(y.inner())),
            ("dx", of(&x)),
            ("dweight", of_vector(&norm.weight.val())),
            ("dbias", of_vector(&norm.bias.val())),
        ];
        parts.extend(residual.map(|residual| ("dresidual", of(&residual))));
        parts
    }
}

/// Length of the difference over the size that the result would have if nothing in it cancelled.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    let pairs = found.iter().zip(expected);
    let apart: f64 = pairs.map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    let size: f64 = expected.iter().map(|value| value * value).sum();
    let error = (apart / size.max(1e-6)).sqrt();
    if error.is_nan() { f64::INFINITY } else { error }
}

/// Runs the check.
pub(super) fn check(device: &Device) -> GoldenCheck {
    let mut quantities = Vec::new();
    for (seed, shape) in SHAPES.into_iter().enumerate() {
        let rng = &mut random::generator(seed as u64, "selftest/batch_norm", 0);
        for (add, turned) in [(false, false), (true, false), (true, true)] {
            let case = Case::draw(shape, add, rng);
            let expected = case.reference();
            for (part, found) in case.computed(turned, device) {
                let expected = match part {
                    "y" => &expected.y,
                    "dx" => &expected.dx,
                    "dweight" => &expected.dweight,
                    "dbias" => &expected.dbias,
                    _ => &expected.dresidual,
                };
                let [height, width, batch, channels] = shape;
                let with = if add { ", residual" } else { "" };
                let order = if turned { ", turned" } else { "" };
                quantities.push(Quantity {
                    name: format!(
                        "{part} of {height} × {width} × {batch} × {channels}{with}{order}"
                    ),
                    error: error(&found, expected),
                    tolerance: TOLERANCE,
                });
            }
        }
    }
    GoldenCheck {
        folder: "embedded".to_owned(),
        name: "batch_norm".to_owned(),
        quantities,
        tries: 1,
    }
}
