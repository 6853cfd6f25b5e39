//! BatchNorm with one set of parameters and statistics for each route.
//!
//! Clean and adversarial images have different statistics, so each kind of view has its own branch (AdvCL,
//! section 4, after "AdvProp"). The route and the mode are arguments of every call: nothing is switched behind
//! the reader's back, and a forward pass changes nothing.

use std::collections::HashMap;
use std::ops::Range;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::average::unshared;
use super::engine;
use super::shards::{Deferred, Shards};
use super::side_by_side;
use crate::error::{Error, Result, nearest};
use crate::tensor::sums_over_shards;

const MOMENTUM: f64 = 0.1;

/// Which BatchNorm branch a view takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Clean views: strongly augmented and high-frequency.
    Normal,
    /// The view attacked through the contrastive loss; what AdvCL's downstream tasks use.
    Pgd,
    /// The view attacked through the pseudo-labels.
    PgdCe,
}

impl Route {
    /// All routes, in the order of their branches `bn_list.0`, `.1`, `.2`.
    pub const ALL: [Self; 3] = [Self::Normal, Self::Pgd, Self::PgdCe];

    /// The name used in golden vectors and model files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Pgd => "pgd",
            Self::PgdCe => "pgd_ce",
        }
    }
}

impl std::str::FromStr for Route {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|route| route.name() == name)
            .ok_or_else(|| {
                Error::recipe(
                    "route",
                    format!("no BatchNorm route {name:?}"),
                    nearest(name, Self::ALL.map(Self::name)),
                )
            })
    }
}

/// Where BatchNorm takes its statistics from in one forward pass.
pub enum Mode<'a> {
    /// The running ones.
    Eval,
    /// The batch's; the running ones are left alone (attacks in training mode).
    Batch,
    /// The batch's, collected for [`Statistics::absorb_into`]. Where the batch is cut into shards, encoders take those of
    /// each shard, and what is collected is their mean.
    Train(&'a mut Statistics),
}

/// What a training step collects in its forward passes, in their order: batch statistics, and, where batches are cut
/// into shards, the passes whose way back is still to be gone.
#[derive(Default)]
pub struct Statistics {
    seen: HashMap<ParamId, Vec<Tensor<1>>>,
    /// In the order in which they were met first, which is the same on all ranks.
    met: Vec<ParamId>,
    shards: Shards,
    deferred: Vec<Deferred>,
}

impl Statistics {
    /// Statistics of a step whose batch passes the encoder in these shards.
    pub fn in_shards(shards: Shards) -> Self {
        Self {
            shards,
            ..Self::default()
        }
    }

    /// The cut of the batch.
    pub fn shards(&self) -> Shards {
        self.shards
    }

    /// Keeps a pass whose way back is still to be gone.
    pub(super) fn defer(&mut self, pass: Deferred) {
        self.deferred.push(pass);
    }

    /// Takes the passes whose way back is still to be gone.
    pub fn take_deferred(&mut self) -> Vec<Deferred> {
        std::mem::take(&mut self.deferred)
    }

    /// Adds the statistics of one view from those of this rank's shards of it: the means over all shards, weighted by the
    /// numbers of images.
    pub(super) fn push_means(&mut self, of_shards: Vec<Self>) {
        let Some(first) = of_shards.first() else {
            return;
        };
        let sizes = |ranges: Vec<Range<usize>>| -> Vec<f64> {
            ranges.iter().map(|images| images.len() as f64).collect()
        };
        let all: f64 = sizes(self.shards.ranges()).iter().sum();
        let own = sizes(self.shards.own_ranges());
        let shares = of_shards.iter().zip(own).map(|(of_shard, size)| {
            let values = of_shard.met.iter().flat_map(|id| &of_shard.seen[id]);
            let share = |value: &Tensor<1>| value.clone() * (size / all);
            values.map(share).collect::<Vec<_>>()
        });
        let mut means = sums_over_shards("statistics", shares).into_iter();
        for id in &first.met {
            let of_view: Vec<_> = means.by_ref().take(first.seen[id].len()).collect();
            of_view.into_iter().for_each(|value| self.put(*id, value));
        }
    }

    fn push(&mut self, running: &Param<Tensor<1>>, value: Tensor<1>) {
        self.put(running.id, value.inner());
    }

    fn put(&mut self, id: ParamId, value: Tensor<1>) {
        if !self.seen.contains_key(&id) {
            self.met.push(id);
        }
        self.seen.entry(id).or_default().push(value);
    }

    /// Moves the module's running statistics a tenth of the way to each batch's, as PyTorch does at momentum .1.
    pub fn absorb_into<M: Module>(mut self, module: M) -> M {
        module.map(&mut self)
    }
}

impl ModuleMapper for Statistics {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(batches) = self.seen.remove(&param.id) else {
            return param;
        };
        param.map(|running| {
            batches.into_iter().fold(running, |running, batch| {
                let shape = running.dims();
                running * (1.0 - MOMENTUM) + batch.reshape(shape) * MOMENTUM
            })
        })
    }
}

/// One BatchNorm.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// Scale, `[channels]`.
    pub weight: Param<Tensor<1>>,
    /// Shift, `[channels]`.
    pub bias: Param<Tensor<1>>,
    /// `[channels]`; no gradient.
    pub running_mean: Param<Tensor<1>>,
    /// Unbiased, `[channels]`; no gradient.
    pub running_var: Param<Tensor<1>>,
}

impl BatchNorm {
    /// Scale 1, shift 0, statistics of a standard normal.
    pub fn new(channels: usize, device: &Device) -> Self {
        let filled = |value: f32| Param::from_tensor(Tensor::full([channels], value, device));
        Self {
            weight: filled(1.0),
            bias: filled(0.0),
            running_mean: filled(0.0).set_require_grad(false),
            running_var: filled(1.0).set_require_grad(false),
        }
    }

    /// Number of values in a weight file of one of `channels`, saturating.
    pub fn values(channels: usize) -> usize {
        channels.saturating_mul(4)
    }

    /// What is left of it in evaluation mode: `x · scale + shift`, `[channels]` each.
    pub(super) fn scale_and_shift(&self) -> (Tensor<1>, Tensor<1>) {
        let scale = self.weight.val() / (self.running_var.val() + engine::EPSILON).sqrt();
        let shift = self.bias.val() - self.running_mean.val() * scale.clone();
        (scale, shift)
    }

    /// The norm of `x`, plus the residual and ReLU where asked for; a residual wants ReLU.
    ///
    /// # Shapes
    /// `[height, width, batch, channels]`, kept.
    pub fn forward(
        &self,
        x: Tensor<4>,
        residual: Option<Tensor<4>>,
        relu: bool,
        mode: &mut Mode,
    ) -> Tensor<4> {
        if let Mode::Eval = mode {
            let (scale, shift) = self.scale_and_shift();
            return engine::affine(x, scale, shift, residual, relu);
        }
        let [height, width, batch, _] = x.dims();
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let (y, mean, var) = engine::norm(x, weight, bias, residual, relu);
        if let Mode::Train(statistics) = mode {
            let count = side_by_side::rows_of_all(height * width * batch);
            statistics.push(&self.running_mean, mean);
            // A single value has no unbiased variance: keep the biased one, zero.
            let unbiased = count / (count - 1.0).max(1.0);
            statistics.push(&self.running_var, var * unbiased);
        }
        y
    }
}

/// One [`BatchNorm`] for each route.
#[derive(Module, Debug)]
pub struct RouteNorm {
    /// In the order of [`Route::ALL`]; a model for clean views alone has only the first.
    pub bn_list: Vec<BatchNorm>,
}

impl RouteNorm {
    /// `routes` branches of `channels`.
    pub fn new(channels: usize, routes: usize, device: &Device) -> Self {
        Self {
            bn_list: (0..routes)
                .map(|_| BatchNorm::new(channels, device))
                .collect(),
        }
    }

    /// Drops all branches but one, which becomes the first.
    pub(super) fn keep(&mut self, route: Route) {
        self.bn_list = vec![self.bn_list.swap_remove(route as usize)];
    }

    /// Replaces all branches by copies of one.
    pub(super) fn copy(&mut self, route: Route, routes: usize) {
        let one = &self.bn_list[route as usize];
        // Each with an identity of its own: optimizer and statistics tell branches apart by it.
        self.bn_list = (0..routes).map(|_| unshared(one)).collect();
    }

    /// The route's branch, see [`BatchNorm::forward`].
    ///
    /// # Panics
    /// When the model was built without this route.
    pub fn forward(
        &self,
        x: Tensor<4>,
        residual: Option<Tensor<4>>,
        relu: bool,
        route: Route,
        mode: &mut Mode,
    ) -> Tensor<4> {
        self.bn_list[route as usize].forward(x, residual, relu, mode)
    }
}
