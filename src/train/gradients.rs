//! Gradients of a model's weights, by parameter.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients, Tensor};

use crate::tensor::to_vec;
use crate::weights;

/// Gradients of those of a model's parameters that have one, each as `[values]`.
#[derive(Default)]
pub struct WeightGradients {
    pub(super) by_id: HashMap<ParamId, Tensor<1>>,
}

impl WeightGradients {
    /// Those of `tracked`, a model with autodiff, among the gradients of a backward pass.
    pub fn of<M: Module>(tracked: &M, gradients: &Gradients) -> Self {
        struct Collect<'a> {
            gradients: &'a Gradients,
            found: WeightGradients,
        }
        impl ModuleVisitor for Collect<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(gradient) = param.val().grad(self.gradients) {
                    let gradient = gradient.reshape([-1]);
                    self.found.by_id.insert(param.id, gradient);
                }
            }
        }
        let mut collect = Collect {
            gradients,
            found: Self::default(),
        };
        tracked.visit(&mut collect);
        collect.found
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
    struct Ids(Vec<ParamId>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.id);
        }
    }
    let mut found = Ids(Vec::new());
    model.visit(&mut found);
    let mut names = Vec::new();
    weights::visit(model, |name, _, _| names.push(name));
    names.into_iter().zip(found.0).collect()
}
