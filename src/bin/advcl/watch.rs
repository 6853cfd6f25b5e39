//! `advcl watch`: a run as it grows, as pages of a small server on this machine. It reads the run folder and changes nothing.

mod server;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use advcl::Error;
use advcl::compare::{folder_of, seeds_in};
use advcl::experiment::has_recipe;
use advcl::files;
use advcl::report::training;
use advcl::run::Layout;
use anyhow::{Context as _, Result};
use indicatif::HumanDuration;
use maud::{Markup, html};
use serde::Deserialize;

use server::{Answer, Request};

use crate::args::{self, Shared};
use crate::format::{NONE, clock};
use crate::output::print;
use crate::progress::{print_status, rate};
use crate::report;
use crate::signals::end_at_once;

/// Seconds after which a browser asks again.
const AGAIN: usize = 5;
/// Notes that are shown, the latest ones.
const NOTES: usize = 8;

/// Serves pages about a run until Ctrl-C.
pub fn watch(what: &args::Watch, shared: &Shared) -> Result<()> {
    let Some(folder) = what.folder.as_ref().or(shared.run.as_ref()) else {
        let hint = "name one: advcl watch runs/quickstart";
        return Err(Error::run("(none named)", "a run folder is watched", hint).into());
    };
    if !has_recipe(folder) {
        let hint =
            "name the folder that `advcl run` or `advcl compare` writes to, once it has begun";
        return Err(Error::run(folder, "no run: it has no recipe.toml", hint).into());
    }
    let listener = TcpListener::bind((what.address, what.port)).map_err(|error| {
        let problem = format!("cannot listen at {}:{}: {error}", what.address, what.port);
        Error::input("--port", problem, "--port 0 takes one that is free")
    })?;
    let place = listener.local_addr().context("cannot serve")?;
    // Nothing is written, so nothing is to be saved.
    end_at_once()?;
    print(&format!("http://{place}/\n"))?;
    if !shared.quiet {
        print_status(&format!("watching {}; Ctrl-C ends it", folder.display()));
    }
    let is_local = what.address.is_loopback();
    server::serve(&listener, |request| answer(request, folder, is_local))
}

/// Answers one request.
fn answer(request: &Request, folder: &Path, is_local: bool) -> Answer {
    match (request.method.as_str(), request.path.as_str()) {
        // A page of elsewhere may have its name lead here, and would read what it gets.
        _ if is_local && !asks_for_this_machine(request) => (403, text("Not by this name.")),
        ("GET" | "HEAD", "/") => (200, live(folder)),
        ("GET" | "HEAD", "/report") => match report::page_of_figures(folder) {
            Ok(page) => (200, page),
            Err(error) => (404, text(&format!("No report yet: {error}."))),
        },
        ("GET" | "HEAD", _) => (404, text("There is no such page.")),
        _ => (405, text("Pages are read here, nothing else.")),
    }
}

/// Whether a request names this machine as its host.
fn asks_for_this_machine(request: &Request) -> bool {
    let host = request.host.as_str();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    ["localhost", "127.0.0.1", "[::1]"].contains(&name)
}

/// A page of a sentence.
fn text(words: &str) -> String {
    report::live_page(
        "advcl watch",
        None,
        &html! { h1 { "advcl watch" } p { (words) } p { a href="/" { "The run" } } },
    )
}

/// The latest epoch of a stage in a log.
#[derive(Deserialize)]
struct Latest {
    stage: String,
    epoch: usize,
    epochs: usize,
    #[serde(default)]
    losses: Vec<(String, Option<f64>)>,
    #[serde(default)]
    seconds: f64,
    images_per_second: Option<f64>,
    images: usize,
}

/// A line for people in a log.
#[derive(Deserialize)]
struct Said {
    stage: String,
    text: String,
}

/// What a log says.
#[derive(Default)]
struct Log {
    /// Stages in the order in which they began.
    stages: Vec<Latest>,
    notes: Vec<Said>,
    /// Seconds since its last line.
    age: Option<u64>,
}

impl Log {
    /// Reads what is there; a line that is being written is left for the next time.
    fn read(path: &Path) -> Self {
        let mut log = Self::default();
        let Ok(bytes) = files::read(path) else {
            return log;
        };
        let changed = std::fs::metadata(path).and_then(|about| about.modified());
        // A clock that was set back makes a time of the future, which is now.
        let age = |changed: SystemTime| changed.elapsed().unwrap_or_default().as_secs();
        log.age = changed.ok().map(age);
        for line in String::from_utf8_lossy(&bytes).lines() {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else {
                continue;
            };
            match value["event"].as_str() {
                Some("epoch") => {
                    let Ok(latest) = serde_json::from_value::<Latest>(value) else {
                        continue;
                    };
                    match log.stages.iter_mut().find(|one| one.stage == latest.stage) {
                        Some(before) => *before = latest,
                        None => log.stages.push(latest),
                    }
                }
                Some("note") => log.notes.extend(serde_json::from_value(value)),
                _ => {}
            }
        }
        if log.stages.is_empty() {
            log.age = None;
        }
        log
    }
}

impl Latest {
    /// Time that its other epochs take.
    fn left(&self) -> String {
        let images = self.epochs.saturating_sub(self.epoch) * self.images;
        match self.images_per_second {
            _ if images == 0 => "done".to_owned(),
            Some(rate) if rate > 0.0 => {
                let left = Duration::try_from_secs_f64(images as f64 / rate);
                HumanDuration(left.unwrap_or(Duration::MAX)).to_string()
            }
            _ => NONE.to_owned(),
        }
    }
}

/// The page about a run's progress, which a browser loads again by itself.
fn live(folder: &Path) -> String {
    let seeds = seeds_in(folder);
    let runs: Vec<PathBuf> = match seeds.is_empty() {
        true => vec![folder.to_path_buf()],
        false => seeds.iter().map(|&seed| folder_of(folder, seed)).collect(),
    };
    let logs: Vec<(PathBuf, Log)> = (runs.into_iter())
        .map(|run| {
            let log = Log::read(&Layout::new(&run).metrics());
            (run, log)
        })
        .collect();
    let youngest = logs.iter().filter_map(|(_, log)| log.age).min();
    let title = folder.display().to_string();
    let body = html! {
        header {
            p.eyebrow { "advcl watch" }
            h1 { (title) }
            p.lede {
                @match youngest {
                    Some(age) => { "The last epoch ended " (HumanDuration(Duration::from_secs(age))) " ago." }
                    None => { "No epoch has ended yet." }
                }
            }
            p { a href="/report" { "The report so far" } ", without pictures: " code { "advcl report " (title) } " makes those." }
        }
        main {
            @for (run, log) in &logs {
                section {
                    h2 { (run.display()) }
                    (progress(log))
                    @if !log.notes.is_empty() {
                        ul { @for note in log.notes.iter().rev().take(NOTES) { li { (note.stage) ": " (note.text) } } }
                    }
                    div.grid {
                        @for stage in training(&Layout::new(run).metrics()).unwrap_or_default().iter().rev() {
                            @for panel in report::loss_panels(stage) { (panel) }
                        }
                    }
                }
            }
        }
        footer { p { "Loaded again every " (AGAIN) " seconds. Served by this machine; nothing is sent anywhere else." } }
    };
    report::live_page(&title, Some(AGAIN), &body)
}

/// A row for each stage.
fn progress(log: &Log) -> Markup {
    if log.stages.is_empty() {
        return html! { p { "No stage has finished an epoch yet." } };
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Stages" {
            table aria-label="Stages" {
                thead { tr {
                    @for head in ["stage", "epoch", "", "loss", "speed", "last epoch", "left"] { th scope="col" { (head) } }
                } }
                tbody {
                    @for stage in &log.stages {
                        @let loss = stage.losses.iter().find(|(name, _)| name == "loss").and_then(|(_, loss)| *loss);
                        tr {
                            th scope="row" { (stage.stage) }
                            td { (stage.epoch) " of " (stage.epochs) }
                            td { progress max=(stage.epochs) value=(stage.epoch) aria-label={ "Epochs of " (stage.stage) } {} }
                            td { (loss.map_or(NONE.to_owned(), |loss| format!("{loss:.3}"))) }
                            td { (stage.images_per_second.map_or(NONE.to_owned(), |speed| rate(speed, "images"))) }
                            td { (clock(stage.seconds)) }
                            td { (stage.left()) }
                        }
                    }
                }
            }
        }
    }
}
