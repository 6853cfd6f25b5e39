//! What classifiers are worth: clean accuracy, PGD, and the attacks that the recipe asks for.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Tensor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Cell, Experiment, Outcome, Seconds, Summary};
use crate::attack::Attacker;
use crate::error::{Error, Result};
use crate::evaluate::adversarial::{self, Adversarial, Verification};
use crate::evaluate::soundness::{Soundness, SoundnessChecks};
use crate::evaluate::{Attacked, Evaluator, SuiteRun};
use crate::experiment::outcome::Record;
use crate::files;
use crate::nn::{Classifier, Mode};
use crate::session::{Context, Event};

const RESULT: &str = "result.json";
const ATTACK: &str = "attack.json";
const SOUNDNESS: &str = "soundness.json";
/// The examples that `attack.json` counts.
const EXAMPLES: &str = "adversarial.safetensors";
/// The folder of unfinished work.
const PIECES: &str = "attack";

/// `attack.json` and `soundness.json`: a finding, and all that it depends on.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    recipe: String,
    #[serde(flatten)]
    finding: T,
}

/// The finding in `path`, if it is of this recipe.
fn kept<T: DeserializeOwned>(path: &Path, recipe: &str) -> Result<Option<T>> {
    if !path.exists() {
        return Ok(None);
    }
    let kept: Kept<T> = files::read_json(path)?;
    Ok((kept.recipe == recipe).then_some(kept.finding))
}

impl Experiment {
    /// Measures a row's classifier: clean, and under PGD. Figures that were measured by the same recipe are read back.
    ///
    /// # Errors
    /// [`Error::Run`] when there is no encoder or no classifier yet; [`Error::Interrupted`].
    pub fn evaluate(&self, cell: &Cell, context: &mut Context) -> Result<Outcome> {
        let mut outcome = self.measured(cell, context)?;
        let attacked = self.attacked(cell, context)?;
        outcome.attacked = attacked.map(|attacked| attacked.with_pgd(&outcome.accuracy));
        outcome.measures = self.measures(cell)?;
        let examined = self.examined(cell, &outcome, context)?;
        outcome.soundness = self.soundness(cell, &outcome, examined)?;
        Ok(outcome)
    }

    /// What is known of a row that nobody asked for now: clean accuracy and PGD, and the rest as far as it is kept. An attack
    /// that takes minutes is not laid for the sake of a summary.
    fn known(&self, cell: &Cell, context: &mut Context) -> Result<Outcome> {
        let mut outcome = self.measured(cell, context)?;
        if self.recipe.evaluate.attack.is_some() {
            let text = self.text_of(cell.attack());
            let attacked: Option<Attacked> = kept(&self.file_of(cell, ATTACK), &text)?;
            outcome.attacked = attacked.map(|attacked| attacked.with_pgd(&outcome.accuracy));
        }
        outcome.measures = self.measures(cell)?;
        let text = self.text_of(cell.figures());
        let examined = match self.recipe.evaluate.soundness {
            true => kept(&self.file_of(cell, SOUNDNESS), &text)?,
            false => None,
        };
        outcome.soundness = self.soundness(cell, &outcome, examined)?;
        Ok(outcome)
    }

    /// The classifier of a row.
    pub(super) fn require_classifier(&self, cell: &Cell, context: &Context) -> Result<Classifier> {
        self.require_labels()?;
        if let Some(model) = self.load_classifier(cell, context)? {
            return model.classifier(&self.model_path(cell));
        }
        self.require_encoder(&cell.method, context)?;
        let problem = format!("no {} classifier on {} yet", cell.mode_name(), cell.method);
        let run = self.run.path().display();
        let hint = format!(
            "make it first: advcl finetune --method {} --mode {} --run {run}",
            cell.method,
            cell.mode_name()
        );
        Err(Error::run(self.run.path(), problem, hint))
    }

    pub(super) fn file_of(&self, cell: &Cell, name: &str) -> PathBuf {
        self.run.path().join(cell.stage()).join(name)
    }

    /// Clean accuracy, and PGD.
    fn measured(&self, cell: &Cell, context: &mut Context) -> Result<Outcome> {
        let path = self.file_of(cell, RESULT);
        let text = self.text_of(cell.figures());
        if path.exists() {
            let record: Record = files::read_json(&path)?;
            if record.recipe == text {
                return Ok(record.outcome);
            }
        }
        let classifier = self.require_classifier(cell, context)?.frozen();
        let settings = &self.recipe.evaluate;
        let started = Instant::now();
        let attacker = self.attacker();
        let all: Vec<usize> = (0..self.data.judged.images.len()).collect();
        let (name, logits) = (cell.stage(), |x| classifier.logits(x));
        let accuracy = self
            .evaluator(&name, &logits)
            .accuracy(&all, attacker, context);
        let accuracy = accuracy.map_err(|error| self.here(error))?;
        self.set_seconds(&cell.stage(), |times| {
            times.evaluate = started.elapsed().as_secs_f64()
        })?;
        let total = &accuracy.total;
        let fraction = |part: usize| part as f64 / total.images as f64;
        let own = self.seconds(&cell.stage())?;
        let outcome = Outcome {
            method: cell.method.clone(),
            finetuning: cell.mode_name().to_owned(),
            clean_accuracy: fraction(total.clean),
            robust_accuracy: fraction(total.robust),
            images: total.images,
            split: settings.split,
            threat: self.recipe.threat.clone(),
            attack_steps: settings.steps,
            attack_step_size: attacker.pgd.step_size,
            seconds: Seconds {
                pretrain: self.seconds(&cell.method)?.pretrain,
                ..own
            },
            accuracy,
            attacked: None,
            measures: None,
            soundness: None,
        };
        let record = Record {
            recipe: text,
            outcome,
        };
        files::write_json(&path, &record)?;
        let figures = vec![
            ("clean", record.outcome.clean_accuracy),
            ("robust", record.outcome.robust_accuracy),
        ];
        tell(context, cell, figures);
        Ok(record.outcome)
    }

    /// The attacks that the recipe asks for beside PGD, each on what the ones before it left. Batches that are done are kept,
    /// and so are the adversarial examples in the end.
    fn attacked(&self, cell: &Cell, context: &mut Context) -> Result<Option<Attacked>> {
        let Some(suite) = &self.recipe.evaluate.attack else {
            return Ok(None);
        };
        let path = self.file_of(cell, ATTACK);
        let text = self.text_of(cell.attack());
        if let Some(attacked) = kept(&path, &text)? {
            return Ok(Some(attacked));
        }
        let classifier = self.require_classifier(cell, context)?.frozen();
        let (stage, folder) = (cell.stage(), self.file_of(cell, PIECES));
        let among = self.attacked_images()?;
        let logits = |x| classifier.logits(x);
        let run = SuiteRun {
            evaluator: self.evaluator(&stage, &logits),
            suite,
            ball: self.recipe.threat.ball(),
            among: &among,
            folder: &folder,
            recipe: &text,
        };
        let done = run.run(context);
        let (attacked, examples) = done.map_err(|error| self.here(error))?;
        examples.save(&self.file_of(cell, EXAMPLES), &run.info(None))?;
        let record = Kept {
            recipe: text,
            finding: attacked,
        };
        files::write_json(&path, &record)?;
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
        }
        let figures = vec![("attacked", record.finding.robust_accuracy())];
        tell(context, cell, figures);
        Ok(Some(record.finding))
    }

    /// Whether the figures can be believed: the checks of PGD, and what other attacks say of it.
    fn soundness(
        &self,
        cell: &Cell,
        outcome: &Outcome,
        examined: Option<Soundness>,
    ) -> Result<Option<Soundness>> {
        let Some(mut soundness) = examined else {
            return Ok(None);
        };
        let Some(attacked) = &outcome.attacked else {
            return Ok(Some(soundness));
        };
        soundness.include_attack_results(attacked);
        let path = self.file_of(cell, EXAMPLES);
        if path.exists() {
            let (examples, about) = Adversarial::load(&path)?;
            let judged = &self.data.judged.images;
            if about.recipe == self.text_of(cell.attack()) {
                let outside = examples.outside(self.recipe.threat.ball(), judged);
                soundness.include_examples(outside, examples.indices.len());
            }
        }
        Ok(Some(soundness))
    }

    /// The checks of PGD, which are made once; none where the recipe does without.
    fn examined(
        &self,
        cell: &Cell,
        outcome: &Outcome,
        context: &mut Context,
    ) -> Result<Option<Soundness>> {
        if !self.recipe.evaluate.soundness {
            return Ok(None);
        }
        let path = self.file_of(cell, SOUNDNESS);
        let text = self.text_of(cell.figures());
        if let Some(soundness) = kept(&path, &text)? {
            return Ok(Some(soundness));
        }
        let classifier = self.require_classifier(cell, context)?;
        let frozen = classifier.frozen();
        let (name, logits) = (cell.stage(), |x| frozen.logits(x));
        let checks = SoundnessChecks {
            evaluator: self.evaluator(&name, &logits),
            predict: &|x| classifier.forward(x, &mut Mode::Eval),
            clean: outcome.accuracy.total.clean,
            attacker: self.attacker(),
        };
        let soundness = checks.run(context);
        let soundness = soundness.map_err(|error| self.here(error))?;
        let record = Kept {
            recipe: text,
            finding: soundness,
        };
        files::write_json(&path, &record)?;
        Ok(Some(record.finding))
    }

    /// The recipe's threat model and PGD.
    pub(super) fn attacker(&self) -> Attacker {
        let settings = &self.recipe.evaluate;
        let ball = self.recipe.threat.ball();
        Attacker::new(ball, settings.steps, settings.step_size.as_ref())
    }

    /// A classifier on the images that it is evaluated on.
    fn evaluator<'a>(
        &'a self,
        name: &'a str,
        logits: &'a dyn Fn(Tensor<4>) -> Tensor<2>,
    ) -> Evaluator<'a> {
        Evaluator {
            name,
            logits,
            classes: self.data.target().classes.len(),
            split: &self.data.judged,
            batch_size: self.recipe.evaluate.batch_size,
        }
    }

    /// Which of the judged images the attacks beside PGD see.
    ///
    /// # Errors
    /// [`Error::Recipe`] for more than there are.
    pub(super) fn attacked_images(&self) -> Result<Vec<usize>> {
        let (judged, classes) = (&self.data.judged, self.data.target().classes.len());
        let count = judged.images.len();
        match self.recipe.evaluate.attack_limit {
            None => Ok((0..count).collect()),
            Some(limit) if (1..=count).contains(&limit) => {
                Ok(judged.limited(classes, limit, self.recipe.seed))
            }
            Some(limit) => {
                let problem = format!("expected 1 to {count} images to attack, found {limit}");
                let hint = "leave the limit out to attack them all";
                Err(Error::recipe("evaluate.attack_limit", problem, hint))
            }
        }
    }

    /// Copies the adversarial examples of a row to `path`.
    ///
    /// # Errors
    /// [`Error::Run`] where no attack was asked for; [`Error::Io`].
    pub fn save_adversarial(&self, cell: &Cell, path: &Path) -> Result<()> {
        let source = self.file_of(cell, EXAMPLES);
        if !source.exists() {
            let problem = format!("no adversarial examples of {} yet", cell.stage());
            let hint = "name the attack that makes them: --attack autoattack";
            return Err(Error::run(self.run.path(), problem, hint));
        }
        let content = std::fs::read(&source).map_err(Error::io("read", &source))?;
        files::write_atomic(path, &content)
    }

    /// Checks stored adversarial examples against the row that they say they are of, with this recipe's threat model.
    ///
    /// # Errors
    /// [`Error::Format`] for a file that is none, or of other images; [`Error::Recipe`] for a row that the recipe does not
    /// have; [`Error::Run`] when there is no classifier.
    pub fn verify(&self, path: &Path, context: &mut Context) -> Result<Verification> {
        let (examples, about) = Adversarial::load(path)?;
        let stage = about.classifier.as_str();
        let cells = self.cells(None, None)?;
        let Some(cell) = cells.iter().find(|cell| cell.stage() == stage) else {
            let problem = format!("the examples are of {stage}, which this run does not have");
            let known: Vec<String> = cells.iter().map(Cell::stage).collect();
            let hint = format!("it has {}", known.join(", "));
            return Err(Error::run(self.run.path(), problem, hint));
        };
        let classifier = self.require_classifier(cell, context)?.frozen();
        let found = adversarial::verify(
            (path, &examples, &about),
            &self.evaluator(stage, &|x| classifier.logits(x)),
            self.recipe.threat.ball(),
            context,
        );
        found.map_err(|error| self.here(error))
    }

    /// Evaluates rows and writes `summary.json`, which keeps the rows of those evaluated before.
    ///
    /// # Errors
    /// As [`Experiment::evaluate`].
    pub fn summary(&self, cells: &[Cell], context: &mut Context) -> Result<Summary> {
        let target = self.data.target();
        let source = &self.recipe.data.source;
        let mut summary = Summary {
            advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: self.recipe.seed,
            data: source.clone(),
            downstream: self.recipe.downstream.as_ref().map(|d| d.source.clone()),
            classes: target.classes.clone(),
            cluster_seconds: self.cluster_seconds()?,
            outcomes: Vec::new(),
            transfer: self.transferred()?,
        };
        let mut asked = summary.clone();
        for cell in self.cells(None, None)? {
            if cells.contains(&cell) {
                let outcome = self.evaluate(&cell, context)?;
                summary.outcomes.push(outcome.clone());
                asked.outcomes.push(outcome);
            } else if self.file_of(&cell, RESULT).exists() {
                summary.outcomes.push(self.known(&cell, context)?);
            }
        }
        files::write_json(&self.run.path().join("summary.json"), &summary)?;
        Ok(asked)
    }
}

/// Tells what was measured, for logs.
fn tell(context: &mut Context, cell: &Cell, figures: Vec<(&'static str, f64)>) {
    let stage = cell.stage();
    (context.observe)(&Event::Figures { stage, figures });
}
