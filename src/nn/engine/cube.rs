//! The GPUs' BatchNorm: two kernels forward, two back, for any device that CubeCL compiles for.
//!
//! Burn composes it of some ten passes over the activations. Here the first kernel of a pair sums over parts of the rows, and
//! the second adds up what the parts left, which it finds in a cache, and goes over the rows again. Sums have a fixed order:
//! the same device gives the same bits.
//!
//! Rows are taken in the order in which memory has them. Convolutions leave `[batch, height, width, channels]` there and turn
//! the view; a normalisation does not mind, and what it writes lies as what it read.

// The macro writes calls with a name for each of a kernel's arguments.
#![allow(clippy::too_many_arguments)]

use burn::backend::{DType, TensorMetadata};
use burn::tensor::Shape;
use burn_cubecl::cubecl;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use cubecl::prelude::*;

use super::{EPSILON, EngineOps, Normed};

/// Units of a cube: what every adapter of WebGPU has.
const UNITS: usize = 256;
/// Channels that a cube works on side by side, so that it reads whole lines of memory.
const WIDEST: usize = 32;
/// Cubes that keep a large device busy.
const CUBES: usize = 1024;
/// Rows of a channel that a unit should have to itself at least.
const ROWS_OF_A_UNIT: usize = 8;

/// The sum of `value` over the units of a column, which every unit gets. All units of the cube call it together; `lanes` is a
/// power of two.
#[cube]
fn column_sum(
    shared: &mut Shared<[f32]>,
    value: f32,
    #[comptime] width: usize,
    #[comptime] lanes: usize,
) -> f32 {
    let at = UNIT_POS as usize;
    // What a sum before this one left is read until here.
    sync_cube();
    shared[at] = value;
    sync_cube();
    let halvings = comptime![lanes.ilog2() as usize];
    #[unroll]
    for halving in 0..halvings {
        let half = comptime![lanes >> (halving + 1)];
        if (UNIT_POS_Y as usize) < half {
            let other = shared[at + half * width];
            let own = shared[at];
            shared[at] = own + other;
        }
        sync_cube();
    }
    shared[UNIT_POS_X as usize]
}

/// Sums of `x - pivot` and of its square over each part's rows; the pivot is the channel's value in the first row.
#[cube(launch)]
fn sum_inputs(
    x: &Tensor<f32>,
    sums: &mut Tensor<f32>, // [parts, 2, channels]
    rows: u32,
    channels: u32,
    rows_of_part: u32,
    #[comptime] width: usize,
    #[comptime] lanes: usize,
) {
    let mut shared = Shared::new_slice(comptime![width * lanes]);
    let channels = channels as usize;
    let channel = CUBE_POS_X as usize * width + UNIT_POS_X as usize;
    let part = CUBE_POS_Y as usize;
    let mut row = part * rows_of_part as usize + UNIT_POS_Y as usize;
    let end = min((part + 1) * rows_of_part as usize, rows as usize);
    let mut sum = 0.0f32;
    let mut squares = 0.0f32;
    if channel < channels {
        let pivot = x[channel];
        while row < end {
            let value = x[row * channels + channel] - pivot;
            sum += value;
            squares += value * value;
            row += lanes;
        }
    }
    let sum = column_sum(&mut shared, sum, width, lanes);
    let squares = column_sum(&mut shared, squares, width, lanes);
    if UNIT_POS_Y == 0 && channel < channels {
        sums[part * 2 * channels + channel] = sum;
        sums[(part * 2 + 1) * channels + channel] = squares;
    }
}

/// BatchNorm's output from the parts' sums; the first cubes of a channel write its statistics. Without a residual `residual`
/// is not read.
#[cube(launch)]
fn normalize(
    x: &Tensor<f32>,
    sums: &Tensor<f32>,
    weight: &Tensor<f32>,
    bias: &Tensor<f32>,
    residual: &Tensor<f32>,
    y: &mut Tensor<f32>,
    mean: &mut Tensor<f32>,
    var: &mut Tensor<f32>,
    rows: u32,
    channels: u32,
    rows_of_part: u32,
    parts: u32,
    rows_of_cube: u32,
    epsilon: f32,
    #[comptime] add: bool,
    #[comptime] relu: bool,
    #[comptime] width: usize,
    #[comptime] lanes: usize,
) {
    let mut shared = Shared::new_slice(comptime![width * lanes]);
    let channels = channels as usize;
    let rows = rows as usize;
    let rows_of_part = rows_of_part as usize;
    let channel = CUBE_POS_X as usize * width + UNIT_POS_X as usize;
    let inside = channel < channels;

    let mut sum = 0.0f32;
    let mut part = UNIT_POS_Y as usize;
    while part < parts as usize {
        if inside {
            sum += sums[part * 2 * channels + channel];
        }
        part += lanes;
    }
    let count = f32::cast_from(rows as u32);
    let offset = column_sum(&mut shared, sum, width, lanes) / count;
    // Squares around each part's own mean, and the parts' means around the whole's: no difference of large numbers.
    let mut squares = 0.0f32;
    let mut part = UNIT_POS_Y as usize;
    while part < parts as usize {
        if inside {
            let first = part * rows_of_part;
            let size = f32::cast_from((min(first + rows_of_part, rows) - first) as u32);
            let own = sums[part * 2 * channels + channel] / size;
            let square = sums[(part * 2 + 1) * channels + channel];
            squares += square - own * own * size + (own - offset) * (own - offset) * size;
        }
        part += lanes;
    }
    let variance = column_sum(&mut shared, squares, width, lanes) / count;

    if inside {
        let mut variance = variance;
        // Not max(0), which would replace NaN.
        if variance < 0.0f32 {
            variance = 0.0f32;
        }
        let centre = x[channel] + offset;
        if CUBE_POS_Y == 0 && UNIT_POS_Y == 0 {
            mean[channel] = centre;
            var[channel] = variance;
        }
        let scale = weight[channel] / (variance + epsilon).sqrt();
        let shift = bias[channel];
        let first = CUBE_POS_Y as usize * rows_of_cube as usize;
        let end = min(first + rows_of_cube as usize, rows);
        let mut row = first + UNIT_POS_Y as usize;
        while row < end {
            let at = row * channels + channel;
            let mut value = (x[at] - centre) * scale + shift;
            if add {
                value += residual[at];
            }
            if relu {
                // Not max(0), which would replace NaN.
                if value < 0.0f32 {
                    value = 0.0f32;
                }
            }
            y[at] = value;
            row += lanes;
        }
    }
}

/// Sums of the gradient `g` before ReLU and of `g · (x - mean)` over each part's rows. With `add`, where ReLU was active is
/// told by the output, and `g` is kept in `masked`, which is the residual's gradient; without, the output is computed again.
#[cube(launch)]
fn sum_gradients(
    dy: &Tensor<f32>,
    x: &Tensor<f32>,
    y: &Tensor<f32>,
    weight: &Tensor<f32>,
    bias: &Tensor<f32>,
    mean: &Tensor<f32>,
    var: &Tensor<f32>,
    masked: &mut Tensor<f32>,
    sums: &mut Tensor<f32>, // [parts, 2, channels]
    rows: u32,
    channels: u32,
    rows_of_part: u32,
    epsilon: f32,
    #[comptime] add: bool,
    #[comptime] relu: bool,
    #[comptime] width: usize,
    #[comptime] lanes: usize,
) {
    let mut shared = Shared::new_slice(comptime![width * lanes]);
    let channels = channels as usize;
    let channel = CUBE_POS_X as usize * width + UNIT_POS_X as usize;
    let part = CUBE_POS_Y as usize;
    let mut row = part * rows_of_part as usize + UNIT_POS_Y as usize;
    let end = min((part + 1) * rows_of_part as usize, rows as usize);
    let mut sum = 0.0f32;
    let mut products = 0.0f32;
    if channel < channels {
        let centre = mean[channel];
        let scale = weight[channel] / (var[channel] + epsilon).sqrt();
        let shift = bias[channel];
        while row < end {
            let at = row * channels + channel;
            let centred = x[at] - centre;
            let mut gradient = dy[at];
            if add {
                if y[at] <= 0.0f32 {
                    gradient = 0.0f32;
                }
                masked[at] = gradient;
            } else if relu {
                if centred * scale + shift <= 0.0f32 {
                    gradient = 0.0f32;
                }
            }
            sum += gradient;
            products += gradient * centred;
            row += lanes;
        }
    }
    let sum = column_sum(&mut shared, sum, width, lanes);
    let products = column_sum(&mut shared, products, width, lanes);
    if UNIT_POS_Y == 0 && channel < channels {
        sums[part * 2 * channels + channel] = sum;
        sums[(part * 2 + 1) * channels + channel] = products;
    }
}

/// The gradients of BatchNorm's input, scale and shift from the parts' sums. With `relu`, where it was active is computed
/// again; without, `dy` is the gradient before ReLU.
#[cube(launch)]
fn input_gradients(
    dy: &Tensor<f32>,
    x: &Tensor<f32>,
    weight: &Tensor<f32>,
    bias: &Tensor<f32>,
    mean: &Tensor<f32>,
    var: &Tensor<f32>,
    sums: &Tensor<f32>,
    dx: &mut Tensor<f32>,
    dweight: &mut Tensor<f32>,
    dbias: &mut Tensor<f32>,
    rows: u32,
    channels: u32,
    parts: u32,
    rows_of_cube: u32,
    epsilon: f32,
    #[comptime] relu: bool,
    #[comptime] width: usize,
    #[comptime] lanes: usize,
) {
    let mut shared = Shared::new_slice(comptime![width * lanes]);
    let channels = channels as usize;
    let rows = rows as usize;
    let channel = CUBE_POS_X as usize * width + UNIT_POS_X as usize;
    let inside = channel < channels;
    let mut sum = 0.0f32;
    let mut products = 0.0f32;
    let mut part = UNIT_POS_Y as usize;
    while part < parts as usize {
        if inside {
            sum += sums[part * 2 * channels + channel];
            products += sums[(part * 2 + 1) * channels + channel];
        }
        part += lanes;
    }
    let sum = column_sum(&mut shared, sum, width, lanes);
    let products = column_sum(&mut shared, products, width, lanes);
    if inside {
        let inverse = 1.0f32 / (var[channel] + epsilon).sqrt();
        if CUBE_POS_Y == 0 && UNIT_POS_Y == 0 {
            dweight[channel] = products * inverse;
            dbias[channel] = sum;
        }
        let count = f32::cast_from(rows as u32);
        let centre = mean[channel];
        let scale = weight[channel] / (var[channel] + epsilon).sqrt();
        let shift = bias[channel];
        let slope = scale * inverse * inverse * products / count;
        let level = scale * sum / count;
        let first = CUBE_POS_Y as usize * rows_of_cube as usize;
        let end = min(first + rows_of_cube as usize, rows);
        let mut row = first + UNIT_POS_Y as usize;
        while row < end {
            let at = row * channels + channel;
            let centred = x[at] - centre;
            let mut gradient = dy[at];
            if relu {
                if centred * scale + shift <= 0.0f32 {
                    gradient = 0.0f32;
                }
            }
            dx[at] = scale * gradient - slope * centred - level;
            row += lanes;
        }
    }
}

/// How the work on `[rows, channels]` is cut.
struct Cut {
    rows: usize,
    channels: usize,
    /// Channels side by side in a cube, a power of two.
    width: usize,
    /// Units of a cube for each of its channels, a power of two.
    lanes: usize,
    rows_of_part: usize,
    parts: usize,
    rows_of_cube: usize,
}

impl Cut {
    fn new(rows: usize, channels: usize, units: usize) -> Self {
        let units = UNITS.min(units.max(1).next_power_of_two());
        let width = channels.next_power_of_two().min(WIDEST).min(units);
        let lanes = units / width;
        let across = channels.div_ceil(width);
        let down = (CUBES / across).max(1);
        let cut = |most: usize| {
            let parts = rows.div_ceil(lanes * ROWS_OF_A_UNIT).clamp(1, most);
            rows.div_ceil(parts)
        };
        // Every cube of the second kernel reads all that the parts of the first one left.
        let rows_of_part = cut(down.min(4 * lanes));
        Self {
            rows,
            channels,
            width,
            lanes,
            rows_of_part,
            parts: rows.div_ceil(rows_of_part),
            rows_of_cube: cut(down),
        }
    }

    fn of(x: &CubeTensor) -> Self {
        let [a, b, c, channels] = x.meta.shape().dims();
        // Of a power of two: a sum over the units of a column halves their number each time.
        let units = x.client.properties().hardware.max_units_per_cube as usize;
        Self::new(a * b * c, channels, (units + 1).next_power_of_two() / 2)
    }

    fn dim(&self) -> CubeDim {
        CubeDim::new_2d(self.width as u32, self.lanes as u32)
    }

    fn across(&self, down: usize) -> CubeCount {
        let across = self.channels.div_ceil(self.width);
        CubeCount::Static(across as u32, down as u32, 1)
    }

    fn part_cubes(&self) -> CubeCount {
        self.across(self.parts)
    }

    fn cubes(&self) -> CubeCount {
        self.across(self.rows.div_ceil(self.rows_of_cube))
    }
}

/// The order in which memory has the first three axes of an activation, and how to undo it.
struct Order {
    axes: [usize; 4],
    back: [usize; 4],
}

impl Order {
    fn of(x: &CubeTensor) -> Self {
        let strides = x.meta.strides();
        let mut axes = [0, 1, 2, 3];
        axes[..3].sort_by_key(|&axis| std::cmp::Reverse(strides[axis]));
        let mut back = [0; 4];
        for (to, &from) in axes.iter().enumerate() {
            back[from] = to;
        }
        Self { axes, back }
    }

    /// The activation as memory has it, without gaps: copied where it is in another order.
    fn inside(&self, x: CubeTensor) -> CubeTensor {
        into_contiguous(permute(x, &self.axes))
    }

    fn outside(&self, y: CubeTensor) -> CubeTensor {
        permute(y, &self.back)
    }
}

/// A tensor to be written, without gaps.
fn room(of: &CubeTensor, shape: impl Into<Shape>) -> CubeTensor {
    let (client, device): (_, CubeDevice) = (of.client.clone(), of.device.clone());
    empty_device_contiguous_dtype(client, device, shape.into(), DType::F32)
}

fn norm(
    x: CubeTensor,
    weight: CubeTensor,
    bias: CubeTensor,
    residual: Option<CubeTensor>,
    relu: bool,
) -> Normed<CubeBackend> {
    let order = Order::of(&x);
    let x = order.inside(x);
    let cut = Cut::of(&x);
    let client = x.client.clone();
    let (weight, bias) = (into_contiguous(weight), into_contiguous(bias));
    let add = residual.is_some();
    let residual = residual.map_or_else(|| x.clone(), |residual| order.inside(residual));
    let sums = room(&x, [cut.parts, 2, cut.channels]);
    sum_inputs::launch(
        &client,
        cut.part_cubes(),
        cut.dim(),
        x.clone().into_tensor_arg(),
        sums.clone().into_tensor_arg(),
        cut.rows as u32,
        cut.channels as u32,
        cut.rows_of_part as u32,
        cut.width,
        cut.lanes,
    );
    let y = room(&x, x.shape());
    let [mean, var] = [0; 2].map(|_| room(&x, [cut.channels]));
    normalize::launch(
        &client,
        cut.cubes(),
        cut.dim(),
        x.into_tensor_arg(),
        sums.into_tensor_arg(),
        weight.into_tensor_arg(),
        bias.clone().into_tensor_arg(),
        residual.into_tensor_arg(),
        y.clone().into_tensor_arg(),
        mean.clone().into_tensor_arg(),
        var.clone().into_tensor_arg(),
        cut.rows as u32,
        cut.channels as u32,
        cut.rows_of_part as u32,
        cut.parts as u32,
        cut.rows_of_cube as u32,
        EPSILON as f32,
        add,
        relu,
        cut.width,
        cut.lanes,
    );
    (order.outside(y), mean, var, bias)
}

/// Gradients of input, scale and shift, and with a residual of that too. Without a residual `y` is not read.
fn norm_backward(
    dy: CubeTensor,
    x: CubeTensor,
    y: Option<CubeTensor>,
    [weight, mean, var, bias]: [CubeTensor; 4],
    relu: bool,
) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
    let order = Order::of(&x);
    let (x, dy) = (order.inside(x), order.inside(dy));
    let cut = Cut::of(&x);
    let client = x.client.clone();
    let [weight, mean, var, bias] = [weight, mean, var, bias].map(into_contiguous);
    let add = y.is_some();
    let y = y.map_or_else(|| x.clone(), |y| order.inside(y));
    let sums = room(&x, [cut.parts, 2, cut.channels]);
    // A kernel's argument is some tensor in any case.
    let masked = match add {
        true => room(&x, x.shape()),
        false => room(&x, [1]),
    };
    sum_gradients::launch(
        &client,
        cut.part_cubes(),
        cut.dim(),
        dy.clone().into_tensor_arg(),
        x.clone().into_tensor_arg(),
        y.into_tensor_arg(),
        weight.clone().into_tensor_arg(),
        bias.clone().into_tensor_arg(),
        mean.clone().into_tensor_arg(),
        var.clone().into_tensor_arg(),
        masked.clone().into_tensor_arg(),
        sums.clone().into_tensor_arg(),
        cut.rows as u32,
        cut.channels as u32,
        cut.rows_of_part as u32,
        EPSILON as f32,
        add,
        relu,
        cut.width,
        cut.lanes,
    );
    let dx = room(&x, x.shape());
    let [dweight, dbias] = [0; 2].map(|_| room(&x, [cut.channels]));
    let gradient = if add { masked.clone() } else { dy };
    input_gradients::launch(
        &client,
        cut.cubes(),
        cut.dim(),
        gradient.into_tensor_arg(),
        x.into_tensor_arg(),
        weight.into_tensor_arg(),
        bias.into_tensor_arg(),
        mean.into_tensor_arg(),
        var.into_tensor_arg(),
        sums.into_tensor_arg(),
        dx.clone().into_tensor_arg(),
        dweight.clone().into_tensor_arg(),
        dbias.clone().into_tensor_arg(),
        cut.rows as u32,
        cut.channels as u32,
        cut.parts as u32,
        cut.rows_of_cube as u32,
        EPSILON as f32,
        relu && !add,
        cut.width,
        cut.lanes,
    );
    let masked = if add { order.outside(masked) } else { masked };
    (order.outside(dx), dweight, dbias, masked)
}

impl EngineOps for CubeBackend {
    fn engine_norm(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        relu: bool,
    ) -> Normed<Self> {
        norm(x, weight, bias, None, relu)
    }

    fn engine_norm_add(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        residual: CubeTensor,
    ) -> Normed<Self> {
        norm(x, weight, bias, Some(residual), true)
    }

    fn engine_norm_backward(
        dy: CubeTensor,
        x: CubeTensor,
        _y: CubeTensor,
        weight: CubeTensor,
        mean: CubeTensor,
        var: CubeTensor,
        shift: CubeTensor,
        relu: bool,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let (dx, dweight, dbias, _) = norm_backward(dy, x, None, [weight, mean, var, shift], relu);
        (dx, dweight, dbias)
    }

    fn engine_norm_add_backward(
        dy: CubeTensor,
        x: CubeTensor,
        y: CubeTensor,
        weight: CubeTensor,
        mean: CubeTensor,
        var: CubeTensor,
        shift: CubeTensor,
    ) -> Normed<Self> {
        norm_backward(dy, x, Some(y), [weight, mean, var, shift], true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_part_and_units_suffice() {
        for rows in [1, 2, 7, 256, 1000, 524_288] {
            for channels in [1, 3, 16, 31, 32, 70, 512] {
                for units in [64, 256, 1024] {
                    let cut = Cut::new(rows, channels, units);
                    let case = format!("{rows} rows, {channels} channels, {units} units");
                    assert!(cut.width * cut.lanes <= units, "{case}");
                    assert!(cut.lanes.is_power_of_two(), "{case}");
                    assert!((cut.parts - 1) * cut.rows_of_part < rows, "{case}");
                    assert!(cut.parts * cut.rows_of_part >= rows, "{case}");
                }
            }
        }
    }
}
