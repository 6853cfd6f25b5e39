//! The model file: weights under their published names, with a JSON description in the metadata.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::layout::{MODEL, RECIPE};
use crate::error::{Error, Result};
use crate::nn::{Backbone, Classifier, Encoder, EncoderConfig, Linear, Normalize, Route};
use crate::random;
use crate::weights::{self, Tensors};

/// Description of a model in its file: enough to build it and to use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Format of this description: in 1, `recipe` is in a form that cannot be compared with today's.
    pub format: usize,
    /// Table of the pretraining method in the recipe.
    pub method: String,
    /// Depth, width and stem.
    #[serde(flatten)]
    pub encoder: EncoderConfig,
    /// Channels of the images: 1 or 3.
    pub channels: usize,
    /// Height and width of the images, in pixels.
    pub image_size: [usize; 2],
    /// Names of the classes in label order; empty while no classifier was fitted.
    pub classes: Vec<String>,
    /// BatchNorm branches, in order.
    pub routes: Vec<Route>,
    /// BatchNorm branch to use.
    pub route: Route,
    /// Whether the projection head `head_proj` is there: methods that compare no projections have none.
    #[serde(default = "usual_projection")]
    pub projection: bool,
    /// Numbers of pseudo-classes, one head `fc_K` each.
    pub clusters: Vec<usize>,
    /// Origin of the pseudo-labels, in words.
    pub pseudo_labels: Option<String>,
    /// Finetuning mode of the classifier: "slf", or "end-to-end" where it was trained together with the encoder.
    pub finetuning: Option<String>,
    /// Mean and deviation by which the encoder normalises images; weights that were made here do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// Everything that the weights depend on, as TOML: parts of the recipe, fingerprints of the images.
    pub recipe: String,
    /// Ways in which the encoder was pretrained, as far as they change the last bits: one for each sitting that
    /// computed in another way than those before; empty in files of earlier versions, and for imported weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arithmetic: Vec<String>,
    /// Version of the program that wrote the file.
    pub advcl_version: String,
}

/// Default of files from before there were methods without a projection head.
fn usual_projection() -> bool {
    true
}

/// Method of a model whose weights were imported.
pub const IMPORTED: &str = "imported";

/// Format of the descriptions that this version writes.
pub const MODEL_FORMAT: usize = 2;

const METADATA: &str = "advcl";
const LINEAR: &str = "linear.";

/// Model of a file.
pub struct Model {
    /// Description.
    pub info: ModelInfo,
    /// Encoder and heads of pretraining.
    pub backbone: Backbone,
    /// The classifier, where one was fitted.
    pub linear: Option<Linear>,
}

impl ModelInfo {
    /// Reads the description alone, without the weights; none where there is no file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::Model`].
    pub fn load(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let metadata = weights::load_metadata(path)?;
        Self::parse(path, &metadata).map(Some)
    }

    fn parse(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Self> {
        let Some(text) = metadata.get(METADATA) else {
            let problem = "no advcl metadata: this is not a model.safetensors of a run folder";
            let hint = "give the path of a model in a run folder: advcl/slf/model.safetensors, say";
            return Err(Error::model(path, problem, hint));
        };
        serde_json::from_str(text).map_err(|error| {
            let expected = "a description that this version understands";
            Error::format(path, "metadata advcl", expected, error.to_string())
        })
    }
}

impl Model {
    /// Writes the model file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Diverged`] for weights that are not finite, and nothing is written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = weights::export(&self.backbone);
        if let Some(linear) = &self.linear {
            let prefixed = |(name, tensor)| (format!("{LINEAR}{name}"), tensor);
            tensors.extend(weights::export(linear).into_iter().map(prefixed));
        }
        for (name, (_, values)) in &tensors {
            if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::Diverged {
                    stage: self.info.method.clone(),
                    part: name.clone(),
                    value,
                    at: "the end of training".to_owned(),
                });
            }
        }
        let info = serde_json::to_string(&self.info).expect("plain values");
        weights::save(path, &tensors, &[(METADATA, info)])
    }

    /// Reads a model file, strictly.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::Model`].
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let (mut tensors, metadata) = weights::load(path)?;
        let info = ModelInfo::parse(path, &metadata)?;
        if !info.routes.contains(&info.route) {
            let expected = format!("one of the routes {:?}", info.routes);
            let found = info.route.name();
            return Err(Error::format(
                path,
                "metadata advcl, route",
                expected,
                found,
            ));
        }
        if !info.projection && info.classes.is_empty() && info.method != IMPORTED {
            let expected = "a projection head or a classifier";
            return Err(Error::format(path, "metadata advcl", expected, "neither"));
        }
        // The initial values are replaced, every one: any generator will do.
        let mut rng = random::generator(0, "placeholder", 0);
        let (encoder, channels, routes) = (&info.encoder, info.channels, info.routes.len());
        let fresh = match info.projection {
            true => Backbone::new(encoder, channels, routes, &info.clusters, &mut rng, device),
            false => {
                Backbone::without_heads(Encoder::new(encoder, channels, routes, &mut rng, device))
            }
        };
        let mut backbone = weights::import(fresh, &mut tensors, &[LINEAR], path)?;
        backbone.encoder = backbone.encoder.normalized(info.normalize.clone());
        let mut linear = None;
        if !info.classes.is_empty() {
            let fresh = Linear::new(
                info.encoder.features(),
                info.classes.len(),
                &mut rng,
                device,
            );
            let strip = |(name, tensor): (String, _)| (name[LINEAR.len()..].to_owned(), tensor);
            let mut tensors: Tensors = tensors.into_iter().map(strip).collect();
            linear = Some(weights::import(fresh, &mut tensors, &[], path)?);
        } else if let Some(name) = tensors.keys().next() {
            let problem = format!("tensor {name} without class names in the metadata");
            return Err(Error::model(
                path,
                problem,
                "the file was changed after it was written",
            ));
        }
        Ok(Self {
            info,
            backbone,
            linear,
        })
    }

    /// The encoder with its classifier.
    ///
    /// # Errors
    /// [`Error::Model`] when none was fitted.
    pub fn classifier(&self, path: &Path) -> Result<Classifier> {
        let Some(linear) = self.linear.clone() else {
            let below = path.parent().map(models_below).unwrap_or_default();
            let hint = if below.is_empty() {
                let folder = path.ancestors().nth(2);
                let folder = folder.filter(|run| run.join(RECIPE).exists());
                let run = folder.map_or("DIR".to_owned(), |run| run.display().to_string());
                format!("make one first: advcl finetune --run {run}")
            } else {
                let names = below.iter().map(|path| path.display().to_string());
                format!("name one: {}", names.collect::<Vec<_>>().join(", "))
            };
            let problem = "an encoder alone: the model has no classifier";
            return Err(Error::model(path, problem, hint));
        };
        let encoder: Encoder = self.backbone.encoder.clone();
        Ok(Classifier {
            encoder,
            linear,
            route: self.info.route,
        })
    }
}

/// Folders in `folder` that have a model, in order of their names.
pub fn models_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.join(MODEL).exists());
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Depth, Stem};

    #[test]
    fn weights_that_are_not_finite_are_never_saved() {
        let device = crate::device::open("cpu").expect("the CPU");
        let encoder = EncoderConfig {
            depth: Depth::D10,
            width: 2,
            stem: Stem::Strided,
        };
        let mut rng = random::generator(0, "test", 0);
        let mut backbone = Backbone::new(&encoder, 1, 1, &[], &mut rng, &device);
        let mut tensors = weights::export(&backbone);
        let (_, values) = tensors.get_mut("conv1.weight").expect("a stem");
        values[3] = f32::INFINITY;
        backbone =
            weights::import(backbone, &mut tensors, &[], Path::new("test")).expect("its own");
        let info = ModelInfo {
            format: 1,
            method: "simclr".to_owned(),
            encoder,
            channels: 1,
            image_size: [8, 8],
            classes: Vec::new(),
            routes: vec![Route::Normal],
            route: Route::Normal,
            projection: true,
            clusters: Vec::new(),
            pseudo_labels: None,
            finetuning: None,
            normalize: None,
            recipe: String::new(),
            arithmetic: Vec::new(),
            advcl_version: String::new(),
        };
        let model = Model {
            info,
            backbone,
            linear: None,
        };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.safetensors");
        let error = model.save(&path).expect_err("not finite").to_string();
        assert_eq!(error, "simclr: conv1.weight is inf at the end of training");
        assert!(!path.exists());
    }
}
