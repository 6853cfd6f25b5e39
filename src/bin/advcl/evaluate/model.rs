//! `advcl evaluate MODEL --data DIR`: a model file on any images, without a run folder.

use std::path::Path;

use advcl::attack::{Attacker, Suite};
use advcl::evaluate::rounded::{self, Pictured};
use advcl::evaluate::standalone::{Figures, Standalone, TestImages, depends_on};
use advcl::experiment::has_recipe;
use advcl::files;
use advcl::recipe::Threat;
use advcl::run::model_file;
use advcl::session::Context;
use advcl::{Error, device};
use anyhow::Result;
use serde::Serialize;

use crate::args::{self, Shared};
use crate::examples::ExamplesOutput;
use crate::format::{Table, quoted, radius, share};
use crate::output::{print, print_json, printable};
use crate::predict::LoadedModel;
use crate::progress::{Progress, print_status};
use crate::table;

/// Steps of PGD, each a quarter of the radius.
const STEPS: usize = 20;

/// Figures of a model file, with everything that they are of.
#[derive(Serialize)]
struct Report<'a> {
    advcl_version: &'static str,
    model: String,
    data: &'a str,
    /// Images of the data set that were evaluated: "test", or "all" where none are for testing.
    split: &'static str,
    fingerprint: &'a str,
    images: usize,
    classes: &'a [String],
    threat: &'a Threat,
    attack_steps: usize,
    attack_step_size: f64,
    clean_accuracy: f64,
    robust_accuracy: f64,
    #[serde(flatten)]
    figures: &'a Figures,
}

/// Evaluates a model file on the images in `source`.
pub fn evaluate(what: &args::Evaluate, source: &str, shared: &Shared) -> Result<()> {
    let named = what.row.stage.recipe.recipe.as_deref().map(Path::new);
    let Some(named) = named.filter(|_| shared.run.is_none()) else {
        let problem = "expected the model to evaluate on --data";
        let hint = "advcl evaluate MODEL --data DIR --attack autoattack --radius 8/255";
        return Err(Error::input("MODEL", problem, hint).into());
    };
    if has_recipe(named) {
        let problem = "a run folder is evaluated on the images of its recipe, not on --data";
        let hint = format!(
            "others stand beside them: advcl evaluate {} --set 'data.source = {source:?}'; or name one of its models",
            quoted(named)
        );
        return Err(Error::run(named, problem, hint).into());
    }
    let Some(threat) = what.threat.threat() else {
        let problem = "expected a radius within which the model is attacked, found none";
        let hint = "--radius 8/255 is usual; with --norm l2 --radius 0.5";
        return Err(Error::input("--radius", problem, hint).into());
    };
    let suite = what.attack.as_deref().map(parse_attack).transpose()?;
    let output = what.save_adversarial.as_deref().map(ExamplesOutput::of);
    if let Some(output) = &output {
        output.check(
            "--save-adversarial",
            &[Path::new(source), &model_file(named)?],
        )?;
        if suite.is_none() {
            let problem = "no attack whose adversarial examples are saved";
            let hint = "name the attack that makes them: --attack autoattack";
            return Err(Error::input("--save-adversarial", problem, hint).into());
        }
    }
    let device = device::open(&shared.device)?;
    let mut model = LoadedModel::load(named, &device)?;
    let damaged = model.read_as(&shared.set)?;
    threat.require_possible(model.values())?;
    let source = files::expand_home(source);
    let images = TestImages::load(&source, &model.info, damaged)?;
    if !shared.quiet {
        for note in &images.notes {
            print_status(&format!("data: {}", printable(note)));
        }
    }
    let classes = model.info.classes.len();
    let among = images.among(classes, what.limit)?;
    let name = named.display().to_string();
    let text = depends_on(
        &model.path,
        &files::read(&model.path)?,
        &images,
        suite.as_ref(),
    );
    let subject = Standalone {
        name: &name,
        classifier: &model.classifier,
        classes,
        split: &images.split,
        among: &among,
        attacker: Attacker::new(threat.ball(), STEPS, None),
        suite: suite.as_ref(),
        depends_on: &text,
    };
    let mut progress = Progress::new(shared.quiet);
    let (figures, pictured) = {
        let mut context = Context::new(device).observed(|event| progress.on_event(event));
        let (figures, found) = subject.run(&mut context)?;
        let pictured = match (&output, found) {
            (Some(output), Some((examples, info))) => {
                let frozen = model.classifier.frozen();
                let logits = |x| frozen.logits(x);
                let evaluator = subject.evaluator(&logits);
                let rounded = match output {
                    ExamplesOutput::File(_) => Vec::new(),
                    _ => rounded::round(&examples, &evaluator, threat.ball(), &mut context)?,
                };
                Some(Pictured {
                    examples,
                    info,
                    rounded,
                    classes: model.info.classes.clone(),
                    originals: images.split.images.clone(),
                })
            }
            _ => None,
        };
        (figures, pictured)
    };
    progress.finish();
    let total = &figures.accuracy.total;
    let fraction = |part: usize| part as f64 / total.images as f64;
    let report = Report {
        advcl_version: env!("CARGO_PKG_VERSION"),
        model: name.clone(),
        data: &images.name,
        split: images.part,
        fingerprint: &images.fingerprint,
        images: total.images,
        classes: &model.info.classes,
        threat: &threat,
        attack_steps: STEPS,
        attack_step_size: subject.attacker.pgd.step_size,
        clean_accuracy: fraction(total.clean),
        robust_accuracy: fraction(total.robust),
        figures: &figures,
    };
    // Before the files: figures of hours are not lost to a full disk.
    match shared.json {
        true => print_json(&report)?,
        false => print(&text_of(&report))?,
    }
    match (&output, &pictured) {
        (Some(output), Some(pictured)) => super::write_once(output, pictured, shared),
        _ => Ok(()),
    }
}

/// Attacks by name, as `--attack` has them.
pub fn parse_attack(names: &str) -> advcl::Result<Suite> {
    let suite = Suite::listed(names);
    suite.map_err(|problem| Error::input("--attack", problem, "several are separated by commas"))
}

/// The figures as they are printed.
fn text_of(report: &Report) -> String {
    let total = &report.figures.accuracy.total;
    let mut table = Table::new()
        .left("model")
        .right("clean")
        .right("robust")
        .right("radius")
        .right("attack");
    table.row([
        report.model.clone(),
        share(total.clean, total.images),
        share(total.robust, total.images),
        radius(report.threat),
        format!("PGD-{}", report.attack_steps),
    ]);
    let mut text = table.text();
    if let Some(attacked) = &report.figures.attacked {
        let attacked = table::attacked(&report.model, report.attack_steps, attacked);
        text += &format!("\n{attacked}");
    }
    let checked = std::iter::once((report.model.clone(), &report.figures.soundness));
    format!("{text}\n{}", table::soundness(checked))
}
