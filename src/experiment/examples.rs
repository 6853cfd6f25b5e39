//! Adversarial examples of classifiers in a run folder: copied out, made into pictures, checked.

use std::path::{Path, PathBuf};

use super::kept::suite_key;
use super::{Cell, Experiment};
use crate::attack::Ball;
use crate::error::{Error, Result};
use crate::evaluate::adversarial::{self, Adversarial, ExamplesInfo, Verification};
use crate::evaluate::rounded::{self, Pictured};
use crate::files;
use crate::recipe::Artifact;
use crate::session::Context;
use crate::weights;

impl Experiment {
    /// File of the adversarial examples that the recipe's attack suite found of a row.
    fn examples_of(&self, cell: &Cell) -> Result<PathBuf> {
        let subject = self.subject(cell)?;
        let suite = self.recipe.evaluate.attack.as_ref();
        let text = self.text(&subject, Artifact::Suite)?;
        let key = suite.map(|suite| suite_key(suite.name(), &text));
        let source = key.map(|key| self.layout().adversarial(&cell.stage(), &key));
        source.filter(|source| source.exists()).ok_or_else(|| {
            let problem = format!("no adversarial examples of {cell} yet");
            let hint = "name the attack that makes them: --attack autoattack";
            Error::run(self.run.path(), problem, hint)
        })
    }

    /// Copies the adversarial examples that the recipe's attack suite found of a row to `path`.
    ///
    /// # Errors
    /// [`Error::Run`] where no attack was asked for; [`Error::Io`].
    pub fn save_adversarial(&self, cell: &Cell, path: &Path) -> Result<()> {
        files::write_output(path, &files::read(&self.examples_of(cell)?)?)
    }

    /// Adversarial examples that the recipe's attack suite found of a row, with what rounding to 8 bits makes of them.
    ///
    /// # Errors
    /// As [`Experiment::save_adversarial`]; [`Error::Interrupted`].
    pub fn pictured(&self, cell: &Cell, context: &mut Context) -> Result<Pictured> {
        let path = self.examples_of(cell)?;
        let (examples, info) = Adversarial::load(&path)?;
        self.picture(cell, (&path, examples, info), context)
    }

    /// Adversarial examples of a file that was made in this run, with what rounding to 8 bits makes of them.
    ///
    /// # Errors
    /// As [`Experiment::verify`].
    pub fn stored(&self, path: &Path, context: &mut Context) -> Result<Pictured> {
        let (examples, info) = Adversarial::load(path)?;
        let cell = self.cell_of(&info)?;
        self.picture(&cell, (path, examples, info), context)
    }

    fn picture(
        &self,
        cell: &Cell,
        (path, examples, info): (&Path, Adversarial, ExamplesInfo),
        context: &mut Context,
    ) -> Result<Pictured> {
        let (subject, stage) = (self.subject(cell)?, cell.stage());
        let images = &subject.split.images;
        adversarial::check_indices(path, &examples, &info, images)?;
        let classifier = self.load_classifier(&subject, context)?.frozen();
        let logits = |x| classifier.logits(x);
        let evaluator = self.evaluator(&subject, &stage, &logits);
        // Of the file: it may have been made under another threat model than the recipe's.
        let ball = Ball {
            norm: info.norm,
            radius: info.radius,
        };
        let rounded = self.enter(context, |context| {
            rounded::round(&examples, &evaluator, ball, context)
        })?;
        Ok(Pictured {
            examples,
            info,
            rounded,
            classes: subject.info.classes.clone(),
            originals: images.clone(),
        })
    }

    /// Row that a file of examples names.
    fn cell_of(&self, about: &ExamplesInfo) -> Result<Cell> {
        let stage = about.classifier.as_str();
        let mut cells = self.cells(None, None)?;
        match cells.iter().position(|cell| cell.stage() == stage) {
            Some(place) => Ok(cells.swap_remove(place)),
            None => {
                let problem = format!("the examples are of {stage}, which this run does not have");
                let known: Vec<String> = cells.iter().map(Cell::stage).collect();
                let hint = format!("it has {}", known.join(", "));
                Err(Error::run(self.run.path(), problem, hint))
            }
        }
    }

    /// Refuses examples that were made with another `evaluate.attack_limit` than the recipe's, with the one that fits. Other
    /// images for any other reason are left to the check of the examples.
    fn require_limit(&self, path: &Path, about: &ExamplesInfo, images: usize) -> Result<()> {
        let theirs = about.among.len();
        if theirs == images {
            return Ok(());
        }
        let limited = self.images_within(Some(theirs));
        if !limited.is_ok_and(|limited| adversarial::counts_these(about, &limited)) {
            return Ok(());
        }
        let problem = format!(
            "expected examples among the {images} images that this recipe attacks, found some among {theirs}: they were made with another evaluate.attack_limit"
        );
        let hint =
            format!("--set 'evaluate.attack_limit = {theirs}' verifies them as they were made");
        Err(Error::model(path, problem, hint))
    }

    /// Checks stored adversarial examples against the row that their file names, with this recipe's threat model.
    ///
    /// # Errors
    /// [`Error::Format`] for a file that is none, or of other images; [`Error::Model`] for one that counts others than the recipe
    /// attacks; [`Error::Recipe`] for a row that the recipe does not have; [`Error::Run`] when there is no classifier.
    pub fn verify(&self, path: &Path, context: &mut Context) -> Result<Verification> {
        let (examples, about) = Adversarial::load(path)?;
        let cell = self.cell_of(&about)?;
        let (subject, stage) = (self.subject(&cell)?, cell.stage());
        let classifier = self.load_classifier(&subject, context)?.frozen();
        let logits = |x| classifier.logits(x);
        let evaluator = self.evaluator(&subject, &stage, &logits);
        let (stored, ball) = ((path, &examples, &about), self.recipe.threat.ball());
        let among = self.attacked_images()?;
        adversarial::check_indices(path, &examples, &about, &subject.split.images)?;
        self.require_limit(path, &about, among.len())?;
        let found = self.enter(context, |context| {
            adversarial::verify(stored, &evaluator, &among, ball, context)
        })?;
        // Last, because what an example is shows more than that its file was changed.
        weights::require_checksum(&files::read(path)?, path)?;
        Ok(found)
    }
}
