//! Progress on stderr: a bar on a terminal, a line for each epoch elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::output::{harmless, printable, shortened};
use advcl::session::Event;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Prints a line to stderr. Unlike `eprintln!`, it does not panic when the reader is gone (`2>&1 |
/// head`).
pub fn print_status(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", shortened(&harmless(line)));
}

/// Shows events.
pub struct Progress {
    quiet: bool,
    bar: Option<(String, ProgressBar)>,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        Self { quiet, bar: None }
    }

    pub fn on_event(&mut self, event: &Event) {
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
                let done = ((epoch - 1) * steps + step) * images;
                let bar = self.bar_at(stage, done, epochs * steps * images, "images");
                bar.set_message(format!("epoch {epoch}/{epochs}, loss {loss:.3}"));
            }
            Event::Progress {
                stage,
                done,
                total,
                unit,
            } => {
                if std::io::stderr().is_terminal() {
                    self.bar_at(stage, *done, *total, unit);
                }
            }
            Event::Epoch {
                stage,
                epoch,
                epochs,
                losses,
                images_per_second,
                images,
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
                // From the rate, since the first epoch after a resume may be incomplete.
                let seconds = ((epochs - epoch) * images) as f64 / images_per_second;
                let left = Duration::try_from_secs_f64(seconds).unwrap_or_default();
                print_status(&format!(
                    "{stage}: epoch {epoch}/{epochs}, {}, {images_per_second:.0} images/s, {} left",
                    losses.join(", "),
                    HumanDuration(left)
                ));
            }
            // Printed in the table at the end.
            Event::Figures { .. } => {}
            Event::Seed { seed, .. } => {
                self.finish();
                print_status(&format!("compare: seed {seed}"));
            }
            Event::Note { stage, text } => {
                self.finish();
                print_status(&format!("{stage}: {}", printable(text)));
            }
        }
    }

    /// Moves the stage's bar to `done` of `length`, and creates it where there is none.
    fn bar_at(
        &mut self,
        stage: &str,
        done: usize,
        length: usize,
        unit: &'static str,
    ) -> &ProgressBar {
        if self.bar.as_ref().is_none_or(|(name, _)| name != stage) {
            self.finish();
            let style = "{prefix:14} {bar:24} {percent:>3} %  {per_sec}, {eta} left  {msg}";
            let style = ProgressStyle::with_template(style).expect("a valid template");
            let style = style.with_key(
                "per_sec",
                move |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                    let rate = state.per_sec();
                    let digits = usize::from(rate < 10.0);
                    let _ = write!(out, "{rate:.digits$} {unit}/s");
                },
            );
            let hidden = ProgressDrawTarget::hidden();
            let bar = ProgressBar::with_draw_target(Some(length as u64), hidden)
                .with_style(style)
                .with_prefix(stage.to_owned());
            // Work from before the bar existed (an earlier invocation, or its first step) took none
            // of its time. The estimator must have seen that position before it is reset.
            bar.set_position(done as u64);
            bar.tick();
            bar.reset_eta();
            bar.reset_elapsed();
            bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar = Some((stage.to_owned(), bar));
        }
        let bar = &self.bar.as_ref().expect("just set").1;
        bar.set_position(done as u64);
        bar
    }

    /// Stops the bar at its current position.
    pub fn finish(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.abandon();
        }
    }
}
