//! What run folders have to tell: figures and curves read back, pictures computed from the models. Nothing in the folders
//! changes.

mod examples;
mod feature_map;
mod folder;
mod subject;
mod surface;
mod training;

pub use examples::{Example, choose, examples, probabilities};
pub use feature_map::{FeatureMap, Place, feature_map};
pub use folder::{Folder, Row};
pub use subject::{Gallery, Subject};
pub use surface::{Surface, surface};
pub use training::{Epoch, Stage, training};
