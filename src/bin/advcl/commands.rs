//! Commands of the program, one short function each.

use std::path::{Path, PathBuf};

use advcl::data::contact_sheet::contact_sheet;
use advcl::data::read_images;
use advcl::experiment::{Data, Purpose, Stale};
use advcl::finetune::MODES;
use advcl::pretrain::METHODS;
use advcl::recipe::{Recipe, SHIPPED};
use advcl::run::{Model, layout, models_below};
use advcl::tensor::{to_tensor, to_vec};
use advcl::{Error, device, nn, preview, selftest};
use anyhow::Result;

use crate::args::{self, Cli, Command, Shared};
use crate::bench::bench;
use crate::compare::compare;
use crate::evaluate::{evaluate, print_summary};
use crate::import::import;
use crate::output::{print, print_json, print_paths};
use crate::progress::talk;
use crate::report::report;
use crate::session::{Access, check_names, resolve, with_experiment, with_rows};
use crate::table;

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
        Command::Fork(what) => fork(what, shared),
        Command::Bench { what } => bench(what, shared),
        Command::Recipe { what } => recipe(what, shared),
        Command::Data {
            what: args::DataCommand::Inspect(what),
        } => inspect(what, shared),
    }
}

fn run(what: &args::Run, shared: &Shared) -> Result<()> {
    let access = Access {
        begun: false,
        purpose: Purpose::Train,
        stale: what.stale.answer(),
    };
    let summary = with_experiment(&what.recipe, shared, access, |experiment, context| {
        experiment.run(context)
    })?;
    print_summary(&summary, shared)
}

fn pretrain(what: &args::Pretrain, shared: &Shared) -> Result<()> {
    let stage = &what.stage;
    check_names(stage, None, shared)?;
    let access = Access {
        begun: stage.recipe.recipe.is_none() && shared.run.is_some(),
        purpose: Purpose::Train,
        stale: what.stale.answer(),
    };
    let made = with_experiment(&stage.recipe, shared, access, |experiment, context| {
        experiment.pretrain(stage.method.as_deref(), context)?;
        let names = experiment.methods(stage.method.as_deref())?;
        let paths = names.iter().map(|name| experiment.encoder_path(name));
        Ok(paths.collect::<Vec<_>>())
    })?;
    print_paths(&made, shared)
}

fn cluster(what: &args::Run, shared: &Shared) -> Result<()> {
    let access = Access {
        begun: true,
        purpose: Purpose::Train,
        stale: what.stale.answer(),
    };
    let path = with_experiment(&what.recipe, shared, access, |experiment, context| {
        experiment.cluster(context)?;
        Ok(experiment.pseudo_label_path())
    })?;
    print_paths(&[path], shared)
}

fn finetune(what: &args::Finetune, shared: &Shared) -> Result<()> {
    let access = Access {
        begun: true,
        purpose: Purpose::Train,
        stale: what.stale.answer(),
    };
    let made = with_rows(&what.row, shared, access, |experiment, cells, context| {
        experiment.finetune(cells, context)?;
        let paths = cells.iter().map(|cell| experiment.model_path(cell));
        Ok(paths.filter(|path| path.exists()).collect::<Vec<_>>())
    })?;
    print_paths(&made, shared)
}

fn fork(what: &args::Fork, shared: &Shared) -> Result<()> {
    let arg = args::RecipeArg {
        recipe: Some(what.from.display().to_string()),
    };
    let access = Access {
        begun: true,
        purpose: Purpose::Train,
        stale: Stale::Ask,
    };
    let forked = with_experiment(&arg, shared, access, |experiment, context| {
        experiment.fork(&what.to, context)
    })?;
    if shared.json {
        return print_json(&forked);
    }
    let copied = forked.copied.iter().map(|what| format!("copied  {what}\n"));
    let left = forked
        .left
        .iter()
        .map(|(what, why)| format!("left    {what}: {why}\n"));
    print(&copied.chain(left).collect::<String>())?;
    if !shared.quiet {
        talk(&format!("go on with it: advcl run {}", what.to.display()));
    }
    Ok(())
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
            Data::load(&recipe, Purpose::Train)?;
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
    let file = path.join(layout::MODEL);
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
    let mut predictions = Vec::with_capacity(files.len());
    for chunk in indices.chunks(256) {
        let logits = classifier.logits(to_tensor(images.batch(chunk), &device));
        let classes = logits.dims()[1];
        for (&index, row) in chunk.iter().zip(to_vec(logits).chunks(classes)) {
            let ranked = table::ranked(row, &model.info.classes);
            predictions.push(table::Prediction {
                image: files[index].clone(),
                classes: ranked,
            });
        }
    }
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
    let views = preview::views(
        &data,
        &recipe,
        model.transpose()?.as_ref(),
        what.rows,
        &device,
    )?;
    let columns: Vec<_> = views.iter().map(|(_, batch)| batch).collect();
    contact_sheet(&columns, 4, sheet)?;
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
