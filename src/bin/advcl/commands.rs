//! Commands of the program, one short function each.

use std::path::PathBuf;

use advcl::experiment::{Purpose, Stale, has_begun};
use advcl::ranks::Launched;
use advcl::{Error, device, nn, ranks, selftest};
use anyhow::Result;

use crate::adversarial::show;
use crate::args::{self, Cli, Command, ConvAlgorithm, Shared};
use crate::attack::attack;
use crate::bench::bench;
use crate::cache::{self, cache};
use crate::check::check;
use crate::compare::compare;
use crate::embed::{duplicates, embed};
use crate::evaluate::{evaluate, print_summary};
use crate::export::export;
use crate::import::import;
use crate::init::init;
use crate::inspect::inspect;
use crate::label_next::label_next;
use crate::list::list;
use crate::output::{print, print_json, print_paths};
use crate::predict::predict;
use crate::progress::print_status;
use crate::recipe::recipe;
use crate::report::report;
use crate::session::{Access, check_names, with_experiment, with_rows};
use crate::watch::watch;
use crate::{command_line, signals, table};

/// Carries out the command, on all ranks together or on the first one.
pub fn dispatch(cli: &Cli) -> Result<()> {
    if cli.command.is_shared() {
        return carry_out(cli);
    }
    match ranks::speaks() {
        true => ranks::alone(|| carry_out(cli)),
        false => Ok(()),
    }
}

fn carry_out(cli: &Cli) -> Result<()> {
    if let (Some(set), false) = (cli.shared.set.first(), cli.command.reads_overrides()) {
        let problem = format!("expected none with this command, found {set:?}");
        let hint = "leave it out: this command reads neither a recipe nor images";
        return Err(Error::input("--set", problem, hint).into());
    }
    let mut shared = cli.shared.clone().with_options();
    shared.micro_batch = cli.command.micro_batch();
    use_device(&mut shared)?;
    let shared = &shared;
    // Winograd is off by about 1e-5: fine for training, not for the last digit.
    let winograd = match shared.conv {
        ConvAlgorithm::Auto => {
            !matches!(cli.command, Command::Selftest { .. } | Command::Export(_))
        }
        ConvAlgorithm::Winograd => true,
        ConvAlgorithm::Direct => false,
    };
    nn::choose_cpu_kernels(shared.cpu_kernels.name(), winograd)?;
    cache::choose(shared);
    match &cli.command {
        Command::Info => info(shared),
        Command::Run(arg) => run(arg, shared),
        Command::Pretrain(stage) => pretrain(stage, shared),
        Command::Cluster(arg) => cluster(arg, shared),
        Command::Finetune(row) => finetune(row, shared),
        Command::Evaluate(what) => evaluate(what, shared),
        Command::List { what } => list(*what, shared),
        Command::Compare(what) => compare(what, shared),
        Command::Predict(what) => predict(what, shared),
        Command::Attack(what) => attack(what, shared),
        Command::Adversarial {
            what: args::AdversarialCommand::Show(what),
        } => show(what, shared),
        Command::Report(what) => report(what, shared),
        Command::Watch(what) => watch(what, shared),
        Command::Import(what) => import(what, shared),
        Command::Embed(what) => embed(what, shared),
        Command::Duplicates(what) => duplicates(what, shared),
        Command::LabelNext(what) => label_next(what, shared),
        Command::Export(what) => export(what, shared),
        Command::Selftest { dirs } => selftest(dirs, shared),
        Command::Check(what) => check(what, shared),
        Command::Fork(what) => fork(what, shared),
        Command::Bench { what } => bench(what, shared),
        Command::Init(what) => init(what, shared),
        Command::Recipe { what } => recipe(what, shared),
        Command::Data {
            what: args::DataCommand::Inspect(what),
        } => inspect(what, shared),
        Command::Cache { what } => cache(what, shared),
        Command::Completions { shell } => command_line::completions(*shell),
        Command::Man { dir } => command_line::man(dir.as_deref(), shared),
        Command::Options => command_line::options(),
    }
}

fn run(what: &args::Run, shared: &Shared) -> Result<()> {
    let access = Access {
        begun: false,
        purpose: Purpose::Train,
        stale: what.stale.answer(),
        reads_only: false,
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
        reads_only: false,
    };
    let made = with_experiment(&stage.recipe, shared, access, |experiment, context| {
        experiment.pretrain(stage.method.as_deref(), context)?;
        let names = experiment.methods(stage.method.as_deref())?;
        let paths = names.iter().map(|name| experiment.encoder_path(name));
        Ok(paths.collect::<Vec<_>>())
    })?;
    print_paths(&made, shared)
}

fn cluster(what: &args::Cluster, shared: &Shared) -> Result<()> {
    let access = Access {
        begun: true,
        purpose: Purpose::Train,
        stale: what.stale.answer(),
        reads_only: false,
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
        reads_only: false,
    };
    let made = with_rows(&what.row, shared, access, |experiment, cells, context| {
        experiment.finetune(cells, context)?;
        let paths = cells.iter().map(|cell| experiment.model_path(cell));
        Ok(paths.filter(|path| path.exists()).collect::<Vec<_>>())
    })?;
    print_paths(&made, shared)
}

fn fork(what: &args::Fork, shared: &Shared) -> Result<()> {
    if let Some(run) = &shared.run {
        let problem = format!("expected none with this command, found {}", run.display());
        let hint = "leave it out: advcl fork RUN NEW names both folders";
        return Err(Error::input("--run", problem, hint).into());
    }
    if !has_begun(&what.from) {
        let hint = "name the folder of a run that has begun: advcl fork runs/quickstart runs/other";
        return Err(Error::run(&what.from, "no run has begun here", hint).into());
    }
    // Not in the place of a recipe's name, which is UTF-8.
    let arg = args::RecipeArg { recipe: None };
    let source = Shared {
        run: Some(what.from.clone()),
        ..shared.clone()
    };
    let access = Access {
        begun: true,
        purpose: Purpose::Train,
        stale: Stale::Ask,
        reads_only: true,
    };
    let forked = with_experiment(&arg, &source, access, |experiment, context| {
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
        print_status(&format!("go on with it: advcl run {}", what.to.display()));
    }
    Ok(())
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

/// Settles which device "auto" is, and makes ready for a GPU: where its choices of kernels are kept, and what is said when its
/// driver ends the program.
fn use_device(shared: &mut Shared) -> Result<()> {
    let asked = std::mem::take(&mut shared.device);
    let resolved = device::resolve(&asked)?;
    shared.device = match Launched::found() {
        Some(launched) if !asked.contains(':') => {
            device::of_local_rank(&resolved, launched.local_rank)
        }
        _ => resolved,
    };
    if shared.device != asked && !shared.quiet {
        let adapters = device::adapters();
        let adapter = adapters.iter().find(|found| found.device == shared.device);
        let name = adapter.map_or(String::new(), |adapter| format!(" ({})", adapter.name));
        print_status(&format!("device: {}{name}", shared.device));
    }
    if !shared.on_cpu() {
        let folder = cache::folder().map(|folder| folder.join("gpu"));
        device::prepare(&shared.device, folder.as_deref());
        signals::watch_driver(&shared.device);
    }
    Ok(())
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
    let mut rows = rows.map(|(name, value)| (name.to_owned(), value)).to_vec();
    rows.extend(device::gpu_build().map(|has| ("GPUs have".to_owned(), has.to_owned())));
    let adapters = device::adapters();
    if shared.json {
        let rows = rows.into_iter().map(|(name, value)| (name, value.into()));
        let mut rows: serde_json::Map<String, serde_json::Value> = rows.collect();
        if device::gpu_build().is_some() {
            rows.insert("gpus".to_owned(), serde_json::to_value(adapters)?);
        }
        return print_json(&rows);
    }
    if adapters.is_empty() && device::compiled_in().contains(&"gpu") {
        rows.push(("gpu".to_owned(), "none found".to_owned()));
    }
    rows.extend(adapters.into_iter().map(adapter_row));
    print(&table::pairs(&rows))
}

/// Name and description of an adapter.
fn adapter_row(adapter: device::Adapter) -> (String, String) {
    let memory = adapter.memory_mib.map(|mib| format!("{mib} MiB of memory"));
    let parts = [
        Some(adapter.kind.to_owned()),
        Some(adapter.interface.to_owned()),
        (!adapter.driver.is_empty()).then(|| format!("driver {}", adapter.driver)),
        memory,
        Some(format!("buffers to {} MiB", adapter.largest_buffer_mib)),
        adapter.half_precision.then(|| "f16".to_owned()),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let text = format!("{}: {}", adapter.name, parts.join(", "));
    (adapter.device, text)
}
