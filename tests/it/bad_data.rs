//! Bad input: data sets.

use std::path::Path;

use crate::{Transcript, advcl, folder, png, put};

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

/// IDX files with a byte too few of training images.
fn short_idx_files(path: &Path) {
    let idx = |name: &str, magic: u8, sizes: &[u32], bytes: usize| {
        let mut file = vec![0, 0, 8, magic];
        sizes
            .iter()
            .for_each(|size| file.extend(size.to_be_bytes()));
        file.extend(vec![1; bytes]);
        put(path.join(name), file);
    };
    idx("train-images-idx3-ubyte", 3, &[64, 12, 12], 64 * 144 - 1);
    idx("train-labels-idx1-ubyte", 1, &[64], 64);
    idx("t10k-images-idx3-ubyte", 3, &[20, 12, 12], 20 * 144);
    idx("t10k-labels-idx1-ubyte", 1, &[20], 20);
}

#[test]
fn data_sets_that_cannot_be_read() {
    let folder = folder();
    let path = folder.path();
    short_idx_files(&path.join("idx"));
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
    put(path.join("plain"), "not a data set");
    for split in ["train", "test"] {
        std::fs::create_dir(path.join("hollow").join(split).join("bird"))
            .expect("a writable folder");
    }
    std::fs::create_dir(path.join("nothing")).expect("a writable folder");
    let mut transcript = Transcript::new(path);
    for source in [
        "nowhere", "plain", "idx", "corrupt", "text", "mixed", "gif", "lonely", "hollow", "nothing",
    ] {
        transcript.refuse_all(&[
            format!("data inspect {source}"),
            format!("run tiny.toml --set data.source='{source}'"),
        ]);
    }
    // The folder that the damaged ones were made from is good.
    image_folder(&path.join("good"));
    transcript.run("data inspect good", 0);
    transcript.check("data_sets_that_cannot_be_read");
}

#[test]
fn images_without_labels_serve_for_pretraining_only() {
    let folder = folder();
    let path = folder.path();
    for i in 0..64u8 {
        put(
            path.join(format!("flat/{i:02}.png")),
            png(12, &[i * 4; 144]),
        );
    }
    let run = "tiny.toml --set data.source='flat' --run run";
    let mut transcript = Transcript::new(path);
    transcript.refuse_after_a_start(&format!("run {run}"));
    assert!(
        !path.join("run/simclr").exists(),
        "refused after a computation"
    );
    for method in ["simclr", "advcl"] {
        advcl(path, &format!("pretrain {run} --method {method}")).expect(0);
        let model = format!("run/{method}/model.safetensors");
        assert!(path.join(model).exists());
        if method == "simclr" {
            advcl(path, "cluster --run run").expect(0);
        }
    }
    transcript.refuse_after_a_start("finetune --run run");
    transcript.run("data inspect flat", 0);
    transcript.check("images_without_labels");
}

#[test]
fn images_of_a_single_class() {
    let folder = folder();
    let path = folder.path();
    for i in 0..84u8 {
        let split = if i < 64 { "train" } else { "test" };
        let image = png(12, &[i * 3; 144]);
        put(path.join(format!("one/{split}/cat/{i:02}.png")), image);
    }
    let run = "tiny.toml --set data.source='one' --run run";
    let mut transcript = Transcript::new(path);
    transcript.refuse_after_a_start(&format!("run {run}"));
    advcl(path, &format!("pretrain {run} --method simclr")).expect(0);
    transcript.refuse_after_a_start("finetune --run run");
    transcript.check("images_of_a_single_class");
}
