//! Export of models for other programs: ONNX graphs, and weights with torchvision's names or with ours. Every export is read
//! again and compared with the model before it is written.

mod compute;
mod onnx;
mod proto;
mod state_dict;
mod verify;

use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::attack::Norm;
use crate::data::Images;
use crate::error::{Error, Result};
use crate::nn::{Encoder, Linear, Route};
use crate::pixels::Pixels;
use crate::run::{Model, ModelInfo};

pub use verify::{MOST, Verified};

/// Format of an exported file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A safetensors state dict with the names of torchvision's ResNets.
    Torchvision,
    /// An ONNX graph.
    Onnx,
    /// A model file with one BatchNorm branch and without heads of pretraining.
    Safetensors,
}

impl ExportFormat {
    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Torchvision => "torchvision",
            Self::Onnx => "onnx",
            Self::Safetensors => "safetensors",
        }
    }
}

/// Input of an ONNX graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnnxInput {
    /// f32 in [0, 1].
    #[default]
    Float,
    /// Bytes from 0 to 255.
    Uint8,
}

/// What is exported, and how.
#[derive(Clone, Copy, Debug)]
pub struct ExportSettings {
    /// Format of the file.
    pub format: ExportFormat,
    /// Whether the encoder is exported alone.
    pub features: bool,
    /// BatchNorm branch; the model's own where there is none.
    pub route: Option<Route>,
    /// Input, in ONNX.
    pub input: OnnxInput,
}

/// What perturbations a model was made for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreatModel {
    /// How a perturbation is measured.
    pub norm: Norm,
    /// ε, in pixels.
    pub radius: Pixels,
}

/// One measured accuracy: under no attack, or under one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Data set.
    pub data: String,
    /// Split of it.
    pub split: String,
    /// "none", "PGD-20", "autoattack".
    pub attack: String,
    /// Threat model; none without an attack.
    #[serde(flatten)]
    pub threat: Option<ThreatModel>,
    /// Images that were evaluated.
    pub images: usize,
    /// Images that are classified correctly.
    pub correct: usize,
    /// Their share, in [0, 1].
    pub accuracy: f64,
}

/// What is known of a model beside its file.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Threat model of the run.
    pub threat: Option<ThreatModel>,
    /// Figures of its evaluation.
    pub figures: Vec<Figure>,
}

/// What is exported: one BatchNorm branch, with or without a classifier.
struct Network<'a> {
    info: &'a ModelInfo,
    device: &'a Device,
    /// On the first route, its only one.
    encoder: Encoder,
    linear: Option<Linear>,
}

impl Network<'_> {
    /// Name of what comes out.
    fn output(&self) -> &'static str {
        match self.linear {
            Some(_) => "logits",
            None => "features",
        }
    }

    /// Number of values that come out of an image.
    fn outputs(&self) -> usize {
        match &self.linear {
            Some(linear) => linear.outputs(),
            None => self.info.encoder.features(),
        }
    }
}

/// A model in another format, compared with the model.
pub struct Exported {
    /// The file.
    pub content: Vec<u8>,
    /// Its metadata.
    pub metadata: Vec<(&'static str, String)>,
    /// BatchNorm branch that was taken.
    pub route: Route,
    /// Name of what comes out: `logits` or `features`.
    pub output: &'static str,
    /// Number of values that come out of an image.
    pub outputs: usize,
    /// Outcome of the comparison.
    pub verified: Verified,
}

/// Brings a model into another format and compares what is in the file with the model, on random images and on `real`
/// ones. The model is on `device`; `origin`, its file, is for messages.
///
/// # Errors
/// [`Error::Model`] for a model without a classifier whose encoder was not asked for, for a route that it does not have, and
/// for one that is too large for the format; [`Error::Export`] where the file computes something else; [`Error::Io`] where
/// it cannot be read again.
///
/// # Panics
/// For `real` images of another shape than the model's.
pub fn export(
    model: &Model,
    origin: &Path,
    device: &Device,
    settings: &ExportSettings,
    notes: &Notes,
    real: Option<&Images>,
) -> Result<Exported> {
    let info = &model.info;
    let route = settings.route.unwrap_or(info.route);
    if !info.routes.contains(&route) {
        return Err(no_route(info, route, origin));
    }
    let linear = match settings.features {
        true => None,
        false => {
            let there = model
                .classifier(origin)
                .map_err(|error| or_features(error, origin))?;
            Some(there.linear)
        }
    };
    let network = Network {
        info,
        device,
        encoder: model.backbone.encoder.on_route(route),
        linear,
    };
    let metadata = metadata(&network, settings, route, notes);
    let content = match settings.format {
        ExportFormat::Onnx => onnx::serialize(&network, settings.input, &metadata, origin)?,
        ExportFormat::Torchvision => state_dict::torchvision(&network, &metadata, origin)?,
        ExportFormat::Safetensors => state_dict::own(&network, &metadata, origin)?,
    };
    let verified = verify::verify(&network, settings, &content, origin, real)?;
    Ok(Exported {
        content,
        metadata,
        route,
        output: network.output(),
        outputs: network.outputs(),
        verified,
    })
}

fn no_route(info: &ModelInfo, route: Route, origin: &Path) -> Error {
    let names: Vec<&str> = info.routes.iter().map(|route| route.name()).collect();
    let problem = format!("no BatchNorm branch {}", route.name());
    Error::model(origin, problem, format!("it has {}", names.join(", ")))
}

/// The error of a model without a classifier, with one way out more.
fn or_features(error: Error, origin: &Path) -> Error {
    match error {
        Error::Model { problem, hint, .. } => {
            let hint = format!("--features exports the encoder alone; or {hint}");
            Error::model(origin, problem, hint)
        }
        other => other,
    }
}

/// What a user of the file needs to know, as strings: lists and tables as JSON.
fn metadata(
    network: &Network,
    settings: &ExportSettings,
    route: Route,
    notes: &Notes,
) -> Vec<(&'static str, String)> {
    let (info, json) = (network.info, |value: serde_json::Value| value.to_string());
    let mut all = vec![
        ("advcl_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("method", info.method.clone()),
        ("depth", usize::from(info.encoder.depth).to_string()),
        ("width", info.encoder.width.to_string()),
        ("stem", info.encoder.stem.name().to_owned()),
        ("route", route.name().to_owned()),
        ("channels", info.channels.to_string()),
        ("image_size", json(info.image_size.to_vec().into())),
        ("fit", info.reading.fit.name().to_owned()),
        ("output", network.output().to_owned()),
    ];
    if settings.format == ExportFormat::Onnx {
        all.push(("input", settings.input.meaning().to_owned()));
    } else if let Some(normalize) = &info.normalize {
        // In a graph it is inside.
        all.push((
            "normalize",
            serde_json::to_string(normalize).expect("plain values"),
        ));
    }
    if network.linear.is_some() {
        all.push(("classes", json(info.classes.clone().into())));
        // Of the classifier as it is used, not of other routes.
        if route == info.route && !notes.figures.is_empty() {
            let figures = serde_json::to_string(&notes.figures).expect("plain values");
            all.push(("figures", figures));
        }
    }
    if let Some(threat) = trained_against(info).or_else(|| notes.threat.clone()) {
        let norm = serde_json::to_value(threat.norm).expect("a name");
        all.push(("threat_norm", norm.as_str().unwrap_or_default().to_owned()));
        all.push(("threat_radius", threat.radius.to_string()));
    }
    all
}

impl OnnxInput {
    /// Type and range, in words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Float => "float in [0, 1]",
            Self::Uint8 => "uint8 from 0 to 255",
        }
    }
}

/// Threat model of the training: the classifier's, or else the encoder's.
fn trained_against(info: &ModelInfo) -> Option<ThreatModel> {
    #[derive(Deserialize)]
    struct Recorded {
        threat: Option<ThreatModel>,
        pretrained: Option<Box<Self>>,
    }
    let recorded: Recorded = toml::from_str(&info.recipe).ok()?;
    recorded.threat.or_else(|| recorded.pretrained?.threat)
}
