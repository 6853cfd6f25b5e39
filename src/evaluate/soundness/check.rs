//! The checks and their outcomes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Check of a classifier or of an attack on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckName {
    /// The outputs are logits, not probabilities.
    Logits,
    /// The same images get the same logits in every call.
    Deterministic,
    /// Logits of an image do not depend on the others in its batch.
    BatchIndependent,
    /// `advcl predict` classifies as many images correctly as the evaluation did.
    CleanAccuracy,
    /// Predictions are spread over the classes, and the accuracy is not that of a few frequent classes.
    ClassBalance,
    /// The cross-entropy has a gradient at the images.
    Gradients,
    /// Attacked images are inside the ball and [0, 1].
    Perturbations,
    /// The loss rises as PGD goes on.
    Loss,
    /// Accuracy falls as the radius grows, to nothing where every image is inside the ball.
    Radius,
    /// Attacks without gradients break hardly anything that attacks with gradients left.
    BlackBox,
}

impl CheckName {
    /// Every check, in the order in which they are made.
    pub const ALL: [Self; 10] = [
        Self::Logits,
        Self::Deterministic,
        Self::BatchIndependent,
        Self::CleanAccuracy,
        Self::ClassBalance,
        Self::Gradients,
        Self::Perturbations,
        Self::Loss,
        Self::Radius,
        Self::BlackBox,
    ];

    /// Name in results: "batch-independent".
    pub fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Deterministic => "deterministic",
            Self::BatchIndependent => "batch-independent",
            Self::CleanAccuracy => "clean-accuracy",
            Self::ClassBalance => "class-balance",
            Self::Gradients => "gradients",
            Self::Perturbations => "perturbations",
            Self::Loss => "loss",
            Self::Radius => "radius",
            Self::BlackBox => "black-box",
        }
    }

    /// Consequence of a warning, in a sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Logits => {
                "the outputs are probabilities: attacks take them for logits and maximize a loss that is nearly flat, so the robust accuracy is too high"
            }
            Self::Deterministic => {
                "the classifier is random, which misleads attacks that query once: use expectation over transformation (--attack rand)"
            }
            Self::BatchIndependent => {
                "the prediction for an image depends on the others in its batch, as with BatchNorm in training mode: neither accuracy is that of the model in use"
            }
            Self::CleanAccuracy => {
                "the evaluated model is not what advcl predict computes: the accuracies are those of another model"
            }
            Self::ClassBalance => {
                "the classifier favours one class or a few: an image that is always predicted as its class counts as robust, so both accuracies say little about the other classes"
            }
            Self::Gradients => {
                "PGD cannot climb without a gradient, as where inputs are rounded or the softmax is saturated: these images count as robust without having been attacked"
            }
            Self::Perturbations => {
                "the attack left the ball or [0, 1]: the robust accuracy is that of another threat model"
            }
            Self::Loss => {
                "the loss does not rise as PGD goes on: gradients mislead it or the step size does not fit, so the robust accuracy is too high"
            }
            Self::Radius => {
                "images stay correctly classified although the radius allows any image: the attack fails, so the robust accuracy is too high"
            }
            Self::BlackBox => {
                "an attack without gradients breaks images that attacks with gradients left: gradients may be masked, and the robust accuracy is an upper bound; attack with more restarts"
            }
        }
    }

    /// Finding of a check that was made.
    pub(super) fn finding(self, holds: bool, found: String) -> Finding {
        let verdict = if holds {
            Verdict::Holds
        } else {
            Verdict::Warns
        };
        self.with_verdict(verdict, found)
    }

    /// Finding of a check that could not be made, with the reason in a few words.
    pub(super) fn not_checked(self, reason: impl Into<String>) -> Finding {
        self.with_verdict(Verdict::NotChecked, reason.into())
    }

    fn with_verdict(self, verdict: Verdict, found: String) -> Finding {
        Finding {
            check: self,
            verdict,
            found,
            meaning: self.meaning().to_owned(),
        }
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The check was made and found nothing wrong.
    Holds,
    /// The check was made and found a reason to doubt the figures.
    Warns,
    /// The check could not be made: it speaks neither for the figures nor against them.
    NotChecked,
}

/// One check and what it found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The check.
    pub check: CheckName,
    /// Outcome of the check.
    pub verdict: Verdict,
    /// What was found, with its numbers; the reason where the check could not be made.
    pub found: String,
    /// Consequence of a warning, in a sentence.
    pub meaning: String,
}

/// Counts of checks by their outcome. Displays as "7 of 9 hold, 2 not checked (only one class)".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoundnessSummary {
    /// Checks that were made and hold.
    pub hold: usize,
    /// Checks that were made and warn.
    pub warn: usize,
    /// Checks that could not be made.
    pub not_checked: usize,
    /// Reasons of the checks that could not be made, each once.
    pub reasons: Vec<String>,
}

impl SoundnessSummary {
    /// Number of all checks.
    pub fn checks(&self) -> usize {
        self.hold + self.warn + self.not_checked
    }
}

impl<'a> FromIterator<&'a Finding> for SoundnessSummary {
    fn from_iter<I: IntoIterator<Item = &'a Finding>>(findings: I) -> Self {
        let mut summary = Self::default();
        for finding in findings {
            match finding.verdict {
                Verdict::Holds => summary.hold += 1,
                Verdict::Warns => summary.warn += 1,
                Verdict::NotChecked => {
                    summary.not_checked += 1;
                    if !summary.reasons.contains(&finding.found) {
                        summary.reasons.push(finding.found.clone());
                    }
                }
            }
        }
        summary
    }
}

impl fmt::Display for SoundnessSummary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} of {} hold", self.hold, self.checks())?;
        match self.warn {
            0 => {}
            1 => write!(f, ", 1 warns")?,
            warn => write!(f, ", {warn} warn")?,
        }
        if self.not_checked > 0 {
            let reasons = self.reasons.join("; ");
            write!(f, ", {} not checked ({reasons})", self.not_checked)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_alike_in_text_and_in_files() {
        for check in CheckName::ALL {
            let json = serde_json::to_string(&check).expect("a name");
            assert_eq!(json, format!("\"{check}\""));
            assert!(!check.meaning().is_empty());
        }
    }

    #[test]
    fn a_summary_counts_outcomes_and_names_each_reason_once() {
        let holds = CheckName::Logits.finding(true, "outputs".to_owned());
        let warns = CheckName::Loss.finding(false, "losses".to_owned());
        let few = CheckName::Radius.not_checked("fewer than 8 images classified correctly");
        let one = CheckName::BlackBox.not_checked("only one class");
        let text = |findings: &[&Finding]| {
            let summary: SoundnessSummary = findings.iter().copied().collect();
            summary.to_string()
        };
        assert_eq!(text(&[&holds, &holds]), "2 of 2 hold");
        assert_eq!(
            text(&[&holds, &few, &few]),
            "1 of 3 hold, 2 not checked (fewer than 8 images classified correctly)"
        );
        assert_eq!(
            text(&[&holds, &warns, &few, &one]),
            "1 of 4 hold, 1 warns, 2 not checked (fewer than 8 images classified correctly; only one class)"
        );
        assert_eq!(text(&[&warns, &warns]), "0 of 2 hold, 2 warn");
    }
}
