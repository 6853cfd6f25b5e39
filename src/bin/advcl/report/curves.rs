//! Accuracy against radius, steps, severity.

use advcl::attack::Norm;
use advcl::evaluate::measures::{Measures, Point};
use maud::{Markup, html};

use super::html::{figure, folded, legend, percent, with_range};
use super::model::{Measured, ReportPage, SectionBody};
use super::plots::{Axis, PlotPoint, STYLES, Series, lines};
use crate::format::{NONE, Table};

/// The quantity that accuracy is plotted against.
pub enum Against {
    /// Counts: steps, severities.
    Counts(&'static str),
    /// Radii in a norm.
    Radius(Norm),
}

impl Against {
    fn label(&self) -> String {
        match self {
            Self::Counts(label) => (*label).to_owned(),
            Self::Radius(norm) => format!("radius ({norm}), pixels"),
        }
    }

    fn axis(&self, values: impl Iterator<Item = f64>) -> Axis {
        match self {
            Self::Counts(label) => Axis::whole(label, values),
            Self::Radius(_) => Axis::around(&self.label(), values),
        }
    }
}

/// A plot of accuracies of several classifiers, with its legend and its table.
pub fn plot(caption: &str, against: &Against, all: &[Measured<Vec<Point>>]) -> Markup {
    let places = || {
        all.iter()
            .flat_map(|curve| curve.value.iter().map(|p| p.at))
    };
    // More cannot be distinguished; the table has them all.
    let drawn = || all.iter().take(STYLES);
    let series: Vec<Series> = drawn().map(series).collect();
    let words: Vec<String> = all.iter().filter_map(in_words).collect();
    let alt = format!("{caption}: {}.", words.join("; "));
    let svg = lines(
        &alt,
        against.axis(places()),
        Axis::share("accuracy"),
        &series,
    );
    let mut at: Vec<f64> = places().collect();
    at.sort_by(f64::total_cmp);
    at.dedup();
    let mut table = Table::new().right(against.label());
    for curve in all {
        table = table.right(format!("{}, {} images", curve.shown.label, curve.images));
    }
    for at in at {
        let mut cells = vec![short(at)];
        cells.extend(all.iter().map(|curve| {
            let found = curve.value.iter().find(|point| point.at == at);
            found.map_or(NONE.to_owned(), |p| with_range(p.accuracy, curve.images))
        }));
        table.row(cells);
    }
    let below = html! {
        (legend(drawn().map(|curve| (curve.style, curve.shown.label.as_str()))))
        @if all.len() > STYLES { p { "The first " (STYLES) " of " (all.len()) "; the table has them all." } }
        (folded(caption, &table))
    };
    let caption = html! { strong { (caption) } ", " (images(all)) "; lines: 95 % intervals" };
    figure(caption, svg, below)
}

/// The number of images of several measures.
pub fn images<T>(all: &[Measured<T>]) -> String {
    let counts = super::model::distinct(all.iter().map(|one| super::html::count(one.images)));
    format!("{} images", counts.join(" or "))
}

fn series(curve: &Measured<Vec<Point>>) -> Series {
    let point = |point: &Point| PlotPoint {
        x: point.at,
        y: point.accuracy,
        interval: Some((point.low, point.high)),
    };
    Series {
        style: Some(curve.style),
        points: curve.value.iter().map(point).collect(),
    }
}

fn in_words(curve: &Measured<Vec<Point>>) -> Option<String> {
    let (first, last) = (curve.value.first()?, curve.value.last()?);
    Some(format!(
        "{} from {} at {} to {} at {}",
        curve.shown.label,
        percent(first.accuracy),
        short(first.at),
        percent(last.accuracy),
        short(last.at)
    ))
}

/// A number with up to four digits.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The curves of every classifier that has some.
pub fn curves(report: &ReportPage) -> SectionBody {
    let mut figures = Vec::new();
    for norm in [Norm::Linf, Norm::L2] {
        let all = report.measured(|measures: &Measures| {
            let curve = measures.radius.iter().find(|curve| curve.norm == norm)?;
            Some((curve.points.first()?.images, curve.points.clone()))
        });
        if !all.is_empty() {
            let caption = format!("Accuracy against radius, {norm}");
            figures.push(plot(&caption, &Against::Radius(norm), &all));
        }
    }
    let steps = report.measured(|m| Some((m.steps.first()?.images, m.steps.clone())));
    if !steps.is_empty() {
        let caption = "Accuracy against steps of PGD";
        figures.push(plot(caption, &Against::Counts("steps"), &steps));
    }
    if figures.is_empty() {
        return Err(report.not_measured("radius,steps"));
    }
    Ok(html! {
        p { "One radius is one number; the curve shows how accuracy falls with it. It must reach 0 for a large radius and must not rise with more steps: "
            "otherwise the attack fails, which does not make the classifier robust." }
        div.grid { @for figure in figures { (figure) } }
    })
}
