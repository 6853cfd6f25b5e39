//! Computes the graphs that are written here again, from the bytes of the file: plain loops on the host, which know nothing
//! of the engine that the weights were trained with.

use std::collections::HashMap;

use prost::Message as _;
use rayon::prelude::*;

use super::proto::{FLOAT, Model, Node};

/// Values in rows, with their shape.
#[derive(Clone, Debug)]
struct Array {
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// A file's graph, read back.
pub(super) struct Computer {
    model: Model,
}

impl Computer {
    /// Reads a file.
    ///
    /// # Errors
    /// In words, for what is no ONNX file.
    pub fn read(content: &[u8]) -> Result<Self, String> {
        let model = Model::decode(content).map_err(|error| error.to_string())?;
        Ok(Self { model })
    }

    /// Values of the graph's output for a batch of images.
    ///
    /// # Errors
    /// In words, for a graph with other nodes than those that are written here.
    pub fn compute(&self, shape: [usize; 4], images: Vec<f32>) -> Result<Vec<f32>, String> {
        let graph = self.model.graph.as_ref().ok_or("no graph")?;
        let mut values: HashMap<&str, Array> = HashMap::new();
        for constant in &graph.initializer {
            if constant.data_type != FLOAT {
                return Err(format!("{} is not of floats", constant.name));
            }
            let (words, _) = constant.raw_data.as_chunks::<4>();
            let array = Array {
                shape: constant
                    .dims
                    .iter()
                    .map(|&length| length as usize)
                    .collect(),
                values: words.iter().map(|word| f32::from_le_bytes(*word)).collect(),
            };
            values.insert(&constant.name, array);
        }
        let input = graph.input.first().ok_or("no input")?;
        let images = Array {
            shape: shape.to_vec(),
            values: images,
        };
        values.insert(&input.name, images);
        for node in &graph.node {
            let inputs: Option<Vec<&Array>> =
                (node.input.iter().map(|name| values.get(name.as_str()))).collect();
            let inputs =
                inputs.ok_or_else(|| format!("node {}: an input is missing", node.name))?;
            let found = node_output(node, &inputs);
            let found =
                found.ok_or_else(|| format!("node {}: unknown {}", node.name, node.op_type))?;
            let output = node.output.first().ok_or("a node without an output")?;
            values.insert(output, found);
        }
        let output = graph.output.first().ok_or("no output")?;
        let found = values.remove(output.name.as_str());
        found
            .map(|array| array.values)
            .ok_or_else(|| format!("no value {}", output.name))
    }
}

fn integers<'a>(node: &'a Node, name: &str) -> Option<&'a [i64]> {
    let attribute = node.attribute.iter().find(|one| one.name == name)?;
    Some(&attribute.ints)
}

/// The same number in all directions.
fn same(node: &Node, name: &str) -> Option<usize> {
    let (first, others) = integers(node, name)?.split_first()?;
    others
        .iter()
        .all(|other| other == first)
        .then_some(*first as usize)
}

/// Output of a node; none where it is of a kind that is not written here.
fn node_output(node: &Node, inputs: &[&Array]) -> Option<Array> {
    let each = |f: fn(f32) -> f32, x: &Array| Array {
        shape: x.shape.clone(),
        values: x.values.iter().copied().map(f).collect(),
    };
    Some(match (node.op_type.as_str(), inputs) {
        // Pixels are given as numbers here in any case.
        ("Cast", [x]) => (*x).clone(),
        ("Relu", [x]) => each(|value| value.max(0.0), x),
        ("Add", [x, y]) => pairs(x, y, |a, b| a + b)?,
        ("Sub", [x, y]) => pairs(x, y, |a, b| a - b)?,
        ("Div", [x, y]) => pairs(x, y, |a, b| a / b)?,
        ("Conv", [x, weight, bias]) => {
            conv(x, weight, bias, same(node, "strides")?, same(node, "pads")?)?
        }
        ("MaxPool", [x]) => {
            let window = same(node, "kernel_shape")?;
            max_pool(x, window, same(node, "strides")?, same(node, "pads")?)?
        }
        ("GlobalAveragePool", [x]) => {
            let &[batch, channels, height, width] = x.shape.as_slice() else {
                return None;
            };
            let plane = height * width;
            let means = x
                .values
                .chunks(plane)
                .map(|values| values.iter().sum::<f32>() / plane as f32);
            Array {
                shape: vec![batch, channels, 1, 1],
                values: means.collect(),
            }
        }
        ("Flatten", [x]) => {
            let (batch, rest) = x.shape.split_first()?;
            Array {
                shape: vec![*batch, rest.iter().product()],
                values: x.values.clone(),
            }
        }
        ("Gemm", [x, weight, bias]) => {
            let (&[batch, length], &[outputs, _]) = (x.shape.as_slice(), weight.shape.as_slice())
            else {
                return None;
            };
            let output = |row: &[f32]| -> Vec<f32> {
                let weights = weight.values.chunks(length).zip(&bias.values);
                let dot = |w: &[f32]| w.iter().zip(row).map(|(w, x)| w * x).sum::<f32>();
                weights.map(|(w, bias)| dot(w) + bias).collect()
            };
            Array {
                shape: vec![batch, outputs],
                values: x.values.chunks(length).flat_map(output).collect(),
            }
        }
        _ => return None,
    })
}

/// `f` of two arrays of one shape, or of one and a constant: a single number, or one a channel.
fn pairs(x: &Array, y: &Array, f: fn(f32, f32) -> f32) -> Option<Array> {
    let plane = x.shape.iter().skip(2).product::<usize>().max(1);
    let of_y = |place: usize| match y.values.len() {
        1 => y.values[0],
        _ if y.shape == x.shape => y.values[place],
        channels => y.values[place / plane % channels],
    };
    let known =
        y.values.len() == 1 || y.shape == x.shape || Some(&y.values.len()) == x.shape.get(1);
    let values = x
        .values
        .iter()
        .enumerate()
        .map(|(place, value)| f(*value, of_y(place)));
    known.then(|| Array {
        shape: x.shape.clone(),
        values: values.collect(),
    })
}

/// Convolution with a bias.
fn conv(x: &Array, weight: &Array, bias: &Array, stride: usize, pad: usize) -> Option<Array> {
    let (&[batch, inputs, height, width], &[outputs, _, kernel, _]) =
        (x.shape.as_slice(), weight.shape.as_slice())
    else {
        return None;
    };
    let along = |length: usize| Some((length + 2 * pad).checked_sub(kernel)? / stride + 1);
    let (out_height, out_width) = (along(height)?, along(width)?);
    let mut values = vec![0.0; batch * outputs * out_height * out_width];
    let planes = values.par_chunks_mut(out_height * out_width).enumerate();
    planes.for_each(|(index, plane)| {
        let (image, output) = (index / outputs, index % outputs);
        plane.fill(bias.values[output]);
        for input in 0..inputs {
            let source = &x.values[(image * inputs + input) * height * width..][..height * width];
            let weights = &weight.values[(output * inputs + input) * kernel * kernel..];
            for (tap, weight) in weights[..kernel * kernel].iter().enumerate() {
                let (down, across) = (tap / kernel, tap % kernel);
                // Columns whose pixel under this weight is inside the image.
                let first = pad.saturating_sub(across).div_ceil(stride);
                let end = (width + pad)
                    .saturating_sub(across)
                    .div_ceil(stride)
                    .min(out_width);
                for (row, out) in plane.chunks_mut(out_width).enumerate() {
                    let line = (row * stride + down)
                        .checked_sub(pad)
                        .filter(|line| *line < height);
                    let (Some(line), true) = (line, first < end) else {
                        continue;
                    };
                    let pixels = &source[line * width + first * stride + across - pad..];
                    let out = out[first..end].iter_mut();
                    match stride {
                        1 => out.zip(pixels).for_each(|(out, x)| *out += weight * x),
                        _ => out
                            .zip(pixels.iter().step_by(stride))
                            .for_each(|(out, x)| *out += weight * x),
                    }
                }
            }
        }
    });
    Some(Array {
        shape: vec![batch, outputs, out_height, out_width],
        values,
    })
}

/// Largest value of each window.
fn max_pool(x: &Array, window: usize, stride: usize, pad: usize) -> Option<Array> {
    let &[batch, channels, height, width] = x.shape.as_slice() else {
        return None;
    };
    let along = |length: usize| Some((length + 2 * pad).checked_sub(window)? / stride + 1);
    let (out_height, out_width) = (along(height)?, along(width)?);
    let inside = |at: usize, length: usize| {
        let first = (at * stride).saturating_sub(pad);
        first..(at * stride + window).saturating_sub(pad).min(length)
    };
    let mut values = Vec::with_capacity(batch * channels * out_height * out_width);
    for plane in x.values.chunks(height * width) {
        for row in 0..out_height {
            for column in 0..out_width {
                let pixels = inside(row, height)
                    .flat_map(|y| inside(column, width).map(move |x| plane[y * width + x]));
                values.push(pixels.fold(f32::NEG_INFINITY, f32::max));
            }
        }
    }
    Some(Array {
        shape: vec![batch, channels, out_height, out_width],
        values,
    })
}
