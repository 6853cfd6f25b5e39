//! The model file: weights under their published names, with a JSON description in the metadata.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::layout::{MODEL, RECIPE};
use crate::data::{MAX_SIDE, Reading, class_name};
use crate::error::{Error, Result};
use crate::files;
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
    /// Weights that the training of the encoder began at, in words; none for random ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Finetuning mode of the classifier: "slf", or "end-to-end" where it was trained together with the encoder.
    pub finetuning: Option<String>,
    /// Mean and deviation by which the encoder normalises images; weights that were made here do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// Everything that the weights depend on, as TOML: parts of the recipe, fingerprints of the images.
    pub recipe: String,
    /// How the images were read, so that predictions read theirs in the same way.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reading: Reading,
    /// Ways in which the encoder was pretrained, as far as they change the last bits: one for each sitting that
    /// computed in another way than those before; empty in files of earlier versions, and for imported weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arithmetic: Vec<String>,
    /// Version of the program that wrote the file.
    pub advcl_version: String,
}

fn is_default(reading: &Reading) -> bool {
    *reading == Reading::default()
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
        let broken = |error: serde_json::Error| {
            let expected = "a description that this version understands";
            Error::format(path, "metadata advcl", expected, error.to_string())
        };
        // First, since other formats may have other keys.
        let version: Version = serde_json::from_str(text).map_err(broken)?;
        if version.format > MODEL_FORMAT {
            let Version {
                format,
                advcl_version,
            } = version;
            let problem = format!(
                "format {format} of advcl {advcl_version}, and this version reads 1 to {MODEL_FORMAT}"
            );
            return Err(Error::model(
                path,
                problem,
                "use that version, or a newer one",
            ));
        }
        let mut info: Self = serde_json::from_str(text).map_err(broken)?;
        // Data sets have their class names in this form.
        for name in &mut info.classes {
            *name = class_name(name);
        }
        info.require_possible(path)?;
        Ok(info)
    }

    /// Refuses a description of what cannot be a model.
    fn require_possible(&self, path: &Path) -> Result<()> {
        let refuse = |key: &str, expected: String, found: String| {
            let place = format!("metadata advcl, {key}");
            Err(Error::format(path, place, expected, found))
        };
        if self.format == 0 {
            return refuse("format", format!("1 to {MODEL_FORMAT}"), "0".to_owned());
        }
        if self.encoder.width == 0 {
            return refuse("width", "1 or more".to_owned(), "0".to_owned());
        }
        if self.channels != 1 && self.channels != 3 {
            return refuse("channels", "1 or 3".to_owned(), self.channels.to_string());
        }
        if let Some(side) = self.image_size.iter().find(|side| !is_side(**side)) {
            let expected = format!("1 to {MAX_SIDE} pixels");
            return refuse("image_size", expected, side.to_string());
        }
        let count = self.routes.len();
        if count == 0 || Some(&self.routes[..]) != Route::ALL.get(..count) {
            let expected = format!("the first of {:?}", Route::ALL.map(Route::name));
            let names = self.routes.iter().take(4).map(|route| route.name());
            let names: Vec<&str> = names.collect();
            return refuse("routes", expected, format!("{count}: {names:?}"));
        }
        if !self.routes.contains(&self.route) {
            let expected = format!("one of the routes {:?}", self.routes);
            return refuse("route", expected, self.route.name().to_owned());
        }
        let mut clusters = self.clusters.clone();
        clusters.sort_unstable();
        if let Some(0) = clusters.first() {
            return refuse("clusters", "1 or more".to_owned(), "0".to_owned());
        }
        if let Some(pair) = clusters.windows(2).find(|pair| pair[0] == pair[1]) {
            let expected = "different numbers".to_owned();
            return refuse("clusters", expected, format!("{} twice", pair[0]));
        }
        if let Some(normalize) = &self.normalize
            && normalize.channels() != self.channels
        {
            let expected = format!("means for {} channels", self.channels);
            return refuse("normalize", expected, normalize.channels().to_string());
        }
        if !self.projection && self.classes.is_empty() && self.method != IMPORTED {
            let expected = "a projection head or a classifier";
            return Err(Error::format(path, "metadata advcl", expected, "neither"));
        }
        Ok(())
    }

    /// Number of values that the weights must have, saturating.
    fn values(&self) -> usize {
        let routes = self.routes.len();
        let clusters = if self.projection {
            &self.clusters[..]
        } else {
            &[]
        };
        let backbone = Backbone::values(
            &self.encoder,
            self.channels,
            routes,
            self.projection,
            clusters,
        );
        match self.classes.len() {
            0 => backbone,
            classes => backbone.saturating_add(Linear::values(self.encoder.features(), classes)),
        }
    }
}

/// Format of a description and the version that wrote it, whatever else is in it.
#[derive(Deserialize)]
struct Version {
    format: usize,
    #[serde(default)]
    advcl_version: String,
}

/// Whether images of this height or width can be used.
pub(crate) fn is_side(pixels: usize) -> bool {
    (1..=MAX_SIDE).contains(&pixels)
}

/// Refuses weights that are far fewer than the values of the network that is to be built for them, so that
/// no file claims more memory than a few times its own size. (Where one is missing, its name says more.)
///
/// # Errors
/// [`Error::Model`].
pub(crate) fn require_values(expected: usize, tensors: &Tensors, path: &Path) -> Result<()> {
    let found: usize = tensors.values().map(|(_, values)| values.len()).sum();
    if expected / 2 <= found {
        return Ok(());
    }
    let problem = format!("expected {expected} values in the weights, found {found}");
    let hint = "the file belongs to another model: its depth, width or heads are not what it says";
    Err(Error::model(path, problem, hint))
}

/// Refuses weights that cannot be computed with: values that are not finite, variances below zero.
///
/// # Errors
/// [`Error::Format`] naming the first such tensor.
pub(crate) fn require_usable(tensors: &Tensors, path: &Path) -> Result<()> {
    weights::require_finite(tensors, path)?;
    let variances = tensors
        .iter()
        .filter(|(name, _)| name.ends_with("running_var"));
    for (name, (_, values)) in variances {
        if let Some(value) = values.iter().find(|value| **value < 0.0) {
            let (place, expected) = (format!("tensor {name}"), "variances of 0 or more");
            return Err(Error::format(path, place, expected, value.to_string()));
        }
    }
    Ok(())
}

impl Model {
    /// Writes the model file of a run folder.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Diverged`] for weights that are not finite, and nothing is written.
    pub fn save(&self, path: &Path) -> Result<()> {
        files::write_atomic(path, &self.serialize(path, &[])?)
    }

    /// Writes the model file where a user wants it: see [`files::write_output`].
    ///
    /// # Errors
    /// As [`Model::save`].
    pub fn save_output(&self, path: &Path) -> Result<()> {
        files::write_output(path, &self.serialize(path, &[])?)
    }

    /// Content of the file with `more` in its metadata; `path` is for messages.
    ///
    /// # Errors
    /// As [`Model::save`].
    pub(crate) fn serialize(&self, path: &Path, more: &[(&str, String)]) -> Result<Vec<u8>> {
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
        let metadata = [&[(METADATA, info)][..], more].concat();
        weights::serialize(path, &tensors, &metadata)
    }

    /// [`Model::load`] of a model for images of this shape, `[channels, height, width]`; `path` is a [`model_file`].
    ///
    /// # Errors
    /// Those of [`Model::load`] and [`model_file`]; [`Error::Model`] for a model of other images.
    pub fn load_for(
        path: &Path,
        [channels, height, width]: [usize; 3],
        device: &Device,
    ) -> Result<Self> {
        let path = &model_file(path)?;
        let model = Self::load(path, device)?;
        let found = (model.info.channels, model.info.image_size);
        let expected = (channels, [height, width]);
        if found != expected {
            let problem = format!("expected a model of images {expected:?}, found {found:?}");
            let hint = "name a model of images of the same channels and size";
            return Err(Error::model(path, problem, hint));
        }
        Ok(model)
    }

    /// Reads a model file, strictly.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::Model`].
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let (mut tensors, metadata) = weights::load(path)?;
        let info = ModelInfo::parse(path, &metadata)?;
        require_values(info.values(), &tensors, path)?;
        require_usable(&tensors, path)?;
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
                match folder.filter(|run| run.join(RECIPE).exists()) {
                    Some(run) => format!("make one first: advcl finetune --run {}", run.display()),
                    None => format!(
                        "make one of labeled images: advcl init IMAGES --weights {}",
                        path.display()
                    ),
                }
            } else {
                format!("name one: {}", some_of(&below))
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

/// The path of a model file, named itself or as the folder that holds it: of a run, say `runs/quickstart/advcl/slf`.
///
/// # Errors
/// [`Error::Run`] for a folder of several models, such as a run folder.
pub fn model_file(named: &Path) -> Result<PathBuf> {
    if !named.is_dir() {
        return Ok(named.to_path_buf());
    }
    let file = named.join(MODEL);
    let encoders = match file.exists() {
        true => Vec::new(),
        false => models_below(named),
    };
    if encoders.is_empty() {
        return Ok(file);
    }
    let with_classifiers = encoders.into_iter().flat_map(|folder| {
        let below = models_below(&folder);
        std::iter::once(folder).chain(below)
    });
    let all: Vec<PathBuf> = with_classifiers.collect();
    let problem = "this is a run folder, with a folder for each model";
    let hint = format!("name one: {}", some_of(&all));
    Err(Error::run(named, problem, hint))
}

/// Folders in `folder` that have a model, in order of their names.
fn models_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.join(MODEL).exists());
    found.sort();
    found
}

/// Paths in words, a few of them where there are many.
fn some_of(paths: &[PathBuf]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<String> = (paths.iter().take(SHOWN))
        .map(|path| path.display().to_string())
        .collect();
    match paths.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Depth, Stem};

    /// A whole model of random weights, small: its file is changed by the tests.
    fn model() -> Model {
        let device = crate::device::open("cpu").expect("the CPU");
        let encoder = EncoderConfig {
            depth: Depth::D10,
            width: 2,
            stem: Stem::Strided,
        };
        let mut rng = random::generator(0, "test", 0);
        let backbone = Backbone::new(&encoder, 1, 3, &[2, 3], &mut rng, &device);
        let linear = Linear::new(encoder.features(), 2, &mut rng, &device);
        let info = ModelInfo {
            format: MODEL_FORMAT,
            method: "advcl".to_owned(),
            encoder,
            channels: 1,
            image_size: [8, 8],
            classes: vec!["cat".to_owned(), "dog".to_owned()],
            routes: Route::ALL.to_vec(),
            route: Route::Pgd,
            projection: true,
            clusters: vec![2, 3],
            pseudo_labels: None,
            start: None,
            finetuning: None,
            normalize: None,
            recipe: String::new(),
            reading: Reading::default(),
            arithmetic: Vec::new(),
            advcl_version: "0.1.0".to_owned(),
        };
        Model {
            info,
            backbone,
            linear: Some(linear),
        }
    }

    #[test]
    fn weights_that_are_not_finite_are_never_saved() {
        let mut model = model();
        let mut tensors = weights::export(&model.backbone);
        let (_, values) = tensors.get_mut("conv1.weight").expect("a stem");
        values[3] = f32::INFINITY;
        let path = Path::new("test");
        model.backbone = weights::import(model.backbone, &mut tensors, &[], path).expect("its own");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.safetensors");
        let error = model.save(&path).expect_err("not finite").to_string();
        assert_eq!(error, "advcl: conv1.weight is inf at the end of training");
        assert!(!path.exists());
    }

    #[test]
    fn a_description_of_what_cannot_be_a_model_is_refused() {
        use serde_json::{Value, json};
        let device = crate::device::open("cpu").expect("the CPU");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.safetensors");
        model().save(&path).expect("a file");
        Model::load(&path, &device).expect("a model");
        let (tensors, metadata) = weights::load(&path).expect("a file");
        let whole: Value = serde_json::from_str(&metadata[METADATA]).expect("JSON");
        let many: Vec<String> = vec!["class".to_owned(); 100_000];
        let cases: [(&str, Value, &str); 26] = [
            ("width", json!(0), "width: expected 1 or more, found 0"),
            ("width", json!(100), "values in the weights"),
            ("width", json!(1u64 << 40), "values in the weights"),
            ("width", json!(u64::MAX), "values in the weights"),
            ("width", json!(3), ": expected shape [3"),
            ("depth", json!(50), "values in the weights"),
            ("depth", json!(11), "no ResNet of depth 11"),
            ("channels", json!(0), "channels: expected 1 or 3, found 0"),
            (
                "channels",
                json!(1_000_000_000),
                "channels: expected 1 or 3",
            ),
            (
                "image_size",
                json!([0, 8]),
                "expected 1 to 4096 pixels, found 0",
            ),
            (
                "image_size",
                json!([8, 4097]),
                "expected 1 to 4096 pixels, found 4097",
            ),
            (
                "clusters",
                json!([2, 0]),
                "clusters: expected 1 or more, found 0",
            ),
            (
                "clusters",
                json!([3, 2, 3]),
                "expected different numbers, found 3 twice",
            ),
            ("clusters", json!([2, u64::MAX]), "values in the weights"),
            ("clusters", json!([2, 1_000_000]), "values in the weights"),
            ("classes", json!(many), "values in the weights"),
            ("routes", json!([]), "routes: expected the first of"),
            ("routes", json!(["pgd"]), "routes: expected the first of"),
            ("routes", json!(vec!["normal"; 5]), "found 5: "),
            ("routes", json!(["normal"]), "one of the routes"),
            (
                "normalize",
                json!({"mean": [0.5, 0.5], "std": [1, 1]}),
                "for 1 channels, found 2",
            ),
            (
                "normalize",
                json!({"mean": [0.5], "std": [1e-45]}),
                "a deviation of",
            ),
            (
                "normalize",
                json!({"mean": [1e30], "std": [1]}),
                "a mean of",
            ),
            ("format", json!(0), "format: expected 1 to 2, found 0"),
            (
                "format",
                json!(3),
                "format 3 of advcl 0.1.0, and this version reads 1 to 2",
            ),
            (
                "method",
                json!(3),
                "a description that this version understands",
            ),
        ];
        for (key, value, words) in cases {
            let mut info = whole.clone();
            info[key] = value;
            weights::save(&path, &tensors, &[(METADATA, info.to_string())]).expect("a file");
            let error = Model::load(&path, &device).map(drop).expect_err(words);
            assert!(error.to_string().contains(words), "{key}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
        // A later format may have other keys.
        let later = r#"{"format": 9, "advcl_version": "3.1", "encoder": "vit"}"#.to_owned();
        weights::save(&path, &tensors, &[(METADATA, later)]).expect("a file");
        let error = ModelInfo::load(&path).expect_err("a later format");
        assert!(
            error.to_string().contains("format 9 of advcl 3.1"),
            "{error}"
        );
    }

    #[test]
    fn weights_that_cannot_be_computed_with_are_refused_by_name() {
        let device = crate::device::open("cpu").expect("the CPU");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.safetensors");
        let model = model();
        model.save(&path).expect("a file");
        let (whole, metadata) = weights::load(&path).expect("a file");
        let info = [(METADATA, metadata[METADATA].clone())];
        for (name, value) in [
            ("conv1.weight", f32::NAN),
            ("linear.bias", f32::INFINITY),
            ("fc_003.weight", f32::NEG_INFINITY),
            ("bn1.bn_list.1.running_var", -1e-3),
            ("head_proj.1.running_var", f32::NAN),
        ] {
            let mut tensors = whole.clone();
            tensors.get_mut(name).expect("a tensor").1[1] = value;
            weights::save(&path, &tensors, &info).expect("a file");
            let error = Model::load(&path, &device).map(drop).expect_err(name);
            let (error, code) = (error.to_string(), error.exit_code());
            assert!(
                error.contains(&format!("tensor {name}: expected")),
                "{error}"
            );
            assert!(error.ends_with(&format!("found {value}")), "{error}");
            assert_eq!(code, 2);
        }
        // One that is missing is named.
        let mut tensors = whole;
        tensors.remove("layer4.0.conv2.weight");
        weights::save(&path, &tensors, &info).expect("a file");
        let error = Model::load(&path, &device)
            .map(drop)
            .expect_err("not whole");
        assert!(
            error.to_string().contains("layer4.0.conv2.weight"),
            "{error}"
        );
    }
}
