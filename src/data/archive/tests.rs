//! Tests of tar archives and folders.

use std::fs;

use super::super::fixtures::{gray_png, gzip, load_path, put, refused, tar};
use super::super::listing::clean;
use super::*;

#[test]
fn names_are_cleaned_and_dangerous_ones_passed_over() {
    assert_eq!(
        clean("./train//cat/1.png").as_deref(),
        Some("train/cat/1.png")
    );
    assert_eq!(clean("train/cat/").as_deref(), Some("train/cat"));
    for name in ["/etc/passwd", "../x.png", "a/../../b", "./", ""] {
        assert_eq!(clean(name), None, "{name}");
    }
}

/// A member: name, type, content, and target where it is a link.
type MemberOf<'a> = (&'a str, tar::EntryType, &'a [u8], &'a str);

fn archive(members: &[MemberOf]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, content, target) in members {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        bytes.extend(header.as_bytes());
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}

#[test]
fn links_inside_an_archive_are_the_files_that_they_lead_to() {
    use tar::EntryType::{Link, Regular, Symlink};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.tar.gz");
    let [first, second] = [1, 2].map(|seed| gray_png(1, 1, seed));
    // Names of the images in the order of the data set, with their pixels.
    let members: &[MemberOf] = &[
        ("./train/a/2.png", Symlink, b"", "../../pool/x.png"),
        ("./pool/x.png", Symlink, b"", "../train/b/1.png"),
        ("./train/b/1.png", Regular, &first, ""),
        ("./train/a/1.png", Link, b"", "./train/b/1.png"),
        ("./train/b/0.png", Regular, &second, ""),
        ("./train/a/0.png", Symlink, b"", ".././b//0.png"),
        ("./test/a/0.png", Link, b"", "train/a/2.png"),
        ("./test/b/0.png", Regular, &second, ""),
    ];
    put(&path, &gzip(&archive(members)));
    refused(&path, &["expected the folders train and test, found pool/"]);
    let mut members = members.to_vec();
    // Over a hidden link.
    members[0].3 = "../../.pool/x.png";
    members[1].0 = "./.pool/x.png";
    put(&path, &archive(&members));
    let set = load_path(&path).unwrap();
    assert_eq!(set.train.images.pixels(), [2, 1, 1, 2, 1]);
    assert_eq!(set.test.images.pixels(), [1, 2]);
    assert!(set.notes[0].starts_with("2 of 2 test images are duplicates of training images"));
    assert_eq!(set.notes.len(), 1);
}

#[test]
fn what_is_left_out_of_an_archive_is_named() {
    use tar::EntryType::{Directory, Fifo, GNUSparse, Link, Regular, Symlink};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.tar");
    let image = gray_png(2, 2, 0);
    let members: &[MemberOf] = &[
        ("./", Directory, b"", ""),
        ("a.png", Regular, &image, ""),
        ("b.png", Symlink, b"", "/etc/passwd"),
        ("c.png", Symlink, b"", "../a.png"),
        ("d.png", Link, b"", "nowhere.png"),
        ("pipe.png", Fifo, b"", ""),
        ("/etc/e.png", Regular, &image, ""),
        ("../f.png", Regular, &image, ""),
        ("g.png", Symlink, b"", "g.png"),
        (".hidden", Symlink, b"", "nowhere"),
    ];
    put(&path, &archive(members));
    let set = load_path(&path).unwrap();
    assert_eq!(set.train.images.len(), 1);
    let note = "7 files are left out of the data set: pipe.png (a pipe or a device), \
        /etc/e.png (a name that leads outside), ../f.png (a name that leads outside), \
        b.png (a link that leads outside) and 3 more";
    assert_eq!(set.notes, [note]);

    for (target, reason) in [
        ("../..", "leads outside"),
        ("x.png", "leads nowhere"),
        ("..", "to a folder"),
        ("sub", "to a folder"),
    ] {
        let link: MemberOf = ("in/l.png", Symlink, b"", target);
        let file: MemberOf = ("in/a.png", Regular, &image, "");
        let below: MemberOf = ("in/sub/.keep", Regular, b"", "");
        put(&path, &archive(&[link, file, below]));
        let notes = load_path(&path).unwrap().notes;
        assert!(notes[0].contains(reason), "{target}: {notes:?}");
    }
    put(&path, &archive(&[("a.png", GNUSparse, &image, "")]));
    refused(&path, &["set.tar/a.png", "found a sparse one"]);
}

/// Long names and attributes come from GNU and pax headers, in the ways that programs write them.
#[test]
fn long_names_and_attributes_are_read_and_held_against_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.tar");
    let image = gray_png(1, 1, 7);
    let long = format!("{}/{}.png", "x".repeat(150), "y".repeat(150));
    let pax = |pairs: &[(&str, &str)]| -> Vec<u8> {
        let record = |(key, value): &(&str, &str)| {
            let length = (1..).find(|n| format!("{n} {key}={value}\n").len() == *n);
            format!("{} {key}={value}\n", length.unwrap())
        };
        pairs.iter().map(record).collect::<String>().into_bytes()
    };
    use tar::EntryType::{GNULongLink, GNULongName, Link, Regular, XGlobalHeader, XHeader};
    let named = [long.as_bytes(), b"\0"].concat();
    let by_path = pax(&[("mtime", "1.5"), ("path", &long)]);
    let linked = pax(&[("linkpath", &long), ("comment", "two\nlines")]);
    let global = pax(&[("comment", "of all")]);
    let longer = "z".repeat(301) + ".png";
    let other = [longer.as_bytes(), b"\0"].concat();
    let sets: [&[MemberOf]; 2] = [
        &[
            ("x", GNULongName, &named, ""),
            ("cut", Regular, &image, ""),
            ("x", GNULongLink, &named, ""),
            ("z.png", Link, b"", "cut"),
        ],
        &[
            ("x", XGlobalHeader, &global, ""),
            ("x", XHeader, &by_path, ""),
            ("cut", Regular, &image, ""),
            ("x", XHeader, &linked, ""),
            ("x", GNULongName, &other, ""),
            ("z.png", Link, b"", "cut"),
        ],
    ];
    for members in sets {
        put(&path, &archive(members));
        let found = Store::archive(&path).unwrap().list().unwrap();
        assert_eq!((found.len(), found[0].name.as_str()), (2, long.as_str()));
        assert!(found[1].name.starts_with('z'));
    }
    // An attribute's size goes before the header's, which is 0 where it does not suffice.
    let size = pax(&[("size", &image.len().to_string())]);
    let mut packed = archive(&[("x", XHeader, &size, ""), ("a.png", Regular, &image, "")]);
    let mut header = tar::Header::new_ustar();
    header
        .as_mut_bytes()
        .copy_from_slice(&packed[2 * BLOCK..3 * BLOCK]);
    header.set_size(0);
    header.set_cksum();
    packed[2 * BLOCK..3 * BLOCK].copy_from_slice(header.as_bytes());
    put(&path, &packed);
    assert_eq!(load_path(&path).unwrap().train.images.pixels(), [7]);

    for kind in [GNULongName, GNULongLink, XHeader, XGlobalHeader] {
        let huge = vec![b'a'; (64 << 10) + 1];
        put(
            &path,
            &archive(&[("x", kind, &huge, ""), ("a.png", Regular, &image, "")]),
        );
        refused(
            &path,
            &["archive member 1", "at most 65536 bytes, found 65537"],
        );
    }
    for wrong in [
        "5 a=b\n",
        "99 path=x\n",
        "6 path\n",
        "x path=y\n",
        "9 size=x\n",
    ] {
        let members: &[MemberOf] = &[
            ("x", XHeader, wrong.as_bytes(), ""),
            ("a.png", Regular, &image, ""),
        ];
        put(&path, &archive(members));
        refused(&path, &["archive member 1", "attributes that are none"]);
    }
    // Parts of a sparse file, declared by attributes.
    let sparse = pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.name", "a.png")]);
    let members: &[MemberOf] = &[
        ("x", XHeader, &sparse, ""),
        ("GNUSparseFile.1/a.png", Regular, &image, ""),
    ];
    put(&path, &archive(members));
    refused(&path, &["found a sparse one"]);
}

#[test]
fn a_member_that_takes_for_ever_to_pass_over_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set.tar");
    let mut packed = archive(&[(".huge", tar::EntryType::Regular, b"", "")]);
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&packed[..BLOCK]);
    header.set_size((2 << 30) + 1);
    header.set_cksum();
    packed[..BLOCK].copy_from_slice(header.as_bytes());
    put(&path, &packed);
    refused(&path, &["set.tar/.huge", "found 2147483649", "take it out"]);
}

#[cfg(unix)]
#[test]
fn links_and_pipes_in_a_folder() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    put(at("set/train/a/1.png"), &gray_png(1, 1, 3));
    symlink("train", at("set/val")).unwrap();
    let set = load_path(&at("set")).unwrap();
    assert_eq!((set.train.clone(), set.notes.len()), (set.test, 1));

    // Each of a hundred links leads back, and none multiplies the others.
    put(at("flat/1.png"), &gray_png(1, 1, 3));
    for i in 0..100 {
        symlink(".", at(&format!("flat/l{i}"))).unwrap();
    }
    symlink("nowhere", at("flat/x.png")).unwrap();
    symlink("y.png", at("flat/y.png")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(at("flat/z.png"))
        .status();
    assert!(made.unwrap().success());
    let set = load_path(&at("flat")).unwrap();
    assert_eq!(set.train.images.len(), 1);
    assert!(
        set.notes[0].starts_with("103 files are left out"),
        "{:?}",
        set.notes
    );

    // Folders without a loop, each full of links to the next.
    for (name, next) in [("p", "../q"), ("q", "../r")] {
        for i in 0..100 {
            fs::create_dir_all(at(&format!("many/{name}"))).unwrap();
            symlink(next, at(&format!("many/{name}/l{i}"))).unwrap();
        }
    }
    put(at("many/r/1.png"), &gray_png(1, 1, 3));
    refused(&at("many"), &["at most 8 links to one folder"]);
}

#[test]
fn a_folder_that_is_too_deep_is_named() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path().join("1.png"), &gray_png(1, 1, 3));
    let deepest = "d/".repeat(DEPTH) + "2.png";
    put(dir.path().join(&deepest), &gray_png(1, 1, 3));
    let set = load_path(dir.path()).unwrap();
    assert_eq!(set.train.images.len(), 1);
    let words = "d/d (a folder too far inside)";
    assert!(set.notes[0].contains(words), "{:?}", set.notes);
}

#[test]
fn an_archive_cut_anywhere_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let image = gray_png(4, 4, 0);
    let whole = tar(&[("a.png", &image), ("b.png", &image)]);
    let (plain, zipped) = (dir.path().join("a.tar"), dir.path().join("a.tar.gz"));
    let end = whole.len() - 2 * BLOCK;
    for len in 0..=end {
        put(&plain, &whole[..len]);
        assert!(load_path(&plain).is_err(), "{len}");
    }
    refused(&plain, &["a.tar: end of archive: expected an end mark"]);
    put(&plain, &whole);
    assert_eq!(load_path(&plain).unwrap().name, "a");
    let whole = gzip(&whole);
    for len in 0..whole.len() {
        put(&zipped, &whole[..len]);
        assert!(load_path(&zipped).is_err(), "{len}");
    }
    let mut flipped = whole.clone();
    let checksum = whole.len() - 8;
    flipped[checksum] ^= 1;
    put(&zipped, &flipped);
    refused(
        &zipped,
        &["a.tar.gz: end of archive: expected a whole gzip stream"],
    );
}

#[test]
fn a_file_of_another_kind_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("set");
    for (bytes, hint) in [
        (&[0, 0, 8, 3, 0, 0][..], "give the folder"),
        (b"", "give a folder, a .tar"),
        (&[0x1f, 0x8b], "give a folder, a .tar"),
        (&[7; 4096], "give a folder, a .tar"),
    ] {
        put(&path, bytes);
        refused(&path, &["expected a tar archive", hint]);
    }
}
