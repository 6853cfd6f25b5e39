//! Images and options as people have them: links to nowhere, transparent pixels, names of folders, home folders, test images
//! alone. A hint leads on and not to another refusal.

use std::path::Path;

use crate::folder::with_images;
use crate::{advcl, answer, copy, folder, program, put};

/// A folder with the images `set` and a classifier of them in `run/simclr/slf`.
fn with_run() -> tempfile::TempDir {
    let folder = with_images();
    advcl(folder.path(), "run r.toml --run run -q").expect(0);
    folder
}

const MODEL: &str = "run/simclr/slf";

fn gray(value: u8) -> Vec<u8> {
    crate::png(12, &[value; 144])
}

/// A PNG file of colours with alpha, all pixels transparent.
fn transparent() -> Vec<u8> {
    let mut bytes = Vec::new();
    let image = image::RgbaImage::from_pixel(12, 12, image::Rgba([9, 9, 9, 0]));
    let png = image::codecs::png::PngEncoder::new(&mut bytes);
    image.write_with_encoder(png).expect("a picture");
    bytes
}

/// Runs a command whose overrides have spaces in them.
fn with_set(path: &Path, args: &str, set: &str) -> crate::Answer {
    let mut command = program(path);
    command.args(args.split_whitespace()).args(["--set", set]);
    answer(&mut command)
}

#[test]
#[cfg(unix)]
fn photos_are_answered_whatever_lies_among_them() {
    let folder = with_run();
    let path = folder.path();
    for (name, value) in [
        ("1.png", 20),
        ("2.png", 200),
        ("3f9c2a", 90),
        ("x.jpg_large", 40),
    ] {
        put(path.join("photos").join(name), gray(value));
    }
    put(path.join("photos/notes"), "no image");
    std::os::unix::fs::symlink("moved.png", path.join("photos/gone.png")).expect("a link");
    let found = advcl(path, &format!("predict {MODEL} photos --csv")).expect(1);
    for name in ["1.png", "2.png", "3f9c2a", "x.jpg_large"] {
        assert!(
            found.stdout.contains(&format!("photos/{name},")),
            "{name} in\n{found}"
        );
    }
    assert!(found.stderr.contains("photos/gone.png"), "{found}");
    assert!(!found.to_string().contains("notes"), "{found}");
}

#[test]
fn what_a_hint_names_is_taken() {
    let folder = with_run();
    let path = folder.path();
    put(path.join("clear.png"), transparent());
    let predict = format!("predict {MODEL} clear.png");
    let refused = advcl(path, &predict).expect(2);
    assert!(
        refused
            .stderr
            .contains("--set 'data.background = [255, 255, 255]'"),
        "{refused}"
    );
    with_set(path, &predict, "data.background = [255, 255, 255]").expect(0);
    let unknown = with_set(path, &predict, "seed = 1").expect(2);
    assert!(
        unknown.stderr.contains("a model file has no recipe"),
        "{unknown}"
    );
    let unread = with_set(path, "info", "seed = 1").expect(2);
    assert!(unread.stderr.contains("--set"), "{unread}");

    for name in ["bad0.png", "bad1.png"] {
        put(path.join("set/test/a").join(name), "");
    }
    let evaluate = format!("evaluate {MODEL} --data set --radius 0.1");
    let refused = advcl(path, &evaluate).expect(2);
    assert!(
        refused.stderr.contains("--set 'data.damaged = \"skip\"'"),
        "{refused}"
    );
    with_set(path, &evaluate, "data.damaged = \"skip\"").expect(0);

    // Where no image can be read, none can be passed over.
    for name in ["a/1.png", "a/2.png", "b/1.png", "b/2.png"] {
        put(path.join("clear").join(name), transparent());
    }
    let run = "run r.toml --run other -q --set data.source=clear";
    let refused = advcl(path, run).expect(2);
    let hint = refused.stderr.lines().find(|line| line.contains("hint: "));
    assert_eq!(
        hint.map(str::trim),
        Some("hint: --set 'data.background = [255, 255, 255]' puts white behind them")
    );
}

#[test]
fn test_images_alone_are_evaluated() {
    let folder = with_run();
    let path = folder.path();
    let evaluate = |set: &str| {
        let command = format!("evaluate {MODEL} --data {set} --radius 0.1 --json");
        advcl(path, &command).expect(0).json()
    };
    let whole = evaluate("set");
    for (from, to) in [("test", "alone/test"), ("test", "other/Testing")] {
        copy(&path.join("set").join(from), &path.join(to));
    }
    for set in ["alone", "other"] {
        assert_eq!(evaluate(set)["images"], whole["images"]);
        assert_eq!(evaluate(set)["clean_accuracy"], whole["clean_accuracy"]);
    }
}

#[test]
fn images_of_another_size_are_named_with_what_helps() {
    let folder = with_run();
    let path = folder.path();
    for (class, value) in [("a", 20), ("b", 200)] {
        for split in ["train", "test"] {
            for number in 0..4 {
                let image = crate::png(24, &[value + number; 576]);
                put(
                    path.join(format!("big/{split}/{class}/{number}.png")),
                    image,
                );
            }
        }
    }
    let evaluate = "evaluate run --method simclr --set data.source=big";
    let refused = advcl(path, evaluate).expect(2);
    assert!(refused.stderr.contains("found 24 × 24"), "{refused}");
    assert!(
        refused.stderr.contains("--set 'data.size = [12, 12]'"),
        "{refused}"
    );
    with_set(path, evaluate, "data.size = [12, 12]").expect(0);
}

#[test]
fn options_and_overrides_as_a_shell_leaves_them() {
    let folder = with_run();
    let path = folder.path();
    let mut command = program(path);
    command.env("HOME", path.join("home"));
    command.args(["predict", MODEL, "--csv", "~nobody/x.png"]);
    assert!(
        answer(&mut command)
            .expect(2)
            .stderr
            .contains("~nobody/x.png")
    );
    let mut command = program(path);
    command.env("HOME", path.join("home"));
    std::fs::create_dir(path.join("home")).expect("a folder");
    command.args([
        "evaluate", "run", "--method", "simclr", "--attack", "fgsm", "-q",
    ]);
    command.arg("--save-adversarial=~/found.safetensors");
    answer(&mut command).expect(0);
    assert!(path.join("home/found.safetensors").exists());
    assert!(!path.join("~").exists());
    // Values without quotes keep a recipe's comments.
    let shown = advcl(path, "recipe show quickstart --set threat.radius=8/255").expect(0);
    assert!(shown.stdout.starts_with('#'), "{shown}");
    assert!(shown.stdout.contains("radius = '8/255'"), "{shown}");
}

#[test]
fn class_names_are_read_with_a_byte_order_mark() {
    let folder = folder();
    let path = folder.path();
    put(path.join("names.txt"), "\u{feff}cat\r\ndog\r\n");
    let found = advcl::data::read_class_names(&path.join("names.txt")).expect("names");
    assert_eq!(found, ["cat", "dog"]);
    put(path.join("names.txt"), "crane\nswan\ncrane\n");
    let error = advcl::data::read_class_names(&path.join("names.txt")).expect_err("twice");
    assert!(error.to_string().contains("\"crane\" twice"), "{error}");
}

#[test]
fn holdout_images_are_those_of_the_classes_that_are_told_apart() {
    let folder = with_images();
    let path = folder.path();
    copy(&path.join("set/test"), &path.join("set/val"));
    copy(&path.join("set/train/b"), &path.join("set/train/c"));
    for split in ["val", "test"] {
        copy(
            &path.join("set/test/b"),
            &path.join(format!("set/{split}/c")),
        );
    }
    for class in ["x", "y"] {
        for split in ["train", "test"] {
            let from = if class == "x" { "a" } else { "b" };
            let from = path.join("set").join(split).join(from);
            copy(&from, &path.join("down").join(split).join(class));
        }
    }
    let recipe = std::fs::read_to_string(path.join("r.toml")).expect("a recipe");
    put(
        path.join("r.toml"),
        format!("{recipe}\n[downstream]\nsource = \"down\"\n"),
    );
    let run = "run r.toml --run run -q --set evaluate.split=holdout";
    let refused = advcl(path, run).expect(2);
    assert!(refused.stderr.contains("none are held out"), "{refused}");
}

#[test]
fn validation_images_are_probed_unless_a_share_of_the_others_is_held_out() {
    let folder = with_images();
    let path = folder.path();
    copy(&path.join("set/test"), &path.join("set/val"));
    let pretrain = |more: &str| {
        let command = format!("pretrain r.toml --run run --set probe.every=1 --replace {more}");
        advcl(path, &command).expect(0)
    };
    let (not_used, probed) = ("the validation images are not used", "held-out images");
    let by_val = pretrain("");
    assert!(by_val.stderr.contains(probed), "{by_val}");
    assert!(!by_val.stderr.contains(not_used), "{by_val}");
    let by_share = pretrain("--set data.holdout=0.25");
    assert!(by_share.stderr.contains(not_used), "{by_share}");
}
