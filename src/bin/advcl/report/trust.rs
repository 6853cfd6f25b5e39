//! Whether the figures can be believed, and what each attack did.

use advcl::evaluate::Attacked;
use maud::html;

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
    let rows = |shown: &Shown| -> Vec<Vec<String>> {
        let all = shown.soundness().map_or(&[][..], |all| &all.findings[..]);
        all.iter()
            .map(|finding| {
                let mark = if finding.holds {
                    "✓ holds"
                } else {
                    "✗ warning"
                };
                vec![
                    finding.check.clone(),
                    mark.to_owned(),
                    finding.found.clone(),
                ]
            })
            .collect()
    };
    let head = ["check", "outcome", "found"].map(str::to_owned);
    Ok(html! {
        p { "Evaluations of robustness fail in known ways: gradients that are hidden, outputs that change, attacks too weak. Each is checked for." }
        @for shown in checked {
            @let all = shown.soundness().map_or(0, |all| all.findings.len());
            @let wrong: Vec<_> = shown.soundness().iter().flat_map(|all| all.warnings()).collect();
            h3 { (shown.label) }
            @if wrong.is_empty() {
                p { strong.good { "✓ All " (all) " checks hold." } }
            } @else {
                div.warning role="note" {
                    h3 { "✗ " (wrong.len()) " of " (all) " checks do not hold" }
                    ul {
                        @for finding in wrong {
                            li { strong { (finding.check) } ": " (finding.meaning) " Found: " (finding.found) }
                        }
                    }
                }
            }
            div.words { (folded(&format!("checks of {}", shown.label), &head, &rows(shown))) }
        }
    })
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
            tried.attack.clone(),
            count(tried.images),
            count(tried.broken),
            share(left),
            clock(tried.seconds),
        ]);
    }
    rows
}
