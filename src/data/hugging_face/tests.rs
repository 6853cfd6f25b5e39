use std::panic::catch_unwind;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::super::fixtures::{gray_png, load_path, png, put, refused};
use super::super::{Damaged, Reading, load_as};

const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (UTF8); }
    optional int64 label;
}";
const FEATURES: &str = r#"{"info": {"features": {
    "image": {"_type": "Image"},
    "label": {"names": ["cat", "dog", "owl"], "_type": "ClassLabel"}
}}}"#;

/// A row: bytes, path and label.
type Row<'a> = (Option<&'a [u8]>, Option<&'a str>, Option<i64>);

/// A file of these rows, two in a group.
fn table(schema: &str, features: Option<&str>, rows: &[Row], codec: Compression) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let pair = |text: &str| vec![KeyValue::new("huggingface".to_owned(), text.to_owned())];
    let properties = WriterProperties::builder()
        .set_compression(codec)
        .set_key_value_metadata(features.map(pair))
        .build();
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(properties)).unwrap();
    for rows in rows.chunks(2) {
        let mut group = writer.next_row_group().unwrap();
        let mut number = 0;
        while let Some(mut column) = group.next_column().unwrap() {
            let level = |there: bool, most: i16| if there { most } else { most - 1 };
            if number == 2 {
                let levels: Vec<i16> = rows.iter().map(|row| level(row.2.is_some(), 1)).collect();
                let values: Vec<i64> = rows.iter().filter_map(|row| row.2).collect();
                let typed = column.typed::<Int64Type>();
                typed.write_batch(&values, Some(&levels), None).unwrap();
            } else {
                let of = |row: &Row| match number {
                    0 => row.0.map(|bytes| ByteArray::from(bytes.to_vec())),
                    _ => row.1.map(ByteArray::from),
                };
                let values: Vec<Option<ByteArray>> = rows.iter().map(of).collect();
                let levels: Vec<i16> = values.iter().map(|v| level(v.is_some(), 2)).collect();
                let values: Vec<ByteArray> = values.into_iter().flatten().collect();
                let typed = column.typed::<ByteArrayType>();
                typed.write_batch(&values, Some(&levels), None).unwrap();
            }
            column.close().unwrap();
            number += 1;
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
    file
}

fn snappy(rows: &[Row]) -> Vec<u8> {
    table(SCHEMA, Some(FEATURES), rows, Compression::SNAPPY)
}

#[test]
fn parquet_files_and_class_folders_are_the_same_set() {
    let dir = tempfile::tempdir().unwrap();
    let images: Vec<Vec<u8>> = (0..9).map(|i| png(3, 2, 20 * i)).collect();
    let classes = ["cat", "dog", "owl"];
    for (i, image) in images.iter().enumerate() {
        let split = ["train", "test"][i / 6];
        let name = format!("folders/pets/{split}/{}/{i}.png", classes[i % 3]);
        put(dir.path().join(name), image);
    }
    let set = load_path(&dir.path().join("folders/pets")).unwrap();
    assert_eq!((set.train.images.len(), set.test.images.len()), (6, 3));
    let row = |i: usize| (Some(&images[i][..]), Some("x.png"), Some((i % 3) as i64));
    let rows = |range: std::ops::Range<usize>| range.map(row).collect::<Vec<Row>>();
    for (number, codec) in [
        Compression::SNAPPY,
        Compression::ZSTD(Default::default()),
        Compression::UNCOMPRESSED,
    ]
    .into_iter()
    .enumerate()
    {
        let made = |range| table(SCHEMA, Some(FEATURES), &rows(range), codec);
        let folder = dir.path().join(format!("{number}/pets"));
        put(folder.join("README.md"), b"---\n---");
        put(
            folder.join("data/train-00000-of-00002.parquet"),
            &made(0..3),
        );
        put(
            folder.join("data/train-00001-of-00002.parquet"),
            &made(3..6),
        );
        put(folder.join("data/test-00000-of-00001.parquet"), &made(6..9));
        assert_eq!(load_path(&folder).unwrap(), set, "{codec:?}");
    }
    // One file, whatever it is called.
    put(dir.path().join("one/pets"), &snappy(&rows(0..6)));
    let one = load_path(&dir.path().join("one/pets")).unwrap();
    assert_eq!(
        (&one.name, &one.train, &one.classes),
        (&set.name, &set.train, &set.classes)
    );
    assert!(one.notes[0].contains("data.test_share"), "{:?}", one.notes);
}

/// The file was written by `datasets` 5.2.0 (pyarrow 26.0.1), `Dataset.to_parquet` with the features `Image()` and
/// `ClassLabel(names=["cat", "dog"])`, of six PNG files whose bytes count up from 0, 20, 40, …
#[test]
fn a_file_of_hugging_faces_own_library_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.parquet");
    put(
        &path,
        include_bytes!("../../../tests/data/huggingface.parquet"),
    );
    let set = load_path(&path).unwrap();
    let first: Vec<u8> = (0..6).map(|i| set.train.images.image(i)[0]).collect();
    assert_eq!(set.classes, ["cat", "dog"]);
    assert_eq!(set.train.labels, [0, 0, 0, 1, 1, 1]);
    assert_eq!(first, [20, 60, 100, 0, 40, 80]);
}

#[test]
fn columns_are_found_by_metadata_shape_and_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.parquet");
    let image = gray_png(2, 2, 0);
    let rows = [3, 1, 3].map(|label| (Some(&image[..]), None, Some(label)));
    // Without metadata: numbers are the names.
    put(&path, &table(SCHEMA, None, &rows, Compression::SNAPPY));
    assert_eq!(load_path(&path).unwrap().classes, ["1", "3"]);
    // The first of several labels is taken.
    let schema = "message schema {
        optional group photo { optional binary bytes; optional binary path (UTF8); }
        optional int64 fine_label;
    }";
    let features = r#"{"info": {"features": {"photo": {"_type": "Image"},
        "fine_label": {"names": ["a", "b", "c", "d"], "_type": "ClassLabel"},
        "coarse_label": {"names": ["a"], "_type": "ClassLabel"}}}}"#;
    put(
        &path,
        &table(schema, Some(features), &rows, Compression::SNAPPY),
    );
    let set = load_path(&path).unwrap();
    assert_eq!(set.classes, ["b", "d"]);
    assert!(
        set.notes
            .iter()
            .any(|note| note.starts_with("2 of the named classes"))
    );
    // No label: images without labels.
    let schema = schema.replace("fine_label", "width");
    put(&path, &table(&schema, None, &rows, Compression::SNAPPY));
    assert_eq!(load_path(&path).unwrap().classes, [""; 0]);
    let schema = schema.replace("binary bytes", "binary content");
    put(&path, &table(&schema, None, &rows, Compression::SNAPPY));
    refused(
        &path,
        &[
            "set.parquet",
            "found the columns photo.content, photo.path, width",
        ],
    );
}

#[test]
fn missing_images_and_labels_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.parquet");
    let image = gray_png(2, 2, 0);
    let whole: Row = (Some(&image), None, Some(0));
    put(
        &path,
        &snappy(&[whole, whole, (None, Some("x.png"), Some(1))]),
    );
    refused(
        &path,
        &[
            "set.parquet/row 2",
            "found none: a path at most",
            "push_to_hub",
        ],
    );
    let source = path.to_str().unwrap();
    let set = load_as(source, &Reading::default(), Damaged::Skip).unwrap_err();
    assert!(
        set.to_string().contains("\"dog\" has no training images"),
        "{set}"
    );
    put(
        &path,
        &snappy(&[whole, (Some(&image[..30]), None, Some(0))]),
    );
    refused(&path, &["set.parquet/row 1", "PNG"]);
    put(
        &path,
        &snappy(&[
            whole,
            (Some(&image), None, None),
            (Some(&image), None, Some(-1)),
        ]),
    );
    refused(&path, &["found 1 of 3: set.parquet/row 1 has none"]);
    put(&path, &snappy(&[(Some(&image), None, Some(3))]));
    refused(&path, &["expected labels below 3", "found 3"]);
    // Files of several sets, and a name without a split.
    let other = table(SCHEMA, None, &[whole], Compression::SNAPPY);
    put(dir.path().join("many/train-0.parquet"), &snappy(&[whole]));
    put(dir.path().join("many/train-1.parquet"), &other);
    refused(
        &dir.path().join("many"),
        &["train-1.parquet", "found others"],
    );
    put(dir.path().join("more/train-0.parquet"), &snappy(&[whole]));
    put(dir.path().join("more/x.parquet"), &other);
    refused(
        &dir.path().join("more"),
        &["found x.parquet", "name it train-"],
    );
}

#[test]
fn a_file_that_is_cut_or_changed_anywhere_is_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.parquet");
    let image = gray_png(2, 2, 0);
    let whole: Row = (Some(&image), None, Some(0));
    let mut wrong = Vec::new();
    let file = snappy(&[whole, whole]);
    for len in 0..file.len() {
        put(&path, &file[..len]);
        assert!(load_path(&path).is_err(), "{len}");
    }
    for (at, change) in (0..file.len()).flat_map(|at| [(at, 0xff), (at, 0x80)]) {
        let mut changed = file.clone();
        changed[at] ^= change;
        put(&path, &changed);
        match catch_unwind(|| load_path(&path).map_or(0, |set| set.train.images.len())) {
            Ok(images) => assert!(images <= 2, "{at}"),
            Err(_) => wrong.push((at, change)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    put(&path, &snappy(&[whole])[..200]);
    refused(
        &path,
        &["set.parquet: metadata: expected a whole Parquet file"],
    );
}
