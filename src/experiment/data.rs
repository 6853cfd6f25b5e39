//! The images of a recipe: read once, then split as the recipe and its seed say.

use crate::data::{self, Dataset, Split};
use crate::error::{Error, Result};
use crate::recipe::{Downstream, Recipe, SplitName};

/// The data sets that a recipe names, as they are on disk: the same whatever the seed.
#[derive(Clone)]
pub struct Sources {
    pretraining: Dataset,
    downstream: Option<Dataset>,
}

impl Sources {
    /// Reads them.
    ///
    /// # Errors
    /// Whatever is wrong with the data, and downstream images of other channels.
    pub fn load(recipe: &Recipe) -> Result<Self> {
        let pretraining = data::load(&recipe.data.source)?;
        let channels = pretraining.train.images.channels;
        let other = recipe.downstream.as_ref();
        let downstream = other.map(|wanted| load_downstream(wanted, channels));
        Ok(Self {
            downstream: downstream.transpose()?,
            pretraining,
        })
    }
}

/// The images of a recipe.
pub struct Data {
    /// The data set that encoders are made from, with the training images that are used.
    pub pretraining: Dataset,
    /// The one that classifiers are made for, where it is another.
    pub downstream: Option<Dataset>,
    /// What is held out of the images that encoders are made from.
    pub held_out: Option<Split>,
    /// The images to judge classifiers by.
    pub judged: Split,
}

impl Data {
    /// Reads and splits them.
    ///
    /// # Errors
    /// Whatever is wrong with the data, or with the recipe for this data.
    pub fn load(recipe: &Recipe) -> Result<Self> {
        Self::split(Sources::load(recipe)?, recipe)
    }

    /// The images that `recipe` uses, of those that are read.
    ///
    /// # Errors
    /// Whatever is wrong with the recipe for this data.
    pub fn split(sources: Sources, recipe: &Recipe) -> Result<Self> {
        let (given, seed) = (&recipe.data, recipe.seed);
        let Sources {
            mut pretraining,
            mut downstream,
        } = sources;
        if let Some(limit) = given.train_limit {
            let classes = pretraining.classes.len();
            pretraining.train =
                limited("data.train_limit", &pretraining.train, classes, limit, seed)?;
        }
        let mut test_limit = ("data.test_limit", given.test_limit);
        if let (Some(wanted), Some(data)) = (&recipe.downstream, &mut downstream) {
            if let Some(limit) = wanted.train_limit {
                let classes = data.classes.len();
                data.train = limited("downstream.train_limit", &data.train, classes, limit, seed)?;
            }
            test_limit = ("downstream.test_limit", wanted.test_limit);
        }
        let target = downstream.as_ref().unwrap_or(&pretraining);
        let (classes, mut judged) = (target.classes.len(), target.test.clone());
        let mut held_out = None;
        if given.holdout > 0.0 {
            let mut hold_out = |data: &mut Dataset| -> Result<Split> {
                let (train, held_out) = data.holdout(given.holdout, seed)?;
                data.train = train;
                Ok(held_out)
            };
            let own = hold_out(&mut pretraining)?;
            let target = downstream.as_mut().map(&mut hold_out).transpose()?;
            if recipe.evaluate.split == SplitName::Holdout {
                judged = target.unwrap_or_else(|| own.clone());
            }
            held_out = Some(own);
        }
        // Unlabeled data has no test images, and nothing is judged by it.
        if let (key, Some(limit)) = test_limit
            && !judged.images.is_empty()
        {
            judged = limited(key, &judged, classes, limit, seed)?;
        }
        recipe.check_data(&pretraining, downstream.as_ref())?;
        Ok(Self {
            pretraining,
            downstream,
            held_out,
            judged,
        })
    }

    /// The data set that classifiers are made for.
    pub fn target(&self) -> &Dataset {
        self.downstream.as_ref().unwrap_or(&self.pretraining)
    }
}

fn limited(key: &str, split: &Split, classes: usize, limit: usize, seed: u64) -> Result<Split> {
    let (least, found) = (classes.max(1), split.images.len());
    if (least..=found).contains(&limit) {
        return Ok(split.limit(classes, limit, seed));
    }
    let problem = format!("expected {least} to {found} images to keep, found {limit}");
    let hint = match limit < least && classes > 1 {
        true => format!("each of the {classes} classes needs an image"),
        false => "leave the limit out to use them all".to_owned(),
    };
    Err(Error::recipe(key, problem, hint))
}

/// Other images, with as many channels as the encoder's.
fn load_downstream(wanted: &Downstream, channels: usize) -> Result<Dataset> {
    let mut data = data::load(&wanted.source)?;
    let found = data.train.images.channels;
    if found != channels {
        if !wanted.convert_channels {
            let problem = format!("expected images of {channels} channel(s), found {found}");
            let hint = "--set 'downstream.convert_channels = true' converts them";
            return Err(Error::data(&data.name, problem, hint));
        }
        for split in [&mut data.train, &mut data.test] {
            split.images = split.images.with_channels(channels);
        }
    }
    Ok(data)
}
