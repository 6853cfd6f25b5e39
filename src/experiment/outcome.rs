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
    /// Names of the classifier's classes, in the order of the counts by class: the images may have them in another order, or only
    /// some of them. None in the file of a classifier's figures, which has the counts alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Balanced accuracy and worst class, from the counts by class; none in the file of a classifier's figures too.
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
    /// Name of a class by its place in the counts; its number where that is all that is known.
    pub fn class(&self, label: usize) -> String {
        let name = self.classes.get(label);
        name.map_or_else(|| format!("class {label}"), String::clone)
    }

    /// Refuses counts and shares that cannot be, of a file that was changed.
    ///
    /// # Errors
    /// [`Error::Format`] naming `path`.
    pub fn require_possible(&self, path: &Path) -> Result<()> {
        let Self {
            accuracy, images, ..
        } = self;
        accuracy.require_possible(path)?;
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

    /// Refuses counts by class of another number of classes than the classifier's, of a file that was changed.
    ///
    /// # Errors
    /// [`Error::Format`] naming `path`.
    pub fn require_classes(&self, classes: usize, path: &Path) -> Result<()> {
        let found = self.accuracy.classes.len();
        if found == classes {
            return Ok(());
        }
        let expected = format!("the counts of {classes} classes, as the classifier has");
        let found = format!("those of {found}");
        Err(Error::format(path, "accuracy.classes", expected, found))
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
    /// Names of the classes, in the order of the first row's counts; every row has its own.
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn tally(images: u64, clean: u64, robust: u64) -> Value {
        json!({"images": images, "clean": clean, "robust": robust})
    }

    /// An outcome on five images, one of them robust.
    fn outcome(classes: &[Value], per_image: &str) -> Outcome {
        let outcome = json!({
            "method": "simclr", "finetuning": "slf", "images": 5, "split": "test",
            "clean_accuracy": 0.8, "robust_accuracy": 0.2,
            "threat": {"norm": "linf", "radius": "8/255"},
            "attack_steps": 20, "attack_step_size": 0.01,
            "seconds": {"pretrain": 60.0, "finetune": 1.0, "evaluate": 2.0},
            "accuracy": {"total": tally(5, 4, 1), "classes": classes, "per_image": per_image},
        });
        serde_json::from_value(outcome).expect("an outcome")
    }

    #[test]
    fn counts_by_class_and_by_image_that_contradict_the_sums_are_refused() {
        let path = Path::new("result.json");
        let classes = [tally(3, 2, 1), tally(2, 2, 0), tally(0, 0, 0)];
        let whole = outcome(&classes, "wbrbb");
        whole.require_possible(path).expect("its own counts");
        whole.require_classes(3, path).expect("its own classes");
        let earlier = outcome(&classes, "");
        earlier
            .require_possible(path)
            .expect("an earlier version's");
        let huge = tally(u64::MAX, 2, 0);
        let sums =
            "accuracy.classes: expected 1 robust, 4 correct, 5 images in all classes together";
        for (changed, words) in [
            (outcome(&classes[..1], ""), sums),
            (outcome(&[], ""), sums),
            (outcome(&[huge.clone(), huge], ""), sums),
            (
                outcome(&classes, "wbrb"),
                "per_image: expected 1 robust, 4 correct, 5 images",
            ),
        ] {
            let error = changed.require_possible(path).expect_err(words);
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = whole.require_classes(4, path).expect_err("another number");
        let words = "accuracy.classes: expected the counts of 4 classes";
        assert!(error.to_string().contains(words), "{error}");
    }
}
