//! Accuracy by class, and what is taken for what.

use anyhow::Result;
use maud::{Markup, html};

use super::html::{count, figure, legend, percent, table};
use super::measured::{not_measured, with};
use super::page::{Part, Report};
use super::plots::{Whisker, whiskers};
use super::{PICTURED, Shown};

/// Confusion of more classes than this is told by its most frequent cases.
const MATRIX: usize = 20;

/// Accuracy by class, and what is taken for what.
pub fn classes(report: &Report) -> Result<Part> {
    let mut head = vec!["class".to_owned(), "images".to_owned()];
    for shown in report.shown {
        head.extend([format!("{} clean", shown.label), "attacked".to_owned()]);
    }
    let most = report
        .shown
        .iter()
        .map(|s| s.row.outcome.accuracy.classes.len())
        .max()
        .unwrap_or(0);
    let share = |part: usize, all: usize| match all {
        0 => "–".to_owned(),
        all => percent(part as f64 / all as f64),
    };
    let row = |class: usize| {
        let first = &report.shown[0];
        let images = first
            .row
            .outcome
            .accuracy
            .classes
            .get(class)
            .map_or(0, |t| t.images);
        let mut cells = vec![first.class(class), count(images)];
        for shown in report.shown {
            let tally = shown.row.outcome.accuracy.classes.get(class);
            let (clean, robust) = tally.map_or((0, 0), |t| (t.clean, t.robust));
            let images = tally.map_or(0, |t| t.images);
            cells.extend([share(clean, images), share(robust, images)]);
        }
        cells
    };
    let rows: Vec<Vec<String>> = (0..most).map(row).collect();
    let confused = with(report, |m| (!m.confusion.is_empty()).then_some(m));
    let mut figures = Vec::new();
    for shown in report.shown.iter().take(PICTURED) {
        figures.push(by_class(shown)?);
    }
    let whole = table("Accuracy by class, clean and under PGD", &head, &rows);
    Ok(Ok(html! {
        p { "Some classes fall long before others: an average hides it." }
        div.grid { @for figure in figures { (figure) } }
        details { summary { "Table: accuracy by class" } (whole) }
        @if confused.is_empty() {
            p { "Which class is taken for which: " code { (not_measured(report, "confusion").1.unwrap_or_default()) } "." }
        }
        @for (_, shown, measures) in &confused {
            h3 { (shown.label) }
            div.pair {
                (confusion(shown, "as they are", &measures.confusion))
                @if !measures.confusion_attacked.is_empty() {
                    (confusion(shown, "under attack", &measures.confusion_attacked))
                }
            }
        }
    }))
}

/// Each class with how far it falls.
fn by_class(shown: &Shown) -> Result<Markup> {
    let all = shown.row.outcome.accuracy.classes.iter().enumerate();
    let mut rows: Vec<(String, f64, f64)> = all
        .filter(|(_, tally)| tally.images > 0)
        .map(|(class, tally)| {
            let share = |part: usize| part as f64 / tally.images as f64;
            (shown.class(class), share(tally.clean), share(tally.robust))
        })
        .collect();
    // The most robust first; of many classes the ends are told.
    rows.sort_by(|a, b| b.2.total_cmp(&a.2).then(b.1.total_cmp(&a.1)));
    let left_out = rows.len().saturating_sub(MATRIX);
    if left_out > 0 {
        rows.drain(MATRIX / 2..rows.len() - MATRIX / 2);
    }
    let words: Vec<String> = rows
        .iter()
        .map(|(name, clean, robust)| format!("{name} {} and {}", percent(*clean), percent(*robust)))
        .collect();
    let alt = format!(
        "Accuracy by class of {}, clean and under PGD: {}.",
        shown.label,
        words.join("; ")
    );
    let whisker = |style, value, low, high| Whisker {
        style,
        value,
        low,
        high,
    };
    let rows: Vec<(String, Vec<Whisker>)> = rows
        .into_iter()
        .map(|(name, clean, robust)| {
            (
                name,
                vec![
                    whisker(0, clean, robust, clean),
                    whisker(1, robust, robust, robust),
                ],
            )
        })
        .collect();
    let svg = whiskers(&alt, &rows)?;
    let pgd = format!("PGD-{}", shown.row.outcome.attack_steps);
    let caption = html! {
        strong { (shown.label) }
        @if left_out > 0 { ": the most and the least robust classes, " (left_out) " between them left out" }
    };
    Ok(figure(
        caption,
        svg,
        legend([(0, "as they are"), (1, pgd.as_str())]),
    ))
}

fn confusion(shown: &Shown, when: &str, matrix: &[Vec<usize>]) -> Markup {
    let caption = format!(
        "What images {when} are taken for, {}: a row a true class, a column the class said",
        shown.label
    );
    if matrix.len() > MATRIX {
        return frequent(shown, &caption, matrix);
    }
    html! {
        figure {
            div.scroll tabindex="0" role="region" aria-label=(caption) {
                table.heat {
                    caption { (caption) }
                    thead { tr {
                        th scope="col" { "true \\ said" }
                        @for said in 0..matrix.len() { th scope="col" { span.tall { (shown.class(said)) } } }
                    } }
                    tbody {
                        @for (class, row) in matrix.iter().enumerate() {
                            @let all = row.iter().sum::<usize>().max(1);
                            tr {
                                th scope="row" { (shown.class(class)) }
                                @for (said, &images) in row.iter().enumerate() {
                                    @let shade = images as f64 / all as f64;
                                    td.own[said == class].zero[images == 0] style=(format!("--v:{shade:.2}")) { (images) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The most frequent confusions.
fn frequent(shown: &Shown, caption: &str, matrix: &[Vec<usize>]) -> Markup {
    let mut pairs = Vec::new();
    for (class, row) in matrix.iter().enumerate() {
        for (said, &images) in row.iter().enumerate() {
            if said != class && images > 0 {
                pairs.push((images, class, said));
            }
        }
    }
    pairs.sort_by_key(|&(images, class, said)| (std::cmp::Reverse(images), class, said));
    pairs.truncate(MATRIX);
    let row = |(images, class, said): (usize, usize, usize)| {
        vec![shown.class(class), shown.class(said), count(images)]
    };
    let rows: Vec<Vec<String>> = pairs.into_iter().map(row).collect();
    let head = ["class", "taken for", "images"].map(str::to_owned);
    table(&format!("{caption}; the most frequent"), &head, &rows)
}
