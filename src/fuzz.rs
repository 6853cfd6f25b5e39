//! Parsers of files that strangers may have made, as functions of bytes: `fuzz/` lets libFuzzer call them,
//! and `tests/fuzz.rs` calls them with every file of the corpus.
//!
//! A function takes any bytes at all. It must not panic, must be done in a moment, and must not hold much
//! more memory than it was given bytes; whether it takes the bytes for a good file does not matter. Where a
//! parser reads files, they lie in a temporary folder in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Tensor;
use tempfile::TempDir;

use crate::attack::{Ball, Norm};
use crate::cluster::PseudoLabels;
use crate::compare::Comparison;
use crate::data::{self, Channels, Damaged, Fit, Images, Reading, Size, Split};
use crate::error::Result;
use crate::evaluate::Evaluator;
use crate::evaluate::adversarial::{Adversarial, verify};
use crate::evaluate::soundness::Soundness;
use crate::experiment::{self, KeptMeasure, KeptSuite, Outcome, Summary};
use crate::files;
use crate::import::{ImportSettings, import};
use crate::nn::{Linear, Stem};
use crate::random;
use crate::recipe::Recipe;
use crate::report;
use crate::run::{Model, ModelInfo, Results};
use crate::session::Context;
use crate::train::{Checkpoint, Loss, Objective, Optimizer, Plan, Position, Schedule, Step, fit};
use crate::weights;

/// A parser as a function of bytes.
pub type Body = fn(&[u8]);

/// All parsers, by the name of their target and of the folder of their corpus.
pub const TARGETS: &[(&str, Body)] = &[
    ("adversarial", adversarial),
    ("checkpoint", checkpoint),
    ("cifar", cifar),
    ("idx", idx),
    ("image", image),
    ("import", import_weights),
    ("labels", labels),
    ("manifest", manifest),
    ("metrics", metrics),
    ("model", model),
    ("npz", npz),
    ("recipe", recipe),
    ("results", results),
    ("run", run),
    ("tar", tar),
    ("weights", all_weights),
    ("zip", zip),
];

/// The parser of a target.
///
/// # Panics
/// For a name that no target has.
pub fn body(name: &str) -> Body {
    let known = TARGETS.iter().find(|(target, _)| *target == name);
    known.unwrap_or_else(|| panic!("no target {name}")).1
}

/// A new folder, in memory where the system has such folders.
fn empty_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    folder.expect("a folder that can be written")
}

/// A new folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = empty_folder();
    for (name, content) in files {
        let path = folder.path().join(name);
        let above = path.parent().expect("it lies in the folder");
        fs::create_dir_all(above).expect("a folder that can be written");
        put(&path, content);
    }
    folder
}

fn put(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("a folder that can be written");
}

/// The path of a file with this content, until the thread's next one. They share a folder: making and removing one takes longer
/// than most parsers do.
fn file(content: &[u8]) -> PathBuf {
    thread_local!(static FOLDER: TempDir = empty_folder());
    let path = FOLDER.with(|folder| folder.path().join("file"));
    put(&path, content);
    path
}

/// The value, where there is one; an error is put into words, as the program does.
fn good<T>(result: Result<T>) -> Option<T> {
    let error = match result {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    let message = format!("{error} {}", error.hint().unwrap_or_default());
    assert!(message.len() > 1, "an error says something");
    None
}

fn load_data(path: &Path) {
    good(data::load(path.to_str().expect("a name in UTF-8")));
}

/// The first byte says which of `files` has the remaining bytes in the place of its own. `folder` has these files, before and after.
fn load_with_another_file(folder: &TempDir, files: &[(&str, &[u8])], data: &[u8]) {
    let Some((which, data)) = data.split_first() else {
        return;
    };
    let (name, content) = files[usize::from(*which) % files.len()];
    let path = folder.path().join(name);
    put(&path, data);
    load_data(folder.path());
    put(&path, content);
}

fn idx(data: &[u8]) {
    const IMAGES: &[u8] = b"\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x02abcd";
    const LABELS: &[u8] = b"\0\0\x08\x01\0\0\0\x02\0\x01";
    const FILES: [(&str, &[u8]); 5] = [
        ("train-images-idx3-ubyte", IMAGES),
        ("train-labels-idx1-ubyte", LABELS),
        ("classes.txt", b"cat\ndog\n"),
        ("t10k-images-idx3-ubyte", IMAGES),
        ("t10k-labels-idx1-ubyte", LABELS),
    ];
    thread_local!(static FOLDER: TempDir = folder(&FILES));
    FOLDER.with(|folder| load_with_another_file(folder, &FILES, data));
}

fn cifar(data: &[u8]) {
    // Two images, of the first and of the second class.
    const RECORDS: [u8; 2 * 3074] = {
        let mut records = [0; 2 * 3074];
        records[3075] = 1;
        records
    };
    const FILES: [(&str, &[u8]); 3] = [
        ("train.bin", &RECORDS),
        ("fine_label_names.txt", b"cat\ndog\n"),
        ("test.bin", &RECORDS),
    ];
    thread_local!(static FOLDER: TempDir = folder(&FILES));
    FOLDER.with(|folder| load_with_another_file(folder, &FILES, data));
}

/// The first byte says of which kind the list is.
fn manifest(data: &[u8]) {
    const IMAGE: &[u8] =
        b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0\
        \0\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x09\x08\x07\0";
    let Some((which, list)) = data.split_first() else {
        return;
    };
    let name = ["list.csv", "list.jsonl"][usize::from(*which) % 2];
    // No input names a file elsewhere.
    let list: Vec<u8> = list
        .iter()
        .map(|byte| if *byte == b'/' { b'_' } else { *byte })
        .collect();
    let folder = folder(&[("a.bmp", IMAGE), ("b.bmp", IMAGE), (name, &list)]);
    load_data(&folder.path().join(name));
}

fn npz(data: &[u8]) {
    let mut data = data.to_vec();
    correct_zip_checksums(&mut data);
    let folder = folder(&[("set.npz", &data)]);
    load_data(&folder.path().join("set.npz"));
}

/// Every other one is brought to one size and kind. Most are small: millions of pixels take a moment each, whatever the bytes.
fn image(data: &[u8]) {
    let mut reading = Reading::default();
    if !data.len().is_multiple_of(15) {
        reading.max_pixels = Some(10_000);
    }
    if data.len() % 2 == 1 {
        reading.size = Some(Size::Square(8));
        reading.channels = Some(Channels::Rgb);
        reading.background = Some([255, 0, 0]);
        reading.fit = [Fit::Crop, Fit::Pad, Fit::Stretch][data.len() / 2 % 3];
    }
    let folder = folder(&[("image.png", data)]);
    let path = folder.path().to_str().expect("a name in UTF-8");
    good(data::load_as(path, &reading, Damaged::Refuse));
}

fn tar(data: &[u8]) {
    let mut data = data.to_vec();
    // Without the right sum, hardly a change of a header would come to be read.
    for header in data.chunks_exact_mut(512) {
        if &header[257..262] == b"ustar" {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    load_data(&file(&data));
}

fn zip(data: &[u8]) {
    let mut data = data.to_vec();
    correct_zip_checksums(&mut data);
    load_data(&file(&data));
}

fn import_weights(data: &[u8]) {
    let mut data = data.to_vec();
    correct_zip_checksums(&mut data);
    let path = file(&data);
    let settings = ImportSettings::new(Stem::Cifar);
    let context = good(Context::cpu()).expect("a CPU");
    good(import(&path, &settings, &context.device));
}

/// Puts the right checksums to the stored members of a zip archive: a changed pickle would not be read with
/// a wrong one.
fn correct_zip_checksums(data: &mut [u8]) {
    let number = |data: &[u8], at: usize, bytes: usize| -> Option<usize> {
        let bytes = data.get(at..at + bytes)?.iter().rev();
        Some(bytes.fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    // The directory, from where the end of the archive says that it is.
    let end = data.windows(4).rposition(|start| start == b"PK\x05\x06");
    let mut next = end.and_then(|end| number(data, end + 16, 4));
    let mut entries = Vec::new();
    while let Some(entry) = next.filter(|at| data.get(*at..at + 4) == Some(b"PK\x01\x02")) {
        entries.push(entry);
        let lengths = [28, 30, 32].map(|at| number(data, entry + at, 2));
        let lengths: Option<usize> = lengths.into_iter().sum();
        next = lengths.map(|lengths| entry + 46 + lengths);
    }
    for entry in entries {
        let place = || {
            let (method, size) = (number(data, entry + 10, 2)?, number(data, entry + 20, 4)?);
            let header = number(data, entry + 42, 4)?;
            let start = header + 30 + number(data, header + 26, 2)? + number(data, header + 28, 2)?;
            let content = data.get(start..start + size)?;
            let mut sum = flate2::Crc::new();
            sum.update(content);
            (method == 0).then(|| (header, sum.sum().to_le_bytes()))
        };
        if let Some((header, sum)) = place() {
            data[header + 14..header + 18].copy_from_slice(&sum);
            data[entry + 16..entry + 20].copy_from_slice(&sum);
        }
    }
}

fn all_weights(data: &[u8]) {
    let path = file(data);
    good(weights::load(&path));
    good(weights::load_metadata(&path));
}

fn model(data: &[u8]) {
    let path = file(data);
    let context = good(Context::cpu()).expect("a CPU");
    good(ModelInfo::load(&path));
    if let Some(model) = good(Model::load(&path, &context.device)) {
        good(model.classifier(&path));
    }
}

fn labels(data: &[u8]) {
    let path = file(data);
    good(PseudoLabels::recorded(&path));
    good(PseudoLabels::load(&path, 3, &[2]));
}

/// A recipe, and below it overrides: lines that begin with `--set `. Without a recipe, those of `smoke`.
fn recipe(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut parts = text.split("--set ");
    let text = parts.next().unwrap_or_default();
    let overrides: Vec<String> = parts.map(str::to_owned).collect();
    let recipe = match text.is_empty() {
        true => Recipe::load("smoke", &overrides),
        false => Recipe::parse("recipe.toml", text, &overrides),
    };
    if let Some(recipe) = good(recipe) {
        let written = recipe.to_toml();
        let again = good(Recipe::parse("recipe.toml", &written, &[]));
        assert!(again.as_ref() == Some(&recipe), "read back:\n{written}");
    }
}

/// A model of one layer, which learns to be zero.
struct Least;

impl Objective for Least {
    type Model = Linear;

    fn loss(&self, step: Step<Linear>) -> Loss {
        let (weight, bias) = (step.tracked.weight.val(), step.tracked.bias.val());
        let total = weight.square().sum() + bias.square().sum();
        let parts = Vec::new();
        Loss { total, parts }
    }
}

fn checkpoint(data: &[u8]) {
    let path = file(data);
    good(Position::load(&path));
    let plan = Plan {
        epochs: 2,
        batch_size: 2,
        lr: 0.1,
        schedule: Schedule::Steps {
            milestones: Vec::new(),
        },
        momentum: 0.9,
        weight_decay: 0.0,
        optimizer: Optimizer::Sgd,
        stretched: Vec::new(),
        micro_batch: None,
    };
    // One step, and what was done is saved.
    let stop = AtomicBool::new(true);
    let mut context = good(Context::cpu()).expect("a CPU").stopped_by(&stop);
    let mut rng = random::generator(0, "fuzz", 0);
    let fresh = Linear::new(2, 2, &mut rng, &context.device);
    let checkpoint = Checkpoint::new(&path, "recipe");
    good(fit(
        "stage",
        &Least,
        fresh,
        &plan,
        4,
        checkpoint,
        &mut context,
    ));
}

fn adversarial(data: &[u8]) {
    let path = file(data);
    let Some((examples, about)) = good(Adversarial::load(&path)) else {
        return;
    };
    let split = Split {
        images: Images::new(vec![0, 50, 100, 255], [1, 1, 2]),
        labels: vec![0, 1],
    };
    let mut context = good(Context::cpu()).expect("a CPU");
    // The two pixels are the two logits.
    let logits = |images: Tensor<4>| {
        let [batch, ..] = images.dims();
        images.reshape([batch, 2])
    };
    let evaluator = Evaluator {
        name: "simclr/slf",
        logits: &logits,
        classes: 2,
        split: &split,
        batch_size: 2,
    };
    let ball = Ball {
        norm: Norm::Linf,
        radius: 0.1,
    };
    let stored = (path.as_path(), &examples, &about);
    good(verify(stored, &evaluator, &[0, 1], ball, &mut context));
}

fn metrics(data: &[u8]) {
    let path = file(data);
    good(report::training(&path));
}

fn results(data: &[u8]) {
    let path = file(data);
    good(Results::<Soundness>::load(&path));
    good(Results::<KeptMeasure>::load(&path));
    good(Results::<KeptSuite>::load(&path));
    let outcomes = match good(Results::<Outcome>::load(&path)) {
        Some(results) => results.iter().map(|kept| kept.value.clone()).collect(),
        None => good(files::read_json::<Summary>(&path)).map_or(Vec::new(), |sum| sum.outcomes),
    };
    if !outcomes.is_empty() {
        let recipe = good(Recipe::load("smoke", &[])).expect("a shipped one");
        let seeds: Vec<(u64, Outcome)> = (0..).zip(outcomes).collect();
        let comparison = Comparison::new(&recipe, &seeds, Vec::new());
        assert!(serde_json::to_string(&comparison).is_ok());
    }
}

/// A whole run folder: its files, each after a line `=== NAME`. The description of a model stands in the
/// place of its file.
fn run(data: &[u8]) {
    const NAMES: [&str; 11] = [
        "recipe.toml",
        "recipe.resolved.toml",
        "run.json",
        "metrics.jsonl",
        "summary.json",
        "transfer.json",
        "simclr/slf/model.safetensors",
        "simclr/slf/result.json",
        "simclr/slf/attack.json",
        "simclr/slf/soundness.json",
        "simclr/slf/measures.json",
    ];
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut files: Vec<(&str, &[u8])> = Vec::new();
    let mut description = None;
    for part in text.split("=== ") {
        let Some((name, content)) = part.split_once('\n') else {
            continue;
        };
        match NAMES.into_iter().find(|known| *known == name) {
            Some(name) if name.ends_with("safetensors") => description = Some(content),
            Some(name) => files.push((name, content.as_bytes())),
            None => {}
        }
    }
    let model;
    if let Some(description) = description {
        let metadata = [("advcl".to_owned(), description.to_owned())].into();
        let none: [(String, safetensors::tensor::TensorView); 0] = [];
        model = safetensors::serialize(none, Some(metadata)).expect("no tensors");
        files.push((NAMES[6], &model));
    }
    let folder = folder(&files);
    if let Some((runs, _)) = good(report::read(folder.path())) {
        assert!(serde_json::to_string(&runs).is_ok());
    }
    // A check reads the images of the recipe: not whatever an input names.
    let sources = text.matches("source").count();
    if sources == 1 && text.contains("source = \"no-images\"") {
        let context = good(Context::cpu()).expect("a CPU");
        let files = good(experiment::check(folder.path(), &[], &context.device));
        assert!(serde_json::to_string(&files).is_ok());
    }
}
