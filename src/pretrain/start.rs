//! The weights that a training begins at, and how strongly it is held near them.

use crate::nn::{Encoder, FrozenEncoder};
use crate::run::Model;

/// The weights that a training begins at.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// A model whose encoder has the shape of the one to make.
    pub model: &'a Model,
    /// Weight of the term that holds the features near the model's.
    pub pull: f64,
}

impl Start<'_> {
    /// The encoder to begin with: every one of its `routes` BatchNorm branches is a copy of the one that the model uses.
    pub fn encoder(&self, routes: usize) -> Encoder {
        let (encoder, route) = (&self.model.backbone.encoder, self.model.info.route);
        encoder.with_copies_of(route, routes)
    }

    /// The model's encoder as it stays, and the weight of the pull towards it; none without a pull.
    pub(super) fn held(&self) -> Option<(FrozenEncoder, f64)> {
        let (encoder, route) = (&self.model.backbone.encoder, self.model.info.route);
        (self.pull > 0.0).then(|| (FrozenEncoder::new(encoder, route), self.pull))
    }
}
