//! Bad input, continued: run folders and models that are spoiled.

use std::path::Path;

use advcl::cluster::PseudoLabels;
use advcl::nn::{Backbone, EncoderConfig};
use advcl::random;
use advcl::run::{Model, ModelInfo};
use advcl::weights;

use crate::bad_input::{Case, refused, refused_at_the_door};
use crate::{advcl, copy, device, folder, get, put};

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
fn run_folders() {
    let folder = folder();
    let path = folder.path();
    // What comes too early is told what comes first, and leaves no folder behind.
    for command in [
        "cluster tiny.toml",
        "finetune",
        "evaluate",
        "pretrain --method advcl",
    ] {
        let words = [
            "run run: no run has begun here",
            "hint: make the encoders first: advcl pretrain ",
            " --run run",
        ];
        refused_at_the_door(path, &format!("{command} --run run"), &words);
        assert!(!path.join("run").exists(), "{command} made a folder");
    }
    let early: [Case; 4] = [
        (
            "pretrain tiny.toml --method advcl --run run",
            &["run run: no pseudo-labels yet", "advcl cluster --run run"],
        ),
        (
            "cluster --run run",
            &[
                "run run: no simclr encoder yet",
                "advcl pretrain --method simclr --run run",
            ],
        ),
        (
            "finetune --run run",
            &[
                "run run: no simclr encoder yet",
                "advcl pretrain --method simclr --run run",
            ],
        ),
        (
            "evaluate --run run",
            &["run run: no simclr encoder yet", "advcl pretrain"],
        ),
    ];
    for (args, words) in early {
        refused(path, args, words);
    }
    advcl(path, "pretrain --run run").expect(0);
    refused(
        path,
        "evaluate --run run",
        &[
            "run run: no slf classifier on simclr yet",
            "hint: make it first: advcl finetune --method simclr --mode slf --run run",
        ],
    );
    let other: [Case; 2] = [
        (
            "run tiny.toml --run run --set seed=4",
            &[
                "`seed = 3`, this one `seed = 4`",
                "hint: name another folder",
            ],
        ),
        (
            "run smoke --run run",
            &["run run: made with another recipe"],
        ),
    ];
    for (args, words) in other {
        refused_at_the_door(path, args, words);
    }
    // A file that is missed only after pretraining would be missed late.
    refused(
        path,
        "run tiny.toml --run late --set cluster.labels_file='none.safetensors'",
        &["cannot read none.safetensors: No such file"],
    );
    assert!(
        !path.join("late/simclr").exists(),
        "said before anything is computed"
    );

    // Each a copy of the folder with one file spoiled, and another taken away that would hide it.
    let file = |name: &str| get(path.join("run").join(name));
    let cut = |name: &str| {
        let whole = file(name);
        whole[..whole.len() * 2 / 3].to_vec()
    };
    let made = |make: &dyn Fn(&Path)| {
        make(&path.join("made"));
        get(path.join("made"))
    };
    let (_, metadata) = weights::load(&path.join("run/pseudo_labels.safetensors")).expect("a file");
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
    let (model, checkpoint, pseudo) = (
        "simclr/model.safetensors",
        "simclr/checkpoint.safetensors",
        "pseudo_labels.safetensors",
    );
    let advcl_model = "advcl/model.safetensors";
    let (slf, slf_checkpoint) = (
        "simclr/slf/model.safetensors",
        "simclr/slf/checkpoint.safetensors",
    );
    advcl(
        path,
        "pretrain tiny.toml --method simclr --run wide --set encoder.width=3",
    )
    .expect(0);
    let wide = get(path.join("wide").join(checkpoint));
    let another = "run tiny.toml --run another --set pretrain.simclr.temperature=0.25";
    advcl(path, another).expect(0);
    let another = |name: &str| get(path.join("another").join(name));
    let temperature = "another recipe (it has `temperature = 0.25`, this one `temperature = 0.5`)";
    let cases: [(&str, Vec<u8>, &str, &[&str]); 22] = [
        (checkpoint, another(checkpoint), model, &[temperature]),
        (model, another(model), "", &[temperature]),
        (pseudo, another(pseudo), advcl_model, &[temperature]),
        (advcl_model, another(advcl_model), "", &[temperature]),
        (slf, another(slf), "", &[temperature]),
        (slf_checkpoint, another(slf_checkpoint), "", &[temperature]),
        (
            slf,
            another("advcl/slf/model.safetensors"),
            "",
            &["a advcl model of another encoder"],
        ),
        (
            slf_checkpoint,
            file(checkpoint),
            "",
            &["expected a checkpoint of simclr/slf, found one of simclr"],
        ),
        (
            checkpoint,
            cut(checkpoint),
            model,
            &["header: expected a complete safetensors file"],
        ),
        (
            checkpoint,
            wide,
            model,
            &["another recipe (it has `width = 3`, this one `width = 2`)"],
        ),
        (
            checkpoint,
            file("advcl/checkpoint.safetensors"),
            model,
            &["expected a checkpoint of simclr, found one of advcl"],
        ),
        (
            checkpoint,
            file(model),
            model,
            &["metadata: expected an advcl_checkpoint entry"],
        ),
        (
            model,
            cut(model),
            "",
            &["header: expected a complete safetensors file", "truncated"],
        ),
        (
            model,
            Vec::new(),
            "",
            &["header: expected a complete safetensors file"],
        ),
        (
            model,
            made(&|path| other_model(path, 3, 1)),
            "",
            &["model of another encoder", "does not belong to this run"],
        ),
        (
            model,
            made(&|path| other_model(path, 2, 3)),
            "",
            &["expected a model of images (1, [28, 28]), found (3, [28, 28])"],
        ),
        (
            model,
            file(advcl_model),
            "",
            &["a advcl model of another encoder"],
        ),
        (
            model,
            file(checkpoint),
            "",
            &["no advcl metadata: this is not a model.safetensors"],
        ),
        (
            pseudo,
            cut(pseudo),
            advcl_model,
            &["header: expected a complete safetensors file"],
        ),
        (
            pseudo,
            labels(63, 0),
            advcl_model,
            &["labels.2: expected a label for each of 64 images, found 63"],
        ),
        (
            pseudo,
            labels(64, 5),
            advcl_model,
            &["tensor labels.5, image 0: expected a whole number from 0 to 4, found 5"],
        ),
        (
            "simclr/slf/result.json",
            b"{".to_vec(),
            "",
            &["line 1, column 1: expected what this version writes"],
        ),
    ];
    for (name, content, hidden_by, words) in cases {
        let copied = path.join("copy");
        copy(&path.join("run"), &copied);
        put(copied.join(name), content);
        if !hidden_by.is_empty() {
            std::fs::remove_file(copied.join(hidden_by)).expect("a file of the run");
        }
        let name = format!("copy/{name}");
        let command = match name.strip_prefix("copy/simclr/slf/") {
            Some("result.json") => "evaluate",
            Some(_) => "finetune",
            None => "pretrain",
        };
        refused(
            path,
            &format!("{command} --run copy"),
            &[&[name.as_str()], words].concat(),
        );
        std::fs::remove_dir_all(copied).expect("a folder of ours");
    }

    // Held by another process, this one.
    let lock = std::fs::File::create(path.join("run/.lock")).expect("a writable folder");
    lock.lock().expect("nobody else is at work");
    refused_at_the_door(
        path,
        "run --run run",
        &[
            "another advcl is at work in this folder",
            "hint: wait for it",
        ],
    );
    drop(lock);
    advcl(path, "run --run run").expect(0);
}
