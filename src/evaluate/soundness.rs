//! Whether a robust accuracy can be believed: checks for what makes evaluations in this field go wrong.

use serde::{Deserialize, Serialize};

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Its name: "deterministic", "gradients", "black-box".
    pub check: String,
    /// Whether all is well.
    pub holds: bool,
    /// What was found, with its numbers.
    pub found: String,
    /// What it means where it does not hold, in a sentence.
    pub meaning: String,
}

/// All checks of a classifier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Soundness {
    /// In the order in which they were made.
    pub findings: Vec<Finding>,
}

impl Soundness {
    /// The checks that do not hold.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.holds)
    }
}
