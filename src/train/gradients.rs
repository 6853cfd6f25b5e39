//! Gradients of a model's weights, by parameter.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients, Tensor};

use crate::nn::gradients_by_id;
use crate::tensor::{sums_over_shards, to_vec};
use crate::weights;

/// Gradients of those of a model's parameters that have one, each as `[values]`.
#[derive(Default)]
pub struct WeightGradients {
    pub(super) by_id: HashMap<ParamId, Tensor<1>>,
}

impl From<HashMap<ParamId, Tensor<1>>> for WeightGradients {
    fn from(by_id: HashMap<ParamId, Tensor<1>>) -> Self {
        Self { by_id }
    }
}

impl WeightGradients {
    /// Those of `tracked`, a model with autodiff, among the gradients of a backward pass.
    pub fn of<M: Module>(tracked: &M, gradients: &Gradients) -> Self {
        gradients_by_id(tracked, gradients).into()
    }

    /// The sum with the gradients of another part of the loss.
    pub fn plus(mut self, other: Self) -> Self {
        for (id, more) in other.by_id {
            let sum = match self.by_id.remove(&id) {
                Some(gradient) => gradient + more,
                None => more,
            };
            self.by_id.insert(id, sum);
        }
        self
    }

    /// The sum over all shards of all ranks, in the order of the shards; `own` are those of this rank's. Ranks name the
    /// parameters each in its own way: `model` has them in one order.
    pub fn sum_of_all<M: Module>(model: &M, own: impl Iterator<Item = Self>) -> Self {
        let (ids, mut found) = (Ids::of(model), Vec::new());
        let in_order = own.map(|mut of_shard| {
            let pairs = (ids.iter()).filter_map(|id| Some((*id, of_shard.by_id.remove(id)?)));
            let (with, values): (Vec<ParamId>, _) = pairs.unzip();
            assert!(
                found.is_empty() || found == with,
                "every shard has the same"
            );
            found = with;
            values
        });
        let sums = sums_over_shards("gradients", in_order);
        Self {
            by_id: found.into_iter().zip(sums).collect(),
        }
    }

    /// Their values by the parameters' published names.
    pub fn named<M: Module>(mut self, model: &M) -> HashMap<String, Vec<f32>> {
        let take = |(name, id): (String, ParamId)| Some((name, to_vec(self.by_id.remove(&id)?)));
        ids(model).into_iter().filter_map(take).collect()
    }
}

/// The gradients of those parameters that have one, by the parameters' published names.
pub fn named_gradients<M: Module>(tracked: &M, gradients: &Gradients) -> HashMap<String, Vec<f32>> {
    WeightGradients::of(tracked, gradients).named(tracked)
}

/// The parameters' identities, by their published names.
pub(super) fn ids<M: Module>(model: &M) -> HashMap<String, ParamId> {
    let mut names = Vec::new();
    weights::visit(model, |name, _, _| names.push(name));
    names.into_iter().zip(Ids::of(model)).collect()
}

/// Identities of a model's parameters.
struct Ids(Vec<ParamId>);

impl Ids {
    /// In the order of the model.
    fn of<M: Module>(model: &M) -> Vec<ParamId> {
        let mut found = Self(Vec::new());
        model.visit(&mut found);
        found.0
    }
}

impl ModuleVisitor for Ids {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.id);
    }
}
