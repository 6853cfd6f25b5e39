//! What was measured beside the headline: corruptions, calibration, transfer.

use advcl::evaluate::measures::{Calibration, Measures, Point};
use anyhow::Result;
use maud::{Markup, html};

use super::curves::{Line, plot};
use super::figures::title;
use super::html::{count, figure, folded, legend, percent, table};
use super::page::{Part, Report};
use super::plots::{Axis, Series, lines};
use super::{Shown, quoted};

/// Why a part is not there, and what makes it.
pub fn not_measured(report: &Report, what: &str) -> (String, Option<String>) {
    let run = quoted(&report.leads[0].path);
    (
        "not measured yet".to_owned(),
        Some(format!("advcl evaluate {run} --measure {what}")),
    )
}

/// Those of which `part` was measured, with the number that is their style.
pub fn with<'a, T>(
    report: &'a Report,
    part: impl Fn(&'a Measures) -> Option<T>,
) -> Vec<(usize, &'a Shown<'a>, T)> {
    let all = report.shown.iter().enumerate();
    all.filter_map(|(style, shown)| {
        Some((style, shown, part(shown.row.outcome.measures.as_ref()?)?))
    })
    .collect()
}

pub fn corruptions(report: &Report) -> Result<Part> {
    let all = with(report, |m| {
        (!m.corruptions.is_empty()).then_some(&m.corruptions)
    });
    if all.is_empty() {
        return Ok(Err(not_measured(report, "corruptions")));
    }
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let values: Vec<f64> = values.collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    };
    let points: Vec<Vec<Point>> = all
        .iter()
        .map(|(_, _, kinds)| {
            // The same images in every kind: the ends of the intervals have the mean's error.
            let at = |severity: usize| Point {
                at: severity as f64 + 1.0,
                accuracy: mean(&mut kinds.iter().map(|kind| kind.accuracy[severity])),
                images: kinds[0].images,
                low: mean(&mut kinds.iter().map(|kind| kind.low[severity])),
                high: mean(&mut kinds.iter().map(|kind| kind.high[severity])),
            };
            (0..5).map(at).collect()
        })
        .collect();
    let by_line = all.iter().zip(&points);
    let by_line: Vec<Line> = by_line
        .map(|((style, shown, _), points)| Line {
            style: *style,
            name: &shown.label,
            points,
        })
        .collect();
    let means = plot("Mean over the kinds", "severity", &by_line)?;
    Ok(Ok(html! {
        p { "Noise, blur, weather and digital damage in five severities (Hendrycks and Dietterich, ICLR 2019): what happens without an attacker." }
        div.pair {
            (means)
            @for (_, shown, kinds) in &all {
                figure {
                    div.scroll tabindex="0" role="region" aria-label={ "Corruptions, " (shown.label) } {
                        table.heat {
                            caption { "Accuracy by kind and severity, " (shown.label) }
                            thead { tr {
                                th scope="col" { "kind" }
                                @for severity in 1..=5 { th scope="col" { (severity) } }
                                th scope="col" { "mean" }
                            } }
                            tbody {
                                @for kind in kinds.iter() {
                                    @let all = mean(&mut kind.accuracy.iter().copied());
                                    tr {
                                        th scope="row" { (kind.kind.replace('_', " ")) }
                                        @for accuracy in kind.accuracy.iter().chain([&all]) {
                                            td style=(format!("--v:{accuracy:.2}")) { (format!("{:.1}", 100.0 * accuracy)) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }))
}

pub fn calibration(report: &Report) -> Result<Part> {
    let all = with(report, |m| {
        Some((m.calibration.as_ref()?, m.calibration_attacked.as_ref()))
    });
    if all.is_empty() {
        return Ok(Err(not_measured(report, "calibration,features")));
    }
    let mut figures = Vec::new();
    for (_, shown, (clean, attacked)) in &all {
        figures.push(reliability(shown, clean, *attacked)?);
    }
    let near = with(report, |m| m.neighbours);
    let head = ["classifier", "neighbours", "as they are", "under attack"].map(str::to_owned);
    let rows: Vec<Vec<String>> = near
        .iter()
        .map(|(_, shown, near)| {
            vec![
                shown.label.clone(),
                near.k.to_string(),
                percent(near.clean),
                percent(near.attacked),
            ]
        })
        .collect();
    Ok(Ok(html! {
        p { "How sure a classifier is, against how often it is right. On the thin diagonal both agree; below it, it is too sure of itself." }
        div.grid { @for figure in figures { (figure) } }
        @if !rows.is_empty() {
            h3 { "How far the features move" }
            p { "The class of most of the nearest training images, by features alone: without the classifier." }
            (table("Accuracy of nearest neighbours", &head, &rows))
        }
    }))
}

fn reliability(
    shown: &Shown,
    clean: &Calibration,
    attacked: Option<&Calibration>,
) -> Result<Markup> {
    let mut series = vec![Series {
        style: None,
        points: vec![(0.0, 0.0), (1.0, 1.0)],
    }];
    let mut names = Vec::new();
    let mut words = Vec::new();
    let mut rows = Vec::new();
    let pairs = [
        (0, "as they are", Some(clean)),
        (1, "under attack", attacked),
    ];
    for (style, name, calibration) in pairs {
        let Some(calibration) = calibration else {
            continue;
        };
        let filled = calibration.bins.iter().filter(|bin| bin.images > 0);
        let points = filled
            .clone()
            .map(|bin| (bin.confidence, bin.accuracy))
            .collect();
        series.push(Series {
            style: Some(style),
            points,
        });
        rows.extend(filled.map(|bin| {
            let (sure, right) = (percent(bin.confidence), percent(bin.accuracy));
            vec![name.to_owned(), count(bin.images), sure, right]
        }));
        words.push(format!("{name} {}", percent(calibration.error)));
        names.push((style, name));
    }
    let errors = words.join(", ");
    let alt = format!(
        "Accuracy against confidence, {}. Expected calibration error: {errors}.",
        shown.label
    );
    let svg = lines(
        &alt,
        &Axis::share("confidence"),
        &Axis::share("accuracy"),
        &series,
    )?;
    let head = ["images", "count", "confidence", "accuracy"].map(str::to_owned);
    let caption = html! { strong { (shown.label) } ": expected calibration error " (errors) };
    let below = html! {
        (legend(names))
        (folded(&format!("confidence of {}", shown.label), &head, &rows))
    };
    Ok(figure(caption, svg, below))
}

pub fn transfer(report: &Report) -> Part {
    let all: Vec<_> = report
        .leads
        .iter()
        .filter_map(|folder| Some((folder, folder.transfer.as_ref()?)))
        .collect();
    if all.is_empty() {
        return Err(not_measured(report, "transfer"));
    }
    let name = |classifier: &str| match classifier.split_once('/') {
        Some((method, mode)) => title(method, mode),
        None => classifier.to_owned(),
    };
    Ok(html! {
        p { "Adversarial examples of one classifier, shown to the others. Where they fool another as well as its own do, its own attack was weak." }
        @for (folder, transfer) in all {
            @let caption = format!("Accuracy of {}: {} images", folder.name, count(transfer.images));
            figure {
                div.scroll tabindex="0" role="region" aria-label=(caption) {
                    table.heat {
                        caption { (caption) }
                        thead { tr {
                            th scope="col" { "made on \\ shown to" }
                            @for who in &transfer.classifiers { th scope="col" { (name(who)) } }
                        } }
                        tbody {
                            tr {
                                th scope="row" { "none: as they are" }
                                @for share in &transfer.clean { td style=(format!("--v:{share:.2}")) { (percent(*share)) } }
                            }
                            @for (from, row) in transfer.classifiers.iter().zip(&transfer.accuracy) {
                                tr {
                                    th scope="row" { (name(from)) }
                                    @for (who, share) in transfer.classifiers.iter().zip(row) {
                                        td.own[who == from] style=(format!("--v:{share:.2}")) { (percent(*share)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    })
}
