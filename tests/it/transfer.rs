//! Transfer: classifiers for other images than the encoder was made from.

use std::path::Path;

use advcl::run::Model;
use advcl::weights;

use crate::{
    TINY_SUPERVISED, Transcript, advcl, contents, device, folder_after, get, only_simclr, png, put,
};

const SIDE: u32 = 20;

/// The pixels of an image of a class.
fn pixels(class: usize, number: usize) -> Vec<u8> {
    let side = SIDE as usize;
    let pixel = |i: usize| match (class, i / side, i % side) {
        (0, row, _) => row * 12,
        (1, _, column) => column * 12,
        (_, row, column) => (row + column) * 6,
    };
    let shade = |i| (pixel(i) + number * 2) as u8;
    (0..side * side).map(shade).collect()
}

/// 24 training and 12 test images of three classes, 20 × 20; `file` makes one of its pixels.
pub fn image_folder(path: &Path, file: impl Fn(&[u8]) -> Vec<u8>) {
    for (split, count) in [("train", 8), ("test", 4)] {
        for (class, name) in ["falling", "right", "both"].into_iter().enumerate() {
            for number in 0..count {
                let file = file(&pixels(class, number));
                put(path.join(format!("{split}/{name}/{number}.png")), file);
            }
        }
    }
}

/// A PNG in colour, of gray pixels.
pub fn colour(pixels: &[u8]) -> Vec<u8> {
    use image::{ExtendedColorType, ImageFormat};
    let rgb: Vec<u8> = pixels.iter().flat_map(|&pixel| [pixel; 3]).collect();
    let mut file = std::io::Cursor::new(Vec::new());
    let kind = ExtendedColorType::Rgb8;
    image::write_buffer_with_format(&mut file, &rgb, SIDE, SIDE, kind, ImageFormat::Png)
        .expect("as many pixels as the sides say");
    file.into_inner()
}

/// One encoder, one mode, and other images to classify.
fn recipe(source: &str, more: &str) -> String {
    let downstream = format!("\n[downstream]\nsource = \"{source}\"\n{more}\n");
    only_simclr() + &downstream
}

#[test]
fn classifiers_of_other_classes_and_another_size() {
    let folder = folder_after("pretrain simclr.toml --run alone");
    let path = folder.path();
    image_folder(&path.join("shapes"), |pixels| png(SIDE, pixels));
    let text = recipe("shapes", "test_limit = 9") + TINY_SUPERVISED;
    put(path.join("transfer.toml"), text);
    // An encoder that was trained with labels of other classes is finetuned like the others.
    let mut transcript = Transcript::new(path);
    transcript.run("run transfer.toml --run run", 0);
    let summary = advcl(path, "run --run run --json").expect(0).json();
    assert_eq!(summary["data"], "fashion-mnist-12k");
    assert_eq!(summary["downstream"], "shapes");
    let classes = serde_json::json!(["both", "falling", "right"]);
    assert_eq!(summary["classes"], classes);
    for outcome in summary["outcomes"].as_array().expect("a list") {
        assert_eq!(outcome["images"], 9, "the limit of these images");
        let counts = |class: &serde_json::Value| class["images"].as_u64();
        let each = outcome["accuracy"]["classes"].as_array().expect("a list");
        let each: Vec<_> = each.iter().map(counts).collect();
        assert_eq!(each, [Some(3); 3]);
    }

    // The encoder does not depend on them.
    let encoder = get(path.join("run/simclr/model.safetensors"));
    assert!(encoder == get(path.join("alone/simclr/model.safetensors")));
    let info = |name: &str| {
        let file = path.join("run").join(name).join("model.safetensors");
        Model::load(&file, &device()).expect("a model").info
    };
    let (encoder, classifier) = (info("simclr"), info("simclr/slf"));
    assert_eq!((encoder.image_size, encoder.classes.len()), ([28, 28], 0));
    assert_eq!(classifier.image_size, [20, 20]);
    assert_eq!(serde_json::json!(classifier.classes), classes);
    assert_eq!(info("adversarial-training").classes.len(), 10);
    assert_eq!(info("adversarial-training/slf").classes.len(), 3);
    let said = advcl(path, "predict run/simclr/slf shapes/test --json").expect(0);
    assert_eq!(said.json().as_array().map(Vec::len), Some(12));
    put(path.join("large.png"), png(28, &[7; 784]));
    // A larger image is scaled as the model takes it.
    let large = advcl(path, "predict run/simclr/slf large.png").expect(0);
    assert!(
        large.stderr.contains("scaled and cropped to 20 × 20"),
        "{large}"
    );

    // Other such images: the encoder stays good, the classifier does not.
    let mut other = pixels(0, 0);
    other[7] ^= 1;
    put(path.join("shapes/train/falling/0.png"), png(SIDE, &other));
    advcl(path, "pretrain --run run").expect(0);
    transcript.note("One image is another: the classifier is made again.");
    let model = |stage: &str| get(path.join("run").join(stage).join("model.safetensors"));
    let before = ["simclr", "simclr/slf"].map(model);
    advcl(path, "finetune --run run --method simclr").expect(0);
    assert!(model("simclr") == before[0] && model("simclr/slf") != before[1]);
    transcript.check("classifiers_of_other_images");
}

#[test]
fn other_channels_are_converted_where_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    image_folder(&path.join("gray"), |pixels| png(SIDE, pixels));
    image_folder(&path.join("colour"), colour);
    put(path.join("gray.toml"), recipe("gray", ""));
    put(path.join("colour.toml"), recipe("colour", ""));
    let asked = recipe("colour", "convert_channels = true");
    put(path.join("converted.toml"), asked);
    let mut transcript = Transcript::new(path);
    let command = |name: &str| format!("{name} colour.toml");
    transcript.refuse_all(&["recipe check", "pretrain", "run"].map(command));
    transcript.check("images_of_other_channels");
    for name in ["gray", "converted"] {
        advcl(path, &format!("run {name}.toml --run {name}")).expect(0);
    }
    // The gray ones as colour are the gray ones again.
    let linear = |run: &str| {
        let file = path.join(run).join("simclr/slf/model.safetensors");
        weights::load(&file).expect("a model").0
    };
    assert!(linear("gray") == linear("converted"));
    let before = contents(path);
    advcl(path, "run --run converted").expect(0);
    assert!(before == contents(path), "a finished run changed");
}

#[test]
fn other_images_that_cannot_be_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    image_folder(&path.join("shapes"), |pixels| png(SIDE, pixels));
    put(path.join("transfer.toml"), recipe("shapes", ""));
    for number in 0..20 {
        let file = png(SIDE, &pixels(0, number));
        put(path.join(format!("flat/{number:02}.png")), file);
    }
    let mut transcript = Transcript::new(path);
    for change in [
        "downstream.train_limit=2",
        "downstream.test_limit=2",
        "downstream.source='nowhere'",
        "downstream.colour=1",
    ] {
        transcript.refuse(&format!("run transfer.toml --set {change}"));
    }
    // Without labels: refused before anything is computed, but encoders can be made.
    let flat = "transfer.toml --run run --set downstream.source='flat'";
    transcript.refuse_after_a_start(&format!("run {flat}"));
    assert!(!path.join("run/simclr").exists());
    advcl(path, &format!("pretrain {flat}")).expect(0);
    transcript.refuse_after_a_start("finetune --run run");
    transcript.check("other_images_that_cannot_be_used");
}
