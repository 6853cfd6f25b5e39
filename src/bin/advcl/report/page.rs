//! The page: what comes first, and its parts in order.

use advcl::recipe::SplitName;
use advcl::report::Folder;
use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::accuracy::accuracy;
use super::figures::{self, Line};
use super::html::{count, percent};
use super::repeat::repeat;
use super::{Shown, Views, classes, curves, measured, pictures, training, trust};

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
        section("soundness", "Can it be believed?", trust::soundness(report)),
        section("attacks", "Attack by attack", trust::attacks(report)),
        section(
            "curves",
            "Accuracy against radius and steps",
            curves::curves(report)?,
        ),
        section("examples", "Attacked images", pictures::examples(report)),
        section("views", "Views of pretraining", pictures::views(report)),
        section("map", "Map of the features", pictures::maps(report)?),
        section(
            "surface",
            "Loss around an image",
            pictures::surfaces(report)?,
        ),
        section("classes", "Class by class", classes::classes(report)?),
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

/// The row with the highest robust accuracy, of those that were attacked most.
fn best(lines: &[Line]) -> Option<&Line> {
    let thorough = lines.iter().any(|line| line.attacked.is_some());
    let alike = lines
        .iter()
        .filter(|line| line.attacked.is_some() == thorough);
    let share = |line: &Line| line.worst().1.share;
    alike.max_by(|a, b| share(a).total_cmp(&share(b)))
}

fn header(report: &Report, title: &str, sections: &[Section]) -> Markup {
    let first = &report.folders[0];
    let split = first.rows[0].outcome.split;
    let images = match split {
        SplitName::Test => "test images",
        SplitName::Holdout => "held-out images",
    };
    let sources: Vec<String> = distinct(report.leads.iter().map(|folder| {
        let target = folder.recipe.downstream.as_ref().map(|d| &d.source);
        target.unwrap_or(&folder.recipe.data.source).clone()
    }));
    let radii = distinct(report.lines.iter().map(|line| line.radius.clone()));
    // Rows of other images or another radius cannot be held against each other.
    let lead = (sources.len() == 1 && radii.len() == 1)
        .then(|| best(report.lines))
        .flatten();
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
                @let attacked = line.attacked.as_ref().map_or(line.images, |a| a.images);
                p.lede {
                    @if report.lines.len() > 1 { "Most robust of " (report.lines.len()) ": " }
                    strong { (line.title()) }
                    ", right on " strong { (percent(worst.share)) } " of "
                    (count(attacked)) " " (images) " under "
                    (attack) " within " (line.radius) ", and on " strong { (percent(line.clean.share)) }
                    @if attacked != line.images { " of " (count(line.images)) }
                    " as they are."
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
pub fn distinct(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = Vec::new();
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

/// What is missing and what makes it.
pub type Part = Result<Markup, (String, Option<String>)>;
