//! The classifiers of a run and its images, from which pictures are computed.

use burn::tensor::Device;

use super::layout::{MODEL, RECIPE};
use super::{ReportedRow, ReportedRun};
use crate::attack::Pgd;
use crate::error::{Error, Result, first_difference};
use crate::experiment::{Cell, Data, fingerprints};
use crate::nn::{FrozenClassifier, FrozenEncoder};
use crate::recipe::{Fingerprints, Part, Recipe};
use crate::run::Model;

/// The images of a run.
pub struct ReportData<'a> {
    /// The run.
    pub run: &'a ReportedRun,
    /// Training and evaluated images.
    pub data: Data,
    prints: Fingerprints,
}

/// A loaded classifier.
pub struct ReportedModel<'a> {
    /// Its figures.
    pub row: &'a ReportedRow,
    /// Images to logits.
    pub classifier: FrozenClassifier,
    /// Images to features.
    pub encoder: FrozenEncoder,
}

impl<'a> ReportData<'a> {
    /// Reads the images of the run. `overrides` name their place where they were moved:
    /// `data.source = "…"`.
    ///
    /// # Errors
    /// Whatever is wrong with the data, or with the recipe for this data; [`Error::Recipe`] for an
    /// override of anything else.
    pub fn open(run: &'a ReportedRun, overrides: &[String]) -> Result<Self> {
        let place = run.path.join(RECIPE).display().to_string();
        let now = Recipe::parse(&place, &run.recipe.to_toml(), overrides)?;
        let mut same = now.clone();
        same.data.source.clone_from(&run.recipe.data.source);
        if let (Some(now), Some(then)) = (&mut same.downstream, &run.recipe.downstream) {
            now.source.clone_from(&then.source);
        }
        if same != run.recipe {
            let problem = "a report shows a run as it was made";
            let hint =
                "only data.source and downstream.source may change, where the images were moved";
            return Err(Error::recipe("--set", problem, hint));
        }
        let data = Data::load(&now)?;
        let prints = fingerprints(&run.recipe, &data)?;
        Ok(Self { run, data, prints })
    }

    /// PGD with the settings of the run's evaluation.
    pub fn pgd(&self) -> Pgd {
        let recipe = &self.run.recipe;
        let step_size = recipe.evaluate.step_size.as_ref();
        Pgd::new(recipe.evaluate.steps, step_size, recipe.threat.ball())
    }

    /// Whether the row's figures belong to the recipe and the images as they are now.
    pub fn up_to_date(&self, row: &ReportedRow) -> bool {
        let recipe = &self.run.recipe;
        let now = row
            .cell(recipe)
            .map(|cell| recipe.text_of(cell.figures(), &self.prints));
        now.as_ref() == Some(&row.recipe)
    }

    /// Loads the encoder of a method; none where it was not trained yet.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::Model`].
    pub fn encoder(&self, method: &str, device: &Device) -> Result<Option<Model>> {
        let path = self.run.path.join(method).join(MODEL);
        path.exists()
            .then(|| Model::load(&path, device))
            .transpose()
    }

    /// Loads the row's classifier.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::Model`]: the last one also for a model of another
    /// recipe or of other images.
    pub fn model(&self, row: &'a ReportedRow, device: &Device) -> Result<ReportedModel<'a>> {
        let recipe = &self.run.recipe;
        let root = &self.run.path;
        let Some(cell) = row.cell(recipe) else {
            let problem = format!("no {} in its recipe", row.classifier);
            return Err(Error::run(root, problem, ""));
        };
        // A supervised method's classifier is in its encoder's file.
        let below = match cell.mode {
            Some(_) => cell.stage(),
            None => cell.method.clone(),
        };
        let path = root.join(below).join(MODEL);
        let model = Model::load(&path, device)?;
        let expected = recipe.text_of(part(&cell), &self.prints);
        if model.info.recipe != expected {
            let difference = first_difference(&model.info.recipe, &expected);
            let problem = format!("a model of another recipe or of other images ({difference})");
            let hint = "the images may have changed since it was made";
            return Err(Error::model(path, problem, hint));
        }
        let classifier = model.classifier(&path)?;
        Ok(ReportedModel {
            row,
            encoder: FrozenEncoder::new(&classifier.encoder, classifier.route),
            classifier: classifier.frozen(),
        })
    }
}

fn part(cell: &Cell) -> Part<'_> {
    match cell.mode {
        Some(_) => cell.classifier(),
        None => Part::Encoder(&cell.method),
    }
}
