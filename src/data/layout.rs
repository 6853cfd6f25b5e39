//! Layout of a folder of images: splits, classes and labels from the names of its files.

use std::collections::BTreeMap;

use super::entry::Entry;
use super::filename::{check_files, is_junk};
use crate::error::{Error, Result};

/// Names of the test split; the first that exists is used.
const TEST: [&str; 3] = ["test", "val", "valid"];

const CLASS_FOLDERS: &str = "labeled images go into train/<class>/ and test/<class>/";

/// Names of all images, in the order of the data set.
#[derive(Debug, PartialEq)]
pub(super) struct Layout {
    /// Sorted class names; empty for a flat folder.
    pub(super) classes: Vec<String>,
    /// Training images, sorted by class, then by name.
    pub(super) train: Vec<Item>,
    /// Test images, sorted in the same way.
    pub(super) test: Vec<Item>,
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
    /// Derives splits and classes from a listing; `source` is the data set's path for messages.
    ///
    /// # Errors
    /// [`Error::Data`] if there are no images, a file is not an image, a class is empty or in one
    /// split only, or the folders are not `train/<class>/` and `test/<class>/`.
    pub(super) fn of(source: &str, mut entries: Vec<Entry>) -> Result<Self> {
        entries.retain(|entry| !is_junk(&entry.name));
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        check_files(source, &entries)?;
        let top = top_folder(&entries).map_or(0, |top| top.len() + 1);
        let is_loose = |entry: &&Entry| !entry.is_folder && parts(entry, top).len() == 1;
        match entries.iter().find(is_loose) {
            Some(_) => Self::flat(source, entries, top),
            None => Self::labeled(source, entries, top),
        }
    }

    /// Layout of a flat folder: all images in one folder, unlabeled.
    fn flat(source: &str, mut entries: Vec<Entry>, top: usize) -> Result<Self> {
        entries.retain(|entry| !entry.is_folder);
        let (loose, deep): (Vec<Entry>, Vec<Entry>) = entries
            .into_iter()
            .partition(|entry| parts(entry, top).len() == 1);
        if let (Some(loose), Some(deep)) = (loose.first(), deep.first()) {
            return Err(Error::data(
                source,
                format!(
                    "expected images either in class folders or all in one, found {} and {}",
                    loose.name, deep.name
                ),
                CLASS_FOLDERS,
            ));
        }
        let item = |entry: Entry| Item {
            name: entry.name,
            label: 0,
        };
        Ok(Self {
            classes: Vec::new(),
            train: loose.into_iter().map(item).collect(),
            test: Vec::new(),
        })
    }

    /// Layout of class folders in a training and a test folder.
    fn labeled(source: &str, entries: Vec<Entry>, top: usize) -> Result<Self> {
        let refuse = |problem: String, hint: &str| Err(Error::data(source, problem, hint));
        let mut splits: BTreeMap<String, Classes> = BTreeMap::new();
        for entry in entries {
            let (split, class) = match (parts(&entry, top).as_slice(), entry.is_folder) {
                ([], _) => continue,
                ([split, ..], _) if *split != "train" && !TEST.contains(split) => {
                    return refuse(
                        format!("expected the folders train and test, found {split}"),
                        CLASS_FOLDERS,
                    );
                }
                ([split, class, _], false) | ([split, class, ..], true) => {
                    (split.to_string(), Some(class.to_string()))
                }
                ([split], _) => (split.to_string(), None),
                // A folder train/ alone, given as the data set, would be flat; here its images have
                // no class.
                ([_, _], false) => {
                    return refuse(
                        format!(
                            "expected a class folder around each image, found {}",
                            entry.name
                        ),
                        "without labels, give the folder itself that holds the images",
                    );
                }
                (_, false) => {
                    return refuse(
                        format!(
                            "expected images in train/<class>/ and test/<class>/, found {}",
                            entry.name
                        ),
                        "classes have no folders inside",
                    );
                }
            };
            let classes = splits.entry(split).or_default();
            // A folder adds its class even without images, so that it is refused below.
            if let Some(class) = class {
                let images = classes.entry(class).or_default();
                if !entry.is_folder {
                    images.push(entry.name);
                }
            }
        }
        let train = splits.remove("train").unwrap_or_default();
        let test_name = TEST
            .into_iter()
            .find(|name| splits.contains_key(*name))
            .unwrap_or(TEST[0]);
        let test = splits.remove(test_name).unwrap_or_default();
        check_classes(source, ("train", &train), (test_name, &test))?;
        check_classes(source, (test_name, &test), ("train", &train))?;
        Ok(Self {
            classes: train.keys().cloned().collect(),
            train: items(train),
            test: items(test),
        })
    }
}

/// Refuses a split without images, a class without images, and a class that the other split lacks.
fn check_classes(
    source: &str,
    (name, split): (&str, &Classes),
    (other_name, other): (&str, &Classes),
) -> Result<()> {
    if split.is_empty() {
        return Err(Error::data(
            source,
            format!("expected images in {name}/<class>/ as in {other_name}/, found none"),
            "training and test images of every class are needed",
        ));
    }
    if let Some((class, _)) = split.iter().find(|(_, images)| images.is_empty()) {
        return Err(Error::data(
            source,
            format!("expected PNG or JPEG images in {name}/{class}, found none"),
            "remove the folder, or put images into it",
        ));
    }
    // An empty other split is refused by its own call.
    match split
        .keys()
        .find(|class| !other.is_empty() && !other.contains_key(*class))
    {
        None => Ok(()),
        Some(class) => Err(Error::data(
            source,
            format!(
                "expected the same classes in train and test, found {class} in {name} and not in {other_name}"
            ),
            "training and test images of every class are needed",
        )),
    }
}

/// Parts of a name below the top folder, whose length with its slash is `top`. The top folder
/// itself has none.
fn parts(entry: &Entry, top: usize) -> Vec<&str> {
    let below = entry.name.get(top..).unwrap_or_default();
    below.split('/').filter(|part| !part.is_empty()).collect()
}

/// Image names by class, both sorted because the entries were.
type Classes = BTreeMap<String, Vec<String>>;

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
    let is_split = top == "train" || TEST.contains(&top);
    (!is_split && entries.iter().all(inside)).then(|| top.to_string())
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
    fn what_cannot_be_used_is_named_with_a_hint() {
        let cases: [(&[&str], &str); 18] = [
            (&[], "expected PNG or JPEG images, found none"),
            (
                &["train/", "train/a/"],
                "expected PNG or JPEG images, found none",
            ),
            (
                &["README.md", ".x.png"],
                "expected PNG or JPEG images, found none",
            ),
            (
                &["train/a/1.png", "train/a/1.txt", "test/a/1.png"],
                "found train/a/1.txt",
            ),
            (&["a.png", "b.gif"], "found b.gif"),
            (&["notes.odt"], "found notes.odt"),
            (&["a.png", "png"], "found png"),
            (&["a.png", "a.png"], "found a.png twice"),
            (&["a.png", "x/b.png"], "found a.png and x/b.png"),
            (
                &["train/1.png", "test/2.png"],
                "class folder around each image, found test/2.png",
            ),
            (
                &["train/1.png"],
                "class folder around each image, found train/1.png",
            ),
            (
                &["cat/1.png", "dog/1.png"],
                "expected the folders train and test, found cat",
            ),
            (
                &["train/a/b/1.png", "test/a/1.png"],
                "found train/a/b/1.png",
            ),
            (
                &["train/a/1.png"],
                "expected images in test/<class>/ as in train/, found none",
            ),
            (
                &["val/a/1.png"],
                "expected images in train/<class>/ as in val/, found none",
            ),
            (
                &["train/a/1.png", "test/a/1.png", "train/b/", "test/b/1.png"],
                "images in train/b, found none",
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
            ("a.webp", "convert"),
            ("labels.csv", "move it out"),
        ] {
            assert!(
                layout(&[name, "a.png"])
                    .unwrap_err()
                    .hint()
                    .unwrap()
                    .contains(hint),
                "{name}"
            );
        }
    }
}
