//! Whether the figures can be believed, and what each attack did.

use advcl::evaluate::Attacked;
use advcl::evaluate::soundness::{Finding, Verdict};
use maud::{Markup, html};

use super::figures;
use super::html::{count, folded, percent, table};
use super::page::{Part, Report};
use super::{Shown, quoted};
use crate::table::clock;

pub fn soundness(report: &Report) -> Part {
    let checked: Vec<&Shown> = report
        .shown
        .iter()
        .filter(|s| s.soundness().is_some())
        .collect();
    if checked.is_empty() {
        let command = format!("advcl evaluate {}", quoted(&report.leads[0].path));
        return Err(("no checks were made".to_owned(), Some(command)));
    }
    Ok(html! {
        p { "Evaluations of robustness fail in known ways: gradients that are hidden, outputs that change, attacks too weak. Each is checked for." }
        div.checks {
            @for shown in checked { (checks(shown)) }
        }
    })
}

fn checks(shown: &Shown) -> Markup {
    let findings = shown.soundness().map_or(&[][..], |all| &all.findings[..]);
    let row = |finding: &Finding| {
        let mark = if finding.verdict == Verdict::Holds {
            "✓ holds"
        } else {
            "✗ warning"
        };
        vec![
            finding.check.to_string(),
            mark.to_owned(),
            finding.found.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
    let head = ["check", "outcome", "found"].map(str::to_owned);
    let wrong: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Warns)
        .collect();
    html! {
        div {
            h3 { (shown.label) }
            @if wrong.is_empty() {
                p { strong.good { "✓ All " (findings.len()) " checks hold." } }
            } @else {
                div.warning role="note" {
                    h4 { "✗ " (wrong.len()) " of " (findings.len()) " checks do not hold" }
                    ul {
                        @for finding in &wrong {
                            li { strong { (finding.check) } ": " (finding.meaning) "; found: " (finding.found) }
                        }
                    }
                }
            }
            div.words { (folded(&format!("checks of {}", shown.label), &head, &rows)) }
        }
    }
}

pub fn attacks(report: &Report) -> Part {
    let attacked = report
        .shown
        .iter()
        .filter_map(|s| Some((s, s.row.outcome.attacked.as_ref()?)));
    let attacked: Vec<_> = attacked.collect();
    if attacked.is_empty() {
        let command = format!(
            "advcl evaluate {} --attack autoattack",
            quoted(&report.leads[0].path)
        );
        return Err(("only PGD attacked".to_owned(), Some(command)));
    }
    let head = ["attack", "tried on", "broke", "robust after it", "took"].map(str::to_owned);
    Ok(html! {
        p { "Each attack sees only the images that those before it left standing." }
        div.pair {
            @for (shown, attacked) in attacked {
                @let rows = attack_rows(attacked);
                (table(&format!("{}, {}", shown.label, figures::suite_title(&attacked.suite)), &head, &rows))
            }
        }
    })
}

fn attack_rows(attacked: &Attacked) -> Vec<Vec<String>> {
    let share = |left: usize| match attacked.images {
        0 => "–".to_owned(),
        images => percent(left as f64 / images as f64),
    };
    let mut left = attacked.clean;
    let mut rows = vec![vec![
        "none: as they are".to_owned(),
        count(attacked.images),
        "–".to_owned(),
        share(left),
        "–".to_owned(),
    ]];
    for tried in &attacked.attacks {
        left = left.saturating_sub(tried.broken);
        rows.push(vec![
            tried.attack.to_string(),
            count(tried.images),
            count(tried.broken),
            share(left),
            clock(tried.seconds),
        ]);
    }
    rows
}
