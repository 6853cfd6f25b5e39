//! One step: the loss of a batch, its gradients, the update.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::rngs::ChaCha8Rng;

use super::gradients::WeightGradients;
use super::objective::{Loss, Objective, Seen, Step};
use super::sgd::Sgd;
use crate::nn::{Deferred, Shards, Statistics};

/// Images of a step, and how they are computed.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// Which images.
    pub indices: &'a [usize],
    /// Counted from 0.
    pub epoch: usize,
    /// How the images are cut for the encoder.
    pub shards: Shards,
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
/// Where the batch is cut, the loss is computed of features that are the beginning of its graph. Then its gradient goes back
/// through every shard, view after view, and the gradients of the weights are summed: within a shard first, then over the
/// shards, in their order, wherever they are.
pub fn differentiate<O: Objective>(
    objective: &O,
    model: &O::Model,
    batch: Batch,
    rng: &mut ChaCha8Rng,
) -> Differentiated {
    let shards = batch.shards;
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
    let of_heads = WeightGradients::of(&tracked, &of_loss);
    let passes = statistics.take_deferred();
    let passes: Vec<(Deferred, Tensor<2>)> = (passes.into_iter())
        .filter_map(|pass| pass.wanted(&of_loss).map(|wanted| (pass, wanted)))
        .collect();
    let of_shards = shards.each_own(|place, images| {
        let of_passes = passes.iter().map(|(pass, wanted)| {
            WeightGradients::from(pass.backward(shards, (place, images), wanted))
        });
        of_passes.fold(WeightGradients::default(), WeightGradients::plus)
    });
    let of_encoder = WeightGradients::sum_of_all(&tracked, of_shards);
    Differentiated {
        loss,
        gradients: of_heads.plus(of_encoder),
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
