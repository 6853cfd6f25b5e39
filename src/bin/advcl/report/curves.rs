//! Accuracy against radius, steps, severity.

use advcl::attack::Norm;
use advcl::evaluate::measures::{Curve, Measures, Point};
use anyhow::Result;
use maud::{Markup, html};

use super::figures::norm;
use super::html::{figure, folded, legend, percent};
use super::measured::{not_measured, with};
use super::page::{Part, Report};
use super::plots::{Axis, STYLES, Series, lines};

/// A line each.
pub struct Line<'a> {
    pub style: usize,
    pub name: &'a str,
    pub points: &'a [Point],
}

/// A plot of accuracies, with its legend and its table.
pub fn plot(caption: &str, x: &str, all: &[Line]) -> Result<Markup> {
    let places = all.iter().flat_map(|line| line.points.iter().map(|p| p.at));
    let axis = match x {
        "steps" | "severity" => Axis::whole(x, places),
        _ => Axis::around(x, places),
    };
    // More cannot be told apart; the table has them all.
    let drawn = || all.iter().take(STYLES);
    let series: Vec<Series> = drawn()
        .map(|line| Series {
            style: Some(line.style),
            points: line.points.iter().map(|p| (p.at, p.accuracy)).collect(),
        })
        .collect();
    let words: Vec<String> = all
        .iter()
        .filter_map(|line| {
            let (first, last) = (line.points.first()?, line.points.last()?);
            let (from, to) = (percent(first.accuracy), percent(last.accuracy));
            Some(format!(
                "{} from {from} at {} to {to} at {}",
                line.name,
                short(first.at),
                short(last.at)
            ))
        })
        .collect();
    let alt = format!("{caption}: {}.", words.join("; "));
    let svg = lines(&alt, &axis, &Axis::share("accuracy"), &series)?;
    let mut places: Vec<f64> = all
        .iter()
        .flat_map(|line| line.points.iter().map(|p| p.at))
        .collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let mut head = vec![x.to_owned()];
    head.extend(all.iter().map(|line| line.name.to_owned()));
    let row = |&at: &f64| {
        let mut cells = vec![short(at)];
        cells.extend(all.iter().map(|line| {
            let found = line.points.iter().find(|p| p.at == at);
            found.map_or("–".to_owned(), |p| percent(p.accuracy))
        }));
        cells
    };
    let rows: Vec<Vec<String>> = places.iter().map(row).collect();
    let below = html! {
        (legend(drawn().map(|line| (line.style, line.name))))
        @if all.len() > STYLES { p { "The first " (STYLES) " of " (all.len()) "; the table has them all." } }
        (folded(caption, &head, &rows))
    };
    Ok(figure(html! { strong { (caption) } }, svg, below))
}

/// Up to four digits.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub fn curves(report: &Report) -> Result<Part> {
    let mut figures = Vec::new();
    for kind in [Norm::Linf, Norm::L2] {
        let curve = |measures: &'_ Measures| -> Option<Curve> {
            measures
                .radius
                .iter()
                .find(|curve| curve.norm == kind)
                .cloned()
        };
        let all = with(report, curve);
        let all: Vec<Line> = all
            .iter()
            .map(|(style, shown, curve)| Line {
                style: *style,
                name: &shown.label,
                points: &curve.points,
            })
            .collect();
        if !all.is_empty() {
            let x = format!("radius ({}), pixels", norm(kind));
            figures.push(plot(
                &format!("Accuracy against radius, {}", norm(kind)),
                &x,
                &all,
            )?);
        }
    }
    let steps = with(report, |m| (!m.steps.is_empty()).then_some(&m.steps));
    let steps: Vec<Line> = steps
        .iter()
        .map(|(style, shown, points)| Line {
            style: *style,
            name: &shown.label,
            points,
        })
        .collect();
    if !steps.is_empty() {
        figures.push(plot("Accuracy against steps of PGD", "steps", &steps)?);
    }
    if figures.is_empty() {
        return Ok(Err(not_measured(report, "radius,steps")));
    }
    Ok(Ok(html! {
        p { "One radius is one number; the curve says how a classifier gives way. It must reach 0 for a large radius, and must not rise with more steps: "
            "otherwise the attack fails, not the classifier holds." }
        div.grid { @for figure in figures { (figure) } }
    }))
}
