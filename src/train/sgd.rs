//! Stochastic gradient descent, LARS, and schedules of the learning rate.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Gradients, Tensor};
use serde::{Deserialize, Serialize};

use super::gradients::WeightGradients;
use crate::nn;

/// Stochastic gradient descent with momentum and L2 weight decay, in PyTorch's form.
///
/// Burn's optimizer keeps its velocity private, so a checkpoint could not store it under the
/// parameter's name.
pub struct Sgd {
    /// Momentum: share of the velocity that remains at each step.
    pub momentum: f64,
    /// Weight decay: the weight times this is added to its gradient.
    pub weight_decay: f64,
    /// SGD or LARS.
    pub optimizer: Optimizer,
    pub(super) velocity: HashMap<ParamId, Tensor<1>>,
}

impl Sgd {
    /// An optimizer with zero velocity.
    pub fn new(momentum: f64, weight_decay: f64, optimizer: Optimizer) -> Self {
        Self {
            momentum,
            weight_decay,
            optimizer,
            velocity: HashMap::new(),
        }
    }

    /// The gradient with weight decay, scaled if the optimizer is LARS.
    fn scaled(&self, gradient: Tensor<1>, weight: &Tensor<1>) -> Tensor<1> {
        let decay = self.weight_decay;
        match self.optimizer {
            Optimizer::Sgd => gradient + weight.clone() * decay,
            Optimizer::Lars => {
                let length = |x: &Tensor<1>| x.clone().square().sum().sqrt();
                let (of_weight, of_gradient) = (length(weight), length(&gradient));
                // The ratio means nothing if one of the two lengths is zero.
                let undefined = of_weight
                    .clone()
                    .equal_elem(0.0)
                    .bool_or(of_gradient.clone().equal_elem(0.0));
                let rate = of_weight.clone() * TRUST / (of_gradient + of_weight * decay);
                let rate = rate.mask_fill(undefined, 1.0);
                (gradient + weight.clone() * decay) * rate
            }
        }
    }

    /// Updates those parameters of `model` that have a gradient in `tracked`, the same model with
    /// autodiff.
    pub fn step<M: Module>(&mut self, lr: f64, model: M, tracked: &M, gradients: &Gradients) -> M {
        self.apply(lr, model, WeightGradients::of(tracked, gradients))
    }

    /// Updates those parameters of `model` that have a gradient.
    pub fn apply<M: Module>(&mut self, lr: f64, model: M, gradients: WeightGradients) -> M {
        let mut update = Update {
            sgd: self,
            lr,
            gradients: gradients.by_id,
            convolutions: false,
        };
        let model = model.map(&mut update);
        // A linear classifier does not change them, and continues to use the packed weights.
        if update.convolutions {
            nn::weights_replaced();
        }
        model
    }
}

struct Update<'a> {
    sgd: &'a mut Sgd,
    lr: f64,
    gradients: HashMap<ParamId, Tensor<1>>,
    /// Whether the weights of a convolution were updated.
    convolutions: bool,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.remove(&param.id) else {
            return param;
        };
        let id = param.id;
        self.convolutions |= D == 4;
        param.map(|weight| {
            let shape = weight.dims();
            let weight = weight.reshape([-1]);
            let gradient = self.sgd.scaled(gradient, &weight);
            let velocity = match self.sgd.velocity.remove(&id) {
                Some(velocity) => velocity * self.sgd.momentum + gradient,
                None => gradient,
            };
            self.sgd.velocity.insert(id, velocity.clone());
            (weight - velocity * self.lr).reshape(shape)
        })
    }
}

/// Schedule of the learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Cosine from `lr` to `lr / 1000`, after a linear warm-up from `warmup_from`.
    ///
    /// The rate changes at every step; in AdvCL's released code it changes once an epoch after the
    /// warm-up, which makes a difference with few epochs.
    Cosine {
        /// Epochs of warm-up, which are part of the plan's epochs.
        #[serde(default)]
        warmup_epochs: usize,
        /// Learning rate of the first step.
        #[serde(default)]
        warmup_from: f64,
    },
    /// Steps: the rate is divided by ten after each milestone.
    Steps {
        /// Epochs, counted from 1.
        milestones: Vec<usize>,
    },
}

impl Schedule {
    /// Learning rate at `progress` epochs, whole and fraction, out of `epochs`.
    pub fn rate(&self, lr: f64, progress: f64, epochs: usize) -> f64 {
        match self {
            Self::Cosine {
                warmup_epochs,
                warmup_from,
            } => {
                let floor = lr / 1000.0;
                let cosine = |at: f64| {
                    let turn = std::f64::consts::PI * at / epochs as f64;
                    floor + (lr - floor) * (1.0 + turn.cos()) / 2.0
                };
                let warmup = *warmup_epochs as f64;
                if progress < warmup {
                    warmup_from + (cosine(warmup) - warmup_from) * progress / warmup
                } else {
                    cosine(progress)
                }
            }
            Self::Steps { milestones } => {
                let passed = milestones.iter().filter(|m| progress >= **m as f64).count();
                lr * 0.1f64.powi(passed as i32)
            }
        }
    }
}

/// LARS' trust coefficient, η in the paper: the length of an update relative to that of its
/// weights, at a learning rate of 1.
const TRUST: f64 = 1e-3;

/// Optimizer: the scaling of gradients before momentum.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Stochastic gradient descent.
    #[default]
    Sgd,
    /// Layer-wise adaptive rates (You, Gitman, Ginsburg, 2017): the gradient of each parameter,
    /// with weight decay, is scaled to a thousandth of the parameter's length.
    ///
    /// The learning rate multiplies after momentum, as in torchlars, which RoCL uses. Algorithm 1
    /// of the paper and ACL's code multiply before it; both agree while the rate is constant. It
    /// applies to all parameters, as in the released code of RoCL, ACL and DynACL; SimCLR's exempts
    /// biases and normalization.
    Lars,
}

impl Optimizer {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Plan of a training: epochs, batch size and optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Number of passes over the images.
    pub epochs: usize,
    /// Images in a step; the images that remain in an epoch are left out.
    pub batch_size: usize,
    /// Most images of a batch that pass the encoder at once; all of them by default.
    ///
    /// Less memory and the gradient of the whole batch's loss, for more time: features are computed in parts, then again
    /// for the way back (GradCache; Gao et al., 2021). BatchNorm sees each part for itself, and its running statistics
    /// follow the mean of the parts', so results are not those without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Largest learning rate of the schedule.
    pub lr: f64,
    /// Schedule of the learning rate.
    pub schedule: Schedule,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay, as L2 in the gradient.
    pub weight_decay: f64,
    /// SGD by default, or LARS, whose learning rates are larger: 1.5 for RoCL, 5 for ACL and
    /// DynACL.
    #[serde(default, skip_serializing_if = "Optimizer::is_default")]
    #[schemars(extend("default" = "sgd"))]
    pub optimizer: Optimizer,
    /// Epochs at which a finished training was continued for more: until each of them the schedule
    /// ran as if it were the last epoch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("default" = []))]
    pub stretched: Vec<usize>,
}

impl Plan {
    /// Learning rate at `progress` epochs, whole and fraction.
    pub fn rate(&self, progress: f64) -> f64 {
        let end = self.stretched.iter().find(|end| progress < **end as f64);
        self.schedule
            .rate(self.lr, progress, *end.unwrap_or(&self.epochs))
    }

    /// Whether training by `self` up to `epoch`, counted from 1, has done just what training by `other`
    /// does up to there, so that it can be continued by it.
    ///
    /// # Errors
    /// The reason why not, in words.
    pub fn continues_as(&self, other: &Self, epoch: usize) -> Result<(), String> {
        let unchanged = Self {
            epochs: other.epochs,
            schedule: other.schedule.clone(),
            stretched: other.stretched.clone(),
            ..self.clone()
        };
        if unchanged != *other {
            return Err("more than the number of epochs and the schedule changed".to_owned());
        }
        if other.epochs < epoch {
            let asked = other.epochs;
            return Err(format!(
                "it is at epoch {epoch} already, {asked} are asked for"
            ));
        }
        // A schedule moves smoothly between milestones and warm-up's end, which lie on whole
        // epochs.
        const FRACTIONS: usize = 8;
        for step in 0..epoch * FRACTIONS {
            let progress = step as f64 / FRACTIONS as f64;
            let (then, now) = (self.rate(progress), other.rate(progress));
            if then != now {
                return Err(format!(
                    "the learning rate at epoch {progress} was {then:.4}, by this schedule it would have been {now:.4}"
                ));
            }
        }
        Ok(())
    }
}
