//! What commands on a run folder share: finding recipe and folder, progress, Ctrl-C.

use std::path::{Path, PathBuf};
use std::time::Instant;

use advcl::burn::tensor::Device;
use advcl::experiment::{
    Cell, Experiment, FolderRecipe, Purpose, Stale, has_begun, has_recipe, require_images,
};
use advcl::nn::Precision;
use advcl::recipe::Recipe;
use advcl::run::{Layout, require_inside};
use advcl::session::{Context, Event};
use advcl::{Error, device, nn, ranks};
use anyhow::Result;

use crate::args::{self, Shared};
use crate::output::printable;
use crate::progress::{Progress, print_status};
use crate::signals::{STOP, listen};
use crate::table;
use crate::tensorboard::TensorBoard;

/// Where a command's recipe is.
pub enum Source<'a> {
    /// A folder that has a recipe.
    Folder(&'a Path),
    /// A shipped recipe's name, or a file.
    Named(&'a str),
}

/// Finds the recipe of a command. A folder that has a recipe needs no other, and may be named in the
/// recipe's place.
pub fn source<'a>(arg: &'a args::RecipeArg, shared: &'a Shared) -> Source<'a> {
    let given = arg.recipe.as_deref();
    let folder = match given {
        Some(given) => Some(Path::new(given)).filter(|given| given.is_dir()),
        None => shared.run.as_deref(),
    };
    match folder.filter(|folder| has_recipe(folder)) {
        Some(folder) => Source::Folder(folder),
        None => Source::Named(given.unwrap_or("quickstart")),
    }
}

/// Reads the recipe of a command, and finds the run folder.
pub fn resolve(arg: &args::RecipeArg, shared: &Shared) -> Result<(Recipe, PathBuf)> {
    let source = source(arg, shared);
    let mut recipe = read(&source, &shared.set)?;
    if let Some(most) = shared.micro_batch {
        if most == 0 {
            let problem = "expected 2 or more images, found 0";
            let hint = "BatchNorm needs 2; leave the option out for whole batches";
            return Err(Error::input("--micro-batch", problem, hint).into());
        }
        // Which tables there are is known with the recipe.
        let set = [shared.set.clone(), recipe.micro_batches(most)].concat();
        recipe = read(&source, &set)?;
    }
    let usual = match source {
        Source::Folder(folder) => {
            require_images(folder, &recipe)?;
            folder.to_path_buf()
        }
        Source::Named(name) => {
            let stem = Path::new(name).file_stem();
            let stem = stem.map_or(name.to_owned(), |stem| stem.display().to_string());
            Path::new("runs").join(stem)
        }
    };
    Ok((recipe, shared.run.clone().unwrap_or(usual)))
}

fn read(source: &Source, overrides: &[String]) -> Result<Recipe> {
    Ok(match source {
        Source::Folder(folder) => {
            let found = FolderRecipe::load(folder, overrides)?;
            found.expect("it has one").recipe
        }
        Source::Named(name) => Recipe::load(name, overrides)?,
    })
}

/// Work that a command does in a run folder.
#[derive(Clone, Copy)]
pub struct Access {
    /// Whether the run must have begun.
    pub begun: bool,
    /// Use of the images.
    pub purpose: Purpose,
    /// Answer to stale results.
    pub stale: Stale,
    /// Whether the run folder stays as it is.
    pub reads_only: bool,
}

/// Opens the experiment and does `work` in it, with progress and Ctrl-C.
pub fn with_experiment<T>(
    arg: &args::RecipeArg,
    shared: &Shared,
    access: Access,
    work: impl FnOnce(&Experiment, &mut Context) -> advcl::Result<T>,
) -> Result<T> {
    let started = Instant::now();
    let device = device::open(&shared.device)?;
    let (recipe, folder) = resolve(arg, shared)?;
    if access.begun && !has_begun(&folder) {
        let recipe = arg.recipe.as_deref().unwrap_or("RECIPE");
        let hint = format!(
            "make the encoders first: advcl pretrain {recipe} --run {}",
            folder.display()
        );
        let problem = "no run has begun here";
        return Err(Error::run(folder, problem, hint).into());
    }
    let experiment = match access.purpose {
        purpose if access.reads_only => Experiment::open_to_read(recipe, purpose, &folder)?,
        Purpose::Train => Experiment::open(recipe, &folder)?,
        Purpose::Evaluate => Experiment::open_to_evaluate(recipe, &folder)?,
    };
    let experiment = experiment.with_stale(access.stale);
    if !shared.quiet {
        for note in &experiment.data.pretraining.notes {
            print_status(&format!("data: {}", printable(note)));
        }
    }
    say_notes(&experiment.recipe, access.purpose == Purpose::Train, shared);
    say_who_computes(&device, experiment.recipe.precision);
    listen()?;
    let mut progress = Progress::new(shared.quiet)
        .with_memory(expected_memory(&experiment, shared)?)
        .of_recipe(&experiment.recipe, shared.verbose);
    let mut board = match access.reads_only {
        true => None,
        false => tensorboard(&folder, shared)?,
    };
    let outcome = {
        let observe = |event: &Event| {
            progress.on_event(event);
            board.iter_mut().for_each(|board| board.on_event(event));
        };
        let mut context = Context::new(device).stopped_by(&STOP).observed(observe);
        work(&experiment, &mut context)
    };
    progress.finish();
    let outcome = outcome?;
    if !shared.quiet {
        let seconds = table::clock(started.elapsed().as_secs_f64());
        print_status(&format!(
            "run folder: {}, after {seconds}",
            folder.display()
        ));
    }
    Ok(outcome)
}

/// Says which attacks of a recipe have steps that do not suit the radius, of the evaluation alone, unless the recipe `trains` too; and
/// which settings of its trainings change nothing.
pub fn say_notes(recipe: &Recipe, trains: bool, shared: &Shared) {
    if shared.quiet {
        return;
    }
    let mut notes = recipe.notes_of_steps(trains);
    if trains {
        notes.extend(recipe.notes_of_plans());
    }
    for note in notes {
        print_status(&format!("recipe: {}", printable(&note)));
    }
}

/// Says how many ranks there are, and where they compute in different ways.
pub fn say_who_computes(device: &Device, precision: Precision) {
    let count = ranks::count();
    if count == 1 {
        return;
    }
    let threads = rayon::current_num_threads();
    print_status(&format!("{count} ranks, {threads} threads on the first"));
    let all = ranks::gather_each("ways to compute", nn::arithmetic(device, precision));
    if let Some(note) = unlike(&all) {
        print_status(&printable(&note));
    }
}

/// Sentence about ranks that compute in different ways, with an option that makes them the same; none where all are alike.
fn unlike(all: &[String]) -> Option<String> {
    let rank = all.iter().position(|way| *way != all[0])?;
    let instructions = |way: &String| {
        way.strip_prefix("cpu, ")?
            .split(',')
            .next()
            .map(str::to_owned)
    };
    let sets: Option<Vec<String>> = all.iter().map(instructions).collect();
    // Processors with one of these have the last one.
    let has_avx2 = |set: &String| ["amx", "avx512", "avx2"].contains(&set.as_str());
    let option = match sets {
        None => "--device cpu",
        Some(sets) if sets.iter().all(has_avx2) => "--cpu-kernels avx2",
        Some(_) => "--cpu-kernels portable",
    };
    Some(format!(
        "rank {rank} computes by {}, rank 0 by {}: not bit for bit what either alone would give, and the last bits depend on how many ranks there are; {option} makes them the same",
        all[rank], all[0]
    ))
}

/// Memory in bytes that each of the recipe's encoders is expected to take; none on a GPU, which has its own.
fn expected_memory(experiment: &Experiment, shared: &Shared) -> advcl::Result<Vec<(String, u64)>> {
    if !shared.on_cpu() {
        return Ok(Vec::new());
    }
    let methods = experiment.methods(None)?.into_iter();
    methods
        .map(|name| Ok((name.clone(), experiment.expected_memory(&name)?)))
        .collect()
}

/// Does `work` on the rows that are meant, in a run folder that has begun.
pub fn with_rows<T>(
    row: &args::Row,
    shared: &Shared,
    access: Access,
    work: impl FnOnce(&Experiment, &[Cell], &mut Context) -> advcl::Result<T>,
) -> Result<T> {
    let stage = &row.stage;
    check_names(stage, row.mode.as_deref(), shared)?;
    with_experiment(&stage.recipe, shared, access, |experiment, context| {
        let cells = experiment.cells(stage.method.as_deref(), row.mode.as_deref())?;
        work(experiment, &cells, context)
    })
}

/// Opens the event file of a run folder, where one is asked for.
pub fn tensorboard(folder: &Path, shared: &Shared) -> advcl::Result<Option<TensorBoard>> {
    let create = || {
        let events = Layout::new(folder).tensorboard();
        if events.exists() {
            require_inside(folder, &events)?;
        }
        TensorBoard::create(&events)
    };
    (shared.tensorboard && ranks::speaks())
        .then(create)
        .transpose()
}

/// Refuses names that the recipe does not have, before there is a run folder.
pub fn check_names(stage: &args::Stage, mode: Option<&str>, shared: &Shared) -> Result<()> {
    let (recipe, folder) = resolve(&stage.recipe, shared)?;
    let told = stage.recipe.recipe.is_some() || shared.run.is_none();
    if !told && !has_recipe(&folder) {
        // The recipe is not known; that no run has begun is the next message.
        return Ok(());
    }
    if let Some(name) = &stage.method {
        recipe.pretrain.require(name)?;
    }
    if let Some(name) = mode {
        recipe.finetune.require(name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_that_compute_in_different_ways_are_told_what_makes_them_the_same() {
        let said = |all: &[&str]| {
            let all: Vec<String> = all.iter().map(|&way| way.to_owned()).collect();
            unlike(&all)
        };
        let (wide, half) = ("cpu, avx512, winograd, f32", "cpu, amx, winograd, bf16");
        let narrow = "cpu, avx2, winograd, f32";
        assert_eq!(said(&[wide]), None);
        assert_eq!(said(&[wide, wide]), None);
        let expected = "rank 2 computes by cpu, avx2, winograd, f32, rank 0 by cpu, avx512, winograd, f32: not bit for bit what either \
                        alone would give, and the last bits depend on how many ranks there are; --cpu-kernels avx2 makes them the same";
        assert_eq!(said(&[wide, wide, narrow]).as_deref(), Some(expected));
        for (other, option) in [
            (half, "--cpu-kernels avx2"),
            ("cpu, neon, winograd, f32", "--cpu-kernels portable"),
            ("cpu, portable, winograd, f32", "--cpu-kernels portable"),
            ("gpu (some card), f32", "--device cpu"),
        ] {
            let note = said(&[wide, other]).expect("two ways");
            assert!(
                note.ends_with(&format!("; {option} makes them the same")),
                "{note}"
            );
        }
    }
}
