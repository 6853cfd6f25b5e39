//! Data of reports about run folders: figures and curves that are read, and pictures that are
//! computed from the models. The folders are not changed.

mod examples;
mod feature_map;
mod folder;
mod model;
mod strength;
mod surface;
mod training;

pub use examples::{Example, choose, examples, probabilities};
pub use feature_map::{FeatureMap, MapPoint, feature_map};
pub use folder::{ReportedComparison, ReportedRow, ReportedRun, read};
pub use model::{ReportData, ReportedModel};
pub use strength::{Left, strongest};
pub use surface::{LossSurface, surface};
pub use training::{LoggedEpoch, TrainingStage, training};
