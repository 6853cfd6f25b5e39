//! Recipe, versions, commands.

use advcl::pretrain;
use advcl::report::ReportedRun;
use maud::{Markup, html};

use super::headline::run_name;
use super::html::table;
use super::model::{ReportPage, distinct};
use crate::format::{Table, quoted};

/// Recipe, versions, commands.
pub fn repeat(report: &ReportPage) -> Markup {
    html! {
        p { "The recipe and its seed determine every number; the same version on the same kind of processor repeats them to the bit." }
        @for run in report.runs {
            @if report.runs.len() > 1 { h3 { (run.name) } }
            @let name = run_name(run);
            div.pair {
                (machine(run))
                pre tabindex="0" role="region" aria-label={ "Commands for " (name) } { code { (commands(run)) } }
            }
            details {
                summary { "The whole recipe of " (run.name) }
                pre tabindex="0" role="region" aria-label={ "Recipe of " (run.name) } { code { (run.recipe.to_toml()) } }
            }
        }
        p { "Encoders: " (encoders(report.leads)) "." }
    }
}

fn encoders(leads: &[&ReportedRun]) -> String {
    let entries = leads.iter().flat_map(|run| run.recipe.pretrain.entries());
    distinct(entries.map(|entry| pretrain::title(&entry.name))).join(", ")
}

fn machine(run: &ReportedRun) -> Markup {
    let note = |key: &str| {
        let value = run.machine.as_ref().map(|note| &note[key]);
        value.map_or("unknown".to_owned(), |value| match value.as_str() {
            Some(text) => text.to_owned(),
            None => value.to_string(),
        })
    };
    let mut rows = Table::new().left("what").right("value");
    for key in ["advcl_version", "device", "cores"] {
        rows.row([key.trim_end_matches("_version").to_owned(), note(key)]);
    }
    let ways = run
        .machine
        .as_ref()
        .and_then(|note| note["arithmetic"].as_array());
    if let Some(ways) = ways {
        let ways: Vec<&str> = ways.iter().filter_map(|way| way.as_str()).collect();
        rows.row(["arithmetic".to_owned(), ways.join("; ")]);
    }
    let starts = run
        .machine
        .as_ref()
        .and_then(|note| note["starts"].as_object());
    for (name, weights) in starts.into_iter().flatten() {
        let what = format!("{} starts at", pretrain::title(name));
        rows.row([what, weights.as_str().unwrap_or_default().to_owned()]);
    }
    let system = format!("{}, {}", note("os"), note("architecture"));
    rows.row(["system".to_owned(), system]);
    rows.row(["seed".to_owned(), run.recipe.seed.to_string()]);
    table(&format!("Where {} was made", run.name), &rows)
}

fn commands(run: &ReportedRun) -> String {
    let path = quoted(&run.path);
    let mut lines = vec![
        "# the recipe below as recipe.toml".to_owned(),
        format!("advcl run recipe.toml --run {path}"),
    ];
    if run.rows.iter().any(|row| row.outcome.measures.is_some()) {
        lines.push(format!("advcl evaluate {path} --measure all"));
    }
    let report = run.comparison.as_ref().map_or(path, |path| quoted(path));
    lines.push(format!("advcl report {report}"));
    lines.join("\n")
}
