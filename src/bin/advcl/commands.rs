//! One short function a command.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use advcl::data::{Split, read_images};
use advcl::evaluate::{Evaluator, StageProgress};
use advcl::experiment::{Cell, Data, Experiment};
use advcl::finetune::MODES;
use advcl::pretrain::METHODS;
use advcl::recipe::{Recipe, SHIPPED};
use advcl::run::{Model, models_below};
use advcl::session::Context;
use advcl::{Error, device, inspect, nn, selftest};
use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::args::{self, Cli, Command, Shared};
use crate::bench::bench;
use crate::compare::compare;
use crate::evaluate::evaluate;
use crate::import::import;
use crate::progress::{Progress, talk};
use crate::report::report;
use crate::table;
use crate::tensorboard::TensorBoard;

/// Set by the first Ctrl-C; the second ends the process at once.
pub static STOP: AtomicBool = AtomicBool::new(false);

pub fn dispatch(cli: &Cli) -> Result<()> {
    let shared = &cli.shared;
    // Winograd is off by about 1e-5: fine for training, not for the last digit.
    let direct = shared.conv == "direct"
        || shared.conv == "auto" && matches!(cli.command, Command::Selftest { .. });
    let instructions = Some(shared.cpu_kernels.as_str()).filter(|name| *name != "auto");
    nn::choose_cpu_kernels(instructions, !direct)?;
    match &cli.command {
        Command::Info => info(shared),
        Command::Run(arg) => run(arg, shared),
        Command::Pretrain(stage) => pretrain(stage, shared),
        Command::Cluster(arg) => cluster(arg, shared),
        Command::Finetune(row) => finetune(row, shared),
        Command::Evaluate(what) => evaluate(what, &cli.shared),
        Command::List { what } => list(*what, shared),
        Command::Compare(what) => compare(what, shared),
        Command::Predict(what) => predict(what, shared),
        Command::Report(what) => report(what, shared),
        Command::Import(what) => import(what, shared),
        Command::Selftest { dirs } => selftest(dirs, shared),
        Command::Bench { what } => bench(what, shared),
        Command::Recipe { what } => recipe(what, shared),
        Command::Data {
            what: args::DataCommand::Inspect(what),
        } => inspect(what, shared),
    }
}

/// Writes a result to stdout; a closed pipe is no error.
pub fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// The same, as JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// The recipe that is meant, and the run folder: a folder that has a recipe needs no other, and may stand where a recipe does.
pub fn resolve(arg: &args::RecipeArg, shared: &Shared) -> Result<(Recipe, PathBuf)> {
    let recipe_in = |folder: &Path| Some(folder.join("recipe.toml")).filter(|path| path.exists());
    if let Some(given) = arg.recipe.as_deref().map(Path::new)
        && let Some(saved) = recipe_in(given)
    {
        let recipe = Recipe::load(&saved.display().to_string(), &shared.set)?;
        let folder = shared.run.clone().unwrap_or_else(|| given.to_path_buf());
        return Ok((recipe, folder));
    }
    let saved = shared.run.as_deref().and_then(recipe_in);
    let name = match (&arg.recipe, saved) {
        (Some(name), _) => name.clone(),
        (None, Some(saved)) => saved.display().to_string(),
        (None, None) => "quickstart".to_owned(),
    };
    let recipe = Recipe::load(&name, &shared.set)?;
    let stem = Path::new(&name)
        .file_stem()
        .map_or(name.clone(), |s| s.display().to_string());
    let folder = shared
        .run
        .clone()
        .unwrap_or_else(|| Path::new("runs").join(stem));
    Ok((recipe, folder))
}

/// Ctrl-C is the wish to stop; a second one ends the process.
pub fn listen() -> Result<()> {
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        talk("\nstopping after this step; press Ctrl-C again to stop at once");
    })
    .context("cannot listen for Ctrl-C")
}

/// Whether a command may begin a run folder, or goes on in one.
#[derive(PartialEq)]
pub enum Folder {
    Any,
    Begun,
}

/// Opens the experiment and does `work` in it, with progress, metrics and Ctrl-C.
pub fn with_experiment<T>(
    arg: &args::RecipeArg,
    shared: &Shared,
    wanted: Folder,
    work: impl FnOnce(&Experiment, &mut Context) -> advcl::Result<T>,
) -> Result<T> {
    let started = Instant::now();
    let device = device::open(&shared.device)?;
    let (recipe, folder) = resolve(arg, shared)?;
    if wanted == Folder::Begun && !folder.join("recipe.toml").exists() {
        let recipe = arg.recipe.as_deref().unwrap_or("RECIPE");
        let hint = format!(
            "make the encoders first: advcl pretrain {recipe} --run {}",
            folder.display()
        );
        return Err(
            Error::run(folder, "no run has begun here: it has no recipe.toml", hint).into(),
        );
    }
    let seed = recipe.seed;
    let experiment = Experiment::open(recipe, &folder)?;
    experiment.note_machine(&shared.device)?;
    listen()?;
    let mut progress = Progress::new(shared.quiet);
    let mut board = tensorboard(&folder, shared)?;
    let mut observe = |event: &_| {
        experiment.run.log(event);
        progress.hear(event);
        board.iter_mut().for_each(|board| board.hear(event));
    };
    let mut context = Context {
        device,
        seed,
        precision: shared.precision(),
        stop: &STOP,
        observe: &mut observe,
    };
    let outcome = work(&experiment, &mut context);
    progress.finish();
    let outcome = outcome?;
    if !shared.quiet {
        let seconds = table::clock(started.elapsed().as_secs_f64());
        talk(&format!(
            "run folder: {}, after {seconds}",
            folder.display()
        ));
    }
    Ok(outcome)
}

/// The event file of a run folder, where one is asked for.
pub fn tensorboard(folder: &Path, shared: &Shared) -> advcl::Result<Option<TensorBoard>> {
    let create = || TensorBoard::create(&folder.join("tensorboard"));
    shared.tensorboard.then(create).transpose()
}

/// Refuses names that the recipe does not have, before there is a run folder.
fn check_names(stage: &args::Stage, mode: Option<&str>, shared: &Shared) -> Result<()> {
    let (recipe, folder) = resolve(&stage.recipe, shared)?;
    let told = stage.recipe.recipe.is_some() || shared.run.is_none();
    if !told && !folder.join("recipe.toml").exists() {
        // The recipe is not known; that no run has begun is said next.
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

fn run(arg: &args::RecipeArg, shared: &Shared) -> Result<()> {
    let summary = with_experiment(arg, shared, Folder::Any, |experiment, context| {
        experiment.all(context)
    })?;
    print_summary(&summary, shared)
}

pub fn print_summary(summary: &advcl::experiment::Summary, shared: &Shared) -> Result<()> {
    if shared.json {
        return print_json(summary);
    }
    print(&table::summary(summary))?;
    for outcome in &summary.outcomes {
        if let Some(attacked) = &outcome.attacked {
            print(&format!("\n{}", table::attacked(outcome, attacked)))?;
        }
    }
    let soundness = table::soundness(summary);
    if !soundness.is_empty() {
        print(&format!("\n{soundness}"))?;
    }
    if shared.verbose {
        print(&format!("\n{}", table::classes(summary)))?;
    }
    Ok(())
}

fn pretrain(stage: &args::Stage, shared: &Shared) -> Result<()> {
    check_names(stage, None, shared)?;
    let wanted = match (&stage.recipe.recipe, &shared.run) {
        (None, Some(_)) => Folder::Begun,
        _ => Folder::Any,
    };
    let made = with_experiment(&stage.recipe, shared, wanted, |experiment, context| {
        let recipe = &experiment.recipe.pretrain;
        let entries = match &stage.method {
            Some(name) => vec![recipe.require(name)?],
            None => recipe.entries().iter().collect(),
        };
        let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
        experiment.require_labels_of(&names)?;
        for entry in entries {
            match stage.method {
                None => experiment.make_encoder(&entry.name, context)?,
                Some(_) => experiment.pretrain(&entry.name, context)?,
            }
        }
        let paths = names.iter().map(|name| experiment.encoder_path(name));
        Ok(paths.collect::<Vec<_>>())
    })?;
    print_paths(&made, shared)
}

fn print_paths(paths: &[PathBuf], shared: &Shared) -> Result<()> {
    if shared.json {
        return print_json(&paths);
    }
    let lines: String = paths
        .iter()
        .map(|path| format!("{}\n", path.display()))
        .collect();
    print(&lines)
}

fn cluster(arg: &args::RecipeArg, shared: &Shared) -> Result<()> {
    let path = with_experiment(arg, shared, Folder::Begun, |experiment, context| {
        experiment.cluster(context)?;
        Ok(experiment.pseudo_label_path())
    })?;
    print_paths(&[path], shared)
}

fn finetune(row: &args::Row, shared: &Shared) -> Result<()> {
    let made = with_rows(row, shared, |experiment, cells, context| {
        for cell in cells {
            experiment.finetune(cell, context)?;
        }
        let paths = cells.iter().map(|cell| experiment.model_path(cell));
        Ok(paths.collect::<Vec<_>>())
    })?;
    print_paths(&made, shared)
}

/// Does `work` on the rows that are meant, in a run folder that has begun.
pub fn with_rows<T>(
    row: &args::Row,
    shared: &Shared,
    work: impl FnOnce(&Experiment, &[Cell], &mut Context) -> advcl::Result<T>,
) -> Result<T> {
    let stage = &row.stage;
    check_names(stage, row.mode.as_deref(), shared)?;
    with_experiment(
        &stage.recipe,
        shared,
        Folder::Begun,
        |experiment, context| {
            let cells = experiment.cells(stage.method.as_deref(), row.mode.as_deref())?;
            work(experiment, &cells, context)
        },
    )
}

fn list(what: args::List, shared: &Shared) -> Result<()> {
    let rows: Vec<(&str, &str)> = match what {
        args::List::Methods => METHODS.iter().map(|m| (m.name, m.about)).collect(),
        args::List::Modes => MODES.iter().map(|m| (m.name, m.about)).collect(),
        args::List::Recipes => SHIPPED.iter().map(|(n, about, _)| (*n, *about)).collect(),
    };
    if shared.json {
        let named = |(name, about)| serde_json::json!({"name": name, "about": about});
        return print_json(&rows.into_iter().map(named).collect::<Vec<_>>());
    }
    let owned = |(name, about): (&str, &str)| (name.to_owned(), about.to_owned());
    print(&table::pairs(
        &rows.into_iter().map(owned).collect::<Vec<_>>(),
    ))
}

fn recipe(what: &args::RecipeCommand, shared: &Shared) -> Result<()> {
    match what {
        args::RecipeCommand::Show(arg) => {
            let (recipe, _) = resolve(arg, shared)?;
            if shared.json {
                print_json(&recipe)
            } else {
                print(&recipe.to_toml())
            }
        }
        args::RecipeCommand::Check(arg) => {
            let (recipe, _) = resolve(arg, shared)?;
            Data::load(&recipe)?;
            print("ok\n")
        }
        args::RecipeCommand::List => list(args::List::Recipes, shared),
    }
}

fn selftest(dirs: &[PathBuf], shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let mut checks = Vec::new();
    let mut failure = None;
    let outcome = selftest::run(dirs, &device, |check| {
        if shared.json {
            checks.push(check.clone());
        } else if let Err(error) = print(&table::check(check, shared.verbose)) {
            failure.get_or_insert(error);
        }
    });
    if shared.json {
        print_json(&checks)?;
    }
    failure.map_or(Ok(()), Err)?;
    Ok(outcome?)
}

/// A model file, or the one in a folder.
fn model_file(path: &Path) -> advcl::Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_path_buf());
    }
    let file = path.join("model.safetensors");
    let encoders = match file.exists() {
        true => Vec::new(),
        false => models_below(path),
    };
    if !encoders.is_empty() {
        let with_classifiers = encoders.into_iter().flat_map(|folder| {
            let below = models_below(&folder);
            std::iter::once(folder).chain(below)
        });
        let named: Vec<String> = with_classifiers
            .map(|folder| folder.display().to_string())
            .collect();
        let problem = "a run folder, with a folder for each of its models";
        return Err(Error::run(
            path,
            problem,
            format!("name one: {}", named.join(", ")),
        ));
    }
    Ok(file)
}

fn predict(what: &args::Predict, shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let path = model_file(&what.model)?;
    let model = Model::load(&path, &device)?;
    let classifier = model.classifier(&path)?.frozen();
    let [height, width] = model.info.image_size;
    let (files, images) = read_images(&what.images, [model.info.channels, height, width])?;
    let indices: Vec<usize> = (0..files.len()).collect();
    let evaluator = Evaluator {
        name: "predict",
        logits: &|x| classifier.logits(x),
        classes: model.info.classes.len(),
        split: &Split {
            images,
            labels: Vec::new(),
        },
        batch_size: 256,
    };
    let mut context = Context {
        device,
        seed: 0,
        precision: shared.precision(),
        stop: &STOP,
        observe: &mut |_| (),
    };
    let mut stage = StageProgress::new(evaluator.name, files.len());
    let clean = |batch: &[usize], context: &Context| Ok(evaluator.images(batch, &context.device));
    let logits = evaluator.logit_rows(&indices, &mut stage, &mut context, clean)?;
    let prediction = |(image, row): (&PathBuf, &[f32])| table::Prediction {
        image: image.clone(),
        classes: table::ranked(row, &model.info.classes),
    };
    let predictions: Vec<_> = files.iter().zip(logits.rows()).map(prediction).collect();
    if shared.json {
        return print_json(&predictions);
    }
    let shown = if shared.verbose { usize::MAX } else { 3 };
    print(&table::predictions(&predictions, shown))
}

/// Where a contact sheet goes unless it is named; nothing is overwritten there.
const SHEET: &str = "views.png";

fn inspect(what: &args::Inspect, shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let usual = PathBuf::from(SHEET);
    let sheet = what.sheet.as_ref().unwrap_or(&usual);
    if what.sheet.is_none() && sheet.exists() {
        let hint = format!("--sheet {SHEET} replaces it; another name leaves it");
        return Err(Error::data(SHEET, "a file of this name is there already", hint).into());
    }
    let recipe = Recipe::load(&what.recipe, &shared.set)?;
    let data = advcl::data::load(what.source.as_ref().unwrap_or(&recipe.data.source))?;
    let model = what
        .model
        .as_deref()
        .map(|path| Model::load(&model_file(path)?, &device));
    let views = inspect::views(
        &data,
        &recipe,
        model.transpose()?.as_ref(),
        what.rows,
        &device,
    )?;
    let columns: Vec<_> = views.iter().map(|(_, batch)| batch).collect();
    inspect::contact_sheet(&columns, 4, sheet)?;
    let summary = table::data(&data, &views, sheet);
    if shared.json {
        print_json(&summary)
    } else {
        print(&table::data_text(&summary))
    }
}

fn yes_or_no(there: bool) -> String {
    if there { "yes" } else { "no" }.to_owned()
}

fn info(shared: &Shared) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernels = nn::cpu_kernels().map_or("none in this build".to_owned(), |kernels| {
        format!("{}, {}", kernels.instructions, kernels.algorithm())
    });
    let rows = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("devices", device::compiled_in().join(", ")),
        ("cores", cores.to_string()),
        ("CPU has", nn::instruction_sets().join(", ")),
        ("CPU uses", kernels),
        ("bf16 products", yes_or_no(nn::has_bf16())),
    ];
    if shared.json {
        let rows: serde_json::Map<_, _> = rows
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        return print_json(&rows);
    }
    print(&table::pairs(
        &rows.map(|(name, value)| (name.to_owned(), value)),
    ))
}
