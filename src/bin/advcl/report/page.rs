//! The page: a header with what was measured, and its sections in order.

use advcl::evaluate::soundness::SoundnessSummary;
use advcl::recipe::SplitName;
use advcl::report::ReportedRun;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::headline::{HeadlineRow, run_name};
use super::html::{count, percent};
use super::model::{MANY, Missing, ReportPage, SectionBody, ShownClassifier, distinct};
use super::{
    accuracy, classes, comparisons, curves, measured, pictures, repeat, training, trust, words,
};

/// A section: its content, or the reason why it is missing.
struct Section {
    id: &'static str,
    title: &'static str,
    body: SectionBody,
}

/// Sections that are never folded.
const OPEN: [&str; 3] = ["words", "accuracy", "differences"];

const STYLE: &str = include_str!("style.css");

/// All sections in order.
fn sections(report: &ReportPage) -> Vec<Section> {
    let section = |id, title, body| Section { id, title, body };
    let mut sections = vec![
        section("words", "In words", Ok(words::words(report))),
        section(
            "accuracy",
            "Clean and robust accuracy",
            Ok(accuracy::accuracy(report)),
        ),
    ];
    if !report.comparisons.is_empty() {
        let body = Ok(comparisons::comparisons(report));
        sections.push(section("differences", "Differences and their tests", body));
    }
    sections.extend([
        section("soundness", "Soundness checks", trust::soundness(report)),
        section("attacks", "Attack by attack", trust::attacks(report)),
        section(
            "curves",
            "Accuracy against radius and steps",
            curves::curves(report),
        ),
        section(
            "examples",
            "Adversarial examples",
            pictures::examples(report),
        ),
        section("views", "Views of pretraining", pictures::views(report)),
        section("map", "Map of the features", pictures::maps(report)),
        section(
            "surface",
            "Loss around an image",
            pictures::surfaces(report),
        ),
        section("classes", "Class by class", Ok(classes::classes(report))),
        section(
            "corruptions",
            "Common corruptions",
            measured::corruptions(report),
        ),
        section("patch", "Adversarial patch", measured::patch(report)),
        section(
            "certified",
            "Certified accuracy",
            measured::certified(report),
        ),
        section("calibration", "Calibration", measured::calibration(report)),
        section(
            "transfer",
            "Transfer between classifiers",
            measured::transfer(report),
        ),
        section("training", "Training", training::curves(report)),
        section("repeat", "How to repeat it", Ok(repeat::repeat(report))),
    ]);
    sections
}

/// What every page has in its head: its title, and that nothing is fetched from anywhere, which the browser enforces.
fn head(title: &str) -> Markup {
    html! {
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        meta name="color-scheme" content="light dark";
        meta name="generator" content=(concat!("advcl ", env!("CARGO_PKG_VERSION")));
        meta http-equiv="Content-Security-Policy"
            content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
        link rel="icon" href="data:,";
        title { (title) }
        style { (PreEscaped(STYLE)) }
    }
}

/// A page of `advcl watch`, which a browser loads again after so many seconds.
pub fn live_page(title: &str, again: Option<usize>, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (head(title))
                @if let Some(seconds) = again { meta http-equiv="refresh" content=(seconds); }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// The whole page.
pub fn page(report: &ReportPage) -> String {
    let sections = sections(report);
    let title = distinct(report.leads.iter().map(|run| run_name(run).to_owned())).join(", ");
    let missing: Vec<(&str, &Missing)> = sections
        .iter()
        .filter_map(|section| Some((section.title, section.body.as_ref().err()?)))
        .collect();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (head(&format!("{title} – advcl report")))
            }
            body {
                a.skip href="#words" { "Skip to the figures" }
                (header(report, &title, &sections))
                main {
                    @for section in &sections {
                        @if let Ok(body) = &section.body {
                            section id=(section.id) aria-labelledby={ "h-" (section.id) } {
                                h2 id={ "h-" (section.id) } { (section.title) }
                                // Of many rows the page would be endless: what comes after the figures is opened where it is wanted.
                                @if report.shown.len() > MANY && !OPEN.contains(&section.id) {
                                    details.part { summary { "Show: " (section.title) } (body) }
                                } @else { (body) }
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
    page.into_string()
}

fn not_there(missing: &[(&str, &Missing)]) -> Markup {
    html! {
        section id="missing" aria-labelledby="h-missing" {
            h2 id="h-missing" { "Not in this report" }
            ul {
                @for (title, missing) in missing {
                    li {
                        strong { (title) } ": " (missing.why)
                        @if let Some(command) = &missing.command { "; " code { (command) } " makes it" }
                        "."
                    }
                }
            }
        }
    }
}

/// Name of the evaluated images.
fn images(report: &ReportPage) -> &'static str {
    match report.runs[0].rows[0].outcome.split {
        SplitName::Test => "test images",
        SplitName::Holdout => "held-out images",
    }
}

/// The robust accuracy of all rows in a sentence. It names no best row, since only the tests show
/// which differences exceed the noise.
fn lede(report: &ReportPage, radii: &[String]) -> Markup {
    // The rows with the strongest attacks, so that all are under the same attack.
    let thorough = report.rows.iter().any(HeadlineRow::is_thorough);
    let rows = report.rows.iter();
    let mut alike: Vec<_> = rows.filter(|row| row.is_thorough() == thorough).collect();
    let by_suite = |row: &HeadlineRow| row.attack(&row.strongest().0).is_some();
    if !alike.iter().any(|row| by_suite(row)) {
        // PGD ran on all.
        alike = report.rows.iter().collect();
    }
    let attacks = distinct(alike.iter().map(|row| row.strongest().0));
    if let ([row], [radius]) = (&report.rows, radii) {
        let (attack, worst) = row.strongest();
        return html! {
            strong { (row.title()) } " classifies " strong { (percent(worst.share)) } " of " (count(worst.images)) " " (images(report))
            " correctly under " (attack) " within " (radius) ", and " strong { (percent(row.clean.share)) } " of "
            (count(row.clean.images)) " clean images."
        };
    }
    let shares = || alike.iter().map(|row| row.strongest().1.share);
    let (low, high) = (shares().fold(1.0, f64::min), shares().fold(0.0, f64::max));
    let accuracy = if report.rows.iter().any(|row| row.seeds > 1) {
        "Mean accuracy"
    } else {
        "Accuracy"
    };
    html! {
        (report.rows.len()) " classifiers. "
        @if let ([attack], [radius]) = (&attacks[..], radii) {
            @if alike.len() == 1 {
                (accuracy) " under " (attack) " within " (radius) ", which was run on one of them: " strong { (percent(low)) } "."
            } @else {
                (accuracy) " under " (attack) " within " (radius) ": from " strong { (percent(low)) } " to " strong { (percent(high)) } "."
            }
        }
    }
}

/// "ResNet-18, width 64".
fn encoder(run: &ReportedRun) -> String {
    let encoder = serde_json::to_value(&run.recipe.encoder).unwrap_or_default();
    format!("ResNet-{}, width {}", encoder["depth"], encoder["width"])
}

fn header(report: &ReportPage, title: &str, sections: &[Section]) -> Markup {
    let sources = distinct(report.leads.iter().map(|run| {
        let target = run.recipe.downstream.as_ref().map(|d| &d.source);
        target.unwrap_or(&run.recipe.data.source).clone()
    }));
    let radii = distinct(report.rows.iter().map(|row| row.radius.clone()));
    let counts = distinct(report.rows.iter().map(|row| count(row.robust.images)));
    let seeds = distinct(report.runs.iter().map(|run| run.recipe.seed.to_string()));
    let versions = distinct(report.runs.iter().filter_map(|run| {
        let note = run.machine.as_ref()?;
        Some(note["advcl_version"].as_str()?.to_owned())
    }));
    let facts = report.facts;
    let encoders = distinct(report.leads.iter().map(|run| encoder(run)));
    let findings = report.runs.iter().flat_map(|run| &run.rows);
    let findings = findings.filter_map(|row| row.outcome.soundness.as_ref());
    let findings = findings.flat_map(|soundness| &soundness.findings);
    let verdicts: SoundnessSummary = findings.collect();
    let warns = |shown: &&ShownClassifier| {
        let soundness = shown.soundness();
        soundness.is_some_and(|all| all.warnings().next().is_some())
    };
    let warned: Vec<&ShownClassifier> = report.shown.iter().filter(warns).collect();
    html! {
        header {
            p.eyebrow { "Robustness report" }
            h1 { (title) }
            p.lede { (lede(report, &radii)) }
            ul.facts aria-label="What was measured" {
                li { span { "data " } (sources.join(", ")) }
                @if facts.training > 0 { li { span { "training images " } (count(facts.training)) @if facts.labeled > 0 { ", " (count(facts.labeled)) " with labels" } } }
                li { span { (images(report)) " " } (counts.join(", ")) }
                @if let Some(chance) = facts.chance() {
                    li { span { "always the most frequent of " (facts.classes.len()) " classes " } (percent(chance)) }
                }
                li { span { "encoder " } (encoders.join(", ")) }
                li { span { "radius " } (radii.join(", ")) }
                li { span { @if seeds.len() > 1 { "seeds " } @else { "seed " } } (seeds.join(", ")) }
                @if verdicts.checks() > 0 { li { span { "soundness " } (verdicts) } }
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
                    @for section in sections.iter().filter(|section| section.body.is_ok()) {
                        li { a href={ "#" (section.id) } { (section.title) } }
                    }
                }
            }
        }
    }
}
