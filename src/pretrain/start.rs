//! The beginning of a training: at weights that are there already, and how strongly it is held near them.

use serde::de::MapAccess;
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::error::Result;
use crate::nn::{Encoder, FrozenEncoder};
use crate::run::Model;
use crate::tables::Shared;

/// Keys that every table below `[pretrain]` may have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StartSettings {
    /// The weights that the encoder's training begins at: a method of this recipe, or a model file of any run or of
    /// `advcl import`; random ones by default.
    ///
    /// Depth, width, stem and channels must be those of the encoder to make. Every BatchNorm route of it begins as the one
    /// that the model uses, and the model's normalization is kept; its heads and its classifier are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Weight of a term that holds the features near those of `init`; 0, without the term, by default.
    ///
    /// The term is −mean cos(f(v), s(x)) over the views v of a step: f are the features, s those of the frozen `init`, and x
    /// is the view before an attack or a filter (after DeACL; Zhang et al., ECCV 2022).
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(extend("default" = 0.0))]
    pub pull: f64,
}

fn is_zero(pull: &f64) -> bool {
    *pull == 0.0
}

impl Shared for StartSettings {
    const KEYS: &'static [&'static str] = &["init", "pull"];

    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "init" => self.init = Some(map.next_value()?),
            _ => self.pull = map.next_value()?,
        }
        Ok(())
    }
}

impl StartSettings {
    /// Refuses settings that are impossible whatever the weights; `other` is the key of a method that begins at an
    /// encoder of its own choice.
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe).
    pub fn check(&self, other: Option<&str>, check: &Check) -> Result<()> {
        check.in_range("pull", self.pull, 0.0, 1e6)?;
        match (&self.init, other) {
            (Some(_), Some(other)) => {
                let problem =
                    format!("the method begins at the encoder that its key {other:?} names");
                let hint = format!(
                    "leave init out, and name the weights as {}",
                    check.key(other)
                );
                check.refuse("init", problem, hint)
            }
            (None, _) if self.pull > 0.0 => {
                let problem = format!("{} towards nothing: there is no init", self.pull);
                let hint = "name the weights to be held near: init = \"weights.safetensors\"; or leave pull out";
                check.refuse("pull", problem, hint)
            }
            _ => Ok(()),
        }
    }
}

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
