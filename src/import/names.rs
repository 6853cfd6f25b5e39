//! Encoders among the tensors of a file: where they are, which one is meant, and their tensors' names here.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::stored::{Stored, Weights};
use super::strange;
use crate::error::{Error, Result};

/// Most encoders that are compared with each other, and named in a message.
const MAX_COMPARED: usize = 16;

/// Parts of names that programs put around a module without changing it.
const WRAPPERS: [&str; 4] = [
    "_orig_mod",
    "module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// Words in the names of encoders that follow another one: of keys, targets and averages.
const FOLLOWERS: [&str; 9] = [
    "k", "key", "target", "teacher", "momentum", "ema", "swa", "averaged", "shadow",
];

/// Words in the names of encoders that were trained without labels.
const SELF_SUPERVISED: [&str; 6] = ["q", "query", "online", "student", "k", "target"];

/// Naming of an encoder's tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// `conv1`, `bn1`, `layer1`.
    Named,
    /// Numbers of an `nn.Sequential`: 0, 1, and the stages from this one on.
    Sequence(usize),
    /// `embedder.embedder`, `encoder.stages.0`, as in Hugging Face's transformers.
    Transformers,
}

/// An encoder in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// What stands before its tensors' names: `state_dict.module.`, or nothing.
    pub prefix: String,
    form: Form,
}

impl Place {
    /// The name here of one of its tensors; none for any other tensor.
    pub fn translate(&self, name: &str) -> Option<String> {
        let rest = name.strip_prefix(&self.prefix)?;
        let mut parts = rest.split('.').filter(|part| !WRAPPERS.contains(part));
        if self.form == Form::Transformers {
            return of_transformers(&parts.collect::<Vec<_>>());
        }
        let first = parts.next()?;
        let own;
        let first = match self.form {
            Form::Named | Form::Transformers => first,
            Form::Sequence(stage) => match first.parse::<usize>().ok()? {
                0 => "conv1",
                1 => "bn1",
                number if (stage..stage + 4).contains(&number) => {
                    own = format!("layer{}", number - stage + 1);
                    &own
                }
                _ => return None,
            },
        };
        let stage = first.strip_prefix("layer");
        let is_part =
            first == "conv1" || first == "bn1" || stage.is_some_and(|n| n.parse::<usize>().is_ok());
        is_part.then(|| translated([first].into_iter().chain(parts).collect()))
    }

    /// Words of its prefix.
    fn words(&self) -> impl Iterator<Item = String> {
        let words = self.prefix.split(|c: char| !c.is_alphanumeric());
        words.map(str::to_lowercase)
    }

    fn follows(&self) -> bool {
        self.words().any(|word| FOLLOWERS.contains(&word.as_str()))
    }

    /// Whether its name says that it was trained without labels.
    pub fn is_self_supervised(&self) -> bool {
        self.words()
            .any(|word| SELF_SUPERVISED.contains(&word.as_str()))
    }

    /// Number after the last stage in an `nn.Sequential`.
    pub fn after(&self) -> Option<usize> {
        match self.form {
            Form::Named | Form::Transformers => None,
            Form::Sequence(stage) => Some(stage + 4),
        }
    }
}

/// Translates the parts of a tensor's name in transformers; none for a tensor outside of the encoder.
fn of_transformers(parts: &[&str]) -> Option<String> {
    let (block, convolution, norm, rest) = match parts {
        ["embedder", "embedder", rest @ ..] => (None, "conv1".to_owned(), "bn1".to_owned(), rest),
        ["encoder", "stages", stage, "layers", block, rest @ ..] => {
            let block = format!(
                "layer{}.{block}",
                stage.parse::<usize>().ok()?.checked_add(1)?
            );
            match rest {
                ["shortcut", rest @ ..] => (
                    Some(block),
                    "downsample.0".to_owned(),
                    "downsample.1".to_owned(),
                    rest,
                ),
                ["layer", number, rest @ ..] => {
                    let number = number.parse::<usize>().ok()?.checked_add(1)?;
                    (
                        Some(block),
                        format!("conv{number}"),
                        format!("bn{number}"),
                        rest,
                    )
                }
                _ => return None,
            }
        }
        _ => return None,
    };
    let (module, last) = match rest {
        ["convolution", last] => (convolution, last),
        ["normalization", last] => (norm, last),
        _ => return None,
    };
    let name = block.map_or(module.clone(), |block| format!("{block}.{module}"));
    Some(translated(name.split('.').chain([*last]).collect()))
}

/// Translates the parts of a tensor's name. Elsewhere a shortcut is a `Sequential` of convolution (0) and BatchNorm (1),
/// and a single BatchNorm is not a list.
fn translated(mut parts: Vec<&str>) -> String {
    let shortcut = |part: &&str| matches!(*part, "downsample" | "shortcut");
    if let Some(at) = parts.iter().position(shortcut) {
        parts[at] = "downsample";
        match parts.get(at + 1) {
            Some(&"0") => parts[at + 1] = "conv",
            Some(&"1") => parts[at + 1] = "bn",
            _ => {}
        }
    }
    let norm = parts.len().checked_sub(2).map(|at| parts[at]);
    if norm.is_some_and(|part| part.starts_with("bn") && part != "bn_list") {
        parts.splice(parts.len() - 1..parts.len() - 1, ["bn_list", "0"]);
    }
    parts.join(".")
}

/// All encoders of a file.
pub fn places(tensors: &BTreeMap<String, Stored>) -> Vec<Place> {
    let stems = tensors.iter().filter(|(_, stem)| stem.shape.len() == 4);
    let mut found: Vec<Place> = stems
        .filter_map(|(name, _)| {
            let (name, mut last) = name.strip_suffix(".weight")?.rsplit_once('.').map_or_else(
                || {
                    (
                        String::new(),
                        name.strip_suffix(".weight").unwrap_or_default(),
                    )
                },
                |(before, last)| (format!("{before}."), last),
            );
            let mut prefix = name.as_str();
            while WRAPPERS.contains(&last) {
                let before = prefix.strip_suffix('.')?;
                let at = before.rfind('.').map_or(0, |at| at + 1);
                (prefix, last) = (&before[..at], &before[at..]);
            }
            let forms: &[Form] = match last {
                "conv1" => &[Form::Named],
                "0" => &[Form::Sequence(2), Form::Sequence(3), Form::Sequence(4)],
                "convolution" => {
                    prefix = prefix.strip_suffix("embedder.embedder.")?;
                    &[Form::Transformers]
                }
                _ => return None,
            };
            let place = |form: &Form| Place {
                prefix: prefix.to_owned(),
                form: *form,
            };
            forms
                .iter()
                .map(place)
                .find(|place| has_stages(place, tensors))
        })
        .collect();
    found.sort_by(|a, b| (a.prefix.len(), &a.prefix).cmp(&(b.prefix.len(), &b.prefix)));
    found
}

/// Whether a first stage follows the first layer.
fn has_stages(place: &Place, tensors: &BTreeMap<String, Stored>) -> bool {
    let stage = match place.form {
        Form::Named => format!("{}layer1.", place.prefix),
        Form::Sequence(stage) => format!("{}{stage}.", place.prefix),
        Form::Transformers => format!("{}encoder.stages.0.", place.prefix),
    };
    let from = (Bound::Included(stage.as_str()), Bound::Unbounded);
    let below = tensors.range::<str, _>(from);
    let mut below = below
        .take_while(|(name, _)| name.starts_with(&stage))
        .take(64);
    below.any(|(name, _)| {
        place
            .translate(name)
            .is_some_and(|name| name == "layer1.0.conv1.weight")
    })
}

/// Chooses the encoder that is meant: by `given`, a prefix; by the names, where one follows the other (a momentum
/// encoder, an average). Says in `notes` what was left.
///
/// # Errors
/// [`Error::Model`] for a file without an encoder, a prefix that none has, and several encoders with names that do not
/// say which one is meant.
pub fn choose(
    weights: &mut Weights,
    given: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<Place> {
    let mut all = places(&weights.tensors);
    if all.is_empty() {
        let (what, hint) = strange::network(weights.tensors.keys().map(String::as_str));
        return Err(Error::model(&weights.path, what, hint));
    }
    if let Some(given) = given {
        return by_prefix(&all, given, weights);
    }
    let leading: Vec<Place> = all
        .iter()
        .filter(|place| !place.follows())
        .cloned()
        .collect();
    let mut rest = match leading.is_empty() {
        true => all.clone(),
        false => leading,
    };
    let chosen = rest.remove(0);
    // The same one under two names is one.
    if rest.len() < MAX_COMPARED {
        let mut different = Vec::new();
        for other in rest {
            if !are_equal(&chosen, &other, weights)? {
                different.push(other);
            }
        }
        rest = different;
    }
    if !rest.is_empty() {
        rest.insert(0, chosen);
        let problem = format!("{} encoders: {}", rest.len(), listed(&rest));
        let hint = format!("choose one: --prefix {:?}", rest[0].prefix);
        return Err(Error::model(&weights.path, problem, hint));
    }
    all.retain(|place| place.follows() && *place != chosen);
    if !all.is_empty() && !chosen.follows() {
        notes.push(format!(
            "of {} encoders the one below {:?} was taken; --prefix chooses another: {}",
            all.len() + 1,
            chosen.prefix,
            listed(&all)
        ));
    }
    Ok(chosen)
}

fn listed(places: &[Place]) -> String {
    let names = places.iter().take(MAX_COMPARED);
    let mut names: Vec<String> = names.map(|place| format!("{:?}", place.prefix)).collect();
    if places.len() > names.len() {
        names.push("…".to_owned());
    }
    names.join(", ")
}

/// The encoder with this prefix, whole or as some of its parts.
fn by_prefix(all: &[Place], given: &str, weights: &Weights) -> Result<Place> {
    let given = given.trim_matches('.');
    let exact = |place: &&Place| place.prefix.trim_end_matches('.') == given;
    if let Some(place) = all.iter().find(exact) {
        return Ok(place.clone());
    }
    let inside = format!(".{given}.");
    let has = |place: &&Place| format!(".{}", place.prefix).contains(&inside);
    let found: Vec<Place> = all.iter().filter(has).cloned().collect();
    match &found[..] {
        [place] if !given.is_empty() => Ok(place.clone()),
        _ => {
            let problem = match found.len() {
                0 => format!("no encoder below {given:?}; there are: {}", listed(all)),
                count => format!("{count} encoders below {given:?}: {}", listed(&found)),
            };
            let hint = format!("choose one: --prefix {:?}", all[0].prefix);
            Err(Error::model(&weights.path, problem, hint))
        }
    }
}

/// Whether two encoders have the same tensors.
fn are_equal(one: &Place, other: &Place, weights: &mut Weights) -> Result<bool> {
    let parts = |place: &Place, tensors: &BTreeMap<String, Stored>| -> BTreeMap<String, String> {
        let own = of_place(place, tensors);
        own.map(|(name, translated)| (translated, name.to_owned()))
            .collect()
    };
    let (a, b) = (parts(one, &weights.tensors), parts(other, &weights.tensors));
    if !a.keys().eq(b.keys()) {
        return Ok(false);
    }
    for (a, b) in a.values().zip(b.values()) {
        if !weights.are_equal(a, b)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The tensors of an encoder: their names in the file and here. Counters of batches are left out.
pub fn of_place<'a>(
    place: &'a Place,
    tensors: &'a BTreeMap<String, Stored>,
) -> impl Iterator<Item = (&'a str, String)> {
    let from = (Bound::Included(place.prefix.as_str()), Bound::Unbounded);
    let below = tensors.range::<str, _>(from);
    let below = below.take_while(|(name, _)| name.starts_with(&place.prefix));
    below.filter_map(|(name, _)| {
        let translated = place.translate(name)?;
        (!translated.ends_with("num_batches_tracked")).then_some((name.as_str(), translated))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_programs_are_translated() {
        let named = |form| Place {
            prefix: "net.".to_owned(),
            form,
        };
        for (form, name, expected) in [
            (
                Form::Named,
                "bn1.running_mean",
                "bn1.bn_list.0.running_mean",
            ),
            (Form::Named, "bn1.bn_list.2.weight", "bn1.bn_list.2.weight"),
            (
                Form::Named,
                "layer2.0.downsample.0.weight",
                "layer2.0.downsample.conv.weight",
            ),
            (
                Form::Named,
                "layer2.0.shortcut.1.bias",
                "layer2.0.downsample.bn.bn_list.0.bias",
            ),
            (
                Form::Named,
                "layer2.0.downsample.bn.bn_list.1.bias",
                "layer2.0.downsample.bn.bn_list.1.bias",
            ),
            (
                Form::Named,
                "layer1._orig_mod.1.module.conv2.weight",
                "layer1.1.conv2.weight",
            ),
            (Form::Sequence(3), "0.weight", "conv1.weight"),
            (Form::Sequence(3), "1.bias", "bn1.bn_list.0.bias"),
            (
                Form::Sequence(4),
                "7.1.bn2.weight",
                "layer4.1.bn2.bn_list.0.weight",
            ),
            (
                Form::Transformers,
                "embedder.embedder.normalization.bias",
                "bn1.bn_list.0.bias",
            ),
            (
                Form::Transformers,
                "encoder.stages.3.layers.1.layer.2.convolution.weight",
                "layer4.1.conv3.weight",
            ),
            (
                Form::Transformers,
                "encoder.stages.1.layers.0.shortcut.normalization.running_var",
                "layer2.0.downsample.bn.bn_list.0.running_var",
            ),
        ] {
            let found = named(form).translate(&format!("net.{name}"));
            assert_eq!(found.as_deref(), Some(expected));
        }
        for (form, name) in [
            (Form::Named, "fc.weight"),
            (Form::Sequence(4), "8.weight"),
            (Form::Transformers, "pooler.weight"),
            (
                Form::Transformers,
                "encoder.stages.0.layers.0.layer.0.scale",
            ),
        ] {
            assert_eq!(named(form).translate(&format!("net.{name}")), None);
        }
    }
}
