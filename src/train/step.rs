//! One step: the loss of a batch, its gradients, the update.

use burn::module::Module;
use burn::tensor::Device;
use rand::rngs::ChaCha8Rng;

use super::gradients::WeightGradients;
use super::objective::{Loss, Objective, Seen, Step};
use super::sgd::Sgd;
use crate::nn::{Shards, Statistics};

/// Images of a step, and how they are computed.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// Which images.
    pub indices: &'a [usize],
    /// Counted from 0.
    pub epoch: usize,
    /// Most images that pass an encoder at once; all of them without it.
    pub micro_batch: Option<usize>,
    /// Where tensors live.
    pub device: &'a Device,
}

/// A loss, and what its way back leaves.
pub struct Differentiated {
    /// The loss.
    pub loss: Loss,
    /// Its gradients with respect to the model's weights.
    pub gradients: WeightGradients,
    /// Statistics that the running ones shall follow.
    pub statistics: Statistics,
}

/// The loss of a batch and its gradients.
///
/// In micro-batches the loss is computed of features that are the beginning of its graph. Then every shard of the batch
/// passes the encoder again, view after view, and the gradients of the weights are summed: within a shard first, then over
/// the shards, in their order. That is the order in which several machines with a shard each could sum them.
pub fn differentiate<O: Objective>(
    objective: &O,
    model: &O::Model,
    batch: Batch,
    rng: &mut ChaCha8Rng,
) -> Differentiated {
    let shards = Shards::new(batch.indices.len(), batch.micro_batch);
    let mut statistics = Statistics::in_shards(shards);
    let tracked = model.clone().train();
    let loss = objective.loss(Step {
        tracked: &tracked,
        detached: model,
        indices: batch.indices,
        epoch: batch.epoch,
        rng,
        device: batch.device,
        statistics: &mut statistics,
        seen: &mut Seen::default(),
    });
    let of_loss = loss.total.backward();
    let mut gradients = WeightGradients::of(&tracked, &of_loss);
    let passes = statistics.take_deferred();
    for images in shards.ranges() {
        let of_passes = passes
            .iter()
            .filter_map(|pass| pass.backward(shards, &images, &of_loss))
            .map(|found| WeightGradients::of(&tracked, &found));
        let of_shard = of_passes.fold(WeightGradients::default(), WeightGradients::plus);
        gradients = gradients.plus(of_shard);
    }
    Differentiated {
        loss,
        gradients,
        statistics,
    }
}

/// One step: the loss of a batch, its gradients, the update of weights and of running statistics.
pub fn update<O: Objective>(
    objective: &O,
    model: O::Model,
    sgd: &mut Sgd,
    lr: f64,
    batch: Batch,
    rng: &mut ChaCha8Rng,
) -> (O::Model, Loss) {
    let Differentiated {
        loss,
        gradients,
        statistics,
    } = differentiate(objective, &model, batch, rng);
    let model = objective.before_update(model);
    let model = sgd.apply(lr, model, gradients);
    (statistics.absorb_into(model), loss)
}
