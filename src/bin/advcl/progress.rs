//! Progress on stderr: a bar on a terminal, a line for each epoch elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::output::{Colour, harmless, has_colours, printable, shortened};
use advcl::experiment::Cell;
use advcl::finetune::Trains;
use advcl::loss::BASE_TEMPERATURE;
use advcl::memory::in_words;
use advcl::ranks;
use advcl::recipe::Recipe;
use advcl::session::Event;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Prints a line to stderr. Unlike `eprintln!`, it does not panic when the reader is gone (`2>&1 |
/// head`).
pub fn print_status(line: &str) {
    if ranks::speaks() {
        print_for_all(line);
    }
}

/// Prints a line that begins with what it is, "error" or "hint", in colour on a terminal; on whichever rank it is.
pub fn print_headed(head: &str, colour: Colour, text: &str) {
    let text = format!("{head}: {text}");
    let line = shortened(&harmless(&text)).into_owned();
    let line = match (line.strip_prefix(head), has_colours(&std::io::stderr())) {
        (Some(rest), true) => format!("{}{head}{}{rest}", colour.start(), Colour::END),
        _ => line,
    };
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints a status line like [`print_status`], on whichever rank it is.
pub fn print_for_all(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", shortened(&harmless(line)));
}

/// Shortest time from which the rest of a stage is estimated.
const MEASURED: Duration = Duration::from_secs(1);
/// A first step that took longer is estimated from alone: the second one may end long after it.
const SLOW: Duration = Duration::from_secs(10);
/// Stages that take longer are announced, in seconds.
const LONG: f64 = 60.0;
/// Longest time without a line about work that goes on, where there is no bar.
const SILENT: Duration = Duration::from_secs(60);

/// Shows events.
pub struct Progress {
    quiet: bool,
    /// Whether there is a terminal, which has a bar.
    terminal: bool,
    bar: Option<(String, ProgressBar)>,
    /// Stages with the memory in bytes that each is expected to take.
    memory: Vec<(String, u64)>,
    /// Stages that are told in a line: linear classifiers, which take seconds.
    brief: Vec<String>,
    /// Stages whose losses have a scale that is to be explained, with their temperatures.
    scaled: Vec<(String, f64)>,
    pace: Option<Pace>,
    /// Time of the event before this one.
    before: Instant,
    /// Time of the last line.
    spoke: Instant,
}

/// First steps of a stage, which say how long it will take.
struct Pace {
    stage: String,
    since: Instant,
    /// Units that were done at that time.
    done: usize,
    told: bool,
}

impl Pace {
    /// Units a second, and the time that the rest takes; none before enough is measured.
    fn estimate(&self, done: usize, total: usize) -> Option<(f64, Duration)> {
        let elapsed = self.since.elapsed();
        if elapsed < MEASURED || done <= self.done {
            return None;
        }
        let rate = (done - self.done) as f64 / elapsed.as_secs_f64();
        Some((rate, in_time(total.saturating_sub(done) as f64 / rate)))
    }
}

/// Seconds as a duration, however many.
fn in_time(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// A rate in words, which is never 0: "512 images/s", "0.25 images/s", "40 s for one of the images".
pub fn rate(per_second: f64, unit: &str) -> String {
    let digits = match per_second {
        rate if rate >= 9.95 => 0,
        rate if rate >= 0.995 => 1,
        rate if rate >= 0.095 => 2,
        rate => return format!("{:.0} s for one of the {unit}", 1.0 / rate),
    };
    format!("{per_second:.digits$} {unit}/s")
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet: quiet || !ranks::speaks(),
            terminal: std::io::stderr().is_terminal(),
            bar: None,
            memory: Vec::new(),
            brief: Vec::new(),
            scaled: Vec::new(),
            pace: None,
            before: Instant::now(),
            spoke: Instant::now(),
        }
    }

    /// The same, with the memory in bytes that stages are expected to take.
    pub fn with_memory(self, memory: Vec<(String, u64)>) -> Self {
        Self { memory, ..self }
    }

    /// The same, for the stages of a recipe; in many words or in few.
    pub fn of_recipe(self, recipe: &Recipe, verbose: bool) -> Self {
        let cells = Cell::of(recipe, None, None).unwrap_or_default();
        let is_linear = |cell: &&Cell| {
            let mode = cell
                .mode
                .as_deref()
                .map(|mode| recipe.finetune.require(mode));
            matches!(mode, Some(Ok(mode)) if mode.trains() == Trains::Head)
        };
        let brief = cells.iter().filter(is_linear).map(Cell::stage).collect();
        let entries = recipe.pretrain.entries().iter();
        let scaled = entries
            .filter(|_| verbose)
            .filter_map(|entry| Some((entry.name.clone(), entry.temperature()?)))
            .collect();
        Self {
            brief,
            scaled,
            ..self
        }
    }

    /// Prints a line.
    fn say(&mut self, line: &str) {
        self.finish();
        self.spoke = Instant::now();
        print_status(line);
    }

    /// Measures a stage's pace, and says where a training will take long: once, as soon as it is known. Its first step is slower than
    /// the others, and not measured unless it alone took long.
    fn measure(&mut self, stage: &str, done: usize, total: usize, images: Option<usize>) {
        let Some(pace) = self.pace.as_mut().filter(|pace| pace.stage == stage) else {
            let first = self.before.elapsed();
            let slow = images.filter(|_| first > SLOW);
            self.pace = Some(Pace {
                stage: stage.to_owned(),
                since: Instant::now(),
                done,
                told: slow.is_some(),
            });
            if let Some(images) = slow {
                let steps = total.saturating_sub(done) as f64 / images.max(1) as f64;
                self.announce(stage, in_time(first.as_secs_f64() * steps));
            }
            return;
        };
        if pace.told || images.is_none() {
            return;
        }
        if let Some((_, left)) = pace.estimate(done, total) {
            pace.told = true;
            self.announce(stage, left);
        }
    }

    /// Says how long a stage is expected to take, if that is long.
    fn announce(&mut self, stage: &str, left: Duration) {
        if left.as_secs_f64() < LONG {
            return;
        }
        let memory = self.memory.iter().find(|(name, _)| name == stage);
        let memory = memory.map_or(String::new(), |(_, bytes)| {
            format!(", {} of memory", in_words(*bytes))
        });
        self.say(&format!(
            "{stage}: expected: about {}{memory}",
            HumanDuration(left)
        ));
    }

    /// Says where the work is, if there is no bar and nothing was said for long.
    fn remind(&mut self, stage: &str, place: &str, done: usize, total: usize, unit: &str) {
        if self.spoke.elapsed() < SILENT {
            return;
        }
        let pace = self
            .pace
            .as_ref()
            .and_then(|pace| pace.estimate(done, total));
        let pace = pace.map_or(String::new(), |(per_second, left)| {
            format!(", {}, {} left", rate(per_second, unit), HumanDuration(left))
        });
        self.say(&format!("{stage}: {place}{pace}"));
    }

    /// Explains, once, the scale of a contrastive loss.
    fn explain(&mut self, stage: &str) {
        let own = self.scaled.iter().find(|(name, _)| name == stage);
        let Some(temperature) = own.map(|(_, temperature)| *temperature) else {
            return;
        };
        let scale = temperature / BASE_TEMPERATURE;
        self.scaled.clear();
        self.say(&format!(
            "{stage}: the contrastive loss is in nats times {scale:.1} (temperature {temperature} / {BASE_TEMPERATURE}, as in AdvCL's released code); it does not fall to 0, and losses of different methods cannot be compared"
        ));
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
                let (done, total) = (
                    ((epoch - 1) * steps + step) * images,
                    epochs * steps * images,
                );
                self.measure(stage, done, total, Some(*images));
                if !self.terminal {
                    let place =
                        format!("epoch {epoch}/{epochs}, step {step}/{steps}, loss {loss:.3}");
                    self.remind(stage, &place, done, total, "images");
                } else {
                    self.explain(stage);
                    let bar = self.bar_at(stage, done, total, "images");
                    bar.set_message(format!("epoch {epoch}/{epochs}, loss {loss:.3}"));
                }
            }
            Event::Progress {
                stage,
                done,
                total,
                unit,
            } => {
                self.measure(stage, *done, *total, None);
                if self.terminal {
                    self.bar_at(stage, *done, *total, unit);
                } else if done < total {
                    let place = format!("{done} of {total} {unit}");
                    self.remind(stage, &place, *done, *total, unit);
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
                self.explain(stage);
                let in_a_line = self.brief.contains(stage) && epoch < epochs;
                if self.terminal || in_a_line && self.spoke.elapsed() < SILENT {
                    return self.before = Instant::now();
                }
                let losses: Vec<String> = losses
                    .iter()
                    .rev()
                    .map(|(name, value)| format!("{name} {value:.3}"))
                    .collect();
                // From the rate, since the first epoch after a resume may be incomplete.
                let left = in_time(((epochs - epoch) * images) as f64 / images_per_second);
                let left = match epoch < epochs {
                    true => format!("{} left", HumanDuration(left)),
                    false => "done".to_owned(),
                };
                self.say(&format!(
                    "{stage}: epoch {epoch}/{epochs}, {}, {}, {left}",
                    losses.join(", "),
                    rate(*images_per_second, "images")
                ));
            }
            // Printed in the table at the end.
            Event::Figures { .. } => {}
            Event::Seed { seed, .. } => {
                self.say(&format!("compare: seed {seed}"));
            }
            Event::Note { stage, text } => {
                self.say(&format!("{stage}: {}", printable(text)));
            }
        }
        self.before = Instant::now();
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
                    // Before anything is measured there is no rate.
                    if state.per_sec() > 0.0 {
                        let _ = out.write_str(&rate(state.per_sec(), unit));
                    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_never_zero() {
        for (per_second, words) in [
            (51234.4, "51234 images/s"),
            (9.96, "10 images/s"),
            (9.9, "9.9 images/s"),
            (0.25, "0.25 images/s"),
            (0.01, "100 s for one of the images"),
        ] {
            assert_eq!(rate(per_second, "images"), words);
        }
    }

    #[test]
    fn a_stage_is_estimated_from_what_was_measured() {
        let since = Instant::now()
            .checked_sub(Duration::from_secs(10))
            .expect("an uptime");
        let pace = Pace {
            stage: "advcl".to_owned(),
            since,
            done: 100,
            told: false,
        };
        let (per_second, left) = pace.estimate(200, 1200).expect("ten seconds");
        assert!((per_second - 10.0).abs() < 0.5, "{per_second}");
        assert!((left.as_secs_f64() - 100.0).abs() < 5.0, "{left:?}");
        assert!(pace.estimate(100, 1200).is_none(), "nothing is done");
    }
}
