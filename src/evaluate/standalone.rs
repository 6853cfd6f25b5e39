//! Evaluation of a classifier outside of any run folder: the figures and checks of a run, of any model file on any images.

use std::path::Path;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::adversarial::{Adversarial, ExamplesInfo};
use super::soundness::{Soundness, SoundnessChecks};
use super::{Accuracy, Attacked, Evaluator, SuiteRun};
use crate::attack::{Attacker, Suite};
use crate::data::{self, Damaged, Split, SplitFingerprint, class_list};
use crate::error::{Error, Result};
use crate::nn::{Classifier, Mode};
use crate::run::ModelInfo;
use crate::session::Context;

/// Images in a forward pass of an attack.
const BATCH: usize = 100;
/// Values of the images in such a pass: large images come in smaller batches, because gradients keep every activation.
const BATCH_VALUES: usize = 1 << 19;

/// Number of images of so many values that are attacked at a time.
pub fn attacked_at_once(values: usize) -> usize {
    (BATCH_VALUES / values.max(1)).clamp(1, BATCH)
}

/// Images of a data set as a model takes them, labeled by the model's classes.
pub struct TestImages {
    /// Name of the data set.
    pub name: String,
    /// The images.
    pub split: Split,
    /// What they are of the data set: "test", or "all" where it has no test images.
    pub part: &'static str,
    /// Fingerprint of all of them.
    pub fingerprint: String,
    /// Things to be said about the data set.
    pub notes: Vec<String>,
}

impl TestImages {
    /// Reads the test images of a data set for a model: in its size and with its channels, as predictions read theirs. A
    /// data set without test images is taken whole.
    ///
    /// # Errors
    /// Whatever is wrong with the data; [`Error::Data`] for images without classes, and for classes that the model does
    /// not tell apart.
    pub fn load(source: &str, info: &ModelInfo, damaged: Damaged) -> Result<Self> {
        let [height, width] = info.image_size;
        let reading = info.reading.for_shape([info.channels, height, width]);
        let data = data::load_as(source, &reading, damaged)?;
        data.require_labels()?;
        let (split, part) = match data.test.images.is_empty() {
            true => (&data.train, "all"),
            false => (&data.test, "test"),
        };
        let split = labeled(split, &data.classes, &info.classes, &data.name)?;
        let fingerprint = SplitFingerprint::new(&split, &info.classes).order;
        // What becomes of images in training does not matter here.
        let mut notes = data.notes;
        notes.retain(|note| !note.contains("data.test_share") && !note.contains("evaluate.split"));
        if part == "all" && !notes.iter().any(|note| note == data::TEST_ALONE) {
            let count = split.images.len();
            notes.push(format!(
                "no test images: all {count} are evaluated, which says nothing where the model was trained on them"
            ));
        }
        Ok(Self {
            name: data.name,
            split,
            part,
            fingerprint,
            notes,
        })
    }

    /// Indices of the images that are evaluated: all, or a limited number, the same share of each class.
    ///
    /// # Errors
    /// [`Error::Input`] for a limit of 0.
    pub fn among(&self, classes: usize, limit: Option<usize>) -> Result<Vec<usize>> {
        let count = self.split.images.len();
        match limit {
            Some(0) => {
                let problem = "expected 1 image or more, found 0";
                Err(Error::input("--limit", problem, "leave it out for all"))
            }
            Some(limit) if limit < count => Ok(self.split.limited(classes, limit, 0)),
            _ => Ok((0..count).collect()),
        }
    }
}

/// The split with the model's labels: by name, or by number where the model has numbers alone.
fn labeled(split: &Split, own: &[String], known: &[String], name: &str) -> Result<Split> {
    let numbered = |names: &[String]| {
        let mut pairs = names.iter().enumerate();
        pairs.all(|(number, name)| *name == number.to_string())
    };
    split.labeled_by(own, known).or_else(|unknown| {
        if numbered(known) && own.len() == known.len() {
            return Ok(split.clone());
        }
        let problem = format!(
            "class {unknown:?} is not one of the model's: expected some of {} ({}), found {} ({})",
            known.len(),
            class_list(known),
            own.len(),
            class_list(own)
        );
        let hint = match numbered(known) {
            true => "the model's classes have numbers for names: data with as many classes is matched in order",
            false => "classes are matched by name: name the data's as the model's are",
        };
        Err(Error::data(name, problem, hint))
    })
}

/// A classifier and the images that it is evaluated on, outside of a run folder.
pub struct Standalone<'a> {
    /// Name of the classifier in events and files.
    pub name: &'a str,
    /// The classifier.
    pub classifier: &'a Classifier,
    /// Number of classes.
    pub classes: usize,
    /// Images and labels.
    pub split: &'a Split,
    /// Indices of the images that are evaluated.
    pub among: &'a [usize],
    /// Threat model and PGD.
    pub attacker: Attacker,
    /// Attacks beside PGD.
    pub suite: Option<&'a Suite>,
    /// What the figures depend on, as TOML, for files of examples.
    pub depends_on: &'a str,
}

/// Figures of a classifier outside of a run folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Clean accuracy, and accuracy under PGD.
    pub accuracy: Accuracy,
    /// Outcome of the attacks beside PGD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attacked: Option<Attacked>,
    /// Checks of the figures.
    pub soundness: Soundness,
}

impl Standalone<'_> {
    /// Evaluates the classifier: clean accuracy, PGD, the attacks beside it, and soundness checks. Returns an adversarial
    /// example of each image that the attacks beside PGD broke too, with their description.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; [`Error::Logits`].
    pub fn run(
        &self,
        context: &mut Context,
    ) -> Result<(Figures, Option<(Adversarial, ExamplesInfo)>)> {
        let frozen = self.classifier.frozen();
        let logits = |x| frozen.logits(x);
        let evaluator = self.evaluator(&logits);
        let accuracy = evaluator.accuracy(self.among, self.attacker, context)?;
        let ball = self.attacker.ball;
        let (mut attacked, mut examples) = (None, None);
        if let Some(suite) = self.suite {
            let run = SuiteRun {
                evaluator,
                suite,
                ball,
                among: self.among,
                folder: None,
                recipe: self.depends_on,
            };
            let (outcome, found) = run.run(context)?;
            attacked = Some(outcome.with_pgd(&accuracy));
            examples = Some((found, run.info(None)));
        }
        let evaluated = self.split.select(self.among);
        let checks = SoundnessChecks {
            evaluator: Evaluator {
                split: &evaluated,
                ..evaluator
            },
            predict: &|x| self.classifier.forward(x, &mut Mode::Eval),
            clean: accuracy.total.clean,
            attacker: self.attacker,
        };
        let mut soundness = checks.run(context)?;
        if let (Some(attacked), Some((found, _))) = (&attacked, &examples) {
            soundness.include_attack_results(attacked);
            let outside = found.outside(ball, &self.split.images);
            soundness.include_examples(outside, found.indices.len());
        }
        let figures = Figures {
            accuracy,
            attacked,
            soundness,
        };
        Ok((figures, examples))
    }

    /// The classifier's evaluator, by `logits` of its frozen weights.
    pub fn evaluator<'a>(&'a self, logits: &'a dyn Fn(Tensor<4>) -> Tensor<2>) -> Evaluator<'a> {
        Evaluator {
            name: self.name,
            logits,
            classes: self.classes,
            split: self.split,
            batch_size: attacked_at_once(self.split.images.image_len()),
        }
    }
}

/// Text of what figures of a model file depend on: its weights, the images and the attacks.
pub fn depends_on(
    model: &Path,
    weights: &[u8],
    images: &TestImages,
    suite: Option<&Suite>,
) -> String {
    let mut table = Table::new();
    table.insert("model".to_owned(), model.display().to_string().into());
    table.insert("weights".to_owned(), crate::files::hash(weights).into());
    table.insert("data".to_owned(), images.name.clone().into());
    table.insert("images".to_owned(), images.fingerprint.clone().into());
    if let Some(suite) = suite {
        let attack = toml::Value::try_from(suite).expect("plain values");
        table.insert("attack".to_owned(), attack);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Images;

    #[test]
    fn classes_are_matched_by_name_and_numbers_by_order() {
        let names = |names: &str| -> Vec<String> { names.split(' ').map(str::to_owned).collect() };
        let split = Split {
            images: Images::new(vec![1, 2, 3], [1, 1, 1]),
            labels: vec![0, 1, 1],
        };
        let labels = |own: &str, known: &str| {
            let split = labeled(&split, &names(own), &names(known), "set");
            split.map(|split| split.labels).map_err(|e| e.to_string())
        };
        assert_eq!(labels("cat dog", "ant dog cat"), Ok(vec![2, 1, 1]));
        assert_eq!(labels("1 0", "0 1"), Ok(vec![1, 0, 0]));
        // A model whose classes are known by number only.
        assert_eq!(labels("cat dog", "0 1"), Ok(vec![0, 1, 1]));
        for (own, known) in [
            ("cat dog", "0 1 2"),
            ("0 1", "cat dog"),
            ("cat dog", "cat bird"),
        ] {
            let error = labels(own, known).expect_err(known);
            let both = [own, known].map(|names| names.replace(' ', ", "));
            assert!(both.iter().all(|list| error.contains(list)), "{error}");
        }
    }
}
