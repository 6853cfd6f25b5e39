//! The operations composed of Burn's own: what GPUs run. Shapes and meaning are told in [`super::EngineOps`].

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{IntDType, Shape};

use super::{EPSILON, Normed, rows};

/// `[height, width, batch, channels]` to `[batch, channels, height, width]`, and back: the same permutation.
const TURN: [usize; 4] = [2, 3, 0, 1];

fn options(weight: &Shape, stride: usize) -> ConvOptions<2> {
    let padding = weight[2] / 2;
    ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1)
}

/// A value of each channel, so that it meets `[height, width, batch, channels]`.
fn along<B: Backend>(values: FloatTensor<B>) -> FloatTensor<B> {
    let channels = values.shape()[0];
    B::float_reshape(values, Shape::new([1, 1, 1, channels]))
}

pub(super) fn conv<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    stride: usize,
) -> FloatTensor<B> {
    let options = options(&w.shape(), stride);
    let y = B::conv2d(B::float_permute(x, &TURN), w, None, options);
    B::float_permute(y, &TURN)
}

pub(super) fn conv_data<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    dy: FloatTensor<B>,
    stride: usize,
) -> FloatTensor<B> {
    let options = options(&w.shape(), stride);
    let (x, dy) = (B::float_permute(x, &TURN), B::float_permute(dy, &TURN));
    let dx = B::conv2d_x_backward(x, w, dy, options);
    let shape = dx.shape();
    // A convolution leaves the channels innermost. If there is one alone, two axes have stride 1, and Burn's fused operations
    // (burn-cubecl-fusion 0.22.1) may then read values in steps along the wrong one: pixels of other places. Named anew, the
    // same memory has one such axis.
    let dx = if shape[1] == 1 {
        B::float_reshape(B::float_permute(dx, &[0, 2, 3, 1]), shape)
    } else {
        dx
    };
    B::float_permute(dx, &TURN)
}

pub(super) fn conv_weight<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    dy: FloatTensor<B>,
    stride: usize,
) -> FloatTensor<B> {
    let options = options(&w.shape(), stride);
    let (x, dy) = (B::float_permute(x, &TURN), B::float_permute(dy, &TURN));
    B::conv2d_weight_backward(x, w, dy, options)
}

pub(super) fn conv_shift<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    shift: FloatTensor<B>,
    stride: usize,
    relu: bool,
) -> FloatTensor<B> {
    let shift = along::<B>(shift);
    let y = B::float_add(conv::<B>(x, w, stride), shift);
    if relu { B::relu(y) } else { y }
}

pub(super) fn conv_shift_add<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    shift: FloatTensor<B>,
    residual: FloatTensor<B>,
    stride: usize,
) -> FloatTensor<B> {
    let y = conv_shift::<B>(x, w, shift, stride, false);
    B::relu(B::float_add(y, residual))
}

pub(super) fn relu_backward<B: Backend>(dy: FloatTensor<B>, y: FloatTensor<B>) -> FloatTensor<B> {
    B::relu_backward(y, dy)
}

pub(super) fn pool<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let [height, width, batch, channels] = x.shape().dims();
    let flat = B::float_reshape(x, Shape::new([height * width, batch * channels]));
    let mean = B::float_mean_dim(flat, 0);
    B::float_reshape(mean, Shape::new([batch, channels]))
}

pub(super) fn pool_backward<B: Backend>(x: FloatTensor<B>, dy: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let [height, width, batch, channels] = shape.dims();
    let scale = 1.0 / (height * width) as f64;
    let pixel = B::float_mul_scalar(dy, scale.into());
    let pixel = B::float_reshape(pixel, Shape::new([1, 1, batch, channels]));
    B::float_expand(pixel, shape)
}

pub(super) fn max_pool<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let x = B::float_permute(x, &TURN);
    let y = B::max_pool2d(x, [3; 2], [2; 2], [1; 2], [1; 2], false);
    B::float_permute(y, &TURN)
}

pub(super) fn max_pool_backward<B: Backend>(
    x: FloatTensor<B>,
    _y: FloatTensor<B>,
    dy: FloatTensor<B>,
) -> FloatTensor<B> {
    let (x, dy) = (B::float_permute(x, &TURN), B::float_permute(dy, &TURN));
    let (window, stride, padding, dilation) = ([3; 2], [2; 2], [1; 2], [1; 2]);
    // Found again: to keep the indices would take an operation of two outputs, for one of fifty layers.
    let found = B::max_pool2d_with_indices(
        x.clone(),
        window,
        stride,
        padding,
        dilation,
        false,
        IntDType::I32,
    );
    let indices = found.indices;
    let gradient = B::max_pool2d_with_indices_backward(
        x, window, stride, padding, dilation, false, dy, indices,
    );
    B::float_permute(gradient.x_grad, &TURN)
}

pub(super) fn norm<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    relu: bool,
) -> Normed<B> {
    let shape = x.shape();
    let flat = B::float_reshape(x, rows(&shape));
    let normed = B::batch_norm_train(flat, weight, bias.clone(), EPSILON);
    let y = B::float_reshape(normed.output, shape);
    (
        if relu { B::relu(y) } else { y },
        normed.mean,
        normed.variance,
        bias,
    )
}

pub(super) fn norm_add<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    residual: FloatTensor<B>,
) -> Normed<B> {
    let (y, mean, var, shift) = norm::<B>(x, weight, bias, false);
    (B::relu(B::float_add(y, residual)), mean, var, shift)
}

#[allow(clippy::too_many_arguments)]
#[allow(clippy::type_complexity)]
pub(super) fn norm_backward<B: Backend>(
    dy: FloatTensor<B>,
    x: FloatTensor<B>,
    y: FloatTensor<B>,
    weight: FloatTensor<B>,
    mean: FloatTensor<B>,
    var: FloatTensor<B>,
    _shift: FloatTensor<B>,
    relu: bool,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = x.shape();
    let dy = if relu { B::relu_backward(y, dy) } else { dy };
    let flat = |t| B::float_reshape(t, rows(&shape));
    let gradients = B::batch_norm_train_backward(flat(x), weight, mean, var, EPSILON, flat(dy));
    let dx = B::float_reshape(gradients.x_grad, shape.clone());
    (dx, gradients.gamma_grad, gradients.beta_grad)
}

pub(super) fn norm_add_backward<B: Backend>(
    dy: FloatTensor<B>,
    x: FloatTensor<B>,
    y: FloatTensor<B>,
    weight: FloatTensor<B>,
    mean: FloatTensor<B>,
    var: FloatTensor<B>,
    shift: FloatTensor<B>,
) -> Normed<B> {
    let masked = B::relu_backward(y.clone(), dy);
    let (dx, dw, db) = norm_backward::<B>(masked.clone(), x, y, weight, mean, var, shift, false);
    (dx, dw, db, masked)
}

pub(super) fn affine<B: Backend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    shift: FloatTensor<B>,
    relu: bool,
) -> FloatTensor<B> {
    let (scale, shift) = (along::<B>(scale), along::<B>(shift));
    let y = B::float_add(B::float_mul(x, scale), shift);
    if relu { B::relu(y) } else { y }
}

pub(super) fn affine_add<B: Backend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    shift: FloatTensor<B>,
    residual: FloatTensor<B>,
) -> FloatTensor<B> {
    let y = affine::<B>(x, scale, shift, false);
    B::relu(B::float_add(y, residual))
}

pub(super) fn affine_backward<B: Backend>(
    dy: FloatTensor<B>,
    y: FloatTensor<B>,
    scale: FloatTensor<B>,
    relu: bool,
) -> FloatTensor<B> {
    let dy = if relu { B::relu_backward(y, dy) } else { dy };
    B::float_mul(dy, along::<B>(scale))
}

pub(super) fn affine_add_backward<B: Backend>(
    dy: FloatTensor<B>,
    y: FloatTensor<B>,
    scale: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let masked = B::relu_backward(y.clone(), dy);
    (
        affine_backward::<B>(masked.clone(), y, scale, false),
        masked,
    )
}

/// On the CPU nobody uses these: there they are held against the kernels, which the tests beside this file hold against
/// Burn's own modules.
#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::ops::FloatTensorOps;
    use burn::backend::{Flex, TensorMetadata};
    use burn_flex::FlexTensor;
    use rand::RngExt;
    use rand::rngs::ChaCha8Rng;

    use super::super::EngineOps;
    use super::super::flex::tensor;
    use super::super::tests::Turn;
    use crate::random;

    fn draw(shape: &[usize], rng: &mut ChaCha8Rng) -> FlexTensor {
        let count = shape.iter().product();
        let values = (0..count).map(|_| rng.random_range(-1.0..1.0f32)).collect();
        tensor(values, shape)
    }

    #[track_caller]
    fn equal(what: &str, ours: &[FlexTensor], kernels: &[FlexTensor]) {
        assert_eq!(ours.len(), kernels.len());
        for (index, (a, b)) in ours.iter().zip(kernels).enumerate() {
            assert_eq!(a.shape(), b.shape(), "{what}, {index}");
            let (a, b) = (a.to_contiguous(), b.to_contiguous());
            let (a, b): (&[f32], &[f32]) = (a.as_slice().expect("f32"), b.as_slice().expect("f32"));
            let square = |x: f32| f64::from(x) * f64::from(x);
            let apart: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
            let size: f64 = b.iter().map(|&b| square(b)).sum();
            assert!(
                apart <= 1e-9 * size + 1e-12,
                "{what}, {index}: {apart} apart of {size}"
            );
        }
    }

    fn is_kinked(x: &FlexTensor) -> bool {
        let x = x.to_contiguous();
        let values: &[f32] = x.as_slice().expect("f32");
        values.iter().any(|value| value.abs() < 1e-5)
    }

    #[test]
    #[allow(unused_parens)] // one result or several
    fn gpus_compute_what_the_cpu_computes() {
        let _turn = Turn::take();
        let mut compared = 0;
        for seed in 0..24 {
            let rng = &mut random::generator(seed, "composite", 0);
            let [height, width, batch] = [0; 3].map(|_| rng.random_range(2..9));
            let [input, output] = [0; 2].map(|_| rng.random_range(1..20));
            let stride = 1 + seed as usize % 2;
            let kernel = [1, 3, 7][seed as usize / 2 % 3];
            let relu = rng.random_bool(0.5);
            let x = draw(&[height, width, batch, input], rng);
            let w = draw(&[output, input, kernel, kernel], rng);
            let out = [
                height.div_ceil(stride),
                width.div_ceil(stride),
                batch,
                output,
            ];
            let dy = draw(&out, rng);
            let residual = draw(&out, rng);
            let [scale, shift] = [0; 2].map(|_| draw(&[output], rng));
            macro_rules! same {
                ($name:ident, $engine:ident, ($($argument:expr),*), [$($part:ident),+]) => {{
                    let ($($part),+) = super::$name::<Flex>($($argument),*);
                    let ours = [$($part),+];
                    let ($($part),+) = <Flex as EngineOps>::$engine($($argument),*);
                    equal(stringify!($name), &ours, &[$($part),+]);
                }};
            }
            let (x, w, dy, r) = (
                || x.clone(),
                || w.clone(),
                || dy.clone(),
                || residual.clone(),
            );
            let (scale, shift) = (|| scale.clone(), || shift.clone());
            same!(conv, engine_conv, (x(), w(), stride), [y]);
            same!(conv_data, engine_conv_data, (x(), w(), dy(), stride), [dx]);
            same!(
                conv_weight,
                engine_conv_weight,
                (x(), w(), dy(), stride),
                [dw]
            );
            same!(
                conv_shift,
                engine_conv_shift,
                (x(), w(), shift(), stride, relu),
                [y]
            );
            same!(
                conv_shift_add,
                engine_conv_shift_add,
                (x(), w(), shift(), r(), stride),
                [y]
            );
            same!(relu_backward, engine_relu_backward, (dy(), r()), [dx]);
            same!(pool, engine_pool, (dy()), [mean]);
            let pooled = <Flex as EngineOps>::engine_pool(dy());
            same!(
                pool_backward,
                engine_pool_backward,
                (dy(), pooled.clone()),
                [dx]
            );

            same!(max_pool, engine_max_pool, (x()), [y]);
            let y = <Flex as EngineOps>::engine_max_pool(x());
            let upstream = draw(&y.shape().to_vec(), rng);
            same!(
                max_pool_backward,
                engine_max_pool_backward,
                (x(), y.clone(), upstream.clone()),
                [dx]
            );

            let upstream = draw(&out, rng);
            same!(affine, engine_affine, (dy(), scale(), shift(), relu), [y]);
            same!(
                affine_add,
                engine_affine_add,
                (dy(), scale(), shift(), r()),
                [y]
            );
            let y = <Flex as EngineOps>::engine_affine_add(dy(), scale(), shift(), r());
            same!(
                affine_backward,
                engine_affine_backward,
                (upstream.clone(), y.clone(), scale(), relu),
                [dx]
            );
            same!(
                affine_add_backward,
                engine_affine_add_backward,
                (upstream.clone(), y.clone(), scale()),
                [dx, dr]
            );

            // Rounding may put a ReLU's input on either side of zero where it is nearly there.
            let before = super::norm::<Flex>(r(), scale(), shift(), false).0;
            let added = Flex::float_add(before.clone(), dy());
            if [before, added].iter().any(is_kinked) {
                continue;
            }
            compared += 1;

            // The shift is each backend's own matter: it comes back to its own backward pass.
            let (y, mean, var, own) = super::norm::<Flex>(r(), scale(), shift(), relu);
            let (other, mean_b, var_b, theirs) =
                <Flex as EngineOps>::engine_norm(r(), scale(), shift(), relu);
            equal(
                "norm",
                &[y.clone(), mean.clone(), var.clone()],
                &[other.clone(), mean_b.clone(), var_b.clone()],
            );
            let (dx, dw, db) =
                super::norm_backward::<Flex>(dy(), r(), y, scale(), mean, var, own, relu);
            let (dx_b, dw_b, db_b) = <Flex as EngineOps>::engine_norm_backward(
                dy(),
                r(),
                other,
                scale(),
                mean_b,
                var_b,
                theirs,
                relu,
            );
            equal("norm_backward", &[dx, dw, db], &[dx_b, dw_b, db_b]);

            let (y, mean, var, own) = super::norm_add::<Flex>(r(), scale(), shift(), dy());
            let (other, mean_b, var_b, theirs) =
                <Flex as EngineOps>::engine_norm_add(r(), scale(), shift(), dy());
            equal(
                "norm_add",
                &[y.clone(), mean.clone(), var.clone()],
                &[other.clone(), mean_b.clone(), var_b.clone()],
            );
            let upstream = draw(&out, rng);
            let ours =
                super::norm_add_backward::<Flex>(upstream.clone(), r(), y, scale(), mean, var, own);
            let kernels = <Flex as EngineOps>::engine_norm_add_backward(
                upstream.clone(),
                r(),
                other,
                scale(),
                mean_b,
                var_b,
                theirs,
            );
            equal(
                "norm_add_backward",
                &[ours.0, ours.1, ours.2, ours.3],
                &[kernels.0, kernels.1, kernels.2, kernels.3],
            );
        }
        assert!(compared >= 12, "only {compared} draws had no kink");
    }
}
