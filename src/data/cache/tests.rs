use std::io::Write as _;

use super::*;

/// A set of four images of 1 × 2 pixels, and the place of its file.
fn slot() -> (tempfile::TempDir, Slot) {
    let folder = tempfile::tempdir().expect("a folder");
    let slot = Slot {
        folder: folder.path().join("cache"),
        name: "set-0123".to_owned(),
        source: "/data/set".to_owned(),
    };
    (folder, slot)
}

fn seen(place: usize) -> Seen {
    Seen {
        place,
        found: [1, 2],
        channels: 1,
        scaled_down: place == 1,
        turned: false,
    }
}

fn part(slot: &Slot, shape: Option<[usize; 3]>) -> Part {
    let begun = match shape {
        Some(shape) => slot.begin(shape),
        None => slot.resume(5),
    };
    match begun.expect("a folder that can be written") {
        Begun::Part(part) => *part,
        Begun::Elsewhere(_) => panic!("made by nobody"),
    }
}

fn dataset(values: Block, shape: [usize; 3]) -> Dataset {
    let block = Arc::new(values);
    let files = Arc::new(Files {
        base: PathBuf::from("/set"),
        names: [0, 1, 2, 3]
            .map(|i| PathBuf::from(format!("{i}.png")))
            .to_vec(),
    });
    let split = |places: &[usize], labels: &[usize]| Split {
        images: Images::stored(block.clone(), places.iter().copied(), shape)
            .read_from(files.clone()),
        labels: labels.to_vec(),
    };
    Dataset {
        name: "set".to_owned(),
        classes: vec!["cat".to_owned(), "dog".to_owned()],
        train: split(&[2, 0], &[0, 1]),
        test: split(&[3], &[1]),
        val: Some(split(&[1], &[0])),
        notes: vec!["1 file is no image".to_owned()],
        reading: Reading::default(),
    }
}

const GRAY: [usize; 3] = [1, 1, 2];

/// Four images in a file that is begun and saved.
fn begun(slot: &Slot) -> Part {
    let mut part = part(slot, Some(GRAY));
    for place in 0..4 {
        part.add(seen(place), &[place as u8, 10]).expect("a disk");
    }
    part.save().expect("a disk");
    part
}

fn finished(slot: &Slot) -> Dataset {
    let part = begun(slot);
    let dataset = dataset(part.map().expect("a file"), GRAY);
    part.finish(&dataset).expect("a disk");
    dataset
}

#[test]
fn a_data_set_is_what_it_was() {
    let (_folder, slot) = slot();
    assert!(slot.load().is_none() && !slot.is_begun());
    let kept = finished(&slot);
    assert_eq!(kept.train.images.pixels(), [2, 10, 0, 10]);
    assert_eq!(slot.load().expect("a whole file"), kept);
    // Nothing else is left, and whoever wanted to make it too gets it.
    assert_eq!(fs::read_dir(&slot.folder).expect("a folder").count(), 1);
    match slot.begin(GRAY).expect("a folder") {
        Begun::Elsewhere(found) => assert_eq!(*found, kept),
        Begun::Part(_) => panic!("made twice"),
    }
}

#[test]
fn what_a_killed_process_left_is_continued() {
    let (_folder, slot) = slot();
    drop(begun(&slot));
    assert!(slot.is_begun());
    // Values without a line, and a line without its end.
    let append = |end: &str, text: &str| {
        let mut file = files::open_own(&slot.path(end)).expect("a file");
        file.write_all(text.as_bytes()).expect("a disk");
    };
    append(PART, "abc");
    append(LIST, "{\"shape\":[1,1,2],\"images\":[{\"pla");
    let mut again = part(&slot, None);
    assert_eq!(again.shape(), GRAY);
    assert_eq!(again.seen(), [0, 1, 2, 3].map(seen));
    again.add(seen(4), &[4, 10]).expect("a disk");
    again.save().expect("a disk");
    assert_eq!(&again.map().expect("a file")[6..], [3, 10, 4, 10]);
    drop(again);
    assert_eq!(part(&slot, None).seen().len(), 5);
    // Lines of values that are not there.
    let file = files::open_own(&slot.path(PART)).expect("a file");
    file.set_len(7).expect("a disk");
    assert_eq!(part(&slot, None).seen().len(), 0);
    // Begun anew.
    drop(begun(&slot));
    assert!(part(&slot, Some(GRAY)).seen().is_empty());
}

#[test]
fn a_list_that_does_not_hold_is_not_continued() {
    let (_folder, slot) = slot();
    let mut both = begun(&slot);
    both.add(seen(4), &[4, 10]).expect("a disk");
    both.save().expect("a disk");
    drop(both);
    let [list, values] = [LIST, PART].map(|end| fs::read(slot.path(end)).expect("a file"));
    let continued = |list: &[u8], values: &[u8]| {
        fs::write(slot.path(LIST), list).expect("a disk");
        fs::write(slot.path(PART), values).expect("a disk");
        let part = part(&slot, None);
        let left = [LIST, PART].map(|end| fs::read(slot.path(end)).expect("a file"));
        (part.seen().len(), left.map(|content| content.len()))
    };
    let whole = (5, [list.len(), 10]);
    assert_eq!(continued(&list, &values), whole);
    // What is behind a line that does not hold does not count either.
    let first = list.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
    for (value, expected) in [(9, (4, [first, 8])), (7, (0, [0, 0]))] {
        let mut values = values.clone();
        values[value] ^= 1;
        assert_eq!(continued(&list, &values), expected);
    }
    let no_text = [&list[..first], b"\xff\n"].concat();
    assert_eq!(continued(&no_text, &values), (4, [first, 8]));
    let text = std::str::from_utf8(&list[..first]).expect("JSON");
    for (from, to, is_possible) in [
        ("\"place\":3", "\"place\":5", false),
        ("\"place\":3", "\"place\":1", false),
        ("[1,1,2]", "[0,1,2]", false),
        ("[1,1,2]", "[9223372036854775807,1,2]", false),
        ("[1,1,2]", "[1,1,9]", false),
        ("[1,1,2]", "[1,1,1]", true),
        ("\"place\":3", "\"place\":4", true),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_eq!(continued(changed.as_bytes(), &values).0, 0, "{to}");
        // With a checksum of its own.
        let changed = changed[SUM..].trim_end();
        let length = if to == "[1,1,1]" { 4 } else { 8 };
        let sum = files::checksum([changed.as_bytes(), &values[..length]]);
        let found = continued(format!("{sum}{changed}\n").as_bytes(), &values);
        assert_eq!(found.0, if is_possible { 4 } else { 0 }, "{to}");
    }
}

#[cfg(unix)]
#[test]
fn what_cannot_be_written_is_there_still() {
    let (_folder, slot) = slot();
    // Another file in the place of the one that takes the colour images.
    let mut gray = begun(&slot);
    gray.add(seen(4), &[4, 10]).expect("a disk");
    fs::remove_file(slot.path(PART)).expect("a file");
    fs::create_dir(slot.path(PART)).expect("a disk");
    gray.make_rgb().expect_err("a folder in its place");
    assert_eq!(gray.shape(), GRAY);
    let values = gray.values().expect("memory");
    assert_eq!(values, [0, 10, 1, 10, 2, 10, 3, 10, 4, 10]);
    fs::remove_dir(slot.path(PART)).expect("a folder");
    gray.remove();
    // And in the place of the whole one.
    fs::create_dir(slot.path(WHOLE)).expect("a disk");
    let part = begun(&slot);
    let dataset = dataset(part.map().expect("a file"), GRAY);
    part.finish(&dataset).expect_err("a folder in its place");
    assert_eq!(dataset.train.images.pixels(), [2, 10, 0, 10]);
    assert_eq!(fs::read_dir(&slot.folder).expect("a folder").count(), 1);
}

#[test]
fn gray_images_become_colour_ones() {
    let (_folder, slot) = slot();
    let mut gray = begun(&slot);
    gray.make_rgb().expect("a disk");
    gray.add(seen(4), &[1, 2, 3, 4, 5, 6]).expect("a disk");
    gray.save().expect("a disk");
    drop(gray);
    let colour = part(&slot, None);
    assert_eq!((colour.shape(), colour.seen().len()), ([3, 1, 2], 5));
    let values = colour.map().expect("a file");
    assert_eq!(values[6..12], [1, 10, 1, 10, 1, 10]);
    assert_eq!(values[24..], [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_damaged_file_is_none() {
    let (_folder, slot) = slot();
    finished(&slot);
    let path = slot.path(WHOLE);
    let good = fs::read(&path).expect("a file");
    let with = |content: &[u8]| {
        fs::write(&path, content).expect("a disk");
        slot.load()
    };
    assert!(with(&good).is_some());
    for at in [
        0,
        7,
        8,
        20,
        good.len() - 20,
        good.len() - 16,
        good.len() - 9,
        good.len() - 1,
    ] {
        let mut bad = good.clone();
        bad[at] ^= 0x11;
        assert!(with(&bad).is_none(), "byte {at}");
    }
    for length in [0, 5, 16, good.len() - 1] {
        assert!(with(&good[..length]).is_none(), "{length} bytes");
    }
    // Descriptions of something else, whole in themselves.
    let (values, text) = good[..good.len() - SUM - 16].split_at(8);
    let text = String::from_utf8_lossy(text).into_owned();
    for (from, to) in [
        ("\"images\":[2,0]", "\"images\":[2,9]"),
        ("[1,1,2]", "[0,1,2]"),
    ] {
        let text = text.replace(from, to);
        let (sum, length) = (files::checksum([text.as_bytes()]), text.len() as u64);
        let end = [sum.as_bytes(), &length.to_le_bytes(), MARK].concat();
        let whole = [values, text.as_bytes(), &end].concat();
        assert!(with(&whole).is_none(), "{to}");
    }
}

#[test]
fn files_are_listed_and_removed_unless_they_are_being_made() {
    let (folder, slot) = slot();
    assert!(cached_files(&slot.folder).expect("none").is_empty());
    finished(&slot);
    let other = Slot {
        name: "other-45".to_owned(),
        source: String::new(),
        folder: slot.folder.clone(),
    };
    let being_made = begun(&other);
    fs::write(slot.folder.join("notes.txt"), "of somebody").expect("a disk");
    let files = cached_files(&slot.folder).expect("a folder");
    let sources: Vec<_> = files.iter().map(|file| file.source.as_deref()).collect();
    assert_eq!(sources, [None, Some("/data/set")]);
    assert_eq!(files[0].bytes, 8);
    assert!(!remove_cached(&files[0]).expect("a folder"));
    drop(being_made);
    assert!(
        files
            .iter()
            .all(|file| remove_cached(file).expect("a folder"))
    );
    let left = fs::read_dir(folder.path().join("cache")).expect("a folder");
    let left: Vec<_> = left.map(|entry| entry.expect("one").file_name()).collect();
    assert_eq!(left, ["notes.txt"]);
}
