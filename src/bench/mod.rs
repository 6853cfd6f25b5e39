//! Benchmarks on random images: CPU kernels, pretraining steps, evaluation. Each is compared with
//! the fastest matrix product of the same process, which shows how much of the machine it uses. And
//! the steps of a recipe, on its own images.

mod evaluate;
mod kernels;
mod launches;
mod layers;
mod machine;
mod recipe;
mod setup;
mod step;

pub use evaluate::evaluate;
pub use kernels::{
    BATCH_NORM_BYTES, Bandwidth, BatchNormSpeed, KernelSpeeds, LayerSpeed, Speed, kernels,
};
pub use layers::{Layer, Passes, resnet18};
pub use machine::{GemmPeak, gemm_peak, peak_memory_mib};
pub use recipe::{RecipeSteps, StepTiming, trained_plan};
pub use setup::{Setup, Timing};
pub use step::step;
