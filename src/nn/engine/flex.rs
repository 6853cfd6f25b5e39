//! The CPU's operations: `advcl-kernels` on Flex tensors, f32.

use advcl_kernels::{
    self as kernels, Activation, BatchNormOutput, BatchNormState, Convolution, Direction, Epilogue,
    PartSums, Pass,
};
use burn::backend::{Bytes, DType, Flex, TensorMetadata};
use burn::tensor::Shape;
use burn_flex::{FlexTensor, Layout};

use super::packs::packed;
use super::{CpuKernels, EPSILON, EngineOps, Normed, Precision};
use crate::error::{Error, Result, nearest};
use crate::nn::side_by_side;

pub(super) fn in_use() -> CpuKernels {
    let isa = kernels::detected();
    CpuKernels {
        instructions: isa.name(),
        bf16: isa.has_bf16(),
        winograd: kernels::algorithm() == kernels::Algorithm::Winograd,
    }
}

pub(super) fn choose(instructions: Option<&str>, winograd: bool) -> Result<()> {
    let available = kernels::available();
    let wanted = match instructions {
        None => Some(available[0]),
        Some(name) => available.iter().copied().find(|isa| isa.name() == name),
    };
    let found = wanted.is_some_and(kernels::select);
    kernels::set_algorithm(match winograd {
        true => kernels::Algorithm::Winograd,
        false => kernels::Algorithm::Direct,
    });
    if found {
        return Ok(());
    }
    let name = instructions.unwrap_or_default();
    Err(Error::Device {
        name: name.to_owned(),
        problem: "this processor has no such instruction set".to_owned(),
        hint: nearest(name, available.iter().map(|isa| isa.name())),
    })
}

/// f32 again when it is dropped, by a panic too.
pub(super) struct WithPrecision;

impl WithPrecision {
    pub(super) fn new(precision: Precision) -> Self {
        kernels::set_precision(match precision {
            Precision::F32 => kernels::Precision::F32,
            // Whoever has bf16 is faster with it; whoever has none goes on in f32.
            Precision::Bf16 | Precision::Auto => kernels::Precision::Bf16,
        });
        Self
    }
}

impl Drop for WithPrecision {
    fn drop(&mut self) {
        kernels::set_precision(kernels::Precision::F32);
    }
}

/// Lends contiguous values of tensors under their own names.
macro_rules! values {
    ($($tensor:ident),*) => {
        $(
            let $tensor = $tensor.to_contiguous();
            let $tensor: &[f32] = $tensor.as_slice().expect("the engine's tensors are f32");
        )*
    };
}

pub(super) fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    let layout = Layout::contiguous(Shape::from(shape.to_vec()));
    FlexTensor::new(Bytes::from_elems(values), layout, DType::F32)
}

/// How this thread's shard of a batch is normalised with the others, where it is.
fn joined() -> Option<Box<dyn Fn(Direction, PartSums) -> PartSums>> {
    let meeting = side_by_side::meeting()?;
    Some(Box::new(move |direction, own: PartSums| {
        let channels = own.first.len();
        let mut numbers = vec![own.rows];
        numbers.extend(own.first.into_iter().chain(own.second));
        let all = meeting.all(numbers);
        let part = |numbers: &Vec<f64>| PartSums {
            rows: numbers[0],
            first: numbers[1..=channels].to_vec(),
            second: numbers[1 + channels..].to_vec(),
        };
        kernels::join(direction, all.iter().map(part).collect())
    }))
}

/// The same values, contiguous and alone in their storage: written in place where nobody else holds them.
fn writable(values: FlexTensor) -> FlexTensor {
    let contiguous = values.to_contiguous();
    let shape = contiguous.shape();
    if contiguous.storage::<f32>().len() == shape.num_elements() {
        return contiguous;
    }
    let alone: &[f32] = contiguous.as_slice().expect("the engine's tensors are f32");
    tensor(alone.to_vec(), &shape.to_vec())
}

fn normed(out: BatchNormOutput, shape: &[usize]) -> Normed<Flex> {
    let channels = [out.mean.len()];
    (
        tensor(out.y, shape),
        tensor(out.mean, &channels),
        tensor(out.var, &channels),
        tensor(out.shift, &channels),
    )
}

fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.shape().dims()
}

fn activation(x: &FlexTensor) -> Activation {
    let [height, width, batch, channels] = dims(x);
    Activation {
        height,
        width,
        batch,
        channels,
    }
}

/// The convolution of a weight over an input.
fn convolution(x: &FlexTensor, w: &FlexTensor, stride: usize) -> Convolution {
    let shape = activation(x);
    let [output, input, kernel, _] = dims(w);
    assert_eq!(
        shape.channels, input,
        "the weight is for {input} channels, the input has {}",
        shape.channels
    );
    Convolution {
        input: shape,
        channels: output,
        kernel,
        stride,
    }
}

fn conv_shift(
    x: FlexTensor,
    w: FlexTensor,
    shift: FlexTensor,
    residual: Option<FlexTensor>,
    stride: usize,
    relu: bool,
) -> FlexTensor {
    let conv = convolution(&x, &w, stride);
    let (out, packed) = (conv.output(), packed(&conv, &w, Pass::Forward));
    let residual = residual.map(|residual| residual.to_contiguous());
    values!(x, shift);
    let epilogue = Epilogue {
        shift,
        residual: residual
            .as_ref()
            .map(|r| r.as_slice().expect("the engine's tensors are f32")),
        relu,
    };
    let y = kernels::convolve_with_epilogue(&conv, x, &packed, &epilogue);
    tensor(y, &[out.height, out.width, out.batch, out.channels])
}

impl EngineOps for Flex {
    fn engine_conv(x: FlexTensor, w: FlexTensor, stride: usize) -> FlexTensor {
        let conv = convolution(&x, &w, stride);
        let out = conv.output();
        let packed = packed(&conv, &w, Pass::Forward);
        values!(x);
        let y = kernels::convolve(&conv, x, &packed);
        tensor(y, &[out.height, out.width, out.batch, out.channels])
    }

    fn engine_conv_data(x: FlexTensor, w: FlexTensor, dy: FlexTensor, stride: usize) -> FlexTensor {
        let (conv, shape) = (convolution(&x, &w, stride), dims::<4>(&x));
        let packed = packed(&conv, &w, Pass::Backward);
        values!(dy);
        tensor(kernels::convolve(&conv, dy, &packed), &shape)
    }

    fn engine_conv_weight(
        x: FlexTensor,
        w: FlexTensor,
        dy: FlexTensor,
        stride: usize,
    ) -> FlexTensor {
        let (conv, shape) = (convolution(&x, &w, stride), dims::<4>(&w));
        values!(x, dy);
        tensor(kernels::backward_weight(&conv, x, dy), &shape)
    }

    fn engine_conv_shift(
        x: FlexTensor,
        w: FlexTensor,
        shift: FlexTensor,
        stride: usize,
        relu: bool,
    ) -> FlexTensor {
        conv_shift(x, w, shift, None, stride, relu)
    }

    fn engine_conv_shift_add(
        x: FlexTensor,
        w: FlexTensor,
        shift: FlexTensor,
        residual: FlexTensor,
        stride: usize,
    ) -> FlexTensor {
        conv_shift(x, w, shift, Some(residual), stride, true)
    }

    fn engine_relu_backward(dy: FlexTensor, y: FlexTensor) -> FlexTensor {
        let mut dy = writable(dy);
        values!(y);
        kernels::relu_backward(dy.storage_mut(), y);
        dy
    }

    fn engine_pool(x: FlexTensor) -> FlexTensor {
        let shape = activation(&x);
        values!(x);
        tensor(
            kernels::mean_pool(&shape, x),
            &[shape.batch, shape.channels],
        )
    }

    fn engine_pool_backward(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        values!(dy);
        let dx = kernels::mean_pool_backward(&activation(&x), dy);
        tensor(dx, &dims::<4>(&x))
    }

    fn engine_max_pool(x: FlexTensor) -> FlexTensor {
        let shape = activation(&x);
        values!(x);
        let (height, width) = (shape.height.div_ceil(2), shape.width.div_ceil(2));
        let shape_of_y = [height, width, shape.batch, shape.channels];
        tensor(kernels::max_pool(&shape, x), &shape_of_y)
    }

    fn engine_max_pool_backward(x: FlexTensor, y: FlexTensor, dy: FlexTensor) -> FlexTensor {
        let (shape, shape_of_x) = (activation(&x), dims::<4>(&x));
        values!(x, y, dy);
        tensor(kernels::max_pool_backward(&shape, x, y, dy), &shape_of_x)
    }

    fn engine_norm(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        relu: bool,
    ) -> Normed<Self> {
        let shape = dims::<4>(&x);
        values!(x, weight, bias);
        normed(
            kernels::batch_norm_of_part(x, weight, bias, None, relu, EPSILON, joined().as_deref()),
            &shape,
        )
    }

    fn engine_norm_add(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        residual: FlexTensor,
    ) -> Normed<Self> {
        let shape = dims::<4>(&x);
        values!(x, weight, bias, residual);
        normed(
            kernels::batch_norm_of_part(
                x,
                weight,
                bias,
                Some(residual),
                true,
                EPSILON,
                joined().as_deref(),
            ),
            &shape,
        )
    }

    fn engine_norm_backward(
        dy: FlexTensor,
        x: FlexTensor,
        _y: FlexTensor,
        weight: FlexTensor,
        mean: FlexTensor,
        var: FlexTensor,
        shift: FlexTensor,
        relu: bool,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let mut dy = writable(dy);
        let channels = dims::<1>(&weight);
        values!(x, weight, mean, var, shift);
        let state = BatchNormState {
            weight,
            mean,
            var,
            shift,
        };
        // In place where nobody else holds the gradient; else Flex copies it first.
        let (dy_values, join) = (dy.storage_mut(), joined());
        let join = join.as_deref();
        let out = kernels::batch_norm_backward_of_part(dy_values, x, state, relu, EPSILON, join);
        (
            dy,
            tensor(out.weight, &channels),
            tensor(out.bias, &channels),
        )
    }

    fn engine_norm_add_backward(
        dy: FlexTensor,
        x: FlexTensor,
        y: FlexTensor,
        weight: FlexTensor,
        mean: FlexTensor,
        var: FlexTensor,
        shift: FlexTensor,
    ) -> Normed<Self> {
        let mut dy = writable(dy);
        let (shape, channels) = (dims::<4>(&x), dims::<1>(&weight));
        values!(x, y, weight, mean, var, shift);
        let state = BatchNormState {
            weight,
            mean,
            var,
            shift,
        };
        let (dy_values, join) = (dy.storage_mut(), joined());
        let join = join.as_deref();
        let (dx, out) =
            kernels::batch_norm_add_backward_of_part(dy_values, x, y, state, EPSILON, join);
        (
            tensor(dx, &shape),
            tensor(out.weight, &channels),
            tensor(out.bias, &channels),
            dy,
        )
    }

    fn engine_affine(
        x: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        relu: bool,
    ) -> FlexTensor {
        let shape = dims::<4>(&x);
        values!(x, scale, shift);
        tensor(kernels::affine(x, scale, shift, None, relu), &shape)
    }

    fn engine_affine_add(
        x: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        residual: FlexTensor,
    ) -> FlexTensor {
        let shape = dims::<4>(&x);
        values!(x, scale, shift, residual);
        tensor(
            kernels::affine(x, scale, shift, Some(residual), true),
            &shape,
        )
    }

    fn engine_affine_backward(
        dy: FlexTensor,
        y: FlexTensor,
        scale: FlexTensor,
        relu: bool,
    ) -> FlexTensor {
        let mut dy = writable(dy);
        let shape = dims::<4>(&dy);
        values!(y, scale);
        tensor(
            kernels::affine_backward(dy.storage_mut(), y, scale, relu),
            &shape,
        )
    }

    fn engine_affine_add_backward(
        dy: FlexTensor,
        y: FlexTensor,
        scale: FlexTensor,
    ) -> (FlexTensor, FlexTensor) {
        let mut dy = writable(dy);
        let shape = dims::<4>(&dy);
        values!(y, scale);
        let dx = kernels::affine_backward(dy.storage_mut(), y, scale, true);
        (tensor(dx, &shape), dy)
    }
}
