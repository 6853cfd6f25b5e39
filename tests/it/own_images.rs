//! Images as people have them: several sizes, few labels, folders without splits.

use std::path::Path;

use advcl::data::Size;
use advcl::run::ModelInfo;

use crate::{advcl, answer, folder, get, only_simclr, program, put};

/// A gray PNG of a bright corner that says the class.
fn picture(side: usize, class: usize, number: usize) -> Vec<u8> {
    let pixel = |i: usize| {
        let inside = (i / side * 2 / side, i % side * 2 / side) == (0, class);
        let noise = (i * 7 + number * 13 + class * 5) % 40;
        (if inside { 180 } else { 60 } + noise) as u8
    };
    let pixels: Vec<u8> = (0..side * side).map(pixel).collect();
    crate::png(side as u32, &pixels)
}

fn info(run: &Path, stage: &str) -> ModelInfo {
    let path = run.join(stage).join("model.safetensors");
    ModelInfo::load(&path)
        .expect("a model")
        .expect("it is there")
}

#[test]
fn few_labels_many_images_of_any_size_and_predictions_of_others() {
    let folder = folder();
    let path = folder.path();
    // 16 images with labels, in class folders alone, and 60 without, by month; in three sizes.
    for number in 0..16 {
        let name = ["left", "right"][number % 2];
        let side = [16, 24][number / 8];
        put(
            path.join(format!("labeled/{name}/{number:02}.png")),
            picture(side, number % 2, number),
        );
    }
    for number in 0..60 {
        put(
            path.join(format!("photos/2026/{:02}/{number}.png", number % 5 + 1)),
            picture(20, number % 2, 100 + number),
        );
    }
    put(path.join("photos/2026/list.csv"), "name,date");
    let recipe = only_simclr()
        .replace("\"fashion-mnist-12k\"", "\"labeled\"")
        .replace("train_limit = 64\n", "")
        .replace("test_limit = 20\n", "");
    put(path.join("r.toml"), recipe);
    // Values without quotes, as a shell leaves them.
    let mut command = program(path);
    command.args(["run", "r.toml", "--run", "run"]);
    for set in [
        "data.size=16",
        "data.unlabeled=[\"photos\"]",
        "data.test_share=0.25",
        "data.fit=pad",
    ] {
        command.args(["--set", set]);
    }
    let run = answer(&mut command).expect(0);
    for words in [
        "2 sizes were brought to one",
        "photos: 1 file is no image and is passed over: 2026/list.csv",
        "72 images for pretraining, 12 of them with labels",
    ] {
        assert!(run.stderr.contains(words), "{words} in\n{run}");
    }
    let run = path.join("run");
    let (encoder, classifier) = (info(&run, "simclr"), info(&run, "simclr/slf"));
    assert_eq!(encoder.classes.len(), 0);
    assert_eq!(classifier.classes, ["left", "right"]);
    assert_eq!(classifier.image_size, [16, 16]);
    assert_eq!(classifier.reading.size, Some(Size::Square(16)));
    // The run goes on without being told again, and reads its images as before.
    let model = get(run.join("simclr/slf/model.safetensors"));
    advcl(path, "run --run run -q").expect(0);
    assert!(model == get(run.join("simclr/slf/model.safetensors")));
    put(path.join("photo.png"), picture(40, 0, 500));
    let predicted = advcl(path, "predict run/simclr/slf photo.png").expect(0);
    assert!(
        predicted
            .stderr
            .contains("1 of other sizes: scaled and padded to 16 × 16"),
        "{predicted}"
    );
}

#[test]
fn a_validation_split_is_held_out() {
    let folder = folder();
    let path = folder.path();
    for (split, count) in [("train", 32), ("val", 6), ("test", 8)] {
        for number in 0..count {
            let name = ["a", "b"][number % 2];
            put(
                path.join(format!("set/{split}/{name}/{number:02}.png")),
                picture(12, number % 2, number + 100 * split.len()),
            );
        }
    }
    let recipe = only_simclr()
        .replace("\"fashion-mnist-12k\"", "\"set\"")
        .replace("train_limit = 64\n", "")
        .replace("test_limit = 20\n", "");
    put(path.join("r.toml"), recipe);
    let json = advcl(path, "run r.toml --run run --json").expect(0).json();
    assert_eq!(json["outcomes"][0]["images"], 8);
    let held_out = "evaluate run --json --set evaluate.split='holdout'";
    let json = advcl(path, held_out).expect(0).json();
    assert_eq!(json["outcomes"][0]["images"], 6);
}
