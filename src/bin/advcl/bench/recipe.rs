//! `advcl bench step RECIPE`: the steps of a recipe's own training.

use advcl::bench::{RecipeSteps, StepTiming, trained_plan};
use advcl::device;
use advcl::experiment::{Data, Purpose};
use advcl::recipe::Recipe;
use advcl::session::Context;
use anyhow::{Context as _, Result};

use super::{counted, device_text, mib_text};
use crate::args::{BenchStep, RecipeArg, Shared};
use crate::output::{print, print_json, printable};
use crate::progress::print_status;
use crate::release_memory;
use crate::session::resolve;
use crate::signals::{STOP, listen};
use crate::table::{clock, pairs};

/// What is timed: a table of the recipe.
enum Wanted<'a> {
    Method(&'a str),
    Mode(&'a str),
}

pub fn steps(name: &str, what: &BenchStep, shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let arg = RecipeArg {
        recipe: Some(name.to_owned()),
    };
    let (recipe, _) = resolve(&arg, shared)?;
    let wanted = wanted(&recipe, what)?;
    let data = Data::load(&recipe, Purpose::Train)?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let steps = RecipeSteps {
        recipe: &recipe,
        pretraining: &data.pretraining,
        target: data.target(),
        held: data.memory(),
        runs: what.setup.runs,
        folder: folder.path(),
    };
    listen()?;
    let context = Context::new(device).stopped_by(&STOP);
    let mut timings = Vec::new();
    for one in wanted {
        if !shared.quiet {
            let (Wanted::Method(name) | Wanted::Mode(name)) = &one;
            print_status(&format!("measuring {}", printable(name)));
        }
        release_memory();
        let timing = match one {
            Wanted::Method(name) => steps.pretraining(name, &context)?,
            Wanted::Mode(name) => steps.finetuning(name, &context)?,
        };
        if !shared.json {
            let parted = if timings.is_empty() { "" } else { "\n" };
            print(&format!("{parted}{}", text(&timing, shared)))?;
        }
        timings.push(timing);
    }
    match shared.json {
        true => print_json(&timings),
        false => Ok(()),
    }
}

/// The tables that were named; all that train an encoder, where none was.
fn wanted<'a>(recipe: &'a Recipe, what: &'a BenchStep) -> Result<Vec<Wanted<'a>>> {
    if let Some(name) = &what.method {
        let entry = recipe.pretrain.require(name)?;
        return Ok(vec![Wanted::Method(&entry.name)]);
    }
    if let Some(name) = &what.mode {
        let entry = recipe.finetune.require(name)?;
        return Ok(vec![Wanted::Mode(&entry.name)]);
    }
    let methods = recipe.pretrain.entries().iter();
    let methods = methods.map(|entry| Wanted::Method(entry.name.as_str()));
    let modes = recipe.finetune.entries().iter();
    let modes = modes.filter(|entry| trained_plan(entry).is_some());
    Ok(methods
        .chain(modes.map(|entry| Wanted::Mode(entry.name.as_str())))
        .collect())
}

fn text(timing: &StepTiming, shared: &Shared) -> String {
    let (depth, width) = (usize::from(timing.encoder.depth), timing.encoder.width);
    let stem = timing.encoder.stem.name();
    let [batch, channels, height, size] = timing.shape;
    let channels = counted(channels, "channel");
    let at_once = timing
        .micro_batch
        .map_or(String::new(), |most| format!(" in micro-batches of {most}"));
    let memory = match timing.expected_memory_mib {
        Some(expected) => format!(
            "{}, foretold {expected:.0} MiB",
            mib_text(timing.peak_memory_mib)
        ),
        None => mib_text(timing.peak_memory_mib),
    };
    let rows = [
        ("table", printable(&timing.table).into_owned()),
        (
            "model",
            format!(
                "ResNet-{depth} of width {width}, stem {stem}; batch {batch}{at_once}, {height} × {size} pixels, {channels}"
            ),
        ),
        ("device", device_text(&shared.device, timing.threads)),
        (
            "step",
            format!(
                "{:.3} s, median of {}",
                timing.median_seconds,
                timing.seconds.len()
            ),
        ),
        (
            "images",
            format!("{:.2} per second", timing.images_per_second),
        ),
        (
            "epoch",
            format!(
                "{}, {}",
                counted(timing.steps, "step"),
                clock(timing.epoch_seconds)
            ),
        ),
        (
            "training",
            format!(
                "{}, {}",
                counted(timing.epochs, "epoch"),
                clock(timing.training_seconds)
            ),
        ),
        ("peak memory", memory),
    ];
    let launches = timing
        .launches
        .map(|count| ("kernels", format!("{count} launches a step")));
    let rows = rows.into_iter().chain(launches);
    let rows: Vec<_> = rows.map(|(name, value)| (name.to_owned(), value)).collect();
    pairs(&rows)
}
