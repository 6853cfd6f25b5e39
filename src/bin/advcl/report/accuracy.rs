//! The figures that everybody asks for first.

use anyhow::Result;
use maud::{Markup, PreEscaped, html};

use super::figures::{self, Figure, Line};
use super::html::{count, legend, percent};
use super::page::{Report, distinct};
use super::plots::{Whisker, whiskers};
use super::quoted;
use crate::table::clock;

/// "76.8 % (74.9–78.6)", or "76.8 ± 0.5 %".
fn cell(figure: &Figure) -> Markup {
    html! {
        @match figure.deviation {
            Some(deviation) => {
                span.big { (format!("{:.1}", 100.0 * figure.share)) }
                span.range { (format!(" ± {:.1}\u{a0}%", 100.0 * deviation)) }
            }
            None => {
                span.big { (percent(figure.share)) }
                span.range { (format!(" {:.1}–{:.1}", 100.0 * figure.low, 100.0 * figure.high)) }
            }
        }
    }
}

/// The figures that everybody asks for first.
pub fn accuracy(report: &Report) -> Result<Markup> {
    let lines = report.lines;
    let several = report.leads.len() > 1;
    let name = |line: &Line| match several {
        true => format!("{}: {}", line.run, line.title()),
        false => line.title(),
    };
    let suite = lines.iter().find_map(|line| line.attacked.as_ref());
    let suite = suite.map(|attacked| figures::suite_title(&attacked.suite));
    let attacks = distinct(lines.iter().map(|line| format!("PGD-{}", line.steps))).join(", ");
    let seeds = lines.iter().any(|line| line.seeds > 1);
    let whisker = |style: usize, figure: &Figure| Whisker {
        style,
        value: figure.share,
        low: figure.low,
        high: figure.high,
    };
    let rows: Vec<(String, Vec<Whisker>)> = lines
        .iter()
        .map(|line| {
            let mut values = vec![whisker(0, &line.clean), whisker(1, &line.robust)];
            values.extend(line.attacked.as_ref().map(|a| whisker(3, &a.robust)));
            (name(line), values)
        })
        .collect();
    let words: Vec<String> = lines
        .iter()
        .map(|line| {
            let (clean, robust) = (percent(line.clean.share), percent(line.robust.share));
            format!("{} {clean} clean, {robust} under PGD", name(line))
        })
        .collect();
    let plot = whiskers(
        &format!("Accuracy on one scale. {}.", words.join("; ")),
        &rows,
    )?;
    let mut items = vec![(0, "as they are".to_owned()), (1, attacks.clone())];
    items.extend(suite.iter().map(|suite| (3, suite.clone())));
    let items: Vec<(usize, &str)> = items
        .iter()
        .map(|(style, name)| (*style, name.as_str()))
        .collect();
    let noise = match seeds {
        true => {
            "Bars: the mean ± one standard deviation over the seeds; 95 % intervals of the images (Wilson) where there is one seed."
        }
        false => {
            "Bars: 95 % intervals (Wilson) for the number of images; another seed of training may differ by more."
        }
    };
    let takes = |line: &Line| clock(line.seconds);
    // Said once above, where all have the same.
    let radii = lines.iter().any(|line| line.radius != lines[0].radius);
    let images = lines.iter().any(|line| line.images != lines[0].images);
    Ok(html! {
        p { "Share of the images that are classified correctly: as they are, and after an attacker changed each of them within the radius." }
        @if suite.is_none() {
            div.notice role="note" {
                p { strong { "An upper bound. " } "Only PGD attacked here, and PGD alone flatters. "
                    code { "advcl evaluate " (quoted(&report.leads[0].path)) " --attack autoattack" } " runs the standard attack." }
            }
        }
        div.pair {
            figure {
                figcaption { (noise) }
                (PreEscaped(plot))
                (legend(items))
            }
            div.scroll tabindex="0" role="region" aria-label="Accuracy of each classifier" {
                table.headline {
                    caption { "Accuracy of each classifier" }
                    thead { tr {
                        th scope="col" { "classifier" }
                        th scope="col" { "clean" }
                        th scope="col" { (attacks) }
                        @if let Some(suite) = &suite { th scope="col" { (suite) } }
                        @if radii { th scope="col" { "radius" } }
                        @if images { th scope="col" { "images" } }
                        @if seeds { th scope="col" { "seeds" } }
                        th scope="col" { "took" }
                    } }
                    tbody {
                        @for line in lines {
                            tr {
                                th scope="row" { (name(line)) }
                                td { (cell(&line.clean)) }
                                td { (cell(&line.robust)) }
                                @if suite.is_some() {
                                    td { @match &line.attacked { Some(a) => {
                                        (cell(&a.robust))
                                        @if a.images != line.images { span.range { "of " (count(a.images)) } }
                                    }, None => "–" } }
                                }
                                @if radii { td { (line.radius) } }
                                @if images { td { (count(line.images)) } }
                                @if seeds { td { (line.seeds) } }
                                td { (takes(line)) }
                            }
                        }
                    }
                }
            }
        }
        @for shown in report.shown.iter().filter(|shown| !shown.up_to_date) {
            div.warning role="note" {
                p { strong { (shown.label) } ": measured with other settings or other images than the recipe's now. "
                    code { "advcl evaluate " (quoted(&shown.folder.path)) } " measures anew." }
            }
        }
        @for folder in report.folders.iter().filter(|folder| !folder.missing.is_empty()) {
            p { (folder.name) ": not evaluated yet: " (folder.missing.join(", ")) ". "
                code { "advcl run " (quoted(&folder.path)) } " goes on." }
        }
    })
}
