//! `advcl init`: a commented recipe that fits a data set.

mod choice;
mod measure;
mod text;

use std::io::ErrorKind;
use std::path::Path;

use advcl::data::{self, Reading, Scan, Size};
use advcl::files::{self, expand_home};
use advcl::memory::in_words;
use advcl::recipe::{Recipe, is_path};
use advcl::run::{ModelInfo, model_file};
use advcl::{Error, device};
use anyhow::{Context as _, Result};
use indicatif::HumanDuration;
use serde::Serialize;

use crate::args::{self, Shared};
use crate::output::{print, print_json, printable};
use crate::progress::print_status;
use crate::recipe_text::edited;
use choice::Choice;
use text::Heading;

/// Size that is tried for images that are too large to be read as they are.
const LARGE: usize = 64;

/// The answer to `--json`.
#[derive(Serialize)]
struct Suggested {
    recipe: Recipe,
    text: String,
    expected_seconds: f64,
    expected_bytes: u64,
    notes: Vec<String>,
}

pub fn init(what: &args::Init, shared: &Shared) -> Result<()> {
    if let Some(path) = &what.output {
        refuse_existing(path)?;
    }
    let device = device::open(&shared.device)?;
    let source = expand_home(&what.source);
    let status = |text: &str| {
        if !shared.quiet {
            print_status(&printable(text));
        }
    };
    let weights = what.weights.as_deref().map(described).transpose()?;
    let reading = Reading {
        size: weights
            .as_ref()
            .map(|(_, info)| Size::Sides(info.image_size)),
        ..Reading::default()
    };
    let (scan, size, background) = look(&source, reading)?;
    let mut notes = scan.notes.clone();
    notes.extend(warnings(&scan));
    notes
        .iter()
        .for_each(|note| status(&format!("{}: {note}", scan.name)));
    let mut choice = Choice::new(&scan, size, background, weights.as_ref());
    if choice.images < 2 {
        let problem = format!("expected 2 images to learn from, found {}", choice.images);
        let hint = "a contrastive loss compares images: add some";
        return Err(Error::data(&scan.name, problem, hint).into());
    }
    let named = what
        .output
        .as_deref()
        .map(|path| path.display().to_string());
    let mut heading = Heading {
        source: &what.source,
        file: named.as_deref().unwrap_or("mine.toml"),
        expected: String::new(),
        epochs: String::new(),
    };
    let write = |choice: &Choice, heading: &Heading| -> Result<(String, Recipe)> {
        let text = text::recipe(&scan, choice, heading);
        // Once by the recipe's own way, whose errors name the override at fault.
        Recipe::parse("init", &text, &shared.set)?;
        let text = edited(&text, &shared.set).context("--set")?;
        let recipe = Recipe::parse("init", &text, &[])?;
        Ok((text, recipe))
    };
    let (_, recipe) = write(&choice, &heading)?;
    status("measuring a few steps of pretraining");
    let measured = measure::measure(&recipe, &device)?;
    let budget = what.budget.as_secs_f64();
    choice.epochs = choice.epochs_within(budget, &measured);
    let seconds = choice.seconds(&measured);
    let bytes = choice.bytes(&recipe);
    let steps = choice.steps() as f64;
    heading.expected = format!("about {}, {} of memory", duration(seconds), in_words(bytes));
    heading.epochs = format!(
        "As many as fit into {}: an epoch ({} steps) takes {:.1} s here, and one of AdvCL, which has as many, {:.1} s.",
        duration(budget),
        choice.steps(),
        steps * measured.simclr,
        steps * measured.advcl
    );
    let (text, recipe) = write(&choice, &heading)?;
    if seconds > budget {
        notes.push(format!(
            "one epoch takes longer than {}: data.train_limit or a smaller data.size takes less",
            duration(budget)
        ));
        status(notes.last().expect("just added"));
    }
    if let Some(path) = &what.output {
        write_new(path, &text)?;
    }
    if shared.json {
        print_json(&Suggested {
            recipe,
            text,
            expected_seconds: seconds,
            expected_bytes: bytes,
            notes,
        })?;
    } else if what.output.is_none() {
        print(&text)?;
    }
    if !shared.quiet {
        next_steps(what, &choice, &heading);
    }
    Ok(())
}

/// A model file as a recipe names it, and its description.
fn described(path: &Path) -> Result<(String, ModelInfo)> {
    let file = model_file(path)?;
    std::fs::metadata(&file).map_err(Error::io("read", &file))?;
    let info = ModelInfo::load(&file).map_err(|error| match error {
        Error::Format { .. } | Error::Model { .. } => {
            let problem = format!("expected a model file of advcl, found {error}");
            let hint = "`advcl import FILE -o weights.safetensors` makes one of PyTorch's weights";
            Error::input("--weights", problem, hint)
        }
        other => other,
    })?;
    let info = info.ok_or_else(|| Error::io("read", &file)(ErrorKind::NotFound.into()))?;
    let name = file.display().to_string();
    let name = if is_path(&name) {
        name
    } else {
        format!("./{name}")
    };
    Ok((name, info))
}

/// Looks at the images as they are, or in the size that is given; those that cannot be read so are tried in another size, and
/// before white.
fn look(source: &str, mut reading: Reading) -> Result<(Scan, Option<usize>, bool)> {
    let mut scan = data::scan(source, &reading);
    let faults = |scan: &advcl::Result<Scan>| match scan {
        Ok(scan) => scan.faults.len(),
        Err(Error::Data { .. }) => usize::MAX,
        Err(_) => 0,
    };
    for change in [
        |reading: &mut Reading| {
            reading.size.get_or_insert(Size::Square(LARGE));
        },
        |reading: &mut Reading| reading.background = Some([255; 3]),
    ] {
        if faults(&scan) == 0 {
            break;
        }
        let mut changed = reading;
        change(&mut changed);
        let again = data::scan(source, &changed);
        if faults(&again) < faults(&scan) {
            (reading, scan) = (changed, again);
        }
    }
    let scan = scan?;
    let size = scan.suggested_size().or(reading.size.map(|_| LARGE));
    Ok((scan, size, reading.background.is_some()))
}

/// Things that the user should know before a run.
fn warnings(scan: &Scan) -> Vec<String> {
    let mut notes = Vec::new();
    if !scan.faults.is_empty() {
        let count = scan.faults.len();
        notes.push(format!(
            "{count} images cannot be read; the recipe passes them over"
        ));
    }
    let (within, between) = (&scan.within_train, &scan.in_train);
    if within.other_class > 0 {
        let count = within.other_class;
        notes.push(format!(
            "{count} training images repeat others of another class"
        ));
    }
    if between.exact > 0 {
        let count = between.exact;
        notes.push(format!(
            "{count} test images are training images too: figures on them say nothing"
        ));
    }
    if between.near > 0 {
        notes.push(format!(
            "{} test images look like training images",
            between.near
        ));
    }
    if scan.classes.len() == 1 {
        notes.push(
            "there is one class alone: encoders can be pretrained, no classifier be made"
                .to_owned(),
        );
    } else if scan.images[1] == 0
        && let Some(&class) = scan.classes_below(2).first()
    {
        notes.push(format!(
            "class {:?} has one image: no test image can be kept of it, and `advcl run` will refuse it; add some, or take it out",
            scan.classes[class]
        ));
    }
    if !notes.is_empty() {
        notes.push("`advcl data inspect` lists all of it".to_owned());
    }
    notes
}

fn duration(seconds: f64) -> String {
    let whole = std::time::Duration::try_from_secs_f64(seconds.max(1.0).round());
    HumanDuration(whole.unwrap_or_default()).to_string()
}

fn next_steps(what: &args::Init, choice: &Choice, heading: &Heading) {
    let file = heading.file;
    match &what.output {
        Some(_) => print_status(&printable(&format!(
            "recipe: {file}, expected to take {}",
            heading.expected
        ))),
        None => print_status(&printable(&format!(
            "expected to take {}; -o {file} writes a file",
            heading.expected
        ))),
    }
    print_status("next: read its comments (radius, flips), then");
    print_status(&printable(&format!("    {}", text::command(choice, file))));
}

fn exists(path: &Path) -> Error {
    Error::Output {
        path: path.to_path_buf(),
        problem: "the file exists already".to_owned(),
        hint: "name another file with -o, or remove this one".to_owned(),
    }
}

/// Refuses an output that exists, before anything is measured.
fn refuse_existing(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Err(exists(path).into()),
        Err(_) => Ok(()),
    }
}

/// Writes a file that must not be there, also where one appeared meanwhile.
fn write_new(path: &Path, text: &str) -> Result<()> {
    files::write_new(path, text.as_bytes()).map_err(|error| match &error {
        Error::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
            exists(path).into()
        }
        _ => error.into(),
    })
}
