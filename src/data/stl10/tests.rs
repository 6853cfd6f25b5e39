use super::super::fixtures::{gzip, load_path, put, refused, tar};
use super::super::{Damaged, Reading, Size, load_as, load_unlabeled};
use super::*;

/// Images whose value at row y, column x and channel c is `number + 2 x + y + 5 c` modulo 256, column by column.
fn columns(numbers: &[u8]) -> Vec<u8> {
    let image = |number: &u8| {
        let number = usize::from(*number);
        (0..PIXELS).map(move |at| {
            let (c, x, y) = (at / (SIDE * SIDE), at / SIDE % SIDE, at % SIDE);
            (number + 2 * x + y + 5 * c) as u8
        })
    };
    numbers.iter().flat_map(image).collect()
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("stl10_binary/train_X.bin", columns(&[1, 2, 3])),
        ("stl10_binary/train_y.bin", vec![2, 1, 2]),
        ("stl10_binary/test_X.bin", columns(&[4, 5])),
        ("stl10_binary/test_y.bin", vec![1, 2]),
        ("stl10_binary/unlabeled_X.bin", columns(&[6, 7, 8, 9])),
        (
            "stl10_binary/class_names.txt",
            b"airplane\nbird\ncar\n".to_vec(),
        ),
        ("stl10_binary/fold_indices.txt", b"0 1 2\n".to_vec()),
    ]
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files() {
        put(dir.path().join(name), &bytes);
    }
    dir
}

#[test]
fn from_a_folder_its_parent_and_an_archive() {
    let dir = folder();
    let set = load_path(&dir.path().join("stl10_binary")).unwrap();
    assert_eq!(set.train.labels, [1, 0, 1]);
    assert_eq!(
        (set.test.labels.as_slice(), set.test.images.len()),
        (&[0, 1][..], 2)
    );
    // A name that no label has is not a class.
    assert_eq!(set.classes, ["airplane", "bird"]);
    // Row 3, column 10 of the second channel of the second image.
    assert_eq!(
        set.train.images.image(1)[SIDE * SIDE + 3 * SIDE + 10],
        2 + 20 + 3 + 5
    );
    assert!(
        set.notes[0].contains("data.unlabeled = ["),
        "{:?}",
        set.notes
    );
    assert_eq!(load_path(dir.path()).unwrap().train, set.train);
    let files = files();
    let members: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (*n, &b[..])).collect();
    let archive = dir.path().join("stl10_binary.tar.gz");
    put(&archive, &gzip(&tar(&members)));
    let packed = load_path(&archive).unwrap();
    assert_eq!(
        (packed.train, packed.test, packed.classes),
        (set.train, set.test, set.classes)
    );
}

#[test]
fn unlabeled_images_are_those_of_their_own_file() {
    let dir = folder();
    let reading = Reading {
        size: Some(Size::Square(48)),
        ..Reading::default()
    };
    let inner = dir.path().join("stl10_binary");
    let source = inner.to_str().unwrap();
    let all = load_unlabeled(source, &reading, Damaged::Refuse).unwrap();
    assert_eq!((all.train.images.len(), all.train.images.height), (4, 48));
    assert!(all.train.labels.is_empty() && all.test.images.is_empty());
    let file = inner.join(UNLABELED);
    let alone = load_as(file.to_str().unwrap(), &reading, Damaged::Refuse).unwrap();
    assert_eq!(alone.train, all.train);
    // Without labels there is nothing else to be read.
    for name in ["train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"] {
        std::fs::remove_file(inner.join(name)).unwrap();
    }
    let alone = load_as(source, &reading, Damaged::Refuse).unwrap();
    assert_eq!((alone.train, alone.notes), (all.train, vec![]));
}

#[test]
fn without_test_images_and_without_names() {
    let dir = folder();
    for name in [
        "test_X.bin",
        "test_y.bin",
        "class_names.txt",
        "unlabeled_X.bin",
    ] {
        std::fs::remove_file(dir.path().join("stl10_binary").join(name)).unwrap();
    }
    let set = load_path(dir.path()).unwrap();
    assert_eq!(
        (set.classes, set.test.images.len()),
        (vec!["1".into(), "2".into()], 0)
    );
    assert_eq!(
        set.notes,
        ["no test images (data.test_share keeps some for it)"]
    );
}

/// Name of a file, its new content or none, and words of the message.
type Damage<'a> = (&'a str, Option<Vec<u8>>, &'a [&'a str]);

#[test]
fn damaged_and_missing_files() {
    let cases: [Damage; 5] = [
        (
            "train_X.bin",
            Some(columns(&[1])[..100].to_vec()),
            &["train_X.bin: image 1: expected 27648 bytes, found 100"],
        ),
        ("train_X.bin", Some(Vec::new()), &["found an empty file"]),
        (
            "train_y.bin",
            Some(vec![1, 2]),
            &["expected 3 labels, one per image, found 2"],
        ),
        (
            "test_y.bin",
            Some(vec![1, 11]),
            &["label 2: expected a label of STL-10, 1 to 10, found 11"],
        ),
        (
            "train_y.bin",
            None,
            &["expected train_y.bin beside the other files of STL-10"],
        ),
    ];
    for (name, bytes, words) in cases {
        let dir = folder();
        let path = dir.path().join("stl10_binary").join(name);
        match bytes {
            Some(bytes) => put(&path, &bytes),
            None => std::fs::remove_file(&path).unwrap(),
        }
        refused(dir.path(), words);
    }
}
