//! Robust image encoders from unlabeled data.
//!
//! A contrastive encoder learns from images without labels, and a linear classifier on its features needs few
//! labels. Such a classifier fails on perturbations that nobody sees. AdvCL ([Fan et al., NeurIPS 2021]) makes the
//! *pretraining* robust, so that a linear classifier trained on clean images is robust too. This crate has AdvCL, the
//! methods that it is compared with, ways to finetune, and an evaluation under attack with checks of its soundness.
//! The program `advcl` is a command line for it.
//!
//! # Pretrain and evaluate
//!
//! A [recipe](recipe::Recipe) decides everything that changes the numbers of a run. Its results are kept in a run
//! folder: running the same recipe there again continues an interrupted run, and computes nothing twice.
//!
//! ```
//! use advcl::{Context, Experiment, Model, Recipe};
//!
//! # let temporary = tempfile::tempdir().expect("a folder");
//! # let folder = temporary.path();
//! # /*
//! let folder = "runs/first";
//! # */
//! // Fashion-MNIST is inside the crate. Your images: "data = { source = 'path/to/images' }".
//! let recipe = Recipe::load("smoke", &["pretrain.advcl.plan.epochs = 1".to_owned()])?;
//! let experiment = Experiment::open(recipe, folder)?;
//! let mut context = Context::cpu()?;
//! let summary = experiment.run(&mut context)?;
//! for row in &summary.outcomes {
//!     let (clean, robust) = (100.0 * row.clean_accuracy, 100.0 * row.robust_accuracy);
//!     println!("{}: {clean:.1} % clean, {robust:.1} % under PGD", row.method);
//! }
//!
//! // A classifier of that run, as a function from images to logits.
//! let path = experiment.layout().model("advcl/slf");
//! let classifier = Model::load(&path, &context.device)?.classifier(&path)?.frozen();
//! let images = advcl::tensor::to_tensor(experiment.data.judged.images.batch(&[0, 1]), &context.device);
//! assert_eq!(classifier.logits(images).dims(), [2, 10]);
//! # Ok::<(), advcl::Error>(())
//! ```
//!
//! The folder `examples` of the repository has more: pretraining on a folder of images, an evaluation of a classifier,
//! and AutoAttack on a model that this crate knows nothing of.
//!
//! # Modules
//!
//! In the order in which one meets them:
//!
//! | module | contents |
//! |---|---|
//! | [`recipe`] | recipes, and [every key](recipe::keys) that they can have |
//! | [`experiment`] | a recipe carried out stage by stage in a run folder: [`Experiment`], its [`Summary`](experiment::Summary) |
//! | [`session`], [`device`] | [`Context`]: the device, an observer of progress, a flag that stops; devices by name |
//! | [`data`] | [`Images`](data::Images) and their formats, augmented views, common corruptions |
//! | [`pretrain`] | one file for each method; [`METHODS`](pretrain::METHODS) lists them |
//! | [`finetune`], [`criterion`] | from encoder to classifier: [`MODES`](finetune::MODES), and the losses of classifiers |
//! | [`attack`] | the threat model [`Ball`](attack::Ball), [`Pgd`](attack::Pgd) on any closure, AutoAttack |
//! | [`smoothing`] | randomised smoothing: certified accuracy by [`Smoothing`](smoothing::Smoothing) |
//! | [`evaluate`] | clean and robust accuracy, soundness checks, further measures, adversarial examples that anyone can check |
//! | [`compare`] | a recipe over several seeds, with tests of the differences |
//! | [`run`], [`import`] | the run folder and the [`Model`] file; weights of PyTorch as such a file |
//! | [`nn`], [`loss`], [`train`] | ResNet with several BatchNorms, losses, the training loop and its optimizers |
//! | [`cluster`], [`view`], [`probe`], [`active`] | pseudo-labels, the high-frequency view, nearest neighbours, which images to label next |
//! | [`tensor`], [`weights`], [`random`], [`interval`] | conversions, weights by name, seeded generators, confidence intervals |
//!
//! Tensors are [`burn`]'s, which is exported again so that versions agree. Images are f32 in [0, 1],
//! `[batch, channels, height, width]`; distances are in pixels of that scale.
//!
//! # Terms of the papers
//!
//! | term | here |
//! |---|---|
//! | ε, α, ℓ∞ and ℓ2 ball | [`Ball::radius`](attack::Ball), [`Pgd::step_size`](attack::Pgd), [`Norm`](attack::Norm) |
//! | strong and weak augmentation | [`Strong`](data::augment::Strong), [`Weak`](data::augment::Weak) |
//! | view, anchor, positive, temperature τ | [`loss`], `temperature` in the settings of [`pretrain`]'s methods |
//! | high-frequency component | [`view`] |
//! | pseudo-labels, ClusterFit | [`cluster`] |
//! | dual BatchNorm | [`Route`](nn::Route) |
//! | projection head | [`Backbone`](nn::Backbone) |
//! | SLF, ALF, AFF | [`MODES`](finetune::MODES) |
//! | robust accuracy, AutoAttack | [`evaluate`], [`Suite`](attack::Suite) |
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `flex` (default) | the CPU, in Rust |
//! | `wgpu` | GPUs of any vendor, by Vulkan, Metal or DirectX 12 |
//! | `vulkan`, `metal`, `cuda`, `rocm` | GPUs in special builds |
//! | `keep-tuning` | the fastest kernels of a GPU, kept from one run to the next |
//! | `mpi` | many processes and machines, by MPI |
//! | `cli` (default) | the program `advcl`; a library can do without: `default-features = false, features = ["flex"]` |
//!
//! `ARCHITECTURE.md` in the repository describes the code for those who change it.
//!
//! [Fan et al., NeurIPS 2021]: https://arxiv.org/abs/2111.01124

pub mod active;
pub mod attack;
#[doc(hidden)] // for the program
pub mod bench;
mod check;
pub mod cluster;
pub mod compare;
pub mod criterion;
pub mod data;
pub mod device;
#[doc(hidden)] // `Error` and `Result` are exported below
pub mod error;
pub mod evaluate;
pub mod experiment;
pub mod export;
#[doc(hidden)] // for the program
pub mod files;
pub mod finetune;
#[doc(hidden)] // for the fuzz targets and their test
pub mod fuzz;
pub mod import;
pub mod interval;
pub mod logistic;
pub mod logits;
pub mod loss;
#[doc(hidden)] // for the program
pub mod memory;
pub mod nn;
mod pixels;
pub mod pretrain;
#[doc(hidden)] // for the program
pub mod preview;
pub mod probe;
pub mod random;
#[doc(hidden)] // for the program
pub mod ranks;
pub mod recipe;
#[doc(hidden)] // for the program
pub mod report;
pub mod run;
#[doc(hidden)] // for the program
pub mod selftest;
pub mod session;
pub mod smoothing;
mod tables;
pub mod tensor;
pub mod train;
pub mod view;
pub mod weights;

pub use burn;

pub use error::{Error, Result};
pub use experiment::Experiment;
pub use pixels::Pixels;
pub use recipe::Recipe;
pub use run::Model;
pub use session::Context;
