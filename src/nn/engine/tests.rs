//! Every operation against Burn's own in f64, over random shapes: values, and the gradients of all inputs.
//!
//! All instruction sets of this processor, both algorithms and several numbers of threads run each case. Seeds are
//! fixed. Errors are norms of differences over the size that the result would have if nothing in it cancelled.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::activation::relu as relu_of;
use burn::tensor::module::{conv2d, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{
    EPSILON, affine, choose_cpu_kernels, conv, conv_shift, instruction_sets, max_pool, norm, pool,
};
use crate::random;

/// Relative errors allowed, each some three times the worst that was seen.
const DIRECT: f64 = 1e-6;
const WINOGRAD: f64 = 6e-6;
const NORM: f64 = 4e-6;

/// How near to zero a ReLU's input may be before its gradient is left out: rounding may put it on either side.
const KINK: f64 = 1e-4;

/// Instruction set and algorithm are the process's: whoever chooses them, or runs the engine in another test of
/// this process, takes this first.
static TURN: Mutex<()> = Mutex::new(());

/// Leaves the program's defaults behind, also when a test fails.
pub(crate) struct Turn {
    _held: MutexGuard<'static, ()>,
}

impl Turn {
    pub(crate) fn take() -> Self {
        Self {
            _held: TURN.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        choose_cpu_kernels(None, true).expect("there is always a best set");
    }
}

/// An input: its values and shape. Channels' parameters are `[1, 1, 1, channels]` here.
#[derive(Clone)]
struct Input {
    shape: [usize; 4],
    values: Vec<f32>,
    /// Whether its gradient is asked for.
    wanted: bool,
    /// Laid out as images are: the operation gets a permuted view of it.
    turned: bool,
}

impl Input {
    /// Numbers around `centre`, at most one away.
    fn draw(shape: [usize; 4], centre: f32, rng: &mut ChaCha8Rng) -> Self {
        let len = shape.iter().product();
        let mut value = || centre + rng.random_range(-1.0..1.0f32);
        let values = (0..len).map(|_| value()).collect();
        let (wanted, turned) = (rng.random_bool(0.8), false);
        Self {
            shape,
            values,
            wanted,
            turned,
        }
    }

    fn wanted(self) -> Self {
        let wanted = true;
        Self { wanted, ..self }
    }

    fn turned(self, turned: bool) -> Self {
        Self { turned, ..self }
    }

    fn squared(&self) -> Self {
        let mut squared = self.clone();
        squared.values.iter_mut().for_each(|v| *v *= *v);
        squared
    }

    fn tensor(&self, dtype: DType) -> Tensor<4> {
        let data = TensorData::new(self.values.clone(), self.shape);
        let tensor = Tensor::from_data(data, (&Device::flex(), dtype));
        match self.turned {
            // The same values in the same places, in another order in memory.
            true => tensor
                .permute([2, 3, 0, 1])
                .add_scalar(0.0)
                .permute([2, 3, 0, 1]),
            false => tensor,
        }
    }
}

/// The same with all gradients asked for: what the reference computes.
fn all(inputs: &[Input]) -> Vec<Input> {
    inputs.iter().cloned().map(Input::wanted).collect()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    let data = tensor.into_data().convert::<f64>();
    data.try_to_vec().expect("just converted")
}

/// The values of `f` at `inputs`, and the gradients of `Σ f · upstream`, none for inputs that want none.
fn differentiate(
    inputs: &[Input],
    upstream: &Input,
    dtype: DType,
    f: impl Fn(&[Tensor<4>]) -> Tensor<4>,
) -> Vec<Vec<f64>> {
    let leaf = |input: &Input| match input.wanted {
        true => input.tensor(dtype).autodiff().require_grad(),
        false => input.tensor(dtype).autodiff(),
    };
    let leaves: Vec<Tensor<4>> = inputs.iter().map(leaf).collect();
    let y = f(&leaves);
    let mut outcome = vec![values(y.clone().inner())];
    // A gradient that is one everywhere comes as a single value, repeated by its strides.
    let loss = match upstream.values.iter().all(|v| *v == 1.0) {
        true => y.sum(),
        false => (y * upstream.tensor(dtype).autodiff()).sum(),
    };
    let gradients = loss.backward();
    for (leaf, input) in leaves.iter().zip(inputs) {
        let gradient = leaf.grad(&gradients);
        assert_eq!(
            gradient.is_some(),
            input.wanted,
            "a gradient nobody asked for"
        );
        outcome.push(gradient.map(values).unwrap_or_default());
    }
    outcome
}

fn size(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// ‖ours − reference‖ / size.
fn error(ours: &[f64], reference: &[f64], size: f64) -> f64 {
    assert_eq!(ours.len(), reference.len());
    let difference: f64 = ours
        .iter()
        .zip(reference)
        .map(|(a, b)| (a - b).powi(2))
        .sum();
    let difference = difference.sqrt();
    match difference {
        0.0 => 0.0,
        _ => difference / size,
    }
}

fn pools() -> Vec<ThreadPool> {
    let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build();
    [1, 2, 5]
        .map(|threads| pool(threads).expect("a pool"))
        .into()
}

/// What must come out: a reference's values, and the size that an error in each is held against.
struct Expected {
    values: Vec<Vec<f64>>,
    sizes: Vec<f64>,
}

impl Expected {
    fn compare(&self, place: &str, outcome: &[Vec<f64>], tolerance: f64) {
        for (i, (expected, size)) in self.values.iter().zip(&self.sizes).enumerate() {
            // None for a gradient that was not asked for.
            if !outcome[i].is_empty() {
                let error = error(&outcome[i], expected, *size);
                assert!(error < tolerance, "{place}, quantity {i}: {error:.1e}");
            }
        }
    }

    /// Runs `ours` under every choice and on every pool: the number of threads changes no bit, and no error is beyond
    /// `tolerances`, for direct sums and for Winograd.
    fn check(
        &self,
        place: &str,
        pools: &[ThreadPool],
        tolerances: [f64; 2],
        ours: impl Fn() -> Vec<Vec<f64>> + Sync,
    ) {
        for isa in instruction_sets() {
            for (winograd, tolerance) in [false, true].into_iter().zip(tolerances) {
                choose_cpu_kernels(Some(isa), winograd).expect("an available set");
                let place = format!("{place}, {isa}, winograd {winograd}");
                let outcome = pools[0].install(&ours);
                self.compare(&place, &outcome, tolerance);
                for pool in &pools[1..] {
                    let again = pool.install(&ours);
                    let threads = pool.current_num_threads();
                    assert!(
                        outcome == again,
                        "{place}: other bits with {threads} threads"
                    );
                }
            }
        }
    }
}

fn pick<T: Copy>(from: &[T], rng: &mut ChaCha8Rng) -> T {
    from[rng.random_range(0..from.len())]
}

const CHANNELS: [usize; 8] = [1, 3, 8, 16, 17, 24, 32, 33];

fn sides(most: usize, rng: &mut ChaCha8Rng) -> [usize; 3] {
    let batch = pick(&[1, 2, 3, 5, 14], rng);
    [
        rng.random_range(1..=most),
        rng.random_range(1..=most),
        batch,
    ]
}

/// Burn's own convolution of the first tensor by the second.
fn stock_conv(t: &[Tensor<4>], kernel: usize, stride: usize) -> Tensor<4> {
    let options = ConvOptions::new([stride; 2], [kernel / 2; 2], [1, 1], 1);
    let x = t[0].clone().permute([2, 3, 0, 1]);
    conv2d(x, t[1].clone(), None, options).permute([2, 3, 0, 1])
}

#[test]
fn convolution_is_burns() {
    let _turn = Turn::take();
    let pools = pools();
    for case in 0..96 {
        let rng = &mut random::generator(1, "test/conv", case);
        let [h, w, n] = sides(13, rng);
        let (input, output) = (pick(&CHANNELS, rng), pick(&CHANNELS, rng));
        // One in six is a single pixel; kernels and strides in all combinations.
        let (h, w) = if case % 6 == 5 { (1, 1) } else { (h, w) };
        let kernel = [3, 3, 7, 1][case as usize % 4];
        let stride = pick(&[1, 1, 2], rng);
        let x = Input::draw([h, w, n, input], 0.0, rng).turned(case % 2 == 0);
        let weight = Input::draw([output, input, kernel, kernel], 0.0, rng);
        let weight = if x.wanted { weight } else { weight.wanted() };
        let shape = [h.div_ceil(stride), w.div_ceil(stride), n, output];
        let mut upstream = Input::draw(shape, 0.0, rng);
        if case % 5 == 4 {
            upstream.values.fill(1.0);
        }
        let stock = |t: &[Tensor<4>]| stock_conv(t, kernel, stride);
        let inputs = [x, weight];
        let reference = differentiate(&all(&inputs), &upstream, DType::F64, stock);
        // A sum of products of random signs is about as large as the root of the sum of their squares.
        let squares: Vec<Input> = all(&inputs).iter().map(Input::squared).collect();
        let squares = differentiate(&squares, &upstream.squared(), DType::F64, stock);
        let sizes: Vec<f64> = squares
            .iter()
            .map(|s| s.iter().sum::<f64>().sqrt())
            .collect();
        let place = format!(
            "{h} × {w} × {n}, {input} to {output}, kernel {kernel}, stride {stride}, case {case}"
        );
        let expected = Expected {
            values: reference,
            sizes,
        };
        expected.check(&place, &pools, [DIRECT, WINOGRAD], || {
            let engine = |t: &[Tensor<4>]| conv(t[0].clone(), t[1].clone(), stride);
            differentiate(&inputs, &upstream, DType::F32, engine)
        });
    }
}

fn flat(parameter: &Tensor<4>) -> Tensor<1> {
    parameter.clone().flatten(0, 3)
}

#[test]
fn convolution_with_what_follows_is_burns() {
    let _turn = Turn::take();
    let pools = pools();
    for case in 0..48 {
        let rng = &mut random::generator(5, "test/shift", case);
        let [h, w, n] = sides(9, rng);
        let (input, output) = (pick(&CHANNELS, rng), pick(&CHANNELS, rng));
        let kernel = [3, 3, 7, 1][case as usize % 4];
        let stride = pick(&[1, 1, 2], rng);
        let (relu, residual) = (!case.is_multiple_of(3), case % 3 == 2);
        let shape = [h.div_ceil(stride), w.div_ceil(stride), n, output];
        let mut inputs = vec![
            Input::draw([h, w, n, input], 0.0, rng).wanted(),
            Input::draw([output, input, kernel, kernel], 0.0, rng),
            Input::draw([1, 1, 1, output], 0.0, rng),
        ];
        if residual {
            inputs.push(Input::draw(shape, 0.0, rng));
        }
        let before = |t: &[Tensor<4>]| {
            let y = stock_conv(t, kernel, stride) + t[2].clone();
            t.get(3).cloned().into_iter().fold(y, |y, r| y + r)
        };
        let plain: Vec<Tensor<4>> = inputs.iter().map(|i| i.tensor(DType::F64)).collect();
        // No gradient where Winograd's rounding may put a value on the other side of ReLU's kink.
        let mut upstream = Input::draw(shape, 0.0, rng);
        let near = values(before(&plain)).into_iter().zip(&mut upstream.values);
        near.filter(|(value, _)| relu && value.abs() < 10.0 * KINK)
            .for_each(|(_, upstream)| *upstream = 0.0);
        let stock = |t: &[Tensor<4>]| match relu {
            true => relu_of(before(t)),
            false => before(t),
        };
        let reference = differentiate(&all(&inputs), &upstream, DType::F64, stock);
        // As if nothing in the sums cancelled: the size of the squares' way through the same sums.
        let squares: Vec<Input> = all(&inputs).iter().map(Input::squared).collect();
        let squares = differentiate(&squares, &upstream.squared(), DType::F64, before);
        let expected = Expected {
            values: reference,
            sizes: squares
                .iter()
                .map(|s| s.iter().sum::<f64>().sqrt())
                .collect(),
        };
        let place = format!(
            "{h} × {w} × {n}, {input} to {output}, kernel {kernel}, stride {stride}, relu {relu}, case {case}"
        );
        expected.check(&place, &pools, [2.0 * DIRECT, 2.0 * WINOGRAD], || {
            differentiate(&inputs, &upstream, DType::F32, |t| {
                let residual = t.get(3).cloned();
                let (x, w) = (t[0].clone(), t[1].clone());
                conv_shift(x, w, flat(&t[2]), residual, stride, relu)
            })
        });
    }
}

#[test]
fn pooling_is_burns() {
    let _turn = Turn::take();
    let pools = pools();
    for case in 0..24 {
        let rng = &mut random::generator(6, "test/pool", case);
        let [h, w, n] = sides(9, rng);
        let channels = pick(&CHANNELS, rng);
        let shape = [h, w, n, channels];
        let inputs = [Input::draw(shape, 1.0, rng).wanted().turned(case % 3 == 0)];
        let upstream = Input::draw([1, 1, n, channels], 0.0, rng);
        let stock = |t: &[Tensor<4>]| t[0].clone().mean_dim(0).mean_dim(1);
        let reference = differentiate(&inputs, &upstream, DType::F64, stock);
        let expected = Expected {
            sizes: reference.iter().map(|values| size(values)).collect(),
            values: reference,
        };
        expected.check(&format!("{shape:?}"), &pools, [DIRECT; 2], || {
            differentiate(&inputs, &upstream, DType::F32, |t| {
                pool(t[0].clone()).reshape([1, 1, n, channels])
            })
        });
    }
}

#[test]
fn maxima_are_burns() {
    let _turn = Turn::take();
    let pools = pools();
    for case in 0..24 {
        let rng = &mut random::generator(7, "test/maxima", case);
        let [h, w, n] = sides(9, rng);
        let channels = pick(&CHANNELS, rng);
        let shape = [h, w, n, channels];
        let inputs = [Input::draw(shape, 0.0, rng).wanted().turned(case % 3 == 0)];
        let upstream = Input::draw([h.div_ceil(2), w.div_ceil(2), n, channels], 0.0, rng);
        let stock = |t: &[Tensor<4>]| {
            let x = t[0].clone().permute([2, 3, 0, 1]);
            let options = MaxPoolOptions::new([3; 2])
                .with_stride([2; 2])
                .with_padding([1; 2]);
            max_pool2d(x, options).permute([2, 3, 0, 1])
        };
        let reference = differentiate(&inputs, &upstream, DType::F64, stock);
        let expected = Expected {
            sizes: reference.iter().map(|values| size(values)).collect(),
            values: reference,
        };
        expected.check(&format!("{shape:?}"), &pools, [DIRECT; 2], || {
            differentiate(&inputs, &upstream, DType::F32, |t| max_pool(t[0].clone()))
        });
    }
}

/// What norm and affine have in common: an input, two parameters, and in two of three cases ReLU, in one of three a
/// residual, which is the input itself in half of them.
struct Fused {
    inputs: Vec<Input>,
    relu: bool,
    residual: bool,
    place: String,
}

impl Fused {
    fn draw(case: u64, rng: &mut ChaCha8Rng) -> Self {
        let [h, w, n] = sides(16, rng);
        let (h, w) = if case % 8 == 7 { (1, 1) } else { (h, w) };
        let channels = pick(&CHANNELS, rng);
        let (relu, residual) = (!case.is_multiple_of(3), case % 3 == 2);
        let own = residual && rng.random_bool(0.5);
        let shape = [h, w, n, channels];
        let x = Input::draw(shape, pick(&[0.0, 3.0], rng), rng).wanted();
        let parameter = |rng: &mut ChaCha8Rng| Input::draw([1, 1, 1, channels], 0.0, rng);
        let mut inputs = vec![
            x.turned(case.is_multiple_of(2)),
            parameter(rng),
            parameter(rng),
        ];
        if own {
            inputs.push(Input::draw(shape, 0.0, rng).turned(case.is_multiple_of(4)));
        }
        let place = format!(
            "{h} × {w} × {n} × {channels}, relu {relu}, residual {residual} (own: {own}), case {case}"
        );
        Self {
            inputs,
            relu,
            residual,
            place,
        }
    }

    fn residual(&self, t: &[Tensor<4>]) -> Option<Tensor<4>> {
        self.residual.then(|| t.get(3).unwrap_or(&t[0]).clone())
    }

    /// The residual and ReLU of Burn.
    fn finish(&self, y: Tensor<4>, t: &[Tensor<4>]) -> Tensor<4> {
        let y = match self.residual(t) {
            Some(residual) => y + residual,
            None => y,
        };
        if self.relu { relu_of(y) } else { y }
    }

    /// A gradient for the output that is zero where ReLU's input, `before`, is too near to zero to tell its sign.
    fn upstream(&self, before: &[f64], rng: &mut ChaCha8Rng) -> Input {
        let mut upstream = Input::draw(self.inputs[0].shape, 0.0, rng);
        if self.relu {
            let values = upstream.values.iter_mut().zip(before);
            values
                .filter(|(_, v)| v.abs() < KINK)
                .for_each(|(g, _)| *g = 0.0);
        } else if self.inputs[0].turned {
            upstream.values.fill(1.0);
        }
        upstream
    }

    /// Sizes of output and gradients: at least as if each of the output's values added one product of its own.
    fn sizes(&self, reference: &[Vec<f64>]) -> Vec<f64> {
        let least = (reference[0].len() as f64).sqrt() / 3.0;
        reference
            .iter()
            .map(|values| size(values).max(least))
            .collect()
    }
}

#[test]
fn evaluation_mode_is_burns() {
    let _turn = Turn::take();
    let pools = pools();
    for case in 0..96 {
        let rng = &mut random::generator(2, "test/affine", case);
        let fused = Fused::draw(case, rng);
        let before = |t: &[Tensor<4>]| t[0].clone() * t[1].clone() + t[2].clone();
        let plain: Vec<Tensor<4>> = fused.inputs.iter().map(|i| i.tensor(DType::F64)).collect();
        let sum = match fused.residual(&plain) {
            Some(residual) => before(&plain) + residual,
            None => before(&plain),
        };
        let upstream = fused.upstream(&values(sum), rng);
        let reference = differentiate(&all(&fused.inputs), &upstream, DType::F64, |t| {
            fused.finish(before(t), t)
        });
        let expected = Expected {
            sizes: fused.sizes(&reference),
            values: reference,
        };
        expected.check(&fused.place, &pools, [NORM; 2], || {
            differentiate(&fused.inputs, &upstream, DType::F32, |t| {
                affine(
                    t[0].clone(),
                    flat(&t[1]),
                    flat(&t[2]),
                    fused.residual(t),
                    fused.relu,
                )
            })
        });
    }
}

/// Mean and biased variance of each channel, `[1, 1, 1, channels]`.
fn moments(x: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let mean_over = |t: Tensor<4>| t.mean_dim(0).mean_dim(1).mean_dim(2);
    let mean = mean_over(x.clone());
    let centred = x - mean.clone();
    (mean, mean_over(centred.clone() * centred))
}

#[test]
fn training_mode_is_burns() {
    let _turn = Turn::take();
    let pools = pools();
    for case in 0..96 {
        let rng = &mut random::generator(3, "test/norm", case);
        let fused = Fused::draw(case, rng);
        let before = |t: &[Tensor<4>]| {
            let (mean, var) = moments(t[0].clone());
            let normed = (t[0].clone() - mean) / (var + EPSILON).sqrt();
            normed * t[1].clone() + t[2].clone()
        };
        let plain: Vec<Tensor<4>> = fused.inputs.iter().map(|i| i.tensor(DType::F64)).collect();
        let sum = match fused.residual(&plain) {
            Some(residual) => before(&plain) + residual,
            None => before(&plain),
        };
        let upstream = fused.upstream(&values(sum), rng);
        let mut reference = differentiate(&all(&fused.inputs), &upstream, DType::F64, |t| {
            fused.finish(before(t), t)
        });
        let (mean, var) = moments(plain[0].clone());
        // The gradient of the input is what statistics leave of that with fixed ones, nothing in a single row.
        let slope = plain[1].clone() / (var.clone() + EPSILON).sqrt();
        let fixed = upstream.tensor(DType::F64) * slope;
        let mut sizes = fused.sizes(&reference);
        sizes[1] = sizes[1].max(size(&values(fixed)));
        // The last digit of a mean stands in all rows: it comes back times the sum of the gradient, the bias's.
        sizes[2] = sizes[2].max(size(&reference[3]));
        reference.extend([values(mean), values(var)]);
        let channels = (reference[2 + fused.inputs.len()].len() as f64).sqrt();
        sizes.extend([channels, channels]);
        let expected = Expected {
            values: reference,
            sizes,
        };
        expected.check(&fused.place, &pools, [NORM; 2], || {
            let engine = |t: &[Tensor<4>]| {
                norm(
                    t[0].clone(),
                    flat(&t[1]),
                    flat(&t[2]),
                    fused.residual(t),
                    fused.relu,
                )
            };
            let mut outcome = differentiate(&fused.inputs, &upstream, DType::F32, |t| engine(t).0);
            let plain: Vec<Tensor<4>> = fused.inputs.iter().map(|i| i.tensor(DType::F32)).collect();
            let (y, mean, var) = engine(&plain);
            assert!(values(y) == outcome[0], "other bits without autodiff");
            outcome.extend([values(mean), values(var)]);
            outcome
        });
    }
}

#[test]
fn packed_weights_follow_their_weights() {
    let _turn = Turn::take();
    let rng = &mut random::generator(4, "test/packs", 0);
    let x = Input::draw([6, 5, 3, 17], 0.0, rng).tensor(DType::F32);
    let first = Input::draw([17, 17, 3, 3], 0.0, rng);
    let mut weight = first.tensor(DType::F32);
    // What is kept for a weight must not outlive its values, whoever changes them in place, nor the choice of
    // kernels that it was made for.
    for step in 0..24 {
        let isas = instruction_sets();
        let isa = isas[step % isas.len()];
        choose_cpu_kernels(Some(isa), step % 2 == 0).expect("an available set");
        weight = match step % 3 {
            0 => weight.mul_scalar(-0.9),
            1 => weight.swap_dims(0, 1),
            _ => weight + first.tensor(DType::F32),
        };
        let copy = Tensor::from_data(weight.clone().into_data(), &Device::flex());
        let run = |w: Tensor<4>| {
            let x = x.clone().autodiff().require_grad();
            let y = conv(conv(x.clone(), w.clone().autodiff(), 1), w.autodiff(), 2);
            let gradients = y.clone().sum().backward();
            (values(y.inner()), x.grad(&gradients).map(values))
        };
        assert!(run(weight.clone()) == run(copy), "step {step}");
    }
}
