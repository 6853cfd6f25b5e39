//! Whether a robust accuracy can be believed: checks for what makes evaluations in this field go wrong.
//!
//! Most are after Athalye et al. (ICML 2018, section 3.1), Carlini et al. ("On Evaluating Adversarial Robustness", 2019) and
//! the flags of AutoAttack (Croce and Hein, ICML 2020; Tramèr et al., NeurIPS 2020).

mod climb;
mod outputs;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::Attacked;
use crate::attack::{Ball, Pgd};
use crate::data::Split;
use crate::error::Result;
use crate::session::Context;
use crate::tensor::to_tensor;
use climb::Climber;

pub use climb::perturbations;

/// Images that are looked at; all judged ones where there are fewer.
const SAMPLE: usize = 64;

/// With fewer images classified correctly than this, nothing is said about attacks on them.
const FEW: usize = 8;

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
    /// Name of the check: "deterministic", "gradients", "black-box".
    pub check: String,
    /// Outcome of the check.
    pub verdict: Verdict,
    /// What was found, with its numbers; the reason where the check could not be made.
    pub found: String,
    /// Consequence of a warning, in a sentence.
    pub meaning: String,
}

/// All checks of a classifier.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Soundness {
    /// In the order in which they were made.
    pub findings: Vec<Finding>,
}

/// A classifier whose robust accuracy is claimed, and what is claimed of it.
pub struct Suspect<'a> {
    /// METHOD/MODE, for logs.
    pub classifier: &'a str,
    /// What was attacked: `[batch, channels, height, width]` in [0, 1] to logits `[batch, classes]`.
    pub logits: &'a dyn Fn(Tensor<4>) -> Tensor<2>,
    /// The same by the other way to compute it: the model as `advcl predict` reads it, layer by layer.
    pub predict: &'a dyn Fn(Tensor<4>) -> Tensor<2>,
    /// The judged images.
    pub split: &'a Split,
    /// How many classes they have.
    pub classes: usize,
    /// How many of them the evaluation counted as right, as they are.
    pub clean: usize,
    /// Where adversarial examples may be.
    pub ball: Ball,
    /// The attack.
    pub pgd: Pgd,
    /// Images at a time.
    pub batch_size: usize,
}

/// A check's name, and what it means where it does not hold.
struct Check {
    name: &'static str,
    meaning: &'static str,
}

/// In the order in which they are made.
const LOGITS: Check = Check {
    name: "logits",
    meaning: "the outputs are probabilities: attacks take them for logits and climb a loss that is nearly flat, so the robust accuracy is too high",
};
const DETERMINISTIC: Check = Check {
    name: "deterministic",
    meaning: "the classifier draws lots, which misleads attacks that look once: judge it by expectation over transformation (--attack rand)",
};
const BATCH: Check = Check {
    name: "batch-independent",
    meaning: "what is said of an image depends on the others in its batch, as by BatchNorm in training mode: neither accuracy is that of the model in use",
};
const CLEAN: Check = Check {
    name: "clean-accuracy",
    meaning: "what was evaluated is not what advcl predict computes: the accuracies are those of something else",
};
const GRADIENTS: Check = Check {
    name: "gradients",
    meaning: "PGD cannot climb without a gradient, as where inputs are rounded or the softmax is saturated: these images count as robust without having been attacked",
};
const PERTURBATIONS: Check = Check {
    name: "perturbations",
    meaning: "the attack left the ball or [0, 1]: the robust accuracy is that of another threat model",
};
const LOSS: Check = Check {
    name: "loss",
    meaning: "the loss does not rise as PGD climbs: gradients mislead it or the step size does not fit, so the robust accuracy is too high",
};
const RADIUS: Check = Check {
    name: "radius",
    meaning: "images withstand although the radius allows any image: it is the attack that fails, so the robust accuracy is too high",
};
const BLACK_BOX: Check = Check {
    name: "black-box",
    meaning: "an attack that sees no gradient finds what those that do miss: gradients may be masked, and the robust accuracy is an upper bound; attack with more restarts",
};

impl Check {
    fn finding(&self, holds: bool, found: String) -> Finding {
        let verdict = if holds {
            Verdict::Holds
        } else {
            Verdict::Warns
        };
        self.found(verdict, found)
    }

    fn found(&self, verdict: Verdict, found: String) -> Finding {
        Finding {
            check: self.name.to_owned(),
            verdict,
            found,
            meaning: self.meaning.to_owned(),
        }
    }

    /// The check could not be made, because of `reason`.
    fn cannot_tell(&self, reason: &str) -> Finding {
        self.found(Verdict::NotChecked, reason.to_owned())
    }
}

impl Suspect<'_> {
    /// Makes all checks. They cost a fraction of PGD on a thousand images.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) when asked to stop; [`Error::Logits`](crate::Error::Logits) for logits
    /// that are not finite.
    pub fn examine(&self, context: &mut Context) -> Result<Soundness> {
        let (split, device) = (self.split, context.device.clone());
        let stage = format!("{}/soundness", self.classifier);
        let indices = split.limited(self.classes, SAMPLE.min(split.images.len()), context.seed);
        let images = to_tensor(split.images.batch(&indices), &device);
        let labels: Vec<usize> = indices.iter().map(|&i| split.labels[i]).collect();
        let climber = Climber {
            logits: self.logits,
            ball: self.ball,
            pgd: self.pgd,
            batch_size: self.batch_size,
            seed: context.seed,
        };
        let mut findings = self.of_outputs(&stage, &indices, &images, &climber, context)?;
        let holds = |check: &Check| {
            let warns = |f: &Finding| f.verdict == Verdict::Warns && f.check == check.name;
            !findings.iter().any(warns)
        };
        let steady = holds(&DETERMINISTIC) && holds(&BATCH);
        let done = findings.len();
        let mut tell = |more: usize| context.progress(&stage, done + more, 9, "checks");
        findings.extend(climber.findings(images, &labels, steady, &mut tell)?);
        Ok(Soundness { findings })
    }
}

impl Soundness {
    /// The checks with this outcome.
    pub fn with(&self, verdict: Verdict) -> impl Iterator<Item = &Finding> {
        let same = move |finding: &&Finding| finding.verdict == verdict;
        self.findings.iter().filter(same)
    }

    /// The checks that warn.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.with(Verdict::Warns)
    }

    /// Takes in what attacks beside PGD have shown: one without gradients must not break what those with gradients left.
    ///
    /// `robust` of `images` were classified correctly after PGD.
    pub fn heed(&mut self, attacked: &Attacked, (robust, images): (usize, usize)) {
        let without_gradients = |name: &str| ["square", "noise"].contains(&name);
        // AutoAttack's own flag: more than two in a thousand. A single image is no sign.
        let many = |broken: usize| broken > 1 && broken as f64 > 0.002 * attacked.images as f64;
        let mut said = None;
        let strong = |name: &str| name.starts_with("apgd") || name == "pgd";
        let mut before: Vec<&str> = Vec::new();
        for tried in &attacked.attacks {
            let name = tried.attack.as_str();
            if without_gradients(name) && before.iter().any(|name| strong(name)) {
                let (broken, left) = (tried.broken, tried.images);
                let before = before.join(", ");
                let words =
                    format!("{name} broke {broken} of the {left} images that {before} left");
                said = Some((!many(broken), words));
            }
            before.push(name);
        }
        let blind = before.iter().all(|name| without_gradients(name));
        if said.is_none() && blind && attacked.images == images {
            let (left, names) = (attacked.robust, before.join(", "));
            let words = format!("{left} of {images} images withstand {names}, {robust} PGD");
            said = Some((!many(robust.saturating_sub(left)), words));
        }
        if let Some((holds, words)) = said {
            self.amend(&BLACK_BOX, holds, &words);
        }
    }

    /// Takes in where the adversarial examples of attacks beside PGD are.
    pub fn heed_examples(&mut self, outside: usize, examples: usize) {
        let words =
            format!("{outside} of {examples} adversarial examples of other attacks outside");
        self.amend(&PERTURBATIONS, outside == 0, &words);
    }

    fn amend(&mut self, check: &Check, holds: bool, words: &str) {
        let found = self.findings.iter_mut().find(|f| f.check == check.name);
        match found {
            Some(finding) => {
                finding.verdict = match (finding.verdict, holds) {
                    (Verdict::Warns, _) | (_, false) => Verdict::Warns,
                    (Verdict::Holds | Verdict::NotChecked, true) => Verdict::Holds,
                };
                finding.found += &format!("; {words}");
            }
            None => self.findings.push(check.finding(holds, words.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Tried;

    fn attacked(attacks: &[(&str, usize)]) -> Attacked {
        let mut left = 500;
        let mut tried = |&(name, broken): &(&str, usize)| {
            left -= broken;
            Tried {
                attack: name.to_owned(),
                images: left + broken,
                broken,
                seconds: 1.0,
            }
        };
        let attacks: Vec<Tried> = attacks.iter().map(&mut tried).collect();
        Attacked {
            suite: "custom".to_owned(),
            images: 1000,
            clean: 500,
            robust: left,
            attacks,
        }
    }

    #[test]
    fn what_square_finds_beyond_gradients_is_a_warning() {
        for (attacks, robust, holds) in [
            (
                &[("apgd-ce", 100), ("fab-t", 3), ("square", 2)][..],
                400,
                Some(true),
            ),
            (&[("apgd-ce", 100), ("square", 3)], 400, Some(false)),
            // FGSM is no attack that Square should not beat.
            (&[("fgsm", 100), ("square", 30)], 350, None),
            (&[("square", 60)], 400, Some(true)),
            (&[("square", 160)], 400, Some(false)),
            (&[("apgd-ce", 160)], 400, None),
        ] {
            let mut soundness = Soundness::default();
            soundness.heed(&attacked(attacks), (robust, 1000));
            let found = soundness
                .findings
                .first()
                .map(|f| f.verdict == Verdict::Holds);
            assert_eq!(found, holds, "{attacks:?}");
        }
        let mut soundness = Soundness {
            findings: vec![BLACK_BOX.finding(false, "3 of 30".to_owned())],
        };
        soundness.heed(&attacked(&[("apgd-ce", 100), ("square", 0)]), (400, 1000));
        let [finding] = &soundness.findings[..] else {
            panic!("one check: {soundness:?}");
        };
        assert_eq!(
            finding.verdict,
            Verdict::Warns,
            "evidence is not taken back"
        );
        let words = "3 of 30; square broke 0 of the 400 images that apgd-ce left";
        assert_eq!(finding.found, words);
    }
}
