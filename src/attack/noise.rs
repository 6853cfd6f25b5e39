//! Random points of the ball: the weakest attack, which uses neither gradients nor logits.

use serde::{Deserialize, Serialize};

use super::settings::at_least_one;
use super::{AttackResult, Progress, Victim};
use crate::error::Result;

/// Settings of the random search.
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
    /// Refuses settings that cannot be carried out: "samples: expected 1 or more, found 0".
    pub(super) fn check(&self) -> Result<(), String> {
        at_least_one("samples", self.samples)
    }

    /// Attacks the images of `victim`.
    ///
    /// # Errors
    /// An error of `progress`; [`Error::Logits`](crate::Error::Logits).
    pub fn run(&self, victim: &Victim, progress: Progress) -> Result<AttackResult> {
        let mut result = AttackResult::unbroken(victim);
        for sample in 0..self.samples {
            progress(sample as f64 / self.samples as f64)?;
            let rows = result.remaining();
            if rows.is_empty() {
                break;
            }
            let candidates = victim.random(&format!("noise/{sample}"), &rows, |image, rng| {
                victim.ball.random_start(image, rng)
            });
            result.query(victim, &rows, candidates)?;
        }
        Ok(result)
    }
}
