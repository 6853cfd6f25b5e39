//! Answers of the program, compared with the snapshots in `snapshots/`.
//!
//! `INSTA_UPDATE=always cargo test --test it` writes the snapshots anew; the difference is read in
//! the version control.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;

use crate::harness::{Answer, Files, advcl, refused};
use crate::page::words_of;

/// Answers of the program, one after the other, as the content of a snapshot.
pub struct Transcript<'a> {
    folder: &'a Path,
    text: String,
}

impl<'a> Transcript<'a> {
    /// Nothing yet, of commands that are run in `folder`.
    pub fn new(folder: &'a Path) -> Self {
        let text = String::new();
        Self { folder, text }
    }

    /// Adds words about the next answer.
    pub fn note(&mut self, words: &str) {
        let _ = writeln!(self.text, "# {words}");
    }

    /// Adds an answer, without what no two runs share: times and rates, and accuracies, which
    /// depend on the processor. Where there are intervals, all numbers depend on it, and the columns' widths.
    pub fn add(&mut self, answer: &Answer) {
        if answer.stdout.contains(" % of ") {
            return self.add_without_numbers(answer);
        }
        let text = without_surroundings(&answer.to_string(), self.folder);
        let lines = text.lines().map(|line| masked(line, Numbers::Measured));
        self.add_text(lines);
    }

    /// Adds an answer without any of its numbers, and without the spaces that align them.
    pub fn add_without_numbers(&mut self, answer: &Answer) {
        let text = without_surroundings(&answer.to_string(), self.folder);
        let lines = text.lines().map(|line| {
            if line.starts_with("$ ") {
                line.to_owned()
            } else {
                closed_up(&masked(line, Numbers::All))
            }
        });
        self.add_text(lines);
    }

    /// Adds an answer about this machine: its lines have their names, and no numbers.
    pub fn add_of_this_machine(&mut self, answer: &Answer) {
        let names = [
            "cores",
            "CPU has",
            "CPU uses",
            "bf16 products",
            "device",
            "peak memory",
        ];
        let replaced = |line: &str| {
            let name = names
                .iter()
                .find(|name| line.starts_with(&format!("{name}  ")));
            name.map_or_else(|| line.to_owned(), |name| format!("{name}  [MACHINE]"))
        };
        let lines = answer.stdout.lines().map(replaced);
        self.add_without_numbers(&Answer {
            command: answer.command.clone(),
            code: answer.code,
            stdout: lines.map(|line| line + "\n").collect(),
            stderr: answer.stderr.clone(),
        });
    }

    /// Adds an answer about predictions: which classes they are depends on the processor where a model has learnt little.
    pub fn add_without_classes(&mut self, answer: &Answer) {
        let text = without_surroundings(&answer.to_string(), self.folder);
        let lines = text.lines().map(|line| {
            let mut line = masked(line, Numbers::Measured);
            for name in CLASSES.iter() {
                line = line.replace(&format!("{name} # %"), "CLASS # %");
            }
            line
        });
        self.add_text(lines);
    }

    /// Adds the shape of an answer in JSON: a line for each path, with the kinds of values that are
    /// found there.
    #[track_caller]
    pub fn add_shape(&mut self, answer: &Answer) {
        let mut paths: Vec<(String, Vec<&str>)> = Vec::new();
        shape(&answer.json(), "", &mut paths);
        let lines = paths
            .into_iter()
            .map(|(path, kinds)| format!("{path}: {}", kinds.join(" or ")));
        let command = format!("$ {}", answer.command);
        self.add_text(std::iter::once(command).chain(lines));
    }

    /// Adds the words of a report's page, without numbers.
    pub fn add_page(&mut self, page: &str) {
        let text = without_surroundings(&words_of(page), self.folder);
        self.add_text(text.lines().map(|line| masked(line, Numbers::All)));
    }

    fn add_text(&mut self, lines: impl Iterator<Item = String>) {
        for line in lines {
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
        self.text.push('\n');
    }

    /// Runs a command that must end with `code`, and adds its answer.
    #[track_caller]
    pub fn run(&mut self, args: &str, code: i32) -> Answer {
        let answer = advcl(self.folder, args).expect(code);
        self.add(&answer);
        answer
    }

    /// Runs a command that must be refused with its folder untouched, and adds its answer.
    #[track_caller]
    pub fn refuse(&mut self, args: &str) {
        self.add(&refused(self.folder, args, Files::Untouched));
    }

    /// Runs commands that must be refused with the same words and their folder untouched, and adds
    /// their answer.
    #[track_caller]
    pub fn refuse_all(&mut self, commands: &[String]) {
        let refused = |args: &String| refused(self.folder, args, Files::Untouched);
        let answers: Vec<Answer> = commands.iter().map(refused).collect();
        let (last, others) = answers.split_last().expect("a command");
        for other in others {
            assert_eq!(other.stderr, last.stderr, "of\n{other}and of\n{last}");
            let _ = writeln!(self.text, "$ {}", other.command);
        }
        self.add(last);
    }

    /// Runs a command that must be refused, though it may have begun a run folder, and adds its
    /// answer.
    #[track_caller]
    pub fn refuse_after_a_start(&mut self, args: &str) -> Answer {
        let answer = refused(self.folder, args, Files::MayBeAdded);
        self.add(&answer);
        answer
    }

    /// Compares with the snapshot of this name.
    #[track_caller]
    pub fn check(self, name: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, self.text));
    }
}

/// The text without the folder it is about, the version and the devices of this build.
fn without_surroundings(text: &str, folder: &Path) -> String {
    let devices = advcl::device::compiled_in().join(", ");
    let arithmetic = advcl::nn::arithmetic(&crate::device(), advcl::nn::Precision::F32);
    text.replace(&folder.display().to_string(), "[DIR]")
        .replace(env!("CARGO_PKG_VERSION"), "[VERSION]")
        .replace(&arithmetic, "[ARITHMETIC]")
        .replace(&format!("known: {devices}"), "known: [DEVICES]")
}

/// Which numbers are replaced.
#[derive(Clone, Copy, PartialEq)]
enum Numbers {
    /// Shares in percent, times and rates; all decimals of a line about an epoch.
    Measured,
    /// All that stand alone.
    All,
}

/// A line with numbers replaced by `#`. One that is aligned to the right keeps its place.
fn masked(line: &str, which: Numbers) -> String {
    let line = &without_checksums(&time_left(line));
    // A model says on which processor it was made, and predictions depend on it: files have other lengths elsewhere.
    let of_length = line.contains(".safetensors: ") && line.ends_with(" bytes");
    let of_training = line.contains("the training loss grew from");
    let which = match of_length || of_training || line.contains("measures.json: line ") {
        true => Numbers::All,
        false => which,
    };
    let epoch = line.contains(": epoch ");
    let mut out = String::new();
    let mut rest = line.as_str();
    while let Some(c) = rest.chars().next() {
        let before = out.chars().next_back().unwrap_or(' ');
        let length = if " \t(|,[=<>~±–+−".contains(before) {
            number_at(rest)
        } else {
            0
        };
        let (number, after) = rest.split_at(length);
        if length == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let unit = [" %", "\u{a0}%", " s", " images/s", " a second"]
            .into_iter()
            .find(|unit| {
                let ends = |rest: &str| !rest.starts_with(char::is_alphanumeric);
                after.strip_prefix(unit).is_some_and(ends)
            });
        let time = number.contains(':');
        let decimal = number.contains('.');
        if which == Numbers::All || unit.is_some() || time || epoch && decimal {
            let behind = &after[unit.map_or(0, str::len)..];
            let aligned = out.ends_with("  ") && (behind.is_empty() || behind.starts_with("  "));
            if aligned {
                out.push_str(&" ".repeat(number.chars().count() - 1));
            }
            out.push('#');
        } else {
            out.push_str(number);
        }
        rest = after;
    }
    // A sign depends on the processor as its number does.
    without_worst_class(out.replace("+#", "#").replace("−#", "#"))
}

/// Classes of the embedded images.
static CLASSES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let data = advcl::data::load("fashion-mnist-12k");
    data.expect("the embedded set").classes
});

/// A masked line with the worst class of a classifier as `CLASS`: which one it is depends on the processor.
fn without_worst_class(mut line: String) -> String {
    for name in CLASSES.iter() {
        line = line.replace(&format!("{name} # % of #"), "CLASS # % of #");
        line = line.replace(&format!(",{name},#"), ",CLASS,#");
    }
    line
}

/// The length of a number at the start of a text: "12", "0.5", "-1.5e-7", "0:07". 0 where it is
/// part of a word.
fn number_at(text: &str) -> usize {
    let digits = |at: usize| {
        let digit = |c: &char| c.is_ascii_digit();
        text[at..].chars().take_while(digit).count()
    };
    let sign = usize::from(text.starts_with('-'));
    let whole = digits(sign);
    if whole == 0 {
        return 0;
    }
    let mut end = sign + whole;
    for point in ['.', ':'] {
        if text[end..].starts_with(point) && digits(end + 1) > 0 {
            end += 1 + digits(end + 1);
        }
    }
    if let Some(power) = text[end..].strip_prefix('e') {
        let sign = usize::from(power.starts_with('-'));
        if digits(end + 1 + sign) > 0 {
            end += 1 + sign + digits(end + 1 + sign);
        }
    }
    let word = |c: char| c.is_alphanumeric() || "_-/.:".contains(c);
    let (first, second) = {
        let mut after = text[end..].chars();
        (after.next(), after.next())
    };
    match (first, second) {
        // The end of a sentence.
        (Some('.' | ':'), None | Some(' ')) => end,
        (Some(c), _) if word(c) => 0,
        _ => end,
    }
}

/// A line of progress without the time that is left.
fn time_left(line: &str) -> String {
    match line
        .strip_suffix(" left")
        .and_then(|line| line.rsplit_once(", "))
    {
        Some((start, _)) if line.contains(" images/s") => format!("{start}, # left"),
        _ => line.to_owned(),
    }
}

/// A line with every checksum replaced: they depend on the bits of the processor.
fn without_checksums(line: &str) -> String {
    const START: &str = "crc32:";
    let mut parts = line.split(START);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out = out + START + "[SUM]" + part.get(8..).unwrap_or_default();
    }
    out
}

/// A line without the spaces that align its cells, but for two.
fn closed_up(line: &str) -> String {
    let mut out = String::new();
    for c in line.chars() {
        if !(c == ' ' && out.ends_with("  ")) {
            out.push(c);
        }
    }
    out
}

fn shape(value: &Value, at: &str, paths: &mut Vec<(String, Vec<&str>)>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(values) => {
            let at = format!("{at}[]");
            return values.iter().for_each(|value| shape(value, &at, paths));
        }
        Value::Object(entries) => {
            for (key, value) in entries {
                // A class: which ones are predicted depends on the processor.
                let class = key.chars().all(|c| c.is_ascii_digit());
                let key = if class { "CLASS" } else { key.as_str() };
                shape(value, &format!("{at}.{key}"), paths);
            }
            return;
        }
    };
    match paths.iter_mut().find(|(path, _)| path == at) {
        Some((_, kinds)) if kinds.contains(&kind) => {}
        Some((_, kinds)) => kinds.push(kind),
        None => paths.push((at.to_owned(), vec![kind])),
    }
}

#[test]
fn what_varies_is_masked_and_nothing_else() {
    for (line, which, expected) in [
        (
            "SimCLR  SLF    12.5 %   5.0 %  0.1 (L∞)  PGD-2  0:01",
            Numbers::Measured,
            "SimCLR  SLF       # %     # %  0.1 (L∞)  PGD-2     #",
        ),
        (
            "simclr: epoch 1/25, loss 2.345, 512 images/s, 2 minutes left",
            Numbers::Measured,
            "simclr: epoch 1/25, loss #, # images/s, # left",
        ),
        (
            "recipe a.toml, line 12, column 1: expected 1 to 1024, found 0",
            Numbers::Measured,
            "recipe a.toml, line 12, column 1: expected 1 to 1024, found 0",
        ),
        (
            "| ResNet-18 | 55.2 ± -1.0 | 3 | 1.5e-7 | runs/seed-1 | 8/255 | [1, 28] |",
            Numbers::All,
            "| ResNet-18 | # ± # | # | # | runs/seed-1 | 8/255 | [#, #] |",
        ),
        (
            "SLF  ACL − AdvCL  PGD-2  −0.5 ± 1.0  DynACL++",
            Numbers::All,
            "SLF  ACL − AdvCL  PGD-2  # ± #  DynACL++",
        ),
    ] {
        assert_eq!(masked(line, which), expected);
    }
}

#[test]
fn every_snapshot_belongs_to_a_test() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let sources = |path: &Path| path.extension().is_some_and(|e| e == "rs");
    let entries = fs::read_dir(&tests).expect("the tests");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let text: String = paths
        .filter(|path| sources(path))
        .map(|path| fs::read_to_string(path).expect("UTF-8"))
        .collect();
    for entry in fs::read_dir(tests.join("snapshots")).expect("snapshots") {
        let file = entry.expect("an entry").file_name();
        let file = file.to_str().expect("UTF-8");
        // Files beside them are insta's own, of a test that failed.
        if let Some(name) = file.strip_suffix(".snap") {
            let checks = [".check(", "check_recipe(", "assert_snapshot!("]
                .map(|by| format!("{by}\"{name}\""));
            let is_checked = checks.iter().any(|check| text.contains(check));
            assert!(is_checked, "no test has the snapshot {file}");
        }
    }
}
