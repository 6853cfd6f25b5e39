//! Bad input: stages that come too early, and run folders with spoiled files.

use std::path::Path;

use advcl::cluster::PseudoLabels;
use advcl::nn::{Backbone, EncoderConfig};
use advcl::random;
use advcl::run::{Model, ModelInfo};
use advcl::weights;

use crate::{Transcript, advcl, copy, device, folder, folder_after, get, put};

/// A model file of other images or another encoder.
fn other_model(path: &Path, width: usize, channels: usize) {
    let encoder = EncoderConfig {
        width,
        ..crate::encoder()
    };
    let mut rng = random::generator(0, "other", 0);
    let routes = vec![advcl::nn::Route::Normal];
    let backbone = Backbone::new(&encoder, channels, routes.len(), &[], &mut rng, &device());
    let info = ModelInfo {
        format: 1,
        method: "simclr".to_owned(),
        encoder,
        channels,
        image_size: [28, 28],
        classes: Vec::new(),
        route: routes[0],
        routes,
        projection: true,
        clusters: Vec::new(),
        pseudo_labels: None,
        finetuning: None,
        normalize: None,
        recipe: String::new(),
        advcl_version: "0.0.0".to_owned(),
    };
    let model = Model {
        info,
        backbone,
        linear: None,
    };
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
    model.save(path).expect("a writable folder");
}

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
const SLF: &str = "simclr/slf/model.safetensors";
const SLF_CHECKPOINT: &str = "simclr/slf/checkpoint.safetensors";

/// Files of the folder `run` below `path`, each spoiled in its own way. Beside it are `another`, of
/// another temperature, and `wide`, of another width.
fn spoiled(path: &Path) -> Vec<Spoiled> {
    let file = |name: &str| get(path.join("run").join(name));
    let another = |name: &str| get(path.join("another").join(name));
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
    let other = "that of another temperature";
    spoil(CHECKPOINT, other, another(CHECKPOINT), ENCODER);
    spoil(ENCODER, other, another(ENCODER), "");
    spoil(LABELS, other, another(LABELS), ADVCL);
    spoil(ADVCL, other, another(ADVCL), "");
    spoil(SLF, other, another(SLF), "");
    spoil(SLF_CHECKPOINT, other, another(SLF_CHECKPOINT), SLF);
    let advcl_slf = another("advcl/slf/model.safetensors");
    spoil(SLF, "that of advcl", advcl_slf, "");
    let encoders = file(CHECKPOINT);
    spoil(SLF_CHECKPOINT, "that of the encoder", encoders, SLF);
    let by = "its first two thirds";
    spoil(CHECKPOINT, by, cut(CHECKPOINT), ENCODER);
    let wide = get(path.join("wide").join(CHECKPOINT));
    spoil(CHECKPOINT, "that of another width", wide, ENCODER);
    let advcl_checkpoint = file("advcl/checkpoint.safetensors");
    spoil(CHECKPOINT, "that of advcl", advcl_checkpoint, ENCODER);
    spoil(CHECKPOINT, "a model", file(ENCODER), ENCODER);
    spoil(ENCODER, by, cut(ENCODER), "");
    spoil(ENCODER, "nothing", Vec::new(), "");
    let wide = made(&|path| other_model(path, 3, 1));
    spoil(ENCODER, "one of another width", wide, "");
    let colour = made(&|path| other_model(path, 2, 3));
    spoil(ENCODER, "one of colour images", colour, "");
    spoil(ENCODER, "that of advcl", file(ADVCL), "");
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
    let wide = "pretrain tiny.toml --method simclr --run wide --set encoder.width=3";
    advcl(path, wide).expect(0);
    let another = "run tiny.toml --run another --set pretrain.simclr.temperature=0.25";
    advcl(path, another).expect(0);
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
