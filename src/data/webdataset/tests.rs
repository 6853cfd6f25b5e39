use super::super::fixtures::{gray_png, gzip, load_path, png, put, refused, tar};
use super::super::{Reading, Size, load_as};
use super::*;

/// A sample: key, class, image, and whether it is for testing.
type SampleOf = (&'static str, usize, Vec<u8>, bool);

const CLASSES: [&str; 2] = ["cat", "dog"];

fn samples() -> Vec<SampleOf> {
    vec![
        ("000000", 1, png(3, 2, 1), false),
        ("000001", 0, png(3, 2, 30), false),
        ("000002", 1, png(3, 2, 60), false),
        ("000003", 0, png(3, 2, 90), false),
        ("000004", 1, png(3, 2, 120), true),
        ("000005", 0, png(3, 2, 150), true),
    ]
}

/// An archive of files with these names.
fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let members = files.iter().map(|(n, b)| (n.as_str(), &b[..]));
    tar(&members.collect::<Vec<_>>())
}

/// The members of a sample, with the label in a file of this extension.
fn members(sample: &SampleOf, extension: &str, label: &str) -> Vec<(String, Vec<u8>)> {
    let (key, _, image, _) = sample;
    vec![
        (format!("{key}.{extension}"), label.as_bytes().to_vec()),
        (format!("{key}.jpg"), image.clone()),
    ]
}

/// The shards of the samples, as made by `members`: two for training, one for testing.
fn put_shards(folder: &Path, members: impl Fn(&SampleOf) -> Vec<(String, Vec<u8>)>) {
    let all = samples();
    let made =
        |part: &[SampleOf]| -> Vec<(String, Vec<u8>)> { part.iter().flat_map(&members).collect() };
    put(folder.join("train-000000.tar"), &archive(&made(&all[..3])));
    put(folder.join("train-000001.tar"), &archive(&made(&all[3..4])));
    put(
        folder.join("test-000000.tar.gz"),
        &gzip(&archive(&made(&all[4..]))),
    );
}

#[test]
fn shards_and_class_folders_are_the_same_set() {
    let dir = tempfile::tempdir().unwrap();
    for (key, class, image, tested) in samples() {
        let split = ["train", "test"][usize::from(tested)];
        let name = format!("folders/pets/{split}/{}/{key}.jpg", CLASSES[class]);
        put(dir.path().join(name), &image);
    }
    let set = load_path(&dir.path().join("folders/pets")).unwrap();
    assert_eq!((set.train.images.len(), set.test.images.len()), (4, 2));
    let same = |name: &str| {
        let found = load_path(&dir.path().join(name).join("pets")).unwrap();
        assert_eq!(found, set, "{name}");
    };
    let at = |name: &str| dir.path().join(name).join("pets");
    put_shards(&at("names"), |one| members(one, "cls", CLASSES[one.1]));
    same("names");
    put_shards(&at("json"), |one| {
        members(one, "json", &format!("{{\"size\": 3, \"cls\": {}}}", one.1))
    });
    put(at("json").join("classes.txt"), b"cat\ndog\n");
    same("json");
    let names = ["\"label\": \"cat\"", "\"class\": \"dog\""];
    put_shards(&at("text"), |one| {
        members(one, "json", &format!("{{{}}}", names[one.1]))
    });
    same("text");
    put_shards(&at("numbers"), |one| {
        members(one, "cls", &format!("{}\n", one.1))
    });
    let meta = b"{\"splits\": 2, \"classes\": [\"cat\", \"dog\", \"owl\"]}";
    put(at("numbers").join("meta.json"), meta);
    let found = load_path(&at("numbers")).unwrap();
    assert_eq!((&found.train, &found.classes), (&set.train, &set.classes));
    assert!(
        found.notes[0].starts_with("1 of the named classes"),
        "{:?}",
        found.notes
    );
    // One archive, keys with folders, dots behind the first one, and masks beside the images.
    let one = samples()
        .into_iter()
        .flat_map(|(key, class, image, tested)| {
            let split = ["train", "test"][usize::from(tested)];
            vec![
                (format!("./{split}/v1.2/{key}.jpg"), image),
                (format!("./{split}/v1.2/{key}.mask.png"), gray_png(9, 9, 0)),
                (
                    format!("./{split}/v1.2/{key}.cls"),
                    format!("{class}").into_bytes(),
                ),
            ]
        });
    let mut one: Vec<(String, Vec<u8>)> = one.collect();
    one.push(("classes.txt".into(), b"cat\ndog".to_vec()));
    let path = dir.path().join("one/pets.tar.gz");
    put(&path, &gzip(&archive(&one)));
    assert_eq!(load_path(&path).unwrap(), set);
}

#[test]
fn archives_without_labels_are_images_without_labels() {
    let dir = tempfile::tempdir().unwrap();
    let image = |seed| (format!("{seed}.png"), gray_png(2, 2, seed));
    for (name, seed) in [("b.tar", 2), ("a.tar", 4)] {
        put(
            dir.path().join(name),
            &archive(&[image(seed), image(seed + 1)]),
        );
    }
    put(dir.path().join("README.md"), b"words");
    let set = load_path(dir.path()).unwrap();
    assert!(set.classes.is_empty() && set.train.labels.is_empty());
    let first: Vec<u8> = (0..4).map(|i| set.train.images.image(i)[0]).collect();
    assert_eq!(first, [4, 5, 2, 3]);
    assert!(
        set.notes[0].starts_with("2 archives without labels"),
        "{:?}",
        set.notes
    );
    // The size is brought to another one as anywhere.
    let reading = Reading {
        size: Some(Size::Square(1)),
        ..Reading::default()
    };
    let set = load_as(dir.path().to_str().unwrap(), &reading, Default::default()).unwrap();
    assert_eq!(set.train.images.pixels().len(), 4);
    put(dir.path().join("c.tar"), &tar(&[("x.bin", b"x")]));
    refused(
        dir.path(),
        &["c.tar", "expected images in each archive", "found none"],
    );
}

#[test]
fn ordinary_archives_stay_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.tar");
    // Annotations of another kind beside the images.
    let files = ["cat", "dog"].map(|class| {
        let notes = (
            format!("{class}/1.json"),
            b"{\"shapes\": [{\"label\": \"x\"}]}".to_vec(),
        );
        [(format!("{class}/1.png"), gray_png(2, 2, 0)), notes]
    });
    put(&path, &archive(&files.concat()));
    assert_eq!(load_path(&path).unwrap().classes, ["cat", "dog"]);
    // A folder with one of them, and images beside archives.
    refused(dir.path(), &["expected images", "give the archive itself"]);
    put(dir.path().join("1.png"), &gray_png(2, 2, 7));
    assert_eq!(load_path(dir.path()).unwrap().train.images.len(), 1);
}

#[test]
fn mixtures_are_refused_with_counts_and_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.tar");
    let sample = |key: &str, label: Option<&str>| {
        let mut files = vec![(format!("{key}.png"), gray_png(2, 2, 0))];
        files.extend(label.map(|text| (format!("{key}.cls"), text.as_bytes().to_vec())));
        files
    };
    let files = [
        sample("0", Some("3")),
        sample("1", None),
        sample("2", Some("-1")),
    ];
    put(&path, &archive(&files.concat()));
    refused(&path, &["found 1 of 3: 1.png has none", "data.unlabeled"]);
    // Two images of one label.
    let mut files = sample("0", Some("3"));
    files.push(("0.jpg".into(), gray_png(2, 2, 0)));
    put(&path, &archive(&files));
    refused(&path, &["found 1 of 2"]);
    // A label alone, bytes that are no label, and one that is too long.
    let mut files = sample("0", Some("3"));
    files.push(("1.cls".into(), b"4".to_vec()));
    put(&path, &archive(&files));
    let set = load_path(&path).unwrap();
    assert_eq!(
        (set.train.images.len(), &set.classes[..]),
        (1, &["3".to_owned()][..])
    );
    assert!(
        set.notes
            .iter()
            .any(|note| note.contains("without an image: 1"))
    );
    for label in [vec![0xff; 3], vec![b'a'; MAX_NAME + 1]] {
        let mut files = sample("0", Some("3"));
        files.extend(sample("1", None));
        files.push(("1.cls".into(), label));
        put(&path, &archive(&files));
        refused(&path, &["found 1 of 2: 1.png has none"]);
    }
    // A split in the name of one archive only; a damaged archive.
    for name in ["many/train-0.tar", "many/more-1.tar"] {
        put(dir.path().join(name), &archive(&sample("0", Some("3"))));
    }
    refused(
        &dir.path().join("many"),
        &["found more-1.tar/0.png", "name it train-…"],
    );
    let whole = archive(&sample("0", Some("3")));
    put(dir.path().join("many/more-1.tar"), &whole[..700]);
    refused(&dir.path().join("many"), &["more-1.tar", "archive member"]);
}

#[test]
fn keys_end_at_the_first_dot_of_the_name() {
    for (name, key, extension) in [
        ("a.jpg", "a", "jpg"),
        ("v1.0/a.seg.png", "v1.0/a", "seg.png"),
        ("v1.0/a", "v1.0/a", ""),
    ] {
        assert_eq!(key_of(name), (key, extension));
    }
}
