//! The classifiers of a run with the images that they are judged by: what pictures are computed from.

use burn::tensor::Device;

use super::{Folder, Row};
use crate::attack::Attacker;
use crate::error::{Error, Result, first_difference};
use crate::experiment::{Cell, Data, fingerprints};
use crate::nn::{FrozenClassifier, FrozenEncoder};
use crate::recipe::{Fingerprints, Part, Recipe};
use crate::run::Model;

/// A run's images.
pub struct Gallery<'a> {
    /// The run.
    pub folder: &'a Folder,
    /// Its images.
    pub data: Data,
    prints: Fingerprints,
}

/// A classifier to be shown.
pub struct Subject<'a> {
    /// Its row.
    pub row: &'a Row,
    /// Images to logits.
    pub classifier: FrozenClassifier,
    /// Images to features.
    pub encoder: FrozenEncoder,
}

impl<'a> Gallery<'a> {
    /// Reads the images of the run. `overrides` say where they are now, where they are elsewhere: `data.source = "…"`.
    ///
    /// # Errors
    /// Whatever is wrong with the data, or with the recipe for this data; [`Error::Recipe`] for an override of anything else.
    pub fn open(folder: &'a Folder, overrides: &[String]) -> Result<Self> {
        let path = folder.path.join("recipe.toml");
        let now = Recipe::load(&path.display().to_string(), overrides)?;
        let mut same = now.clone();
        same.data.source.clone_from(&folder.recipe.data.source);
        if let (Some(now), Some(then)) = (&mut same.downstream, &folder.recipe.downstream) {
            now.source.clone_from(&then.source);
        }
        if same != folder.recipe {
            let problem = "a report shows a run as it was made";
            let hint = "only data.source and downstream.source can be told anew, where the images were moved";
            return Err(Error::recipe("--set", problem, hint));
        }
        let data = Data::load(&now)?;
        let prints = fingerprints(&folder.recipe, &data)?;
        Ok(Self {
            folder,
            data,
            prints,
        })
    }

    /// Threat model and PGD that the run is evaluated by.
    pub fn attacker(&self) -> Attacker {
        let recipe = &self.folder.recipe;
        let step_size = recipe.evaluate.step_size.as_ref();
        Attacker::new(recipe.threat.ball(), recipe.evaluate.steps, step_size)
    }

    /// Whether the row's figures were measured by the recipe and the images as they are now.
    pub fn up_to_date(&self, row: &Row) -> bool {
        let recipe = &self.folder.recipe;
        let now = row
            .cell(recipe)
            .map(|cell| recipe.text_of(cell.figures(), &self.prints));
        now.as_ref() == Some(&row.record)
    }

    /// The row's classifier.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`], [`Error::Model`]: the last one also for a model of another recipe or of other images.
    pub fn subject(&self, row: &'a Row, device: &Device) -> Result<Subject<'a>> {
        let recipe = &self.folder.recipe;
        let root = &self.folder.path;
        let Some(cell) = row.cell(recipe) else {
            let problem = format!("no {} in its recipe", row.classifier);
            return Err(Error::run(root, problem, ""));
        };
        // A supervised method's classifier is kept with its encoder.
        let below = match cell.mode {
            Some(_) => cell.stage(),
            None => cell.method.clone(),
        };
        let path = root.join(below).join("model.safetensors");
        let model = Model::load(&path, device)?;
        let expected = recipe.text_of(part(&cell), &self.prints);
        if model.info.recipe != expected {
            let difference = first_difference(&model.info.recipe, &expected);
            let problem = format!("a model of another recipe or of other images ({difference})");
            let hint = "the images may have changed since it was made";
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

fn part(cell: &Cell) -> Part<'_> {
    match cell.mode {
        Some(_) => cell.classifier(),
        None => Part::Encoder(&cell.method),
    }
}
