//! Values between host and device: batches of images, labels, and tensors read back.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::ranks;

/// A batch on the host: `[batch, channels, height, width]`, f32 in [0, 1], row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The values.
    pub data: Vec<f32>,
    /// Batch, channels, height, width.
    pub shape: [usize; 4],
}

/// A host batch on a device.
pub fn to_tensor(batch: Batch, device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(batch.data, batch.shape), device)
}

/// Labels as an integer tensor, `[labels]`.
pub fn label_tensor(labels: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
    let shape = [values.len()];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The values of a tensor, on the host.
pub fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .try_into_vec_as::<f32>()
        .expect("a float tensor is readable as f32")
}

/// Gradient of `objective`, which returns `[1]`, with respect to its argument; zero where it does not depend on it. Neither the
/// argument's own graph nor the result's is kept.
pub fn gradient<const D: usize>(
    objective: &mut impl FnMut(Tensor<D>) -> Tensor<1>,
    x: Tensor<D>,
) -> Tensor<D> {
    let x = x.inner().autodiff().require_grad();
    let gradients = objective(x.clone()).backward();
    x.grad(&gradients).unwrap_or_else(|| x.inner().zeros_like())
}

/// Tensors of these shapes from their values, one tensor's after the other's.
///
/// # Panics
/// If there are fewer values.
pub fn cut<const D: usize>(
    values: &[f32],
    shapes: impl IntoIterator<Item = [usize; D]>,
    device: &Device,
) -> Vec<Tensor<D>> {
    let mut rest = values;
    let tensor = |shape: [usize; D]| {
        let (values, after) = rest.split_at(shape.iter().product());
        rest = after;
        Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
    };
    shapes.into_iter().map(tensor).collect()
}

/// Sums over the shards of all ranks, in the order of the shards, each of as many tensors; `own` are those of this rank's shards. On one
/// rank, a shard is asked for when the sum of those before it is known.
pub fn sums_over_shards(what: &str, own: impl Iterator<Item = Vec<Tensor<1>>>) -> Vec<Tensor<1>> {
    if ranks::count() == 1 {
        let plus = |sums: Vec<Tensor<1>>, more: Vec<Tensor<1>>| {
            let pairs = sums.into_iter().zip(more);
            pairs.map(|(sum, more)| sum + more).collect()
        };
        return own.reduce(plus).unwrap_or_default();
    }
    let mut own = own.peekable();
    let first = own.peek().map_or(&[][..], Vec::as_slice);
    let Some(device) = first.first().map(Tensor::device) else {
        return Vec::new();
    };
    let shapes: Vec<[usize; 1]> = first.iter().map(Tensor::dims).collect();
    let flat = own.map(|values| to_vec(Tensor::cat(values, 0)));
    let sums = ranks::sum_in_order(what, flat.collect());
    cut(&sums, shapes, &device)
}

/// Rows that each rank has parts of, all of them: one rank's after the other's.
///
/// # Shapes
/// Parts `[rows, values]`, of one width; ranks may have none.
pub fn rows_of_all_ranks(own: Vec<Tensor<2>>, device: &Device) -> Tensor<2> {
    if ranks::count() == 1 {
        return Tensor::cat(own, 0);
    }
    let width = own.first().map_or(0, |part| part.dims()[1]);
    let own: Vec<f32> = own.into_iter().flat_map(to_vec).collect();
    let (values, width) = ranks::gather_rows("rows", &own, width);
    let rows = values.len() / width.max(1);
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}

/// Rows divided by their Euclidean lengths; PyTorch's `normalize` keeps a length at 1e-12 or more.
///
/// # Shapes
/// `[rows, values]`, kept.
pub fn unit_rows(rows: Tensor<2>) -> Tensor<2> {
    let length = rows.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    rows / length
}
