//! Recipe, versions, commands.

use advcl::pretrain;
use advcl::report::Folder;
use maud::{Markup, html};

use super::figures;
use super::html::table;
use super::page::{Report, distinct};
use super::quoted;

/// Recipe, versions, commands.
pub fn repeat(report: &Report) -> Markup {
    html! {
        p { "A recipe and its seed decide every number; the same version on the same kind of processor repeats them to the bit." }
        @for folder in report.folders {
            @if report.folders.len() > 1 { h3 { (folder.name) } }
            @let name = figures::folder_name(folder);
            div.pair {
                (machine(folder))
                pre tabindex="0" role="region" aria-label={ "Commands for " (name) } { code { (commands(folder)) } }
            }
            details {
                summary { "The whole recipe of " (folder.name) }
                pre tabindex="0" role="region" aria-label={ "Recipe of " (folder.name) } { code { (folder.recipe.to_toml()) } }
            }
        }
        p { "Encoders: " (encoders(report.leads)) "." }
    }
}

fn encoders(leads: &[&Folder]) -> String {
    let titles = leads.iter().flat_map(|folder| {
        folder
            .recipe
            .pretrain
            .entries()
            .iter()
            .map(|entry| pretrain::title(&entry.name))
    });
    distinct(titles).join(", ")
}

fn machine(folder: &Folder) -> Markup {
    let note = |key: &str| {
        let value = folder.machine.as_ref().map(|note| &note[key]);
        value.map_or("unknown".to_owned(), |value| match value.as_str() {
            Some(text) => text.to_owned(),
            None => value.to_string(),
        })
    };
    let rows: Vec<Vec<String>> = [
        ("advcl", note("advcl_version")),
        ("device", note("device")),
        ("cores", note("cores")),
        (
            "system",
            format!("{}, {}", note("os"), note("architecture")),
        ),
        ("seed", folder.recipe.seed.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.to_owned(), value])
    .collect();
    table(
        &format!("Where {} was made", folder.name),
        &["what", "value"].map(str::to_owned),
        &rows,
    )
}

fn commands(folder: &Folder) -> String {
    let run = quoted(&folder.path);
    let mut lines = vec![
        "# the recipe below as recipe.toml".to_owned(),
        format!("advcl run recipe.toml --run {run}"),
    ];
    if folder.rows.iter().any(|row| row.outcome.measures.is_some()) {
        lines.push(format!("advcl evaluate {run} --measure all"));
    }
    let report = folder.comparison.as_ref().map_or(run, |path| quoted(path));
    lines.push(format!("advcl report {report}"));
    lines.join("\n")
}
