//! `advcl compare`: the recipe's rows over its seeds, as text, Markdown, CSV and JSON.

use std::path::Path;

use advcl::compare::{Comparison, FailedRow, Spread, compare as carry_out, write_into};
use advcl::experiment::has_recipe;
use advcl::session::{Context, Event};
use advcl::{Error, device, files};
use anyhow::{Context as _, Result};

use crate::args::{self, Format, Shared};
use crate::format::comparison::{differences, note, power, sentences, soundness, tables};
use crate::format::{Table, printable};
use crate::output::{print, print_exactly, print_json};
use crate::progress::{Progress, print_status};
use crate::session::{resolve, say_notes, say_who_computes, tensorboard};
use crate::signals::{STOP, listen};

pub fn compare(what: &args::Compare, shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let mut shared = shared.clone();
    if !what.seeds.is_empty() {
        shared.set.push(format!("compare.seeds = {:?}", what.seeds));
    }
    let shared = &shared;
    let begun = shared.run.as_deref().is_some_and(has_recipe);
    let usual = (!begun).then(|| "compare-quick".to_owned());
    let arg = args::RecipeArg {
        recipe: what.recipe.recipe.clone().or(usual),
    };
    let (recipe, folder) = resolve(&arg, shared)?;
    say_notes(&recipe, true, shared);
    say_who_computes(&device, recipe.precision);
    listen()?;
    let mut progress = Progress::new(shared.quiet).of_recipe(&recipe, shared.verbose);
    let mut board = None;
    let observe = |event: &Event| {
        progress.on_event(event);
        if let Event::Seed { folder, .. } = event {
            // A folder that cannot be written to fails with the run's own files soon after.
            board = tensorboard(folder, shared).ok().flatten();
        }
        board.iter_mut().for_each(|board| board.on_event(event));
    };
    let mut context = Context::new(device).stopped_by(&STOP).observed(observe);
    let stale = what.stale.answer();
    let on_failure = |failure: &FailedRow| {
        print_status(&format!(
            "seed {}, {}/{} failed, continuing with the rest: {}",
            failure.seed, failure.method, failure.finetuning, failure.error
        ));
    };
    let device = &shared.device;
    let mut methods: Vec<String> = Vec::new();
    for name in &what.method {
        if !methods.contains(name) {
            methods.push(name.clone());
        }
    }
    let outcome = carry_out(
        &recipe,
        &methods,
        &folder,
        device,
        stale,
        &mut context,
        on_failure,
    );
    drop(context);
    progress.finish();
    let outcome = outcome?;
    // The files are of the whole recipe, which nobody should find replaced by a part.
    let whole = methods.is_empty();
    if whole {
        save(&outcome, &folder)?;
    }
    if whole && !shared.quiet {
        print_status(&format!(
            "tables: {}/comparison.md, .csv, .json",
            folder.display()
        ));
    }
    let usual = if shared.json {
        Format::Json
    } else {
        Format::Text
    };
    match what.format.unwrap_or(usual) {
        Format::Text => print(&text(&outcome))?,
        Format::Md => print(&markdown(&outcome))?,
        Format::Csv => print_exactly(&csv(&outcome))?,
        Format::Json => print_json(&outcome)?,
    }
    match outcome.failures.len() {
        0 => Ok(()),
        failed => Err(Error::Rows { failed }.into()),
    }
}

fn save(outcome: &Comparison, folder: &Path) -> Result<()> {
    let written = write_into(folder, || {
        files::write_json(&folder.join("comparison.json"), outcome)?;
        for (name, text) in [("md", markdown(outcome)), ("csv", csv(outcome))] {
            let path = folder.join(format!("comparison.{name}"));
            files::write_atomic(&path, text.as_bytes())?;
        }
        Ok(())
    });
    written.context("cannot keep the tables")
}

/// Joins the tables with their titles and the notes about them.
fn document(outcome: &Comparison, table: impl Fn(&str, &Table) -> String) -> String {
    let mut parts = Vec::new();
    for (title, rows) in tables(outcome) {
        parts.push(table(&printable(&title), &rows));
        if parts.len() == 1 {
            parts.push(format!("{}\n", note(outcome)));
        }
        // What the tests say, behind their table.
        if title == differences(outcome).0 {
            let sentences = sentences(outcome).into_iter().chain(power(outcome));
            parts.extend(sentences.map(|sentence| format!("{sentence}\n")));
        }
    }
    parts.extend(soundness(outcome).map(|line| line + "\n"));
    parts.join("\n")
}

fn text(outcome: &Comparison) -> String {
    document(outcome, |title, table| format!("{title}\n{}", table.text()))
}

fn markdown(outcome: &Comparison) -> String {
    let table = |title: &str, table: &Table| format!("{title}\n\n{}", table.markdown());
    document(outcome, table)
}

/// The means as plain numbers: shares in [0, 1], as in the report's, and seconds.
fn csv(outcome: &Comparison) -> String {
    let heads = [
        "method",
        "finetuning",
        "seeds",
        "images",
        "clean",
        "clean_deviation",
        "robust",
        "robust_deviation",
        "attacked_images",
        "attacked",
        "attacked_deviation",
        "robust_on_attacked",
        "robust_on_attacked_deviation",
        "pretrain_seconds",
        "finetune_seconds",
        "evaluate_seconds",
    ];
    let table = heads.into_iter().fold(Table::new(), Table::left);
    let rows = outcome.rows.iter().fold(table, |mut table, row| {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        // Spreads are in percent.
        let share = |value: Option<f64>| {
            value.map_or(String::new(), |percent| format!("{:.6}", percent / 100.0))
        };
        let both = |spread: Option<&Spread>| {
            let deviation = spread.and_then(|spread| spread.deviation);
            [share(spread.map(|spread| spread.mean)), share(deviation)]
        };
        let count = |value: Option<usize>| value.map_or(String::new(), |n| n.to_string());
        let mut cells = vec![row.method.clone(), row.finetuning.clone()];
        cells.extend([row.seeds.len().to_string(), row.images.to_string()]);
        cells.extend(both(Some(&row.clean)));
        cells.extend(both(Some(&row.robust)));
        cells.push(count(row.attacked_images));
        cells.extend(both(row.attacked.as_ref()));
        cells.extend(both(row.robust_on_attacked.as_ref()));
        cells.extend([
            number(Some(row.pretrain.mean)),
            number(row.finetune.map(|spread| spread.mean)),
            number(Some(row.evaluate.mean)),
        ]);
        table.row(cells);
        table
    });
    rows.csv()
}
