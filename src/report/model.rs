//! The classifiers of a run and its images, from which pictures are computed.

use burn::tensor::Device;

use super::{ReportedRow, ReportedRun};
use crate::attack::Attacker;
use crate::data::SplitFingerprint;
use crate::error::{Error, Result};
use crate::experiment::{Data, Purpose, require_images};
use crate::nn::{FrozenClassifier, FrozenEncoder};
use crate::recipe::Recipe;
use crate::run::{Layout, Model};

/// The images of a run.
pub struct ReportData<'a> {
    /// The run.
    pub run: &'a ReportedRun,
    /// Training and evaluated images.
    pub data: Data,
    evaluated: SplitFingerprint,
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
        let place = run.path.display().to_string();
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
        require_images(&run.path, &now)?;
        let data = Data::load(&now, Purpose::Evaluate)?;
        let evaluated = SplitFingerprint::new(&data.judged, &data.target().classes);
        let known = |row: &ReportedRow| row.outcome.evaluated.fingerprint == evaluated.order;
        if !overrides.is_empty() && !run.rows.iter().any(known) {
            let problem = format!(
                "expected the images that {} was evaluated on, found others",
                run.path.display()
            );
            let hint = "name the place that they were moved to";
            return Err(Error::data(&data.target().name, problem, hint));
        }
        Ok(Self {
            run,
            evaluated,
            data,
        })
    }

    /// Threat model and PGD of the run's evaluation.
    pub fn attacker(&self) -> Attacker {
        let recipe = &self.run.recipe;
        let step_size = recipe.evaluate.step_size.as_ref();
        Attacker::new(recipe.threat.ball(), recipe.evaluate.steps, step_size)
    }

    /// Whether the row was evaluated on the images as they are now.
    pub fn up_to_date(&self, row: &ReportedRow) -> bool {
        row.outcome.evaluated.fingerprint == self.evaluated.order
    }

    /// Loads the encoder of a method; none where it was not trained yet.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::Model`].
    pub fn encoder(&self, method: &str, device: &Device) -> Result<Option<Model>> {
        let path = Layout::new(&self.run.path).model(method);
        path.exists()
            .then(|| Model::load(&path, device))
            .transpose()
    }

    /// Loads the row's classifier.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::Model`]: the last one also for a model of other classes or channels.
    pub fn model(&self, row: &'a ReportedRow, device: &Device) -> Result<ReportedModel<'a>> {
        let recipe = &self.run.recipe;
        let root = &self.run.path;
        let Some(cell) = row.cell(recipe) else {
            let problem = format!("no {} in its recipe", row.classifier);
            return Err(Error::run(root, problem, ""));
        };
        let path = Layout::new(root).model(&cell.model_stage());
        let model = Model::load(&path, device)?;
        let (images, classes) = (&self.data.judged.images, &self.data.target().classes);
        if model.info.channels != images.channels || model.info.classes != *classes {
            let problem = "a classifier of other classes or channels than the images";
            let hint =
                "the images may have changed since: --set 'data.source = \"PATH\"' names others";
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
