//! Whether a robust accuracy can be believed: checks for what makes evaluations in this field go wrong.
//!
//! Most are after Athalye et al. (ICML 2018, section 3.1), Carlini et al. ("On Evaluating Adversarial Robustness", 2019) and
//! the flags of AutoAttack (Croce and Hein, ICML 2020; Tramèr et al., NeurIPS 2020).

mod balance;
mod check;
mod gradients;
mod outputs;

use burn::tensor::Tensor;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::{Attacked, Evaluator};
use crate::attack::{AttackKind, Attacker};
use crate::error::Result;
use crate::session::Context;

pub use check::{CheckName, Finding, SoundnessSummary, Verdict};
pub use gradients::perturbations;

/// Size of the sample that is checked; all images where there are fewer.
const SAMPLE: usize = 64;

/// Fewest correctly classified images for checks of an attack on them.
const FEW: usize = 8;

/// Share of all images above which a black box breaks too many: AutoAttack's own flag. A single image is no sign.
const BLACK_BOX: f64 = 0.002;

/// All checks of a classifier. Its JSON has their counts and their summary too.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Soundness {
    /// Findings, in the order in which the checks were made.
    pub findings: Vec<Finding>,
}

impl Serialize for Soundness {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let summary = self.summary();
        let mut written = serializer.serialize_struct("Soundness", 5)?;
        written.serialize_field("summary", &summary.to_string())?;
        written.serialize_field("hold", &summary.hold)?;
        written.serialize_field("warn", &summary.warn)?;
        written.serialize_field("not_checked", &summary.not_checked)?;
        written.serialize_field("findings", &self.findings)?;
        written.end()
    }
}

/// Checks of a classifier and of PGD on it.
pub struct SoundnessChecks<'a> {
    /// The classifier as it was evaluated, and all images that it was evaluated on.
    pub evaluator: Evaluator<'a>,
    /// The classifier as `advcl predict` computes it, layer by layer.
    pub predict: &'a dyn Fn(Tensor<4>) -> Tensor<2>,
    /// Number of clean images that the evaluation counted as classified correctly.
    pub clean: usize,
    /// The threat model and the attack of the evaluation.
    pub attacker: Attacker,
}

impl SoundnessChecks<'_> {
    /// Makes all checks. They cost a fraction of PGD on a thousand images.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) when asked to stop; [`Error::Logits`](crate::Error::Logits) for logits
    /// that are not finite.
    pub fn run(&self, context: &mut Context) -> Result<Soundness> {
        let (split, classes) = (self.evaluator.split, self.evaluator.classes);
        let indices = split.limited(classes, SAMPLE.min(split.images.len()), context.seed);
        let sample = self.evaluator.batch(&indices, &context.device);
        let mut findings = self.check_outputs(&sample, context)?;
        let unsteady = [CheckName::Deterministic, CheckName::BatchIndependent];
        let warns = |f: &Finding| f.verdict == Verdict::Warns && unsteady.contains(&f.check);
        let steady = !findings.iter().any(warns);
        self.check_attack(&sample, steady, &mut findings, context)?;
        Ok(Soundness { findings })
    }

    /// Reports how many checks are made.
    fn report(&self, findings: &[Finding], context: &mut Context) -> Result<()> {
        let stage = format!("{}/soundness", self.evaluator.name);
        context.progress(&stage, findings.len(), CheckName::ALL.len(), "checks")
    }
}

impl Soundness {
    /// Findings with this outcome.
    pub fn with(&self, verdict: Verdict) -> impl Iterator<Item = &Finding> {
        let same = move |finding: &&Finding| finding.verdict == verdict;
        self.findings.iter().filter(same)
    }

    /// Findings that warn.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.with(Verdict::Warns)
    }

    /// Counts of the checks; displays as "7 of 9 hold, 2 not checked (only one class)".
    pub fn summary(&self) -> SoundnessSummary {
        self.findings.iter().collect()
    }

    /// Adds the evidence of attacks beside PGD: a black box must not break what attacks with gradients left.
    pub fn include_attack_results(&mut self, attacked: &Attacked) {
        let many = |broken: usize| broken > 1 && broken as f64 > BLACK_BOX * attacked.images as f64;
        let mut evidence = None;
        let mut before: Vec<AttackKind> = Vec::new();
        for tally in &attacked.attacks {
            let attack = tally.attack;
            if attack.is_black_box() && before.iter().any(|kind| kind.climbs()) {
                let (broken, left, before) = (tally.broken, tally.images, names(&before));
                let found =
                    format!("{attack} broke {broken} of the {left} images that {before} left");
                evidence = Some((!many(broken), found));
            }
            before.push(attack);
        }
        let blind = before.iter().all(|kind| kind.is_black_box());
        if let (None, true, Some(pgd)) = (&evidence, blind, attacked.pgd) {
            let (left, images, names) = (attacked.robust, attacked.images, names(&before));
            let robust = pgd.robust;
            let found =
                format!("of {images} images, {left} are robust to {names}, {robust} to PGD");
            evidence = Some((!many(robust.saturating_sub(left)), found));
        }
        if let Some((holds, found)) = evidence {
            self.amend(CheckName::BlackBox, holds, &found);
        }
    }

    /// Adds the number of adversarial examples of attacks beside PGD that are outside of the ball or of [0, 1].
    pub fn include_examples(&mut self, outside: usize, examples: usize) {
        let found =
            format!("{outside} of {examples} adversarial examples of other attacks outside");
        self.amend(CheckName::Perturbations, outside == 0, &found);
    }

    /// Adds evidence to a check. A warning stays one.
    fn amend(&mut self, check: CheckName, holds: bool, found: &str) {
        let known = self.findings.iter_mut().find(|f| f.check == check);
        match known {
            Some(finding) => {
                let reason = finding.verdict == Verdict::NotChecked;
                finding.verdict = match (finding.verdict, holds) {
                    (Verdict::Warns, _) | (_, false) => Verdict::Warns,
                    (Verdict::Holds | Verdict::NotChecked, true) => Verdict::Holds,
                };
                if reason {
                    // Now it is checked, and the reason why it was not does not hold any more.
                    finding.found = found.to_owned();
                } else {
                    finding.found += &format!("; {found}");
                }
            }
            None => self.findings.push(check.finding(holds, found.to_owned())),
        }
    }
}

fn names(attacks: &[AttackKind]) -> String {
    let names: Vec<&str> = attacks.iter().map(|kind| kind.name()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{AttackTally, PerImage, Tally};

    fn attacked(attacks: &[(AttackKind, usize)], pgd: usize) -> Attacked {
        let mut left = 500;
        let mut tally = |&(attack, broken): &(AttackKind, usize)| {
            left -= broken;
            AttackTally {
                attack,
                images: left + broken,
                broken,
                seconds: 1.0,
            }
        };
        let attacks: Vec<AttackTally> = attacks.iter().map(&mut tally).collect();
        Attacked {
            suite: "custom".to_owned(),
            images: 1000,
            clean: 500,
            robust: left,
            attacks,
            per_image: PerImage::default(),
            pgd: Some(Tally {
                images: 1000,
                clean: 500,
                robust: pgd,
            }),
        }
    }

    #[test]
    fn what_a_black_box_finds_beyond_gradients_is_a_warning() {
        use AttackKind::{ApgdCe, FabT, Fgsm, Square};
        use Verdict::{Holds, Warns};
        for (attacks, robust, expected) in [
            (
                &[(ApgdCe, 100), (FabT, 3), (Square, 2)][..],
                400,
                Some(Holds),
            ),
            (&[(ApgdCe, 100), (Square, 3)], 400, Some(Warns)),
            // FGSM is no attack that Square should not beat.
            (&[(Fgsm, 100), (Square, 30)], 350, None),
            (&[(Square, 60)], 400, Some(Holds)),
            (&[(Square, 160)], 400, Some(Warns)),
            (&[(ApgdCe, 160)], 400, None),
        ] {
            let mut soundness = Soundness::default();
            soundness.include_attack_results(&attacked(attacks, robust));
            let found = soundness.findings.first().map(|f| f.verdict);
            assert_eq!(found, expected, "{attacks:?}");
        }
        // Without PGD on the same images a black box alone is no evidence.
        let mut alone = attacked(&[(Square, 160)], 400);
        alone.pgd = None;
        let mut soundness = Soundness::default();
        soundness.include_attack_results(&alone);
        assert!(soundness.findings.is_empty());
    }

    #[test]
    fn evidence_is_added_and_never_taken_back() {
        let attacked = attacked(&[(AttackKind::ApgdCe, 100), (AttackKind::Square, 0)], 400);
        let words = "square broke 0 of the 400 images that apgd-ce left";
        let warning = CheckName::BlackBox.finding(false, "3 of 30".to_owned());
        let unknown = CheckName::BlackBox.not_checked("radius of 0");
        for (finding, verdict, found) in [
            (warning, Verdict::Warns, format!("3 of 30; {words}")),
            (unknown, Verdict::Holds, words.to_owned()),
        ] {
            let mut soundness = Soundness {
                findings: vec![finding],
            };
            soundness.include_attack_results(&attacked);
            let [finding] = &soundness.findings[..] else {
                panic!("one check: {soundness:?}");
            };
            assert_eq!((finding.verdict, &finding.found), (verdict, &found));
        }
    }

    #[test]
    fn json_has_the_counts_and_is_read_back() {
        let few = CheckName::Loss.not_checked("fewer than 8 images classified correctly");
        let soundness = Soundness {
            findings: vec![CheckName::Logits.finding(true, "outputs".to_owned()), few],
        };
        let json = serde_json::to_value(&soundness).expect("plain values");
        let text = "1 of 2 hold, 1 not checked (fewer than 8 images classified correctly)";
        assert_eq!((&json["summary"], &json["hold"]), (&text.into(), &1.into()));
        assert_eq!(
            (&json["warn"], &json["not_checked"]),
            (&0.into(), &1.into())
        );
        assert_eq!(json["findings"][1]["verdict"], "not_checked");
        let read: Soundness = serde_json::from_value(json).expect("itself");
        assert_eq!(read, soundness);
    }
}
