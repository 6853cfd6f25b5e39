//! Active learning: which images to label next.
//!
//! With few labels the best images are typical ones that lie apart from each other (TypiClust; Hacohen, Dekel, Weinshall,
//! ICML 2022).

use std::sync::atomic::AtomicBool;

use burn::tensor::{Tensor, TensorData};
use rand::rngs::ChaCha8Rng;

use crate::cluster::{KMeans, Points};
use crate::tensor::to_vec;

/// Largest number of clusters (section 3.3 of the paper).
const MAX_CLUSTERS: usize = 500;
/// Neighbours by whose mean distance an image is typical (equation 1 of the paper).
const NEIGHBOURS: usize = 20;
/// Rows of distances that are computed at a time.
const ROWS: usize = 250;
/// Effort of the clustering.
const EFFORT: KMeans = KMeans {
    restarts: 1,
    iterations: 50,
};

/// Image that is to be labeled, and what spoke for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Typical {
    /// Index of the image.
    pub image: usize,
    /// Images of its cluster.
    pub cluster: usize,
    /// Mean distance to its nearest neighbours in the cluster, of unit vectors.
    pub distance: f32,
}

/// Chooses `count` images that stand for all of them: features are clustered into as many clusters as there will be labels, and
/// of each cluster without a label, largest first, the most typical image is taken. Returns fewer where there are
/// fewer, and nothing if `stop` is set meanwhile.
///
/// # Shapes
/// `features` are unit vectors, `[images, features]`; those of the images that have labels, if there are any, are
/// `labeled`.
pub fn typical(
    features: Tensor<2>,
    labeled: Option<Tensor<2>>,
    count: usize,
    rng: &mut ChaCha8Rng,
    stop: &AtomicBool,
) -> Option<Vec<Typical>> {
    let [images, _] = features.dims();
    let known = labeled.as_ref().map_or(0, |labeled| labeled.dims()[0]);
    let clusters = (known + count).min(MAX_CLUSTERS).min(images + known);
    let all = [features.clone()].into_iter().chain(labeled);
    let points = Points::new(Tensor::cat(all.collect(), 0));
    let found = points.cluster(clusters.max(1), EFFORT, rng, stop)?;
    let mut members = vec![Vec::new(); clusters.max(1)];
    let mut labels = vec![0; clusters.max(1)];
    for (image, &cluster) in found.labels.iter().enumerate() {
        match image < images {
            true => members[cluster].push(image),
            false => labels[cluster] += 1,
        }
    }
    let sizes: Vec<usize> = members.iter().map(Vec::len).collect();
    // Sorted once, when the cluster is met first: the most typical image last, where it is taken from.
    let mut sorted: Vec<Option<Vec<(f32, usize)>>> = vec![None; members.len()];
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let open = (0..members.len()).filter(|&k| !members[k].is_empty());
        let Some(cluster) = open.min_by_key(|&k| (labels[k], std::cmp::Reverse(sizes[k]), k))
        else {
            break;
        };
        let order = sorted[cluster].get_or_insert_with(|| {
            let distances = mean_distances(&features, &members[cluster]);
            let mut order: Vec<_> = distances
                .into_iter()
                .zip(members[cluster].clone())
                .collect();
            order.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
            order
        });
        let (distance, image) = order.pop().expect("one image at least");
        members[cluster].retain(|other| *other != image);
        labels[cluster] += 1;
        chosen.push(Typical {
            image,
            cluster: sizes[cluster],
            distance,
        });
    }
    Some(chosen)
}

/// Mean distance of each member of a cluster to its nearest neighbours there; 0 for one that is alone.
fn mean_distances(features: &Tensor<2>, members: &[usize]) -> Vec<f32> {
    let count = NEIGHBOURS.min(members.len() - 1);
    if count == 0 {
        return vec![0.0];
    }
    let all = rows(features, members);
    let mut means = Vec::with_capacity(members.len());
    for chunk in members.chunks(ROWS) {
        let cosines = to_vec(rows(features, chunk).matmul(all.clone().transpose()));
        for row in cosines.chunks_exact(members.len()) {
            let mut distances: Vec<f32> = row
                .iter()
                .map(|c| (2.0 - 2.0 * c).max(0.0).sqrt())
                .collect();
            // The nearest one is the image itself.
            distances.select_nth_unstable_by(count, f32::total_cmp);
            means.push(distances[..=count].iter().sum::<f32>() / count as f32);
        }
    }
    means
}

/// Rows of a matrix.
fn rows(matrix: &Tensor<2>, indices: &[usize]) -> Tensor<2> {
    let indices: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
    let data = TensorData::new(indices.clone(), [indices.len()]);
    matrix
        .clone()
        .select(0, Tensor::from_data(data, &matrix.device()))
}

/// Rows that are like an earlier one: their cosine is `threshold` or more. Each is named once, as the second of a pair, with the
/// first row that it is like and the cosine; sorted by that, from the largest down.
///
/// # Shapes
/// `features` are unit vectors, `[images, features]`.
pub fn similar(features: &Tensor<2>, threshold: f32) -> Vec<(usize, usize, f32)> {
    let [images, _] = features.dims();
    let indices: Vec<usize> = (0..images).collect();
    let mut pairs = Vec::new();
    // All pairs of equal images would be as many as their square.
    let mut is_named = vec![false; images];
    for chunk in indices.chunks(ROWS) {
        // Each pair once: against the rows from this chunk on.
        let first = chunk[0];
        let others = features.clone().narrow(0, first, images - first);
        let own = features.clone().narrow(0, first, chunk.len());
        let cosines = to_vec(own.matmul(others.transpose()));
        for (row, &a) in cosines.chunks_exact(images - first).zip(chunk) {
            for (b, &cosine) in (first..).zip(row) {
                if b > a && cosine >= threshold && !std::mem::replace(&mut is_named[b], true) {
                    pairs.push((a, b, cosine));
                }
            }
        }
    }
    pairs.sort_by(|x, y| y.2.total_cmp(&x.2).then((x.0, x.1).cmp(&(y.0, y.1))));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;
    use crate::tensor::unit_rows;

    /// Three groups of directions in the plane, of 30, 20 and 10 images, each around its middle one.
    fn groups() -> Tensor<2> {
        let device = crate::device::open("cpu").expect("the CPU");
        let groups = [(0.0f32, 30), (2.0, 20), (4.0, 10)];
        let angles = groups.into_iter().flat_map(|(middle, count)| {
            let half = count as f32 / 2.0;
            (0..count).map(move |i| middle + ((i as f32 - half) / half).powi(3) * 0.3)
        });
        let values: Vec<f32> = angles
            .flat_map(|angle| [angle.cos(), angle.sin()])
            .collect();
        unit_rows(Tensor::from_data(TensorData::new(values, [60, 2]), &device))
    }

    fn chosen(labeled: Option<Tensor<2>>, count: usize) -> Vec<usize> {
        let mut rng = random::generator(0, "test", 0);
        let found = typical(groups(), labeled, count, &mut rng, &AtomicBool::new(false));
        found
            .expect("not stopped")
            .iter()
            .map(|one| one.image)
            .collect()
    }

    #[test]
    fn one_typical_image_of_each_group_is_chosen_largest_group_first() {
        let found = chosen(None, 3);
        let group = |image: &usize| (*image >= 30) as usize + (*image >= 50) as usize;
        assert_eq!(found.iter().map(group).collect::<Vec<_>>(), [0, 1, 2]);
        // Near the middle, where they are dense.
        assert!(
            (10..20).contains(&found[0]) && (35..45).contains(&found[1]),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_labeled_is_not_asked_for_again() {
        let found = chosen(Some(groups().narrow(0, 5, 1)), 2);
        assert!(found.iter().all(|image| *image >= 30), "{found:?}");
        // All there are, each once.
        let mut all = chosen(None, 100);
        all.sort_unstable();
        assert_eq!(all, (0..60).collect::<Vec<_>>());
    }

    #[test]
    fn similar_pairs_are_found_across_chunks() {
        let device = crate::device::open("cpu").expect("the CPU");
        let angle = |i: usize| if i == 599 { 0.001 } else { i as f32 * 0.01 };
        let values: Vec<f32> = (0..600)
            .flat_map(|i| [angle(i).cos(), angle(i).sin()])
            .collect();
        let features = Tensor::from_data(TensorData::new(values, [600, 2]), &device);
        let pairs = similar(&features, 0.99999);
        assert_eq!((pairs[0].0, pairs[0].1), (0, 599));
        assert!(
            pairs
                .iter()
                .all(|(a, b, cosine)| a < b && *cosine >= 0.99999)
        );
        assert_eq!(similar(&features, 1.1), []);
        // Each once, however many are equal, and with the first one.
        let pairs = similar(&unit_rows(Tensor::ones([600, 2], &device)), 0.999);
        let mut pairs: Vec<_> = pairs.iter().map(|(a, b, _)| (*b, *a)).collect();
        pairs.sort_unstable();
        assert_eq!(pairs, (1..600).map(|b| (b, 0)).collect::<Vec<_>>());
    }
}
