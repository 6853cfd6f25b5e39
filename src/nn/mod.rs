//! The encoder, its heads, and their weights under the names that the field publishes.

mod engine;
pub mod layer;
pub mod model;
pub mod norm;
pub mod resnet;
pub mod weights;

pub use engine::{CpuKernels, choose_cpu_kernels, cpu_kernels, instruction_sets};
pub use layer::{Conv, Linear};
pub use model::{Backbone, Classifier};
pub use norm::{BatchNorm, Mode, Route, RouteNorm, Statistics};
pub use resnet::{Depth, Encoder, EncoderConfig, Stem};
