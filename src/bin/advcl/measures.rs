//! What was measured beside accuracy and attacks, as text.

use advcl::attack::Norm;
use advcl::evaluate::measures::{Measures, Point, Transfer};
use advcl::experiment::{Outcome, Summary};
use advcl::{finetune, pretrain};

use crate::table::{aligned, cells, percent};

/// A table a part, for each row that has some, and transfer between them.
pub fn tables(summary: &Summary) -> Vec<String> {
    let mut tables = Vec::new();
    for outcome in &summary.outcomes {
        if let Some(measures) = &outcome.measures {
            let of = format!("{}, {} images", title(outcome), measures.images);
            let parts = parts(measures, &summary.classes).into_iter();
            tables.extend(parts.map(|(what, table)| format!("{of}: {what}\n{table}")));
        }
    }
    tables.extend(summary.transfer.as_ref().map(transfer));
    tables
}

fn title(outcome: &Outcome) -> String {
    let mode = finetune::title(&outcome.finetuning);
    format!("{} {mode}", pretrain::title(&outcome.method))
}

fn share(value: f64) -> String {
    format!("{:.1} %", 100.0 * value)
}

/// What is measured, and its table.
fn parts(measures: &Measures, classes: &[String]) -> Vec<(String, String)> {
    let mut parts = Vec::new();
    for curve in &measures.radius {
        let norm = match curve.norm {
            Norm::Linf => "L∞",
            Norm::L2 => "L2",
        };
        let radius = |at: f64| format!("{at:.4}");
        let table = points(("radius", radius), &curve.points);
        parts.push((format!("accuracy against radius, {norm}"), table));
    }
    if !measures.steps.is_empty() {
        let table = points(("steps", |at: f64| at.to_string()), &measures.steps);
        parts.push(("accuracy against steps".to_owned(), table));
    }
    if !measures.corruptions.is_empty() {
        parts.push((
            "common corruptions, by severity".to_owned(),
            corruptions(measures),
        ));
    }
    if !measures.confusion.is_empty() && !measures.confusion_attacked.is_empty() {
        let table = confusion(measures, classes);
        parts.push(("by class".to_owned(), table));
    }
    if let Some(near) = &measures.neighbours {
        let rows = [
            cells(["clean", "attacked"]),
            vec![share(near.clean), share(near.attacked)],
        ];
        let what = format!("accuracy of {} nearest neighbours of features", near.k);
        parts.push((what, aligned(&rows)));
    }
    let both = [&measures.calibration, &measures.calibration_attacked];
    if let [Some(clean), Some(attacked)] = both {
        let rows = [
            cells(["clean", "attacked"]),
            vec![share(clean.error), share(attacked.error)],
        ];
        parts.push(("expected calibration error".to_owned(), aligned(&rows)));
    }
    parts
}

/// Two lines: where, and how much.
fn points((name, at): (&str, fn(f64) -> String), points: &[Point]) -> String {
    let line = |name: &str, value: &dyn Fn(&Point) -> String| {
        let start = [name.to_owned(), String::new()];
        start.into_iter().chain(points.iter().map(value)).collect()
    };
    aligned(&[
        line(name, &|point| at(point.at)),
        line("accuracy", &|point| share(point.accuracy)),
    ])
}

fn corruptions(measures: &Measures) -> String {
    let mut rows = vec![cells(["corruption", "", "1", "2", "3", "4", "5", "mean"])];
    let mut sums = [0.0; 6];
    for corrupted in &measures.corruptions {
        let accuracy = &corrupted.accuracy;
        let mean = accuracy.iter().sum::<f64>() / accuracy.len() as f64;
        let values = accuracy.iter().copied().chain([mean]);
        let mut row = vec![corrupted.kind.replace('_', " "), String::new()];
        for (value, sum) in values.zip(&mut sums) {
            row.push(share(value));
            *sum += value;
        }
        rows.push(row);
    }
    let count = measures.corruptions.len() as f64;
    let means = sums.iter().map(|sum| share(sum / count));
    let start = ["mean".to_owned(), String::new()];
    rows.push(start.into_iter().chain(means).collect());
    aligned(&rows)
}

/// How many of a class are right, and what most of the others are taken for; the whole matrix is in the JSON.
fn confusion(measures: &Measures, classes: &[String]) -> String {
    let mut rows = vec![cells(["class", "", "images", "clean", "", "attacked", ""])];
    for (class, name) in classes.iter().enumerate() {
        let mut row = vec![name.clone(), String::new()];
        for (table, first) in [
            (&measures.confusion, true),
            (&measures.confusion_attacked, false),
        ] {
            let said = &table[class];
            let images: usize = said.iter().sum();
            let others = (0..said.len()).filter(|&other| other != class && said[other] > 0);
            // The first of those that are said as often.
            let wrong = others.max_by_key(|&other| (said[other], std::cmp::Reverse(other)));
            row.extend(first.then(|| images.to_string()));
            row.push(percent(said[class], images));
            row.push(wrong.map_or(String::new(), |other| {
                format!("{} × {}", said[other], classes[other])
            }));
        }
        rows.push(row);
    }
    aligned(&rows)
}

fn transfer(transfer: &Transfer) -> String {
    let head = cells(["examples of", ""]).into_iter();
    let head = head.chain(transfer.classifiers.iter().cloned());
    let mut rows: Vec<Vec<String>> = vec![head.collect()];
    let none = ("none (clean)", &transfer.clean);
    let names = transfer.classifiers.iter().map(String::as_str);
    for (name, accuracy) in std::iter::once(none).chain(names.zip(&transfer.accuracy)) {
        let start = [name.to_owned(), String::new()].into_iter();
        rows.push(
            start
                .chain(accuracy.iter().map(|&value| share(value)))
                .collect(),
        );
    }
    let images = transfer.images;
    format!(
        "transfer, {images} images: accuracy of the columns' classifiers\n{}",
        aligned(&rows)
    )
}
