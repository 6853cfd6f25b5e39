//! A term that holds an encoder near the weights that its training began at.

use burn::tensor::Tensor;

use crate::error::Result;
use crate::loss::cosine;
use crate::nn::FrozenEncoder;
use crate::session::Context;
use crate::train::{Loss, Objective, Seen, Step};

/// The pull towards a frozen start: `−mean cos(f(v), s(x))` over the views v of a step, where f(v) are the features of a
/// view, with gradients, and s(x) those of the start, in evaluation mode, of the image x that the view was before an
/// attack or a filter.
///
/// For a clean view, x is the view itself, and this is DeACL's first term, −cos(S(x), T(x)) (Zhang et al., ECCV 2022). For
/// an adversarial view x′ it is −cos(S(x′), T(x)), which DeACL's attack raises and its two terms lower by way of S(x). Every
/// view counts alike; one that a method forwards twice counts once.
///
/// # Shapes
/// Each element of `groups`: the start's features of clean images and the features of their views, `[batch, features]`.
/// Returns `[1]`, from −1 to 1; none for no views.
pub(crate) fn pull_term(groups: Vec<(Tensor<2>, Vec<Tensor<2>>)>) -> Option<Tensor<1>> {
    let views: usize = groups.iter().map(|(_, views)| views.len()).sum();
    let cosines = groups.into_iter().flat_map(|(start, views)| {
        let views = views.into_iter();
        views.map(move |features| cosine(features, start.clone()))
    });
    let sum = cosines.reduce(|sum, next| sum + next)?;
    Some(-sum / views as f64)
}

/// Objective with the pull added to its loss, where there is one.
pub(super) struct Pulled<'a, O> {
    pub objective: &'a O,
    /// The frozen start and the term's weight.
    pub start: Option<(FrozenEncoder, f64)>,
}

impl<O: Objective> Objective for Pulled<'_, O> {
    type Model = O::Model;

    fn loss(&self, step: Step<O::Model>) -> Loss {
        let Some((start, weight)) = &self.start else {
            return self.objective.loss(step);
        };
        let (mut seen, shards) = (Seen::wanted(), step.shards());
        let Loss { total, mut parts } = self.objective.loss(Step {
            seen: &mut seen,
            ..step
        });
        let groups = seen.into_groups().into_iter();
        let groups = groups.map(|(clean, views)| {
            let held = shards.map(clean, |clean| start.features(clean));
            (held, views)
        });
        let Some(term) = pull_term(groups.collect()) else {
            return Loss { total, parts };
        };
        parts.push(("pull", term.clone()));
        Loss {
            total: total + term * *weight,
            parts,
        }
    }

    fn before_update(&self, model: O::Model) -> O::Model {
        self.objective.before_update(model)
    }

    fn encodes(&self) -> bool {
        self.objective.encodes()
    }

    fn after_epoch(
        &self,
        stage: &str,
        model: &O::Model,
        epoch: usize,
        context: &mut Context,
    ) -> Result<Vec<(&'static str, f32)>> {
        self.objective.after_epoch(stage, model, epoch, context)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::device;
    use crate::tensor::to_vec;

    /// Rows of `[batch, 2]`.
    fn rows(values: &[[f32; 2]]) -> Tensor<2> {
        let device = device::open("cpu").expect("the CPU");
        let data = TensorData::new(values.concat(), [values.len(), 2]);
        Tensor::from_data(data, &device)
    }

    #[test]
    fn its_value_and_its_gradient_are_those_worked_out_by_hand() {
        let start = rows(&[[1.0, 0.0], [0.0, 2.0]]);
        // cos: 3/5 and 1; then 0 and -1. The mean of the four is 3/20.
        let [near, far] = [[[3.0, 4.0], [0.0, 0.5]], [[0.0, 7.0], [0.0, -4.0]]]
            .map(|values| rows(&values).autodiff().require_grad());
        let groups = vec![(start, vec![near.clone(), far.clone()])];
        let term = pull_term(groups).expect("two views");
        assert!((to_vec(term.clone())[0] + 0.15).abs() < 1e-6);
        let gradients = term.backward();
        // d cos(f, s)/df = (s/|s| - cos f/|f|)/|f|, here over four views and negative.
        for (features, expected) in [
            (near, [-0.032, 0.024, 0.0, 0.0]),
            (far, [-1.0 / 28.0, 0.0, 0.0, 0.0]),
        ] {
            let found = to_vec(features.grad(&gradients).expect("a gradient"));
            for (found, expected) in found.into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
            }
        }
        assert!(pull_term(Vec::new()).is_none());
    }

    #[test]
    fn groups_count_by_their_views() {
        let (along, across) = (rows(&[[1.0, 0.0]]), rows(&[[0.0, 1.0]]));
        let groups = vec![
            (along.clone(), vec![along.clone()]),
            (along.clone(), vec![across.clone(), across.clone(), along]),
        ];
        let term = pull_term(groups).expect("four views");
        assert!((to_vec(term)[0] + 0.5).abs() < 1e-6);
    }
}
