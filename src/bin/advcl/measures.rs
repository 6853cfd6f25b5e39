//! Measures beside accuracy and attacks, as text: every share with its 95 % interval.

use advcl::evaluate::measures::{Measures, Point, Transfer};
use advcl::experiment::Summary;
use advcl::interval::Interval;

use crate::format::{
    NONE, Table, brief_share, interval, percent, range, row_title, share, share_of,
};

/// A table of a measure: its title, the number of images, the table.
type MeasureTable = (String, usize, Table);

/// The tables of every measure, row by row, and the transfer between rows.
pub fn tables(summary: &Summary) -> Vec<String> {
    let mut tables = Vec::new();
    for outcome in &summary.outcomes {
        if let Some(measures) = &outcome.measures {
            let row = row_title(outcome);
            let parts = parts(measures, &outcome.classes).into_iter();
            tables.extend(parts.map(|(title, images, table)| {
                format!("{row}, {images} images: {title}\n{}", table.text())
            }));
        }
    }
    tables.extend(summary.transfer.as_ref().map(transfer));
    tables
}

/// The table of each measure, with the number of its images: it may have been taken with another limit than
/// its neighbours.
fn parts(measures: &Measures, classes: &[String]) -> Vec<MeasureTable> {
    let mut parts = Vec::new();
    let of_curve = |points: &[Point]| points.first().map_or(0, |point| point.images);
    let radius = |at: f64| format!("{at:.4}");
    for curve in &measures.radius {
        let title = format!("accuracy against radius, {}", curve.norm);
        let table = points(("radius", radius), &curve.points);
        parts.push((title, of_curve(&curve.points), table));
    }
    if !measures.steps.is_empty() {
        let title = "accuracy against steps".to_owned();
        let table = points(("steps", |at: f64| at.to_string()), &measures.steps);
        parts.push((title, of_curve(&measures.steps), table));
    }
    if let Some(first) = measures.corruptions.first() {
        let title = "accuracy in % under common corruptions, by severity".to_owned();
        parts.push((title, first.images, corruptions(measures)));
    }
    if let Some(patch) = &measures.patch {
        let (side, places, steps) = (patch.side, patch.places, patch.steps);
        let title = format!(
            "accuracy under an adversarial patch of {side} × {side} pixels, at {places} places, {steps} steps each"
        );
        let of = |part: &Interval| share_of(part.share, part.images);
        let table = clean_and_attacked(of(&patch.clean), of(&patch.robust));
        parts.push((title, patch.clean.images, table));
    }
    if let Some(certified) = &measures.smoothing {
        let (settings, abstained) = (&certified.settings, certified.abstained);
        let title = format!(
            "certified accuracy against radius, L2, of the classifier smoothed by noise of {}: {} samples, alpha {}, {abstained} images abstained from",
            settings.sigma, settings.samples, settings.alpha
        );
        let table = points(("radius", radius), &certified.points);
        parts.push((title, certified.certificates.len(), table));
    }
    let both = [&measures.confusion, &measures.confusion_attacked];
    if both.iter().all(|confusion| confusion.classes() > 0) {
        let images = measures.confusion.images();
        parts.push(("by class".to_owned(), images, confusion(measures, classes)));
    }
    if let Some(near) = &measures.neighbours {
        let title = format!("accuracy of {} nearest neighbours of features", near.k);
        let of = |accuracy: f64| share_of(accuracy, near.images);
        let table = clean_and_attacked(of(near.clean), of(near.attacked));
        parts.push((title, near.images, table));
    }
    let both = [&measures.calibration, &measures.calibration_attacked];
    if let [Some(clean), Some(attacked)] = both {
        let title = "expected calibration error".to_owned();
        let table = clean_and_attacked(percent(clean.error), percent(attacked.error));
        parts.push((title, clean.images, table));
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
fn points((name, at): (&str, fn(f64) -> String), points: &[Point]) -> Table {
    let mut table = Table::new().left("");
    for _ in points {
        table = table.right("");
    }
    let mut line = |name: &str, value: &dyn Fn(&Point) -> String| {
        table.row(std::iter::once(name.to_owned()).chain(points.iter().map(value)));
    };
    line(name, &|point| at(point.at));
    line("accuracy", &|point| percent(point.accuracy));
    let ends = |point: &Point| interval(point.accuracy, point.images);
    line("95 %", &|point| {
        ends(point).map_or(NONE.to_owned(), |ends| range(&ends))
    });
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
            row.push(brief_share(value, corrupted.images));
            *sum += value;
        }
        table.row(row);
    }
    let count = measures.corruptions.len() as f64;
    let images = measures.corruptions.first().map_or(0, |first| first.images);
    let means = sums.iter().map(|sum| brief_share(sum / count, images));
    table.row(std::iter::once("mean".to_owned()).chain(means));
    table
}

/// Accuracy of each class, and the class that is most often predicted instead. All pairs of classes
/// are in the JSON.
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
            let others = matrix.row(class).filter(|(other, _)| *other != class);
            // Of classes that are predicted equally often, the first.
            let most = others.max_by_key(|&(other, images)| (images, std::cmp::Reverse(other)));
            row.push(share(matrix.get(class, class), matrix.of_class(class)));
            row.push(most.map_or(String::new(), |(other, images)| {
                let name = classes.get(other).map_or("another", String::as_str);
                format!("{images} × {name}")
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
