//! `advcl evaluate`: clean and robust accuracy, more attacks, more measures, and stored examples checked.

mod model;

pub use model::parse_attack;

use std::path::Path;

use advcl::Error;
use advcl::attack::Suite;
use advcl::evaluate::measures::Measure;
use advcl::evaluate::rounded::Pictured;
use advcl::experiment::{Cell, Purpose, Stale, Summary, has_recipe};
use advcl::ranks;
use advcl::run::{layout, model_file};
use anyhow::Result;

use crate::args::{self, Shared};
use crate::examples::ExamplesOutput;
use crate::format::{quoted, row_title};
use crate::output::{print, print_json};
use crate::session::{Access, resolve, with_experiment, with_rows};
use crate::{measures, table};

/// Prints the table of rows, what each attack did, and the soundness checks.
pub fn print_summary(summary: &Summary, shared: &Shared) -> Result<()> {
    if shared.json {
        return print_json(summary);
    }
    print(&table::summary(summary))?;
    let balance = table::balance(summary, shared.verbose);
    if !balance.is_empty() {
        print(&format!("\n{balance}"))?;
    }
    for outcome in &summary.outcomes {
        if let Some(attacked) = &outcome.attacked {
            let (name, steps) = (row_title(outcome), outcome.attack_steps);
            print(&format!("\n{}", table::attacked(&name, steps, attacked)))?;
        }
    }
    let outcomes = summary.outcomes.iter();
    let checked = outcomes.filter_map(|o| Some((row_title(o), o.soundness.as_ref()?)));
    let soundness = table::soundness(checked);
    if !soundness.is_empty() {
        print(&format!("\n{soundness}"))?;
    }
    if shared.verbose {
        print(&format!("\n{}", table::classes(summary)))?;
    }
    Ok(())
}

pub fn evaluate(what: &args::Evaluate, shared: &Shared) -> Result<()> {
    if let Some(data) = &what.data {
        return model::evaluate(what, data, shared);
    }
    refuse_model(what)?;
    if what.threat.radius.is_some() || what.threat.norm.is_some() {
        let problem = "a run folder's radius and norm are those of its recipe";
        let hint = "--set 'threat = { norm = \"l2\", radius = \"0.5\" }' --set 'evaluate.step_size = \"0.125\"' evaluates within others, by steps of a quarter";
        return Err(Error::input("--radius", problem, hint).into());
    }
    let access = Access {
        begun: true,
        purpose: Purpose::Evaluate,
        stale: if what.reuse { Stale::Reuse } else { Stale::Ask },
        reads_only: what.verify.is_some(),
    };
    if let Some(file) = &what.verify {
        return verify(&what.row, access, file, shared);
    }
    let wanted = match &what.measure {
        Some(names) => Measure::list(names)?,
        None => Vec::new(),
    };
    let mut shared = shared.clone();
    shared.set.extend(
        what.measure_limit
            .iter()
            .map(|limit| format!("evaluate.measure_limit = {limit}")),
    );
    shared.set.extend(what.attack.as_deref().map(attack_key));
    let output = what.save_adversarial.as_deref().map(ExamplesOutput::of);
    if let Some(output) = &output {
        let stage = &what.row.stage;
        let (recipe, folder) = resolve(&stage.recipe, &shared)?;
        let sources: Vec<&Path> = recipe.sources().map(Path::new).collect();
        output.check("--save-adversarial", &sources)?;
        let cells = Cell::of(&recipe, stage.method.as_deref(), what.row.mode.as_deref())?;
        if cells.len() > 1 {
            let problem = format!(
                "{} rows, and one file for adversarial examples",
                cells.len()
            );
            let hint = "choose one with --method and --mode";
            return Err(Error::run(folder, problem, hint).into());
        }
    }
    let mut pictured = None;
    let summary = with_rows(&what.row, &shared, access, |experiment, cells, context| {
        if !wanted.is_empty() {
            experiment.measure(cells, &wanted, context)?;
        }
        let summary = experiment.evaluate(cells, context)?;
        match (&output, cells) {
            (Some(ExamplesOutput::File(path)), [cell]) => {
                experiment.save_adversarial(cell, path)?
            }
            (Some(_), [cell]) => pictured = Some(experiment.pictured(cell, context)?),
            _ => {}
        }
        Ok(summary)
    })?;
    if let (Some(output), Some(pictured)) = (&output, &pictured) {
        write_once(output, pictured, &shared)?;
    }
    print_summary(&summary, &shared)?;
    // Tables of earlier days are in the JSON and in the report.
    if !wanted.is_empty() && !shared.json {
        for table in measures::tables(&summary) {
            print(&format!("\n{table}"))?;
        }
    }
    Ok(())
}

/// Writes adversarial examples, on the first rank.
fn write_once(output: &ExamplesOutput, pictured: &Pictured, shared: &Shared) -> Result<()> {
    match ranks::speaks() {
        true => ranks::alone(|| output.write(pictured, shared)),
        false => Ok(()),
    }
}

/// The recipe's key for `--attack NAME`, or for a list of names.
fn attack_key(names: &str) -> String {
    match Suite::listed(names) {
        Ok(suite) if names.contains(',') => {
            let list = toml::Value::try_from(&suite).expect("plain values");
            format!("evaluate.attack = {list}")
        }
        // An unknown name is refused as the recipe's is.
        _ => format!("evaluate.attack = {names:?}"),
    }
}

/// Refuses a model file in the place of a run folder, unless the images are named.
fn refuse_model(what: &args::Evaluate) -> advcl::Result<()> {
    let Some(path) = what.row.stage.recipe.recipe.as_deref().map(Path::new) else {
        return Ok(());
    };
    let is_file = path.extension().is_some_and(|e| e == "safetensors") && path.is_file();
    let is_folder = path.join(layout::MODEL).is_file() && !has_recipe(path);
    if !is_file && !is_folder {
        return Ok(());
    }
    let name = quoted(path);
    let images =
        format!("name them: advcl evaluate {name} --data DIR --attack autoattack --radius 8/255");
    let file = model_file(path)?;
    let inside = file.ancestors().skip(2).find(|folder| has_recipe(folder));
    let hint = match inside {
        Some(run) if !run.as_os_str().is_empty() => {
            format!(
                "{images}; or evaluate it in its run: advcl evaluate {}",
                quoted(run)
            )
        }
        _ => images,
    };
    let problem = "a model file has no recipe that says on which images to evaluate it";
    Err(Error::model(path, problem, hint))
}

/// Fails where an example is not what it should be, after saying which.
fn verify(row: &args::Row, access: Access, file: &Path, shared: &Shared) -> Result<()> {
    let found = with_experiment(&row.stage.recipe, shared, access, |experiment, context| {
        experiment.verify(file, context)
    })?;
    match shared.json {
        true => print_json(&found)?,
        false => print(&table::verification(&found))?,
    }
    match found.holds() {
        true => Ok(()),
        false => Err(Error::Examples {
            path: file.to_path_buf(),
            wrong: found.examples - found.valid,
            examples: found.examples,
        }
        .into()),
    }
}
