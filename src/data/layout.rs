//! Layout of a folder of images: splits, classes and labels from the names of its files.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use super::class_names::class_name;
use super::dataset::{HELD_OUT, NO_TEST, TEST_ALONE, not_used};
use super::decode::KNOWN;
use super::entry::Entry;
use super::filename::{is_junk, is_list, require_images};
use crate::error::{Error, Result};

/// Name of the training split.
pub(super) const TRAIN: &str = "train";
/// Names of the test split; the first that exists is used.
pub(super) const TEST: [&str; 4] = ["test", "val", "valid", "validation"];

const CLASS_FOLDERS: &str =
    "labeled images go into train/<class>/ and test/<class>/, or into class folders alone";

/// Names of all images, in the order of the data set.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Layout {
    /// Sorted class names; empty for images without labels.
    pub(super) classes: Vec<String>,
    /// Training images, sorted by class, then by name.
    pub(super) train: Vec<Item>,
    /// Test images, sorted in the same way.
    pub(super) test: Vec<Item>,
    /// Validation images beside test images, sorted in the same way.
    pub(super) val: Vec<Item>,
    /// Things to be said about splits and classes.
    pub(super) notes: Vec<String>,
    /// Sentences about files that are not used.
    pub(super) left_out: Vec<String>,
}

/// Name and label of an image.
#[derive(Debug, PartialEq)]
pub(super) struct Item {
    /// Name in the store.
    pub(super) name: String,
    /// Class index; 0 without meaning if there are no classes.
    pub(super) label: usize,
}

impl Layout {
    /// A note of what becomes of two splits beside the training images.
    pub(super) fn note_of_held_out(test: &str, val: &str) -> String {
        format!("{test} is the test set, {val} the images that are {HELD_OUT}")
    }

    /// Derives splits and classes from a listing; `source` is the data set's path for messages.
    ///
    /// Images lie in `train/<class>/` with or without `test/<class>/` (`val/`, `valid/`, `validation/`); in class
    /// folders alone; or in any other tree, and are unlabeled then. Files that are no images are passed over.
    ///
    /// # Errors
    /// [`Error::Data`] if there are no images, a class is empty or in one split only, and for images beside
    /// splits.
    pub(super) fn of(source: &str, mut entries: Vec<Entry>) -> Result<Self> {
        entries.retain(|entry| !is_junk(&entry.name));
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        require_images(source, &entries)?;
        let others = entries
            .iter()
            .filter(|entry| !entry.is_folder && !entry.is_image);
        let others: Vec<&str> = others.map(|entry| entry.name.as_str()).collect();
        let note = passed_over(&others);
        let list = others.iter().find(|name| is_list(name));
        let list = list.map(|name| (*name).to_owned());
        entries.retain(|entry| entry.is_folder || entry.is_image);
        let top = top_folder(&entries).map_or(0, |top| top.len() + 1);
        let first = |entry: &Entry| parts(entry, top).first().copied().map(str::to_owned);
        let is_in_split = |entry: &Entry| {
            let name = first(entry).unwrap_or_default();
            is_split(&name) && (entry.is_folder || parts(entry, top).len() > 1)
        };
        let images = || entries.iter().filter(|entry| entry.is_image);
        let folders: BTreeSet<String> = images().filter_map(first).collect();
        let in_classes = images().all(|entry| parts(entry, top).len() == 2);
        // A class of vehicles may be called "train": one such name among several other folders that hold images.
        let called_so: Vec<&String> = folders.iter().filter(|name| is_split(name)).collect();
        let one_of_several = in_classes && called_so.len() == 1 && folders.len() > 2;
        let class = called_so.first().filter(|_| one_of_several);
        let class = class.map(|name| format!("{name}/ is a class, as the folders beside it are"));
        let mut layout = if images().any(is_in_split) && !one_of_several {
            Self::split(source, entries, top)?
        } else if in_classes && folders.len() > 1 {
            Self::classes_alone(source, entries, top)?
        } else {
            Self::unlabeled(entries, top)
        };
        if let Some(list) = list.filter(|_| layout.classes.is_empty()) {
            layout.notes.push(format!(
                "labels in {list} are read where it is named as data.source itself"
            ));
        }
        layout.notes.extend(class);
        layout.left_out.extend(note);
        Ok(layout)
    }

    /// The training images alone, without labels, and without remarks about splits and classes.
    pub(super) fn without_labels(mut self) -> Self {
        self.left_out
            .extend(not_used(self.test.len() + self.val.len()));
        self.train.iter_mut().for_each(|item| item.label = 0);
        Self {
            train: self.train,
            left_out: self.left_out,
            ..Self::default()
        }
    }

    /// Layout of images without labels, in one folder or in any tree of folders.
    fn unlabeled(entries: Vec<Entry>, top: usize) -> Self {
        let images = entries.into_iter().filter(|entry| entry.is_image);
        let images: Vec<Entry> = images.collect();
        let deep = images.iter().any(|entry| parts(entry, top).len() > 1);
        let note = "its folders are no classes: the images are taken without labels";
        let item = |entry: Entry| Item {
            name: entry.name,
            label: 0,
        };
        Self {
            train: images.into_iter().map(item).collect(),
            notes: deep.then(|| note.to_owned()).into_iter().collect(),
            ..Self::default()
        }
    }

    /// Layout of class folders without splits: all images are training images.
    fn classes_alone(source: &str, entries: Vec<Entry>, top: usize) -> Result<Self> {
        let mut classes = Classes::new();
        for entry in entries {
            let parts = parts(&entry, top);
            // A folder adds its class even without images, so that it is refused below.
            if let ([class], true) | ([class, _], false) = (&parts[..], entry.is_folder) {
                let images = classes.entry(class_name(class)).or_default();
                if entry.is_image {
                    images.push(entry.name);
                }
            }
        }
        require_no_empty_class(source, "", &classes)?;
        Ok(Self {
            classes: classes.keys().cloned().collect(),
            train: items(classes),
            notes: vec![
                "class folders without train/ and test/: all are training images (data.test_share, data.holdout)"
                    .to_owned(),
            ],
            ..Self::default()
        })
    }

    /// Layout of a training split, with or without others, of class folders or without labels.
    fn split(source: &str, entries: Vec<Entry>, top: usize) -> Result<Self> {
        let refuse = |problem: String, hint: &str| Err(Error::data(source, problem, hint));
        let mut splits: BTreeMap<String, Classes> = BTreeMap::new();
        let mut loose: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in entries {
            match (parts(&entry, top).as_slice(), entry.is_folder) {
                ([], _) => {}
                ([split, ..], is_folder)
                    if !is_split(split) || !is_folder && parts(&entry, top).len() == 1 =>
                {
                    if entry.is_image {
                        return refuse(
                            format!("expected the folders train and test, found {}", entry.name),
                            CLASS_FOLDERS,
                        );
                    }
                }
                ([split], _) => drop(splits.entry(named_split(split)).or_default()),
                ([split, _], false) => {
                    loose
                        .entry(named_split(split))
                        .or_default()
                        .push(entry.name);
                }
                // Images in folders inside a class are of that class.
                ([split, class, ..], _) => {
                    let classes = splits.entry(named_split(split)).or_default();
                    let images = classes.entry(class_name(class)).or_default();
                    if entry.is_image {
                        images.push(entry.name);
                    }
                }
            }
        }
        let left_out = take_unlabeled(&mut splits);
        let labeled = splits.values().any(|classes| !classes.is_empty());
        if let Some((split, names)) = loose.iter().next() {
            // Training images without labels, and nothing else.
            if !labeled && split == TRAIN {
                let item = |name: &String| Item {
                    name: name.clone(),
                    label: 0,
                };
                let other = loose.keys().find(|other| *other != TRAIN);
                let note = |name: &String| format!("{name}/ has no class folders and is not used");
                return Ok(Self {
                    train: names.iter().map(item).collect(),
                    left_out: other.map(note).into_iter().collect(),
                    ..Self::default()
                });
            }
            return refuse(
                format!(
                    "expected a class folder around each image, found {}",
                    names[0]
                ),
                "without labels, give the folder itself that holds the images",
            );
        }
        let mut layout = Self::labeled(source, splits)?;
        layout.left_out.extend(left_out);
        Ok(layout)
    }

    /// Layout of images with labels: their names by split and class, sorted.
    ///
    /// # Errors
    /// As [`Layout::of`].
    pub(super) fn labeled(source: &str, mut splits: BTreeMap<String, Classes>) -> Result<Self> {
        let mut notes = Vec::new();
        let train = take_train(&mut splits, &mut notes).unwrap_or_default();
        let mut others = TEST.into_iter().filter(|name| splits.contains_key(*name));
        let (test_name, val_name) = (others.next(), others.next());
        let mut take = |name: Option<&str>| {
            let classes = name.and_then(|name| splits.remove(name));
            classes
                .filter(|classes| !classes.is_empty())
                .unwrap_or_default()
        };
        let (test, val) = (take(test_name), take(val_name));
        if train.is_empty() {
            let other = test_name.unwrap_or(TEST[0]);
            return Err(Error::data(
                source,
                format!(
                    "expected training images of every class beside those of {other}, found none"
                ),
                "or name the part that is to be evaluated on itself",
            ));
        }
        require_no_empty_class(source, "train/", &train)?;
        let named = |name: Option<&str>| name.unwrap_or(TEST[0]).to_owned();
        for (name, split) in [(named(test_name), &test), (named(val_name), &val)] {
            require_no_empty_class(source, &format!("{name}/"), split)?;
            require_same_classes(source, &name, split, &train)?;
        }
        if let Some(name) = val_name.filter(|_| !val.is_empty()) {
            notes.push(Self::note_of_held_out(&named(test_name), name));
        }
        if test.is_empty() && notes.is_empty() {
            notes.push(NO_TEST.to_owned());
        }
        Ok(Self {
            classes: train.keys().cloned().collect(),
            train: items(train),
            test: items(test),
            val: items(val),
            notes,
            left_out: Vec::new(),
        })
    }
}

/// Takes out the training images; images for tests and nothing else in their place, which is noted: they are what there is to
/// evaluate on.
pub(super) fn take_train<K: Borrow<str> + Ord, V>(
    splits: &mut BTreeMap<K, V>,
    notes: &mut Vec<String>,
) -> Option<V> {
    if splits.len() != 1 || splits.contains_key(TRAIN) {
        return splits.remove(TRAIN);
    }
    notes.push(TEST_ALONE.to_owned());
    splits.pop_first().map(|(_, images)| images)
}

/// The split that a folder or a word in a file's name is called after, in any case of letters.
pub(super) fn split_of_name(name: &str) -> Option<&'static str> {
    match name.to_lowercase().as_str() {
        "train" | "training" => Some(TRAIN),
        "testing" => Some(TEST[0]),
        other => TEST.into_iter().find(|known| *known == other),
    }
}

/// Whether a folder has the name of a split.
fn is_split(name: &str) -> bool {
    split_of_name(name).is_some()
}

fn named_split(folder: &str) -> String {
    split_of_name(folder).unwrap_or(folder).to_owned()
}

/// Takes out splits whose images have no classes but one folder around all, `test/images/` as Tiny ImageNet has it; returns a
/// sentence about each.
fn take_unlabeled(splits: &mut BTreeMap<String, Classes>) -> Vec<String> {
    const AROUND_ALL: &str = "images";
    let in_train = |splits: &BTreeMap<String, Classes>| {
        let train = splits.get(TRAIN);
        train.is_none_or(|train| train.contains_key(AROUND_ALL))
    };
    if in_train(splits) {
        return Vec::new();
    }
    let unlabeled = splits.extract_if(.., |_, classes| {
        classes.len() == 1 && classes.contains_key(AROUND_ALL)
    });
    unlabeled
        .map(|(name, _)| format!("{name}/{AROUND_ALL}/ has no class folders and is not used"))
        .collect()
}

/// A sentence about files that are no images.
fn passed_over(others: &[&str]) -> Option<String> {
    let named = others
        .iter()
        .take(3)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match others.len() {
        0 => None,
        1 => Some(format!("1 file is no image and is passed over: {named}")),
        count @ 2..=3 => Some(format!(
            "{count} files are no images and are passed over: {named}"
        )),
        count => Some(format!(
            "{count} files are no images and are passed over: {named}, …"
        )),
    }
}

/// Refuses a class without images; `split` is the folder's name with a slash.
fn require_no_empty_class(source: &str, split: &str, classes: &Classes) -> Result<()> {
    match classes.iter().find(|(_, images)| images.is_empty()) {
        None => Ok(()),
        Some((class, _)) => Err(Error::data(
            source,
            format!("expected images in {split}{class} ({KNOWN}), found none"),
            "remove the folder, or put images into it",
        )),
    }
}

/// Refuses a test split, if there is one, whose classes are not those of the training split.
fn require_same_classes(source: &str, name: &str, split: &Classes, train: &Classes) -> Result<()> {
    let lacks = |has: &Classes, other: &Classes| {
        has.keys()
            .find(|class| !other.contains_key(*class))
            .cloned()
    };
    if split.is_empty() {
        return Ok(());
    }
    let problem = match (lacks(train, split), lacks(split, train)) {
        (Some(class), _) => format!("found {class} in train and not in {name}"),
        (None, Some(class)) => format!("found {class} in {name} and not in train"),
        (None, None) => return Ok(()),
    };
    Err(Error::data(
        source,
        format!("expected the same classes in train and {name}, {problem}"),
        "training and test images of every class are needed",
    ))
}

/// Parts of a name below the top folder, whose length with its slash is `top`. The top folder
/// itself has none.
fn parts(entry: &Entry, top: usize) -> Vec<&str> {
    let below = entry.name.get(top..).unwrap_or_default();
    below.split('/').filter(|part| !part.is_empty()).collect()
}

/// Image names by class, both sorted because the entries were.
pub(super) type Classes = BTreeMap<String, Vec<String>>;

fn items(classes: Classes) -> Vec<Item> {
    let numbered = classes.into_values().enumerate();
    numbered
        .flat_map(|(label, names)| names.into_iter().map(move |name| Item { name, label }))
        .collect()
}

/// The only folder at the top level, if everything is in it and it is not a split.
fn top_folder(entries: &[Entry]) -> Option<String> {
    let top = entries.first()?.name.split('/').next()?;
    let inside = |entry: &Entry| match entry.name.strip_prefix(top) {
        Some("") => entry.is_folder,
        Some(rest) => rest.starts_with('/'),
        None => false,
    };
    (!is_split(top) && entries.iter().all(inside)).then(|| top.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout of these names; one that ends in `/` is a folder.
    fn layout(names: &[&str]) -> Result<Layout> {
        let entry = |name: &&str| Entry {
            name: name.trim_end_matches('/').into(),
            is_folder: name.ends_with('/'),
            is_own: false,
            is_image: super::super::filename::is_image(name),
        };
        Layout::of("set", names.iter().map(entry).collect())
    }

    #[test]
    fn classes_and_images_are_sorted_whatever_the_order_and_the_top_folder() {
        let plain = layout(&[
            "train/dog/b.JPG",
            "test/cat/1.png",
            "train/dog/a.jpeg",
            "test/dog/2.Png",
            "train/cat-2/",
            "train/cat/9.jpg",
            "train/cat-2/1.png",
            "test/cat-2/0.png",
        ])
        .unwrap();
        assert_eq!(plain.classes, ["cat", "cat-2", "dog"]);
        let names = |items: &[Item]| -> Vec<(String, usize)> {
            items
                .iter()
                .map(|item| (item.name.clone(), item.label))
                .collect()
        };
        let expected = [
            ("train/cat/9.jpg", 0),
            ("train/cat-2/1.png", 1),
            ("train/dog/a.jpeg", 2),
            ("train/dog/b.JPG", 2),
        ];
        assert_eq!(
            names(&plain.train),
            expected.map(|(name, label)| (name.into(), label))
        );
        let below = layout(&[
            "top/",
            "top/train/a/1.png",
            "top/test/a/1.png",
            "top/test/",
            "top/.git/x",
        ])
        .unwrap();
        assert_eq!(names(&below.train), [("top/train/a/1.png".into(), 0)]);
    }

    #[test]
    fn junk_and_hidden_files_are_passed_over() {
        let clean = ["train/a/1.png", "test/a/1.png"];
        let messy = [
            "train/a/1.png",
            "test/a/1.png",
            "train/a/Thumbs.db",
            "train/README.txt",
            "LICENSE",
            "train/a/.DS_Store",
            "train/a/._1.png",
            "__MACOSX/train/a/1.png",
            ".cache/x.bin",
            "desktop.ini",
            "readme.md",
        ];
        assert_eq!(layout(&messy).unwrap(), layout(&clean).unwrap());
    }

    #[test]
    fn the_test_folder_goes_before_the_validation_folder() {
        for (extra, expected) in [
            ("valid", "valid/a/1.png"),
            ("val", "val/a/1.png"),
            ("test", "test/a/1.png"),
        ] {
            let mut names = vec!["train/a/1.png".to_string(), "valid/a/1.png".into()];
            if extra != "valid" {
                names.push("val/a/1.png".into());
            }
            if extra == "test" {
                names.push("test/a/1.png".into());
            }
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            assert_eq!(layout(&names).unwrap().test[0].name, expected);
        }
    }

    #[test]
    fn a_flat_folder_has_no_classes() {
        for names in [["b.png", "a.jpg"], ["x/b.png", "x/a.jpg"]] {
            let flat = layout(&names).unwrap();
            assert_eq!(
                (flat.classes.len(), flat.train.len(), flat.test.len()),
                (0, 2, 0)
            );
            assert!(flat.train[0].name.ends_with("a.jpg"));
        }
    }

    #[test]
    fn classes_come_from_folders_with_and_without_splits() {
        let classes = |names: &[&str]| {
            let found = layout(names).unwrap();
            (
                found.classes,
                found.train.len(),
                found.test.len(),
                found.val.len(),
            )
        };
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let (cats, none) = (own(&["cat", "dog"]), own(&[]));
        for (names, expected) in [
            (&["cat/1.png", "dog/1.png"][..], (cats.clone(), 2, 0, 0)),
            (&["set/cat/1.png", "set/dog/1.png"], (cats.clone(), 2, 0, 0)),
            (
                &["train/cat/1.png", "train/dog/1.png"],
                (cats.clone(), 2, 0, 0),
            ),
            (
                &[
                    "train/cat/a/1.png",
                    "train/dog/1.png",
                    "test/cat/1.png",
                    "test/dog/1.png",
                ],
                (cats.clone(), 2, 2, 0),
            ),
            (
                &[
                    "train/cat/1.png",
                    "train/dog/1.png",
                    "val/cat/1.png",
                    "val/dog/1.png",
                    "test/cat/1.png",
                    "test/dog/1.png",
                ],
                (cats.clone(), 2, 2, 2),
            ),
            // One folder is no two classes, and no class has folders of its own.
            (&["cat/1.png", "cat/2.png"], (none.clone(), 2, 0, 0)),
            (
                &["2021/05/1.png", "2022/06/a/2.png"],
                (none.clone(), 2, 0, 0),
            ),
            (&["a.png", "x/b.png"], (none.clone(), 2, 0, 0)),
            (&["train/1.png", "train/2.png"], (none.clone(), 2, 0, 0)),
            // Names of splits as people write them.
            (
                &[
                    "Train/cat/1.png",
                    "Train/dog/1.png",
                    "TEST/cat/1.png",
                    "TEST/dog/1.png",
                ],
                (cats.clone(), 2, 2, 0),
            ),
            (
                &[
                    "Training/cat/1.png",
                    "Training/dog/1.png",
                    "Testing/cat/1.png",
                    "Testing/dog/1.png",
                ],
                (cats.clone(), 2, 2, 0),
            ),
            // Images to evaluate on, and nothing else.
            (
                &["test/cat/1.png", "test/dog/1.png"],
                (cats.clone(), 2, 0, 0),
            ),
            // Tiny ImageNet, whose validation images were moved into class folders.
            (
                &[
                    "train/cat/images/1.png",
                    "train/dog/images/1.png",
                    "val/cat/1.png",
                    "val/dog/1.png",
                    "val/val_annotations.txt",
                    "test/images/1.png",
                ],
                (cats.clone(), 2, 2, 0),
            ),
            // A vehicle.
            (
                &["bus/1.png", "car/1.png", "train/1.png"],
                (own(&["bus", "car", "train"]), 3, 0, 0),
            ),
        ] {
            assert_eq!(classes(names), expected, "{names:?}");
        }
    }

    #[test]
    fn classes_are_the_same_however_their_names_are_composed() {
        let names = [
            "train/caf\u{e9}/1.png",
            "test/cafe\u{301}/1.png",
            "train/b/2.png",
            "test/b/2.png",
        ];
        let found = layout(&names).unwrap();
        assert_eq!(found.classes, ["b", "caf\u{e9}"]);
        // Files keep their names.
        assert_eq!(found.test[1].name, names[1]);
        let alone = layout(&["caf\u{e9}/1.png", "cafe\u{301}/2.png", "b/3.png"]).unwrap();
        assert_eq!((alone.classes, alone.train.len()), (found.classes, 3));
    }

    #[test]
    fn without_labels_nothing_is_said_of_classes() {
        let names = [
            "train/a/1.png",
            "train/b/2.png",
            "test/a/3.png",
            "test/b/4.png",
            "x.csv",
        ];
        let all = layout(&names).unwrap().without_labels();
        assert_eq!(
            (all.classes.len(), all.train.len(), all.test.len()),
            (0, 2, 0)
        );
        assert_eq!(all.notes, [""; 0]);
        assert_eq!(
            all.left_out,
            [
                "1 file is no image and is passed over: x.csv",
                "2 test images are not used"
            ]
        );
        let alone = layout(&["a/1.png", "b/2.png"]).unwrap().without_labels();
        assert_eq!((alone.notes.len(), alone.left_out.len()), (0, 0));
    }

    #[test]
    fn what_was_decided_is_said() {
        let notes = |names: &[&str]| {
            let found = layout(names).unwrap();
            let all = found.notes.into_iter().chain(found.left_out);
            all.collect::<Vec<_>>().join("; ")
        };
        let both = ["train/a/1.png", "val/a/1.png", "test/a/1.png"];
        assert!(notes(&both).contains("val the images that are held out"));
        assert!(notes(&["cat/1.png", "dog/1.png"]).contains("data.test_share"));
        assert!(notes(&["a/b/1.png", "c/2.png"]).contains("without labels"));
        let others = [
            "train/a/1.png",
            "train/a/1.txt",
            "test/a/1.png",
            "labels.csv",
        ];
        assert!(notes(&others).contains("2 files are no images and are passed over: labels.csv"));
        assert_eq!(notes(&["a.png", "b.png"]), "");
    }

    #[test]
    fn what_cannot_be_used_is_named_with_a_hint() {
        let cases: [(&[&str], &str); 11] = [
            (&[], "found none"),
            (&["train/", "train/a/"], "found none"),
            (&["README.md", ".x.png"], "found none"),
            (&["notes.odt"], "found notes.odt, which is none"),
            (&["a.png", "a.png"], "found a.png twice"),
            (
                &["train/1.png", "test/a/2.png"],
                "class folder around each image, found train/1.png",
            ),
            (
                &["train/a/1.png", "b.png"],
                "expected the folders train and test, found b.png",
            ),
            (
                &["val/a/1.png", "test/a/1.png"],
                "expected training images of every class beside those of test, found none",
            ),
            (
                &["train/a/1.png", "test/a/1.png", "train/b/", "test/b/1.png"],
                "images in train/b ",
            ),
            (
                &["train/a/1.png", "test/a/1.png", "train/b/1.png"],
                "found b in train and not in test",
            ),
            (
                &["train/a/1.png", "val/a/1.png", "val/b/1.png"],
                "found b in val and not in train",
            ),
        ];
        for (names, words) in cases {
            let error = layout(names).unwrap_err();
            assert!(error.to_string().contains(words), "{names:?}: {error}");
            assert!(error.hint().is_some());
        }
        for (name, hint) in [
            ("data_batch_1", "Python version"),
            ("train-images-idx3-ubyte", "IDX"),
            ("a.zip", "unpack"),
            ("a.npy", "NumPy"),
            ("labels.csv", "list of images"),
        ] {
            let error = layout(&[name]).unwrap_err();
            assert!(error.hint().unwrap().contains(hint), "{name}: {error}");
        }
    }
}
