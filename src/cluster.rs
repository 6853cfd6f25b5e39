//! Pseudo-labels by k-means on features (ClusterFit; Yan, Misra, Gupta, Ghadiyaram, Mahajan, CVPR
//! 2020), for several numbers of clusters.

mod kmeans;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tensor::label_tensor;
use crate::weights::{self, Tensors};

pub use kmeans::{Clustering, KMeans, Points};

/// Keys of the table `[cluster]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterSettings {
    /// Numbers of clusters; each gets a pseudo-label head.
    pub counts: Vec<usize>,
    /// Number of starts of k-means, of which the best is kept.
    pub restarts: usize,
    /// Largest number of Lloyd's iterations from each start.
    pub iterations: usize,
    /// A model file of any run, whose features are clustered; this run's SimCLR by default. It must
    /// take images of the same channels and size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A file of pseudo-labels to use instead of clustering, such as another run's
    /// `pseudo_labels.safetensors`.
    ///
    /// Its format is safetensors, with one tensor `labels.K` of shape `[images]` for each K in
    /// `counts` (F32, F64 or I64; whole numbers from 0 to K - 1, in the order of the training
    /// images). An optional metadata entry `advcl_pseudo_labels` describes their origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels_file: Option<String>,
}

impl ClusterSettings {
    /// Whether the pseudo-labels come from a file, so that no encoder of the run is needed for
    /// them.
    pub fn is_given(&self) -> bool {
        self.file().is_some()
    }

    /// Effort of each clustering.
    pub fn k_means(&self) -> KMeans {
        KMeans {
            restarts: self.restarts,
            iterations: self.iterations,
        }
    }

    /// The file that the pseudo-labels come from: a model, or labels.
    pub fn file(&self) -> Option<&str> {
        self.model.as_deref().or(self.labels_file.as_deref())
    }
}

/// Pseudo-labels of all training images for several numbers of clusters, and their origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PseudoLabels {
    /// Numbers of clusters, each with one label for each image.
    pub clusters: Vec<(usize, Vec<usize>)>,
    /// Description of the features that were clustered.
    pub origin: String,
}

/// Largest number of clusters: up to it labels are exact as f32, as which they are kept in files.
const MAX_COUNT: usize = 1 << 24;

/// Metadata entry with the origin.
const ORIGIN: &str = "advcl_pseudo_labels";

impl PseudoLabels {
    /// Numbers of clusters.
    pub fn counts(&self) -> Vec<usize> {
        self.clusters.iter().map(|(count, _)| *count).collect()
    }

    /// The pseudo-labels for those of the numbers of clusters that exist.
    pub fn only(&self, counts: &[usize]) -> Self {
        let mut some = self.clone();
        some.clusters.retain(|(count, _)| counts.contains(count));
        some
    }

    /// Purity of the clusters, for each number of them: the share of the images that are of their cluster's most frequent class.
    /// `classes` has a class index for each image. More clusters are purer, down to one image a cluster.
    ///
    /// # Panics
    /// For another number of images.
    pub fn purity(&self, classes: &[usize]) -> Vec<f64> {
        let of = |(count, labels): &(usize, Vec<usize>)| {
            assert_eq!(labels.len(), classes.len(), "one class for each image");
            let mut seen = vec![BTreeMap::<usize, usize>::new(); *count];
            for (&cluster, &class) in labels.iter().zip(classes) {
                *seen[cluster].entry(class).or_default() += 1;
            }
            let most = seen.iter().filter_map(|classes| classes.values().max());
            most.sum::<usize>() as f64 / classes.len().max(1) as f64
        };
        self.clusters.iter().map(of).collect()
    }

    /// Labels of a batch, `[batch]` for each number of clusters.
    pub fn batch(&self, indices: &[usize], device: &Device) -> Vec<Tensor<1, Int>> {
        let labels = |all: &Vec<usize>| indices.iter().map(|&i| all[i]).collect::<Vec<_>>();
        self.clusters
            .iter()
            .map(|(_, all)| label_tensor(&labels(all), device))
            .collect()
    }

    /// Writes a safetensors file with a tensor `labels.K`, `[images]`, for each number of clusters
    /// K. Its metadata has the origin, an empty line and everything that the labels depend on
    /// (`recipe`, TOML).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path, recipe: &str) -> Result<()> {
        let tensor = |labels: &Vec<usize>| {
            (
                vec![labels.len()],
                labels.iter().map(|&label| label as f32).collect(),
            )
        };
        let tensors: Tensors = self
            .clusters
            .iter()
            .map(|(count, labels)| (format!("labels.{count}"), tensor(labels)))
            .collect();
        // One entry, because several would be written in random order, and equal labels would make
        // different files.
        let metadata = [(ORIGIN, format!("{}\n\n{recipe}", self.origin))];
        weights::save(path, &tensors, &metadata)
    }

    /// Everything that the labels in a file depend on, as given to [`PseudoLabels::save`]; empty if
    /// the file does not have it, none if there is no file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`].
    pub fn recorded(path: &Path) -> Result<Option<String>> {
        if !path.exists() {
            return Ok(None);
        }
        let metadata = weights::load_metadata(path)?;
        let about = metadata
            .get(ORIGIN)
            .and_then(|about| about.split_once("\n\n"));
        Ok(Some(
            about.map_or(String::new(), |(_, recipe)| recipe.to_owned()),
        ))
    }

    /// Reads a file of [`PseudoLabels::save`]: a tensor `labels.K` with `images` integers below K
    /// for each of the numbers of clusters.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`]; [`Error::Data`] for another number of images; [`Error::Input`]
    /// for an impossible number of clusters.
    pub fn load(path: &Path, images: usize, counts: &[usize]) -> Result<Self> {
        let (mut tensors, metadata) = weights::load(path)?;
        let about = metadata.get(ORIGIN).map(String::as_str);
        let origin =
            about.map(|about| about.split_once("\n\n").map_or(about, |(origin, _)| origin));
        let clusters = counts.iter().map(|&count| {
            let name = format!("labels.{count}");
            if !(1..=MAX_COUNT).contains(&count) {
                let problem = format!("expected 1 to {MAX_COUNT} clusters, found {count}");
                return Err(Error::input("numbers of clusters", problem, ""));
            }
            let (shape, values) = tensors.remove(&name).ok_or_else(|| {
                Error::format(path, "tensors", format!("a tensor {name}"), "none")
            })?;
            if values.len() != images {
                return Err(Error::data(
                    path.display().to_string(),
                    format!(
                        "{name}: expected a label for each of {images} images, found {}",
                        values.len()
                    ),
                    "the file belongs to other training images",
                ));
            }
            if shape != [images] {
                let place = format!("tensor {name}");
                let (expected, found) = (format!("the shape [{images}]"), format!("{shape:?}"));
                return Err(Error::format(path, place, expected, found));
            }
            let whole = |value: &f32| value.fract() == 0.0 && (0.0..count as f32).contains(value);
            if let Some(at) = values.iter().position(|value| !whole(value)) {
                let place = format!("tensor {name}, image {at}");
                let expected = format!("a whole number from 0 to {}", count - 1);
                return Err(Error::format(path, place, expected, values[at].to_string()));
            }
            Ok((
                count,
                values.into_iter().map(|value| value as usize).collect(),
            ))
        });
        let clusters = clusters.collect::<Result<_>>()?;
        let origin = origin.map_or_else(|| format!("file {}", path.display()), str::to_owned);
        Ok(Self { clusters, origin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_the_labels_their_origin_and_what_they_depend_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("labels.safetensors");
        let labels = PseudoLabels {
            clusters: vec![(2, vec![0, 1, 1])],
            origin: "by hand".to_owned(),
        };
        assert_eq!(PseudoLabels::recorded(&path).expect("no file"), None);
        let depends_on = "seed = 1\nwidth = 4\n";
        labels.save(&path, depends_on).expect("a file");
        assert_eq!(PseudoLabels::load(&path, 3, &[2]).expect("labels"), labels);
        let recorded = PseudoLabels::recorded(&path).expect("a file");
        assert_eq!(recorded.as_deref(), Some(depends_on));
    }

    #[test]
    fn purity_is_the_share_of_each_clusters_most_frequent_class() {
        let labels = PseudoLabels {
            clusters: vec![(1, vec![0; 5]), (3, vec![2, 2, 2, 0, 0])],
            origin: String::new(),
        };
        // All five in one: two of class 7 are the most. Two of three, one of two, and an empty cluster.
        assert_eq!(labels.purity(&[7, 7, 1, 1, 0]), [2.0 / 5.0, 3.0 / 5.0]);
    }

    #[test]
    fn labels_that_are_none_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("labels.safetensors");
        let refused = |shape: Vec<usize>, values: Vec<f32>, count: usize, words: &str| {
            let tensors = Tensors::from([(format!("labels.{count}"), (shape, values))]);
            weights::save(&path, &tensors, &[]).expect("a file");
            let error = PseudoLabels::load(&path, 2, &[count]).expect_err("no labels");
            assert!(error.to_string().contains(words), "{error}");
            assert_eq!(error.exit_code(), 2);
        };
        for value in [f32::NAN, f32::INFINITY, -1.0, 0.5, 3.0] {
            refused(
                vec![2],
                vec![0.0, value],
                3,
                "image 1: expected a whole number from 0 to 2",
            );
        }
        refused(
            vec![2],
            vec![0.0; 2],
            0,
            "expected 1 to 16777216 clusters, found 0",
        );
        refused(vec![2], vec![0.0; 2], (1 << 24) + 1, "found 16777217");
        refused(vec![2], vec![0.0; 2], usize::MAX, "expected 1 to 16777216");
        refused(
            vec![2, 1],
            vec![0.0; 2],
            3,
            "expected the shape [2], found [2, 1]",
        );
        refused(
            vec![3],
            vec![0.0; 3],
            3,
            "a label for each of 2 images, found 3",
        );
        refused(vec![0], vec![], 3, "found 0");
    }
}
