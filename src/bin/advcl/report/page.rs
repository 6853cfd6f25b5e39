//! The page: what comes first, what can be believed, how to repeat it.

use advcl::pretrain;
use advcl::report::Folder;
use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::figures::{self, Figure, Line};
use super::html::{count, folded, legend, percent, table};
use super::plots::{Whisker, whiskers};
use super::{Shown, Views, measured, pictures, quoted, training};
use crate::table::clock;

/// Everything that is on it.
pub struct Report<'a> {
    pub folders: &'a [Folder],
    /// Those that pictures and curves are of.
    pub leads: &'a [&'a Folder],
    pub lines: &'a [Line],
    pub shown: &'a [Shown<'a>],
    pub views: &'a [Views<'a>],
}

/// A part of the page, and what it takes to have it where it is missing.
pub struct Section {
    pub id: &'static str,
    pub title: &'static str,
    pub body: Body,
}

/// What is in a section.
pub enum Body {
    There(Markup),
    /// Why not, and the command that would make it.
    Missing(String, Option<String>),
}

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn page(report: &Report) -> Result<String> {
    let sections = [
        section(
            "accuracy",
            "Accuracy, clean and attacked",
            Ok(accuracy(report)?),
        ),
        section("soundness", "Can it be believed?", soundness(report)),
        section("attacks", "Attack by attack", attacks(report)),
        section(
            "curves",
            "Accuracy against radius and steps",
            measured::curves(report)?,
        ),
        section("examples", "Attacked images", pictures::examples(report)),
        section("views", "Views of pretraining", pictures::views(report)),
        section("map", "Map of the features", pictures::maps(report)?),
        section(
            "surface",
            "Loss around an image",
            pictures::surfaces(report)?,
        ),
        section("classes", "Class by class", measured::classes(report)?),
        section(
            "corruptions",
            "Common corruptions",
            measured::corruptions(report)?,
        ),
        section("calibration", "Calibration", measured::calibration(report)?),
        section(
            "transfer",
            "Transfer between models",
            measured::transfer(report),
        ),
        section("training", "Training", training::curves(report)?),
        section("repeat", "How to repeat it", Ok(repeat(report))),
    ];
    let title = title(report);
    let missing: Vec<&Section> = sections
        .iter()
        .filter(|s| matches!(s.body, Body::Missing(..)))
        .collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(concat!("advcl ", env!("CARGO_PKG_VERSION")));
                // Nothing is fetched from anywhere, and the browser holds the page to it.
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                link rel="icon" href="data:,";
                title { (title) " – advcl report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#accuracy" { "Skip to the figures" }
                (header(report, &title, &sections))
                main {
                    @for section in &sections {
                        @if let Body::There(body) = &section.body {
                            section id=(section.id) aria-labelledby={ "h-" (section.id) } {
                                h2 id={ "h-" (section.id) } { (section.title) }
                                (body)
                            }
                        }
                    }
                    @if !missing.is_empty() { (not_there(&missing)) }
                }
                footer {
                    p { "Made by advcl " (env!("CARGO_PKG_VERSION")) ". This page is one file: it loads nothing and sends nothing." }
                }
            }
        }
    };
    Ok(page.into_string())
}

fn section(
    id: &'static str,
    title: &'static str,
    body: Result<Markup, (String, Option<String>)>,
) -> Section {
    let body = match body {
        Ok(body) => Body::There(body),
        Err((why, command)) => Body::Missing(why, command),
    };
    Section { id, title, body }
}

fn not_there(missing: &[&Section]) -> Markup {
    html! {
        section id="missing" aria-labelledby="h-missing" {
            h2 id="h-missing" { "Not in this report" }
            ul {
                @for section in missing {
                    @if let Body::Missing(why, command) = &section.body {
                        li {
                            strong { (section.title) } ": " (why)
                            @if let Some(command) = command { "; " code { (command) } " makes it" }
                            "."
                        }
                    }
                }
            }
        }
    }
}

fn title(report: &Report) -> String {
    let mut names: Vec<&str> = Vec::new();
    for folder in report.leads {
        names.push(figures::folder_name(folder));
    }
    names.join(", ")
}

/// The row with the highest robust accuracy under what attacks it most.
fn best(lines: &[Line]) -> Option<&Line> {
    let share = |line: &Line| line.worst().1.share;
    lines.iter().max_by(|a, b| share(a).total_cmp(&share(b)))
}

fn header(report: &Report, title: &str, sections: &[Section]) -> Markup {
    let first = &report.folders[0];
    let lead = best(report.lines);
    let split = first.rows[0].outcome.split;
    let images = match split {
        advcl::recipe::SplitName::Test => "test images",
        advcl::recipe::SplitName::Holdout => "held-out images",
    };
    let sources: Vec<String> = distinct(report.leads.iter().map(|folder| {
        let target = folder.recipe.downstream.as_ref().map(|d| &d.source);
        target.unwrap_or(&folder.recipe.data.source).clone()
    }));
    let radii = distinct(report.lines.iter().map(|line| line.radius.clone()));
    let seeds = distinct(
        report
            .folders
            .iter()
            .map(|folder| folder.recipe.seed.to_string()),
    );
    let versions = distinct(report.folders.iter().filter_map(|folder| {
        let note = folder.machine.as_ref()?;
        Some(note["advcl_version"].as_str()?.to_owned())
    }));
    let warned: Vec<&Shown> = report
        .shown
        .iter()
        .filter(|shown| {
            shown
                .soundness()
                .is_some_and(|all| all.warnings().next().is_some())
        })
        .collect();
    html! {
        header {
            p.eyebrow { "Robustness report" }
            h1 { (title) }
            @if let Some(line) = lead {
                @let (attack, worst) = line.worst();
                p.lede {
                    @if report.lines.len() > 1 { "Most robust of " (report.lines.len()) ": " }
                    strong { (line.title()) }
                    ", right on " strong { (percent(worst.share)) } " of "
                    (count(line.attacked.as_ref().map_or(line.images, |a| a.images))) " " (images) " under "
                    (attack) " within " (line.radius) ", and on " strong { (percent(line.clean.share)) } " as they are."
                }
            }
            ul.facts aria-label="What was measured" {
                li { span { "data " } (sources.join(", ")) }
                li { span { (images) " " } (distinct(report.lines.iter().map(|line| count(line.images))).join(", ")) }
                li { span { "radius " } (radii.join(", ")) }
                li { span { @if seeds.len() > 1 { "seeds " } @else { "seed " } } (seeds.join(", ")) }
                @if !versions.is_empty() { li { span { "made with advcl " } (versions.join(", ")) } }
            }
            @if !warned.is_empty() {
                div.warning role="note" {
                    h2 { "Read this first: the robust accuracy may not hold" }
                    ul {
                        @for shown in warned {
                            @for finding in shown.soundness().iter().flat_map(|all| all.warnings()) {
                                li { strong { (shown.label) ", " (finding.check) } ": " (finding.meaning) }
                            }
                        }
                    }
                    p { a href="#soundness" { "All checks" } }
                }
            }
            nav aria-label="Contents" {
                ul {
                    @for section in sections {
                        @if let Body::There(_) = section.body {
                            li { a href={ "#" (section.id) } { (section.title) } }
                        }
                    }
                }
            }
        }
    }
}

/// Each once, in order.
fn distinct(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = Vec::new();
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

/// "76.8 % (74.9–78.6)", or "76.8 ± 0.5 %".
fn cell(figure: &Figure) -> Markup {
    html! {
        @match figure.deviation {
            Some(deviation) => {
                span.big { (format!("{:.1}", 100.0 * figure.share)) }
                span.range { (format!(" ± {:.1}\u{a0}%", 100.0 * deviation)) }
            }
            None => {
                span.big { (percent(figure.share)) }
                span.range { (format!(" {:.1}–{:.1}", 100.0 * figure.low, 100.0 * figure.high)) }
            }
        }
    }
}

/// The figures that everybody asks for first.
fn accuracy(report: &Report) -> Result<Markup> {
    let lines = report.lines;
    let several = report.leads.len() > 1;
    let name = |line: &Line| match several {
        true => format!("{}: {}", line.run, line.title()),
        false => line.title(),
    };
    let suite = lines.iter().find_map(|line| line.attacked.as_ref());
    let suite = suite.map(|attacked| figures::suite_title(&attacked.suite));
    let attacks = distinct(lines.iter().map(|line| format!("PGD-{}", line.steps))).join(", ");
    let seeds = lines.iter().any(|line| line.seeds > 1);
    let whisker = |style: usize, figure: &Figure| Whisker {
        style,
        value: figure.share,
        low: figure.low,
        high: figure.high,
    };
    let rows: Vec<(String, Vec<Whisker>)> = lines
        .iter()
        .map(|line| {
            let mut values = vec![whisker(0, &line.clean), whisker(1, &line.robust)];
            values.extend(line.attacked.as_ref().map(|a| whisker(3, &a.robust)));
            (name(line), values)
        })
        .collect();
    let words: Vec<String> = lines
        .iter()
        .map(|line| {
            let (clean, robust) = (percent(line.clean.share), percent(line.robust.share));
            format!("{} {clean} clean, {robust} under PGD", name(line))
        })
        .collect();
    let plot = whiskers(
        &format!("Accuracy on one scale. {}.", words.join("; ")),
        &rows,
    )
    .map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut items = vec![(0, "as they are".to_owned()), (1, attacks.clone())];
    items.extend(suite.iter().map(|suite| (3, suite.clone())));
    let items: Vec<(usize, &str)> = items
        .iter()
        .map(|(style, name)| (*style, name.as_str()))
        .collect();
    let noise = match seeds {
        true => {
            "Bars: the mean ± one standard deviation over the seeds; 95 % intervals of the images (Wilson) where there is one seed."
        }
        false => {
            "Bars: 95 % intervals (Wilson) for the number of images; another seed of training may differ by more."
        }
    };
    let takes = |line: &Line| clock(line.seconds);
    // Said once above, where all have the same.
    let radii = lines.iter().any(|line| line.radius != lines[0].radius);
    let images = lines.iter().any(|line| line.images != lines[0].images);
    Ok(html! {
        p { "Share of the images that are classified correctly: as they are, and after an attacker changed each of them within the radius." }
        @if suite.is_none() {
            div.notice role="note" {
                p { strong { "An upper bound. " } "Only PGD attacked here, and PGD alone flatters. "
                    code { "advcl evaluate " (quoted(&report.leads[0].path)) " --attack autoattack" } " runs the standard attack." }
            }
        }
        div.pair {
            figure {
                figcaption { (noise) }
                (PreEscaped(plot))
                (legend(items))
            }
            div.scroll tabindex="0" role="region" aria-label="Accuracy of each classifier" {
                table.headline {
                    caption { "Accuracy of each classifier" }
                    thead { tr {
                        th scope="col" { "classifier" }
                        th scope="col" { "clean" }
                        th scope="col" { (attacks) }
                        @if let Some(suite) = &suite { th scope="col" { (suite) } }
                        @if radii { th scope="col" { "radius" } }
                        @if images { th scope="col" { "images" } }
                        @if seeds { th scope="col" { "seeds" } }
                        th scope="col" { "took" }
                    } }
                    tbody {
                        @for line in lines {
                            tr {
                                th scope="row" { (name(line)) }
                                td { (cell(&line.clean)) }
                                td { (cell(&line.robust)) }
                                @if suite.is_some() {
                                    td { @match &line.attacked { Some(a) => (cell(&a.robust)), None => "–" } }
                                }
                                @if radii { td { (line.radius) } }
                                @if images { td { (count(line.images)) } }
                                @if seeds { td { (line.seeds) } }
                                td { (takes(line)) }
                            }
                        }
                    }
                }
            }
        }
        @for shown in report.shown.iter().filter(|shown| !shown.up_to_date) {
            div.warning role="note" {
                p { strong { (shown.label) } ": measured with other settings or other images than the recipe's now. "
                    code { "advcl evaluate " (quoted(&shown.folder.path)) } " measures anew." }
            }
        }
        @for folder in report.folders.iter().filter(|folder| !folder.missing.is_empty()) {
            p { (folder.name) ": not evaluated yet: " (folder.missing.join(", ")) ". "
                code { "advcl run " (quoted(&folder.path)) } " goes on." }
        }
    })
}

/// What is missing and what makes it.
pub type Part = Result<Markup, (String, Option<String>)>;

fn soundness(report: &Report) -> Part {
    let checked: Vec<&Shown> = report
        .shown
        .iter()
        .filter(|s| s.soundness().is_some())
        .collect();
    if checked.is_empty() {
        let command = format!("advcl evaluate {}", quoted(&report.leads[0].path));
        return Err(("no checks were made".to_owned(), Some(command)));
    }
    let rows = |shown: &Shown| -> Vec<Vec<String>> {
        let all = shown.soundness().map_or(&[][..], |all| &all.findings[..]);
        all.iter()
            .map(|finding| {
                let mark = if finding.holds {
                    "✓ holds"
                } else {
                    "✗ warning"
                };
                vec![
                    finding.check.clone(),
                    mark.to_owned(),
                    finding.found.clone(),
                ]
            })
            .collect()
    };
    let head = ["check", "outcome", "found"].map(str::to_owned);
    Ok(html! {
        p { "Evaluations of robustness fail in known ways: gradients that are hidden, outputs that change, attacks too weak. Each is checked for." }
        @for shown in checked {
            @let all = shown.soundness().map_or(0, |all| all.findings.len());
            @let wrong: Vec<_> = shown.soundness().iter().flat_map(|all| all.warnings()).collect();
            h3 { (shown.label) }
            @if wrong.is_empty() {
                p { strong.good { "✓ All " (all) " checks hold." } }
            } @else {
                div.warning role="note" {
                    h3 { "✗ " (wrong.len()) " of " (all) " checks do not hold" }
                    ul {
                        @for finding in wrong {
                            li { strong { (finding.check) } ": " (finding.meaning) " Found: " (finding.found) }
                        }
                    }
                }
            }
            div.words { (folded(&format!("checks of {}", shown.label), &head, &rows(shown))) }
        }
    })
}

fn attacks(report: &Report) -> Part {
    let attacked = report
        .shown
        .iter()
        .filter_map(|s| Some((s, s.row.outcome.attacked.as_ref()?)));
    let attacked: Vec<_> = attacked.collect();
    if attacked.is_empty() {
        let command = format!(
            "advcl evaluate {} --attack autoattack",
            quoted(&report.leads[0].path)
        );
        return Err(("only PGD attacked".to_owned(), Some(command)));
    }
    let head = ["attack", "tried on", "broke", "robust after it", "took"].map(str::to_owned);
    Ok(html! {
        p { "Each attack sees only the images that those before it left standing." }
        div.pair {
            @for (shown, attacked) in attacked {
                @let rows = attack_rows(attacked);
                (table(&format!("{}, {}", shown.label, figures::suite_title(&attacked.suite)), &head, &rows))
            }
        }
    })
}

fn attack_rows(attacked: &advcl::evaluate::Attacked) -> Vec<Vec<String>> {
    let share = |left: usize| match attacked.images {
        0 => "–".to_owned(),
        images => percent(left as f64 / images as f64),
    };
    let mut left = attacked.clean;
    let mut rows = vec![vec![
        "none: as they are".to_owned(),
        count(attacked.images),
        "–".to_owned(),
        share(left),
        "–".to_owned(),
    ]];
    for tried in &attacked.attacks {
        left = left.saturating_sub(tried.broken);
        rows.push(vec![
            tried.attack.clone(),
            count(tried.images),
            count(tried.broken),
            share(left),
            clock(tried.seconds),
        ]);
    }
    rows
}

/// Recipe, versions, commands.
fn repeat(report: &Report) -> Markup {
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
