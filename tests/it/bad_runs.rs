//! Bad input: stages that come too early, and run folders with spoiled files.

use std::path::Path;

use advcl::cluster::PseudoLabels;
use advcl::weights;

use crate::{Transcript, advcl, copy, folder, folder_after, get, put};

#[test]
fn stages_that_come_too_early() {
    let folder = folder();
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    transcript.note("No folder.");
    for command in [
        "cluster tiny.toml",
        "finetune",
        "evaluate",
        "pretrain --method advcl",
    ] {
        transcript.refuse(&format!("{command} --run run"));
        assert!(!path.join("run").exists(), "{command} made a folder");
    }
    transcript.note("A folder without an encoder.");
    for args in [
        "pretrain tiny.toml --method advcl --run run",
        "cluster --run run",
        "finetune --run run",
        "evaluate --run run",
    ] {
        transcript.refuse_after_a_start(args);
    }
    advcl(path, "pretrain --run run").expect(0);
    transcript.note("Encoders without a classifier.");
    transcript.refuse_after_a_start("evaluate --run run");
    transcript.note("A missing file that only clustering needs.");
    transcript.refuse_after_a_start(
        "run tiny.toml --run late --set cluster.labels_file='none.safetensors'",
    );
    assert!(
        !path.join("late/simclr").exists(),
        "refused after a computation"
    );
    transcript.check("stages_that_come_too_early");
}

#[test]
fn run_folders_of_another_recipe_or_in_use() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    // What took an hour is not replaced unasked.
    for stage in ["simclr", "advcl"] {
        let times = path.join("run").join(stage).join("times.json");
        put(
            times,
            r#"{"pretrain": 3600.0, "finetune": 0.0, "evaluate": 0.0}"#,
        );
    }
    transcript.refuse("run tiny.toml --run run --set seed=4");
    transcript.refuse("run smoke --run run");
    // Held by another process, this one.
    let lock = std::fs::File::create(path.join("run/.lock")).expect("a writable folder");
    lock.lock().expect("nobody else is at work");
    transcript.refuse("run --run run");
    drop(lock);
    advcl(path, "run --run run").expect(0);
    transcript.check("run_folders_of_another_recipe_or_in_use");
}

/// One file of a run folder that is replaced.
struct Spoiled {
    /// What the file is replaced by, in words.
    by: &'static str,
    file: &'static str,
    content: Vec<u8>,
    /// A file that would be used instead, and is taken away; "" where there is none.
    hidden_by: &'static str,
}

const ENCODER: &str = "simclr/model.safetensors";
const CHECKPOINT: &str = "simclr/checkpoint.safetensors";
const ADVCL: &str = "advcl/model.safetensors";
const LABELS: &str = "pseudo_labels.safetensors";

/// Files of the folder `run` below `path`, each spoiled in its own way. Files of another recipe are not
/// spoiled: they are stale, and made again.
fn spoiled(path: &Path) -> Vec<Spoiled> {
    let file = |name: &str| get(path.join("run").join(name));
    let cut = |name: &str| {
        let whole = file(name);
        whole[..whole.len() * 2 / 3].to_vec()
    };
    let made = |make: &dyn Fn(&Path)| {
        make(&path.join("made"));
        get(path.join("made"))
    };
    let (_, metadata) = weights::load(&path.join("run").join(LABELS)).expect("a file");
    let (_, recipe) = metadata["advcl_pseudo_labels"]
        .split_once("\n\n")
        .expect("an empty line");
    let labels = |count: usize, value: usize| {
        let clusters = vec![(2, vec![0; count]), (5, vec![value; count])];
        made(&move |path| {
            PseudoLabels {
                clusters: clusters.clone(),
                origin: String::new(),
            }
            .save(path, recipe)
            .expect("a file")
        })
    };
    let mut all = Vec::new();
    let mut spoil = |file, by, content, hidden_by| {
        all.push(Spoiled {
            by,
            file,
            content,
            hidden_by,
        });
    };
    let by = "its first two thirds";
    spoil(CHECKPOINT, by, cut(CHECKPOINT), ENCODER);
    spoil(CHECKPOINT, "a model", file(ENCODER), ENCODER);
    spoil(ENCODER, by, cut(ENCODER), "");
    spoil(ENCODER, "nothing", Vec::new(), "");
    spoil(ENCODER, "a checkpoint", file(CHECKPOINT), "");
    spoil(LABELS, by, cut(LABELS), ADVCL);
    spoil(LABELS, "a label too few", labels(63, 0), ADVCL);
    spoil(LABELS, "a label too large", labels(64, 5), ADVCL);
    let result = "simclr/slf/result.json";
    spoil(result, "a brace", b"{".to_vec(), "");
    all
}

#[test]
fn files_of_a_run_folder_that_do_not_belong_there() {
    let folder = folder_after("run tiny.toml --run run");
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    for Spoiled {
        by,
        file,
        content,
        hidden_by,
    } in spoiled(path)
    {
        let copied = path.join("copy");
        copy(&path.join("run"), &copied);
        put(copied.join(file), content);
        if !hidden_by.is_empty() {
            std::fs::remove_file(copied.join(hidden_by)).expect("a file of the run");
        }
        let command = match file.strip_prefix("simclr/slf/") {
            Some("result.json") => "evaluate",
            Some(_) => "finetune",
            None => "pretrain",
        };
        transcript.note(&format!("{file} is replaced by {by}."));
        transcript.refuse_after_a_start(&format!("{command} --run copy"));
        std::fs::remove_dir_all(copied).expect("a folder of ours");
    }
    transcript.check("files_of_a_run_folder_that_do_not_belong_there");
}

#[test]
fn figures_of_another_number_of_classes_than_the_classifier_has_are_refused() {
    let folder = folder_after("run simclr.toml --run run");
    let path = folder.path();
    let file = path.join("run/simclr/slf/result.json");
    let text = crate::without_checksum(&String::from_utf8(get(&file)).expect("UTF-8"));
    let mut results: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let classes = &mut results["results"][0]["accuracy"]["classes"];
    let none = serde_json::json!({"images": 0, "clean": 0, "robust": 0});
    classes.as_array_mut().expect("a list").push(none);
    put(&file, results.to_string());
    let words = "accuracy.classes: expected the counts of 10 classes, as the classifier has, found";
    for command in ["evaluate run -v", "report run --format csv"] {
        let answer = advcl(path, command).expect(2);
        assert!(answer.stderr.contains(words), "{answer}");
    }
    let answer = advcl(path, "check run").expect(1);
    assert!(answer.stdout.contains(words), "{answer}");
}
