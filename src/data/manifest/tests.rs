use std::fs;
use std::path::Path;

use super::super::fixtures::{gray_png, load_path, png, put, refused};
use super::super::{Damaged, Dataset, Reading, load_as, load_unlabeled};

/// Images of two classes in three splits, in folders; the list is beside them.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut seed = 0;
    for split in ["train", "test", "val"] {
        for class in ["cat", "dog, small"] {
            for number in 0..2 {
                let name = format!("set/{split}/{class}/{number}.png");
                put(dir.path().join(name), &png(3, 2, seed));
                seed += 7;
            }
        }
    }
    dir
}

/// Path, label and split of every image in `folder`, in an order that is not the data set's.
fn rows(folder: &Path) -> Vec<[String; 3]> {
    let mut rows = Vec::new();
    for split in ["val", "train", "test"] {
        for class in ["dog, small", "cat"] {
            for number in [1, 0] {
                let path = format!("{}/{split}/{class}/{number}.png", folder.display());
                rows.push([path, class.to_owned(), split.to_owned()]);
            }
        }
    }
    rows
}

/// Loads a list of this content beside the images.
fn load_list(dir: &Path, name: &str, text: &str) -> Dataset {
    let path = dir.join(name);
    put(&path, text.as_bytes());
    load_path(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn a_list_and_folders_give_the_same_data_set() {
    let dir = folder();
    let from_folders = load_path(&dir.path().join("set")).unwrap();
    let quoted = |text: &str| format!("\"{text}\"");
    let absolute = rows(&dir.path().join("set"));
    let relative = rows(Path::new("./set"));
    let table = |head: &str, mark: &str, end: &str, rows: &[[String; 3]]| {
        let mut text = head.replace(',', mark) + end;
        for [path, label, split] in rows {
            let fields = [
                "7".to_owned(),
                quoted(path),
                quoted(label),
                split.to_uppercase(),
            ];
            text += &(fields.join(mark) + end);
        }
        text
    };
    let head = "id,File Name,target,Split";
    let json = |[path, label, split]: &[String; 3]| {
        let row = serde_json::json!({
            "note": {"deep": [1]}, "file_name": path, "class": label, "split": split.replace("val", "validation"),
        });
        format!("{row}\r\n\n")
    };
    let lists = [
        ("a.csv", table(head, ",", "\n", &relative)),
        (
            "b.CSV",
            format!("\u{feff}{}", table(head, ";", "\r\n", &absolute)),
        ),
        ("c.tsv", table(head, "\t", "\n", &relative)),
        ("d.jsonl", relative.iter().map(json).collect()),
        ("e.ndjson", absolute.iter().map(json).collect()),
    ];
    for (name, text) in lists {
        let set = load_list(dir.path(), name, &text);
        let expected = Dataset {
            name: name.to_owned(),
            ..from_folders.clone()
        };
        assert_eq!(set, expected, "{name}");
    }
}

#[test]
fn labels_and_splits_may_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..4 {
        put(
            dir.path().join(format!("{number}.png")),
            &gray_png(2, 2, number),
        );
    }
    let set = load_list(
        dir.path(),
        "a.csv",
        "path,label\n3.png,10\n0.png,9\n1.png,9\n",
    );
    assert_eq!(
        (set.classes, set.train.labels),
        (vec!["10".into(), "9".into()], vec![0, 1, 1])
    );
    assert_eq!(
        set.notes,
        ["no test images (data.test_share keeps some for it)"]
    );
    let text =
        "{\"image\": \"0.png\"}\n{\"image\": \"1.png\", \"label\": null, \"split\": \"train\"}\n";
    let text = text.replace(
        "{\"image\": \"0.png\"}",
        "{\"image\": \"0.png\", \"split\": \"test\"}",
    );
    let set = load_list(dir.path(), "b.jsonl", &text);
    assert_eq!((set.train.images.len(), set.classes.len()), (1, 0));
    assert_eq!(
        set.notes,
        [
            "no column of labels (label, class, target): the images are taken without",
            "1 test image is not used"
        ]
    );
    // Numbers are names, as those of class folders are.
    let set = load_list(
        dir.path(),
        "c.jsonl",
        "{\"image\": \"0.png\", \"label\": 3}\n{\"image\": \"1.png\", \"label\": \"3\"}",
    );
    assert_eq!(
        (set.classes, set.train.labels),
        (vec!["3".into()], vec![0, 0])
    );
}

#[test]
fn names_are_the_same_however_they_are_composed() {
    let dir = tempfile::tempdir().unwrap();
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    put(
        dir.path().join(format!("{decomposed}.png")),
        &gray_png(2, 2, 0),
    );
    put(dir.path().join("b.png"), &gray_png(2, 2, 1));
    let text = format!("path,label\n{composed}.png,{decomposed}\nb.png,{composed}\n");
    let set = load_list(dir.path(), "a.csv", &text);
    assert_eq!(
        (set.classes, set.train.images.len()),
        (vec![composed.into()], 2)
    );
}

#[test]
fn rows_with_a_fault_are_all_counted() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path().join("a.png"), &gray_png(2, 2, 0));
    put(dir.path().join("b.png"), &gray_png(2, 2, 1));
    fs::create_dir(dir.path().join("c.png")).unwrap();
    let cases: [(&str, &[&str]); 14] = [
        ("", &["expected rows, found none"]),
        ("path,label\n", &["expected rows, found none"]),
        (
            "a.png,cat\nb.png,dog\n",
            &["found the columns a.png, cat", "path,label,split"],
        ),
        (
            "path,label\na.png,x\n,y\n\n ,z\n",
            &["expected a path in each row, found none in 2 of 3 rows: line 3, line 5"],
        ),
        (
            "path,label\na.png,x\n./a.png,x\n",
            &["each image once, found again 1 of 2 rows: line 3 (a.png)"],
        ),
        (
            "path\na.png\n1.png\n2.png\n3.png\n4.png\n5.png\n6.png\nc.png\n",
            &[
                "found none for 7 of 8 rows: line 3 (1.png), line 4 (2.png), line 5 (3.png), line 6 (4.png), line 7 (5.png), …",
            ],
        ),
        ("path\nx\\a.png\n", &["write / between"]),
        ("path\nhttps://example.org/a.png\n", &["download"]),
        (
            "path,label\na.png,x\nb.png,\n",
            &[
                "found none in 1 of 2 rows: line 3 (b.png)",
                "data.unlabeled",
            ],
        ),
        (
            "path,label,split\na.png,x,train\nb.png,x,later\n",
            &["found another or none in 1 of 2 rows: line 3 (b.png)"],
        ),
        (
            "path,label,split\na.png,x,test\nb.png,x,val\n",
            &["training images of every class beside those of test, found none"],
        ),
        (
            "path,label,split\na.png,x,train\nb.png,y,test\n",
            &["found x in train and not in test"],
        ),
        (
            "path,label\na.png,x,7\n",
            &[
                "expected 2 fields in each row, as in the header, found another number in 1 of 1 rows: line 2 (3)",
                "needs quotes",
            ],
        ),
        ("path\na.png\nlist.csv\n", &["list.csv"]),
    ];
    let path = dir.path().join("list.csv");
    for (text, words) in cases {
        put(&path, text.as_bytes());
        refused(&path, words);
    }
    let path = dir.path().join("list.jsonl");
    let cases: [(&str, &[&str]); 4] = [
        (
            "{\"path\": \"a.png\"}\n[1]\n",
            &["line 2: expected a JSON object"],
        ),
        (
            "{\"path\": \"a.png\", \"label\": [1, 2]}\n",
            &["line 1: expected one text or number as label, found a list"],
        ),
        ("{\"name\": \"a.png\"}\n", &["found the columns name"]),
        ("\n", &["expected rows, found none"]),
    ];
    for (text, words) in cases {
        put(&path, text.as_bytes());
        refused(&path, words);
    }
}

#[test]
fn missing_files_may_be_skipped_and_labels_ignored() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path().join("a.png"), &gray_png(2, 2, 0));
    put(dir.path().join("b.png"), &gray_png(2, 2, 1));
    let path = dir.path().join("list.csv");
    put(
        &path,
        b"path,label,split\na.png,x,train\nb.png,x,test\nc.png,x,train\n",
    );
    let source = path.to_str().unwrap();
    let reading = Reading::default();
    let set = load_as(source, &reading, Damaged::Skip).unwrap();
    assert_eq!(
        set.notes,
        ["rows without a file that are passed over: 1, line 4 (c.png)"]
    );
    let set = load_unlabeled(source, &reading, Damaged::Skip).unwrap();
    assert_eq!(
        (
            set.classes.len(),
            set.train.images.len(),
            set.test.images.len()
        ),
        (0, 1, 0)
    );
    assert_eq!(
        set.notes,
        [
            "1 test image is not used",
            "rows without a file that are passed over: 1, line 4 (c.png)"
        ]
    );
}

#[test]
fn a_list_beside_images_without_labels_is_pointed_at() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path().join("a.png"), &gray_png(2, 2, 0));
    put(
        dir.path().join("metadata.csv"),
        b"file_name,label\na.png,x\n",
    );
    let notes = load_path(dir.path()).unwrap().notes;
    assert_eq!(
        notes,
        [
            "labels in metadata.csv are read where it is named as data.source itself",
            "1 file is no image and is passed over: metadata.csv"
        ]
    );
}
