//! Measures beside the curves: corruptions, an adversarial patch, certified accuracy, calibration, nearest neighbours, transfer.

use advcl::attack::Norm;
use advcl::evaluate::measures::{Calibration, Corrupted, Point};
use maud::{Markup, html};

use super::curves::{Against, images, plot};
use super::headline::title;
use super::html::{count, figure, folded, heat, heat_cell, legend, percent, table, with_range};
use super::model::{Measured, ReportPage, SectionBody};
use super::plots::{Axis, PlotPoint, Series, lines};
use crate::format::{NONE, Table};

/// Mean of values; 0 of none.
pub fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Accuracy on corrupted images.
pub fn corruptions(report: &ReportPage) -> SectionBody {
    let all = report.measured(|m| Some((m.corruptions.first()?.images, &m.corruptions)));
    if all.is_empty() {
        return Err(report.not_measured("corruptions"));
    }
    let means: Vec<Measured<Vec<Point>>> = all
        .iter()
        .map(|one| {
            // The same images in every kind: the ends of the intervals have the mean's error.
            let at = |severity: usize| Point {
                at: severity as f64 + 1.0,
                accuracy: mean(one.value.iter().map(|kind| kind.accuracy[severity])),
                images: one.value[0].images,
                low: mean(one.value.iter().map(|kind| kind.low[severity])),
                high: mean(one.value.iter().map(|kind| kind.high[severity])),
            };
            Measured {
                style: one.style,
                shown: one.shown,
                images: one.images,
                value: (0..5).map(at).collect(),
            }
        })
        .collect();
    let means = plot("Mean over the kinds", &Against::Counts("severity"), &means);
    Ok(html! {
        p { "Noise, blur, weather and digital damage in five severities (Hendrycks and Dietterich, ICLR 2019): accuracy without an attacker. "
            "Means over kinds are of the same images; the ends of their intervals are means, too." }
        div.pair {
            (means)
            @for one in &all { (corruption_table(one)) }
        }
    })
}

fn corruption_table(one: &Measured<&Vec<Corrupted>>) -> Markup {
    let caption = format!(
        "Accuracy in % by kind and severity, {}: {} images",
        one.shown.label,
        count(one.images)
    );
    html! {
        (heat(&caption, &html! {
                    thead { tr {
                        th scope="col" { "kind" }
                        @for severity in 1..=5 { th scope="col" { (severity) } }
                        th scope="col" { "mean" }
                    } }
                    tbody {
                        @for kind in one.value {
                            @let all = mean(kind.accuracy.iter().copied());
                            tr {
                                th scope="row" { (kind.kind.replace('_', " ")) }
                                @for accuracy in kind.accuracy.iter().chain([&all]) { (heat_cell(*accuracy, one.images, false)) }
                            }
                        }
                    }
        }))
    }
}

/// Accuracy under an adversarial patch.
pub fn patch(report: &ReportPage) -> SectionBody {
    let all = report.measured(|m| m.patch.map(|patch| (patch.clean.images, patch)));
    if all.is_empty() {
        return Err(report.not_measured("patch"));
    }
    let mut rows = Table::new()
        .left("classifier")
        .right("square")
        .right("places")
        .right("steps")
        .right("clean")
        .right("with the patch");
    for one in &all {
        let patch = &one.value;
        rows.row([
            one.shown.label.clone(),
            format!("{0} × {0}", patch.side),
            patch.places.to_string(),
            patch.steps.to_string(),
            with_range(patch.clean.share, one.images),
            with_range(patch.robust.share, one.images),
        ]);
    }
    Ok(html! {
        p { "A square whose pixels may take any value, chosen for each image at several random places (after Brown et al., 2017, and Rao et al., 2020). "
            "An image counts as long as no step at any place fools the classifier. Other places, or a stronger attack, may leave fewer." }
        (table(&format!("Accuracy under an adversarial patch, {}", images(&all)), &rows))
    })
}

/// Certified accuracy by randomised smoothing.
pub fn certified(report: &ReportPage) -> SectionBody {
    let all = report.measured(|m| {
        let certified = m.smoothing.as_ref()?;
        Some((certified.certificates.len(), certified))
    });
    if all.is_empty() {
        return Err(report.not_measured("smoothing"));
    }
    let mut rows = Table::new()
        .left("classifier")
        .right("noise σ")
        .right("samples")
        .right("α")
        .right("abstained")
        .right("accuracy when smoothed");
    for one in &all {
        let (settings, abstained) = (&one.value.settings, one.value.abstained);
        let smoothed = one.value.points.first();
        rows.row([
            one.shown.label.clone(),
            settings.sigma.to_string(),
            count(settings.samples),
            settings.alpha.to_string(),
            with_range(abstained as f64 / one.images.max(1) as f64, one.images),
            smoothed.map_or(NONE.to_owned(), |point| {
                with_range(point.accuracy, one.images)
            }),
        ]);
    }
    let curves = report.measured(|m| {
        let certified = m.smoothing.as_ref()?;
        Some((certified.certificates.len(), certified.points.clone()))
    });
    Ok(html! {
        p { "Randomised smoothing (Cohen, Rosenfeld and Kolter, ICML 2019): no attack, a proof. It is of the smoothed classifier, which names the class that "
            "is found most often under Gaussian noise: no change shorter than the radius changes it, but for a probability of α for each image. "
            "A network that was not trained on noisy images has small figures here; that does not show that it can be attacked." }
        div.grid { (plot("Certified accuracy against radius", &Against::Radius(Norm::L2), &curves)) }
        (table(&format!("Smoothed classifiers, {}", images(&all)), &rows))
    })
}

/// Confidence against accuracy, and nearest neighbours.
pub fn calibration(report: &ReportPage) -> SectionBody {
    let all = report.measured(|m| {
        let clean = m.calibration.as_ref()?;
        Some((clean.images, (clean, m.calibration_attacked.as_ref())))
    });
    if all.is_empty() {
        return Err(report.not_measured("calibration,features"));
    }
    let near = report.measured(|m| m.neighbours.map(|near| (near.images, near)));
    let mut neighbours = Table::new()
        .left("classifier")
        .right("neighbours")
        .right("clean")
        .right("under attack");
    for one in &near {
        neighbours.row([
            one.shown.label.clone(),
            one.value.k.to_string(),
            with_range(one.value.clean, one.images),
            with_range(one.value.attacked, one.images),
        ]);
    }
    Ok(html! {
        p { "Predicted probability against accuracy. On the thin diagonal both agree; below it, the classifier is too confident." }
        div.grid { @for one in &all { (reliability(one)) } }
        @if !neighbours.is_empty() {
            h3 { "How far the features move" }
            p { "Each image gets the class of most of its nearest training images in feature space, without the linear classifier." }
            (table(&format!("Accuracy of nearest neighbours, {}", images(&near)), &neighbours))
        }
    })
}

fn reliability(one: &Measured<(&Calibration, Option<&Calibration>)>) -> Markup {
    let corner = |at: f64| PlotPoint {
        x: at,
        y: at,
        interval: None,
    };
    let mut series = vec![Series {
        style: None,
        points: vec![corner(0.0), corner(1.0)],
    }];
    let mut names = Vec::new();
    let mut words = Vec::new();
    let mut table = Table::new()
        .left("images")
        .right("count")
        .right("confidence")
        .right("accuracy");
    let (clean, attacked) = one.value;
    let pairs = [(0, "clean", Some(clean)), (1, "under attack", attacked)];
    for (style, name, calibration) in pairs {
        let Some(calibration) = calibration else {
            continue;
        };
        let filled = || calibration.bins.iter().filter(|bin| bin.images > 0);
        let points = filled().map(|bin| PlotPoint {
            x: bin.confidence,
            y: bin.accuracy,
            interval: Some((bin.low, bin.high)),
        });
        series.push(Series {
            style: Some(style),
            points: points.collect(),
        });
        for bin in filled() {
            table.row([
                name.to_owned(),
                count(bin.images),
                percent(bin.confidence),
                with_range(bin.accuracy, bin.images),
            ]);
        }
        words.push(format!("{name} {}", percent(calibration.error)));
        names.push((style, name));
    }
    let (errors, label) = (words.join(", "), &one.shown.label);
    let alt =
        format!("Accuracy against confidence, {label}. Expected calibration error: {errors}.");
    let (x, y) = (Axis::share("confidence"), Axis::share("accuracy"));
    let svg = lines(&alt, x, y, &series);
    let caption = html! {
        strong { (label) } ": expected calibration error " (errors) "; " (count(one.images)) " images, lines: 95 % intervals of each bin"
    };
    let below = html! {
        (legend(names))
        (folded(&format!("confidence of {label}"), &table))
    };
    figure(caption, svg, below)
}

/// Adversarial examples of one classifier on the others.
pub fn transfer(report: &ReportPage) -> SectionBody {
    let all: Vec<_> = report
        .leads
        .iter()
        .filter_map(|run| Some((run, run.transfer.as_ref()?)))
        .collect();
    if all.is_empty() {
        return Err(report.not_measured("transfer"));
    }
    let name = |classifier: &str| match classifier.split_once('/') {
        Some((method, mode)) => title(method, mode),
        None => classifier.to_owned(),
    };
    Ok(html! {
        p { "Adversarial examples of one classifier, evaluated on the others. Where they fool another as well as that one's own do, its own attack was weak." }
        @for (run, transfer) in all {
            @let caption = format!("Accuracy in % of {}: {} images", run.name, count(transfer.images));
            (heat(&caption, &html! {
                        thead { tr {
                            th scope="col" { "made on \\ evaluated on" }
                            @for classifier in &transfer.classifiers { th scope="col" { (name(classifier)) } }
                        } }
                        tbody {
                            tr {
                                th scope="row" { "none (clean)" }
                                @for share in &transfer.clean { (heat_cell(*share, transfer.images, false)) }
                            }
                            @for (from, row) in transfer.classifiers.iter().zip(&transfer.accuracy) {
                                tr {
                                    th scope="row" { (name(from)) }
                                    @for (on, share) in transfer.classifiers.iter().zip(row) {
                                        (heat_cell(*share, transfer.images, on == from))
                                    }
                                }
                            }
                        }
            }))
        }
    })
}
