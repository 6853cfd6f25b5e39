//! Outcome of a run: figures, times, and the table of both.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::evaluate::measures::{Measures, Transfer};
use crate::evaluate::soundness::Soundness;
use crate::evaluate::{Accuracy, Attacked, ByClass};
use crate::recipe::{SplitName, Threat};

/// One row of the final table: a classifier and its figures under one set of conditions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Encoder: its method's table.
    pub method: String,
    /// Classifier: its mode's table, or "end-to-end" where it was trained together with the encoder.
    pub finetuning: String,
    /// Accuracy on clean images, in [0, 1].
    pub clean_accuracy: f64,
    /// Accuracy under PGD, in [0, 1].
    pub robust_accuracy: f64,
    /// Images that it was evaluated on.
    pub images: usize,
    /// Split that they are of.
    pub split: SplitName,
    /// Data set that they are of.
    #[serde(default, skip_serializing_if = "Evaluated::is_default")]
    pub evaluated: Evaluated,
    /// Threat model, with ε as written.
    pub threat: Threat,
    /// Steps of PGD.
    pub attack_steps: usize,
    /// Step size of PGD, in pixels.
    pub attack_step_size: f64,
    /// Wall-clock seconds of each stage.
    pub seconds: Seconds,
    /// Counts in all and by class.
    pub accuracy: Accuracy,
    /// Balanced accuracy and worst class, from the counts by class; none in the file of a classifier's figures, which
    /// has the counts alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_class: Option<ByClass>,
    /// Outcome of the attack suite beside PGD; the latest, where there were several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attacked: Option<Attacked>,
    /// Outcomes of the other suites under the same conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_attacks: Vec<Attacked>,
    /// Further measures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measures: Option<Measures>,
    /// Soundness checks; none where the recipe turns them off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soundness: Option<Soundness>,
}

impl Outcome {
    /// Refuses counts and shares that cannot be, of a file that was changed.
    ///
    /// # Errors
    /// [`Error::Format`] naming `path`.
    pub fn require_possible(&self, path: &Path) -> Result<()> {
        let Self {
            accuracy, images, ..
        } = self;
        for tally in accuracy.classes.iter().chain([&accuracy.total]) {
            tally.require_possible(path)?;
        }
        let wrong = |place: &str, expected: String, found: String| {
            Err(Error::format(path, place, expected, found))
        };
        if accuracy.total.images != *images {
            let found = accuracy.total.images.to_string();
            return wrong(
                "accuracy.total.images",
                format!("{images}, as in images"),
                found,
            );
        }
        for (place, share) in [
            ("clean_accuracy", self.clean_accuracy),
            ("robust_accuracy", self.robust_accuracy),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return wrong(place, "0 to 1".to_owned(), share.to_string());
            }
        }
        let Seconds {
            pretrain,
            finetune,
            evaluate,
        } = self.seconds;
        match [pretrain, finetune, evaluate]
            .into_iter()
            .find(|s| !(0.0..1e12).contains(s))
        {
            Some(seconds) => wrong("seconds", "0 or more".to_owned(), seconds.to_string()),
            None => Ok(()),
        }
    }
}

/// Data set that a classifier was evaluated on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Name or path, as in the recipe.
    pub data: String,
    /// Hash of the images in their order: the same for the same images wherever they lie.
    pub fingerprint: String,
}

/// Wall-clock seconds of each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Pretraining: in `times.json` of the encoder alone; in a row of the table with everything that it
    /// needs, pseudo-labels and encoders that it learns from.
    pub pretrain: f64,
    /// Finetuning of the classifier.
    pub finetune: f64,
    /// Clean and PGD accuracy.
    pub evaluate: f64,
}

/// `summary.json`: the table and what it takes to repeat it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of the program.
    pub advcl_version: String,
    /// Seed of the recipe.
    pub seed: u64,
    /// Data set of the encoders.
    pub data: String,
    /// Data set of the classifiers, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downstream: Option<String>,
    /// Names of the classes, in label order.
    pub classes: Vec<String>,
    /// Wall-clock seconds of clustering, where this run made its pseudo-labels.
    pub cluster_seconds: Option<f64>,
    /// Rows of the table under the recipe's conditions.
    pub outcomes: Vec<Outcome>,
    /// The same classifiers under other conditions: test sets, threat models, settings of PGD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_conditions: Vec<Outcome>,
    /// Accuracy of each classifier on the others' adversarial examples, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
}
