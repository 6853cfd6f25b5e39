//! The encoder and its heads, with field names that are the published weights' names.

mod average;
mod by_id;
mod engine;
pub mod frozen;
pub mod layer;
pub mod model;
pub mod norm;
pub mod resnet;
mod shards;
mod side_by_side;

#[cfg(all(test, feature = "flex"))]
pub(crate) use engine::tests::Turn;
#[cfg(test)]
pub(crate) use shards::in_one_graph;

pub use average::{moving_average, unshared};
pub use by_id::gradients_by_id;
pub use engine::{
    CpuKernels, Precision, arithmetic, arithmetic_of_all_ranks, choose_cpu_kernels, cpu_kernels,
    has_bf16, instruction_sets, with_precision,
};
pub(crate) use engine::{multiplies_bf16, weights_replaced};
pub use frozen::{Folded, FrozenBlock, FrozenClassifier, FrozenEncoder};
pub use layer::{Conv, Linear};
pub use model::{Backbone, Classifier};
pub use norm::{BatchNorm, Mode, Route, RouteNorm, Statistics};
pub use resnet::{Depth, Encoder, EncoderConfig, Normalize, Stem};
pub use shards::{BatchNormOver, Deferred, Sharding, Shards};
