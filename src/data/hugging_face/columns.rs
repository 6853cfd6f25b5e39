//! Columns of a Parquet file: which one holds the images, which the labels, and the names of the classes.

use std::path::Path;

use parquet::basic::Type;
use parquet::file::metadata::ParquetMetaData;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Names of image columns, where nothing else says which one it is.
const IMAGES: [&str; 4] = ["image", "img", "pixels", "picture"];
/// Names of label columns, the first that is there is taken.
const LABELS: [&str; 8] = [
    "label",
    "labels",
    "fine_label",
    "class",
    "cls",
    "target",
    "class_label",
    "coarse_label",
];

/// Columns that are read, by their place among the leaves of the schema.
#[derive(Debug, PartialEq)]
pub(super) struct Columns {
    /// Bytes of the images.
    pub(super) images: usize,
    /// Labels: name and place.
    pub(super) labels: Option<(String, usize)>,
    /// Names of the classes that numbers stand for.
    pub(super) names: Option<Vec<String>>,
    /// Other columns that hold images or labels and are not read.
    pub(super) others: Vec<String>,
}

/// A leaf of the schema.
struct Leaf {
    /// "image.bytes".
    path: String,
    kind: Type,
    /// Whether a row has one value at most.
    flat: bool,
}

impl Columns {
    /// Finds the columns of a file; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Data`] where no column holds images.
    pub(super) fn of(path: &Path, about: &ParquetMetaData) -> Result<Self> {
        let schema = about.file_metadata().schema_descr();
        let leaf = |column: &parquet::schema::types::ColumnDescPtr| Leaf {
            path: column.path().parts().join("."),
            kind: column.physical_type(),
            flat: column.max_rep_level() == 0,
        };
        let leaves: Vec<Leaf> = schema.columns().iter().map(leaf).collect();
        let features = features(about).unwrap_or_default();
        let of_type = |kind: &str| -> Vec<&str> {
            let is_kind = |feature: &Value| feature["_type"] == kind;
            let found = features.iter().filter(|(_, feature)| is_kind(feature));
            found.map(|(name, _)| name.as_str()).collect()
        };
        let bytes = |path: &str| {
            let is = |leaf: &Leaf| leaf.path == path && leaf.kind == Type::BYTE_ARRAY && leaf.flat;
            leaves.iter().position(is)
        };
        // By the metadata; by the shape, a struct with bytes; by the name.
        let declared = of_type("Image").into_iter();
        let declared = declared.filter_map(|name| {
            let place = bytes(&format!("{name}.bytes")).or_else(|| bytes(name))?;
            Some((name.to_owned(), place))
        });
        let shaped = leaves.iter().filter_map(|leaf| {
            let name = leaf.path.strip_suffix(".bytes")?;
            Some((name.to_owned(), bytes(&leaf.path)?))
        });
        let named = IMAGES
            .iter()
            .filter_map(|&name| Some((name.to_owned(), bytes(name)?)));
        let mut images: Vec<(String, usize)> = declared.collect();
        if images.is_empty() {
            images = shaped.collect();
        }
        if images.is_empty() {
            images = named.collect();
        }
        let Some((image, image_place)) = images.first().cloned() else {
            let names: Vec<&str> = leaves
                .iter()
                .map(|leaf| leaf.path.as_str())
                .take(8)
                .collect();
            return Err(Error::data(
                path.display().to_string(),
                format!(
                    "expected a column of images as bytes, found the columns {}",
                    names.join(", ")
                ),
                "a column is called image and has fields bytes and path, as `datasets` writes it",
            ));
        };
        let value = |name: &str| {
            let is = |leaf: &Leaf| {
                let kind = matches!(leaf.kind, Type::INT32 | Type::INT64 | Type::BYTE_ARRAY);
                leaf.path == name && kind && leaf.flat
            };
            Some((name.to_owned(), leaves.iter().position(is)?))
        };
        let mut labels: Vec<(String, usize)> = of_type("ClassLabel")
            .into_iter()
            .filter_map(value)
            .collect();
        if labels.is_empty() {
            labels = LABELS.into_iter().filter_map(value).collect();
        }
        labels.retain(|(name, _)| *name != image);
        let mut labels = labels.into_iter();
        let label = labels.next();
        let mut others: Vec<String> = images.into_iter().skip(1).map(|(name, _)| name).collect();
        others.extend(labels.map(|(name, _)| name));
        let names = label.as_ref().and_then(|(name, _)| {
            let names = features.get(name)?.get("names")?.as_array()?;
            let name = |name: &Value| name.as_str().map(str::to_owned);
            names.iter().map(name).collect()
        });
        Ok(Self {
            images: image_place,
            labels: label,
            names,
            others,
        })
    }
}

/// The features that `datasets` wrote into the metadata.
fn features(about: &ParquetMetaData) -> Option<Map<String, Value>> {
    let pairs = about.file_metadata().key_value_metadata()?;
    let pair = pairs.iter().find(|pair| pair.key == "huggingface")?;
    let json: Value = serde_json::from_str(pair.value.as_ref()?).ok()?;
    json["info"]["features"].as_object().cloned()
}
