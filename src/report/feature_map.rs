//! A map of the features in two dimensions: t-SNE (van der Maaten and Hinton, JMLR 2008) of clean
//! and adversarial images together, so that both are on one map.

use bhtsne::tSNE;
use rand::RngExt;
use rand_distr::StandardNormal;

use super::ReportedModel;
use super::examples::attacked;
use crate::attack::Attacker;
use crate::data::Split;
use crate::error::Result;
use crate::evaluate::{StageProgress, predictions};
use crate::random;
use crate::session::Context;
use crate::tensor::{to_tensor, to_vec, unit_rows};

/// Effective number of neighbours in t-SNE; fewer where there are few points.
const PERPLEXITY: f32 = 30.0;
/// Steps of t-SNE's gradient descent.
const EPOCHS: usize = 750;
/// Fewest images that are mapped.
const FEWEST: usize = 5;

/// An image on the map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MapPoint {
    /// Class of the image.
    pub label: usize,
    /// Position of the clean image; coordinates have no unit.
    pub clean: [f32; 2],
    /// Position of the adversarial image.
    pub attacked: [f32; 2],
    /// Class predicted for the clean image.
    pub predicted: usize,
    /// Class predicted for the adversarial image.
    pub predicted_attacked: usize,
}

/// The positions of images in two dimensions.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureMap {
    /// One point for each image.
    pub points: Vec<MapPoint>,
}

/// Maps the features of the chosen images and of their PGD images. None where there are too few
/// images.
///
/// Features are compared by direction, as the contrastive losses and nearest neighbours do. The map
/// is computed on one thread, from a start that depends on the seed alone, and is the same each
/// time.
///
/// # Errors
/// [`crate::Error::Interrupted`].
pub fn feature_map(
    model: &ReportedModel,
    split: &Split,
    chosen: &[usize],
    attacker: Attacker,
    batch_size: usize,
    context: &mut Context,
) -> Result<Option<FeatureMap>> {
    if chosen.len() < FEWEST {
        return Ok(None);
    }
    let name = format!("{}/map", model.row.classifier);
    let mut stage = StageProgress::new(&name, chosen.len());
    let (mut clean, mut moved) = (Vec::new(), Vec::new());
    let (mut predicted, mut predicted_attacked) = (Vec::new(), Vec::new());
    let mut length = 0;
    stage.by_batch(chosen, batch_size, context, |indices, context| {
        let images = to_tensor(split.images.batch(indices), &context.device);
        let attacked = attacked(model, split, indices, attacker, context);
        predicted.extend(predictions(model.classifier.logits(images.clone())));
        predicted_attacked.extend(predictions(model.classifier.logits(attacked.clone())));
        for (images, all) in [(images, &mut clean), (attacked, &mut moved)] {
            let features = model.encoder.features(images);
            length = features.dims()[1];
            all.extend(to_vec(unit_rows(features)));
        }
        Ok(())
    })?;
    clean.extend(moved);
    let points: Vec<&[f32]> = clean.chunks(length).collect();
    let at = embed(&points, context.seed);
    let count = chosen.len();
    let point = |(row, &index): (usize, &usize)| MapPoint {
        label: split.labels[index],
        clean: at[row],
        attacked: at[count + row],
        predicted: predicted[row],
        predicted_attacked: predicted_attacked[row],
    };
    let points = chosen.iter().enumerate().map(point).collect();
    Ok(Some(FeatureMap { points }))
}

/// Embeds points in two dimensions by t-SNE.
fn embed(points: &[&[f32]], seed: u64) -> Vec<[f32; 2]> {
    let mut rng = random::generator(seed, "report/tsne", 0);
    let start: Vec<f32> = (0..2 * points.len())
        .map(|_| 1e-4 * rng.sample::<f32, _>(StandardNormal))
        .collect();
    let squared = |a: &&[f32], b: &&[f32]| a.iter().zip(*b).map(|(a, b)| (a - b) * (a - b)).sum();
    let fit = || {
        let mut tsne: tSNE<f32, &[f32]> = tSNE::new(points);
        tsne.perplexity(PERPLEXITY.min((points.len() - 1) as f32 / 3.0 - 0.01))
            .epochs(EPOCHS)
            .initial_embedding(start.clone())
            .exact(squared);
        tsne.embedding()
    };
    // Sums by several threads differ in their last bits, which t-SNE amplifies to another map.
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let flat = one.map_or_else(|_| fit(), |pool| pool.install(fit));
    flat.chunks_exact(2).map(|at| [at[0], at[1]]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_together_and_the_map_is_the_same_each_time() {
        let mut rng = random::generator(1, "test", 0);
        let points: Vec<[f32; 3]> = (0..40)
            .map(|i| {
                let mut noise = || 0.05 * rng.sample::<f32, _>(StandardNormal);
                let centre = if i < 20 { 1.0 } else { -1.0 };
                [centre + noise(), noise(), noise()]
            })
            .collect();
        let points: Vec<&[f32]> = points.iter().map(<[f32; 3]>::as_slice).collect();
        let map = embed(&points, 0);
        assert_eq!(map, embed(&points, 0));
        let distance = |a: [f32; 2], b: [f32; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
        for i in 0..40 {
            let nearest = (0..40)
                .filter(|&j| j != i)
                .min_by(|&a, &b| distance(map[i], map[a]).total_cmp(&distance(map[i], map[b])));
            assert_eq!(nearest.map(|j| j < 20), Some(i < 20), "{map:?}");
        }
        // The fewest that are mapped.
        assert_eq!(embed(&points[..2 * FEWEST], 0).len(), 2 * FEWEST);
    }
}
