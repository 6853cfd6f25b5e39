//! Soundness checks of the figures, and the results of each attack.

use advcl::compare::suites;
use advcl::evaluate::Attacked;
use advcl::evaluate::soundness::{Finding, SoundnessSummary, Verdict};
use advcl::experiment::Outcome;
use maud::{Markup, html};

use super::html::{count, folded, share, table};
use super::model::{Missing, ReportPage, SectionBody, ShownClassifier};
use crate::format::{NONE, Table, clock, suite_title};

/// The soundness checks of every classifier.
pub fn soundness(report: &ReportPage) -> SectionBody {
    let checked: Vec<&ShownClassifier> = report
        .shown
        .iter()
        .filter(|s| s.soundness().is_some())
        .collect();
    if checked.is_empty() {
        return Err(Missing::until("no checks were made", report.evaluate("")));
    }
    Ok(html! {
        p { "Evaluations of robustness fail in known ways: gradients that are masked, outputs that change, attacks too weak. Each is checked for. "
            "A check that could not be made speaks neither for the figures nor against them." }
        div.checks {
            @for shown in checked { (checks(shown)) }
        }
    })
}

/// The outcome of a check in words.
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::Warns => "warns",
        Verdict::NotChecked => "not checked",
    }
}

fn mark(of: Verdict) -> &'static str {
    match of {
        Verdict::Holds => "✓",
        Verdict::Warns => "✗",
        Verdict::NotChecked => "?",
    }
}

fn checks(shown: &ShownClassifier) -> Markup {
    let findings = shown.soundness().map_or(&[][..], |all| &all.findings[..]);
    let mut rows = Table::new().left("check").left("outcome").left("found");
    for finding in findings {
        rows.row([
            finding.check.to_string(),
            format!("{} {}", mark(finding.verdict), verdict(finding.verdict)),
            finding.found.clone(),
        ]);
    }
    let verdicts: SoundnessSummary = findings.iter().collect();
    let warnings: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Warns)
        .collect();
    html! {
        div {
            h3 { (shown.label) }
            @if !warnings.is_empty() {
                div.warning role="note" {
                    h4 { "✗ " (verdicts) }
                    ul {
                        @for finding in &warnings {
                            li { strong { (finding.check) } ": " (finding.meaning) "; found: " (finding.found) }
                        }
                    }
                }
            } @else if verdicts.hold == verdicts.checks() {
                p { strong.good { "✓ " (verdicts) } }
            } @else {
                p { strong { "? " (verdicts) } }
            }
            (folded(&format!("checks of {}", shown.label), &rows))
        }
    }
}

/// The attacks beside PGD, one after the other.
pub fn attacks(report: &ReportPage) -> SectionBody {
    let of_row = |shown: &'_ ShownClassifier| {
        let outcome = &shown.row.outcome;
        let tables = suites(outcome).map(|attacked| attack_table(&shown.label, outcome, attacked));
        tables.collect::<Vec<_>>()
    };
    let tables: Vec<Markup> = report.shown.iter().flat_map(of_row).collect();
    if tables.is_empty() {
        let why = "PGD was the only attack";
        return Err(Missing::until(why, report.autoattack()));
    }
    Ok(html! {
        p { "Each attack runs only on the images that those before it did not break." }
        div.pair { @for table in tables { (table) } }
    })
}

fn attack_table(label: &str, outcome: &Outcome, attacked: &Attacked) -> Markup {
    let title = format!("{label}, {}", suite_title(&attacked.suite));
    html! {
        div {
            (table(&title, &attack_rows(attacked)))
            @if let Some(pgd) = &attacked.pgd {
                p { "PGD-" (outcome.attack_steps) " on the same images: " (share(pgd.robust, pgd.images)) "." }
            }
        }
    }
}

fn attack_rows(attacked: &Attacked) -> Table {
    let mut rows = Table::new()
        .left("attack")
        .right("images")
        .right("broken")
        .right("robust after it")
        .right("its own time");
    let mut left = attacked.clean;
    rows.row([
        "none (clean)".to_owned(),
        count(attacked.images),
        NONE.to_owned(),
        share(left, attacked.images),
        NONE.to_owned(),
    ]);
    for tried in &attacked.attacks {
        left = left.saturating_sub(tried.broken);
        rows.row([
            tried.attack.to_string(),
            count(tried.images),
            count(tried.broken),
            share(left, attacked.images),
            clock(tried.seconds),
        ]);
    }
    rows
}
