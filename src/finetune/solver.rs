//! The closed road to the linear classifier on clean images: logistic regression instead of steps.

use burn::module::Param;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::{ClassWeights, require_finite};
use crate::error::Result;
use crate::logistic::{self, Examples, STRENGTHS};
use crate::nn::Linear;
use crate::session::Context;
use crate::tensor::to_vec;

/// Way to the linear classifier on a frozen encoder.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Solver {
    /// Steps of a plan, on batches.
    #[default]
    Sgd,
    /// Multinomial logistic regression by L-BFGS, its L2 penalty chosen by cross-validation; for clean images without
    /// augmentation. No plan is needed.
    Lbfgs,
}

impl Solver {
    /// Whether steps of a plan are taken.
    pub fn is_sgd(&self) -> bool {
        *self == Self::Sgd
    }
}

/// Fits a linear classifier on features `[images, features]` by [`logistic::fit`]. Says which penalty was chosen.
///
/// # Errors
/// As [`require_finite`]; [`Error::Interrupted`](crate::Error::Interrupted) when asked to stop.
pub fn closed(
    stage: &str,
    features: Tensor<2>,
    labels: &[usize],
    classes: usize,
    weights: ClassWeights,
    context: &mut Context,
) -> Result<Linear> {
    let width = features.dims()[1];
    let features = to_vec(features);
    let name = |image: usize| format!("labeled image {image}");
    require_finite(stage, &features, labels.len(), name)?;
    let examples = Examples {
        features: &features,
        labels,
        weights: &weights.of(labels, classes),
    };
    let (seed, stop) = (context.seed, context.stop);
    let chosen = logistic::fit(examples, seed, stop, |done| {
        context.progress(&format!("{stage}/lbfgs"), done, STRENGTHS, "penalties")
    })?;
    let strength = chosen.strength;
    let text = match chosen.held_out {
        Some(loss) => format!(
            "L2 penalty {strength:.1e}, by cross-validation (cross-entropy {loss:.3} on held-out images)"
        ),
        None => format!("L2 penalty {strength:.1e}: no class has images to hold out"),
    };
    context.note(stage, text);
    let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<_>>();
    let (weight, bias) = (narrow(&chosen.fitted.weight), narrow(&chosen.fitted.bias));
    let weight = TensorData::new(weight, [classes, width]);
    let bias = TensorData::new(bias, [classes]);
    Ok(Linear {
        weight: Param::from_tensor(Tensor::from_data(weight, &context.device)),
        bias: Param::from_tensor(Tensor::from_data(bias, &context.device)),
    })
}
