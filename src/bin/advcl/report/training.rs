//! Training curves.

use advcl::loss::BASE_TEMPERATURE;
use advcl::report::{LoggedEpoch, ReportedRun, TrainingStage};
use advcl::{finetune, pretrain};
use maud::{Markup, html};

use super::headline::run_name;
use super::html::{figure, folded, legend};
use super::model::{Missing, ReportPage, SIDE_BY_SIDE, SectionBody};
use super::plots::{Axis, PlotPoint, Series, lines};
use crate::format::{NONE, Table, interval};

/// Rows of a table, at most.
const ROWS: usize = 25;

/// Named values by epoch.
struct TrainingCurve {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The quantity on a plot's vertical axis.
enum CurveAxis {
    /// A loss, by its name.
    Loss(&'static str),
    /// An accuracy on so many images, where they were counted.
    Accuracy(Option<usize>),
}

/// The training curves of the first runs.
pub fn curves(report: &ReportPage) -> SectionBody {
    let runs = report.leads.iter().take(SIDE_BY_SIDE).enumerate();
    let mut blocks: Vec<_> = runs
        .map(|(place, run)| {
            let held_out = report.facts.held_out.get(place);
            (run, figures_of(run, held_out.copied()))
        })
        .collect();
    blocks.retain(|(_, figures)| !figures.is_empty());
    if blocks.is_empty() {
        return Err(Missing::because("the run's metrics.jsonl has no epochs"));
    }
    Ok(html! {
        p { "Losses are means over each epoch, of the augmented and attacked images that the optimizer saw." }
        @if let Some(temperature) = temperature(report) {
            p { "Contrastive losses are in nats times temperature / " (BASE_TEMPERATURE) ", as in AdvCL's released code: times "
                (format!("{:.1}", temperature / BASE_TEMPERATURE)) " at a temperature of " (temperature)
                ". They do not fall to 0, since other images are never perfectly far away, and those of different methods cannot be compared." }
        }
        @if report.leads.len() > SIDE_BY_SIDE {
            p { "Shown for the first " (SIDE_BY_SIDE) " of " (report.leads.len()) " runs." }
        }
        @for (run, figures) in blocks {
            @if report.leads.len() > 1 { h3 { (run_name(run)) } }
            div.grid { @for figure in figures { (figure) } }
        }
    })
}

/// The first temperature of a contrastive loss.
fn temperature(report: &ReportPage) -> Option<f64> {
    let mut entries = report
        .leads
        .iter()
        .flat_map(|run| run.recipe.pretrain.entries());
    entries.find_map(|entry| entry.temperature())
}

/// A plot for each pretraining stage and each finetuning mode, and one of the probe.
fn figures_of(run: &ReportedRun, held_out: Option<usize>) -> Vec<Markup> {
    let mut figures = Vec::new();
    let entries = run.recipe.finetune.entries();
    let mode_of = |stage: &TrainingStage| {
        let mode = stage.parts.first()?;
        entries
            .iter()
            .map(|entry| &entry.name)
            .find(|name| *name == mode)
    };
    let (finetuned, pretrained): (Vec<&TrainingStage>, Vec<&TrainingStage>) = run
        .training
        .iter()
        .partition(|stage| mode_of(stage).is_some());
    for stage in &pretrained {
        figures.extend(panels(stage));
    }
    for entry in entries {
        let stages = finetuned
            .iter()
            .filter(|stage| mode_of(stage) == Some(&entry.name));
        let all: Vec<TrainingCurve> = stages
            .map(|stage| loss_curve(stage, "loss", named(stage, &stage.parts[1..])))
            .collect();
        let title = format!("Finetuning by {}", finetune::title(&entry.name));
        figures.extend(plot(&title, CurveAxis::Loss("loss"), &all));
    }
    let probed = |stage: &&TrainingStage| {
        let value = |epoch: &LoggedEpoch| find(&epoch.figures, "knn");
        TrainingCurve {
            name: pretrain::title(&stage.name),
            points: stage
                .epochs
                .iter()
                .filter_map(|e| Some((e.epoch as f64, value(e)?)))
                .collect(),
        }
    };
    let probed: Vec<TrainingCurve> = pretrained.iter().map(probed).collect();
    let title = match held_out {
        Some(images) => format!("Nearest neighbours, {images} held-out images, 95 % intervals"),
        None => "Nearest neighbours, held-out images".to_owned(),
    };
    figures.extend(plot(&title, CurveAxis::Accuracy(held_out), &probed));
    figures
}

/// A plot for each loss of a stage: a total and its largest part would lie on each other.
pub fn panels(stage: &TrainingStage) -> Vec<Markup> {
    let names = loss_names(stage);
    let title = named(stage, &stage.parts);
    let panel = |name: &String| {
        let title = match names.len() {
            1 => title.clone(),
            _ => format!("{title}: {name}"),
        };
        let curve = [loss_curve(stage, name, name.clone())];
        plot(&title, CurveAxis::Loss("loss"), &curve)
    };
    names.iter().filter_map(panel).collect()
}

/// The method's title with parts of the stage's name.
fn named(stage: &TrainingStage, parts: &[String]) -> String {
    let title = pretrain::title(&stage.method);
    format!("{title} {}", parts.join(" ")).trim().to_owned()
}

/// The losses of a stage, the total first.
fn loss_names(stage: &TrainingStage) -> Vec<String> {
    let last = stage.epochs.last();
    let losses = last.map_or(&[][..], |epoch| &epoch.losses[..]);
    let mut names: Vec<String> = losses.iter().map(|(name, _)| name.clone()).collect();
    names.sort_by_key(|name| name != "loss");
    names
}

fn find(values: &[(String, Option<f64>)], name: &str) -> Option<f64> {
    values.iter().find(|(other, _)| other == name)?.1
}

fn loss_curve(stage: &TrainingStage, loss: &str, name: String) -> TrainingCurve {
    let point = |epoch: &LoggedEpoch| Some((epoch.epoch as f64, find(&epoch.losses, loss)?));
    TrainingCurve {
        name,
        points: stage.epochs.iter().filter_map(point).collect(),
    }
}

/// A plot with its table; none where there is nothing to draw.
fn plot(title: &str, measures: CurveAxis, all: &[TrainingCurve]) -> Option<Markup> {
    let all: Vec<&TrainingCurve> = all
        .iter()
        .filter(|curve| !curve.points.is_empty())
        .collect();
    if all.is_empty() {
        return None;
    }
    let points = || all.iter().flat_map(|curve| curve.points.iter());
    let x = Axis::whole("epoch", points().map(|point| point.0));
    let y = match measures {
        CurveAxis::Accuracy(_) => Axis::share("accuracy"),
        CurveAxis::Loss(name) => Axis::around(name, points().map(|point| point.1)),
    };
    let series = all.iter().enumerate().map(|(style, curve)| {
        let point = |&(x, y): &(f64, f64)| PlotPoint {
            x,
            y,
            interval: match measures {
                CurveAxis::Accuracy(Some(images)) => {
                    interval(y, images).map(|ends| (ends.low, ends.high))
                }
                CurveAxis::Accuracy(None) | CurveAxis::Loss(_) => None,
            },
        };
        Series {
            style: Some(style),
            points: curve.points.iter().map(point).collect(),
        }
    });
    let series: Vec<Series> = series.collect();
    let words = all.iter().filter_map(|curve| {
        let (first, last) = (curve.points.first()?, curve.points.last()?);
        Some(format!(
            "{} from {:.3} to {:.3}",
            curve.name, first.1, last.1
        ))
    });
    let words: Vec<String> = words.collect();
    let alt = format!("{title}, {} by epoch: {}.", y.label, words.join("; "));
    let of = format!("{title}, {}", y.label);
    let svg = lines(&alt, x, y, &series);
    let names = all.iter().enumerate();
    let below = html! {
        @if all.len() > 1 { (legend(names.map(|(style, curve)| (style, curve.name.as_str())))) }
        (folded(&of, &curve_table(&all)))
    };
    Some(figure(html! { strong { (title) } }, svg, below))
}

/// A row for each epoch; of many epochs, every n-th up to the last.
fn curve_table(all: &[&TrainingCurve]) -> Table {
    let points = all.iter().flat_map(|curve| curve.points.iter());
    let mut epochs: Vec<f64> = points.map(|point| point.0).collect();
    epochs.sort_by(f64::total_cmp);
    epochs.dedup();
    let every = epochs.len().div_ceil(ROWS).max(1);
    let last = epochs.len().saturating_sub(1);
    let mut table = Table::new().right("epoch");
    for curve in all {
        table = table.right(&curve.name);
    }
    let shown = epochs.iter().enumerate();
    for (_, &epoch) in shown.filter(|(i, _)| (last - i).is_multiple_of(every)) {
        let mut cells = vec![format!("{epoch}")];
        cells.extend(all.iter().map(|curve| {
            let found = curve.points.iter().find(|point| point.0 == epoch);
            found.map_or(NONE.to_owned(), |point| format!("{:.4}", point.1))
        }));
        table.row(cells);
    }
    table
}
