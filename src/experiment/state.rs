//! State of a run's results beside what the recipe asks for: which hold, which are stale, which can be
//! continued, and what a command may do about it.

use serde::Deserialize;
use toml::{Table, Value};

use super::{Cell, Experiment};
use crate::error::{Error, Result};
use crate::recipe::{
    Artifact, CLUSTERED, CLUSTERED_METHOD, Difference, PRETRAINED, PSEUDO_LABELS, SOURCE, START,
    differences, from_text, in_words, is_path, title, to_text,
};
use crate::run::ModelInfo;
use crate::session::Context;
use crate::train::{Plan, Position};

/// Seconds of work that are done again without asking.
const SHORT: f64 = 60.0;

/// What to do with results that were made with other settings or other images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stale {
    /// Make short ones again; refuse to touch those that took longer than a minute.
    #[default]
    Ask,
    /// Make them again, however long they took.
    Replace,
    /// Use finished ones as they are.
    Reuse,
}

/// State of one result.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Nothing is there, or unfinished work that goes on.
    Missing,
    /// The result is what the recipe asks for.
    Fresh,
    /// A shorter training that did the same so far as the longer one that is asked for.
    Shorter {
        /// What it depended on.
        recorded: String,
        /// Epochs that are done and that are asked for.
        epochs: [usize; 2],
    },
    /// The result is not what the recipe asks for.
    Stale(Other),
}

/// Result of other settings or other images.
#[derive(Clone, Debug)]
pub(super) struct Other {
    /// Difference in words.
    pub why: String,
    /// Seconds that it took.
    pub seconds: f64,
    /// Whether the work was finished, so that there is a result to use.
    pub finished: bool,
}

/// What is to be done for a result.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Work {
    /// Nothing: the result is there.
    Done,
    /// Computation; of a training, with the dependencies of a shorter one to continue, and whether
    /// checkpoints of other trainings are replaced.
    Compute {
        continues: Option<String>,
        replaces: bool,
    },
}

/// "0:42", "2:31:07".
pub(super) fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours == 0 {
        format!("{minutes}:{seconds:02}")
    } else {
        format!("{hours}:{minutes:02}:{seconds:02}")
    }
}

/// Dependencies that a model file has, in whatever form.
pub(super) fn recorded(info: &ModelInfo) -> Table {
    toml::from_str(&info.recipe).unwrap_or_default()
}

impl Experiment {
    /// Dependencies of an encoder by the recipe.
    pub(super) fn expected_encoder(&self, name: &str) -> Result<Table> {
        let method = self.recipe.pretrain.require(name)?.method();
        let mut upstream = Vec::new();
        if let Some(source) = method.source().filter(|source| !is_path(source)) {
            upstream.push((SOURCE, self.upstream_encoder(source)?));
        }
        let init = self.recipe.pretrain.require(name)?.common().init.as_deref();
        if let Some(init) = init.filter(|init| !is_path(init)) {
            upstream.push((START, self.upstream_encoder(init)?));
        }
        if method.clustered() {
            upstream.push((PSEUDO_LABELS, self.upstream_labels()?));
        }
        self.dependencies(Artifact::Encoder(name), &upstream)
    }

    /// Dependencies of the pseudo-labels by the recipe.
    pub(super) fn expected_labels(&self) -> Result<Table> {
        let mut upstream = Vec::new();
        if !self.labels_are_given() {
            upstream.push((CLUSTERED, self.upstream_encoder(CLUSTERED_METHOD)?));
        }
        self.dependencies(Artifact::PseudoLabels, &upstream)
    }

    /// Dependencies of a row's classifier by the recipe.
    pub(super) fn expected_classifier(&self, cell: &Cell) -> Result<Table> {
        let encoder = self.upstream_encoder(&cell.method)?;
        match &cell.mode {
            Some(mode) => self.dependencies(Artifact::Classifier(mode), &[(PRETRAINED, encoder)]),
            None => Ok(encoder),
        }
    }

    /// Dependencies of the encoder that others are made from: by the recipe, or those of the one that is
    /// there where that is to be used as it is.
    pub(super) fn upstream_encoder(&self, name: &str) -> Result<Table> {
        if self.stale == Stale::Reuse
            && let Some(info) = ModelInfo::load(&self.layout().model(name))?
        {
            return Ok(recorded(&info));
        }
        self.expected_encoder(name)
    }

    fn upstream_labels(&self) -> Result<Table> {
        if self.stale == Stale::Reuse
            && let Some(found) = self.recorded_labels()?
        {
            return Ok(found);
        }
        self.expected_labels()
    }

    /// Dependencies of an unfinished training, whose batches also follow from the order of the images.
    pub(super) fn checkpoint_text(&self, dependencies: &Table) -> String {
        let orders = [
            Some(&self.fingerprints.train),
            self.fingerprints.downstream.as_ref(),
        ];
        let orders: Vec<&str> = orders
            .into_iter()
            .flatten()
            .map(|p| p.order.as_str())
            .collect();
        format!(
            "{}# order of the images: {}\n",
            to_text(dependencies),
            orders.join(", ")
        )
    }

    pub(super) fn dependencies(
        &self,
        artifact: Artifact,
        upstream: &[(&str, Table)],
    ) -> Result<Table> {
        let upstream: Vec<(&str, &Table)> = upstream.iter().map(|(n, t)| (*n, t)).collect();
        self.recipe
            .dependencies(artifact, &self.fingerprints, &upstream)
    }

    /// State of an encoder.
    pub(super) fn encoder_state(&self, name: &str) -> Result<State> {
        let expected = self.expected_encoder(name)?;
        let seconds = self.seconds(name)?.pretrain;
        let method = self.recipe.pretrain.require(name)?.method();
        let reason = "the method anneals over all its epochs";
        let fixed = method.depends_on_epochs().then_some(reason);
        let plan = ["pretrain", name, "plan"];
        self.training_state(name, &expected, plan, seconds, fixed)
    }

    /// Whether a training of these dependencies is under way in a stage's folder.
    pub(super) fn goes_on(&self, stage: &str, begun: &str) -> Result<bool> {
        let (whole, part) = crate::run::layout::part(stage, "");
        let position = Position::load(&self.layout().stage(stage).join(part))?;
        let same = |position: Position| position.stage == whole && position.recipe == begun;
        Ok(position.is_some_and(same))
    }

    /// State of a row's classifier.
    pub(super) fn classifier_state(&self, cell: &Cell) -> Result<State> {
        let Some(mode) = &cell.mode else {
            return self.encoder_state(&cell.method);
        };
        let expected = self.expected_classifier(cell)?;
        let stage = cell.stage();
        let seconds = self.seconds(&stage)?.finetune;
        let entry = self.recipe.finetune.require(mode)?;
        let reason = "its soft labels come from a training of as many epochs";
        let fixed = (entry.soft_labels() && entry.labels() < 1.0).then_some(reason);
        let plan = ["finetune", mode, "plan"];
        self.training_state(&stage, &expected, plan, seconds, fixed)
    }

    /// State of what was trained in a stage; `plan` leads to the training's plan in its dependencies, `fixed` is the reason why
    /// one of another number of epochs cannot continue it, whatever its schedule.
    fn training_state(
        &self,
        stage: &str,
        expected: &Table,
        plan: [&str; 3],
        seconds: f64,
        fixed: Option<&str>,
    ) -> Result<State> {
        let (text, begun) = (to_text(expected), self.checkpoint_text(expected));
        let (whole, part) = crate::run::layout::part(stage, "");
        let position = Position::load(&self.layout().stage(stage).join(part))?;
        let position = position.filter(|position| position.stage == whole);
        let info = ModelInfo::load(&self.layout().model(stage))?;
        if info.as_ref().is_some_and(|info| info.recipe == text) {
            return Ok(State::Fresh);
        }
        // A model of something else while the right one is in the making.
        if position
            .as_ref()
            .is_some_and(|position| position.recipe == begun)
        {
            return Ok(State::Missing);
        }
        let (found, seconds, finished) = match (&info, &position) {
            (Some(info), _) => (&info.recipe, seconds, true),
            (None, Some(position)) => (&position.recipe, position.seconds, false),
            (None, None) => return Ok(State::Missing),
        };
        let Some(table) = from_text(found) else {
            let why = "made by an earlier version, which did not keep what it depends on in a form to compare";
            return Ok(State::Stale(Other {
                why: why.to_owned(),
                seconds,
                finished,
            }));
        };
        let mut why = in_words(&differences(&table, expected));
        if why.is_empty() {
            why = "the images are in another order, and it is unfinished".to_owned();
        }
        if let (Some(position), Some((then, now))) =
            (&position, only_plans_differ(&table, expected, plan))
            && position.recipe == self.checkpoint_text(&table)
            && then.epochs != now.epochs
        {
            // Steps of an epoch that has only begun are done too.
            let done = position.begun_epochs();
            let continued = match fixed {
                Some(reason) => Err(reason.to_owned()),
                None => then.continues_as(&now, done),
            };
            match continued {
                Ok(()) => {
                    return Ok(State::Shorter {
                        recorded: position.recipe.clone(),
                        epochs: [position.epoch, now.epochs],
                    });
                }
                Err(reason) => {
                    let stretched = match fixed {
                        Some(_) => None,
                        None => stretching(&then, &now, done, &plan),
                    };
                    why += &format!(
                        " (it cannot be continued: {reason}{})",
                        stretched.unwrap_or_default()
                    );
                }
            }
        }
        Ok(State::Stale(Other {
            why,
            seconds,
            finished,
        }))
    }

    /// What is to be done for a result in this state; says what happens to a stale one.
    ///
    /// # Errors
    /// [`Error::Run`] for a stale result that took long, where nobody said what to do with it.
    pub(super) fn work(
        &self,
        artifact: &str,
        stage: &str,
        state: State,
        context: &mut Context,
    ) -> Result<Work> {
        let compute = |continues, replaces| Work::Compute {
            continues,
            replaces,
        };
        match state {
            State::Fresh => Ok(Work::Done),
            State::Missing => Ok(compute(None, true)),
            State::Shorter { recorded, epochs } => {
                let [done, asked] = epochs;
                context.note(
                    stage,
                    format!("continuing the {artifact}: epoch {done} of {asked}"),
                );
                Ok(compute(Some(recorded), false))
            }
            State::Stale(other) if self.stale == Stale::Reuse && other.finished => {
                context.note(
                    stage,
                    format!("using the {artifact} as it is: {}", other.why),
                );
                Ok(Work::Done)
            }
            State::Stale(other) if self.stale == Stale::Replace || other.seconds <= SHORT => {
                context.note(stage, format!("making the {artifact} again: {}", other.why));
                Ok(compute(None, true))
            }
            State::Stale(other) => Err(self.refuse_stale(&[(artifact.to_owned(), other)])),
        }
    }

    /// Refuses to begin where stale results took long, naming all of them at once.
    ///
    /// # Errors
    /// [`Error::Run`].
    pub(super) fn require_permission(&self, cells: &[Cell], methods: &[String]) -> Result<()> {
        if self.stale == Stale::Replace {
            return Ok(());
        }
        let mut long = Vec::new();
        let mut look = |what: String, state: State| {
            if let State::Stale(other) = state
                && other.seconds > SHORT
                && !(self.stale == Stale::Reuse && other.finished)
            {
                long.push((what, other));
            }
        };
        for name in methods {
            look(title(Artifact::Encoder(name)), self.encoder_state(name)?);
        }
        for cell in cells.iter().filter(|cell| cell.mode.is_some()) {
            look(super::classifier_title(cell), self.classifier_state(cell)?);
        }
        if long.is_empty() {
            Ok(())
        } else {
            Err(self.refuse_stale(&long))
        }
    }

    fn refuse_stale(&self, long: &[(String, Other)]) -> Error {
        let words = |(what, other): &(String, Other)| {
            let state = if other.finished {
                "made in"
            } else {
                "unfinished, so far"
            };
            format!("{what} ({state} {}): {}", clock(other.seconds), other.why)
        };
        let listed: Vec<String> = long.iter().map(words).collect();
        let problem = format!(
            "made with other settings or images, and took too long to be made again unasked: {}",
            listed.join("; ")
        );
        let run = self.run.path().display();
        let reuse = if long.iter().all(|(_, other)| other.finished) {
            "--reuse uses it as it is, "
        } else {
            ""
        };
        let hint = format!(
            "--replace makes it again, {reuse}and `advcl fork {run} NEW` with the same --set leaves it alone and copies what still holds"
        );
        Error::run(self.run.path(), problem, hint)
    }

    /// Refuses a classifier that contradicts the recipe in more than images and threat model, which an
    /// evaluation may choose freely.
    ///
    /// # Errors
    /// [`Error::Run`].
    pub(super) fn require_consistent(&self, cell: &Cell, info: &ModelInfo) -> Result<()> {
        if self.stale == Stale::Reuse {
            return Ok(());
        }
        let run = self.run.path().display();
        let Some(found) = from_text(&info.recipe) else {
            let problem = format!(
                "{cell}: made by an earlier version, which did not keep what it depends on in a form to compare"
            );
            let hint = "--reuse uses it as it is";
            return Err(Error::run(self.run.path(), problem, hint));
        };
        let free = |difference: &Difference| {
            let key = &difference.key;
            ["images.", "threat."]
                .iter()
                .any(|free| key.starts_with(free))
        };
        let mut differences = differences(&found, &self.expected_classifier(cell)?);
        differences.retain(|difference| !free(difference));
        if differences.is_empty() {
            return Ok(());
        }
        let problem = format!(
            "{cell} was made with other settings: {}",
            in_words(&differences)
        );
        let hint = format!(
            "--reuse evaluates it as it is; `advcl run {run} --replace` with the same --set makes it again"
        );
        Err(Error::run(self.run.path(), problem, hint))
    }
}

/// How to ask for a stretched schedule, where more epochs by one continue what was trained so far.
fn stretching(then: &Plan, now: &Plan, done: usize, plan: &[&str; 3]) -> Option<String> {
    let mut stretched = then.stretched.clone();
    stretched.push(then.epochs);
    let by_it = Plan {
        stretched: stretched.clone(),
        ..now.clone()
    };
    if now.epochs < then.epochs || then.continues_as(&by_it, done).is_err() {
        return None;
    }
    Some(format!(
        "; --set '{}.stretched = {stretched:?}' stretches the schedule from there on",
        plan.join(".")
    ))
}

/// Both plans, where everything else is the same.
fn only_plans_differ(
    found: &Table,
    expected: &Table,
    [a, b, c]: [&str; 3],
) -> Option<(Plan, Plan)> {
    let take = |table: &Table| -> Option<(Table, Plan)> {
        let mut rest = table.clone();
        let Value::Table(inner) = rest.get_mut(a)? else {
            return None;
        };
        let Value::Table(inner) = inner.get_mut(b)? else {
            return None;
        };
        let plan = Plan::deserialize(inner.remove(c)?).ok()?;
        Some((rest, plan))
    };
    let ((found, then), (expected, now)) = (take(found)?, take(expected)?);
    (found == expected).then_some((then, now))
}
