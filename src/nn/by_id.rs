//! Gradients of a module's parameters.

use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients, Tensor};

/// The gradients of those of a module's parameters that have one, each as `[values]`.
pub fn gradients_by_id<M: Module>(
    module: &M,
    gradients: &Gradients,
) -> HashMap<ParamId, Tensor<1>> {
    struct Collect<'a> {
        gradients: &'a Gradients,
        found: HashMap<ParamId, Tensor<1>>,
    }
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(self.gradients) {
                self.found.insert(param.id, gradient.reshape([-1]));
            }
        }
    }
    let mut collect = Collect {
        gradients,
        found: HashMap::new(),
    };
    module.visit(&mut collect);
    collect.found
}
