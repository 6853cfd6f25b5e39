//! `advcl report`: what runs came to, as one page, or as tables for other programs.

mod accuracy;
mod classes;
mod curves;
mod figures;
mod html;
mod measured;
mod page;
mod pictures;
mod plots;
mod repeat;
mod training;
mod trust;
mod words;

use std::path::{Path, PathBuf};

use advcl::data::Batch;
use advcl::evaluate::soundness::Soundness;
use advcl::pretrain::Settings;
use advcl::report::{
    Example, FeatureMap, Folder, Gallery, Row, Surface, choose, examples, feature_map, surface,
};
use advcl::run::Model;
use advcl::session::{Context, Event};
use advcl::{Error, device, files, inspect};
use anyhow::Result;

use crate::args::{self, ReportFormat, Shared};
use crate::commands::{STOP, listen, print, print_json};
use crate::progress::{Progress, talk};

/// Where the page goes unless it is named; nothing is overwritten there.
const PAGE: &str = "report.html";
/// Classifiers that are shown with pictures: each takes its time and its part of the page.
const PICTURED: usize = 6;
/// Runs whose views and curves are shown.
const SIDE_BY_SIDE: usize = 4;
/// Attacked images of each.
const EXAMPLES: usize = 6;
/// Images on a map.
const MAPPED: usize = 250;
/// Classes on a map: as many as there are colours.
const MAPPED_CLASSES: usize = plots::STYLES;
/// How far around an image its loss is shown, in radii.
const REACH: f64 = 2.0;

/// A classifier that is shown.
pub struct Shown<'a> {
    /// "AdvCL · SLF", with the run before it where there are several.
    pub label: String,
    /// Its run.
    pub folder: &'a Folder,
    /// Its figures.
    pub row: &'a Row,
    /// In label order; none where they are not known.
    pub classes: &'a [String],
    /// Of the first classifiers only.
    pub pictures: Option<Pictures>,
    /// Whether its figures were measured with the recipe as it is.
    pub up_to_date: bool,
}

impl Shown<'_> {
    /// The class's name, or its number.
    pub fn class(&self, label: usize) -> String {
        self.classes
            .get(label)
            .map_or_else(|| format!("class {label}"), String::clone)
    }

    /// The checks of its evaluation.
    pub fn soundness(&self) -> Option<&Soundness> {
        self.row.outcome.soundness.as_ref()
    }
}

/// What is computed from a classifier.
pub struct Pictures {
    pub examples: Vec<Example>,
    pub map: Option<FeatureMap>,
    pub surface: Option<Surface>,
}

/// The views of a run's pretraining.
pub struct Views<'a> {
    pub folder: &'a Folder,
    pub columns: Vec<(&'static str, Batch)>,
}

pub fn report(what: &args::Report, shared: &Shared) -> Result<()> {
    let folders = read(what, shared)?;
    let format = what.format.unwrap_or(match shared.json {
        true => ReportFormat::Json,
        false => ReportFormat::Html,
    });
    let lines = figures::lines(&folders);
    let text = match format {
        ReportFormat::Html => return write_page(what, shared, &folders, &lines),
        ReportFormat::Json if what.output.is_none() => {
            return print_json(&words::Json {
                lines: &lines,
                runs: &folders,
            });
        }
        ReportFormat::Json => words::json(&lines, &folders)?,
        ReportFormat::Md => words::markdown(&lines, &folders),
        ReportFormat::Csv => words::csv(&lines),
    };
    match &what.output {
        Some(path) => Ok(files::write_atomic(path, text.as_bytes())?),
        None => print(&text),
    }
}

/// The runs that are meant, with the rows that are meant.
fn read(what: &args::Report, shared: &Shared) -> Result<Vec<Folder>> {
    let mut paths = what.runs.clone();
    if paths.is_empty() {
        paths.extend(shared.run.clone());
    }
    if paths.is_empty() {
        let hint = "name one: advcl report runs/quickstart";
        return Err(Error::run("", "a report is of a run folder", hint).into());
    }
    let mut folders = Vec::new();
    for path in &paths {
        folders.extend(Folder::read(path)?);
    }
    for (chosen, table) in [(&what.method, "method"), (&what.mode, "mode")] {
        let Some(name) = chosen else { continue };
        let of = |row: &Row| match table {
            "method" => row.outcome.method.clone(),
            _ => row.outcome.finetuning.clone(),
        };
        let all: Vec<String> = folders
            .iter()
            .flat_map(|folder| folder.rows.iter().map(of))
            .collect();
        if !all.contains(name) {
            let problem = format!("{name:?}: nothing of it was evaluated");
            let hint = advcl::error::nearest(name, all.iter().map(String::as_str));
            return Err(Error::recipe(table, problem, hint).into());
        }
        folders
            .iter_mut()
            .for_each(|folder| folder.rows.retain(|row| of(row) == *name));
    }
    folders.retain(|folder| !folder.rows.is_empty());
    Ok(folders)
}

fn write_page(
    what: &args::Report,
    shared: &Shared,
    folders: &[Folder],
    lines: &[figures::Line],
) -> Result<()> {
    let usual = PathBuf::from(PAGE);
    let path = what.output.as_ref().unwrap_or(&usual);
    if what.output.is_none() && path.exists() {
        let hint = format!("-o {PAGE} replaces it; another name leaves it");
        return Err(Error::data(PAGE, "a file of this name is there already", hint).into());
    }
    let device = device::open(&shared.device)?;
    listen()?;
    let mut progress = Progress::new(shared.quiet);
    let mut observe = |event: &Event| progress.hear(event);
    // Of a comparison, the first seed stands for all in pictures and curves.
    let mut leads: Vec<&Folder> = Vec::new();
    for folder in folders {
        let seen = |other: &&Folder| other.comparison == folder.comparison;
        if folder.comparison.is_none() || !leads.iter().any(seen) {
            leads.push(folder);
        }
    }
    let mut galleries = Vec::new();
    for folder in &leads {
        galleries.push(Gallery::open(folder, &shared.set)?);
    }
    let mut context = Context {
        device,
        seed: 0,
        precision: shared.precision(),
        stop: &STOP,
        observe: &mut observe,
    };
    let (mut shown, mut views) = (Vec::new(), Vec::new());
    let mut look = || -> Result<()> {
        for gallery in &galleries {
            context.seed = gallery.folder.recipe.seed;
            if views.len() < SIDE_BY_SIDE {
                views.extend(views_of(gallery, &context)?);
            }
            show(gallery, leads.len() > 1, &mut shown, &mut context)?;
        }
        Ok(())
    };
    let looked = look();
    progress.finish();
    looked?;
    let page = page::page(&page::Report {
        folders,
        leads: &leads,
        lines,
        shown: &shown,
        views: &views,
    })?;
    files::write_atomic(path, page.as_bytes())?;
    if shared.json {
        return print_json(&path);
    }
    if !shared.quiet {
        let size = page.len().div_ceil(1000);
        talk(&format!("report: {} ({size} kB)", path.display()));
    }
    Ok(())
}

/// Says where the run is, of which nothing is lost.
fn at(folder: &Folder) -> impl Fn(Error) -> Error {
    |error| match error {
        Error::Interrupted { at, path } if path.as_os_str().is_empty() => Error::Interrupted {
            at,
            path: folder.path.clone(),
        },
        other => other,
    }
}

/// The classifiers of a run; with pictures as long as there are few.
fn show<'a>(
    gallery: &'a Gallery<'a>,
    several: bool,
    shown: &mut Vec<Shown<'a>>,
    context: &mut Context,
) -> Result<()> {
    let (folder, judged) = (gallery.folder, &gallery.data.judged);
    let classes = &gallery.data.target().classes;
    let left = PICTURED.saturating_sub(shown.len()).min(folder.rows.len());
    let mut subjects = Vec::new();
    for row in &folder.rows[..left] {
        subjects.push(gallery.subject(row, &context.device)?);
    }
    let all: Vec<_> = subjects.iter().collect();
    let chosen = choose(&all, judged, classes.len(), EXAMPLES, context).map_err(at(folder))?;
    let mapped = mapped(gallery, context.seed);
    let attack = gallery.attacker();
    let batch = folder.recipe.evaluate.batch_size;
    let mut pictures = Vec::new();
    for subject in &subjects {
        let reach = REACH * attack.ball.radius;
        let around = chosen.first().filter(|_| reach > 0.0);
        pictures.push(Pictures {
            examples: examples(subject, judged, &chosen, attack, context)?,
            map: feature_map(subject, judged, &mapped, attack, batch, context)
                .map_err(at(folder))?,
            surface: around
                .map(|&index| surface(subject, judged, index, reach, context))
                .transpose()
                .map_err(at(folder))?,
        });
    }
    let mut pictures = pictures.into_iter();
    for row in &folder.rows {
        let title = figures::title(&row.outcome.method, &row.outcome.finetuning);
        let label = match several {
            true => format!("{}: {title}", figures::folder_name(folder)),
            false => title,
        };
        shown.push(Shown {
            label,
            folder,
            row,
            classes,
            pictures: pictures.next(),
            up_to_date: gallery.up_to_date(row),
        });
    }
    Ok(())
}

/// Images of the first classes, the same share of each.
fn mapped(gallery: &Gallery, seed: u64) -> Vec<usize> {
    let judged = &gallery.data.judged;
    let few: Vec<usize> = (0..judged.images.len())
        .filter(|&i| judged.labels[i] < MAPPED_CLASSES)
        .collect();
    if few.is_empty() {
        return few;
    }
    let classes = gallery.data.target().classes.len();
    let chosen = judged
        .select(&few)
        .limited(classes, MAPPED.min(few.len()), seed);
    chosen.into_iter().map(|at| few[at]).collect()
}

/// None for a recipe without AdvCL, whose views they are.
fn views_of<'a>(gallery: &Gallery<'a>, context: &Context) -> Result<Option<Views<'a>>> {
    let folder = gallery.folder;
    let entries = folder.recipe.pretrain.entries().iter();
    let advcl = entries
        .into_iter()
        .find(|entry| matches!(entry.settings, Settings::Advcl(_)));
    let Some(entry) = advcl else { return Ok(None) };
    let path = folder.path.join(&entry.name).join("model.safetensors");
    let model = match path.exists() {
        true => Some(Model::load(&path, &context.device)?),
        false => None,
    };
    let data = &gallery.data.pretraining;
    let rows = EXAMPLES.min(data.train.images.len());
    let columns = inspect::views(data, &folder.recipe, model.as_ref(), rows, &context.device)?;
    Ok(Some(Views { folder, columns }))
}

/// As on a command line.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    match text.contains([' ', '\'', '"', '$', '\\']) {
        true => format!("'{}'", text.replace('\'', "'\\''")),
        false => text,
    }
}
