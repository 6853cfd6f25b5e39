//! Random points of the ball: what an attacker finds who knows nothing.

use serde::{Deserialize, Serialize};

use super::{Found, Tell, Victim};
use crate::error::Result;

/// How long to try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// Points of each image's ball, drawn as the starts of PGD are.
    pub samples: usize,
}

impl Default for Noise {
    fn default() -> Self {
        Self { samples: 100 }
    }
}

impl Noise {
    /// Attacks.
    ///
    /// # Errors
    /// What `tell` answers; [`Error::Logits`](crate::Error::Logits).
    pub fn run(&self, victim: &Victim, tell: Tell) -> Result<Found> {
        let mut found = Found::nothing(victim);
        for sample in 0..self.samples {
            tell(sample as f64 / self.samples as f64)?;
            let rows = found.left();
            if rows.is_empty() {
                break;
            }
            let tried = victim.draw(&format!("noise/{sample}"), &rows, |image, rng| {
                victim.ball.random_start(image, rng)
            });
            found.judge(victim, &rows, tried)?;
        }
        Ok(found)
    }
}
