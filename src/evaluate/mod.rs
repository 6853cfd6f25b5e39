//! Evaluation of classifiers: accuracy clean and under attack, more measures, and whether the figures can be believed.

pub mod adversarial;
mod by_class;
mod evaluator;
pub mod measures;
pub mod rounded;
pub mod smallest;
pub mod soundness;
pub mod standalone;
mod suite;

pub use crate::attack::{AttackTally, ImageOutcome, PerImage, Tally};
pub use crate::logits::{predictions, probabilities};
pub use by_class::{ByClass, ClassFigures, uneven};
pub use evaluator::{Accuracy, Evaluator, LabeledBatch, StageProgress};
pub use suite::{Attacked, SuiteRun};

use crate::interval::Interval;

impl Tally {
    /// Clean accuracy with its 95 % interval; none without images.
    pub fn clean_interval(&self) -> Option<Interval> {
        Interval::wilson(self.clean, self.images)
    }

    /// Robust accuracy with its 95 % interval; none without images.
    pub fn robust_interval(&self) -> Option<Interval> {
        Interval::wilson(self.robust, self.images)
    }
}
