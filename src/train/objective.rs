//! What is trained: a loss on a model.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::rngs::ChaCha8Rng;

use crate::error::Result;
use crate::nn::{Shards, Statistics};
use crate::session::Context;

/// Features of a step's views, for a term that is added to the loss of any objective on an encoder.
#[derive(Default)]
pub struct Seen {
    wanted: bool,
    groups: Vec<(Tensor<4>, Vec<Tensor<2>>)>,
}

impl Seen {
    /// Collects features; the default passes over them.
    pub fn wanted() -> Self {
        Self {
            wanted: true,
            groups: Vec::new(),
        }
    }

    /// Takes the features of views, with gradients, of which all were `clean` before an attack or a filter, or are that
    /// still.
    ///
    /// # Shapes
    /// `clean` `[batch, channels, height, width]`, each of `views` `[batch, features]`.
    pub fn add(&mut self, clean: &Tensor<4>, views: impl IntoIterator<Item = Tensor<2>>) {
        if self.wanted {
            let views = views.into_iter().collect();
            self.groups.push((clean.clone(), views));
        }
    }

    /// Clean images, and the features of their views.
    pub fn into_groups(self) -> Vec<(Tensor<4>, Vec<Tensor<2>>)> {
        self.groups
    }
}

/// What a training step is given.
pub struct Step<'a, M> {
    /// The model that tracks gradients of its weights; the loss is computed with it.
    pub tracked: &'a M,
    /// The same weights without autodiff, for attacks, which need no gradient of the weights.
    pub detached: &'a M,
    /// Which images.
    pub indices: &'a [usize],
    /// Counted from 0.
    pub epoch: usize,
    /// This step's generator.
    pub rng: &'a mut ChaCha8Rng,
    /// Where tensors live.
    pub device: &'a Device,
    /// Takes the batch statistics that the running ones shall follow.
    pub statistics: &'a mut Statistics,
    /// Takes the features of the views.
    pub seen: &'a mut Seen,
}

impl<M> Step<'_, M> {
    /// The cut of the batch, by which whatever passes an encoder without gradients of its weights shall pass too.
    pub fn shards(&self) -> Shards {
        self.statistics.shards()
    }

    /// Places of the images that this rank is to make, out of the batch; the rows of the others are of no meaning.
    pub fn own(&self) -> Range<usize> {
        self.shards().own_images(self.indices.len())
    }
}

/// A loss and its named parts, each `[1]`.
pub struct Loss {
    /// What is differentiated.
    pub total: Tensor<1>,
    /// For people and logs.
    pub parts: Vec<(&'static str, Tensor<1>)>,
}

/// A way to train a model: it owns its images, its views and its attack.
pub trait Objective {
    /// What is trained.
    type Model: Module;
    /// The loss of one batch.
    fn loss(&self, step: Step<Self::Model>) -> Loss;

    /// Named figures of the model after an epoch, counted from 0, for the log; `stage` is the stage's name.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when asked to stop.
    fn after_epoch(
        &self,
        _stage: &str,
        _model: &Self::Model,
        _epoch: usize,
        _context: &mut Context,
    ) -> Result<Vec<(&'static str, f32)>> {
        Ok(Vec::new())
    }

    /// Whether images pass an encoder in a step, so that ranks can share its work.
    fn encodes(&self) -> bool {
        true
    }

    /// Changes the model beside what gradients do: after the loss, before the update.
    fn before_update(&self, model: Self::Model) -> Self::Model {
        model
    }
}
