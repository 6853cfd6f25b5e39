//! Numbers and tables as text, shared by terminal, Markdown, CSV and the report's page.

mod by_class;
pub mod comparison;
mod table;

use std::path::Path;

use advcl::attack::AUTOATTACK;
use advcl::experiment::Outcome;
use advcl::interval::Interval;
use advcl::recipe::Threat;
use advcl::{finetune, pretrain};

pub use crate::output::printable;
pub use by_class::{by_class, tallies};
pub use table::{Align, Table, in_csv};

/// Placeholder for a missing value.
pub const NONE: &str = "–";

/// A share in percent: "76.8 %".
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A part of a whole in percent; [`NONE`] of an empty whole.
pub fn percent_of(part: usize, whole: usize) -> String {
    if whole == 0 {
        return NONE.to_owned();
    }
    percent(part as f64 / whole as f64)
}

/// The ends of an interval in percent, without the sign: "74.9–78.6".
pub fn range(interval: &Interval) -> String {
    format!("{:.1}–{:.1}", 100.0 * interval.low, 100.0 * interval.high)
}

/// Images that were classified correctly, with their number and the 95 % interval: "76.8 % of 2000
/// (74.9–78.6)".
pub fn share(hits: usize, images: usize) -> String {
    match Interval::wilson(hits, images) {
        Some(interval) => {
            let percent = percent(interval.share);
            format!("{percent} of {images} ({})", range(&interval))
        }
        None => NONE.to_owned(),
    }
}

/// A measured share of `images` as [`share`] writes it.
pub fn share_of(value: f64, images: usize) -> String {
    share(hits(value, images), images)
}

/// The number of `images` that a measured share is.
fn hits(share: f64, images: usize) -> usize {
    (share * images as f64).round() as usize
}

/// Images that were classified correctly, in percent without its sign, with the interval in whole
/// percent, for tables with many: "53.2 (49–58)".
pub fn brief(hits: usize, images: usize) -> String {
    match Interval::wilson(hits, images) {
        Some(ends) => brief_interval(&ends),
        None => NONE.to_owned(),
    }
}

/// A measured share of `images` in the same form.
pub fn brief_share(share: f64, images: usize) -> String {
    interval(share, images).map_or(NONE.to_owned(), |ends| {
        brief_interval(&Interval { share, ..ends })
    })
}

fn brief_interval(ends: &Interval) -> String {
    let [share, low, high] = [ends.share, ends.low, ends.high].map(|share| 100.0 * share);
    format!("{share:.1} ({low:.0}–{high:.0})")
}

/// The interval of a measured share of `images`.
pub fn interval(share: f64, images: usize) -> Option<Interval> {
    Interval::wilson(hits(share, images), images)
}

/// A duration as minutes and seconds: "3:05".
pub fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// The radius with its norm: "0.1 (L∞)".
pub fn radius(threat: &Threat) -> String {
    format!("{} ({})", threat.radius, threat.norm)
}

/// A row of the table as written for people: "AdvCL SLF".
pub fn row_title(outcome: &Outcome) -> String {
    let mode = finetune::title(&outcome.finetuning);
    format!("{} {mode}", pretrain::title(&outcome.method))
}

/// A suite of attacks as the literature writes it.
pub fn suite_title(name: &str) -> String {
    match name {
        AUTOATTACK => "AutoAttack".to_owned(),
        other => other.to_owned(),
    }
}

/// A path as it is written on a command line.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains(|c: char| !(c.is_alphanumeric() || "/._-+,:@%=".contains(c))) {
        format!("'{}'", text.replace('\'', "'\\''"))
    } else {
        text
    }
}
