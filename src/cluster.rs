//! Pseudo-labels by k-means on features (ClusterFit, Yan et al., CVPR 2020), for several numbers of clusters.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::weights::{self, Tensors};
use crate::random;

/// What a recipe says of clustering.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Numbers of clusters, one pseudo-label head each.
    pub counts: Vec<usize>,
    /// The best of this many starts is kept.
    pub restarts: usize,
    /// Lloyd's iterations at most.
    pub iterations: usize,
    /// A file of pseudo-labels to use instead of clustering, as [`PseudoLabels::save`] writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels_file: Option<String>,
}

/// The labels of all training images for each number of clusters, and where they came from.
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// The labels of a batch, `[batch]` for each number of clusters.
    pub fn batch(&self, indices: &[usize], device: &Device) -> Vec<Tensor<1, Int>> {
        let labels = |all: &Vec<usize>| indices.iter().map(|&i| all[i]).collect::<Vec<_>>();
        self.clusters
            .iter()
            .map(|(_, all)| label_tensor(&labels(all), device))
            .collect()
    }

    /// Writes a safetensors file: `labels.K` `[images]` for each K; the origin is in the metadata.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
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
        weights::save(path, &tensors, &[(ORIGIN, self.origin.clone())])
    }

    /// Reads what [`PseudoLabels::save`] wrote: one tensor `labels.K` of `images` integers below K for each count.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`]; [`Error::Data`] when it is of another number of images.
    pub fn load(path: &Path, images: usize, counts: &[usize]) -> Result<Self> {
        let (mut tensors, metadata) = weights::load(path)?;
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
        let origin = metadata.get(ORIGIN).cloned();
        let origin = origin.unwrap_or_else(|| format!("file {}", path.display()));
        Ok(Self { clusters, origin })
    }
}

/// Labels as an integer tensor, `[labels]`.
pub fn label_tensor(labels: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
    let shape = [values.len()];
    Tensor::from_data(TensorData::new(values, shape), device)
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
        let host = weights::to_vec(tensor.clone());
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
    pub fn lloyd(&self, mut centres: Vec<f32>, iterations: usize) -> Clustering {
        let (mut labels, mut inertia) = self.assign(&centres);
        for _ in 0..iterations {
            self.move_to_means(&mut centres, &labels);
            let (next, next_inertia) = self.assign(&centres);
            let settled = next == labels;
            (labels, inertia) = (next, next_inertia);
            if settled {
                break;
            }
        }
        Clustering {
            centres,
            labels,
            inertia,
        }
    }

    /// k-means++ (Arthur and Vassilvitskii, 2007) and Lloyd, the best of `restarts` starts.
    pub fn cluster(&self, count: usize, settings: &Settings, rng: &mut ChaCha8Rng) -> Clustering {
        let starts = 0..settings.restarts.max(1);
        let runs = starts.map(|_| self.lloyd(self.plus_plus(count, rng), settings.iterations));
        runs.min_by(|a, b| a.inertia.total_cmp(&b.inertia))
            .expect("at least one start")
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
        let products = weights::to_vec(self.tensor.clone().matmul(centre_tensor.transpose()));
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

/// Pseudo-labels for `features` `[images, dimensions]` by the recipe's settings.
pub fn pseudo_labels(
    features: Tensor<2>,
    settings: &Settings,
    origin: String,
    seed: u64,
) -> PseudoLabels {
    let points = Points::new(features);
    let labels = |&count: &usize| {
        let mut rng = random::generator(seed, "cluster", count as u64);
        (count, points.cluster(count, settings, &mut rng).labels)
    };
    PseudoLabels {
        clusters: settings.counts.iter().map(labels).collect(),
        origin,
    }
}
