//! Training curves.

use advcl::report::{Folder, Stage};
use anyhow::Result;
use maud::{Markup, html};

use super::SIDE_BY_SIDE;
use super::figures::folder_name;
use super::html::{figure, folded, legend};
use super::page::{Part, Report};
use super::plots::{Axis, Series, lines};
use advcl::{finetune, pretrain};

/// Rows of a table at most.
const ROWS: usize = 25;

/// Named values by epoch.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

pub fn curves(report: &Report) -> Result<Part> {
    let mut blocks = Vec::new();
    for folder in report.leads.iter().take(SIDE_BY_SIDE) {
        let figures = figures_of(folder)?;
        if !figures.is_empty() {
            blocks.push((folder, figures));
        }
    }
    if blocks.is_empty() {
        return Ok(Err((
            "the run's metrics.jsonl has no epochs".to_owned(),
            None,
        )));
    }
    Ok(Ok(html! {
        p { "Losses are means over each epoch, as the optimizer saw them: with views, attacks and all." }
        @if report.leads.len() > SIDE_BY_SIDE {
            p { "Shown for the first " (SIDE_BY_SIDE) " of " (report.leads.len()) " runs." }
        }
        @for (folder, figures) in blocks {
            @if report.leads.len() > 1 { h3 { (folder_name(folder)) } }
            div.grid { @for figure in figures { (figure) } }
        }
    }))
}

/// A plot a pretraining stage, one a finetuning mode, one of the probe.
fn figures_of(folder: &Folder) -> Result<Vec<Markup>> {
    let mut figures = Vec::new();
    let modes: Vec<&str> = folder
        .recipe
        .finetune
        .entries()
        .iter()
        .map(|e| e.name.as_str())
        .collect();
    let mode_of = |stage: &Stage| {
        let second = stage.name.split('/').nth(1)?;
        modes.iter().find(|mode| **mode == second).copied()
    };
    let (fitted, pretrained): (Vec<&Stage>, Vec<&Stage>) = folder
        .training
        .iter()
        .partition(|stage| mode_of(stage).is_some());
    for stage in &pretrained {
        let names = names(stage, |epoch| &epoch.losses);
        let all: Vec<Line> = names
            .into_iter()
            .map(|name| loss_line(stage, &name, name.clone()))
            .collect();
        let (method, part) = stage.name.split_once('/').unwrap_or((&stage.name, ""));
        let title = format!("{} {part}", pretrain::title(method));
        figures.extend(plot(title.trim(), "pretraining loss", false, &all)?);
    }
    for mode in modes.iter().copied() {
        let stages = fitted.iter().filter(|stage| mode_of(stage) == Some(mode));
        let line = |stage: &&Stage| {
            let mut parts = stage.name.split('/');
            let method = parts.next().map(pretrain::title).unwrap_or_default();
            let rest: Vec<&str> = parts.skip(1).collect();
            loss_line(
                stage,
                "loss",
                format!("{method} {}", rest.join(" ")).trim().to_owned(),
            )
        };
        let all: Vec<Line> = stages.map(line).collect();
        let title = format!("Finetuning by {}", finetune::title(mode));
        figures.extend(plot(&title, "loss", false, &all)?);
    }
    let probed = |stage: &&Stage| {
        let value = |epoch: &advcl::report::Epoch| find(&epoch.figures, "knn");
        Line {
            name: pretrain::title(&stage.name),
            points: stage
                .epochs
                .iter()
                .filter_map(|e| Some((e.epoch as f64, value(e)?)))
                .collect(),
        }
    };
    let probed: Vec<Line> = pretrained.iter().map(probed).collect();
    figures.extend(plot(
        "Nearest neighbours, held-out images",
        "accuracy",
        true,
        &probed,
    )?);
    Ok(figures)
}

type Named = Vec<(String, Option<f64>)>;

fn names(stage: &Stage, of: fn(&advcl::report::Epoch) -> &Named) -> Vec<String> {
    let last = stage.epochs.last();
    let mut names: Vec<String> = last.map_or(Vec::new(), |epoch| {
        of(epoch).iter().map(|(name, _)| name.clone()).collect()
    });
    // The whole before its parts.
    names.sort_by_key(|name| name != "loss");
    names
}

fn find(values: &Named, name: &str) -> Option<f64> {
    values.iter().find(|(other, _)| other == name)?.1
}

fn loss_line(stage: &Stage, loss: &str, name: String) -> Line {
    let point =
        |epoch: &advcl::report::Epoch| Some((epoch.epoch as f64, find(&epoch.losses, loss)?));
    Line {
        name,
        points: stage.epochs.iter().filter_map(point).collect(),
    }
}

/// None where there is nothing to draw.
fn plot(title: &str, y: &str, percent: bool, all: &[Line]) -> Result<Option<Markup>> {
    let all: Vec<&Line> = all.iter().filter(|line| !line.points.is_empty()).collect();
    if all.is_empty() {
        return Ok(None);
    }
    let points = || all.iter().flat_map(|line| line.points.iter());
    let x = Axis::whole("epoch", points().map(|point| point.0));
    let y = match percent {
        true => Axis::share(y),
        false => Axis::around(y, points().map(|point| point.1)),
    };
    let series: Vec<Series> = all
        .iter()
        .enumerate()
        .map(|(style, line)| Series {
            style: Some(style),
            points: line.points.clone(),
        })
        .collect();
    let words: Vec<String> = all
        .iter()
        .filter_map(|line| {
            let (first, last) = (line.points.first()?, line.points.last()?);
            Some(format!(
                "{} from {:.3} to {:.3}",
                line.name, first.1, last.1
            ))
        })
        .collect();
    let alt = format!("{title}, {} by epoch: {}.", y.label, words.join("; "));
    let svg = lines(&alt, &x, &y, &series)?;
    let mut epochs: Vec<f64> = points().map(|point| point.0).collect();
    epochs.sort_by(f64::total_cmp);
    epochs.dedup();
    let every = epochs.len().div_ceil(ROWS).max(1);
    let last = epochs.len() - 1;
    let shown = epochs
        .iter()
        .enumerate()
        .filter(|(i, _)| (last - i).is_multiple_of(every));
    let rows: Vec<Vec<String>> = shown
        .map(|(_, &epoch)| {
            let mut cells = vec![format!("{epoch}")];
            cells.extend(all.iter().map(|line| {
                let found = line.points.iter().find(|point| point.0 == epoch);
                found.map_or("–".to_owned(), |point| format!("{:.4}", point.1))
            }));
            cells
        })
        .collect();
    let mut head = vec!["epoch".to_owned()];
    head.extend(all.iter().map(|line| line.name.clone()));
    let below = html! {
        (legend(all.iter().enumerate().map(|(style, line)| (style, line.name.as_str()))))
        (folded(&format!("{title}, {}", y.label), &head, &rows))
    };
    Ok(Some(figure(html! { strong { (title) } }, svg, below)))
}
