//! The classifiers of a run with the images that they are evaluated on, which pictures are computed from.

use burn::tensor::Device;

use super::{Folder, Row};
use crate::attack::Pgd;
use crate::data::SplitFingerprint;
use crate::error::{Error, Result};
use crate::experiment::{Data, FolderRecipe, Purpose};
use crate::nn::{FrozenClassifier, FrozenEncoder};
use crate::recipe::Recipe;
use crate::run::{Layout, Model};

/// Images of a run.
pub struct Gallery<'a> {
    /// The run.
    pub folder: &'a Folder,
    /// Its images.
    pub data: Data,
    evaluated: SplitFingerprint,
}

/// Classifier to show.
pub struct Subject<'a> {
    /// Its row.
    pub row: &'a Row,
    /// Images to logits.
    pub classifier: FrozenClassifier,
    /// Images to features.
    pub encoder: FrozenEncoder,
}

impl<'a> Gallery<'a> {
    /// Reads the images of a run. `overrides` name where they are now, where they were moved:
    /// `data.source = "…"`.
    ///
    /// # Errors
    /// Whatever is wrong with the data; [`Error::Recipe`] for an override of anything else.
    pub fn open(folder: &'a Folder, overrides: &[String]) -> Result<Self> {
        let now = FolderRecipe::load(&folder.path, overrides)?;
        let now: Recipe = now.expect("it was read before").recipe;
        let mut same = now.clone();
        same.data.source.clone_from(&folder.recipe.data.source);
        if let (Some(now), Some(then)) = (&mut same.downstream, &folder.recipe.downstream) {
            now.source.clone_from(&then.source);
        }
        if same != folder.recipe {
            let problem = "a report shows a run as it was made";
            let hint = "only data.source and downstream.source can be overridden, where the images were moved";
            return Err(Error::recipe("--set", problem, hint));
        }
        let data = Data::load(&now, Purpose::Evaluate)?;
        Ok(Self {
            folder,
            evaluated: SplitFingerprint::new(&data.judged, &data.target().classes),
            data,
        })
    }

    /// PGD as the run is evaluated by.
    pub fn pgd(&self) -> Pgd {
        let recipe = &self.folder.recipe;
        let step_size = recipe.evaluate.step_size.as_ref();
        Pgd::new(recipe.evaluate.steps, step_size, recipe.threat.ball())
    }

    /// Whether the row was evaluated on the images as they are now.
    pub fn up_to_date(&self, row: &Row) -> bool {
        row.outcome.evaluated.fingerprint == self.evaluated.order
    }

    /// Reads the row's classifier.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::Model`]: the last one also for a model of other classes or channels.
    pub fn subject(&self, row: &'a Row, device: &Device) -> Result<Subject<'a>> {
        let (recipe, root) = (&self.folder.recipe, &self.folder.path);
        let Some(cell) = row.cell(recipe) else {
            let problem = format!("no {} in its recipe", row.classifier);
            return Err(Error::run(root, problem, ""));
        };
        let path = Layout::new(root).model(&cell.model_stage());
        let model = Model::load(&path, device)?;
        let (images, classes) = (&self.data.judged.images, &self.data.target().classes);
        if model.info.channels != images.channels || model.info.classes != *classes {
            let problem = "a classifier of other classes or channels than the images";
            let hint = "the images may have changed since it was made: --set 'data.source = \"PATH\"' names others";
            return Err(Error::model(path, problem, hint));
        }
        let classifier = model.classifier(&path)?;
        Ok(Subject {
            row,
            encoder: FrozenEncoder::new(&classifier.encoder, classifier.route),
            classifier: classifier.frozen(),
        })
    }
}
