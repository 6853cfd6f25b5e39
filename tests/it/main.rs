//! Integration tests: the library through its public door, and the built program.

mod attacks;
mod bad_data;
mod bad_input;
mod bad_models;
mod bad_runs;
mod cli;
mod compare;
mod evaluation;
mod folder;
mod import;
mod measures;
mod methods;
mod modes;
mod own_output;
mod parity;
mod recipe_keys;
mod report;
mod resume;
mod routes;
#[cfg(unix)]
mod signals;
mod soundness;
mod suites;
mod supervised;
mod tools;
mod transfer;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use advcl::attack::Ball;
use advcl::cluster::PseudoLabels;
use advcl::criterion::{Criterion, EndToEnd, Task};
use advcl::data::{Images, Split};
use advcl::nn::{Backbone, Classifier, Depth, Encoder, EncoderConfig, Linear, Route, Stem};
use advcl::random;
use advcl::train::{Optimizer, Plan, Schedule};
use burn::tensor::Device;
use rand::RngExt;
use tempfile::TempDir;

/// Both encoders in a second: no classifier to be proud of.
const TINY: &str = r#"
seed = 3

[data]
source = "fashion-mnist-12k"
train_limit = 64
test_limit = 20

[encoder]
depth = 10
width = 2
stem = "strided"

[threat]
norm = "linf"
radius = "0.1"

[pretrain.simclr]
temperature = 0.5
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[cluster]
counts = [2, 5]
restarts = 1
iterations = 20

[pretrain.advcl]
temperature = 0.5
cluster_weight = 0.2
high_frequency_radius = 8.0
attack_steps = 2
attack_step_size = "0.05"
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 1e-4, schedule.cosine = {} }

[finetune.slf]
plan = { epochs = 3, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.steps = { milestones = [2] } }

[evaluate]
split = "test"
batch_size = 20
steps = 2
step_size = "0.05"
"#;

/// What is added to [`TINY`] for the supervised reference.
const TINY_SUPERVISED: &str = r#"
[pretrain.adversarial-training]
attack_steps = 2
attack_step_size = "0.05"
plan = { epochs = 2, batch_size = 16, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {} }
"#;

/// [`TINY`] with one method.
fn only_simclr() -> String {
    let place = |words: &str| TINY.find(words).expect("a table of it");
    [
        &TINY[..place("[cluster]")],
        &TINY[place("[finetune.slf]")..],
    ]
    .concat()
}

/// The program's answer.
struct Answer {
    what: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Answer {
    /// Fails, with all that was said, unless the program ended with this code and without a panic.
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code of {self}");
        assert!(!self.stderr.contains("panicked"), "a panic in {self}");
        self
    }

    /// The standard output as JSON.
    #[track_caller]
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self}"))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self {
            what,
            code,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "{what}: code {code:?}\n-- stdout\n{stdout}\n-- stderr\n{stderr}"
        )
    }
}

/// The program, to be run in `folder`.
fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_advcl"));
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// What a prepared command says when it is run to its end.
fn answer(command: &mut Command) -> Answer {
    let output = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Answer {
        what: format!("{command:?}"),
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}

/// Runs the program in `folder` to its end; arguments as on a command line, none with a space in it.
fn advcl(folder: &Path, args: &str) -> Answer {
    answer(program(folder).args(args.split_whitespace()))
}

/// A temporary folder with `tiny.toml` in it, and `supervised.toml`, which has one method more.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path().join("tiny.toml"), TINY);
    put(
        folder.path().join("supervised.toml"),
        [TINY, TINY_SUPERVISED].concat(),
    );
    folder
}

/// Writes a file, and the folders above it.
fn put(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(path, content)
    };
    write().unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// Reads a file.
#[track_caller]
fn get(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Every file below `folder`, with its content.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else {
            let content = get(&path);
            files.insert(path, content);
        }
    }
    files
}

/// Copies every file below `from` to `to`.
fn copy(from: &Path, to: &Path) {
    for (path, content) in snapshot(from) {
        put(
            to.join(path.strip_prefix(from).expect("a path below")),
            content,
        );
    }
}

/// A gray PNG of `side` × `side` pixels.
fn png(side: u32, pixels: &[u8]) -> Vec<u8> {
    use image::{ExtendedColorType, ImageFormat};
    let mut file = std::io::Cursor::new(Vec::new());
    let kind = ExtendedColorType::L8;
    image::write_buffer_with_format(&mut file, pixels, side, side, kind, ImageFormat::Png)
        .expect("as many pixels as the sides say");
    file.into_inner()
}

/// The CPU.
fn device() -> Device {
    advcl::device::open("cpu").expect("compiled in by default")
}

/// `count` images of random patches, gray, 12 × 12: black, white and what is between.
fn images(count: usize) -> Images {
    let mut rng = random::generator(5, "images", 0);
    let patches: Vec<u8> = (0..count * 16)
        .map(|_| [0, 60, 180, 255][rng.random_range(0..4)])
        .collect();
    let pixel = |i: usize| patches[i / 144 * 16 + i % 144 / 36 * 4 + i % 12 / 3];
    Images {
        pixels: (0..count * 144).map(pixel).collect(),
        channels: 1,
        height: 12,
        width: 12,
    }
}

/// A small backbone with cluster heads of 2 and 5.
fn backbone(routes: usize, seed: u64) -> Backbone {
    let mut rng = random::generator(seed, "backbone", 0);
    Backbone::new(&encoder(), 1, routes, &[2, 5], &mut rng, &device())
}

/// The smallest encoder that has everything.
fn encoder() -> EncoderConfig {
    EncoderConfig {
        depth: Depth::D10,
        width: 2,
        stem: Stem::Strided,
    }
}

/// The same encoder with a classifier of 4 classes.
fn classifier(seed: u64) -> Classifier {
    let (mut rng, device) = (random::generator(seed, "classifier", 0), device());
    Classifier {
        encoder: Encoder::new(&encoder(), 1, 1, &mut rng, &device),
        linear: Linear::new(encoder().features(), 4, &mut rng, &device),
        route: Route::Normal,
    }
}

/// `count` of [`images`] with labels of 4 classes.
fn labeled(count: usize) -> Split {
    Split {
        images: images(count),
        labels: (0..count).map(|i| i % 4).collect(),
    }
}

/// Labels for the heads of [`backbone`].
fn pseudo_labels(images: usize) -> PseudoLabels {
    let labels = |k: usize| (k, (0..images).map(|i| (i * 7 + i / 3) % k).collect());
    PseudoLabels {
        clusters: vec![labels(2), labels(5)],
        origin: "counted".to_owned(),
    }
}

/// Batches of 16.
fn plan(epochs: usize, lr: f64) -> Plan {
    Plan {
        epochs,
        batch_size: 16,
        lr,
        schedule: Schedule::Cosine {
            warmup_epochs: 1,
            warmup_from: 0.01,
        },
        momentum: 0.9,
        weight_decay: 1e-4,
        optimizer: Optimizer::Sgd,
        stretched: Vec::new(),
    }
}

/// AdvCL with two attack steps.
fn advcl_settings(epochs: usize) -> advcl::pretrain::advcl::Settings {
    advcl::pretrain::advcl::Settings {
        plan: plan(epochs, 0.1),
        temperature: 0.5,
        cluster_weight: 0.2,
        high_frequency_radius: Some(4.0),
        strong_views: 2,
        clusters: None,
        attack_steps: 2,
        attack_step_size: Some("0.05".parse().expect("a distance")),
        strong: Default::default(),
        weak: Default::default(),
    }
}

/// Adversarial training with two attack steps.
fn supervised_settings(epochs: usize) -> advcl::pretrain::adversarial_training::Settings {
    advcl::pretrain::adversarial_training::Settings {
        plan: plan(epochs, 0.1),
        attack_steps: 2,
        attack_step_size: Some("0.05".parse().expect("a distance")),
        weak: Default::default(),
    }
}

/// The objective that these settings mean, of 4 classes.
fn end_to_end<'a>(
    split: &'a Split,
    settings: &advcl::pretrain::adversarial_training::Settings,
    ball: Ball,
) -> EndToEnd<'a> {
    let augment = Some(settings.weak.clone());
    EndToEnd {
        task: Task::new(&split.images, &split.labels, 4, augment, ball, &device()),
        criterion: Criterion::Pgd {
            steps: settings.attack_steps,
            step_size: settings.attack_step_size.clone(),
        },
    }
}
