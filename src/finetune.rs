//! Standard linear finetuning (SLF): a linear classifier on a frozen encoder, on clean images.

use burn::tensor::{Device, Tensor};

use crate::cluster::label_tensor;
use crate::data::augment::Weak;
use crate::data::{Images, Split};
use crate::error::Result;
use crate::loss::cross_entropy;
use crate::nn::{Encoder, FrozenEncoder, Linear, Route};
use crate::train::{Context, Loss, Objective, Step, to_tensor};

/// Features of all images, in evaluation mode. `[images, features]`, on the context's device.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) when asked to stop.
pub fn features(
    stage: &str,
    encoder: &Encoder,
    route: Route,
    images: &Images,
    batch_size: usize,
    context: &mut Context,
) -> Result<Tensor<2>> {
    let encoder = FrozenEncoder::new(encoder, route);
    let indices: Vec<usize> = (0..images.len()).collect();
    let mut features = Vec::new();
    let mut done = 0;
    for chunk in indices.chunks(batch_size) {
        let batch = to_tensor(images.batch(chunk), &context.device);
        features.push(encoder.features(batch));
        done += chunk.len();
        context.progress(&format!("{stage}/features"), done, images.len(), "images")?;
    }
    Ok(Tensor::cat(features, 0))
}

/// The objective: cross-entropy of a linear classifier. The encoder is no part of what is trained, so neither its
/// weights nor its statistics can move.
pub struct LinearProbe<'a> {
    encoder: FrozenEncoder,
    split: &'a Split,
    /// Of all images, where nothing about them changes.
    cached: Option<Tensor<2>>,
    device: Device,
}

impl<'a> LinearProbe<'a> {
    /// With `cached`, the [`features`] of all images, these are what the classifier sees; without, images are
    /// cropped and flipped at random and their features computed for each batch.
    pub fn new(
        encoder: &Encoder,
        route: Route,
        split: &'a Split,
        cached: Option<Tensor<2>>,
        device: &Device,
    ) -> Self {
        Self {
            encoder: FrozenEncoder::new(encoder, route),
            split,
            cached,
            device: device.clone(),
        }
    }
}

impl Objective for LinearProbe<'_> {
    type Model = Linear;

    fn loss(&self, step: Step<Linear>) -> Loss {
        let features = match &self.cached {
            Some(all) => all
                .clone()
                .select(0, label_tensor(step.indices, &self.device)),
            None => {
                let batch = Weak::default().apply(&self.split.images, step.indices, step.rng);
                let batch = to_tensor(batch, &self.device);
                self.encoder.features(batch)
            }
        };
        let labels: Vec<usize> = step.indices.iter().map(|&i| self.split.labels[i]).collect();
        let labels = label_tensor(&labels, &self.device);
        let total = cross_entropy(step.live.forward(features), labels);
        Loss {
            total,
            parts: Vec::new(),
        }
    }
}
