//! Comparison of an exported file with the model that it was made of.

use std::path::Path;

use burn::tensor::Device;
use rand::RngExt;
use serde::Serialize;

use super::compute::Computer;
use super::{ExportFormat, ExportSettings, Network, OnnxInput};
use crate::data::Images;
use crate::error::{Error, Result};
use crate::import::{ImportSettings, import};
use crate::nn::{Encoder, FrozenEncoder, Linear, Route};
use crate::run::{Model, ModelInfo};
use crate::tensor::{to_tensor, to_vec};
use crate::weights::{self, Tensors};
use crate::{files, random};

/// Largest difference of an output, over the largest output, that is rounding.
pub const MOST: f32 = 1e-4;
/// Pixels of an image from which on fewer images are compared: they are many.
const LARGE: usize = 128 * 128;

/// Outcome of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Verified {
    /// Random images.
    pub random: usize,
    /// Images of the data set.
    pub real: usize,
    /// Largest difference of an output, over the largest output.
    pub largest_difference: f32,
}

/// Random images for a model.
fn random_images(info: &ModelInfo) -> Images {
    let [height, width] = info.image_size;
    let shape = [info.channels, height, width];
    let count = count(shape) * shape.iter().product::<usize>();
    let mut rng = random::generator(0, "export", 0);
    Images::new((0..count).map(|_| rng.random()).collect(), shape)
}

/// How many images of this shape are compared.
fn count([_, height, width]: [usize; 3]) -> usize {
    if height * width >= LARGE { 1 } else { 4 }
}

/// Compares what is in a file with the network, image by image.
///
/// # Errors
/// [`Error::Export`] where it computes something else; [`Error::Format`] where it cannot be read as what it is.
pub(super) fn verify(
    network: &Network,
    settings: &ExportSettings,
    content: &[u8],
    origin: &Path,
    real: Option<&Images>,
) -> Result<Verified> {
    let random = random_images(network.info);
    let there = real.map_or(0, |images| images.len().min(count(images.shape())));
    let real = real.into_iter();
    let real = real.flat_map(|images| (0..there).map(move |index| (images, index)));
    let images = (0..random.len()).map(|index| (&random, index)).chain(real);
    let ours = Computed::by_network(&network.encoder, network.linear.as_ref());
    let file = match settings.format {
        ExportFormat::Onnx => {
            Computer::read(content).map(|graph| Computed::Graph(Box::new(graph), settings.input))
        }
        _ => Ok(read_again(network, settings.format, content)?),
    };
    let broken = |problem| Error::format(origin, "its export", "what was written", problem);
    let file = file.map_err(broken)?;
    let (mut gap, mut largest) = (0f32, 0f32);
    for (images, index) in images {
        let outputs = |by: &Computed| by.outputs(images, index, network.device).map_err(broken);
        let (expected, found) = (outputs(&ours)?, outputs(&file)?);
        let differences = expected.iter().zip(&found).map(|(a, b)| (a - b).abs());
        let largest_of = |so_far: f32, value: f32| match value.is_finite() {
            true => so_far.max(value),
            false => f32::INFINITY,
        };
        gap = differences.fold(gap, largest_of);
        if expected.len() != found.len() {
            gap = f32::INFINITY;
        }
        largest = expected
            .iter()
            .map(|value| value.abs())
            .fold(largest, f32::max);
    }
    let largest_difference = if gap == 0.0 { 0.0 } else { gap / largest };
    if largest_difference <= MOST {
        return Ok(Verified {
            random: random.len(),
            real: there,
            largest_difference,
        });
    }
    Err(Error::Export {
        path: origin.to_path_buf(),
        format: settings.format.name(),
        gap: largest_difference,
        most: MOST,
    })
}

/// What computes the outputs of an image.
enum Computed {
    /// A graph on the host.
    Graph(Box<Computer>, OnnxInput),
    /// A network of ours.
    Network(Box<FrozenEncoder>, Option<Linear>),
}

impl Computed {
    /// Outputs of an encoder that has one BatchNorm branch, and of a classifier on it.
    fn by_network(encoder: &Encoder, linear: Option<&Linear>) -> Self {
        let encoder = FrozenEncoder::new(encoder, Route::Normal);
        Self::Network(Box::new(encoder), linear.cloned())
    }

    fn outputs(&self, images: &Images, index: usize, device: &Device) -> Result<Vec<f32>, String> {
        match self {
            Self::Graph(graph, input) => {
                let [channels, height, width] = images.shape();
                let pixels = match input {
                    OnnxInput::Float => images.batch(&[index]).data,
                    OnnxInput::Uint8 => {
                        images.image(index).iter().copied().map(f32::from).collect()
                    }
                };
                graph.compute([1, channels, height, width], pixels)
            }
            Self::Network(encoder, linear) => {
                let features = encoder.features(to_tensor(images.batch(&[index]), device));
                Ok(to_vec(match linear {
                    Some(linear) => linear.forward(features),
                    None => features,
                }))
            }
        }
    }
}

/// Reads weights again as anyone would: a model file as a model, a state dict by an import.
fn read_again(network: &Network, format: ExportFormat, content: &[u8]) -> Result<Computed> {
    let folder = std::env::temp_dir();
    let folder = tempfile::tempdir_in(&folder).map_err(Error::io("write", &folder))?;
    let path = folder.path().join("exported.safetensors");
    files::write_atomic(&path, content)?;
    let info = network.info;
    if format == ExportFormat::Safetensors {
        let model = Model::load(&path, network.device)?;
        return Ok(Computed::by_network(
            &model.backbone.encoder,
            model.linear.as_ref(),
        ));
    }
    let settings = ImportSettings {
        image_size: Some(info.image_size),
        normalize: info.normalize.clone(),
        ..ImportSettings::new(info.encoder.stem)
    };
    let imported = import(&path, &settings, network.device)?;
    let encoder = &imported.model.backbone.encoder;
    let Some(linear) = &network.linear else {
        return Ok(Computed::by_network(encoder, None));
    };
    let (tensors, _) = weights::parse(content, &path)?;
    let own = |(name, tensor): (String, _)| Some((name.strip_prefix("fc.")?.to_owned(), tensor));
    let mut tensors: Tensors = tensors.into_iter().filter_map(own).collect();
    let linear = weights::import(linear.zeros(), &mut tensors, &[], &path)?;
    Ok(Computed::by_network(encoder, Some(&linear)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{Notes, export};
    use crate::nn::{Backbone, Turn};

    /// A model of random weights, normalised inside.
    fn model(depth: usize, stem: &str, seed: u64, device: &Device) -> Model {
        let info = serde_json::json!({
            "format": 2, "method": "imported", "depth": depth, "width": 3, "stem": stem, "channels": 3,
            "image_size": [9, 14], "classes": ["a", "b"], "routes": ["normal"], "route": "normal", "projection": false,
            "clusters": [], "pseudo_labels": null, "finetuning": null, "recipe": "", "advcl_version": "0.1.0",
            "normalize": { "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25] },
        });
        let info: ModelInfo = serde_json::from_value(info).expect("a description");
        let mut rng = random::generator(seed, "test", 0);
        let encoder = Encoder::new(&info.encoder, 3, 1, &mut rng, device);
        let linear = Linear::new(info.encoder.features(), 2, &mut rng, device);
        let encoder = encoder.normalized(info.normalize.clone());
        Model {
            backbone: Backbone::without_heads(encoder),
            linear: Some(linear),
            info,
        }
    }

    #[test]
    fn files_of_this_network_hold_and_those_of_another_do_not() {
        let _turn = Turn::take();
        let device = crate::device::open("cpu").expect("the CPU");
        let origin = Path::new("model.safetensors");
        for (depth, stem) in [(10, "cifar"), (50, "strided"), (18, "imagenet")] {
            let [one, other] = [1, 2].map(|seed| model(depth, stem, seed, &device));
            for format in [
                ExportFormat::Onnx,
                ExportFormat::Torchvision,
                ExportFormat::Safetensors,
            ] {
                let settings = ExportSettings {
                    format,
                    features: false,
                    route: None,
                    input: OnnxInput::Uint8,
                };
                let real = random_images(&other.info);
                let exported = |model| {
                    export(
                        model,
                        origin,
                        &device,
                        &settings,
                        &Notes::default(),
                        Some(&real),
                    )
                };
                let [own, others] = [&one, &other].map(|model| exported(model).expect("an export"));
                assert_eq!((own.verified.random, own.verified.real), (4, 4));
                let network = Network {
                    info: &one.info,
                    device: &device,
                    encoder: one.backbone.encoder.clone(),
                    linear: one.linear.clone(),
                };
                let compared = |content: &[u8]| verify(&network, &settings, content, origin, None);
                compared(&own.content).expect("its own");
                let error = compared(&others.content).expect_err("of other weights");
                assert!(matches!(error, Error::Export { .. }), "{error}");
                assert_eq!(error.exit_code(), 1);
                compared(&own.content[..own.content.len() - 9]).expect_err("a part of it");
            }
        }
    }
}
