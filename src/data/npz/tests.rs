use std::io::Write;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::super::dataset::TEST_ALONE;
use super::super::fixtures::{load_path, put, refused};
use super::super::{Damaged, Reading, load_unlabeled};

/// A NumPy array as `numpy.save` writes it.
fn npy(descr: &str, order: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}");
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((length as u16).to_le_bytes());
    file.extend(format!("{text:<width$}\n", width = length - 1).into_bytes());
    file.extend(values);
    file
}

fn bytes(shape: &str, values: &[u8]) -> Vec<u8> {
    npy("'|u1'", "False", shape, values)
}

fn npz(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (i, (name, content)) in members.iter().enumerate() {
        // numpy.savez and numpy.savez_compressed.
        let method = [CompressionMethod::Stored, CompressionMethod::Deflated][i % 2];
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Writes an archive of its own folder, and returns both.
fn archive(members: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("toy.npz");
    put(&path, &npz(members));
    (dir, path)
}

fn medmnist() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        // Two images of 1 × 2 pixels in colour.
        (
            "train_images",
            bytes("(2, 1, 2, 3)", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        ),
        ("train_labels", bytes("(2, 1)", &[1, 0])),
        ("val_images", bytes("(2, 1, 2, 3)", &[0; 12])),
        (
            "val_labels",
            npy("'<i4'", "False", "(2,)", &[1, 0, 0, 0, 0, 0, 0, 0]),
        ),
        ("test_images", bytes("(2, 1, 2, 3)", &[9; 12])),
        (
            "test_labels",
            npy("'>u2'", "False", "(2, 1)", &[0, 0, 0, 1]),
        ),
    ]
}

fn with(name: &'static str, content: Vec<u8>) -> Vec<(&'static str, Vec<u8>)> {
    let mut members = medmnist();
    members.retain(|(known, _)| *known != name);
    // The first name is enough to know the kind.
    members.push((name, content));
    members
}

#[test]
fn medmnist_keras_and_arrays_alone() {
    let (dir, path) = archive(&medmnist());
    for source in [path.as_path(), dir.path()] {
        let set = load_path(source).unwrap();
        assert_eq!(set.train.images.image(0), [1, 4, 2, 5, 3, 6]);
        assert_eq!(set.train.images.image(1), [7, 10, 8, 11, 9, 12]);
        assert_eq!(
            (set.train.labels, set.test.labels),
            (vec![1, 0], vec![0, 1])
        );
        assert_eq!(set.val.unwrap().labels, [1, 0]);
        assert_eq!(set.classes, ["0", "1"]);
        assert!(set.notes[0].contains("held out"), "{:?}", set.notes);
        put(dir.path().join("classes.txt"), b"benign\nmalignant\n");
        assert_eq!(load_path(source).unwrap().classes, ["benign", "malignant"]);
        std::fs::remove_file(dir.path().join("classes.txt")).unwrap();
    }
    let gray = || bytes("(2, 2, 2)", &[1, 2, 3, 4, 5, 6, 7, 8]);
    let labels = || bytes("(2,)", &[0, 1]);
    let keras = ["x_train", "y_train", "x_test", "y_test"];
    let (_dir, path) = archive(&keras.map(|name| {
        (
            name,
            if name.starts_with('x') {
                gray()
            } else {
                labels()
            },
        )
    }));
    let set = load_path(&path).unwrap();
    assert_eq!(
        (set.train.images.channels, set.test.labels),
        (1, vec![0, 1])
    );
    for [images, labels_name] in [["images", "labels"], ["x", "y"]] {
        let (_dir, path) = archive(&[(images, gray()), (labels_name, labels())]);
        let set = load_path(&path).unwrap();
        assert_eq!(
            (set.train.images.pixels(), set.test.images.len()),
            (vec![1, 2, 3, 4, 5, 6, 7, 8], 0)
        );
        assert_eq!(
            set.notes,
            ["no test images (data.test_share keeps some for it)"]
        );
        // Without labels.
        let (_dir, path) = archive(&[(images, gray())]);
        let set = load_path(&path).unwrap();
        assert_eq!(
            (set.classes.len(), set.train.labels, set.notes),
            (0, vec![], vec![])
        );
    }
}

#[test]
fn validation_images_serve_as_test_images_and_labels_may_be_ignored() {
    let mut members = medmnist();
    members.truncate(4);
    let (_dir, path) = archive(&members);
    let set = load_path(&path).unwrap();
    assert_eq!((set.test.labels, set.val), (vec![1, 0], None));
    // Of a single split: the images of the data set, whatever their name.
    for (first, name) in [(2, "val"), (4, "test")] {
        let members = medmnist().split_off(first);
        let (_dir, path) = archive(&members[..2]);
        let set = load_path(&path).unwrap();
        let labels = if name == "val" {
            vec![1, 0]
        } else {
            vec![0, 1]
        };
        assert_eq!((set.train.labels, set.test.images.len()), (labels, 0));
        assert_eq!(set.val, None);
        let said = set.notes.contains(&TEST_ALONE.to_owned());
        assert_eq!(said, name == "test", "{:?}", set.notes);
    }
    let (_dir, path) = archive(&medmnist()[2..]);
    refused(
        &path,
        &["expected the array train_images beside the others"],
    );
    let (_dir, path) = archive(&medmnist());
    let reading = Reading::default();
    let set = load_unlabeled(path.to_str().unwrap(), &reading, Damaged::Refuse).unwrap();
    assert_eq!(
        (set.classes.len(), set.train.labels, set.test.images.len()),
        (0, vec![], 0)
    );
    assert!(
        set.notes.contains(&"4 test images are not used".to_owned()),
        "{:?}",
        set.notes
    );
}

#[test]
fn other_arrays_are_refused_in_words() {
    let cases: [(&str, Vec<u8>, &[&str]); 16] = [
        (
            "train_images",
            npy("'<f4'", "False", "(2, 1, 2)", &[0; 16]),
            &[
                "images as bytes",
                "found 2 × 1 × 2 (floating-point numbers)",
                "uint8",
            ],
        ),
        (
            "train_images",
            npy("'<i4'", "False", "(2, 1, 2)", &[0; 16]),
            &["images as bytes", "(int32)"],
        ),
        (
            "train_images",
            npy("'|O'", "False", "(2, 1, 2)", b"\x80\x04."),
            &[
                "toy.npz/train_images.npy",
                "Python objects (pickled), which are never read",
            ],
        ),
        (
            "train_images",
            npy("'|u1'", "True", "(2, 1, 2)", &[0; 4]),
            &["rows before columns", "ascontiguousarray"],
        ),
        (
            "train_images",
            npy(
                "[('a', '|u1'), ('b', '<f4', (2,))]",
                "False",
                "(2, 1, 2)",
                &[0; 4],
            ),
            &["records of several fields"],
        ),
        (
            "train_images",
            bytes("(2, 4)", &[0; 8]),
            &["n × height × width, or × 3", "found 2 × 4"],
        ),
        (
            "train_images",
            bytes("(2, 3, 4, 4)", &[0; 96]),
            &["channels come last"],
        ),
        (
            "train_images",
            bytes("(2, 4, 4, 4)", &[0; 128]),
            &["found 2 × 4 × 4 × 4"],
        ),
        (
            "train_images",
            bytes("(0, 1, 2)", &[]),
            &["images of one pixel or more"],
        ),
        (
            "train_images",
            bytes("(2, 1, 2)", &[0; 3]),
            &["expected 4 bytes (2 × 1 × 2), found"],
        ),
        (
            "train_images",
            bytes("(2, 1, 2)", &[0; 5]),
            &["expected 4 bytes (2 × 1 × 2), found 5 bytes"],
        ),
        (
            "train_labels",
            bytes("(2, 14)", &[0; 28]),
            &["one label an image", "found 2 × 14"],
        ),
        (
            "train_labels",
            npy("'<f8'", "False", "(2,)", &[0; 16]),
            &["labels as integers", "floating-point"],
        ),
        (
            "train_labels",
            npy("'<i2'", "False", "(2,)", &[0, 0, 0xff, 0xff]),
            &["label 2: expected a class counted from 0, found -1"],
        ),
        (
            "train_labels",
            npy(
                "'<u8'",
                "False",
                "(2,)",
                &[0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 0, 0],
            ),
            &["expected labels below 2, found 281474976710655"],
        ),
        (
            "train_labels",
            bytes("(3,)", &[0, 1, 0]),
            &["expected as many labels in train_labels as images in train_images, 2, found 3"],
        ),
    ];
    for (name, content, words) in cases {
        let (_dir, path) = archive(&with(name, content));
        refused(&path, words);
    }
    let (_dir, path) = archive(&[("arr_0", bytes("(2, 1, 2)", &[0; 4]))]);
    refused(
        &path,
        &[
            "expected the arrays train_images and train_labels",
            "found arr_0",
        ],
    );
    let mut members = medmnist();
    members.remove(5);
    let (_dir, path) = archive(&members);
    refused(&path, &["expected the array test_labels beside the others"]);
}

#[test]
fn sizes_that_are_declared_claim_no_memory() {
    for shape in [
        "(1099511627776, 1, 2)",
        "(18446744073709551615, 4, 4)",
        "(99999999999999999999, 1, 2)",
    ] {
        let (_dir, path) = archive(&with("train_images", bytes(shape, &[0; 4])));
        refused(&path, &["train_images.npy"]);
    }
}

#[test]
fn damaged_archives_are_refused_and_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("toy.npz");
    for content in [&b""[..], b"PK\x03\x04", b"words"] {
        put(&path, content);
        refused(
            &path,
            &["toy.npz: archive: expected a NumPy archive (.npz)"],
        );
    }
    let whole = npz(&medmnist());
    for at in 0..whole.len() {
        let mut content = whole.clone();
        content[at] ^= 0x5a;
        put(&path, &content);
        // A checksum holds the values; names may become others.
        let _ = load_path(&path);
        put(&path, &whole[..at]);
        assert!(load_path(&path).is_err(), "{at}");
    }
    // A value is changed in a member that is stored.
    let values = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    let at = whole.windows(12).position(|part| part == values).unwrap();
    let mut content = whole;
    content[at] = 99;
    put(&path, &content);
    refused(
        &path,
        &["train_images.npy: values: expected a whole member"],
    );
}

#[test]
fn headers_are_read_as_numpy_writes_them() {
    let kinds = [
        ("'|b1'", "uint8"),
        ("'<U3'", "texts"),
        ("'<c8'", "another type"),
    ];
    for (descr, words) in kinds {
        let (_dir, path) = archive(&with("train_images", npy(descr, "False", "(2,)", &[0; 24])));
        refused(&path, &[words]);
    }
    for header in [
        "",
        "{",
        "{}",
        "{'descr': '|u1'}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2",
        "{'a': 1}",
        "{'descr",
    ] {
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        let (_dir, path) = archive(&with("train_images", file));
        refused(&path, &["header: expected a NumPy header", "found"]);
    }
    // The broken file of another program: a header of no length.
    let (_dir, path) = archive(&with(
        "train_images",
        [b"\x93NUMPY\x01\x00".as_slice(), &[0; 64]].concat(),
    ));
    refused(&path, &["header: expected a NumPy header"]);
}
