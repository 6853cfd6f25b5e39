//! Weights of classes that have unequal numbers of images.

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// How much each class counts in the cross-entropy with the labels.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ClassWeights {
    /// Every image counts alike.
    #[default]
    None,
    /// Every class counts alike: an image counts n / (k · n_c), with n images, k classes, and n_c images of its
    /// class (scikit-learn's `class_weight="balanced"`).
    Balanced,
}

impl ClassWeights {
    /// Whether every image counts alike.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Weight of each class that has images among `labels`; their mean over the images is 1. Classes without images
    /// do not count as classes.
    pub fn of(self, labels: &[usize], classes: usize) -> Vec<f64> {
        let mut images = vec![0usize; classes];
        labels.iter().for_each(|&label| images[label] += 1);
        let present = images.iter().filter(|count| **count > 0).count();
        let weight = |count: usize| match self {
            Self::Balanced if count > 0 => labels.len() as f64 / (present * count) as f64,
            _ => 1.0,
        };
        images.into_iter().map(weight).collect()
    }

    /// Targets `[images, classes]` times the weight of each class: the cross-entropy with these is the weighted one.
    pub fn weigh(self, targets: Tensor<2>, labels: &[usize]) -> Tensor<2> {
        if self.is_none() {
            return targets;
        }
        let (classes, device) = (targets.dims()[1], targets.device());
        let weights = self.of(labels, classes).into_iter();
        let weights: Vec<f32> = weights.map(|weight| weight as f32).collect();
        targets * Tensor::<2>::from_data(TensorData::new(weights, [1, classes]), &device)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::criterion::one_hot;
    use crate::device;
    use crate::loss::soft_cross_entropy;
    use crate::tensor::to_vec;

    #[test]
    fn weights_are_those_of_scikit_learn() {
        // compute_class_weight("balanced", classes=[0, 1, 2], y=[0, 0, 0, 1, 2, 2]).
        let labels = [0, 0, 0, 1, 2, 2];
        let found = ClassWeights::Balanced.of(&labels, 3);
        assert_eq!(found, [2.0 / 3.0, 2.0, 1.0]);
        assert_eq!(ClassWeights::None.of(&labels, 3), [1.0; 3]);
        assert_eq!(ClassWeights::Balanced.of(&[0, 2, 2], 3), [1.5, 1.0, 0.75]);
    }

    #[test]
    fn the_loss_is_the_weighted_mean_by_hand() {
        let device = device::open("cpu").expect("the CPU");
        let labels = [0, 0, 0, 1];
        // Probabilities of the label: 1/2, 1/2, 1/2, 1/4.
        let three = 3.0f32.ln();
        let logits = [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [three, 0.0]];
        let loss = |weights: ClassWeights| {
            let targets = weights.weigh(one_hot(&labels, 2, &device), &labels);
            to_vec(soft_cross_entropy(
                Tensor::from_data(logits, &device),
                targets,
            ))[0]
        };
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a}, expected {b}");
        let (half, quarter) = (2.0f32.ln(), 4.0f32.ln());
        near(loss(ClassWeights::None), (3.0 * half + quarter) / 4.0);
        // Weights 4 / (2 · 3) and 4 / (2 · 1): the mean of the classes' means.
        near(loss(ClassWeights::Balanced), (half + quarter) / 2.0);
    }
}
