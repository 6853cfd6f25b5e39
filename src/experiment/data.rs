//! The images of a recipe: read once, then split as the recipe and its seed say.

use crate::data::{self, Dataset, Images, Split};
use crate::error::{Error, Result};
use crate::recipe::{self, Downstream, Recipe, SplitName};

/// Data sets that a recipe names, as they are on disk: the same for every seed.
#[derive(Clone)]
pub struct Sources {
    pretraining: Dataset,
    /// More images for pretraining.
    unlabeled: Vec<Dataset>,
    downstream: Option<Dataset>,
}

impl Sources {
    /// Reads the data sets of a recipe.
    ///
    /// # Errors
    /// Whatever is wrong with the data, and downstream images of other channels.
    pub fn load(recipe: &Recipe) -> Result<Self> {
        let given = &recipe.data;
        let labeled = data::load_as(&given.source, &given.reading(), given.damaged)?;
        let channels = labeled.train.images.channels;
        let other = recipe.downstream.as_ref();
        let downstream = other.map(|wanted| load_downstream(wanted, given, channels));
        let downstream = downstream.transpose()?;
        let unlabeled = given
            .unlabeled
            .iter()
            .map(|source| data::load_unlabeled(source, &given.reading(), given.damaged));
        Ok(Self {
            unlabeled: unlabeled.collect::<Result<_>>()?,
            pretraining: labeled,
            downstream,
        })
    }
}

/// Makes the seed of the test share another one than that of the holdout.
const TEST_SHARE: u64 = 0x7465_7374;

/// Use that is made of a recipe's images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Pretraining, finetuning and evaluation.
    Train,
    /// Evaluation of classifiers that are there: the training images may be others, or fewer than the
    /// recipe's training asks for.
    Evaluate,
}

/// Images of a recipe.
pub struct Data {
    /// Data set that encoders are pretrained on, with the training images that are used.
    pub pretraining: Dataset,
    /// Data set that classifiers are finetuned and evaluated on, where it is another.
    pub downstream: Option<Dataset>,
    /// Images that are held out of those that encoders are pretrained on.
    pub held_out: Option<Split>,
    /// Images that classifiers are evaluated on.
    pub judged: Split,
}

impl Data {
    /// Reads and splits the images of a recipe.
    ///
    /// # Errors
    /// Whatever is wrong with the data, or with the recipe for this data.
    pub fn load(recipe: &Recipe, purpose: Purpose) -> Result<Self> {
        Self::split(Sources::load(recipe)?, recipe, purpose)
    }

    /// Splits data sets that were read before, as `recipe` says.
    ///
    /// # Errors
    /// Whatever is wrong with the recipe for this data.
    pub fn split(sources: Sources, recipe: &Recipe, purpose: Purpose) -> Result<Self> {
        let (given, seed) = (&recipe.data, recipe.seed);
        let Sources {
            mut pretraining,
            mut downstream,
            unlabeled,
        } = sources;
        for data in [Some(&mut pretraining), downstream.as_mut()]
            .into_iter()
            .flatten()
        {
            if data.test.images.is_empty() && given.test_share > 0.0 && !data.classes.is_empty() {
                (data.train, data.test) = data.holdout(given.test_share, seed ^ TEST_SHARE)?;
            }
        }
        let applies = |limit: &usize, data: &Dataset| {
            purpose == Purpose::Train || *limit <= data.train.images.len()
        };
        if let Some(limit) = given
            .train_limit
            .filter(|limit| applies(limit, &pretraining))
        {
            let classes = pretraining.classes.len();
            pretraining.train =
                limited("data.train_limit", &pretraining.train, classes, limit, seed)?;
        }
        let mut test_limit = ("data.test_limit", given.test_limit);
        if let (Some(wanted), Some(data)) = (&recipe.downstream, &mut downstream) {
            if let Some(limit) = wanted.train_limit.filter(|limit| applies(limit, data)) {
                let classes = data.classes.len();
                data.train = limited("downstream.train_limit", &data.train, classes, limit, seed)?;
            }
            test_limit = ("downstream.test_limit", wanted.test_limit);
        }
        let target = downstream.as_ref().unwrap_or(&pretraining);
        let (classes, mut judged) = (target.classes.len(), target.test.clone());
        let hold_out = |data: &mut Dataset| -> Result<Option<Split>> {
            if given.holdout == 0.0 {
                return Ok(data.val.take());
            }
            let (train, held_out) = data.holdout(given.holdout, seed)?;
            data.train = train;
            if data.val.is_some() {
                data.notes.push(format!(
                    "the validation images are not used: data.holdout = {} holds out training images in their place",
                    given.holdout
                ));
            }
            Ok(Some(held_out))
        };
        let mut held_out = hold_out(&mut pretraining)?;
        let of_downstream = downstream.as_mut().map(&hold_out).transpose()?;
        if recipe.probe.is_some() && held_out.is_none() && purpose == Purpose::Train {
            let problem = "held-out images are to be classified, but none are held out";
            return Err(Error::recipe(
                "probe",
                problem,
                "set data.holdout to 0.1, say",
            ));
        }
        if recipe.evaluate.split == SplitName::Holdout {
            // Those of the classes that are told apart: images for pretraining may have others.
            let found = of_downstream.unwrap_or_else(|| held_out.clone());
            judged = found.ok_or_else(|| {
                let problem = "holdout images are to be evaluated, but none are held out";
                Error::recipe("evaluate.split", problem, "set data.holdout to 0.2, say")
            })?;
        }
        // Unlabeled data has no test images, and nothing is judged by it.
        if let (key, Some(limit)) = test_limit
            && !judged.images.is_empty()
        {
            judged = limited(key, &judged, classes, limit, seed)?;
        }
        // Last: what is kept for testing is no part of pretraining.
        if !unlabeled.is_empty() {
            let mut labeled = pretraining;
            pretraining = labeled.without_labels();
            let mut apart = vec![&labeled.test.images, &judged.images];
            apart.extend(held_out.iter().map(|split| &split.images));
            for more in &unlabeled {
                pretraining.join(more, &apart)?;
            }
            let channels = pretraining.train.images.channels;
            let splits = [&mut labeled.train, &mut labeled.test, &mut judged];
            for split in splits.into_iter().chain(&mut held_out) {
                split.images = split.images.with_channels(channels);
            }
            let (all, own) = (pretraining.train.images.len(), labeled.train.images.len());
            let note = format!("{all} images for pretraining, {own} of them with labels");
            pretraining.notes.push(note);
            downstream.get_or_insert(labeled);
        }
        for images in [&pretraining.train.images, &judged.images] {
            if !images.is_empty() {
                recipe.check_images(images)?;
            }
        }
        if purpose == Purpose::Train {
            recipe.check_data(&pretraining)?;
        }
        Ok(Self {
            pretraining,
            downstream,
            held_out,
            judged,
        })
    }

    /// Data set that classifiers are finetuned and evaluated on.
    pub fn target(&self) -> &Dataset {
        self.downstream.as_ref().unwrap_or(&self.pretraining)
    }

    /// Bytes of memory that all images hold together.
    pub fn memory(&self) -> usize {
        let sets = std::iter::once(&self.pretraining).chain(&self.downstream);
        let splits = sets.flat_map(|data| [&data.train, &data.test]);
        let splits = splits.chain([&self.judged]).chain(&self.held_out);
        Images::memory_of(splits.map(|split| &split.images))
    }
}

fn limited(key: &str, split: &Split, classes: usize, limit: usize, seed: u64) -> Result<Split> {
    let (least, found) = (classes.max(1), split.images.len());
    // More than there are: all of them.
    if limit >= found && found >= least {
        return Ok(split.clone());
    }
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

/// Reads the downstream images, with as many channels as the encoder's.
fn load_downstream(
    wanted: &Downstream,
    pretraining: &recipe::Data,
    channels: usize,
) -> Result<Dataset> {
    let mut data = data::load_as(&wanted.source, &pretraining.reading(), pretraining.damaged)?;
    let found = data.train.images.channels;
    if found != channels {
        if !wanted.convert_channels {
            let problem = format!("expected images of {channels} channel(s), found {found}");
            let hint = "--set 'downstream.convert_channels = true' converts them";
            return Err(Error::data(&data.name, problem, hint));
        }
        for split in [&mut data.train, &mut data.test]
            .into_iter()
            .chain(&mut data.val)
        {
            split.images = split.images.with_channels(channels);
        }
    }
    Ok(data)
}
