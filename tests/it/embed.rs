//! Features as files, images that look alike, and images to label next, with the built program.

use std::fs;
use std::path::Path;

use advcl::weights;

use crate::harness::*;

/// Small photographs in two kinds, by month: 24 without labels, and 8 of them in class folders.
fn photos(folder: &Path) {
    for number in 0..24 {
        let bytes = crate::png(16, &pixels(number));
        crate::put(
            folder.join(format!("photos/{:02}/{number:02}.png", number % 3)),
            &bytes,
        );
        if number < 8 {
            let class = ["left", "right"][number % 2];
            crate::put(
                folder.join(format!("labeled/{class}/{number:02}.png")),
                bytes,
            );
        }
    }
}

/// A bright half, left or right, and some noise.
fn pixels(number: usize) -> Vec<u8> {
    let pixel = |i: usize| {
        let bright = usize::from(i % 16 >= 8) == number % 2;
        let noise = (i * 7 + number * 13) % 40;
        (if bright { 180 } else { 60 } + noise) as u8
    };
    (0..256).map(pixel).collect()
}

/// A run on them.
fn trained(folder: &Path) {
    photos(folder);
    let recipe = crate::only_simclr()
        .replace(
            "\"fashion-mnist-12k\"",
            "\"labeled\"\nunlabeled = [\"photos\"]\ntest_share = 0.25",
        )
        .replace("train_limit = 64\n", "")
        .replace("test_limit = 20\n", "");
    crate::put(folder.join("r.toml"), recipe);
    let answer = advcl(folder, "run r.toml --run run").expect(0);
    // The eight labeled images are among the photographs; two are kept for testing.
    for words in [
        "photos: 6 images are in another source too, and counted once",
        "photos: 2 images are among those for testing, and left out",
        "22 images for pretraining, 6 of them with labels",
    ] {
        assert!(
            answer.stderr.contains(words),
            "{words} is missing in\n{answer}"
        );
    }
}

#[test]
fn features_are_written_with_the_files_that_they_are_of() {
    let folder = crate::folder();
    let path = folder.path();
    trained(path);
    let answer = advcl(path, "embed run/simclr photos -o f.npy --normalize -q").expect(0);
    assert_eq!(
        answer.stdout,
        "24 images, 16 features each: f.npy, f.paths.csv\n"
    );
    let npy = fs::read(path.join("f.npy")).expect("a file");
    assert_eq!(
        (&npy[..6], npy.len()),
        (&b"\x93NUMPY"[..], 128 + 24 * 16 * 4)
    );
    assert!(String::from_utf8_lossy(&npy[10..128]).contains("'shape': (24, 16)"));
    let values: Vec<f32> = npy[128..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().expect("four")))
        .collect();
    let length = values[..16].iter().map(|v| v * v).sum::<f32>();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
    let paths = fs::read_to_string(path.join("f.paths.csv")).expect("a file");
    assert!(
        paths.starts_with("path,split,label\nphotos/00/00.png,,\n"),
        "{paths}"
    );
    // A data set has splits and labels; the same images have the same features.
    crate::put(
        path.join("list.csv"),
        "path,label\nphotos/00/00.png,a\nphotos/01/01.png,b\n",
    );
    advcl(
        path,
        "embed run/simclr list.csv -o list-f.csv --normalize -q",
    )
    .expect(0);
    let csv = fs::read_to_string(path.join("list-f.csv")).expect("a file");
    let row: Vec<&str> = csv.lines().nth(1).expect("a row").split(',').collect();
    assert!(
        row[0].ends_with("photos/00/00.png") && row[1..3] == ["train", "a"],
        "{csv}"
    );
    let first: f32 = row[3].parse().expect("a number");
    assert!((first - values[0]).abs() < 1e-6);
    // What is there stays.
    refused(path, "embed run/simclr photos -o f.npy", Files::Untouched);
    refused(path, "embed run/simclr photos -o f.txt", Files::Untouched);
    crate::put(path.join("photos/bad.png"), "no image");
    let answer = advcl(path, "embed run/simclr photos -o g.npy -q").expect(1);
    assert!(answer.stderr.contains("bad.png"), "{answer}");
    assert!(path.join("g.npy").exists());
}

#[test]
fn each_copy_is_named_once_with_the_first_image_that_it_is_like() {
    let folder = crate::folder();
    let path = folder.path();
    trained(path);
    for number in 0..3 {
        crate::put(
            path.join(format!("again/{number:02}.png")),
            crate::png(16, &pixels(0)),
        );
    }
    let command = "duplicates run/simclr labeled photos again --threshold 0.999999";
    let answer = advcl(path, &format!("{command} --json")).expect(0);
    let pairs = answer.json();
    let pairs = pairs.as_array().expect("pairs");
    let of = |key: &str| -> Vec<String> {
        let paths = pairs.iter().map(|pair| pair[key]["path"].as_str());
        paths.map(|path| path.expect("a path").to_owned()).collect()
    };
    let (likes, copies) = (of("first"), of("second"));
    let copied = |number: usize| format!("photos/{:02}/{number:02}.png", number % 3);
    let again = (0..3).map(|number| format!("again/{number:02}.png"));
    for file in (0..8).map(copied).chain(again) {
        let named = copies.iter().filter(|copy| **copy == file);
        assert_eq!(named.count(), 1, "{file} in\n{answer}");
    }
    assert!(!likes.iter().any(|like| like.starts_with("again/")));
    let answer = advcl(path, command).expect(0);
    let counted = format!("{} of 35 images are like an earlier one", pairs.len());
    assert!(answer.stderr.contains(&counted), "{answer}");
    refused(
        path,
        "duplicates run/simclr photos --threshold 2",
        Files::Untouched,
    );
}

#[test]
fn a_list_of_what_to_label_is_read_back_and_the_encoder_stays() {
    let folder = crate::folder();
    let path = folder.path();
    trained(path);
    let run = path.join("run");
    fs::remove_file(run.join(".lock")).expect("a lock");
    let before = crate::contents(&run);
    for (strategy, reason) in [
        ("coverage", "typical of"),
        ("uncertain", "under PGD-"),
        ("mixed", "under PGD-"),
    ] {
        let args = format!(
            "label-next run --count 4 --strategy {strategy} -o {strategy}.csv --sheet {strategy}.png"
        );
        let answer = advcl(path, &args).expect(0);
        assert!(answer.stdout.contains(reason), "{answer}");
        let list = fs::read_to_string(path.join(format!("{strategy}.csv"))).expect("a list");
        let rows: Vec<&str> = list.lines().collect();
        assert_eq!(rows.len(), 1 + 4 + 8, "{list}");
        assert_eq!(rows.iter().filter(|row| row.contains(",test,")).count(), 2);
    }
    assert!(before == crate::contents(&run), "the run was changed");
    // A person fills in the labels: even numbers are left, odd ones right.
    let list = fs::read_to_string(path.join("coverage.csv")).expect("a list");
    let filled: Vec<String> = list
        .lines()
        .map(|row| match row.split_once(",,train") {
            Some((name, rest)) => {
                let number: usize = name[name.len() - 6..name.len() - 4]
                    .parse()
                    .expect("a number");
                format!("{name},{},train{rest}", ["left", "right"][number % 2])
            }
            None => row.to_owned(),
        })
        .collect();
    crate::put(path.join("filled.csv"), filled.join("\n"));
    let answer = advcl(
        path,
        "run r.toml --run run --set data.source=filled.csv --replace",
    )
    .expect(0);
    assert!(
        answer
            .stderr
            .contains("22 images for pretraining, 10 of them with labels"),
        "{answer}"
    );
    assert!(
        !answer.stderr.contains("simclr: epoch"),
        "the encoder was trained again\n{answer}"
    );
    refused(path, "label-next run --count 0", Files::Untouched);
    refused(path, "label-next run --count 1000", Files::Untouched);
    // What is read is not replaced, and two outputs are two files.
    for files in [
        "-o run/recipe.toml --replace",
        "-o filled.csv --replace",
        "-o new.csv --sheet photos/00/00.png --replace",
        "-o new --sheet ./new",
    ] {
        refused(
            path,
            &format!("label-next run --count 2 {files}"),
            Files::Untouched,
        );
    }
    // A list of an earlier call is no input, wherever it is.
    for replace in ["", "--replace"] {
        advcl(
            path,
            &format!("label-next run --count 2 -o run/list.csv {replace}"),
        )
        .expect(0);
    }
}

#[test]
fn features_that_are_no_numbers_are_neither_written_nor_clustered() {
    let folder = crate::folder();
    let path = folder.path();
    trained(path);
    let model = path.join("run/simclr/model.safetensors");
    let (mut tensors, metadata) = weights::load(&model).expect("a model");
    for (name, (_, values)) in &mut tensors {
        if name.contains("conv") {
            values.iter_mut().for_each(|value| *value *= 1e30);
        }
    }
    let about = [("advcl", metadata["advcl"].clone())];
    let huge = path.join("huge.safetensors");
    weights::save(&huge, &tensors, &about).expect("a writable folder");
    let cluster = r#"cluster={counts=[2],restarts=1,iterations=5,model="./huge.safetensors"}"#;
    fs::copy(&huge, &model).expect("a writable folder");
    for command in [
        "embed huge.safetensors photos -o features.npy",
        &format!("cluster run --set {cluster}"),
        "label-next run --count 2 --strategy coverage",
    ] {
        let answer = advcl(path, command).expect(1);
        assert!(answer.stderr.contains(": a feature of "), "{answer}");
    }
    for made in [
        "features.npy",
        "run/pseudo_labels.safetensors",
        "to-label.csv",
    ] {
        assert!(!path.join(made).exists(), "{made}");
    }
}
