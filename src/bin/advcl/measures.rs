//! Measures beside accuracy and attacks, as text: every share with its 95 % interval.

use advcl::evaluate::measures::{Measures, Point, Transfer};
use advcl::experiment::Summary;

use crate::format::{NONE, Table, brief_share, interval, percent, range, row_title, share};

/// The tables of every measure, row by row, and the transfer between rows.
pub fn tables(summary: &Summary) -> Vec<String> {
    let mut tables = Vec::new();
    for outcome in &summary.outcomes {
        if let Some(measures) = &outcome.measures {
            let of = format!("{}, {} images", row_title(outcome), measures.images);
            let parts = parts(measures, &summary.classes).into_iter();
            tables.extend(parts.map(|(title, table)| format!("{of}: {title}\n{}", table.text())));
        }
    }
    tables.extend(summary.transfer.as_ref().map(transfer));
    tables
}

/// The title and the table of each measure.
fn parts(measures: &Measures, classes: &[String]) -> Vec<(String, Table)> {
    let images = measures.images;
    let mut parts = Vec::new();
    for curve in &measures.radius {
        let radius = |at: f64| format!("{at:.4}");
        let table = points(("radius", radius), &curve.points, images);
        parts.push((format!("accuracy against radius, {}", curve.norm), table));
    }
    if !measures.steps.is_empty() {
        let steps = |at: f64| at.to_string();
        let table = points(("steps", steps), &measures.steps, images);
        parts.push(("accuracy against steps".to_owned(), table));
    }
    if !measures.corruptions.is_empty() {
        parts.push((
            "accuracy in % under common corruptions, by severity".to_owned(),
            corruptions(measures),
        ));
    }
    if !measures.confusion.is_empty() && !measures.confusion_attacked.is_empty() {
        let table = confusion(measures, classes);
        parts.push(("by class".to_owned(), table));
    }
    if let Some(near) = &measures.neighbours {
        let title = format!("accuracy of {} nearest neighbours of features", near.k);
        let hits = |accuracy: f64| (accuracy * images as f64).round() as usize;
        let of = |accuracy: f64| share(hits(accuracy), images);
        parts.push((title, clean_and_attacked(of(near.clean), of(near.attacked))));
    }
    let both = [&measures.calibration, &measures.calibration_attacked];
    if let [Some(clean), Some(attacked)] = both {
        let table = clean_and_attacked(percent(clean.error), percent(attacked.error));
        parts.push(("expected calibration error".to_owned(), table));
    }
    parts
}

/// The same figure for clean and for adversarial images.
fn clean_and_attacked(clean: String, attacked: String) -> Table {
    let mut table = Table::new().right("clean").right("attacked");
    table.row([clean, attacked]);
    table
}

/// Accuracy at each point of a curve, and its interval below.
fn points((name, at): (&str, fn(f64) -> String), points: &[Point], images: usize) -> Table {
    let mut table = Table::new().left("");
    for _ in points {
        table = table.right("");
    }
    let mut line = |name: &str, value: &dyn Fn(&Point) -> String| {
        table.row(std::iter::once(name.to_owned()).chain(points.iter().map(value)));
    };
    line(name, &|point| at(point.at));
    line("accuracy", &|point| percent(point.accuracy));
    let ends = |point: &Point| interval(point.accuracy, images).as_ref().map(range);
    line("95 %", &|point| ends(point).unwrap_or(NONE.to_owned()));
    table
}

/// Accuracy by kind and severity. Means over kinds are of the same images; the interval that is
/// given for them is that of as many images, which is conservative.
fn corruptions(measures: &Measures) -> Table {
    let mut table = Table::new().left("corruption");
    for head in ["1", "2", "3", "4", "5", "mean"] {
        table = table.right(head);
    }
    let mut sums = [0.0; 6];
    for corrupted in &measures.corruptions {
        let accuracy = &corrupted.accuracy;
        let mean = accuracy.iter().sum::<f64>() / accuracy.len() as f64;
        let values = accuracy.iter().copied().chain([mean]);
        let mut row = vec![corrupted.kind.replace('_', " ")];
        for (value, sum) in values.zip(&mut sums) {
            row.push(brief_share(value, measures.images));
            *sum += value;
        }
        table.row(row);
    }
    let count = measures.corruptions.len() as f64;
    let means = sums
        .iter()
        .map(|sum| brief_share(sum / count, measures.images));
    table.row(std::iter::once("mean".to_owned()).chain(means));
    table
}

/// Accuracy of each class, and the class that is most often predicted instead. The whole matrix is
/// in the JSON.
fn confusion(measures: &Measures, classes: &[String]) -> Table {
    let mut table = Table::new()
        .left("class")
        .right("clean")
        .left("most often instead")
        .right("attacked")
        .left("most often instead");
    for (class, name) in classes.iter().enumerate() {
        let mut row = vec![name.clone()];
        for matrix in [&measures.confusion, &measures.confusion_attacked] {
            let predicted = &matrix[class];
            let wrong = |other: &usize| *other != class && predicted[*other] > 0;
            let others = (0..predicted.len()).filter(wrong);
            // Of classes that are predicted equally often, the first.
            let most = others.max_by_key(|&other| (predicted[other], std::cmp::Reverse(other)));
            row.push(share(predicted[class], predicted.iter().sum()));
            row.push(most.map_or(String::new(), |other| {
                format!("{} × {}", predicted[other], classes[other])
            }));
        }
        table.row(row);
    }
    table
}

fn transfer(transfer: &Transfer) -> String {
    let mut table = Table::new().left("examples of");
    for name in &transfer.classifiers {
        table = table.right(name);
    }
    let none = ("none (clean)", &transfer.clean);
    let names = transfer.classifiers.iter().map(String::as_str);
    for (name, accuracy) in std::iter::once(none).chain(names.zip(&transfer.accuracy)) {
        let shares = accuracy
            .iter()
            .map(|&value| brief_share(value, transfer.images));
        table.row(std::iter::once(name.to_owned()).chain(shares));
    }
    format!(
        "transfer, {} images: accuracy in % of the columns' classifiers\n{}",
        transfer.images,
        table.text()
    )
}
