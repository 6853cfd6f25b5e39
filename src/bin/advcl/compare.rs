//! `advcl compare`: the recipe's rows over its seeds, as text, Markdown, CSV and JSON.

use std::path::Path;

use advcl::compare::{Comparison, Difference, Row, Spread, compare as carry_out};
use advcl::session::{Context, Event};
use advcl::{Error, device, files, finetune, pretrain};
use anyhow::{Context as _, Result};

use crate::args::{self, Format, Shared};
use crate::commands::{STOP, listen, print, print_json, resolve, tensorboard};
use crate::progress::{Progress, talk};
use crate::table::{aligned, cells, clock};

pub fn compare(what: &args::Compare, shared: &Shared) -> Result<()> {
    let device = device::open(&shared.device)?;
    let begun = |run: &std::path::PathBuf| run.join("recipe.toml").exists();
    let begun = shared.run.as_ref().is_some_and(begun);
    let usual = (!begun).then(|| "compare-quick".to_owned());
    let arg = args::RecipeArg {
        recipe: what.recipe.recipe.clone().or(usual),
    };
    let (recipe, folder) = resolve(&arg, shared)?;
    listen()?;
    let mut progress = Progress::new(shared.quiet);
    let mut board = None;
    let mut observe = |event: &Event| {
        progress.hear(event);
        if let Event::Seed { folder, .. } = event {
            // That the first event cannot be written is heard by the run's own files soon enough.
            board = tensorboard(folder, shared).ok().flatten();
        }
        board.iter_mut().for_each(|board| board.hear(event));
    };
    let mut context = Context {
        device,
        seed: recipe.seed,
        precision: shared.precision(),
        stop: &STOP,
        observe: &mut observe,
    };
    let outcome = carry_out(&recipe, &folder, &shared.device, &mut context, |failure| {
        talk(&format!(
            "failed, and the rest goes on: seed {}, {}/{}: {}",
            failure.seed, failure.method, failure.finetuning, failure.error
        ));
    });
    progress.finish();
    let outcome = outcome?;
    save(&outcome, &folder)?;
    if !shared.quiet {
        talk(&format!(
            "tables: {}/comparison.md, .csv, .json",
            folder.display()
        ));
    }
    let format = what.format.unwrap_or(match shared.json {
        true => Format::Json,
        false => Format::Text,
    });
    match format {
        Format::Text => print(&text(&outcome))?,
        Format::Md => print(&markdown(&outcome))?,
        Format::Csv => print(&csv(&outcome))?,
        Format::Json => print_json(&outcome)?,
    }
    match outcome.failures.len() {
        0 => Ok(()),
        failed => Err(Error::Rows { failed }.into()),
    }
}

fn save(outcome: &Comparison, folder: &Path) -> Result<()> {
    files::write_json(&folder.join("comparison.json"), outcome)?;
    for (name, text) in [("md", markdown(outcome)), ("csv", csv(outcome))] {
        let path = folder.join(format!("comparison.{name}"));
        files::write_atomic(&path, text.as_bytes()).context("cannot keep the tables")?;
    }
    Ok(())
}

/// "55.2 ± 1.0"; a single value has no deviation.
fn spread(spread: &Spread, digits: usize) -> String {
    match spread.deviation {
        Some(deviation) => format!("{:.digits$} ± {deviation:.digits$}", spread.mean),
        None => format!("{:.digits$}", spread.mean),
    }
}

fn time(spread: &Spread) -> String {
    match spread.mean < 10.0 {
        true => format!("{:.1} s", spread.mean),
        false => clock(spread.mean),
    }
}

/// The heads of the columns; the recipe's attacks beside PGD have one where there are some.
fn head(outcome: &Comparison) -> Vec<String> {
    let mut head = cells(["method", "finetuning", "clean %", "robust %"]);
    head.extend(outcome.attack.iter().map(|attack| format!("{attack} %")));
    head.extend(cells([
        "pretraining takes",
        "finetuning takes",
        "robust % a minute",
    ]));
    head
}

fn row_cells(row: &Row, attacked: bool) -> Vec<String> {
    let or_none = |cell: Option<String>| cell.unwrap_or_else(|| "–".to_owned());
    let mut cells = vec![
        pretrain::title(&row.method),
        finetune::title(&row.finetuning),
        spread(&row.clean, 1),
        spread(&row.robust, 1),
    ];
    if attacked {
        cells.push(or_none(row.attacked.as_ref().map(|s| spread(s, 1))));
    }
    cells.extend([
        time(&row.pretrain),
        or_none(row.finetune.as_ref().map(time)),
        or_none(
            row.robust_per_minute
                .as_ref()
                .map(|s| format!("{:.0}", s.mean)),
        ),
    ]);
    cells
}

fn gap_rows(outcome: &Comparison) -> Vec<Vec<String>> {
    let gap =
        |gap: &advcl::compare::Gap| vec![pretrain::title(&gap.method), spread(&gap.points, 1)];
    outcome.gaps.iter().map(gap).collect()
}

const GAP_HEAD: [&str; 2] = ["method", "robust points that AFF has over SLF"];

const DIFFERENCE_HEAD: [&str; 7] = [
    "finetuning",
    "method",
    "of",
    "points",
    "p",
    "p corrected",
    "verdict",
];

fn difference_cells(difference: &Difference) -> Vec<String> {
    let probability = |p: Option<f64>| p.map_or("–".to_owned(), |p| format!("{p:.3}"));
    let verdict = match (difference.p, difference.significant) {
        (None, _) => "unknown",
        (Some(_), false) => "not shown",
        (Some(_), true) if difference.points.mean > 0.0 => "more",
        (Some(_), true) => "less",
    };
    vec![
        finetune::title(&difference.finetuning),
        pretrain::title(&difference.method),
        difference.measure.to_owned(),
        spread(&difference.points, 1),
        probability(difference.p),
        probability(difference.p_corrected),
        verdict.to_owned(),
    ]
}

fn about(outcome: &Comparison) -> String {
    let seeds: Vec<String> = outcome.seeds.iter().map(u64::to_string).collect();
    format!("{}, seeds {}", outcome.data, seeds.join(", "))
}

/// The last line, where checks were made and all of them hold; warnings have a table.
fn sound(outcome: &Comparison) -> Option<String> {
    let holds = outcome.checks > 0 && outcome.warnings.is_empty();
    holds.then(|| format!("soundness: {} checks hold\n", outcome.checks))
}

/// What the table of differences says, in words.
fn against(outcome: &Comparison) -> Option<String> {
    let baseline = outcome.baseline.as_deref().map(pretrain::title)?;
    (!outcome.differences.is_empty()).then(|| {
        format!(
            "Less {baseline}, seed by seed; paired t-test, Holm's correction over the table, level {}",
            advcl::compare::LEVEL
        )
    })
}

fn tables(outcome: &Comparison) -> Vec<(String, Vec<Vec<String>>)> {
    let mut rows = vec![head(outcome)];
    let attacked = outcome.attack.is_some();
    rows.extend(outcome.rows.iter().map(|row| row_cells(row, attacked)));
    let mut tables = vec![(about(outcome), rows)];
    if !outcome.gaps.is_empty() {
        let mut rows = vec![cells(GAP_HEAD)];
        rows.extend(gap_rows(outcome));
        tables.push(("What cheap finetuning loses".to_owned(), rows));
    }
    if let Some(title) = against(outcome) {
        let mut rows = vec![cells(DIFFERENCE_HEAD)];
        rows.extend(outcome.differences.iter().map(difference_cells));
        tables.push((title, rows));
    }
    if !outcome.warnings.is_empty() {
        let mut rows = vec![cells(["method", "finetuning", "seed", "check", "found"])];
        rows.extend(outcome.warnings.iter().map(|warning| {
            vec![
                pretrain::title(&warning.method),
                finetune::title(&warning.finetuning),
                warning.seed.to_string(),
                warning.finding.check.to_string(),
                warning.finding.found.clone(),
            ]
        }));
        tables.push(("Soundness: warnings".to_owned(), rows));
    }
    if !outcome.failures.is_empty() {
        let mut rows = vec![cells(["method", "finetuning", "seed", "error"])];
        rows.extend(outcome.failures.iter().map(|failure| {
            vec![
                pretrain::title(&failure.method),
                finetune::title(&failure.finetuning),
                failure.seed.to_string(),
                failure.error.clone(),
            ]
        }));
        tables.push(("Failed".to_owned(), rows));
    }
    tables
}

fn text(outcome: &Comparison) -> String {
    let table = |(title, rows): (String, Vec<Vec<String>>)| format!("{title}\n{}", aligned(&rows));
    let tables = tables(outcome).into_iter().map(table);
    tables.chain(sound(outcome)).collect::<Vec<_>>().join("\n")
}

fn markdown(outcome: &Comparison) -> String {
    let line = |cells: &Vec<String>| format!("| {} |\n", cells.join(" | ").replace('\n', " "));
    let table = |(title, rows): (String, Vec<Vec<String>>)| {
        let (head, body) = rows.split_first().expect("a head");
        let rule = vec!["---".to_owned(); head.len()];
        let body: String = body.iter().map(line).collect();
        format!("{title}\n\n{}{}{body}", line(head), line(&rule))
    };
    let tables = tables(outcome).into_iter().map(table);
    tables.chain(sound(outcome)).collect::<Vec<_>>().join("\n")
}

/// The rows alone, in plain numbers: percent and seconds.
fn csv(outcome: &Comparison) -> String {
    let mut text = "method,finetuning,seeds,clean,clean_deviation,robust,robust_deviation,\
                    attacked,attacked_deviation,pretrain_seconds,finetune_seconds,robust_per_finetuning_minute\n"
        .to_owned();
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for row in &outcome.rows {
        let values = [
            row.method.clone(),
            row.finetuning.clone(),
            row.seeds.len().to_string(),
            row.clean.mean.to_string(),
            number(row.clean.deviation),
            row.robust.mean.to_string(),
            number(row.robust.deviation),
            number(row.attacked.map(|spread| spread.mean)),
            number(row.attacked.and_then(|spread| spread.deviation)),
            row.pretrain.mean.to_string(),
            number(row.finetune.map(|spread| spread.mean)),
            number(row.robust_per_minute.map(|spread| spread.mean)),
        ];
        text += &format!("{}\n", values.join(","));
    }
    text
}
