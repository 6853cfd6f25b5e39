//! Accuracy by class, and which class is predicted instead.

use std::collections::BTreeSet;

use advcl::evaluate::measures::Confusion;
use advcl::experiment::Outcome;
use maud::{Markup, html};

use super::html::{count, figure, heat, heat_cell, legend, percent, share, table};
use super::model::{PICTURED, ReportPage, ShownClassifier};
use super::plots::{Whisker, whiskers};
use super::tables::class_figures;
use crate::format::{NONE, Table, tallies};

/// Largest number of classes that are shown in full; of more, the extremes and the most frequent
/// errors.
const MANY: usize = 20;

/// Accuracy by class, and which class is predicted instead.
pub fn classes(report: &ReportPage) -> Markup {
    let confused = report.measured(|m| {
        let images = m.confusion.images();
        (images > 0).then_some((images, m))
    });
    html! {
        p { "Some classes lose far more accuracy than others, which an average hides." }
        @let figures = class_figures(report.rows);
        @if !figures.is_empty() {
            (table("Balanced accuracy, the mean of the classes' accuracies, and the worst class (of several seeds: of the worst one)", &figures))
        }
        @let picked = picked(report);
        div.grid { @for shown in report.shown.iter().take(PICTURED) { (by_class(shown, &picked)) } }
        details {
            summary { "Table: accuracy by class" }
            (table("Accuracy by class, clean and under PGD", &class_table(report)))
        }
        @if confused.is_empty() {
            p { "Which class is predicted instead: " code { (report.evaluate(" --measure confusion")) } "." }
        }
        @for one in &confused {
            h3 { (one.shown.label) }
            div.pair {
                (confusion(one.shown, "clean images", &one.value.confusion))
                @if one.value.confusion_attacked.classes() > 0 {
                    (confusion(one.shown, "attacked images", &one.value.confusion_attacked))
                }
            }
        }
    }
}

/// A row for each class, with clean and robust accuracy of every classifier.
fn class_table(report: &ReportPage) -> Table {
    let mut rows = Table::new().left("class");
    for shown in report.shown {
        rows = rows
            .right(format!("{}, clean", shown.label))
            .right("under PGD");
    }
    for (name, tallies) in tallies(outcomes(report)) {
        let mut cells = vec![name];
        for tally in tallies {
            cells.extend(match tally {
                Some(tally) => [tally.clean, tally.robust].map(|hits| share(hits, tally.images)),
                None => [NONE, NONE].map(str::to_owned),
            });
        }
        rows.row(cells);
    }
    rows
}

fn outcomes<'a>(report: &'a ReportPage) -> impl Iterator<Item = &'a Outcome> {
    report.shown.iter().map(|shown| &shown.row.outcome)
}

/// Accuracy of a class, with its name and its number of images.
struct ClassAccuracy {
    name: String,
    clean: f64,
    robust: f64,
}

/// Names of the classes that are drawn, the same for every classifier: all, or of many the most and the least robust ones.
fn picked(report: &ReportPage) -> BTreeSet<String> {
    let tallies = tallies(outcomes(report)).into_iter();
    let mut classes: Vec<(String, f64)> = tallies
        .map(|(name, tallies)| {
            let tallies = tallies.iter().flatten().filter(|tally| tally.images > 0);
            let robust = tallies.map(|tally| tally.robust as f64 / tally.images as f64);
            (name, robust.sum::<f64>())
        })
        .collect();
    let most = classes.len();
    if most > MANY {
        classes.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        classes.drain(MANY / 2..most - MANY / 2);
    }
    classes.into_iter().map(|(name, _)| name).collect()
}

/// Plot of how far the accuracy of each class falls.
fn by_class(shown: &ShownClassifier, picked: &BTreeSet<String>) -> Markup {
    let all = shown.row.outcome.accuracy.classes.iter().enumerate();
    let some = all
        .clone()
        .map(|(class, tally)| (shown.class(class), tally))
        .filter(|(class, tally)| tally.images > 0 && picked.contains(class));
    let classes: Vec<ClassAccuracy> = some
        .map(|(class, tally)| ClassAccuracy {
            name: format!("{class} ({} images)", count(tally.images)),
            clean: tally.clean as f64 / tally.images as f64,
            robust: tally.robust as f64 / tally.images as f64,
        })
        .collect();
    let left_out = all.filter(|(_, tally)| tally.images > 0).count() - classes.len();
    let words = classes
        .iter()
        .map(|c| format!("{} {} and {}", c.name, percent(c.clean), percent(c.robust)));
    let words: Vec<String> = words.collect();
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
    let row = |class: ClassAccuracy| {
        let (clean, robust) = (class.clean, class.robust);
        let fall = whisker(0, clean, robust, clean);
        (class.name, vec![fall, whisker(1, robust, robust, robust)])
    };
    let rows: Vec<(String, Vec<Whisker>)> = classes.into_iter().map(row).collect();
    let pgd = format!("PGD-{}", shown.row.outcome.attack_steps);
    let caption = html! {
        strong { (shown.label) } ": lines show the loss; intervals are in the table"
        @if left_out > 0 { "; the most and the least robust classes, " (left_out) " between them left out" }
    };
    let names = legend([(0, "clean"), (1, pgd.as_str())]);
    figure(caption, whiskers(&alt, &rows), names)
}

fn confusion(shown: &ShownClassifier, kind: &str, matrix: &Confusion) -> Markup {
    let (all, classes) = (matrix.images(), matrix.classes());
    let caption = format!(
        "Predictions for {} {kind}, {}; rows: true class and its images; columns: predicted class",
        count(all),
        shown.label
    );
    if classes > MANY {
        return frequent(shown, &caption, matrix);
    }
    html! {
        (heat(&caption, &html! {
                    thead { tr {
                        th scope="col" { "true \\ predicted" }
                        @for predicted in 0..classes { th scope="col" { span.tall { (shown.class(predicted)) } } }
                        th scope="col" { "correct %" }
                    } }
                    tbody {
                        @for class in 0..classes {
                            @let all = matrix.of_class(class);
                            tr {
                                th scope="row" { (shown.class(class)) " (" (count(all)) ")" }
                                @for predicted in 0..classes {
                                    @let images = matrix.get(class, predicted);
                                    @let shade = images as f64 / all.max(1) as f64;
                                    td.own[predicted == class].zero[images == 0] style=(format!("--v:{shade:.2}")) { (images) }
                                }
                                (heat_cell(matrix.get(class, class) as f64 / all.max(1) as f64, all, false))
                            }
                        }
                    }
        }))
    }
}

/// The most frequent confusions.
fn frequent(shown: &ShownClassifier, caption: &str, matrix: &Confusion) -> Markup {
    let mut pairs = Vec::new();
    for class in 0..matrix.classes() {
        let all = matrix.of_class(class);
        for (predicted, images) in matrix.row(class) {
            if predicted != class {
                pairs.push((images, class, predicted, all));
            }
        }
    }
    pairs.sort_by_key(|&(images, class, predicted, _)| {
        (std::cmp::Reverse(images), class, predicted)
    });
    pairs.truncate(MANY);
    let mut rows = Table::new()
        .left("true class")
        .left("predicted")
        .right("of the class's images");
    for (images, class, predicted, all) in pairs {
        rows.row([
            shown.class(class),
            shown.class(predicted),
            share(images, all),
        ]);
    }
    table(&format!("{caption}; the most frequent errors"), &rows)
}
