//! What a run comes to: figures, times, and the table of both.

use serde::{Deserialize, Serialize};

use crate::evaluate::measures::{Measures, Transfer};
use crate::evaluate::soundness::Soundness;
use crate::evaluate::{Accuracy, Attacked};
use crate::recipe::{SplitName, Threat};

/// One row of the final table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The encoder: its method's table.
    pub method: String,
    /// The classifier: its mode's table, or "end-to-end" where it was trained together with the encoder.
    pub finetuning: String,
    /// Fraction right on the images as they are.
    pub clean_accuracy: f64,
    /// Fraction right under attack.
    pub robust_accuracy: f64,
    /// Images judged.
    pub images: usize,
    /// Which ones.
    pub split: SplitName,
    /// "linf" or "l2", and ε as written.
    pub threat: Threat,
    /// Of PGD.
    pub attack_steps: usize,
    /// Of PGD, in pixels.
    pub attack_step_size: f64,
    /// Wall-clock seconds of each stage.
    pub seconds: Seconds,
    /// Counts in all and by class.
    pub accuracy: Accuracy,
    /// Under the attacks that the recipe asks for beside PGD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attacked: Option<Attacked>,
    /// What else was measured of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measures: Option<Measures>,
    /// Whether all of this can be believed; none where the recipe turns the checks off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soundness: Option<Soundness>,
}

/// `result.json` of a row's folder: the row, and what it was measured by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// All that the figures depend on, as TOML; other figures are wanted where it differs.
    pub recipe: String,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Wall-clock seconds of each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// In `times.json`, the encoder alone; in a row of the table, all that the encoder stands on: pseudo-labels and the
    /// encoders that it learns from, too.
    pub pretrain: f64,
    /// Of the classifier.
    pub finetune: f64,
    /// Of clean and robust accuracy.
    pub evaluate: f64,
}

/// `summary.json`: the table and what it takes to repeat it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// This program's.
    pub advcl_version: String,
    /// Of the recipe.
    pub seed: u64,
    /// The data set.
    pub data: String,
    /// The one that classifiers are for, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downstream: Option<String>,
    /// The classes, in label order.
    pub classes: Vec<String>,
    /// Wall-clock seconds of making pseudo-labels, where this run made them.
    pub cluster_seconds: Option<f64>,
    /// A row a method and mode.
    pub outcomes: Vec<Outcome>,
    /// Between rows, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
}
