//! Bad input: exit code 2, one clear line that says where, no panic, and nothing that was there is touched.

use std::path::Path;

use advcl::cluster::PseudoLabels;
use advcl::nn::{Backbone, EncoderConfig};
use advcl::random;
use advcl::run::{Model, ModelInfo};

use crate::{TINY, advcl, answer, copy, device, folder, get, png, program, put, snapshot};

/// What is wrong, and words of the message.
type Case<'a> = (&'a [&'a str], &'a [&'a str]);

/// Runs the program in `folder` and holds it to the rule above.
#[track_caller]
fn refused(folder: &Path, (args, words): Case) {
    let before = snapshot(folder);
    let answer = answer(program(folder).args(args)).expect(2);
    let error = answer
        .stderr
        .find("error: ")
        .unwrap_or_else(|| panic!("no error: {answer}"));
    for word in words {
        assert!(
            answer.stderr[error..].contains(word),
            "expected {word:?} in {answer}"
        );
    }
    assert_eq!(answer.stdout, "", "{answer}");
    let after = snapshot(folder);
    for (path, content) in &before {
        assert!(
            after.get(path) == Some(content),
            "{} changed: {answer}",
            path.display()
        );
    }
    let half = after
        .keys()
        .find(|path| path.extension().is_some_and(|e| e == "part"));
    assert_eq!(half, None, "a temporary file is left: {answer}");
}

/// [`refused`], and no file is added either.
#[track_caller]
fn refused_at_the_door(folder: &Path, case: Case) {
    let before = snapshot(folder);
    refused(folder, case);
    let after = snapshot(folder);
    let added: Vec<_> = after
        .keys()
        .filter(|path| !before.contains_key(*path))
        .collect();
    assert!(added.is_empty(), "{case:?} added {added:?}");
}

#[test]
fn recipes_and_arguments() {
    let folder = folder();
    let path = folder.path();
    // A line of the tiny recipe changed: the message has the line and the column of what is wrong.
    let written: [(&str, &str, &[&str]); 12] = [
        (
            "width = 2",
            "widht = 2",
            &["column 1: unknown field `widht`, expected one of `depth`, `width`"],
        ),
        (
            "width = 2",
            "width = \"two\"",
            &["column 9: invalid type: string \"two\""],
        ),
        (
            "width = 2",
            "width = 0",
            &["encoder.width: expected 1 to 1024 channels, found 0"],
        ),
        ("width = 2", "", &["missing field `width`"]),
        (
            "depth = 10",
            "depth = 11",
            &["column 9: no ResNet of depth 11: expected 10, 18, 34 or 50"],
        ),
        (
            "radius = \"0.1\"",
            "radius = 1.5",
            &[
                "column 10: expected a distance",
                "between 0 and 1",
                "\"1.5\"",
            ],
        ),
        (
            "radius = \"0.1\"",
            "radius = -0.1",
            &["column 10: expected a distance", "\"-0.1\""],
        ),
        (
            "radius = \"0.1\"",
            "radius = \"8/0\"",
            &["column 10: expected a distance", "\"8/0\""],
        ),
        (
            "norm = \"linf\"",
            "norm = \"l1\"",
            &["column 8: unknown variant `l1`, expected `linf` or `l2`"],
        ),
        (
            "counts = [2, 5]",
            "counts = [1]",
            &["cluster.counts: expected different numbers, 2 or more, found [1]"],
        ),
        ("[finetune]", "[finetune", &["column "]),
        (
            "split = \"test\"",
            "split = \"holdout\"",
            &["evaluate.split: ", "none are held out", "set data.holdout"],
        ),
    ];
    for (before, after, words) in written {
        assert_eq!(TINY.matches(before).count(), 1, "{before}");
        put(path.join("wrong.toml"), TINY.replace(before, after));
        let line = format!(
            "line {}",
            TINY[..TINY.find(before).expect("counted")]
                .matches('\n')
                .count()
                + 1
        );
        let place = if words[0].starts_with("column ") {
            line.as_str()
        } else {
            ""
        };
        let words = [&["recipe wrong.toml, ", place], words].concat();
        refused_at_the_door(path, (&["run", "wrong.toml"], &words));
        refused_at_the_door(path, (&["recipe", "check", "wrong.toml"], &words));
    }
    put(path.join("latin.toml"), b"seed = 1 # \xe9");
    put(path.join("empty.toml"), "");
    let set: [(&str, &[&str]); 13] = [
        (
            "data.colour = 1",
            &[
                "--set \"data.colour = 1\": unknown field `colour`, expected one of",
                "hint: ",
            ],
        ),
        (
            "seed",
            &[
                "--set \"seed\", line 1, column 5: key with no value",
                "hint: ",
            ],
        ),
        ("seed = ", &["--set \"seed = \", line 1, column "]),
        (
            "seed = -1",
            &["--set \"seed = -1\": invalid value: integer `-1`"],
        ),
        (
            "finetune.plan.epochs = 0",
            &["tiny.toml, finetune.plan.epochs: expected 1 or more, found 0"],
        ),
        (
            "finetune.plan.lr = nan",
            &["tiny.toml, finetune.plan.lr: expected a number from 0 to"],
        ),
        (
            "pretrain.simclr.plan.batch_size = 65",
            &[
                "pretrain.simclr.plan.batch_size",
                "larger than the 64 training",
                "hint: --set",
            ],
        ),
        (
            "pretrain.simclr.plan.batch_size = 1",
            &["pretrain.simclr.plan.batch_size: expected 2 or more"],
        ),
        (
            "cluster.counts = [2, 65]",
            &[
                "cluster.counts: 65 clusters of only 64 training images",
                "hint: ",
            ],
        ),
        (
            "data.train_limit = 0",
            &["data.train_limit: expected 1 to 10000", "found 0"],
        ),
        (
            "data.test_limit = 3000",
            &["data.test_limit: expected 1 to 2000", "found 3000"],
        ),
        (
            "data.holdout = 1.5",
            &["data.holdout: expected a number from 0 to 0.9, found 1.5"],
        ),
        (
            "data.source = \"nowhere\"",
            &["data set nowhere: expected the name", "fashion-mnist-12k"],
        ),
    ];
    for (change, words) in set {
        refused_at_the_door(path, (&["run", "tiny.toml", "--set", change], words));
        refused_at_the_door(
            path,
            (&["recipe", "check", "tiny.toml", "--set", change], words),
        );
    }
    let cases: [Case; 18] = [
        (
            &["run", "nowhere.toml"],
            &[
                "cannot read nowhere.toml: No such file",
                "hint: check the path",
            ],
        ),
        (
            &["run", "quickstrat"],
            &[
                "recipe quickstrat: no shipped recipe",
                "hint: did you mean \"quickstart\"?",
            ],
        ),
        (
            &["recipe", "show", "xyz"],
            &["recipe xyz: ", "hint: known: quickstart, smoke"],
        ),
        (&["run", "."], &["cannot read .: "]),
        (
            &["run", "latin.toml"],
            &["cannot read latin.toml: ", "UTF-8"],
        ),
        (
            &["run", "empty.toml"],
            &["recipe empty.toml, line 1, column 1: missing field `seed`"],
        ),
        (
            &["run", "tiny.toml", "--device", "gpu"],
            &["device \"gpu\": no such device", "hint: known: cpu, vulkan"],
        ),
        (
            &["run", "tiny.toml", "--device", "cuda:x"],
            &[
                "device \"cuda:x\": expected a number after the colon",
                "cuda:0",
            ],
        ),
        (
            &["run", "tiny.toml", "--device", "cpu:1"],
            &["device \"cpu:1\": there is one CPU device"],
        ),
        (
            &["selftest", "--device", "tpu"],
            &["device \"tpu\": no such device"],
        ),
        (
            &["pretrain", "tiny.toml", "--method", "simcrl"],
            &[
                "no pretraining method \"simcrl\"",
                "did you mean \"simclr\"?",
            ],
        ),
        (
            &["evaluate", "tiny.toml", "--method", "moco"],
            &[
                "no pretraining method \"moco\"",
                "hint: known: simclr, advcl",
            ],
        ),
        (
            &["run", "tiny.toml", "--run", "tiny.toml/run"],
            &["cannot create tiny.toml/run"],
        ),
        (&["run", "tiny.toml", "--run", "tiny.toml"], &["tiny.toml"]),
        (
            &["bench", "step", "--width", "0"],
            &["bench step: cannot time", "width 0", "hint: expected"],
        ),
        (
            &["bench", "step", "--width", "wide"],
            &["invalid value 'wide' for '--width"],
        ),
        (&["frobnicate"], &["unrecognized subcommand 'frobnicate'"]),
        (
            &["data", "inspect", "--rows", "0"],
            &["views.png", "0 images"],
        ),
    ];
    for case in cases {
        refused_at_the_door(path, case);
    }
    #[cfg(not(feature = "vulkan"))]
    refused_at_the_door(
        path,
        (
            &["run", "tiny.toml", "--device", "vulkan"],
            &[
                "device \"vulkan\": not compiled in",
                "hint: this build has cpu; build with --features vulkan",
            ],
        ),
    );
}

/// 80 images in class folders, 12 × 12.
fn image_folder(path: &Path) {
    for i in 0..80u8 {
        let split = if i < 64 { "train" } else { "test" };
        let class = ["cat", "dog"][usize::from(i % 2)];
        put(
            path.join(format!("{split}/{class}/{i:02}.png")),
            png(12, &[i * 3; 144]),
        );
    }
}

#[test]
fn data_sets() {
    let folder = folder();
    let path = folder.path();
    let idx = |name: &str, magic: u8, sizes: &[u32], bytes: usize| {
        let mut file = vec![0, 0, 8, magic];
        sizes
            .iter()
            .for_each(|size| file.extend(size.to_be_bytes()));
        file.extend(vec![1; bytes]);
        put(path.join("idx").join(name), file);
    };
    idx("train-images-idx3-ubyte", 3, &[64, 12, 12], 64 * 144 - 1);
    idx("train-labels-idx1-ubyte", 1, &[64], 64);
    idx("t10k-images-idx3-ubyte", 3, &[20, 12, 12], 20 * 144);
    idx("t10k-labels-idx1-ubyte", 1, &[20], 20);
    let damage = |set: &str, file: &str, content: &[u8]| {
        image_folder(&path.join(set));
        put(path.join(set).join(file), content);
    };
    let whole = png(12, &[7; 144]);
    damage("corrupt", "train/cat/00.png", &whole[..whole.len() - 20]);
    damage("text", "train/cat/00.png", b"not a picture");
    damage("mixed", "train/dog/01.png", &png(10, &[7; 100]));
    damage("gif", "train/dog/01.gif", b"GIF89a");
    damage("lonely", "train/bird/1.png", &whole);
    damage("hollow", "train/cat/00.png", &whole);
    damage("file.bin", "x", b"");
    put(path.join("plain"), "not a data set");
    for split in ["train", "test"] {
        std::fs::create_dir(path.join("hollow").join(split).join("bird"))
            .expect("a writable folder");
    }
    std::fs::create_dir(path.join("nothing")).expect("a writable folder");
    let cases: [(&str, &[&str]); 9] = [
        (
            "nowhere",
            &["data set nowhere: expected the name of an embedded data set or an existing path"],
        ),
        (
            "idx",
            &[
                "idx/train-images-idx3-ubyte: data from byte 16: expected 9216 bytes",
                "found 9215",
            ],
        ),
        (
            "corrupt",
            &["corrupt/train/cat/00.png: image data: expected a whole image"],
        ),
        (
            "text",
            &["text/train/cat/00.png: byte 0: expected PNG or JPEG"],
        ),
        (
            "mixed",
            &["one size", "mixed/train/dog/01.png of 10 × 10", "12 × 12"],
        ),
        (
            "gif",
            &["found train/dog/01.gif", "hint: convert it to PNG"],
        ),
        ("lonely", &["bird"]),
        (
            "hollow",
            &["expected PNG or JPEG images in train/bird, found none"],
        ),
        ("nothing", &["expected PNG or JPEG images, found none"]),
    ];
    for (source, words) in cases {
        let set = format!("data.source = {source:?}");
        refused_at_the_door(path, (&["run", "tiny.toml", "--set", &set], words));
        refused_at_the_door(path, (&["data", "inspect", source], words));
    }
    refused_at_the_door(path, (&["data", "inspect", "plain"], &["plain"]));
    // And the folder that they were made from is good.
    image_folder(&path.join("good"));
    advcl(path, ["data", "inspect", "good"]).expect(0);
}

#[test]
fn unlabeled_images_can_be_pretrained_on_and_nothing_else() {
    let folder = folder();
    let path = folder.path();
    for i in 0..64u8 {
        put(
            path.join(format!("flat/{i:02}.png")),
            png(12, &[i * 4; 144]),
        );
    }
    let set = "data.source = 'flat'";
    let words = [
        "data set flat: expected labeled images",
        "hint: put the images into train/<class>/",
    ];
    refused(
        path,
        (&["run", "tiny.toml", "--set", set, "--run", "run"], &words),
    );
    assert!(
        !path.join("run/simclr").exists(),
        "said before anything is computed"
    );
    for method in ["simclr", "advcl"] {
        advcl(
            path,
            [
                "pretrain",
                "tiny.toml",
                "--set",
                set,
                "--run",
                "run",
                "--method",
                method,
            ],
        )
        .expect(0);
        assert!(
            path.join(format!("run/{method}/model.safetensors"))
                .exists()
        );
        if method == "simclr" {
            advcl(path, ["cluster", "--run", "run"]).expect(0);
        }
    }
    refused(path, (&["finetune", "--run", "run"], &words));
    advcl(path, ["data", "inspect", "flat"]).expect(0);
}

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
        clusters: Vec::new(),
        pseudo_labels: None,
        finetuning: None,
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
    // What comes too early is told what comes first.
    let early: [Case; 4] = [
        (
            &["cluster", "tiny.toml", "--run", "run"],
            &[
                "run run: no simclr encoder yet",
                "advcl pretrain --method simclr",
            ],
        ),
        (
            &["finetune", "--run", "run"],
            &[
                "run run: no simclr encoder yet",
                "advcl pretrain --method simclr",
            ],
        ),
        (
            &["pretrain", "--method", "advcl", "--run", "run"],
            &["run run: no pseudo-labels yet", "advcl cluster"],
        ),
        (
            &["evaluate", "--run", "run"],
            &["run run: no simclr encoder yet", "advcl pretrain"],
        ),
    ];
    for case in early {
        refused(path, case);
    }
    advcl(path, ["pretrain", "--run", "run"]).expect(0);
    refused(
        path,
        (
            &["evaluate", "--run", "run"],
            &["the model has no classifier yet", "advcl finetune"],
        ),
    );
    let other: [(&[&str], &[&str]); 2] = [
        (
            &["run", "tiny.toml", "--run", "run", "--set", "seed = 4"],
            &[
                "`seed = 3`, this one `seed = 4`",
                "hint: name another folder",
            ],
        ),
        (
            &["run", "smoke", "--run", "run"],
            &["run run: made with another recipe"],
        ),
    ];
    for case in other {
        refused_at_the_door(path, case);
    }
    // A file that is missed only after pretraining would be missed late.
    let late = [
        "run",
        "tiny.toml",
        "--run",
        "late",
        "--set",
        "cluster.labels_file = 'none.safetensors'",
    ];
    refused(
        path,
        (&late, &["cannot read none.safetensors: No such file"]),
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
    let labels = |count: usize, value: usize| {
        let clusters = vec![(2, vec![0; count]), (5, vec![value; count])];
        made(&move |path| {
            PseudoLabels {
                clusters: clusters.clone(),
                origin: String::new(),
            }
            .save(path)
            .expect("a file")
        })
    };
    let (model, checkpoint, pseudo) = (
        "simclr/model.safetensors",
        "simclr/checkpoint.safetensors",
        "pseudo_labels.safetensors",
    );
    let advcl_model = "advcl/model.safetensors";
    advcl(
        path,
        [
            "pretrain",
            "tiny.toml",
            "--method",
            "simclr",
            "--run",
            "wide",
            "--set",
            "encoder.width = 3",
        ],
    )
    .expect(0);
    let wide = get(path.join("wide").join(checkpoint));
    let cases: [(&str, Vec<u8>, &str, &[&str]); 14] = [
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
            &["tensor ", "expected shape [", "found ["],
        ),
        (
            checkpoint,
            file("advcl/checkpoint.safetensors"),
            model,
            &["expected a checkpoint of", "simclr"],
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
            "simclr/result.json",
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
        let command = if name.ends_with("result.json") {
            "evaluate"
        } else {
            "pretrain"
        };
        refused(
            path,
            (
                &[command, "--run", "copy"],
                &[&[name.as_str()], words].concat(),
            ),
        );
        std::fs::remove_dir_all(copied).expect("a folder of ours");
    }

    // Held by another process, this one.
    let lock = std::fs::File::create(path.join("run/.lock")).expect("a writable folder");
    lock.lock().expect("nobody else is at work");
    refused_at_the_door(
        path,
        (
            &["run", "--run", "run"],
            &[
                "another advcl is at work in this folder",
                "hint: wait for it",
            ],
        ),
    );
    drop(lock);
    advcl(path, ["run", "--run", "run"]).expect(0);
}

#[test]
fn predictions() {
    let folder = folder();
    let path = folder.path();
    advcl(
        path,
        [
            "pretrain",
            "tiny.toml",
            "--method",
            "simclr",
            "--run",
            "run",
        ],
    )
    .expect(0);
    let whole = png(28, &[7; 784]);
    put(path.join("good.png"), &whole);
    refused_at_the_door(
        path,
        (
            &["predict", "run/simclr", "good.png"],
            &[
                "run/simclr/model.safetensors: the model has no classifier yet",
                "advcl finetune",
            ],
        ),
    );
    advcl(path, ["finetune", "--method", "simclr", "--run", "run"]).expect(0);
    advcl(path, ["predict", "run/simclr", "good.png"]).expect(0);

    put(path.join("cut.png"), &whole[..whole.len() - 20]);
    put(path.join("small.png"), png(12, &[7; 144]));
    put(path.join("text.png"), "not a picture");
    put(path.join("none/readme.txt"), "no pictures");
    put(path.join("text.safetensors"), "not a model");
    let (model, cut) = (
        "run/simclr/model.safetensors",
        get(path.join("run/simclr/model.safetensors")),
    );
    put(path.join("cut.safetensors"), &cut[..cut.len() - 4]);
    let cases: [Case; 11] = [
        (
            &["predict", model, "nowhere.png"],
            &["cannot read nowhere.png: No such file"],
        ),
        (
            &["predict", model, "good.png", "cut.png"],
            &["cut.png: image data: expected a whole image"],
        ),
        (
            &["predict", model, "small.png"],
            &[
                "small.png: expected 1 channels, 28 × 28 pixels",
                "found 1 channels, 12 × 12",
                "resize",
            ],
        ),
        (
            &["predict", model, "text.png"],
            &["text.png: byte 0: expected PNG or JPEG"],
        ),
        (
            &["predict", model, "none"],
            &["none: no images in this folder"],
        ),
        (&["predict", model], &["required", "<IMAGES>"]),
        (
            &["predict", "nowhere", "good.png"],
            &["cannot read nowhere: No such file"],
        ),
        (
            &["predict", "run", "good.png"],
            &["cannot read run/model.safetensors: No such file"],
        ),
        (
            &["predict", "text.safetensors", "good.png"],
            &["text.safetensors: header: expected a complete safetensors"],
        ),
        (
            &["predict", "cut.safetensors", "good.png"],
            &["cut.safetensors: header: expected a complete safetensors"],
        ),
        (
            &["predict", "run/simclr/checkpoint.safetensors", "good.png"],
            &["checkpoint.safetensors: no advcl metadata"],
        ),
    ];
    for case in cases {
        refused_at_the_door(path, case);
    }
}

/// Where files cannot grow past a limit, the run says which one and keeps what it has; then it goes on.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full() {
    let folder = folder();
    let path = folder.path();
    // Without the signal that would end the process, writing past the limit fails as on a full disk.
    let limited = |blocks: usize| {
        let mut command = std::process::Command::new("bash");
        command.arg("-c").arg(format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" run tiny.toml --run run"
        ));
        answer(command.arg(env!("CARGO_BIN_EXE_advcl")).current_dir(path)).expect(2)
    };
    let full = limited(1);
    assert!(full.stderr.contains("error: cannot write run/"), "{full}");
    let full = limited(16);
    assert!(
        full.stderr
            .contains("error: cannot write run/simclr/checkpoint.safetensors: File too large"),
        "{full}"
    );
    let files = snapshot(&path.join("run"));
    let names: Vec<_> = files
        .keys()
        .filter_map(|path| path.file_name()?.to_str())
        .collect();
    assert!(names.contains(&"recipe.toml"), "{names:?}");
    assert!(
        !names
            .iter()
            .any(|name| name.ends_with(".part") || name.ends_with(".safetensors")),
        "{names:?}"
    );
    advcl(path, ["run", "tiny.toml", "--run", "run"]).expect(0);
}
