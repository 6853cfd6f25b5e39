//! Standard linear finetuning (SLF): a linear classifier on a frozen encoder, on clean images.

use burn::tensor::{Device, Tensor};

use crate::cluster::label_tensor;
use crate::data::augment::Weak;
use crate::data::{Images, Split};
use crate::loss::cross_entropy;
use crate::nn::{Encoder, Linear, Mode, Route};
use crate::train::{Loss, Objective, Step, to_tensor};

/// Features of all images, in evaluation mode. `[images, features]`, on `device`.
pub fn features(
    encoder: &Encoder,
    route: Route,
    images: &Images,
    batch_size: usize,
    device: &Device,
) -> Tensor<2> {
    let indices: Vec<usize> = (0..images.len()).collect();
    let batches = indices.chunks(batch_size).map(|chunk| {
        let batch = to_tensor(images.batch(chunk), device);
        encoder.features(batch, route, &mut Mode::Eval)
    });
    Tensor::cat(batches.collect(), 0)
}

/// The objective: cross-entropy of a linear classifier. The encoder is no part of what is trained, so neither its
/// weights nor its statistics can move.
pub struct LinearProbe<'a> {
    encoder: &'a Encoder,
    route: Route,
    split: &'a Split,
    /// Of all images, where nothing about them changes.
    cached: Option<Tensor<2>>,
    device: Device,
}

impl<'a> LinearProbe<'a> {
    /// With `augment`, images are cropped and flipped at random and their features computed for each batch;
    /// without, they are computed once.
    pub fn new(
        encoder: &'a Encoder,
        route: Route,
        split: &'a Split,
        augment: bool,
        batch_size: usize,
        device: &Device,
    ) -> Self {
        let all = || features(encoder, route, &split.images, batch_size, device);
        Self {
            encoder,
            route,
            split,
            cached: (!augment).then(all),
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
                self.encoder.features(batch, self.route, &mut Mode::Eval)
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
