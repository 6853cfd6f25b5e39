//! Bad input, continued: data sets.

use std::path::Path;

use crate::bad_input::{refused, refused_at_the_door};
use crate::{advcl, folder, png, put};

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
        refused_at_the_door(
            path,
            &format!("run tiny.toml --set data.source={source:?}"),
            words,
        );
        refused_at_the_door(path, &format!("data inspect {source}"), words);
    }
    refused_at_the_door(path, "data inspect plain", &["plain"]);
    // And the folder that they were made from is good.
    image_folder(&path.join("good"));
    advcl(path, "data inspect good").expect(0);
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
    let run = "tiny.toml --set data.source='flat' --run run";
    let words = [
        "data set flat: expected labeled images",
        "hint: put the images into train/<class>/",
    ];
    refused(path, &format!("run {run}"), &words);
    assert!(
        !path.join("run/simclr").exists(),
        "said before anything is computed"
    );
    for method in ["simclr", "advcl"] {
        advcl(path, &format!("pretrain {run} --method {method}")).expect(0);
        assert!(
            path.join(format!("run/{method}/model.safetensors"))
                .exists()
        );
        if method == "simclr" {
            advcl(path, "cluster --run run").expect(0);
        }
    }
    refused(path, "finetune --run run", &words);
    advcl(path, "data inspect flat").expect(0);
}

#[test]
fn one_class_is_nothing_to_tell_apart() {
    let folder = folder();
    let path = folder.path();
    for i in 0..84u8 {
        let split = if i < 64 { "train" } else { "test" };
        let image = png(12, &[i * 3; 144]);
        put(path.join(format!("one/{split}/cat/{i:02}.png")), image);
    }
    let run = "tiny.toml --set data.source='one' --run run";
    let words = ["data set one: expected two classes or more, found \"cat\" alone"];
    refused(path, &format!("run {run}"), &words);
    advcl(path, &format!("pretrain {run} --method simclr")).expect(0);
    refused(path, "finetune --run run", &words);
}
