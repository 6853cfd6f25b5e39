//! The loss around an image: along the sign of its gradient, as attacks change it, and along a
//! random direction (AdvCL, Fan et al., NeurIPS 2021, section 5, figure on loss landscapes).

use burn::tensor::{Tensor, TensorData};
use rand::RngExt;

use super::ReportedModel;
use crate::attack::Ball;
use crate::attack::pgd::gradient;
use crate::data::Split;
use crate::error::Result;
use crate::logits::{self, LogitRows};
use crate::loss::cross_entropy_each;
use crate::random;
use crate::session::Context;
use crate::tensor::{label_tensor, to_tensor, to_vec};

/// Number of points along each direction.
const SIDE: usize = 21;

/// Loss and margin on a square around an image.
#[derive(Clone, Debug, PartialEq)]
pub struct LossSurface {
    /// Index of the image in the split.
    pub index: usize,
    /// Its class.
    pub label: usize,
    /// Distances of the points from the image along either direction, in pixels.
    pub at: Vec<f64>,
    /// Distance along either direction at which the radius is reached.
    pub edge: f64,
    /// Cross-entropy of the image's class in nats, `[random direction][gradient's sign]`.
    pub loss: Vec<Vec<f32>>,
    /// Logit of the image's class less the largest other one; below zero the prediction is wrong.
    pub margin: Vec<Vec<f32>>,
}

/// Evaluates the loss around the image at `index`, along the sign of its gradient and along a
/// random sign for each value, up to `reach` times the radius of `ball`. Points are clamped into
/// [0, 1], since a classifier gets images only.
///
/// # Errors
/// [`crate::Error::Interrupted`]; [`crate::Error::Logits`].
pub fn surface(
    model: &ReportedModel,
    split: &Split,
    index: usize,
    (ball, reach): (Ball, f64),
    context: &mut Context,
) -> Result<LossSurface> {
    let device = context.device.clone();
    let image = to_tensor(split.images.batch(&[index]), &device);
    let label = split.labels[index];
    let classifier = &model.classifier;
    let losses = |logits: Tensor<2>| {
        let labels = vec![label; logits.dims()[0]];
        cross_entropy_each(logits, label_tensor(&labels, &device))
    };
    let uphill = gradient(&mut |x| losses(classifier.logits(x)).sum(), image.clone()).sign();
    let mut rng = random::generator(context.seed, "report/surface", index as u64);
    let signs: Vec<f32> = (0..split.images.image_len())
        .map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 })
        .collect();
    let aside = Tensor::<4>::from_data(TensorData::new(signs, image.dims()), &device);
    // Every value changes alike: within L2 by a small part of the radius.
    let edge = ball.even_change(split.images.image_len());
    let reach = reach * edge;
    let step = 2.0 * reach / (SIDE - 1) as f64;
    let at: Vec<f64> = (0..SIDE).map(|i| i as f64 * step - reach).collect();
    let (mut loss, mut margin) = (Vec::new(), Vec::new());
    for (row, &far) in at.iter().enumerate() {
        let side = image.clone() + aside.clone() * far;
        let points = at
            .iter()
            .map(|&along| side.clone() + uphill.clone() * along);
        let points = Tensor::cat(points.collect(), 0).clamp(0.0, 1.0);
        let logits = classifier.logits(points);
        let rows = LogitRows::read(logits.clone());
        rows.require_finite("report/surface", &[index; SIDE])?;
        // One class alone is never wrong: its margin is infinite, and drawn as 1.
        let margins = rows.rows().map(|row| logits::margin(row, label));
        margin.push(
            margins
                .map(|m| if m.is_finite() { m } else { 1.0 })
                .collect(),
        );
        loss.push(to_vec(losses(logits)));
        let stage = format!("{}/surface", model.row.classifier);
        context.progress(&stage, row + 1, SIDE, "lines")?;
    }
    Ok(LossSurface {
        index,
        label,
        at,
        edge,
        loss,
        margin,
    })
}
