//! What was measured beside the headline: curves, classes, corruptions, calibration, transfer.

use advcl::attack::Norm;
use advcl::evaluate::measures::{Calibration, Curve, Measures, Point};
use anyhow::{Result, anyhow};
use maud::{Markup, html};

use super::figures::norm;
use super::html::{count, figure, folded, legend, percent, table};
use super::page::{Part, Report};
use super::plots::{Axis, STYLES, Series, Whisker, lines, whiskers};
use super::{PICTURED, Shown, quoted};

/// Confusion of more classes than this is told by its most frequent cases.
const MATRIX: usize = 20;

fn not_measured(report: &Report, what: &str) -> (String, Option<String>) {
    let run = quoted(&report.leads[0].path);
    (
        "not measured yet".to_owned(),
        Some(format!("advcl evaluate {run} --measure {what}")),
    )
}

/// Those of which `part` was measured, with the number that is their style.
fn with<'a, T>(
    report: &'a Report,
    part: impl Fn(&'a Measures) -> Option<T>,
) -> Vec<(usize, &'a Shown<'a>, T)> {
    let all = report.shown.iter().enumerate();
    all.filter_map(|(style, shown)| {
        Some((style, shown, part(shown.row.outcome.measures.as_ref()?)?))
    })
    .collect()
}

/// A line each.
struct Line<'a> {
    style: usize,
    name: &'a str,
    points: &'a [Point],
}

/// A plot of accuracies, with its legend and its table.
fn plot(caption: &str, x: &str, all: &[Line]) -> Result<Markup> {
    let places = all.iter().flat_map(|line| line.points.iter().map(|p| p.at));
    let axis = match x {
        "steps" | "severity" => Axis::whole(x, places),
        _ => Axis::around(x, places),
    };
    let series: Vec<Series> = all
        .iter()
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
    let svg = lines(&alt, &axis, &Axis::share("accuracy"), &series).map_err(|e| anyhow!("{e}"))?;
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
        (legend(all.iter().map(|line| (line.style, line.name))))
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
    let svg = whiskers(&alt, &rows).map_err(|e| anyhow!("{e}"))?;
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
            let at = |severity: usize| Point {
                at: severity as f64 + 1.0,
                accuracy: mean(&mut kinds.iter().map(|kind| kind.accuracy[severity])),
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
            style: Some(style % STYLES),
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
    )
    .map_err(|e| anyhow!("{e}"))?;
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
        Some((method, mode)) => super::figures::title(method, mode),
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
