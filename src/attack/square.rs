//! PLACEHOLDER: Square is written on the branch h-boxes; this file is replaced by it.
#![allow(missing_docs)]

use serde::{Deserialize, Serialize};

use super::{Found, Tell, Victim};
use crate::error::Result;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Square {
    pub queries: usize,
    pub restarts: usize,
    pub p_init: f64,
}

impl Default for Square {
    fn default() -> Self {
        Self {
            queries: 5000,
            restarts: 1,
            p_init: 0.8,
        }
    }
}

impl Square {
    pub fn run(&self, victim: &Victim, tell: Tell) -> Result<Found> {
        tell(0.0)?;
        Ok(Found::nothing(victim))
    }
}
