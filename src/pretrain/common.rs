//! Keys that the tables of all methods have: the beginning of the training, and the radius of its attacks.

use serde::de::MapAccess;
use serde::{Deserialize, Serialize};

use crate::check::Check;
use crate::error::Result;
use crate::pixels::Pixels;
use crate::tables::Shared;

/// Keys that every table below `[pretrain]` may have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CommonSettings {
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
    /// Radius of the method's attacks, in pixels; that of `[threat]` by default.
    ///
    /// A larger one than the classifiers are judged by gives up clean accuracy for accuracy under attack. Step sizes that
    /// are not given are a quarter of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_radius: Option<Pixels>,
}

fn is_zero(pull: &f64) -> bool {
    *pull == 0.0
}

impl Shared for CommonSettings {
    const KEYS: &'static [&'static str] = &["init", "pull", "attack_radius"];

    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "init" => self.init = Some(map.next_value()?),
            "pull" => self.pull = map.next_value()?,
            _ => self.attack_radius = map.next_value()?,
        }
        Ok(())
    }
}

impl CommonSettings {
    /// Refuses settings that are impossible whatever the weights, for a method that `attacks` or does not; `other` is the
    /// key of one that begins at an encoder of its own choice.
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe).
    pub fn check(&self, attacks: bool, other: Option<&str>, check: &Check) -> Result<()> {
        check.in_range("pull", self.pull, 0.0, 1e6)?;
        if let Some(radius) = self.attack_radius.as_ref().filter(|_| !attacks) {
            let problem = format!("{radius}: the method attacks nothing");
            return check.refuse("attack_radius", problem, "leave it out");
        }
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
