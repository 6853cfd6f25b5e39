//! Data sets that are no image folders: lists of images, NumPy's archives, IDX and STL-10, with and without labels
//! and test images.

use std::io::Write;
use std::path::Path;

use zip::write::SimpleFileOptions;

use crate::{Transcript, advcl, answer, folder, only_simclr, program, put};

/// A gray image of a bright half that says the class, 16 × 16.
fn picture(class: usize, number: usize) -> Vec<u8> {
    let pixel = |i: usize| {
        let bright = (i % 16 / 8 == class) as usize * 150;
        (bright + (i * 7 + number * 13) % 60) as u8
    };
    (0..256).map(pixel).collect()
}

/// The recipe of one method, for other images.
fn recipe(source: &str) -> String {
    only_simclr()
        .replace("\"fashion-mnist-12k\"", &format!("\"{source}\""))
        .replace("train_limit = 64\n", "")
        .replace("test_limit = 20\n", "")
}

/// A NumPy array of bytes in version 1 of its format.
fn npy(shape: &str, values: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = (text.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes(), values].concat()
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in arrays {
        let options = SimpleFileOptions::default();
        zip.start_file(format!("{name}.npy"), options)
            .expect("in memory");
        zip.write_all(content).expect("in memory");
    }
    zip.finish().expect("in memory").into_inner()
}

fn idx(path: &Path, magic: u8, sizes: &[u32], values: &[u8]) {
    let mut file = vec![0, 0, 8, magic];
    file.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
    file.extend(values);
    put(path, file);
}

#[test]
fn a_list_with_labels_beside_images_without() {
    let folder = folder();
    let path = folder.path();
    // Eight images of a list, others in class folders with a split, others as an array.
    let mut list = "id;image;class\r\n".to_owned();
    for number in 0..16 {
        let class = number % 2;
        let image = crate::png(16, &picture(class, number));
        put(path.join(format!("pictures/{number}.png")), image);
        list += &format!(
            "{number};../pictures/{number}.png;{}\r\n",
            ["left", "right"][class]
        );
    }
    put(path.join("lists/labels.csv"), list);
    for number in 0..12 {
        for split in ["train", "test"] {
            let image = crate::png(16, &picture(number % 2, 50 + number + split.len()));
            put(
                path.join(format!("more/{split}/{}/{number}.png", number % 2)),
                image,
            );
        }
    }
    let values: Vec<u8> = (0..20).flat_map(|i| picture(i % 2, 100 + i)).collect();
    let labels: Vec<u8> = (0..20).map(|i| i % 2).collect();
    let arrays = [
        ("train_images", npy("(20, 16, 16)", &values)),
        ("train_labels", npy("(20, 1)", &labels)),
    ];
    put(path.join("more.npz"), npz(&arrays));
    put(path.join("r.toml"), recipe("lists/labels.csv"));
    let mut transcript = Transcript::new(path);
    let set = [
        "data.test_share=0.25",
        "data.unlabeled=[\"more\", \"more.npz\"]",
    ];
    let mut command = program(path);
    command.args(["run", "r.toml", "--run", "run"]);
    for set in set {
        command.args(["--set", set]);
    }
    let run = answer(&mut command).expect(0);
    for words in [
        "more: 12 test images are not used",
        "44 images for pretraining, 12 of them with labels",
    ] {
        assert!(run.stderr.contains(words), "{words} in\n{run}");
    }
    // Nothing about splits and classes of images that are taken without labels.
    for words in ["more: class", "more.npz: no test", "more: no test"] {
        assert!(!run.stderr.contains(words), "{words} in\n{run}");
    }
    transcript.run("data inspect lists/labels.csv", 0);
    transcript.run("data inspect more.npz", 0);
    let broken = "path,label\n../pictures/0.png,left\n../pictures/99.png,right\n\"no end";
    put(path.join("lists/broken.csv"), broken);
    transcript.refuse("data inspect lists/broken.csv");
    transcript.check("lists_and_arrays");
}

#[test]
fn images_without_labels_in_every_format_serve_for_pretraining() {
    let folder = folder();
    let path = folder.path();
    let values: Vec<u8> = (0..32).flat_map(|i| picture(i % 2, i)).collect();
    idx(
        &path.join("data/Set/raw/train-images-idx3-ubyte"),
        3,
        &[32, 16, 16],
        &values,
    );
    put(
        path.join("x.npz"),
        npz(&[("x", npy("(32, 16, 16)", &values))]),
    );
    let mut list = String::new();
    for number in 0..32 {
        let image = crate::png(16, &picture(number % 2, number));
        put(path.join(format!("{number:02}.png")), image);
        list += &format!("{{\"file_name\": \"{number:02}.png\"}}\n");
    }
    put(path.join("list.jsonl"), list);
    let sources = ["data", "x.npz", "list.jsonl"];
    let models = sources.map(|source| {
        let name = source.replace('.', "-");
        put(path.join(format!("{name}.toml")), recipe(source));
        advcl(path, &format!("pretrain {name}.toml --run run-{name} -q")).expect(0);
        crate::get(path.join(format!("run-{name}/simclr/model.safetensors")))
    });
    // The same images in the same order: the same bytes.
    assert!(models[0] == models[1] && models[0] == models[2]);
}

#[test]
fn a_test_share_is_kept_of_idx_files_and_classes_may_be_composed_otherwise() {
    let folder = folder();
    let path = folder.path();
    let values: Vec<u8> = (0..40).flat_map(|i| picture(i % 2, i)).collect();
    let labels: Vec<u8> = (0..40).map(|i| i % 2).collect();
    let raw = path.join("mnist/raw");
    idx(
        &raw.join("train-images-idx3-ubyte"),
        3,
        &[40, 16, 16],
        &values,
    );
    idx(&raw.join("train-labels-idx1-ubyte"), 1, &[40], &labels);
    put(raw.join("classes.txt"), "cafe\u{301}\nb\n");
    put(path.join("r.toml"), recipe("mnist"));
    let run = "run r.toml --run run --json --set data.test_share=0.2";
    let json = advcl(path, run).expect(0).json();
    assert_eq!(json["outcomes"][0]["images"], 8);
    // The same classes in folders, one of whose names is composed in another way.
    for (split, count) in [("train", 8), ("test", 6)] {
        for number in 0..count {
            let class = ["caf\u{e9}", "b"][number % 2];
            let image = crate::png(16, &picture(number % 2, 90 + number));
            put(
                path.join(format!("set/{split}/{class}/{number}.png")),
                image,
            );
        }
    }
    let evaluated = "evaluate run --json --set data.source='set'";
    let json = advcl(path, evaluated).expect(0).json();
    assert_eq!(json["outcomes"][0]["images"], 6);
}
