//! Architecture of an encoder, derived from the names and shapes of its tensors.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{Place, of_place};
use super::stored::Weights;
use crate::error::{Error, Result};
use crate::nn::{Depth, EncoderConfig, Route, Stem};

/// An encoder's architecture, and its tensors.
pub struct EncoderShape {
    /// Depth, width and stem.
    pub config: EncoderConfig,
    /// Of the images.
    pub channels: usize,
    /// Number of BatchNorm branches.
    pub routes: usize,
    /// Names here by the names in the file.
    pub tensors: BTreeMap<String, String>,
}

/// Ends of the names of tensors that a network is made of.
const PARAMETERS: [&str; 4] = [".weight", ".bias", ".running_mean", ".running_var"];

impl EncoderShape {
    /// Derives the architecture of the encoder at a place; `stem` is the one to take for a kernel of 3 × 3. One of 7 × 7
    /// is followed by maxima, as in torchvision.
    ///
    /// # Errors
    /// [`Error::Model`] for another architecture.
    pub fn of(weights: &Weights, place: &Place, stem: Stem) -> Result<Self> {
        let refuse = |problem: String, hint: &str| Err(Error::model(&weights.path, problem, hint));
        let mut tensors = BTreeMap::new();
        let mut shapes: BTreeMap<String, &[usize]> = BTreeMap::new();
        for (name, translated) in of_place(place, &weights.tensors) {
            let tensor = &weights.tensors[name];
            // Masks and the like.
            if !tensor.is_float() && !PARAMETERS.iter().any(|end| translated.ends_with(end)) {
                continue;
            }
            if shapes.insert(translated.clone(), &tensor.shape).is_some() {
                return refuse(
                    format!("two tensors {translated} below {:?}", place.prefix),
                    "",
                );
            }
            tensors.insert(name.to_owned(), translated);
        }
        let &[width, channels, height, across] = shapes["conv1.weight"] else {
            unreachable!("only a tensor of four dimensions is taken for the stem")
        };
        let stem = match (height, across) {
            (3, 3) => stem,
            (7, 7) => Stem::Imagenet,
            _ => {
                let problem = format!(
                    "the first layer has a kernel of {height} × {across}, expected 3 × 3 or 7 × 7"
                );
                return refuse(problem, "");
            }
        };
        if width == 0 {
            let problem = "the first layer has 0 output channels, expected 1 or more".to_owned();
            return refuse(problem, "");
        }
        if channels != 1 && channels != 3 {
            let problem = format!("the first layer is for {channels} channels, expected 1 or 3");
            return refuse(problem, "");
        }
        if let Some((problem, hint)) = another_network(&shapes) {
            return refuse(problem, hint);
        }
        let below = |prefix: &str| -> usize {
            let names = shapes.keys().filter_map(|name| name.strip_prefix(prefix));
            let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
            names.map(first).collect::<BTreeSet<_>>().len()
        };
        let blocks = [1, 2, 3, 4].map(|stage| below(&format!("layer{stage}.")));
        let bottleneck = shapes.contains_key("layer1.0.conv3.weight");
        let depth = match (blocks, bottleneck) {
            ([1, 1, 1, 1], false) => Depth::D10,
            ([2, 2, 2, 2], false) => Depth::D18,
            ([3, 4, 6, 3], false) => Depth::D34,
            ([3, 4, 6, 3], true) => Depth::D50,
            _ => {
                let kind = if bottleneck { "bottleneck" } else { "basic" };
                let name = match (blocks, bottleneck) {
                    ([3, 4, 23, 3], true) => "a ResNet-101: ",
                    ([3, 8, 36, 3], true) => "a ResNet-152: ",
                    _ => "",
                };
                let problem = format!("{name}its stages have {blocks:?} {kind} blocks");
                return refuse(problem, "expected a ResNet-10, 18, 34 or 50");
            }
        };
        let routes = below("bn1.bn_list.");
        if !(1..=Route::ALL.len()).contains(&routes) {
            let problem = format!("it has {routes} BatchNorm branches, expected 1 to 3");
            return refuse(problem, "");
        }
        Ok(Self {
            config: EncoderConfig { depth, width, stem },
            channels,
            routes,
            tensors,
        })
    }
}

/// A relative of the ResNets here, by its tensors: what it is and what to do.
fn another_network(shapes: &BTreeMap<String, &[usize]>) -> Option<(String, &'static str)> {
    const ONLY: &str =
        "expected a ResNet whose convolutions are followed by BatchNorm, as in torchvision";
    let has = |start: &str| shapes.keys().any(|name| name.starts_with(start));
    if !has("bn1.") {
        let what = match has("layer1.0.bn1.") {
            true => {
                "a PreActResNet: its blocks begin with BatchNorm, and none follows the first layer"
            }
            false => "no BatchNorm after the first layer",
        };
        return Some((what.to_owned(), ONLY));
    }
    if !shapes.keys().any(|name| name.ends_with(".running_mean")) {
        return Some((
            "no running means and variances of BatchNorm: a file of parameters alone, or a network without BatchNorm"
                .to_owned(),
            "in PyTorch: torch.save(model.state_dict(), \"weights.pt\"), which has them",
        ));
    }
    let first = shapes.get("layer1.0.conv1.weight")?.first()?;
    let inner = shapes.get("layer1.0.conv2.weight")?.get(1)?;
    if inner < first {
        let groups = first / (*inner).max(1);
        return Some((format!("a ResNeXt: convolutions in {groups} groups"), ONLY));
    }
    let stem = shapes.get("conv1.weight")?.first()?;
    if first != stem && shapes.contains_key("layer1.0.conv3.weight") {
        let problem =
            format!("a wide ResNet: blocks of {first} channels after a first layer of {stem}");
        return Some((
            problem,
            "expected as many channels in the first blocks as in the first layer",
        ));
    }
    let squeeze = shapes.keys().find(|name| name.contains(".se."));
    squeeze.map(|name| (format!("an SE-ResNet: it has {name}"), ONLY))
}
