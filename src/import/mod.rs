//! Import of weights from PyTorch: the ResNets that people have become encoders, or classifiers where their last layer
//! is there too. Their features can be clustered, and DeACL can learn from them.

mod extras;
mod file;
mod names;
mod pickle;
mod shape;
mod stored;
mod strange;
mod tree;

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::data::{MAX_SIDE, read_class_names};
use crate::error::{Error, Result};
use crate::nn::{Backbone, Encoder, EncoderConfig, Linear, Normalize, Route, Stem};
use crate::random;
use crate::run::{IMPORTED, Model, ModelInfo, is_side, require_usable, require_values};
use crate::weights::{self, Tensors};

use extras::FoundHead;
use names::Place;
use shape::EncoderShape;
use stored::Weights;

/// Settings that a file of weights does not contain, or may leave open.
#[derive(Clone, Debug)]
pub struct ImportSettings {
    /// First layer where its kernel is 3 × 3, whose stride the weights do not tell.
    pub stem: Stem,
    /// Height and width of the encoder's input images, in pixels; 32 by default, and 224 behind a first layer of 7 × 7.
    pub image_size: Option<[usize; 2]>,
    /// BatchNorm branch to use if there are several; `pgd` by default.
    pub route: Option<Route>,
    /// Mean and standard deviation of each channel with which the images were normalized; those in the file by default.
    pub normalize: Option<Normalize>,
    /// What stands before the names of the encoder's tensors, whole or in part, where the file has several encoders.
    pub prefix: Option<String>,
    /// File of class names, one a line; numbers by default.
    pub classes: Option<PathBuf>,
}

impl ImportSettings {
    /// Settings that leave everything to the file.
    pub fn new(stem: Stem) -> Self {
        Self {
            stem,
            image_size: None,
            route: None,
            normalize: None,
            prefix: None,
            classes: None,
        }
    }
}

/// Imported model, and what was taken and what was not.
pub struct Imported {
    /// The model that can be saved: an encoder, or a classifier.
    pub model: Model,
    /// What stood before the names of the encoder's tensors.
    pub prefix: String,
    /// Names of tensors that were not used: other heads, other encoders, optimizer state, counters.
    pub left_out: Vec<String>,
    /// What the user should know, a sentence each.
    pub notes: Vec<String>,
}

/// Reads a ResNet from a file of weights, in safetensors or PyTorch's own formats (`.pt`, `.pth`, `.ckpt`; no code in it
/// is executed).
///
/// Accepts the names of torchvision, timm, transformers, lightly, solo-learn, MoCo, SimSiam, BYOL, and of the released code
/// of AdvCL, ACL and DynACL, and the numbers of an `nn.Sequential`, below any prefix (`module.`, `state_dict.backbone.`). Derives
/// depth, width, channels and BatchNorm branches from the shapes. Every tensor of the encoder must exist with its shape,
/// and none may be left over. A linear classifier and a normalization in the file are taken too.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a damaged file; [`Error::Model`] for weights of another architecture, for ones
/// that are not finite, and for several encoders of which none is chosen; [`Error::Input`] for an impossible image size.
pub fn import(path: &Path, settings: &ImportSettings, device: &Device) -> Result<Imported> {
    let sides = settings.image_size.iter().flatten();
    if let Some(side) = sides.copied().find(|side| !is_side(*side)) {
        let problem = format!("expected 1 to {MAX_SIDE} pixels, found {side}");
        return Err(Error::input("image size", problem, ""));
    }
    let names = settings.classes.as_deref().map(read_class_names);
    let names = names.transpose()?;
    let mut weights = Weights::open(path)?;
    let mut notes = Vec::new();
    let place = names::choose(&mut weights, settings.prefix.as_deref(), &mut notes)?;
    let shape = EncoderShape::of(&weights, &place, settings.stem)?;
    let (routes, route) = routes(&shape, settings, path)?;
    let normalize = normalization(&mut weights, &place, &shape, settings, &mut notes)?;
    let config = shape.config.clone();
    let usual = match config.stem {
        Stem::Cifar | Stem::Strided => [32; 2],
        Stem::Imagenet => [224; 2],
    };
    let image_size = settings.image_size.unwrap_or(usual);
    let head = head(&weights, &place, &config, names.is_some(), &mut notes);

    let mut used: Vec<String> = Vec::new();
    let mut tensors = Tensors::new();
    for (name, translated) in &shape.tensors {
        let values = weights.values(name)?;
        tensors.insert(
            translated.clone(),
            (weights.tensors[name].shape.clone(), values),
        );
        used.push(name.clone());
    }
    require_values(config.values(shape.channels, shape.routes), &tensors, path)?;
    require_usable(&tensors, path)?;
    // Initial values do not matter: all are replaced.
    let mut rng = random::generator(0, "placeholder", 0);
    let fresh = Encoder::new(&config, shape.channels, shape.routes, &mut rng, device);
    let fresh = fresh.normalized(normalize.as_ref().map(|(normalize, _)| normalize.clone()));
    let encoder = weights::import(fresh, &mut tensors, &[], path)?;
    let mut linear = None;
    if let Some(head) = &head {
        let mut tensors = Tensors::new();
        for (name, own) in head.names.iter().zip(["weight", "bias"]) {
            let values = weights.values(name)?;
            tensors.insert(
                own.to_owned(),
                (weights.tensors[name].shape.clone(), values),
            );
        }
        weights::require_finite(&tensors, path)?;
        let fresh = Linear::new(config.features(), head.classes, &mut rng, device);
        linear = Some(weights::import(fresh, &mut tensors, &[], path)?);
        used.extend(head.names.clone());
    }
    // After the values: a shape alone may claim any number of classes.
    let classes = class_names(names, head.as_ref(), settings, &mut notes, path)?;
    let normalize = normalize.map(|(normalize, names)| {
        used.extend(names);
        normalize
    });
    let used: std::collections::BTreeSet<String> = used.into_iter().collect();
    let left_out = weights.tensors.into_keys();
    let info = ModelInfo {
        format: 1,
        method: IMPORTED.to_owned(),
        encoder: config,
        channels: shape.channels,
        image_size,
        classes,
        routes,
        route,
        projection: false,
        clusters: Vec::new(),
        pseudo_labels: None,
        start: None,
        finetuning: None,
        normalize,
        recipe: format!("# imported from {}\n", path.display()),
        reading: Default::default(),
        arithmetic: Vec::new(),
        advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let model = Model {
        info,
        backbone: Backbone::without_heads(encoder),
        linear,
    };
    Ok(Imported {
        model,
        prefix: place.prefix,
        left_out: left_out.filter(|name| !used.contains(name)).collect(),
        notes,
    })
}

/// BatchNorm branches of the weights, and the one to use.
fn routes(
    shape: &EncoderShape,
    settings: &ImportSettings,
    path: &Path,
) -> Result<(Vec<Route>, Route)> {
    let route = match settings.route {
        Some(route) => route,
        None if shape.routes == 1 => Route::Normal,
        None => Route::Pgd,
    };
    let routes = Route::ALL[..shape.routes].to_vec();
    if routes.contains(&route) {
        return Ok((routes, route));
    }
    let names: Vec<&str> = routes.iter().map(|route| route.name()).collect();
    let problem = format!("no BatchNorm branch {}", route.name());
    let hint = format!("it has {}", names.join(", "));
    Err(Error::model(path, problem, hint))
}

/// The normalization of the images, given or found, with the names of the tensors that it is.
fn normalization(
    weights: &mut Weights,
    place: &Place,
    shape: &EncoderShape,
    settings: &ImportSettings,
    notes: &mut Vec<String>,
) -> Result<Option<(Normalize, Vec<String>)>> {
    if let Some(given) = &settings.normalize {
        let (expected, found) = (shape.channels, given.channels());
        if expected != found {
            let problem =
                format!("mean and standard deviation for {found} channels, weights for {expected}");
            let hint = "give one number per channel";
            return Err(Error::model(&weights.path, problem, hint));
        }
        return Ok(Some((given.clone(), Vec::new())));
    }
    let Some(found) = extras::normalize(weights, place, shape.channels)? else {
        let mut note = "no normalization in the file: images go in as they are, in [0, 1]; if the weights were trained on \
                        normalized ones, say so with --mean and --std"
            .to_owned();
        if shape.config.stem == Stem::Imagenet && shape.channels == 3 {
            note += "; torchvision's and most others of ImageNet were, with --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225";
        }
        notes.push(note);
        return Ok(None);
    };
    let [mean, std] = &found.names;
    let unit = match found.bytes {
        true => ", which are for pixels from 0 to 255, divided by 255",
        false => "",
    };
    notes.push(format!(
        "images are normalized inside the model, by {mean} and {std} of the file{unit}"
    ));
    Ok(Some((found.normalize, found.names.to_vec())))
}

/// The linear classifier, unless it is the projection of self-supervised training; `wanted` says that it is a classifier.
fn head(
    weights: &Weights,
    place: &Place,
    config: &EncoderConfig,
    wanted: bool,
    notes: &mut Vec<String>,
) -> Option<FoundHead> {
    let head = extras::head(weights, place, config.features())?;
    if wanted || !extras::is_projection(weights, place, &head) {
        return Some(head);
    }
    let (name, classes) = (&head.names[0], head.classes);
    notes.push(format!(
        "{name} was left out as a projection of self-supervised training; if it is a classifier of {classes} classes, \
         name them with --classes"
    ));
    None
}

/// The names of the classes: as many as the classifier has.
fn class_names(
    names: Option<Vec<String>>,
    head: Option<&FoundHead>,
    settings: &ImportSettings,
    notes: &mut Vec<String>,
    path: &Path,
) -> Result<Vec<String>> {
    match (names, head) {
        (None, None) => Ok(Vec::new()),
        (Some(names), Some(head)) if names.len() == head.classes => Ok(names),
        (None, Some(head)) => {
            let last = head.classes - 1;
            notes.push(format!(
                "classes are called 0 to {last}, in the order of {}; --classes FILE names them",
                head.names[0]
            ));
            Ok((0..head.classes).map(|class| class.to_string()).collect())
        }
        (Some(names), head) => {
            let file = settings.classes.as_deref().unwrap_or(Path::new(""));
            let found = format!("{} class names in {}", names.len(), file.display());
            let (problem, hint) = match head {
                Some(head) => (
                    format!(
                        "{} has {} classes, and there are {found}",
                        head.names[0], head.classes
                    ),
                    "give one name a line, in the order of the classes",
                ),
                None => (
                    format!("no linear classifier in it, and there are {found}"),
                    "leave --classes out to import the encoder alone",
                ),
            };
            Err(Error::model(path, problem, hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Depth;

    fn refused(path: &Path, image_size: [usize; 2], words: &str) {
        let device = crate::device::open("cpu").expect("the CPU");
        let settings = ImportSettings {
            image_size: Some(image_size),
            ..ImportSettings::new(Stem::Cifar)
        };
        let error = import(path, &settings, &device).map(drop).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.exit_code(), 2, "{error}");
    }

    /// A file of PyTorch before its zip archives, with tensors of these shapes and strides, whose
    /// values are all in one storage of `numel` values.
    fn legacy(tensors: &[(&str, &[u32], &[u32])], numel: u32) -> Vec<u8> {
        let text = |text: &str| {
            let length = (text.len() as u32).to_le_bytes();
            [&b"X"[..], &length, text.as_bytes()].concat()
        };
        let int = |value: u32| [&b"J"[..], &value.to_le_bytes()].concat();
        let tuple = |values: &[u32]| {
            let values = values.iter().flat_map(|value| int(*value));
            [&b"("[..], &values.collect::<Vec<u8>>(), b"t"].concat()
        };
        let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
        file.extend(b"\x80\x02M\xe9\x03.\x80\x02}");
        file.extend([&text("little_endian"), &b"\x88s.\x80\x02}"[..]].concat());
        for (name, shape, strides) in tensors {
            file.extend(text(name));
            file.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            file.extend([text("storage"), b"ctorch\nFloatStorage\n".to_vec()].concat());
            file.extend([text("0"), text("cpu"), int(numel), b"tQ".to_vec()].concat());
            file.extend([int(0), tuple(shape), tuple(strides)].concat());
            file.extend(b"\x89ccollections\nOrderedDict\n)RtRs");
        }
        file.extend([&b".\x80\x02]"[..], &text("0"), b"a."].concat());
        file.extend(u64::from(numel).to_le_bytes());
        file.extend(vec![0; 4 * numel as usize]);
        file
    }

    /// The tensors of a ResNet's beginning, of which the last is of any shape.
    fn with_stage<'a>(last: (&'a str, &'a [u32], &'a [u32]), numel: u32) -> Vec<u8> {
        let stem = (
            "conv1.weight",
            [2, 1, 3, 3].as_slice(),
            [9, 9, 3, 1].as_slice(),
        );
        legacy(&[stem, last], numel)
    }

    #[test]
    fn values_that_are_not_in_a_file_are_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.pt");
        let write = |content: &[u8]| std::fs::write(&path, content).expect("a file");
        const CONV: &str = "layer1.0.conv1.weight";
        // Read as far as its architecture.
        write(&with_stage((CONV, &[2, 2, 3, 3], &[18, 9, 3, 1]), 36));
        refused(&path, [8, 8], "no BatchNorm after the first layer");
        let tensor = |name: &str, shape: &[u32], strides: &[u32], numel| {
            write(&with_stage((name, shape, strides), numel));
            let mut weights = Weights::open(&path).expect("its tensors are found");
            weights.values(name)
        };
        let values = tensor(CONV, &[2, 2, 1, 1], &[1, 2, 1, 1], 36).expect("they are there");
        assert_eq!(values, [0.0; 4]);
        let refused = |shape: &[u32], strides: &[u32], words: &str| {
            let error = tensor(CONV, shape, strides, 9)
                .expect_err(words)
                .to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(
            &[1 << 20, 1, 3, 3],
            &[0, 0, 3, 1],
            "expected values that are in the file of",
        );
        refused(
            &[2, 2, 3, 3],
            &[18, 9, 3, 1],
            "its last value behind the 36 bytes",
        );
        refused(
            &[2, 2, 1, 1],
            &[u32::MAX >> 1, 1, 1, 1],
            "its last value behind the 36 bytes",
        );
        // Each fits, and all of them do not.
        let names: Vec<String> = (0..100).map(|i| format!("x{i}")).collect();
        let shared: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), [16, 100].as_slice(), [0, 1].as_slice()))
            .collect();
        write(&legacy(&shared, 100));
        let mut weights = Weights::open(&path).expect("its tensors are found");
        let all: Result<Vec<_>> = names.iter().map(|name| weights.values(name)).collect();
        let error = all.expect_err("too many").to_string();
        assert!(
            error.contains("bytes with the tensors before it"),
            "{error}"
        );
    }

    /// Tensors of an encoder of width 2 for gray images.
    fn small_encoder() -> Tensors {
        let device = crate::device::open("cpu").expect("the CPU");
        let config = EncoderConfig {
            depth: Depth::D10,
            width: 2,
            stem: Stem::Cifar,
        };
        let mut rng = random::generator(0, "test", 0);
        weights::export(&Encoder::new(&config, 1, 1, &mut rng, &device))
    }

    #[test]
    fn classes_are_counted_by_their_values() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.pt");
        let device = crate::device::open("cpu").expect("the CPU");
        let mut shapes: Vec<(String, Vec<u32>)> = small_encoder()
            .into_iter()
            .map(|(name, (shape, _))| (name, shape.into_iter().map(|side| side as u32).collect()))
            .collect();
        shapes.push(("fc.weight".to_owned(), vec![1 << 20, 16]));
        shapes.push(("fc.bias".to_owned(), vec![1 << 20]));
        // All values of a tensor are one in the file.
        let strides = [0; 4];
        let tensors: Vec<(&str, &[u32], &[u32])> = shapes
            .iter()
            .map(|(name, shape)| (name.as_str(), &shape[..], &strides[..shape.len()]))
            .collect();
        std::fs::write(&path, legacy(&tensors, 8192)).expect("a file");
        let names = folder.path().join("names.txt");
        std::fs::write(&names, "cat\ndog\n").expect("a file");
        // Neither are names made nor compared before the values are there.
        for classes in [None, Some(names)] {
            let settings = ImportSettings {
                classes,
                ..ImportSettings::new(Stem::Cifar)
            };
            let error = import(&path, &settings, &device).map(drop);
            let error = error.expect_err("no values").to_string();
            let words = "tensor fc.weight: expected values that are in the file of";
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn safetensors_are_told_by_their_structure() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.safetensors");
        let values = [0u8; 4];
        let view =
            |shape| safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &values);
        // Headers whose lengths begin as a pickle and as an archive do.
        for start in [&b"\x80"[..], b"PK"] {
            let found = (0..1 << 15).find_map(|length| {
                let metadata = [("note".to_owned(), "x".repeat(length))].into();
                let tensor = view(vec![1]).expect("four bytes");
                let content = safetensors::serialize([("mu", tensor)], Some(metadata));
                let content = content.expect("a tensor");
                content.starts_with(start).then_some(content)
            });
            let content = found.expect("a header of that length");
            std::fs::write(&path, content).expect("a file");
            let weights = Weights::open(&path).expect("safetensors");
            assert_eq!(weights.tensors.keys().collect::<Vec<_>>(), ["mu"]);
        }
    }

    #[test]
    fn damaged_files_of_pytorch_never_panic() {
        let device = crate::device::open("cpu").expect("the CPU");
        let settings = ImportSettings::new(Stem::Cifar);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.pt");
        let whole = legacy(&[("conv1.weight", &[2, 1, 3, 3], &[9, 9, 3, 1])], 18);
        for at in 0..whole.len() {
            for value in [0, 0x2e, 0xff, whole[at] ^ 1] {
                let mut content = whole.clone();
                content[at] = value;
                std::fs::write(&path, content).expect("a file");
                let _ = import(&path, &settings, &device);
            }
            std::fs::write(&path, &whole[..at]).expect("a file");
            assert!(import(&path, &settings, &device).is_err(), "{at}");
        }
        // Lists inside each other, deeper than any stack.
        let mut deep = b"\x80\x02".to_vec();
        deep.extend(vec![b']'; 1 << 20]);
        deep.extend(vec![b'a'; 1 << 20]);
        deep.push(b'.');
        std::fs::write(&path, deep).expect("a file");
        refused(&path, [8, 8], "a pickle that torch.save did not write");
    }

    #[test]
    fn a_wide_first_layer_and_impossible_sizes_build_no_network() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.safetensors");
        let whole = small_encoder();
        let save = |tensors: &Tensors| weights::save(&path, tensors, &[]).expect("a file");
        let empty = whole.iter().map(|(name, (shape, _))| {
            let widths = if name == "conv1.weight" { 1 } else { 2 };
            let mut shape = shape.clone();
            shape.iter_mut().take(widths).for_each(|side| *side = 0);
            (name.clone(), (shape, Vec::new()))
        });
        let mut empty: Tensors = empty.collect();
        for with_head in [false, true] {
            if with_head {
                empty.insert("fc.weight".to_owned(), (vec![2, 0], Vec::new()));
                empty.insert("fc.bias".to_owned(), (vec![2], vec![0.5; 2]));
            }
            save(&empty);
            refused(&path, [8, 8], "the first layer has 0 output channels");
        }
        let mut wide = whole.clone();
        wide.insert(
            "conv1.weight".to_owned(),
            (vec![2000, 1, 3, 3], vec![0.5; 18_000]),
        );
        save(&wide);
        refused(&path, [8, 8], "values in the weights, found");
        let mut broken = whole.clone();
        broken
            .get_mut("bn1.bn_list.0.running_var")
            .expect("a norm")
            .1[0] = -1.0;
        save(&broken);
        refused(
            &path,
            [8, 8],
            "tensor bn1.bn_list.0.running_var: expected variances of 0 or more, found -1",
        );
        save(&whole);
        for size in [[0, 8], [8, 4097], [usize::MAX, 1]] {
            refused(&path, size, "expected 1 to 4096 pixels, found");
        }
    }
}
