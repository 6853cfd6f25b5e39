//! A k-nearest-neighbour probe: how well an encoder's features tell classes apart, with nothing to train.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::data::Split;
use crate::error::Result;
use crate::finetune::features;
use crate::nn::{Encoder, Route};
use crate::session::Context;
use crate::tensor::{to_vec, unit_rows};

/// How sharply near neighbours outweigh far ones (Wu, Xiong, Yu, Lin, CVPR 2018, section 3.4).
const TEMPERATURE: f32 = 0.07;
/// Images whose features are computed, or whose neighbours are searched, at a time.
const BATCH: usize = 250;

/// What a recipe says of it. It changes nothing but the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// After so many epochs of pretraining each.
    pub every: usize,
    /// Neighbours that vote.
    #[serde(default = "usual_neighbours")]
    pub neighbours: usize,
}

fn usual_neighbours() -> usize {
    20
}

/// Labeled images: neighbours are sought among those for training, for those that are held out of it.
#[derive(Clone, Copy)]
pub struct Probe<'a> {
    /// How often, and how many neighbours.
    pub settings: &'a Settings,
    /// Where neighbours are.
    pub train: &'a Split,
    /// Whose classes are guessed.
    pub held_out: &'a Split,
    /// How many classes.
    pub classes: usize,
}

impl Probe<'_> {
    /// The share of the held-out images whose class their neighbours say, in evaluation mode.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) when asked to stop.
    pub fn accuracy(
        &self,
        stage: &str,
        encoder: &Encoder,
        route: Route,
        context: &mut Context,
    ) -> Result<f32> {
        let stage = format!("{stage}/knn");
        let mut features = |images| features(&stage, encoder, route, images, BATCH, context);
        let (known, asked) = (
            features(&self.train.images)?,
            features(&self.held_out.images)?,
        );
        let known = Known::new(known, &self.train.labels, self.classes);
        let count = self.settings.neighbours;
        Ok(known.accuracy(asked, &self.held_out.labels, count) as f32)
    }
}

/// Features whose classes are known.
pub struct Known<'a> {
    /// `[images, features]`, of length 1.
    directions: Tensor<2>,
    labels: &'a [usize],
    classes: usize,
}

impl<'a> Known<'a> {
    /// `[images, features]` of any length, with their classes.
    pub fn new(features: Tensor<2>, labels: &'a [usize], classes: usize) -> Self {
        Self {
            directions: unit_rows(features),
            labels,
            classes,
        }
    }

    /// The share of other features, `[images, features]`, whose class their `count` nearest neighbours say.
    pub fn accuracy(&self, features: Tensor<2>, labels: &[usize], count: usize) -> f64 {
        let mut right = 0;
        let chunks = unit_rows(features).split(BATCH, 0).into_iter();
        for (chunk, labels) in chunks.zip(labels.chunks(BATCH)) {
            let cosines = to_vec(chunk.matmul(self.directions.clone().transpose()));
            for (row, &label) in cosines.chunks_exact(self.labels.len()).zip(labels) {
                right += usize::from(vote(row, self.labels, self.classes, count) == label);
            }
        }
        right as f64 / labels.len() as f64
    }
}

/// The class with most votes of the nearest neighbours, each weighted by its cosine.
fn vote(cosines: &[f32], labels: &[usize], classes: usize, count: usize) -> usize {
    let mut order: Vec<usize> = (0..cosines.len()).collect();
    let count = count.min(order.len());
    // Ties go to the earlier image, whatever the sort does with equal ones.
    let nearer = |a: &usize, b: &usize| cosines[*b].total_cmp(&cosines[*a]).then(a.cmp(b));
    order.select_nth_unstable_by(count - 1, nearer);
    order.truncate(count);
    order.sort_by(nearer);
    let mut votes = vec![0.0f32; classes];
    for i in order {
        votes[labels[i]] += (cosines[i] / TEMPERATURE).exp();
    }
    let best = votes
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.map_or(0, |(class, _)| class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_neighbours_outvote_many_far_ones() {
        let vote = |count, cosines: &[f32]| vote(cosines, &[0, 1, 1, 1, 2], 3, count);
        let cosines = [0.9, 0.5, 0.5, 0.5, 0.1];
        assert_eq!(vote(1, &cosines), 0);
        // e^(0.9 / 0.07) against 3 e^(0.5 / 0.07).
        assert_eq!(vote(4, &cosines), 0);
        assert_eq!(vote(4, &[0.52, 0.5, 0.5, 0.5, 0.1]), 1);
        // More neighbours than there are.
        assert_eq!(vote(50, &[0.1, 0.1, 0.1, 0.1, 0.9]), 2);
    }
}
