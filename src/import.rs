//! Import of weights from PyTorch: state dicts of ResNets for small images become encoders, whose
//! features can be clustered and from which DeACL can learn.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use burn::tensor::Device;
use pytorch_reader::{DType, PytorchReader};

use crate::data::MAX_SIDE;
use crate::error::{Error, Result};
use crate::files;
use crate::nn::{Backbone, Depth, Encoder, EncoderConfig, Normalize, Route, Stem};
use crate::random;
use crate::run::{IMPORTED, Model, ModelInfo, is_side, require_usable, require_values};
use crate::weights::{self, Tensors};

/// Settings that a file of weights does not contain.
#[derive(Clone, Debug)]
pub struct ImportSettings {
    /// First layer, which decides its stride.
    pub stem: Stem,
    /// Height and width of the encoder's input images, in pixels.
    pub image_size: [usize; 2],
    /// BatchNorm branch to use if there are several; `pgd` by default.
    pub route: Option<Route>,
    /// Mean and standard deviation of each channel with which the images were normalized.
    pub normalize: Option<Normalize>,
}

/// Imported encoder, and the names of the tensors that were not used.
pub struct Imported {
    /// The encoder as a model that can be saved.
    pub model: Model,
    /// Names of tensors that do not belong to the encoder: heads, optimizer state, counters.
    pub left_out: Vec<String>,
}

/// Reads a ResNet encoder from a state dict, in safetensors or PyTorch's own format (`.pt`, `.pth`;
/// no code in it is executed).
///
/// Accepts the names of torchvision, timm, solo-learn, and of the released code of AdvCL, ACL and
/// DynACL, below any common prefix (`module.`, `state_dict.backbone.`). Derives depth, width,
/// channels and BatchNorm branches from the shapes. Every tensor of the encoder must exist with its
/// shape, and none may be left over.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for another file format; [`Error::Model`] for weights of
/// another architecture, and for ones that are not finite; [`Error::Input`] for an impossible image size.
pub fn import(path: &Path, settings: &ImportSettings, device: &Device) -> Result<Imported> {
    if let Some(side) = settings.image_size.iter().find(|side| !is_side(**side)) {
        let problem = format!("expected 1 to {MAX_SIDE} pixels, found {side}");
        return Err(Error::input("image size", problem, ""));
    }
    let (tensors, left_out) = encoder_tensors(read(path)?, path)?;
    let shape = EncoderShape::of(&tensors, path)?;
    let route = match settings.route {
        Some(route) => route,
        None if shape.routes == 1 => Route::Normal,
        None => Route::Pgd,
    };
    let routes = Route::ALL[..shape.routes].to_vec();
    if !routes.contains(&route) {
        let names: Vec<&str> = routes.iter().map(|route| route.name()).collect();
        let problem = format!("no BatchNorm branch {}", route.name());
        let hint = format!("it has {}", names.join(", "));
        return Err(Error::model(path, problem, hint));
    }
    if let Some(normalize) = &settings.normalize {
        let (expected, found) = (shape.channels, normalize.channels());
        if expected != found {
            let problem =
                format!("mean and standard deviation for {found} channels, weights for {expected}");
            return Err(Error::model(path, problem, "give one number per channel"));
        }
    }
    let config = EncoderConfig {
        depth: shape.depth,
        width: shape.width,
        stem: settings.stem,
    };
    require_values(config.values(shape.channels, shape.routes), &tensors, path)?;
    require_usable(&tensors, path)?;
    // Initial values do not matter: all are replaced.
    let mut rng = random::generator(0, "placeholder", 0);
    let fresh = Encoder::new(&config, shape.channels, shape.routes, &mut rng, device);
    let fresh = fresh.normalized(settings.normalize.clone());
    let mut tensors = tensors;
    let encoder = weights::import(fresh, &mut tensors, &[], path)?;
    let info = ModelInfo {
        format: 1,
        method: IMPORTED.to_owned(),
        encoder: config,
        channels: shape.channels,
        image_size: settings.image_size,
        classes: Vec::new(),
        routes,
        route,
        projection: false,
        clusters: Vec::new(),
        pseudo_labels: None,
        finetuning: None,
        normalize: settings.normalize.clone(),
        recipe: format!("# imported from {}\n", path.display()),
        reading: Default::default(),
        arithmetic: Vec::new(),
        advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let model = Model {
        info,
        backbone: Backbone::without_heads(encoder),
        linear: None,
    };
    Ok(Imported { model, left_out })
}

/// How many times its own size the tensors of a file may have together: several may share their values.
const MAX_SHARED: u64 = 4;

/// Reads all tensors of a file.
fn read(path: &Path) -> Result<Tensors> {
    let file = files::open(path)?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let mut start = Vec::new();
    file.take(9)
        .read_to_end(&mut start)
        .map_err(Error::io("read", path))?;
    // PyTorch writes zip archives or pickles; safetensors begins with a length, and then JSON.
    let pytorch = start.starts_with(b"PK") || start.starts_with(&[0x80]);
    if !pytorch || start.get(8) == Some(&b'{') {
        return Ok(weights::load(path)?.0);
    }
    let broken = |place: &str, found: String| {
        Error::format(path, place, "a state dict that PyTorch saved", found)
    };
    let file = PytorchReader::new(path).map_err(|error| broken("file", error.to_string()))?;
    // A tensor may repeat one value as often as it says (`expand`).
    let mut all = 0u64;
    for (name, tensor) in file.tensors() {
        let bytes = tensor.byte_len() as u64;
        all = all.saturating_add(bytes);
        if bytes > length || all > length.saturating_mul(MAX_SHARED) {
            let place = format!("tensor {name}");
            let expected = format!("values that are in the file of {length} bytes");
            let found = match bytes > length {
                true => format!("{bytes} bytes"),
                false => format!("{all} bytes with the tensors before it"),
            };
            return Err(Error::format(path, place, expected, found));
        }
    }
    let mut tensors = Tensors::new();
    for (name, tensor) in file.into_tensors() {
        let place = format!("tensor {name}");
        let bytes = tensor
            .read()
            .map_err(|error| broken(&place, error.to_string()))?;
        let values = match tensor.dtype() {
            DType::F32 => weights::chunks(&bytes, f32::from_le_bytes),
            DType::F64 => weights::chunks(&bytes, |b| f64::from_le_bytes(b) as f32),
            DType::I64 => weights::chunks(&bytes, |b| i64::from_le_bytes(b) as f32),
            other => {
                let found = format!("{other:?}");
                return Err(Error::format(path, place, "F32, F64 or I64", found));
            }
        };
        tensors.insert(name, (tensor.shape().to_vec(), values));
    }
    Ok(tensors)
}

/// Separates the encoder's tensors, under their names here, from the names of all other tensors.
fn encoder_tensors(all: Tensors, path: &Path) -> Result<(Tensors, Vec<String>)> {
    const STEM: &str = "conv1.weight";
    // Blocks have a conv1 too, with longer names; the shortest is the stem's.
    let stems = all.iter().filter(|(name, (shape, _))| {
        let before = name.strip_suffix(STEM);
        shape.len() == 4 && before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    });
    let Some((stem, _)) = stems.min_by_key(|(name, _)| name.len()) else {
        let names: Vec<&str> = all.keys().take(5).map(String::as_str).collect();
        let problem = format!(
            "no tensor conv1.weight among {}: {}",
            all.len(),
            names.join(", ")
        );
        let hint = "expected the state dict of a ResNet with the names of torchvision or of AdvCL's released code";
        return Err(Error::model(path, problem, hint));
    };
    let prefix = stem[..stem.len() - STEM.len()].to_owned();
    let (mut own, mut left_out) = (Tensors::new(), Vec::new());
    for (name, tensor) in all {
        let translated = name
            .strip_prefix(&prefix)
            .filter(|name| is_part(name) && !name.ends_with("num_batches_tracked"))
            .map(translated_name);
        match translated {
            Some(name) => drop(own.insert(name, tensor)),
            None => left_out.push(name),
        }
    }
    Ok((own, left_out))
}

/// Whether a name without its prefix belongs to an encoder.
fn is_part(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    let stage = first.strip_prefix("layer");
    first == "conv1" || first == "bn1" || stage.is_some_and(|n| n.parse::<usize>().is_ok())
}

/// Translates a tensor's name. Elsewhere a shortcut is a `Sequential` of convolution (0) and
/// BatchNorm (1), and a single BatchNorm is not a list.
fn translated_name(name: &str) -> String {
    let mut parts: Vec<&str> = name.split('.').collect();
    if let Some(at) = parts
        .iter()
        .position(|part| matches!(*part, "downsample" | "shortcut"))
    {
        parts[at] = "downsample";
        match parts.get(at + 1) {
            Some(&"0") => parts[at + 1] = "conv",
            Some(&"1") => parts[at + 1] = "bn",
            _ => {}
        }
    }
    let norm = parts.len().checked_sub(2).map(|at| parts[at]);
    if norm.is_some_and(|part| part.starts_with("bn")) {
        parts.splice(parts.len() - 1..parts.len() - 1, ["bn_list", "0"]);
    }
    parts.join(".")
}

/// Architecture of an encoder, derived from the shapes of its tensors.
struct EncoderShape {
    depth: Depth,
    width: usize,
    channels: usize,
    routes: usize,
}

impl EncoderShape {
    /// Derives the architecture.
    fn of(tensors: &Tensors, path: &Path) -> Result<Self> {
        let (stem, _) = &tensors["conv1.weight"];
        let &[width, channels, height, across] = stem.as_slice() else {
            unreachable!("only a tensor of four dimensions is taken for the stem")
        };
        if (height, across) != (3, 3) {
            let problem =
                format!("the first layer has a kernel of {height} × {across}, expected 3 × 3");
            let hint =
                "encoders here are ResNets for small images, which begin with a kernel of 3 × 3";
            return Err(Error::model(path, problem, hint));
        }
        if channels != 1 && channels != 3 {
            let problem = format!("the first layer is for {channels} channels, expected 1 or 3");
            return Err(Error::model(path, problem, ""));
        }
        let below = |prefix: &str| -> usize {
            let names = tensors.keys().filter_map(|name| name.strip_prefix(prefix));
            let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
            names.map(first).collect::<BTreeSet<_>>().len()
        };
        let blocks = [1, 2, 3, 4].map(|stage| below(&format!("layer{stage}.")));
        let bottleneck = tensors.contains_key("layer1.0.conv3.weight");
        let depth = match (blocks, bottleneck) {
            ([1, 1, 1, 1], false) => Depth::D10,
            ([2, 2, 2, 2], false) => Depth::D18,
            ([3, 4, 6, 3], false) => Depth::D34,
            ([3, 4, 6, 3], true) => Depth::D50,
            _ => {
                let kind = if bottleneck { "bottleneck" } else { "basic" };
                let problem = format!("its stages have {blocks:?} {kind} blocks");
                let hint = "expected a ResNet-10, 18, 34 or 50";
                return Err(Error::model(path, problem, hint));
            }
        };
        let routes = below("bn1.bn_list.");
        if !(1..=Route::ALL.len()).contains(&routes) {
            let problem = format!("it has {routes} BatchNorm branches, expected 1 to 3");
            return Err(Error::model(path, problem, ""));
        }
        Ok(Self {
            depth,
            width,
            channels,
            routes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_programs_are_translated() {
        for (name, translated) in [
            ("bn1.running_mean", "bn1.bn_list.0.running_mean"),
            ("bn1.bn_list.2.weight", "bn1.bn_list.2.weight"),
            (
                "layer2.0.downsample.0.weight",
                "layer2.0.downsample.conv.weight",
            ),
            (
                "layer2.0.shortcut.1.bias",
                "layer2.0.downsample.bn.bn_list.0.bias",
            ),
            (
                "layer2.0.downsample.bn.bn_list.1.bias",
                "layer2.0.downsample.bn.bn_list.1.bias",
            ),
            ("layer1.1.conv2.weight", "layer1.1.conv2.weight"),
        ] {
            assert_eq!(translated_name(name), translated);
        }
    }

    fn refused(path: &Path, image_size: [usize; 2], words: &str) {
        let device = crate::device::open("cpu").expect("the CPU");
        let settings = ImportSettings {
            stem: Stem::Cifar,
            image_size,
            route: None,
            normalize: None,
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

    #[test]
    fn values_that_are_not_in_a_file_are_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.pt");
        let write = |content: &[u8]| std::fs::write(&path, content).expect("a file");
        // Read as far as its architecture.
        write(&legacy(
            &[("conv1.weight", &[2, 1, 3, 3], &[9, 9, 3, 1])],
            18,
        ));
        refused(&path, [8, 8], "its stages have [0, 0, 0, 0] basic blocks");
        write(&legacy(
            &[("conv1.weight", &[1 << 20, 1, 3, 3], &[0, 0, 3, 1])],
            9,
        ));
        refused(
            &path,
            [8, 8],
            "tensor conv1.weight: expected values that are in the file of",
        );
        let names: Vec<String> = (0..100).map(|i| format!("x{i}")).collect();
        let shape = ([16, 100].as_slice(), [0, 1].as_slice());
        let shared: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), shape.0, shape.1))
            .collect();
        write(&legacy(&shared, 100));
        refused(&path, [8, 8], "bytes with the tensors before it");
    }

    #[test]
    fn damaged_files_of_pytorch_never_panic() {
        let device = crate::device::open("cpu").expect("the CPU");
        let settings = ImportSettings {
            stem: Stem::Cifar,
            image_size: [8, 8],
            route: None,
            normalize: None,
        };
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
        refused(&path, [8, 8], "expected a state dict that PyTorch saved");
    }

    #[test]
    fn a_wide_first_layer_and_impossible_sizes_build_no_network() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weights.safetensors");
        let device = crate::device::open("cpu").expect("the CPU");
        let config = EncoderConfig {
            depth: Depth::D10,
            width: 2,
            stem: Stem::Cifar,
        };
        let mut rng = random::generator(0, "test", 0);
        let encoder = Encoder::new(&config, 1, 1, &mut rng, &device);
        let whole = weights::export(&encoder);
        let save = |tensors: &Tensors| weights::save(&path, tensors, &[]).expect("a file");
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
