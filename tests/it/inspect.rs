//! A look at data sets, and recipes that fit them.

use std::path::Path;

use jpeg_encoder::{ColorType, Encoder};

use crate::harness::Files;
use crate::{Transcript, advcl, copy, folder, get, put};

/// Waves of one colour channel, different for each `number`, as `channels` equal to each other but for their phase.
fn waves(width: usize, height: usize, channels: usize, number: usize) -> Vec<u8> {
    let phase = number as f32 * 0.7;
    let value = |i: usize| {
        let (pixel, channel) = (i / channels, (i % channels) as f32);
        let x = ((pixel % width) as f32 + 0.5) / width as f32;
        let y = ((pixel / width) as f32 + 0.5) / height as f32;
        let wave = ((5.0 + phase) * x + channel).sin() * (3.0 * y + phase).cos();
        (128.0 + 80.0 * wave + 30.0 * (y - x)) as u8
    };
    (0..width * height * channels).map(value).collect()
}

fn jpeg(path: &Path, width: usize, height: usize, number: usize) {
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes, 90)
        .encode(
            &waves(width, height, 3, number),
            width as u16,
            height as u16,
            ColorType::Rgb,
        )
        .expect("a picture");
    put(path, bytes);
}

fn gray_png(path: &Path, side: usize, number: usize) {
    put(path, crate::png(side as u32, &waves(side, side, 1, number)));
}

/// 40 images of two classes, PNG and JPEG, in five sizes, without a test set.
fn photos(path: &Path) {
    for number in 0..40 {
        let class = ["cat", "dog"][number % 2];
        let file = path.join(class).join(format!("{number:02}"));
        match number % 4 {
            0 => gray_png(&file.with_extension("png"), 24 + number % 3, number),
            _ => jpeg(&file.with_extension("jpg"), 30, 20 + number % 4, number),
        }
    }
}

#[test]
fn everything_that_training_would_meet_is_listed() {
    let folder = folder();
    let path = folder.path();
    let set = path.join("set");
    for number in 0..12 {
        let class = ["cat", "dog"][number % 2];
        jpeg(
            &set.join(format!("train/{class}/{number:02}.jpg")),
            24,
            18,
            number,
        );
    }
    for number in 12..16 {
        let class = ["cat", "dog"][number % 2];
        jpeg(
            &set.join(format!("test/{class}/{number:02}.jpg")),
            24,
            18,
            number,
        );
    }
    gray_png(&set.join("train/bird/one.png"), 20, 50);
    gray_png(&set.join("test/bird/one.png"), 20, 51);
    // Copies in another class and in the test set; the same picture saved larger, and as a file of its own.
    let copy = |from: &str, to: &str| put(set.join(to), get(set.join(from)));
    copy("train/cat/00.jpg", "train/dog/copy.jpg");
    copy("train/cat/02.jpg", "test/cat/copy.jpg");
    jpeg(&set.join("train/cat/larger.jpg"), 48, 36, 4);
    jpeg(&set.join("test/dog/larger.jpg"), 48, 36, 5);
    let whole = get(set.join("train/cat/00.jpg"));
    put(set.join("train/cat/cut.jpg"), &whole[..whole.len() - 9]);
    put(
        set.join("train/dog/page.png"),
        "<!DOCTYPE html><html>404</html>",
    );
    put(set.join("notes.txt"), "mine");
    let mut transcript = Transcript::new(path);
    transcript.run("data inspect set", 1);
    transcript.run(
        "data inspect set --set data.size=16 --set data.damaged=skip -q",
        0,
    );
    let json = advcl(path, "data inspect set --json").expect(1);
    transcript.add_shape(&json);
    let json = json.json();
    for kind in ["in_train", "within_train"] {
        assert_eq!(
            (&json[kind]["exact"], &json[kind]["near"]),
            (&1.into(), &1.into()),
            "{kind}"
        );
    }
    assert_eq!(json["within_train"]["other_class"], 1);
    transcript.check("data_inspect_of_files");
    // A sheet is of one size, as training is; damaged images do not keep it from being drawn.
    let sheet = "data inspect set --sheet sheet.png --rows 2";
    let refused = crate::harness::refused(path, sheet, Files::Untouched);
    assert!(refused.stderr.contains("data.size"), "{refused}");
    let drawn = advcl(path, &format!("{sheet} --set data.size=16")).expect(1);
    assert!(path.join("sheet.png").exists(), "{drawn}");
}

/// Compares a recipe that `advcl init` wrote with a snapshot, without what depends on the machine's speed.
#[track_caller]
fn check_recipe(name: &str, text: &str) {
    let of_this_machine = |line: &&str| {
        let changes = ["# Expected on", "# As many as", "plan = { epochs"];
        !changes.iter().any(|start| line.starts_with(start)) || line.contains("milestones")
    };
    let kept: Vec<&str> = text.lines().filter(of_this_machine).collect();
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, kept.join("\n")));
}

#[test]
fn a_recipe_begins_at_weights_that_are_given() {
    let folder = folder();
    let path = folder.path();
    photos(&path.join("photos"));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/import");
    copy(&golden, &path.join("theirs"));
    advcl(path, "import theirs/bare.pt --image-size 16 12 -o given").expect(0);
    // A few steps from these weights are measured on the way.
    advcl(path, "init photos --weights given -o mine.toml --budget 2s").expect(0);
    let text = String::from_utf8(get(path.join("mine.toml"))).expect("text");
    check_recipe("a_recipe_with_weights", &text);
    let mut transcript = Transcript::new(path);
    transcript.refuse("init photos --weights theirs/bare.pt");
    transcript.refuse("init photos --weights nowhere");
    transcript.check("weights_for_no_recipe");
}

#[test]
fn a_recipe_that_fits_is_written_and_works_to_the_end() {
    let folder = folder();
    let path = folder.path();
    photos(&path.join("photos"));
    put(path.join("photos/cat/damaged.jpg"), "no picture");
    let written = advcl(path, "init photos -o mine.toml --budget 2s").expect(0);
    assert_eq!(written.stdout, "");
    assert!(
        written
            .stderr
            .contains("advcl run mine.toml --run runs/mine"),
        "{written}"
    );
    let text = String::from_utf8(get(path.join("mine.toml"))).expect("text");
    check_recipe("a_recipe_that_fits", &text);
    advcl(path, "recipe check mine.toml").expect(0);
    // Soon at the end: what is asked here is whether it gets there.
    let run = advcl(
        path,
        "run mine.toml --run runs/mine --json --set pretrain.simclr.plan.epochs=1 --set pretrain.advcl.plan.epochs=1 \
         --set pretrain.simclr.plan.schedule.cosine.warmup_epochs=0 --set pretrain.advcl.plan.schedule.cosine.warmup_epochs=0 \
         --set finetune.slf.plan.epochs=2 --set finetune.slf.plan.schedule.steps.milestones=[1]",
    )
    .expect(0)
    .json();
    assert_eq!(run["outcomes"].as_array().map(Vec::len), Some(2), "{run}");
    // An existing file stays.
    let refused = crate::harness::refused(path, "init photos -o mine.toml", Files::Untouched);
    assert!(
        refused.stderr.contains("the file exists already"),
        "{refused}"
    );
    assert_eq!(get(path.join("mine.toml")), text.as_bytes());
}

#[test]
fn recipes_for_images_without_labels_and_for_too_few() {
    let folder = folder();
    let path = folder.path();
    for number in 0..9 {
        gray_png(&path.join(format!("flat/{number}.png")), 12, number);
    }
    let printed = advcl(path, "init flat --budget 1s --set seed=7").expect(0);
    assert!(
        printed.stderr.contains("advcl pretrain mine.toml"),
        "{printed}"
    );
    assert!(printed.stdout.contains("seed = 7"), "{printed}");
    put(path.join("flat.toml"), &printed.stdout);
    let pretrain = "pretrain flat.toml --run run -q --set pretrain.simclr.plan.epochs=1 --set pretrain.advcl.plan.epochs=1 \
                    --set pretrain.simclr.plan.schedule.cosine.warmup_epochs=0 --set pretrain.advcl.plan.schedule.cosine.warmup_epochs=0";
    advcl(path, pretrain).expect(0);
    assert!(path.join("run/advcl/model.safetensors").exists());
    gray_png(&path.join("single/1.png"), 12, 1);
    let mut transcript = Transcript::new(path);
    transcript.refuse("init single");
    transcript.refuse("init nowhere");
    transcript.refuse("init flat --budget soon");
    transcript.check("recipes_for_impossible_data");
}

#[test]
fn what_cannot_fit_into_memory_is_refused_before_anything_is_computed() {
    let folder = folder();
    let path = folder.path();
    let huge = "--set encoder.width=1024 --set encoder.stem='cifar' --set pretrain.simclr.plan.batch_size=10000";
    for command in ["run", "pretrain"] {
        let command =
            format!("{command} simclr.toml --run run --set data.train_limit=10000 {huge}");
        let answer = advcl(path, &command);
        if cfg!(not(target_os = "linux")) {
            continue;
        }
        let answer = answer.expect(2);
        for words in [
            "pretrain.simclr: expected to take",
            "of memory with batches of 10000",
            "plan.batch_size; ",
        ] {
            assert!(answer.stderr.contains(words), "{words} in\n{answer}");
        }
    }
    assert!(!path.join("run/simclr").exists());
}
