//! Evaluation of classifiers: clean accuracy, PGD, and the attacks that the recipe asks for, side by side for
//! several test sets, threat models and attacks.

use std::borrow::Cow;
use std::time::Instant;

use burn::tensor::Tensor;
use toml::Table;

use super::kept::{KeptSuite, classifier_table, kept_outcomes, suite_key};
use super::{Cell, Evaluated, Experiment, Outcome, Seconds, Summary};
use crate::attack::Attacker;
use crate::data::Split;
use crate::error::{Error, Result};
use crate::evaluate::soundness::{Soundness, SoundnessChecks};
use crate::evaluate::{Attacked, Evaluator, SuiteRun};
use crate::files;
use crate::nn::{Classifier, Mode};
use crate::recipe::{Artifact, CLASSIFIER, to_text};
use crate::run::layout::ATTACK_PIECES;
use crate::run::{Model, ModelInfo, Results, Run, require_inside};
use crate::session::{Context, Event};

/// Classifier of a row as it is evaluated: from its file, whatever the recipe says about training.
pub(super) struct Subject<'a> {
    pub cell: &'a Cell,
    /// Description in the model file.
    pub info: ModelInfo,
    /// Dependencies in the model file.
    table: Table,
    /// Images of the split, labeled by the classifier's classes.
    pub split: Cow<'a, Split>,
}

impl Subject<'_> {
    /// Dependencies of the classifier.
    pub fn table(&self) -> &Table {
        &self.table
    }
}

impl Experiment {
    /// Evaluates the classifiers of some rows: clean accuracy, PGD, the recipe's attack suite, soundness
    /// checks; what was computed under the same conditions is read back. Writes `summary.json`, which
    /// keeps all that was evaluated before, and returns the rows that were asked for.
    ///
    /// A row that has no classifier yet, or one that contradicts the recipe, is passed over with a note
    /// unless none is left.
    ///
    /// # Errors
    /// [`Error::Run`] when there is no encoder or no classifier yet; [`Error::Interrupted`];
    /// [`Error::Logits`]; [`Error::Data`] for images of classes that a classifier does not know.
    pub fn evaluate(&self, cells: &[Cell], context: &mut Context) -> Result<Summary> {
        let target = self.data.target();
        target.require_labels()?;
        target.require_judged(&self.data.judged)?;
        self.attacked_images()?;
        self.enter(context, |context| self.summarize(cells, context))
    }

    /// Evaluates one row.
    ///
    /// # Errors
    /// As [`Experiment::evaluate`].
    pub(super) fn evaluate_row(&self, cell: &Cell, context: &mut Context) -> Result<Outcome> {
        let subject = self.subject(cell)?;
        self.compute_pgd(&subject, context)?;
        let suite = self.compute_suite(&subject, context)?;
        self.compute_soundness(&subject, context)?;
        let text = self.text(&subject, Artifact::Pgd)?;
        let kept = kept_outcomes(self.layout(), cell)?;
        let (_, mut outcome) = kept
            .into_iter()
            .find(|(depends_on, _)| *depends_on == text)
            .expect("just computed");
        // The suite that the recipe asks for, of all that were tried under these conditions.
        let suite = suite.map(|suite| suite.with_pgd(&outcome.accuracy));
        if suite.is_some() && outcome.attacked != suite {
            let other = std::mem::replace(&mut outcome.attacked, suite);
            outcome
                .other_attacks
                .retain(|one| Some(one) != outcome.attacked.as_ref());
            outcome.other_attacks.extend(other);
        }
        if !self.recipe.evaluate.soundness {
            outcome.soundness = None;
        }
        Ok(outcome)
    }

    /// Finds a row's classifier, and the images to evaluate it on.
    pub(super) fn subject<'a>(&'a self, cell: &'a Cell) -> Result<Subject<'a>> {
        let Some(info) = ModelInfo::load(&self.model_path(cell))? else {
            return Err(self.no_classifier(cell));
        };
        self.require_consistent(cell, &info)?;
        let split = self.split_for(cell, &info)?;
        let table = super::state::recorded(&info);
        Ok(Subject {
            cell,
            info,
            table,
            split,
        })
    }

    fn no_classifier(&self, cell: &Cell) -> Error {
        let run = self.run.path().display();
        let (problem, hint) = if cell.mode.is_none() || !self.encoder_path(&cell.method).exists() {
            (
                format!("no {} encoder yet", cell.method),
                format!(
                    "make it first: advcl pretrain {run} --method {}",
                    cell.method
                ),
            )
        } else {
            (
                format!("no {} classifier on {} yet", cell.mode_name(), cell.method),
                format!(
                    "make it first: advcl finetune {run} --method {} --mode {}",
                    cell.method,
                    cell.mode_name()
                ),
            )
        };
        Error::run(self.run.path(), problem, hint)
    }

    /// The images to evaluate on, with the classifier's labels: classes are matched by name.
    fn split_for(&self, cell: &Cell, info: &ModelInfo) -> Result<Cow<'_, Split>> {
        let (split, classes) = (&self.data.judged, &self.data.target().classes);
        let (images, name) = (&split.images, &self.data.target().name);
        if images.channels != info.channels {
            let problem = format!(
                "expected images of {} channel(s) for {cell}, found {}",
                info.channels, images.channels
            );
            let kind = match info.channels {
                1 => "gray",
                _ => "rgb",
            };
            let hint = format!("--set 'data.channels = \"{kind}\"' converts them");
            return Err(Error::data(name, problem, hint));
        }
        let [height, width] = info.image_size;
        if [images.height, images.width] != info.image_size {
            let problem = format!(
                "expected images of {width} × {height} (width × height) for {cell}, found {} × {}",
                images.width, images.height
            );
            let hint = format!(
                "--set 'data.size = [{height}, {width}]' brings them to it (data.fit: crop, pad or stretch)"
            );
            return Err(Error::data(name, problem, hint));
        }
        if *classes == info.classes {
            return Ok(Cow::Borrowed(split));
        }
        let relabeled = split.labeled_by(classes, &info.classes);
        relabeled.map(Cow::Owned).map_err(|unknown| {
            let problem = format!(
                "class {unknown:?} is not one of those that {cell} tells apart: {}",
                info.classes.join(", ")
            );
            let (run, source) = (self.run.path().display(), &self.data.target().name);
            let hint = format!(
                "classifiers of these classes on the same encoders: `advcl fork {run} NEW --set 'downstream.source = {source:?}'`, then `advcl run NEW`"
            );
            Error::data(&self.data.target().name, problem, hint)
        })
    }

    /// Everything that a result of a classifier depends on.
    pub(super) fn text(&self, subject: &Subject, artifact: Artifact) -> Result<String> {
        let table = self.dependencies(artifact, &[(CLASSIFIER, subject.table.clone())])?;
        Ok(to_text(&table))
    }

    /// Threat model and PGD of the recipe's evaluation.
    pub(super) fn attacker(&self) -> Attacker {
        let settings = &self.recipe.evaluate;
        let ball = self.recipe.threat.ball();
        Attacker::new(ball, settings.steps, settings.step_size.as_ref())
    }

    pub(super) fn evaluator<'a>(
        &self,
        subject: &'a Subject,
        name: &'a str,
        logits: &'a dyn Fn(Tensor<4>) -> Tensor<2>,
    ) -> Evaluator<'a> {
        Evaluator {
            name,
            logits,
            classes: subject.info.classes.len(),
            split: &subject.split,
            batch_size: self.recipe.evaluate.batch_size,
        }
    }

    /// Loads the classifier of a subject.
    pub(super) fn load_classifier(
        &self,
        subject: &Subject,
        context: &Context,
    ) -> Result<Classifier> {
        let path = self.model_path(subject.cell);
        Model::load(&path, &context.device)?.classifier(&path)
    }

    /// Computes clean accuracy and accuracy under PGD, unless they are kept.
    fn compute_pgd(&self, subject: &Subject, context: &mut Context) -> Result<()> {
        let (cell, stage) = (subject.cell, subject.cell.stage());
        let path = self.layout().results(&stage);
        let text = self.text(subject, Artifact::Pgd)?;
        let mut results: Results<Outcome> = Results::load(&path)?;
        if results.get(&text).is_some() {
            return Ok(());
        }
        let classifier = self.load_classifier(subject, context)?.frozen();
        let settings = &self.recipe.evaluate;
        let started = Instant::now();
        let attacker = self.attacker();
        let all: Vec<usize> = (0..subject.split.images.len()).collect();
        let logits = |x| classifier.logits(x);
        let evaluator = self.evaluator(subject, &stage, &logits);
        let accuracy = evaluator.accuracy(&all, attacker, context)?;
        self.set_seconds(&stage, |times| {
            times.evaluate = started.elapsed().as_secs_f64()
        })?;
        let total = &accuracy.total;
        let fraction = |part: usize| part as f64 / total.images as f64;
        let own = self.seconds(&stage)?;
        let outcome = Outcome {
            method: cell.method.clone(),
            finetuning: cell.mode_name().to_owned(),
            clean_accuracy: fraction(total.clean),
            robust_accuracy: fraction(total.robust),
            images: total.images,
            split: settings.split,
            evaluated: Evaluated {
                data: self.data.target().name.clone(),
                fingerprint: self.fingerprints.evaluated.order.clone(),
            },
            threat: self.recipe.threat.clone(),
            attack_steps: settings.steps,
            attack_step_size: attacker.pgd.step_size,
            seconds: Seconds {
                pretrain: self.whole_pretrain_seconds(&cell.method)?,
                ..own
            },
            accuracy,
            classes: Vec::new(),
            by_class: None,
            attacked: None,
            other_attacks: Vec::new(),
            measures: None,
            soundness: None,
        };
        let figures = vec![
            ("clean", outcome.clean_accuracy),
            ("robust", outcome.robust_accuracy),
        ];
        results.put(&text, outcome);
        results.store(&path)?;
        (context.observe)(&Event::Figures { stage, figures });
        Ok(())
    }

    /// Computes the outcome of the attack suite that the recipe asks for beside PGD, unless it is kept. Batches
    /// that are done are kept, and so are the adversarial examples in the end.
    fn compute_suite(&self, subject: &Subject, context: &mut Context) -> Result<Option<Attacked>> {
        let Some(suite) = &self.recipe.evaluate.attack else {
            return Ok(None);
        };
        let stage = subject.cell.stage();
        let folder = self.run.stage(&stage)?;
        let path = self.layout().attacks(&stage);
        let text = self.text(subject, Artifact::Suite)?;
        let key = suite_key(suite.name(), &text);
        let pieces = self.layout().attack_pieces(&stage, &key);
        for folder in [&folder.join(ATTACK_PIECES), &pieces] {
            if folder.exists() {
                require_inside(self.run.path(), folder)?;
            }
        }
        let mut results: Results<KeptSuite> = Results::load(&path)?;
        let attacked = match results.get(&text) {
            Some(kept) => kept.attacked.clone(),
            None => {
                let classifier = self.load_classifier(subject, context)?.frozen();
                let among = self.attacked_images()?;
                let logits = |x| classifier.logits(x);
                let run = SuiteRun {
                    evaluator: self.evaluator(subject, &stage, &logits),
                    suite,
                    ball: self.recipe.threat.ball(),
                    among: &among,
                    folder: Some(&pieces),
                    recipe: &text,
                };
                let (attacked, examples) = run.run(context)?;
                examples.save(&self.layout().adversarial(&stage, &key), &run.info(None))?;
                let kept = KeptSuite {
                    attacked: attacked.clone(),
                    key,
                    outside: examples.outside(self.recipe.threat.ball(), &subject.split.images),
                    examples: examples.indices.len(),
                };
                results.put(&text, kept);
                results.store(&path)?;
                let figures = vec![("attacked", attacked.robust_accuracy())];
                (context.observe)(&Event::Figures { stage, figures });
                attacked
            }
        };
        // Also what a process left that was killed right after keeping the outcome.
        Run::remove(&pieces)?;
        if let Some(parent) = pieces.parent() {
            files::changing(parent, || {
                // Other suites may be unfinished: their pieces stay.
                let _ = std::fs::remove_dir(parent);
                Ok(())
            })?;
        }
        Ok(Some(attacked))
    }

    /// Makes the checks of PGD, unless they are kept or the recipe does without.
    fn compute_soundness(&self, subject: &Subject, context: &mut Context) -> Result<()> {
        if !self.recipe.evaluate.soundness {
            return Ok(());
        }
        let stage = subject.cell.stage();
        self.run.stage(&stage)?;
        let path = self.layout().soundness(&stage);
        let text = self.text(subject, Artifact::Pgd)?;
        let mut results: Results<Soundness> = Results::load(&path)?;
        if results.get(&text).is_some() {
            return Ok(());
        }
        let outcomes: Results<Outcome> = Results::load(&self.layout().results(&stage))?;
        let outcome = outcomes.get(&text).expect("computed before");
        let classifier = self.load_classifier(subject, context)?;
        let frozen = classifier.frozen();
        let logits = |x| frozen.logits(x);
        let checks = SoundnessChecks {
            evaluator: self.evaluator(subject, &stage, &logits),
            predict: &|x| classifier.forward(x, &mut Mode::Eval),
            clean: outcome.accuracy.total.clean,
            attacker: self.attacker(),
        };
        let soundness = checks.run(context)?;
        results.put(&text, soundness);
        results.store(&path)
    }

    /// Places of the images that the attacks beside PGD get.
    ///
    /// # Errors
    /// [`Error::Recipe`] for more than there are.
    pub(super) fn attacked_images(&self) -> Result<Vec<usize>> {
        self.images_within(self.recipe.evaluate.attack_limit)
    }

    /// Places of the images that attacks get within a limit of their number.
    ///
    /// # Errors
    /// [`Error::Recipe`] for more than there are.
    pub(super) fn images_within(&self, limit: Option<usize>) -> Result<Vec<usize>> {
        let (judged, classes) = (&self.data.judged, self.data.target().classes.len());
        let count = judged.images.len();
        match limit {
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

    /// Evaluates rows and writes `summary.json`.
    pub(super) fn summarize(&self, cells: &[Cell], context: &mut Context) -> Result<Summary> {
        let asked = self.each_row(cells, context, |cell, context| {
            self.evaluate_row(cell, context)
        })?;
        let mut summary = Summary {
            advcl_version: env!("CARGO_PKG_VERSION").to_owned(),
            seed: self.recipe.seed,
            data: self.data.pretraining.name.clone(),
            downstream: self.data.downstream.as_ref().map(|data| data.name.clone()),
            classes: self.data.target().classes.clone(),
            cluster_seconds: self.cluster_seconds()?,
            outcomes: Vec::new(),
            other_conditions: Vec::new(),
            transfer: self.kept_transfer()?,
        };
        for cell in self.cells(None, None)? {
            let own = |outcome: &&Outcome| {
                outcome.method == cell.method && outcome.finetuning == cell.mode_name()
            };
            let mut kept = kept_outcomes(self.layout(), &cell)?;
            let now = asked.iter().find(own).cloned();
            let now = match now {
                Some(now) => Some(now),
                None => self.kept_now(&cell, &mut kept)?,
            };
            if let Some(now) = now {
                let conditions = |o: &Outcome| {
                    let Outcome {
                        evaluated,
                        threat,
                        attack_steps,
                        attack_step_size,
                        ..
                    } = o;
                    (
                        evaluated.clone(),
                        threat.clone(),
                        *attack_steps,
                        *attack_step_size,
                    )
                };
                let others = kept.into_iter().map(|(_, other)| other);
                let others = others.filter(|other| conditions(other) != conditions(&now));
                summary.other_conditions.extend(others);
                summary.outcomes.push(now);
            }
        }
        // Counts are in the order of a classifier's classes, and the images may have them in another.
        if let Some(first) = summary.outcomes.first() {
            summary.classes.clone_from(&first.classes);
        }
        files::write_json(&self.layout().summary(), &summary)?;
        summary.outcomes = asked;
        summary.other_conditions.clear();
        Ok(summary)
    }

    /// Takes the outcome under the recipe's conditions out of those that are kept of a row which was not asked
    /// for; the latest where there is none.
    fn kept_now(&self, cell: &Cell, kept: &mut Vec<(String, Outcome)>) -> Result<Option<Outcome>> {
        let Some(table) = classifier_table(self.layout(), cell)? else {
            return Ok(None);
        };
        let text = to_text(&self.dependencies(Artifact::Pgd, &[(CLASSIFIER, table)])?);
        let at = kept.iter().position(|(depends_on, _)| *depends_on == text);
        let at = at.or(kept.len().checked_sub(1));
        Ok(at.map(|at| kept.remove(at).1))
    }
}
