//! Progress for people, on stderr: a bar on a terminal, a line an epoch elsewhere.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use advcl::train::Event;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// A line on stderr. Unlike `eprintln!`, no panic when nobody reads it any more (`2>&1 | head`).
pub fn talk(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Draws events and appends them to the run folder's metrics.
pub struct Progress {
    quiet: bool,
    bar: Option<(String, ProgressBar)>,
    metrics: Option<File>,
}

impl Progress {
    pub fn new(quiet: bool, metrics: Option<File>) -> Self {
        Self {
            quiet,
            bar: None,
            metrics,
        }
    }

    pub fn hear(&mut self, event: &Event) {
        if !matches!(event, Event::Step { .. })
            && let Some(file) = &mut self.metrics
        {
            let line = serde_json::to_string(event).expect("plain values");
            // Metrics are for reading along; a full disk stops the run at the next checkpoint.
            let _ = writeln!(file, "{line}");
        }
        if self.quiet {
            return;
        }
        match event {
            Event::Step {
                stage,
                epoch,
                epochs,
                step,
                steps,
                images,
                loss,
            } => {
                if !std::io::stderr().is_terminal() {
                    return;
                }
                let bar = self.bar_of(stage, (epochs * steps * images) as u64);
                let done = ((epoch - 1) * steps + step) * images;
                if bar.position() == 0 {
                    // A resumed run does not count what an earlier sitting did into its rate.
                    bar.reset_eta();
                }
                bar.set_position(done as u64);
                let loss = if loss.is_nan() {
                    String::new()
                } else {
                    format!(", loss {loss:.3}")
                };
                bar.set_message(format!("epoch {epoch}/{epochs}{loss}"));
            }
            Event::Epoch {
                stage,
                epoch,
                epochs,
                losses,
                images_per_second,
                seconds,
                ..
            } => {
                if std::io::stderr().is_terminal() {
                    return;
                }
                let losses: Vec<String> = losses
                    .iter()
                    .rev()
                    .map(|(name, value)| format!("{name} {value:.3}"))
                    .collect();
                let left = Duration::from_secs_f64((epochs - epoch) as f64 * seconds);
                talk(&format!(
                    "{stage}: epoch {epoch}/{epochs}, {}, {images_per_second:.0} images/s, {} left",
                    losses.join(", "),
                    HumanDuration(left)
                ));
            }
            Event::Note { stage, text } => {
                self.finish();
                talk(&format!("{stage}: {text}"));
            }
        }
    }

    fn bar_of(&mut self, stage: &str, length: u64) -> &ProgressBar {
        if self.bar.as_ref().is_none_or(|(name, _)| name != stage) {
            self.finish();
            let style = "{prefix:14} {bar:24} {percent:>3} %  {per_sec}, {eta} left  {msg}";
            let style = ProgressStyle::with_template(style).expect("a valid template");
            let style = style.with_key(
                "per_sec",
                |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = write!(out, "{:.0} images/s", state.per_sec());
                },
            );
            let bar = ProgressBar::new(length)
                .with_style(style)
                .with_prefix(stage.to_owned());
            self.bar = Some((stage.to_owned(), bar));
        }
        &self.bar.as_ref().expect("just set").1
    }

    /// Leaves the bar as it stands.
    pub fn finish(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.abandon();
        }
    }
}
