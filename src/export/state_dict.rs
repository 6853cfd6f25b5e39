//! Weights as safetensors: with the names of torchvision's ResNets, or as one of our model files.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use super::Network;
use crate::error::Result;
use crate::nn::{Backbone, Route};
use crate::run::{IMPORTED, Model, ModelInfo};
use crate::weights;

/// Name of a tensor in torchvision's ResNets, of an encoder with one BatchNorm branch.
fn torchvision_name(name: &str) -> String {
    name.replace("downsample.conv.", "downsample.0.")
        .replace("downsample.bn.", "downsample.1.")
        .replace("bn_list.0.", "")
}

/// Content of a state dict that a ResNet of torchvision loads strictly, `num_batches_tracked` included.
///
/// # Errors
/// [`crate::Error::Io`].
pub(super) fn torchvision(
    network: &Network,
    metadata: &[(&str, String)],
    origin: &Path,
) -> Result<Vec<u8>> {
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: String, shape: Vec<usize>, values: &[f32]| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        if let Some(norm) = name.strip_suffix("running_var") {
            // PyTorch counts batches for averages that no ResNet uses.
            let counter = format!("{norm}num_batches_tracked");
            tensors.push((counter, Dtype::I64, Vec::new(), vec![0; 8]));
        }
        tensors.push((name, Dtype::F32, shape, bytes.collect()));
    };
    for (name, (shape, values)) in weights::export(&network.encoder) {
        add(torchvision_name(&name), shape, &values);
    }
    for (name, (shape, values)) in network.linear.iter().flat_map(weights::export) {
        add(format!("fc.{name}"), shape, &values);
    }
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (name.as_str(), view.expect("the values of its shape"))
    });
    weights::serialize_views(origin, views, metadata)
}

/// Content of one of our model files, with one BatchNorm branch and without heads of pretraining.
///
/// # Errors
/// As [`Model::save`].
pub(super) fn own(
    network: &Network,
    metadata: &[(&str, String)],
    origin: &Path,
) -> Result<Vec<u8>> {
    let linear = network.linear.clone();
    let mut info = ModelInfo {
        routes: vec![Route::Normal],
        route: Route::Normal,
        projection: false,
        clusters: Vec::new(),
        ..network.info.clone()
    };
    if linear.is_none() {
        // Like one from elsewhere: neither a head nor a classifier.
        info.method = IMPORTED.to_owned();
        info.classes.clear();
        info.finetuning = None;
    }
    let model = Model {
        info,
        backbone: Backbone::without_heads(network.encoder.clone()),
        linear,
    };
    model.serialize(origin, metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_torchvisions() {
        for (name, expected) in [
            ("conv1.weight", "conv1.weight"),
            ("bn1.bn_list.0.running_mean", "bn1.running_mean"),
            ("layer2.0.bn2.bn_list.0.bias", "layer2.0.bn2.bias"),
            (
                "layer2.0.downsample.conv.weight",
                "layer2.0.downsample.0.weight",
            ),
            (
                "layer2.0.downsample.bn.bn_list.0.running_var",
                "layer2.0.downsample.1.running_var",
            ),
        ] {
            assert_eq!(torchvision_name(name), expected);
        }
    }
}
