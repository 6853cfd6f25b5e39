//! Progress on stderr: a bar on a terminal, a line for each epoch elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::output::{harmless, printable, shortened};
use advcl::memory::in_words;
use advcl::ranks;
use advcl::session::Event;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Prints a line to stderr. Unlike `eprintln!`, it does not panic when the reader is gone (`2>&1 |
/// head`).
pub fn print_status(line: &str) {
    if ranks::speaks() {
        print_for_all(line);
    }
}

/// As [`print_status`], on whichever rank it is.
pub fn print_for_all(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", shortened(&harmless(line)));
}

/// Shortest time from which the rest of a stage is estimated.
const MEASURED: Duration = Duration::from_secs(1);
/// Stages that take longer are announced, in seconds.
const LONG: f64 = 60.0;

/// Shows events.
pub struct Progress {
    quiet: bool,
    bar: Option<(String, ProgressBar)>,
    /// Stages with the memory in bytes that each is expected to take.
    memory: Vec<(String, u64)>,
    pace: Option<Pace>,
}

/// First steps of a stage, which say how long it will take.
struct Pace {
    stage: String,
    since: Instant,
    /// Images that were done at that time.
    done: usize,
    told: bool,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet: quiet || !ranks::speaks(),
            bar: None,
            memory: Vec::new(),
            pace: None,
        }
    }

    /// The same, with the memory in bytes that stages are expected to take.
    pub fn with_memory(self, memory: Vec<(String, u64)>) -> Self {
        Self { memory, ..self }
    }

    /// Says once how long a stage is expected to take, if that is long. Its first step is not measured: it is slower.
    fn announce(&mut self, stage: &str, done: usize, total: usize) {
        let pace = match &mut self.pace {
            Some(pace) if pace.stage == stage => pace,
            _ => {
                self.pace = Some(Pace {
                    stage: stage.to_owned(),
                    since: Instant::now(),
                    done,
                    told: false,
                });
                return;
            }
        };
        let elapsed = pace.since.elapsed();
        if pace.told || elapsed < MEASURED || done <= pace.done {
            return;
        }
        pace.told = true;
        let rate = elapsed.as_secs_f64() / (done - pace.done) as f64;
        let left = rate * total.saturating_sub(done) as f64;
        if left < LONG {
            return;
        }
        let left = HumanDuration(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX));
        let memory = self.memory.iter().find(|(name, _)| name == stage);
        let memory = memory.map_or(String::new(), |(_, bytes)| {
            format!(", {} of memory", in_words(*bytes))
        });
        self.finish();
        print_status(&format!("{stage}: expected: about {left}{memory}"));
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
                let done = ((epoch - 1) * steps + step) * images;
                self.announce(stage, done, epochs * steps * images);
                if !std::io::stderr().is_terminal() {
                    return;
                }
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
