//! Tests of zip archives.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::super::fixtures::{gray_png, load_path, png, put, refused, zip};
use super::super::{Damaged, Reading, load_as};

/// Places at which a pattern begins.
fn places(bytes: &[u8], pattern: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(pattern.len()).enumerate();
    let found = windows.filter(|(_, window)| *window == pattern);
    found.map(|(at, _)| at).collect()
}

/// Places of the entries in the archive's directory.
fn directory(archive: &[u8]) -> Vec<usize> {
    places(archive, b"PK\x01\x02")
}

fn files() -> Vec<(String, Vec<u8>)> {
    let name = |split: &str, class: &str, i: usize| format!("{split}/{class}/{i}.png");
    let mut files = Vec::new();
    for (i, class) in ["cat", "dog", "ибис"].iter().enumerate() {
        files.push((name("train", class, i), png(3, 2, 10 * i as u8)));
        files.push((name("train", class, 7), png(3, 2, 10 * i as u8 + 1)));
        files.push((name("test", class, i), png(3, 2, 10 * i as u8 + 2)));
    }
    files.push(("train/words.csv".into(), b"a,b".to_vec()));
    files
}

#[test]
fn a_folder_and_its_zip_archives_are_the_same_set() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files() {
        put(dir.path().join("pets").join(name), &bytes);
    }
    let set = load_path(&dir.path().join("pets")).unwrap();
    assert_eq!((set.train.images.len(), set.test.images.len()), (6, 3));
    let files = files();
    let plain: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), &b[..])).collect();
    // As macOS packs a folder: the folder, and a file of its own beside each.
    let mac = files.iter().flat_map(|(name, bytes)| {
        let junk = format!("__MACOSX/._{name}");
        [
            (name.clone(), bytes.clone()),
            (junk, b"\0\x05\x16\x07".into()),
        ]
    });
    let mac: Vec<(String, Vec<u8>)> = mac.collect();
    let mut with_junk = vec![("train/", &b""[..]), ("train/cat/", b"")];
    with_junk.extend(mac.iter().map(|(n, b)| (n.as_str(), &b[..])));
    // Stored, and in another order.
    let mut stored = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in files.iter().rev() {
        stored.start_file(name.as_str(), options).unwrap();
        stored.write_all(bytes).unwrap();
    }
    let stored = stored.finish().unwrap().into_inner();
    // As some programs of Windows did it.
    let mut windows = zip(&plain);
    for entry in directory(&windows) {
        windows[entry + 5] = 0;
    }
    for split in [&b"train/"[..], b"test/"] {
        for at in places(&windows, split) {
            windows[at + split.len() - 1] = b'\\';
        }
    }
    for (number, archive) in [zip(&plain), zip(&with_junk), stored, windows]
        .iter()
        .enumerate()
    {
        let path = dir.path().join(format!("{number}/pets.zip"));
        put(&path, archive);
        assert_eq!(load_path(&path).unwrap(), set, "{number}");
    }
}

#[test]
fn names_that_lead_outside_and_links_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.zip");
    let image = gray_png(2, 2, 0);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    for name in ["a.png", "xx/b.png", "x/etc/c.png"] {
        writer.start_file(name, options).unwrap();
        writer.write_all(&image).unwrap();
    }
    writer.add_symlink("d.png", "/etc/passwd", options).unwrap();
    let mut archive = writer.finish().unwrap().into_inner();
    for (from, to) in [(b"xx/b", b"../b"), (b"x/et", b"//et")] {
        for at in places(&archive, from) {
            archive[at..at + 4].copy_from_slice(to);
        }
    }
    put(&path, &archive);
    let set = load_path(&path).unwrap();
    assert_eq!(set.train.images.len(), 1);
    let note = "3 files are left out of the data set: ../b.png (a name that leads outside), \
        //etc/c.png (a name that leads outside), d.png (a link)";
    assert_eq!(set.notes, [note]);
}

#[test]
fn what_cannot_be_read_of_an_archive_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.zip");
    let image = gray_png(2, 2, 0);
    let whole = zip(&[("a.png", &image), ("b.png", &image), ("list.csv", b"a,b")]);
    let changed = |which: usize, at: usize, value: u8| {
        let mut archive = whole.clone();
        let entry = directory(&archive)[which];
        archive[entry + at] = value;
        put(&path, &archive);
    };
    let (flags, method) = (8, 10);
    changed(1, flags, 1);
    refused(
        &path,
        &["set.zip/b.png", "found an encrypted one", "unpack"],
    );
    changed(1, method, 12);
    refused(
        &path,
        &["set.zip/b.png", "found one compressed by", "unpack"],
    );
    // What is no image is left out.
    changed(2, flags, 1);
    let set = load_path(&path).unwrap();
    let note = "1 file is left out of the data set: list.csv (an encrypted one)";
    assert_eq!((set.train.images.len(), &set.notes[0][..]), (2, note));
    // Twice the same name.
    let mut archive = whole.clone();
    for at in places(&archive, b"b.png") {
        archive[at] = b'a';
    }
    put(&path, &archive);
    refused(&path, &["found a.png twice"]);
}

#[test]
fn a_member_gives_as_many_bytes_as_it_declares() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.zip");
    let image = gray_png(2, 2, 0);
    let whole = zip(&[("a.png", &image), ("b.png", &image), ("c.png", &image)]);
    let len = image.len() as u32;
    for (which, size, words) in [
        (0, len - 1, "larger than its declared"),
        (1, len + 1, "1 bytes fewer than it declares"),
        (2, (2 << 30) + 1, "more than 2 GiB"),
    ] {
        let mut archive = whole.clone();
        let entry = directory(&archive)[which];
        archive[entry + 24..entry + 28].copy_from_slice(&size.to_le_bytes());
        put(&path, &archive);
        let name = format!("set.zip/{}.png", ["a", "b", "c"][which]);
        refused(&path, &[&name, words]);
        // The others are as they were.
        let source = path.to_str().unwrap();
        let set = load_as(source, &Reading::default(), Damaged::Skip).unwrap();
        assert_eq!(set.train.images.len(), 2);
        assert!(set.notes[0].contains(&name), "{:?}", set.notes);
    }
    // A wrong checksum, and a header elsewhere.
    for (at, words) in [(16, "checksum"), (42, "a whole file")] {
        let mut archive = whole.clone();
        let entry = directory(&archive)[1];
        archive[entry + at] ^= 1;
        put(&path, &archive);
        refused(&path, &["set.zip/b.png", words]);
    }
}

#[test]
fn members_that_overlap_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.zip");
    let archive = zip(&[("a.png", &[0; 1 << 20])]);
    let (start, end) = (directory(&archive)[0], archive.len() - 22);
    let entry = &archive[start..end];
    let many = 100u16;
    let mut bomb = archive[..start].to_vec();
    for i in 0..many {
        let at = bomb.len();
        bomb.extend(entry);
        // Names of their own: "0.png", "1.png", …
        bomb[at + 46] = i as u8 + 1;
    }
    bomb.extend(&archive[end..]);
    let tail = bomb.len() - 22;
    for at in [8, 10] {
        bomb[tail + at..tail + at + 2].copy_from_slice(&many.to_le_bytes());
    }
    let size = u32::from(many) * entry.len() as u32;
    bomb[tail + 12..tail + 16].copy_from_slice(&size.to_le_bytes());
    put(&path, &bomb);
    refused(
        &path,
        &["archive directory: expected members that do not overlap"],
    );
}

#[test]
fn a_zip_archive_that_is_cut_or_changed_anywhere_is_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.zip");
    let image = gray_png(2, 2, 0);
    let whole = zip(&[("a.png", &image), ("b.png", &image)]);
    for len in 0..whole.len() {
        put(&path, &whole[..len]);
        assert!(load_path(&path).is_err(), "{len}");
    }
    refused(&path, &["archive directory: expected a whole zip archive"]);
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0xff;
        put(&path, &changed);
        if let Ok(set) = load_path(&path) {
            assert!(set.train.images.len() <= 2, "{at}");
        }
    }
    put(&path, &zip(&[]));
    refused(&path, &["expected images (PNG, ", "found none"]);
}
