//! The attacks' names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::nearest;

/// Attack as it is named in recipes, results and on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttackKind {
    /// Projected gradient ascent on the cross-entropy.
    Pgd,
    /// Auto-PGD on the cross-entropy.
    ApgdCe,
    /// Auto-PGD on the difference of logits ratio.
    ApgdDlr,
    /// Auto-PGD on the targeted difference of logits ratio.
    ApgdT,
    /// Fast adaptive boundary attack on the nearest boundary.
    Fab,
    /// Fast adaptive boundary attack, target by target.
    FabT,
    /// Random search by square windows, without gradients.
    Square,
    /// One step along the gradient's sign.
    Fgsm,
    /// Random points of the ball.
    Noise,
}

impl AttackKind {
    /// Every attack.
    pub const ALL: [Self; 9] = [
        Self::Pgd,
        Self::ApgdCe,
        Self::ApgdDlr,
        Self::ApgdT,
        Self::Fab,
        Self::FabT,
        Self::Square,
        Self::Fgsm,
        Self::Noise,
    ];

    /// Name in recipes and results: "apgd-ce".
    pub fn name(self) -> &'static str {
        match self {
            Self::Pgd => "pgd",
            Self::ApgdCe => "apgd-ce",
            Self::ApgdDlr => "apgd-dlr",
            Self::ApgdT => "apgd-t",
            Self::Fab => "fab",
            Self::FabT => "fab-t",
            Self::Square => "square",
            Self::Fgsm => "fgsm",
            Self::Noise => "noise",
        }
    }

    /// Whether the attack alone leaves too much to be evidence of robustness: random points, a single step, steps that adapt to nothing.
    pub fn is_weak(self) -> bool {
        matches!(self, Self::Pgd | Self::Fgsm | Self::Noise)
    }

    /// Whether the attack sees logits only, no gradients.
    pub fn is_black_box(self) -> bool {
        matches!(self, Self::Square | Self::Noise)
    }

    /// Whether the attack maximizes a loss over many gradient steps: a black box should break hardly anything that it left.
    pub fn climbs(self) -> bool {
        matches!(self, Self::Pgd | Self::ApgdCe | Self::ApgdDlr | Self::ApgdT)
    }
}

impl fmt::Display for AttackKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for AttackKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.name() == name);
        known.ok_or_else(|| {
            let hint = nearest(name, Self::ALL.map(Self::name));
            format!("unknown attack {name:?}: {hint}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for kind in AttackKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            let json = serde_json::to_string(&kind).expect("a name");
            assert_eq!(json, format!("{:?}", kind.name()));
        }
        let error = AttackKind::from_str("sqare").expect_err("no such attack");
        assert_eq!(error, "unknown attack \"sqare\": did you mean \"square\"?");
    }
}
