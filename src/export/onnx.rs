//! Models as ONNX graphs: BatchNorm folded into the convolutions, normalisation inside, a batch of any size.

use std::path::Path;

use burn::tensor::Tensor as BurnTensor;
use prost::Message as _;

use super::proto::{
    Attribute, Dimension, Entry, FLOAT, Graph, INT, INTS, Model, Node, OperatorSet, Shape, Tensor,
    TensorType, Type, UINT8, ValueInfo,
};
use super::{Network, OnnxInput};
use crate::error::{Error, Result};
use crate::nn::{Folded, FrozenBlock, FrozenEncoder, Route};
use crate::tensor::to_vec;

/// Version of the messages, and of the operators: those of ONNX 1.12, which runtimes have read since 2022.
const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;
/// Most bytes of a protobuf message.
const MAX_BYTES: usize = i32::MAX as usize;

/// Name of the graph's input.
pub(super) const INPUT: &str = "images";

/// Content of an ONNX file of a network; `origin` is for messages.
///
/// # Errors
/// [`Error::Model`] for weights of more than 2 GiB, which such a file cannot hold.
pub(super) fn serialize(
    network: &Network,
    input: OnnxInput,
    metadata: &[(&str, String)],
    origin: &Path,
) -> Result<Vec<u8>> {
    let entry = |(key, value): &(&str, String)| Entry {
        key: (*key).to_owned(),
        value: value.clone(),
    };
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "advcl".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph(network, input)),
        opset_import: vec![OperatorSet {
            domain: String::new(),
            version: OPSET,
        }],
        metadata_props: metadata.iter().map(entry).collect(),
    };
    match model.encoded_len() {
        size if size > MAX_BYTES => {
            let problem = format!("expected at most {MAX_BYTES} bytes as ONNX, found {size}");
            let hint = "an ONNX file holds no more: --format torchvision does";
            Err(Error::model(origin, problem, hint))
        }
        _ => Ok(model.encode_to_vec()),
    }
}

fn graph(network: &Network, input: OnnxInput) -> Graph {
    let info = network.info;
    let [height, width] = info.image_size;
    let frozen = FrozenEncoder::new(&network.encoder, Route::Normal);
    let mut builder = Builder::default();
    let mut x = INPUT.to_owned();
    if input == OnnxInput::Uint8 {
        let to = integer("to", i64::from(FLOAT));
        x = builder.node("Cast", "float", &[&x], vec![to]);
        let largest = builder.constant("255", &[], &[255.0]);
        x = builder.node("Div", "unit", &[&x, &largest], vec![]);
    }
    if let Some(normalize) = &frozen.normalize {
        let shape = [1, normalize.channels(), 1, 1];
        let mean = builder.constant("mean", &shape, normalize.mean());
        x = builder.node("Sub", "centred", &[&x, &mean], vec![]);
        let std = builder.constant("std", &shape, normalize.std());
        x = builder.node("Div", "normalised", &[&x, &std], vec![]);
    }
    x = builder.conv("conv1", &frozen.stem, &x);
    x = builder.node("Relu", "relu", &[&x], vec![]);
    if frozen.is_pooled {
        let attributes = vec![
            integers("kernel_shape", &[3; 2]),
            integers("pads", &[1; 4]),
            integers("strides", &[2; 2]),
        ];
        x = builder.node("MaxPool", "maxpool", &[&x], attributes);
    }
    let stages = (1..).zip(info.encoder.depth.blocks());
    let names = stages
        .flat_map(|(stage, blocks)| (0..blocks).map(move |block| format!("layer{stage}.{block}")));
    for (name, block) in names.zip(&frozen.blocks) {
        x = builder.block(&name, block, &x);
    }
    x = builder.node("GlobalAveragePool", "avgpool", &[&x], vec![]);
    let output = network.output();
    let flatten = match network.linear {
        Some(_) => "flatten",
        None => output,
    };
    x = builder.node("Flatten", flatten, &[&x], vec![integer("axis", 1)]);
    if let Some(linear) = &network.linear {
        let [classes, features] = linear.weight.val().dims();
        let weight = to_vec(linear.weight.val());
        let weight = builder.constant("fc.weight", &[classes, features], &weight);
        let bias = builder.constant("fc.bias", &[classes], &to_vec(linear.bias.val()));
        builder.node(
            "Gemm",
            output,
            &[&x, &weight, &bias],
            vec![integer("transB", 1)],
        );
    }
    let images = [info.channels, height, width];
    let (kind, meaning) = match input {
        OnnxInput::Float => (FLOAT, "pixels in [0, 1]"),
        OnnxInput::Uint8 => (UINT8, "pixels from 0 to 255"),
    };
    Graph {
        node: builder.nodes,
        name: "advcl".to_owned(),
        initializer: builder.constants,
        input: vec![value(INPUT, kind, &images, meaning)],
        output: vec![value(output, FLOAT, &[network.outputs()], "")],
    }
}

/// An input or output, a batch of values of `shape`.
fn value(name: &str, kind: i32, shape: &[usize], meaning: &str) -> ValueInfo {
    let batch = Dimension {
        dim_value: None,
        dim_param: Some("batch".to_owned()),
    };
    let fixed = shape.iter().map(|&length| Dimension {
        dim_value: Some(length as i64),
        dim_param: None,
    });
    let shape = Shape {
        dim: std::iter::once(batch).chain(fixed).collect(),
    };
    ValueInfo {
        name: name.to_owned(),
        r#type: Some(Type {
            tensor_type: Some(TensorType {
                elem_type: kind,
                shape: Some(shape),
            }),
        }),
        doc_string: meaning.to_owned(),
    }
}

fn integer(name: &str, value: i64) -> Attribute {
    Attribute {
        name: name.to_owned(),
        i: Some(value),
        ints: Vec::new(),
        r#type: INT,
    }
}

fn integers(name: &str, values: &[usize]) -> Attribute {
    Attribute {
        name: name.to_owned(),
        i: None,
        ints: values.iter().map(|&value| value as i64).collect(),
        r#type: INTS,
    }
}

/// Nodes and constants of a graph, in order.
#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    constants: Vec<Tensor>,
}

impl Builder {
    /// Adds a node with one output, which has the node's name. That name.
    fn node(
        &mut self,
        kind: &str,
        name: &str,
        inputs: &[&str],
        attribute: Vec<Attribute>,
    ) -> String {
        self.nodes.push(Node {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: kind.to_owned(),
            attribute,
        });
        name.to_owned()
    }

    /// Adds a constant; its name.
    fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        self.constants.push(Tensor {
            dims: shape.iter().map(|&length| length as i64).collect(),
            data_type: FLOAT,
            name: name.to_owned(),
            raw_data: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        });
        name.to_owned()
    }

    fn conv(&mut self, name: &str, conv: &Folded, x: &str) -> String {
        let shape: [usize; 4] = conv.weight.dims();
        let kernel = shape[2];
        let weight = to_vec::<4>(BurnTensor::clone(&conv.weight));
        let weight = self.constant(&format!("{name}.weight"), &shape, &weight);
        let bias = to_vec(conv.shift.clone());
        let bias = self.constant(&format!("{name}.bias"), &[shape[0]], &bias);
        let attributes = vec![
            integers("kernel_shape", &[kernel; 2]),
            integers("pads", &[kernel / 2; 4]),
            integers("strides", &[conv.stride; 2]),
        ];
        self.node("Conv", name, &[x, &weight, &bias], attributes)
    }

    fn block(&mut self, name: &str, block: &FrozenBlock, x: &str) -> String {
        let residual = match &block.shortcut {
            Some(shortcut) => self.conv(&format!("{name}.downsample"), shortcut, x),
            None => x.to_owned(),
        };
        let mut y = x.to_owned();
        for (number, conv) in (1..).zip(&block.first) {
            y = self.conv(&format!("{name}.conv{number}"), conv, &y);
            y = self.node("Relu", &format!("{name}.relu{number}"), &[&y], vec![]);
        }
        let last = format!("{name}.conv{}", block.first.len() + 1);
        y = self.conv(&last, &block.last, &y);
        y = self.node("Add", &format!("{name}.add"), &[&y, &residual], vec![]);
        self.node("Relu", &format!("{name}.relu"), &[&y], vec![])
    }
}
