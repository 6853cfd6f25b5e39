//! What stands beside an encoder in a file: the normalization of its images, and its linear classifier.

use super::names::Place;
use super::stored::Weights;
use crate::error::{Error, Result};
use crate::nn::Normalize;

/// Last parts of the names of means and deviations.
const NORMALIZATIONS: [(&str, &str); 9] = [
    ("mean", "std"),
    ("new_mean", "new_std"),
    ("mu", "sigma"),
    ("means", "sds"),
    ("means", "stds"),
    ("_mean", "_std"),
    ("pixel_mean", "pixel_std"),
    ("image_mean", "image_std"),
    ("img_mean", "img_std"),
];

/// Mean above which images are not from 0 to 1, but from 0 to 255.
const LARGEST_MEAN: f32 = 2.0;

/// A normalization in a file.
pub struct FoundNormalize {
    /// In pixels.
    pub normalize: Normalize,
    /// Names of the two tensors.
    pub names: [String; 2],
    /// Whether the file has it for images from 0 to 255.
    pub bytes: bool,
}

/// Finds the normalization that belongs to an encoder: the one with the most of its prefix, if several are different.
///
/// # Errors
/// [`Error::Model`] for different ones that stand equally near, and for one that cannot be computed with.
pub fn normalize(
    weights: &mut Weights,
    place: &Place,
    channels: usize,
) -> Result<Option<FoundNormalize>> {
    let mut pairs: Vec<[String; 2]> = Vec::new();
    for name in weights.tensors.keys() {
        let (before, last) = name
            .rsplit_once('.')
            .map_or(("", name.as_str()), |(before, last)| {
                (&name[..=before.len()], last)
            });
        for (mean, std) in NORMALIZATIONS {
            let other = format!("{before}{std}");
            let fits = |name: &str| {
                let tensor = weights.tensors.get(name);
                tensor.is_some_and(|tensor| {
                    let wide = tensor.shape.iter().filter(|length| **length != 1).count();
                    let count = tensor.count();
                    tensor.is_float() && wide <= 1 && (count == channels || count == 1)
                })
            };
            if last == mean && fits(name) && fits(&other) {
                pairs.push([name.clone(), other]);
            }
        }
    }
    let common = |name: &str| {
        let parts = name.split('.').zip(place.prefix.split('.'));
        parts.take_while(|(a, b)| a == b).count()
    };
    pairs.sort_by_key(|[mean, _]| (std::cmp::Reverse(common(mean)), mean.len()));
    let nearest = pairs.first().map_or(0, |[mean, _]| common(mean));
    pairs.retain(|[mean, _]| common(mean) == nearest);
    let mut found: Option<FoundNormalize> = None;
    for [mean, std] in pairs.into_iter().take(16) {
        let spread = |values: Vec<f32>| match values[..] {
            [value] => vec![value; channels],
            _ => values,
        };
        let mut numbers = [
            spread(weights.values(&mean)?),
            spread(weights.values(&std)?),
        ];
        let bytes = numbers[0].iter().any(|mean| *mean > LARGEST_MEAN);
        if bytes {
            let pixels = numbers.iter_mut().flatten();
            pixels.for_each(|number| *number /= 255.0);
        }
        let [means, deviations] = numbers;
        let normalize = Normalize::new(means, deviations).map_err(|problem| {
            let problem = format!("{mean} and {std} as a normalization: {problem}");
            Error::model(&weights.path, problem, "give --mean and --std")
        })?;
        match &found {
            Some(first) if first.normalize != normalize => {
                let problem = format!("two normalizations: {} and {mean}", first.names[0]);
                let hint = "give the one of this encoder: --mean and --std";
                return Err(Error::model(&weights.path, problem, hint));
            }
            Some(_) => {}
            None => {
                found = Some(FoundNormalize {
                    normalize,
                    names: [mean, std],
                    bytes,
                });
            }
        }
    }
    Ok(found)
}

/// A linear classifier in a file.
pub struct FoundHead {
    /// Names of weight and bias.
    pub names: [String; 2],
    /// Number of classes.
    pub classes: usize,
}

/// Finds the linear classifier of an encoder of this many features: beside the encoder's tensors, or above them.
pub fn head(weights: &Weights, place: &Place, features: usize) -> Option<FoundHead> {
    const NAMES: [&str; 10] = [
        "fc",
        "linear",
        "classifier",
        "head",
        "head.fc",
        "classifier.fc",
        "classifier.1",
        // `Sequential(Dropout(), Linear(…))` in the place of a layer.
        "fc.0",
        "fc.1",
        "head.1",
    ];
    // Of several layers in a row the first is no classifier.
    let alone = |above: &str, name: &str| {
        let row = name
            .rsplit_once('.')
            .filter(|(_, last)| last.parse::<u8>().is_ok());
        row.is_none_or(|(row, number)| {
            let (row, own) = (format!("{above}{row}."), format!("{above}{row}.{number}."));
            let mut beside = weights
                .tensors
                .keys()
                .filter(|known| known.starts_with(&row));
            beside.all(|known| known.starts_with(&own))
        })
    };
    let after = place.after().map_or(0..0, |after| after..after + 4);
    let numbers: Vec<String> = after.map(|number| number.to_string()).collect();
    let mut above = place.prefix.as_str();
    loop {
        let beside = if above == place.prefix {
            &numbers[..]
        } else {
            &[]
        };
        for name in NAMES.into_iter().chain(beside.iter().map(String::as_str)) {
            let names = ["weight", "bias"].map(|part| format!("{above}{name}.{part}"));
            let [weight, bias] = names.each_ref().map(|name| weights.tensors.get(name));
            let (Some(weight), Some(bias)) = (weight, bias) else {
                continue;
            };
            if let [classes, inputs] = weight.shape[..]
                && inputs == features
                && bias.shape == [classes]
                && classes > 1
                && weight.is_float()
                && bias.is_float()
                && alone(above, name)
            {
                return Some(FoundHead { names, classes });
            }
        }
        above = match above.strip_suffix('.') {
            None => return None,
            Some(above) => above.rfind('.').map_or("", |at| &above[..=at]),
        };
    }
}

/// Whether a head that stands beside an encoder is a projection of self-supervised training, as far as names say so.
pub fn is_projection(weights: &Weights, place: &Place, head: &FoundHead) -> bool {
    let mut names = weights.tensors.keys();
    let beside = head.names[0].starts_with(&place.prefix);
    beside
        && (place.is_self_supervised()
            || names.any(|name| name.rsplit('.').next() == Some("queue")))
}
