//! Counts of soundness checks that hold, warn, or could not be made.

use std::fmt;

use advcl::evaluate::soundness::{Finding, Verdict};

/// Number of reasons that are printed; there may be one for each row of a table.
const REASONS: usize = 2;

/// Counts of soundness checks by their outcome. One that could not be made is never counted as one
/// that holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// All checks, made or not.
    pub checks: usize,
    /// Checks that were made and warn.
    pub warnings: usize,
    /// Checks that could not be made.
    pub not_checked: usize,
    /// Why they could not be made, each reason once.
    reasons: Vec<String>,
}

impl Verdicts {
    /// Counts the outcomes.
    pub fn of<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> Self {
        let mut counts = Self::default();
        for finding in findings {
            counts.checks += 1;
            match finding.verdict {
                Verdict::Holds => {}
                Verdict::Warns => counts.warnings += 1,
                Verdict::NotChecked => {
                    counts.not_checked += 1;
                    if !counts.reasons.contains(&finding.found) {
                        counts.reasons.push(finding.found.clone());
                    }
                }
            }
        }
        counts
    }

    /// The number of checks that were made and hold.
    pub fn holding(&self) -> usize {
        self.checks - self.warnings - self.not_checked
    }

    /// Whether every check was made and holds.
    pub fn all_hold(&self) -> bool {
        self.holding() == self.checks
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.all_hold() {
            return write!(f, "{} checks hold", self.checks);
        }
        write!(f, "{} of {} checks hold", self.holding(), self.checks)?;
        match self.warnings {
            0 => {}
            1 => f.write_str(", 1 warns")?,
            count => write!(f, ", {count} warn")?,
        }
        if self.not_checked > 0 {
            let named = self.reasons.len().min(REASONS);
            let others = if self.reasons.len() > named {
                "; …"
            } else {
                ""
            };
            let reasons = self.reasons[..named].join("; ");
            write!(f, ", {} not checked ({reasons}{others})", self.not_checked)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_checked_does_not_hold() {
        let finding = |verdict, found: &str| Finding {
            check: "gradients".to_owned(),
            verdict,
            found: found.to_owned(),
            meaning: String::new(),
        };
        let holds = finding(Verdict::Holds, "no gradient is zero");
        let warns = finding(Verdict::Warns, "3 of 9 are zero");
        let unknown = |reason: &str| finding(Verdict::NotChecked, reason);
        let text = |findings: &[&Finding]| Verdicts::of(findings.iter().copied()).to_string();
        assert_eq!(text(&[&holds, &holds]), "2 checks hold");
        assert_eq!(text(&[&holds, &warns]), "1 of 2 checks hold, 1 warns");
        let few = unknown("fewer than 8 images");
        assert_eq!(
            text(&[&holds, &few, &few]),
            "1 of 3 checks hold, 2 not checked (fewer than 8 images)"
        );
        let (a, b) = (unknown("a"), unknown("b"));
        assert_eq!(
            text(&[&few, &a, &b, &warns, &warns]),
            "0 of 5 checks hold, 2 warn, 3 not checked (fewer than 8 images; a; …)"
        );
    }
}
