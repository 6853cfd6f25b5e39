//! Pseudo-labels by k-means on features (ClusterFit, Yan et al., CVPR 2020), for several numbers of clusters.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tensor::{label_tensor, to_vec};
use crate::weights::{self, Tensors};

/// What a recipe says of clustering.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Numbers of clusters, one pseudo-label head each.
    pub counts: Vec<usize>,
    /// The best of this many starts is kept.
    pub restarts: usize,
    /// Lloyd's iterations at most.
    pub iterations: usize,
    /// A model file of any run: its encoder's features are clustered, instead of those of this run's SimCLR. It
    /// must take images of the same channels and size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A file of pseudo-labels to use instead of clustering, such as another run's `pseudo_labels.safetensors`.
    ///
    /// Its format: safetensors, with one tensor `labels.K` of shape `[images]` for each K in `counts` (F32, F64 or
    /// I64; whole numbers from 0 to K - 1, in the order of the training images), and, where wanted, a metadata entry
    /// `advcl_pseudo_labels` that says in words where they came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels_file: Option<String>,
}

impl Settings {
    /// Whether nothing of the run itself is clustered.
    pub fn is_given(&self) -> bool {
        self.file().is_some()
    }

    /// The file that is taken instead: a model, or labels.
    pub fn file(&self) -> Option<&str> {
        self.model.as_deref().or(self.labels_file.as_deref())
    }
}

/// The labels of all training images for each number of clusters, and where they came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PseudoLabels {
    /// Number of clusters and one label an image.
    pub clusters: Vec<(usize, Vec<usize>)>,
    /// In words: the features that were clustered.
    pub origin: String,
}

const ORIGIN: &str = "advcl_pseudo_labels";

impl PseudoLabels {
    /// The numbers of clusters.
    pub fn counts(&self) -> Vec<usize> {
        self.clusters.iter().map(|(count, _)| *count).collect()
    }

    /// Those for some numbers of clusters; what is not there is left out.
    pub fn only(&self, counts: &[usize]) -> Self {
        let mut some = self.clone();
        some.clusters.retain(|(count, _)| counts.contains(count));
        some
    }

    /// The labels of a batch, `[batch]` for each number of clusters.
    pub fn batch(&self, indices: &[usize], device: &Device) -> Vec<Tensor<1, Int>> {
        let labels = |all: &Vec<usize>| indices.iter().map(|&i| all[i]).collect::<Vec<_>>();
        self.clusters
            .iter()
            .map(|(_, all)| label_tensor(&labels(all), device))
            .collect()
    }

    /// Writes a safetensors file: `labels.K` `[images]` for each K; in the metadata, the origin, an empty line, and
    /// all that the labels depend on (`recipe`, as TOML).
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
        // One entry, because several would be written in random order, and no two files would be equal.
        let metadata = [(ORIGIN, format!("{}\n\n{recipe}", self.origin))];
        weights::save(path, &tensors, &metadata)
    }

    /// Everything that the labels in a file depend on, as [`PseudoLabels::save`] got it; empty where the
    /// file does not say, none where there is no file.
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

    /// Reads what [`PseudoLabels::save`] wrote: one tensor `labels.K` of `images` integers below K for each count.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`]; [`Error::Data`] for another number of images.
    pub fn load(path: &Path, images: usize, counts: &[usize]) -> Result<Self> {
        let (mut tensors, metadata) = weights::load(path)?;
        let about = metadata.get(ORIGIN).map(String::as_str);
        let origin =
            about.map(|about| about.split_once("\n\n").map_or(about, |(origin, _)| origin));
        let clusters = counts.iter().map(|&count| {
            let name = format!("labels.{count}");
            let (_, values) = tensors.remove(&name).ok_or_else(|| {
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

/// A clustering of points.
#[derive(Clone, Debug, PartialEq)]
pub struct Clustering {
    /// `[clusters, dimensions]`, row-major.
    pub centres: Vec<f32>,
    /// The nearest centre of each point.
    pub labels: Vec<usize>,
    /// Sum of squared distances to the nearest centre.
    pub inertia: f64,
}

/// Points to be clustered: on the device for distances, on the host for means.
pub struct Points {
    tensor: Tensor<2>,
    host: Vec<f32>,
    dimensions: usize,
    squares: Vec<f32>,
}

impl Points {
    /// `[points, dimensions]`.
    pub fn new(tensor: Tensor<2>) -> Self {
        let dimensions = tensor.dims()[1];
        let host = to_vec(tensor.clone());
        let squares = host.chunks(dimensions).map(square).collect();
        Self {
            tensor,
            host,
            dimensions,
            squares,
        }
    }

    fn len(&self) -> usize {
        self.squares.len()
    }

    fn point(&self, index: usize) -> &[f32] {
        &self.host[index * self.dimensions..(index + 1) * self.dimensions]
    }

    /// Lloyd's iterations from given centres (`[clusters, dimensions]`, row-major), until no label changes or for
    /// `iterations` rounds; an empty cluster keeps its centre.
    pub fn lloyd(&self, centres: Vec<f32>, iterations: usize) -> Clustering {
        self.lloyd_unless(&AtomicBool::new(false), centres, iterations)
            .expect("nobody asks to stop")
    }

    /// As [`Points::lloyd`]; nothing where `stop` is set meanwhile.
    fn lloyd_unless(
        &self,
        stop: &AtomicBool,
        mut centres: Vec<f32>,
        iterations: usize,
    ) -> Option<Clustering> {
        let (mut labels, mut inertia) = self.assign(&centres);
        for _ in 0..iterations {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            self.move_to_means(&mut centres, &labels);
            let (next, next_inertia) = self.assign(&centres);
            let settled = next == labels;
            (labels, inertia) = (next, next_inertia);
            if settled {
                break;
            }
        }
        Some(Clustering {
            centres,
            labels,
            inertia,
        })
    }

    /// k-means++ (Arthur and Vassilvitskii, 2007) and Lloyd, the best of `restarts` starts; nothing where `stop` is
    /// set meanwhile.
    pub fn cluster(
        &self,
        count: usize,
        settings: &Settings,
        rng: &mut ChaCha8Rng,
        stop: &AtomicBool,
    ) -> Option<Clustering> {
        let mut best: Option<Clustering> = None;
        for _ in 0..settings.restarts {
            let start = self.plus_plus(count, rng);
            let found = self.lloyd_unless(stop, start, settings.iterations)?;
            if best
                .as_ref()
                .is_none_or(|best| found.inertia < best.inertia)
            {
                best = Some(found);
            }
        }
        best
    }

    /// Centres drawn one by one, each with probability proportional to its squared distance from those before.
    fn plus_plus(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let mut centres = Vec::with_capacity(count * self.dimensions);
        let mut nearest = vec![f32::INFINITY; self.len()];
        let mut chosen = rng.random_range(0..self.len());
        for _ in 0..count {
            let centre = self.point(chosen);
            centres.extend_from_slice(centre);
            for (index, nearest) in nearest.iter_mut().enumerate() {
                *nearest = nearest.min(distance(self.point(index), centre));
            }
            let total: f64 = nearest.iter().map(|&d| f64::from(d)).sum();
            let mut left = rng.random::<f64>() * total;
            let drawn = nearest.iter().position(|&d| {
                left -= f64::from(d);
                left < 0.0
            });
            // All points coincide with a centre (or rounding ran past the end): any point will do.
            chosen = drawn.unwrap_or_else(|| rng.random_range(0..self.len()));
        }
        centres
    }

    /// The nearest centre of each point, and the sum of squared distances to it.
    fn assign(&self, centres: &[f32]) -> (Vec<usize>, f64) {
        let count = centres.len() / self.dimensions;
        let data = TensorData::new(centres.to_vec(), [count, self.dimensions]);
        let centre_tensor = Tensor::<2>::from_data(data, &self.tensor.device());
        let products = to_vec(self.tensor.clone().matmul(centre_tensor.transpose()));
        let squares: Vec<f32> = centres.chunks(self.dimensions).map(square).collect();
        let mut inertia = 0.0;
        let nearest = |(row, own): (&[f32], &f32)| {
            // |x - c|² = |x|² - 2 x·c + |c|²; the first part is the same for all centres.
            let score = |k: &usize| squares[*k] - 2.0 * row[*k];
            let best = (0..count).min_by(|a, b| score(a).total_cmp(&score(b)));
            let best = best.expect("at least one centre");
            inertia += f64::from((own + score(&best)).max(0.0));
            best
        };
        let labels = products
            .chunks(count)
            .zip(&self.squares)
            .map(nearest)
            .collect();
        (labels, inertia)
    }

    fn move_to_means(&self, centres: &mut [f32], labels: &[usize]) {
        let mut sums = vec![0.0f64; centres.len()];
        let mut sizes = vec![0usize; centres.len() / self.dimensions];
        for (index, &label) in labels.iter().enumerate() {
            sizes[label] += 1;
            let sum = &mut sums[label * self.dimensions..][..self.dimensions];
            for (sum, value) in sum.iter_mut().zip(self.point(index)) {
                *sum += f64::from(*value);
            }
        }
        let rows = centres
            .chunks_mut(self.dimensions)
            .zip(sums.chunks(self.dimensions));
        for ((centre, sum), size) in rows.zip(sizes) {
            if size > 0 {
                for (centre, sum) in centre.iter_mut().zip(sum) {
                    *centre = (sum / size as f64) as f32;
                }
            }
        }
    }
}

fn square(point: &[f32]) -> f32 {
    point.iter().map(|value| value * value).sum()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_found_unless_asked_to_stop() {
        let device = crate::device::open("cpu").expect("the CPU");
        let values: Vec<f32> = (0..40)
            .map(|i| (i % 2 * 10) as f32 + i as f32 / 100.0)
            .collect();
        let points = Points::new(Tensor::from_data(TensorData::new(values, [40, 1]), &device));
        let settings = Settings {
            counts: vec![2],
            restarts: 2,
            iterations: 10,
            model: None,
            labels_file: None,
        };
        let cluster = |stop: bool| {
            let mut rng = crate::random::generator(0, "test", 0);
            points.cluster(2, &settings, &mut rng, &AtomicBool::new(stop))
        };
        let labels = cluster(false).expect("nobody asks to stop").labels;
        assert!(
            (0..40).all(|i| (labels[i] == labels[0]) == (i % 2 == 0)),
            "{labels:?}"
        );
        assert_eq!(cluster(true), None);
    }

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
}
