//! A k-nearest-neighbour probe: how well an encoder's features separate the classes, without
//! training.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::data::Split;
use crate::error::{Error, Result};
use crate::finetune::features;
use crate::nn::{Encoder, Route};
use crate::session::Context;
use crate::tensor::{to_vec, unit_rows};

/// Temperature of the neighbours' weights (Wu, Xiong, Yu, Lin, CVPR 2018, section 3.4).
const TEMPERATURE: f32 = 0.07;
/// Batch size of the features and of the search for neighbours.
const BATCH: usize = 250;

/// Keys of the table `[probe]`. The probe changes nothing but the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProbeSettings {
    /// Epochs of pretraining between two probes.
    pub every: usize,
    /// Number of neighbours that vote.
    #[serde(default = "default_neighbours")]
    pub neighbours: usize,
}

fn default_neighbours() -> usize {
    20
}

/// Probe of encoders on labeled images: classifies the held-out ones by their neighbours among the
/// training images.
#[derive(Clone, Copy)]
pub struct Probe<'a> {
    /// Interval and number of neighbours.
    pub settings: &'a ProbeSettings,
    /// Images among which neighbours are searched.
    pub train: &'a Split,
    /// Images that are classified.
    pub held_out: &'a Split,
    /// Number of classes.
    pub classes: usize,
    /// The BatchNorm branch whose features are probed.
    pub route: Route,
}

impl Probe<'_> {
    /// Accuracy of the neighbours' vote on the held-out images, in evaluation mode.
    ///
    /// # Errors
    /// As [`features`].
    pub fn accuracy(&self, stage: &str, encoder: &Encoder, context: &mut Context) -> Result<f32> {
        let stage = format!("{stage}/knn");
        let mut features = |images| features(&stage, encoder, self.route, images, BATCH, context);
        let (train, held_out) = (
            features(&self.train.images)?,
            features(&self.held_out.images)?,
        );
        let known = Known::new(train, &self.train.labels, self.classes);
        let count = self.settings.neighbours;
        Ok(known.accuracy(held_out, &self.held_out.labels, count) as f32)
    }

    /// Probes the encoder if `epoch`, counted from 0, is one of those after which it is due: the
    /// accuracy under the name "knn", for the log; a note where a feature is not finite.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when asked to stop.
    pub fn after_epoch(
        &self,
        stage: &str,
        encoder: &Encoder,
        epoch: usize,
        context: &mut Context,
    ) -> Result<Vec<(&'static str, f32)>> {
        if !(epoch + 1).is_multiple_of(self.settings.every) {
            return Ok(Vec::new());
        }
        let accuracy = match self.accuracy(stage, encoder, context) {
            // The probe changes nothing but the log.
            Err(error @ Error::Features { .. }) => {
                context.note(stage, format!("no nearest neighbours: {error}"));
                return Ok(Vec::new());
            }
            accuracy => accuracy?,
        };
        let (percent, images) = (100.0 * accuracy, self.held_out.images.len());
        let text =
            format!("nearest neighbours classify {percent:.1} % of {images} held-out images");
        context.note(stage, text);
        Ok(vec![("knn", accuracy)])
    }
}

/// Features with known classes.
pub struct Known<'a> {
    /// Unit vectors, `[images, features]`.
    directions: Tensor<2>,
    labels: &'a [usize],
    classes: usize,
}

impl<'a> Known<'a> {
    /// Features of any length, `[images, features]`, with their classes.
    pub fn new(features: Tensor<2>, labels: &'a [usize], classes: usize) -> Self {
        Self {
            directions: unit_rows(features),
            labels,
            classes,
        }
    }

    /// Accuracy on other features, `[images, features]`, of the vote of their `count` nearest
    /// neighbours.
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

/// The class with the most votes of the nearest neighbours, each weighted by its cosine.
fn vote(cosines: &[f32], labels: &[usize], classes: usize, count: usize) -> usize {
    let mut order: Vec<usize> = (0..cosines.len()).collect();
    let count = count.min(order.len());
    // Ties go to the earlier image, whatever the sorting algorithm does with equal ones.
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
