//! `advcl evaluate`: clean and robust accuracy, more attacks, more measures, and stored examples checked.

use std::path::Path;

use advcl::Error;
use advcl::evaluate::adversarial::Adversarial;
use advcl::evaluate::measures::Measure;
use advcl::experiment::{Cell, Purpose, Stale, Summary};
use advcl::files::check_output;
use anyhow::Result;

use crate::args::{self, Shared};
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

pub fn evaluate(what: &args::Evaluate, shared: &Shared) -> Result<()> {
    let access = Access {
        begun: true,
        purpose: Purpose::Evaluate,
        stale: if what.reuse { Stale::Reuse } else { Stale::Ask },
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
    shared.set.extend(
        what.attack
            .iter()
            .map(|name| format!("evaluate.attack = {name:?}")),
    );
    let save = what.save_adversarial.as_deref();
    if let Some(path) = save {
        require_replaceable(path)?;
        let stage = &what.row.stage;
        let (recipe, folder) = resolve(&stage.recipe, &shared)?;
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
    let summary = with_rows(&what.row, &shared, access, |experiment, cells, context| {
        if !wanted.is_empty() {
            experiment.measure(cells, &wanted, context)?;
        }
        let summary = experiment.evaluate(cells, context)?;
        if let (Some(path), [cell]) = (save, cells) {
            experiment.save_adversarial(cell, path)?;
        }
        Ok(summary)
    })?;
    print_summary(&summary, &shared)?;
    // Tables of earlier days are in the JSON and in the report.
    if !wanted.is_empty() && !shared.json {
        for table in measures::tables(&summary) {
            print(&format!("\n{table}"))?;
        }
    }
    Ok(())
}

/// Refuses an output where writing it would lose a file that is not of this kind, before hours of attacks.
fn require_replaceable(path: &Path) -> Result<()> {
    let ours = Adversarial::is_file(path);
    check_output(path, "--save-adversarial", &[], true)?;
    if !ours && std::fs::metadata(path).is_ok_and(|about| about.is_file()) {
        return Err(Error::Output {
            path: path.to_path_buf(),
            problem: "the file exists already, and holds no adversarial examples".to_owned(),
            hint: "name another file with --save-adversarial".to_owned(),
        }
        .into());
    }
    Ok(())
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
