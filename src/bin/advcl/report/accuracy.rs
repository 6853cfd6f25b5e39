//! Clean and robust accuracy of every classifier.

use maud::{Markup, html};

use super::headline::{HeadlineAttack, HeadlineFigure, HeadlineRow, suite_titles};
use super::html::{count, legend, percent};
use super::model::{ReportPage, distinct};
use super::plots::{Whisker, whiskers};
use crate::format::{NONE, clock, quoted};

/// A cell: "76.8 % 74.9–78.6 of 2,000", or "76.8 ± 0.5 % of 2,000".
fn cell(figure: &HeadlineFigure) -> Markup {
    html! {
        @match figure.deviation {
            Some(deviation) => {
                span.big { (format!("{:.1}", 100.0 * figure.share)) }
                span.inline { (format!(" ± {:.1}\u{a0}%", 100.0 * deviation)) }
            }
            None => {
                span.big { (percent(figure.share)) }
                span.range { (format!("{:.1}–{:.1}", 100.0 * figure.low, 100.0 * figure.high)) }
            }
        }
        span.range { "of " (count(figure.images)) }
    }
}

/// A cell of a suite of attacks, with PGD on the same images where they are not all.
fn attack_cell(row: &HeadlineRow, attack: &HeadlineAttack) -> Markup {
    let fewer = attack.robust.images != row.robust.images;
    html! {
        (cell(&attack.robust))
        @if let (true, Some(pgd)) = (fewer, &attack.pgd) {
            span.range { "PGD-" (row.steps) " on these: " (percent(pgd.share)) }
        }
    }
}

/// The row's name, after that of its run where there are several.
fn name(report: &ReportPage, row: &HeadlineRow) -> String {
    if report.leads.len() > 1 {
        format!("{}: {}", row.run, row.title())
    } else {
        row.title()
    }
}

/// Clean and robust accuracy of every classifier.
pub fn accuracy(report: &ReportPage) -> Markup {
    let thorough = report.rows.iter().any(HeadlineRow::is_thorough);
    let weak = suite_titles(report.rows);
    let upper_bound = match weak.is_empty() {
        true => "Only PGD attacked here, and PGD alone overestimates robustness.".to_owned(),
        false => format!(
            "Only PGD and {} attacked here, and they overestimate robustness.",
            weak.join(", ")
        ),
    };
    html! {
        p { "Share of the images that are classified correctly: clean images, and adversarial ones, which an attack changed within the radius." }
        @if !thorough {
            div.notice role="note" {
                p { strong { "An upper bound. " } (upper_bound) " " code { (report.autoattack()) } " runs the standard attack." }
            }
        }
        div.pair {
            (plot(report))
            (table(report))
        }
        @for shown in report.shown.iter().filter(|shown| shown.row.current && !shown.up_to_date) {
            div.warning role="note" {
                p { strong { (shown.label) } ": evaluated on other images than the recipe's are now. "
                    code { "advcl evaluate " (quoted(&shown.run.path)) } " evaluates it on these." }
            }
        }
        @for run in report.runs.iter().filter(|run| !run.missing.is_empty()) {
            @let again = match &run.comparison {
                Some(path) => format!("advcl compare --run {}", quoted(path)),
                None => format!("advcl run {}", quoted(&run.path)),
            };
            p { (run.name) ": not evaluated with this recipe yet: " (run.missing.join(", ")) ". " code { (again) } " does it." }
        }
    }
}

fn plot(report: &ReportPage) -> Markup {
    let whisker = |style: usize, figure: &HeadlineFigure| Whisker {
        style,
        value: figure.share,
        low: figure.low,
        high: figure.high,
    };
    let row = |row: &HeadlineRow| {
        let mut values = vec![whisker(0, &row.clean), whisker(1, &row.robust)];
        values.extend(row.attacks.iter().map(|a| whisker(3, &a.robust)));
        (name(report, row), values)
    };
    let rows: Vec<(String, Vec<Whisker>)> = report.rows.iter().map(row).collect();
    let words = report.rows.iter().map(|row| {
        let (clean, robust) = (percent(row.clean.share), percent(row.robust.share));
        format!("{} {clean} clean, {robust} under PGD", name(report, row))
    });
    let words: Vec<String> = words.collect();
    let alt = format!("Accuracy on one scale. {}.", words.join("; "));
    let attacks = distinct(report.rows.iter().map(|row| format!("PGD-{}", row.steps)));
    let suites = suite_titles(report.rows);
    let (attacks, suites) = (attacks.join(", "), suites.join(", "));
    let mut items = vec![(0, "clean"), (1, attacks.as_str())];
    if !suites.is_empty() {
        items.push((3, &suites));
    }
    let noise = if report.rows.iter().any(|row| row.seeds > 1) {
        "Lines: the mean ± one standard deviation over the seeds; 95 % intervals (Wilson) for the number of images where there is one seed."
    } else {
        "Lines: 95 % intervals (Wilson) for the number of images; another seed of training may differ by more."
    };
    html! {
        figure {
            figcaption { (noise) }
            (whiskers(&alt, &rows))
            (legend(items))
        }
    }
}

fn table(report: &ReportPage) -> Markup {
    let rows = report.rows;
    let suites = suite_titles(rows);
    let attacks = distinct(rows.iter().map(|row| format!("PGD-{}", row.steps))).join(", ");
    // Printed in the header only where all rows have the same.
    let radii = rows.iter().any(|row| row.radius != rows[0].radius);
    let seeds = rows.iter().any(|row| row.seeds > 1);
    html! {
        div {
            p.caption { "Accuracy of each classifier" }
            div.scroll tabindex="0" role="region" aria-label="Accuracy of each classifier" {
            table.headline aria-label="Accuracy of each classifier" {
                thead { tr {
                    th scope="col" { "classifier" }
                    th scope="col" { "clean" }
                    th scope="col" { (attacks) }
                    @for suite in &suites { th scope="col" { (suite) } }
                    @if radii { th scope="col" { "radius" } }
                    @if seeds { th scope="col" { "seeds" } }
                    th scope="col" { "time in all" }
                } }
                tbody {
                    @for row in rows {
                        tr {
                            th scope="row" { (name(report, row)) }
                            td { (cell(&row.clean)) }
                            td { (cell(&row.robust)) }
                            @for suite in &suites {
                                td { @match row.attack(suite) { Some(attack) => (attack_cell(row, attack)), None => (NONE) } }
                            }
                            @if radii { td { (row.radius) } }
                            @if seeds { td { (row.seeds) } }
                            td { (clock(row.seconds)) }
                        }
                    }
                }
            }
            }
            p.range { "Time in all, minutes and seconds: pretraining (with the pseudo-labels and encoders it learns from), finetuning and evaluation." }
        }
    }
}
