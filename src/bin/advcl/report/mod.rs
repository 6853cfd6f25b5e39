//! `advcl report`: what runs came to, as one page, or as tables for other programs.

mod accuracy;
mod classes;
mod comparisons;
mod curves;
mod headline;
mod html;
mod measured;
mod model;
mod page;
mod pictures;
mod plots;
mod png;
mod repeat;
mod tables;
mod training;
mod trust;
mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use advcl::compare::Comparison;
use advcl::data::is_own_page;
use advcl::files::check_output;
use advcl::pretrain::MethodSettings;
use advcl::report::{
    ReportData, ReportedComparison, ReportedRow, ReportedRun, choose, examples, feature_map,
    surface,
};
use advcl::session::{Context, Event};
use advcl::{Error, device, files, preview};
use anyhow::Result;

use crate::args::{self, ReportFormat, Shared};
use crate::output::{print_exactly, print_json};
use crate::progress::{Progress, print_status};
use crate::signals::{STOP, listen};
use headline::{HeadlineRow, headline, run_name};
use model::{Facts, PICTURED, Pictures, ReportPage, SIDE_BY_SIDE, ShownClassifier, ShownViews};
pub use page::live_page;
pub use training::panels as loss_panels;

/// Name of the page unless another is given; an existing file of this name is not overwritten.
const PAGE: &str = "report.html";
/// Bytes by which a report without pictures is recognized.
const HEAD: usize = 64;
/// Adversarial examples of each classifier.
const EXAMPLES: usize = 6;
/// Images on a map, at most.
const MAPPED: usize = 250;
/// Classes on a map: as many as there are colours.
const MAPPED_CLASSES: usize = plots::STYLES;
/// How far around an image its loss is shown, in radii.
const REACH: f64 = 2.0;

/// The runs and comparisons that are reported.
struct Reported {
    runs: Vec<ReportedRun>,
    comparisons: Vec<ReportedComparison>,
}

pub fn report(what: &args::Report, shared: &Shared) -> Result<()> {
    let reported = read(what, shared)?;
    let usual = if shared.json {
        ReportFormat::Json
    } else {
        ReportFormat::Html
    };
    let rows = headline(&reported.runs);
    let (runs, comparisons) = (&reported.runs, &reported.comparisons);
    let json = tables::ReportJson {
        lines: &rows,
        comparisons,
        runs,
    };
    let format = what.format.unwrap_or(usual);
    let page = (format == ReportFormat::Html).then_some(Path::new(PAGE));
    if let Some(path) = what.output.as_deref().or(page) {
        check_target(path, what, shared, &reported)?;
    }
    let text = match format {
        ReportFormat::Html => return write_page(what, shared, &reported, &rows),
        ReportFormat::Json => json.text()?,
        ReportFormat::Md => tables::markdown(&rows, comparisons, runs),
        ReportFormat::Csv => tables::csv(&rows),
    };
    match &what.output {
        Some(path) => Ok(files::write_output(path, text.as_bytes())?),
        None => print_exactly(&text),
    }
}

/// Refuses to replace a file that is no report of an earlier call: one of the runs and of their images always, any other one unless
/// it is to be replaced. A report is no input, even inside a run folder.
fn check_target(
    path: &Path,
    what: &args::Report,
    shared: &Shared,
    reported: &Reported,
) -> Result<()> {
    let runs = what.runs.iter().chain(&shared.run).map(PathBuf::as_path);
    let sources = reported.runs.iter().flat_map(|run| run.recipe.sources());
    let inputs: Vec<&Path> = runs.chain(sources.map(Path::new)).collect();
    match check_output(path, "-o", &inputs, what.replace) {
        Err(_) if is_earlier(path)? => Ok(()),
        checked => Ok(checked?),
    }
}

/// Whether a file is a report of an earlier call, in whatever format.
fn is_earlier(path: &Path) -> advcl::Result<bool> {
    if !path.is_file() {
        return Ok(false);
    }
    let head = files::beginning(path, HEAD)?;
    Ok(tables::is_report(&head) || is_own_page(path)?)
}

/// The name of a row's method or mode.
type NameOf = fn(&ReportedRow) -> &str;

/// Reads the named runs, and keeps the chosen rows.
fn read(what: &args::Report, shared: &Shared) -> Result<Reported> {
    let mut paths = what.runs.clone();
    if paths.is_empty() {
        paths.extend(shared.run.clone());
    }
    if paths.is_empty() {
        let hint = "name one: advcl report runs/quickstart";
        return Err(Error::run("(none named)", "a report is of a run folder", hint).into());
    }
    let (mut runs, mut comparisons) = (Vec::new(), Vec::new());
    for path in &paths {
        let (read, comparison) = advcl::report::read(path)?;
        runs.extend(read);
        comparisons.extend(comparison);
    }
    let (method, mode) = (what.method.as_deref(), what.mode.as_deref());
    let choices: [(Option<&str>, &str, NameOf); 2] = [
        (method, "method", |row| &row.outcome.method),
        (mode, "mode", |row| &row.outcome.finetuning),
    ];
    for (chosen, option, name_of) in choices {
        let Some(name) = chosen else { continue };
        let rows = runs.iter().flat_map(|run| &run.rows);
        let all: BTreeSet<&str> = rows.map(name_of).collect();
        if !all.contains(name) {
            let problem = format!("{name:?}: nothing of it was evaluated");
            let hint = advcl::error::nearest(name, all);
            return Err(Error::recipe(option, problem, hint).into());
        }
        for run in &mut runs {
            run.rows.retain(|row| name_of(row) == name);
        }
    }
    runs.retain(|run| !run.rows.is_empty());
    for reported in &mut comparisons {
        keep(&mut reported.comparison, method, mode);
    }
    Ok(Reported { runs, comparisons })
}

/// Keeps what concerns a method and a mode. The p-values stay corrected for all that were compared.
fn keep(comparison: &mut Comparison, method: Option<&str>, mode: Option<&str>) {
    let chosen = |name: &str, finetuning: &str| {
        method.is_none_or(|method| method == name) && mode.is_none_or(|mode| mode == finetuning)
    };
    comparison.rows.retain(|r| chosen(&r.method, &r.finetuning));
    comparison.checks = comparison.rows.iter().map(|row| row.checks).sum();
    let of_both = |name: &str| mode.is_none() && method.is_none_or(|method| method == name);
    comparison.gaps.retain(|gap| of_both(&gap.method));
    let differences = &mut comparison.differences;
    differences.retain(|d| chosen(&d.method, &d.finetuning));
    for findings in [&mut comparison.warnings, &mut comparison.not_checked] {
        findings.retain(|finding| chosen(&finding.method, &finding.finetuning));
    }
}

fn write_page(
    what: &args::Report,
    shared: &Shared,
    reported: &Reported,
    rows: &[HeadlineRow],
) -> Result<()> {
    let usual = PathBuf::from(PAGE);
    let path = what.output.as_ref().unwrap_or(&usual);
    if what.output.is_none() && path.exists() && !what.replace {
        let hint = format!("-o {PAGE} replaces it; another name leaves it");
        return Err(Error::data(PAGE, "a file of this name is there already", hint).into());
    }
    let device = device::open(&shared.device)?;
    listen()?;
    let mut progress = Progress::new(shared.quiet);
    let mut leads: Vec<&ReportedRun> = Vec::new();
    for run in &reported.runs {
        let seen = |other: &&ReportedRun| other.comparison == run.comparison;
        if run.comparison.is_none() || !leads.iter().any(seen) {
            leads.push(run);
        }
    }
    let mut opened = Vec::new();
    for run in &leads {
        opened.push(ReportData::open(run, &shared.set)?);
    }
    let facts = facts(&opened);
    let observe = |event: &Event| progress.on_event(event);
    let mut context = Context::new(device).stopped_by(&STOP).observed(observe);
    let (mut shown, mut views) = (Vec::new(), Vec::new());
    let mut compute = || -> Result<()> {
        for data in &opened {
            context.seed = data.run.recipe.seed;
            if views.len() < SIDE_BY_SIDE {
                views.extend(views_of(data, &context)?);
            }
            show(data, leads.len() > 1, &mut shown, &mut context)?;
        }
        Ok(())
    };
    let computed = compute();
    drop(context);
    progress.finish();
    computed?;
    let page = page::page(&ReportPage {
        runs: &reported.runs,
        comparisons: &reported.comparisons,
        leads: &leads,
        facts: &facts,
        rows,
        shown: &shown,
        views: &views,
    });
    files::write_output(path, page.as_bytes())?;
    if shared.json {
        return print_json(&path.to_string_lossy());
    }
    if !shared.quiet {
        let size = page.len().div_ceil(1000);
        print_status(&format!("report: {} ({size} kB)", path.display()));
    }
    Ok(())
}

/// The page of a run or a comparison so far, without what takes a model: pictures.
pub fn page_of_figures(path: &Path) -> advcl::Result<String> {
    let (runs, comparison) = advcl::report::read(path)?;
    let comparisons: Vec<ReportedComparison> = comparison.into_iter().collect();
    let leads: Vec<&ReportedRun> = runs.iter().take(1).collect();
    let rows = headline(&runs);
    let lead_rows = leads
        .iter()
        .flat_map(|run| run.rows.iter().map(move |row| (*run, row)));
    let shown: Vec<ShownClassifier> = lead_rows
        .map(|(run, row)| ShownClassifier {
            label: headline::title(&row.outcome.method, &row.outcome.finetuning),
            run,
            row,
            pictures: None,
            up_to_date: true,
        })
        .collect();
    Ok(page::page(&ReportPage {
        runs: &runs,
        comparisons: &comparisons,
        leads: &leads,
        facts: &Facts::default(),
        rows: &rows,
        shown: &shown,
        views: &[],
    }))
}

/// Counts the images of the runs.
fn facts(opened: &[ReportData]) -> Facts {
    let Some(first) = opened.first() else {
        return Facts::default();
    };
    let (target, held_out) = (first.data.target(), |data: &ReportData| {
        let held_out = data.data.held_out.as_ref();
        held_out.map_or(0, |split| split.images.len())
    });
    Facts {
        training: first.data.pretraining.train.images.len(),
        labeled: target.train.labels.len(),
        classes: first.data.judged.counts(target.classes.len()),
        held_out: opened.iter().map(held_out).collect(),
    }
}

/// Adds the run's folder to an interruption: nothing in it was changed.
fn at(run: &ReportedRun) -> impl Fn(Error) -> Error {
    |error| match error {
        Error::Interrupted { at, path } if path.as_os_str().is_empty() => Error::Interrupted {
            at,
            path: run.path.clone(),
        },
        other => other,
    }
}

/// Adds the classifiers of a run, the first ones with pictures.
fn show<'a>(
    data: &'a ReportData<'a>,
    several: bool,
    shown: &mut Vec<ShownClassifier<'a>>,
    context: &mut Context,
) -> Result<()> {
    let (run, judged) = (data.run, &data.data.judged);
    let classes = data.data.target().classes.len();
    // Pictures are of a classifier under the recipe's conditions, whatever else it was evaluated under.
    let pictured = shown
        .iter()
        .filter(|shown| shown.pictures.is_some())
        .count();
    let mut models = Vec::new();
    for row in firsts(&run.rows).take(PICTURED.saturating_sub(pictured)) {
        models.push(data.model(row, &context.device)?);
    }
    let all: Vec<_> = models.iter().collect();
    let chosen = choose(&all, judged, classes, EXAMPLES, context).map_err(at(run))?;
    let mapped = mapped(data, context.seed);
    let attack = data.attacker();
    let batch = run.recipe.evaluate.batch_size;
    let mut pictures = Vec::new();
    for model in &models {
        let around = chosen.first().filter(|_| attack.ball.radius > 0.0);
        pictures.push(Pictures {
            examples: examples(model, judged, &chosen, attack, context)?,
            map: feature_map(model, judged, &mapped, attack, batch, context).map_err(at(run))?,
            surface: around
                .map(|&index| surface(model, judged, index, (attack.ball, REACH), context))
                .transpose()
                .map_err(at(run))?,
        });
    }
    let mut pictures = pictures.into_iter();
    for (number, row) in run.rows.iter().enumerate() {
        let mut label = headline::title(&row.outcome.method, &row.outcome.finetuning);
        if several {
            label = format!("{}: {label}", run_name(run));
        }
        if !row.current {
            label += &format!(" ({})", headline::conditions(row));
        }
        let first = is_first(&run.rows, number);
        shown.push(ShownClassifier {
            label,
            run,
            row,
            pictures: first.then(|| pictures.next()).flatten(),
            up_to_date: data.up_to_date(row),
        });
    }
    Ok(())
}

/// Whether no earlier row is of the same classifier.
fn is_first(rows: &[ReportedRow], number: usize) -> bool {
    let same = |row: &ReportedRow| row.classifier == rows[number].classifier;
    !rows[..number].iter().any(same)
}

/// The first row of each classifier.
fn firsts(rows: &[ReportedRow]) -> impl Iterator<Item = &ReportedRow> {
    let numbered = rows.iter().enumerate();
    numbered.filter_map(move |(number, row)| is_first(rows, number).then_some(row))
}

/// Chooses images of the first classes, the same share of each.
fn mapped(data: &ReportData, seed: u64) -> Vec<usize> {
    let judged = &data.data.judged;
    let few: Vec<usize> = (0..judged.images.len())
        .filter(|&i| judged.labels[i] < MAPPED_CLASSES)
        .collect();
    if few.is_empty() {
        return few;
    }
    let classes = data.data.target().classes.len();
    let chosen = judged
        .select(&few)
        .limited(classes, MAPPED.min(few.len()), seed);
    chosen.into_iter().map(|at| few[at]).collect()
}

/// The views of AdvCL's pretraining; none for a recipe without it.
fn views_of<'a>(data: &ReportData<'a>, context: &Context) -> Result<Option<ShownViews<'a>>> {
    let run = data.run;
    let mut entries = run.recipe.pretrain.entries().iter();
    let advcl = entries.find(|entry| matches!(entry.settings.method, MethodSettings::AdvCl(_)));
    let Some(entry) = advcl else { return Ok(None) };
    let model = data.encoder(&entry.name, &context.device)?;
    let images = &data.data.pretraining;
    let rows = EXAMPLES.min(images.train.images.len());
    let columns = preview::views(images, &run.recipe, model.as_ref(), rows, &context.device)?;
    Ok(Some(ShownViews { run, columns }))
}
