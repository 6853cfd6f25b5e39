//! Splits and classes of images whose labels stand in files or columns, not in the names of folders.

use std::collections::{BTreeMap, BTreeSet};

use super::class_names::class_name;
use super::dataset::{NO_TEST, TEST_ALONE};
use super::layout::{Item, Layout, TEST, TRAIN, split_of_name, take_train};
use crate::error::{Error, Result};

/// Label of an image as it was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    /// Place in the list of classes.
    Number(u64),
    /// Name of the class.
    Text(String),
}

impl Label {
    /// The label in a text: a number, or the name of a class; none in an empty text and for a negative number, which
    /// stands for an unknown label.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        match (text.parse::<u64>(), text.parse::<i64>()) {
            _ if text.is_empty() => None,
            (Ok(number), _) => Some(Self::Number(number)),
            (_, Ok(_)) => None,
            _ => Some(Self::Text(class_name(text))),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// An image that was listed.
pub(super) struct Sample {
    /// Name that no other sample has.
    pub(super) name: String,
    /// Its label, where there is one.
    pub(super) label: Option<Label>,
}

/// Samples by the name of their split.
pub(super) type Splits = BTreeMap<&'static str, Vec<Sample>>;

/// Name of the split that the path of a file names, as a folder or as a word of the file's name: `train` of
/// `train/0.tar` and of `set-train-00000.tar`.
pub(super) fn split_of(path: &str) -> Option<&'static str> {
    let mut parts: Vec<&str> = path.split('/').collect();
    let file = parts.pop().unwrap_or_default();
    let words = file.split(|c: char| !c.is_alphabetic());
    parts.into_iter().chain(words).find_map(split_of_name)
}

/// The split that was `found` in a name; the training images where no name of the set has one (`any`).
///
/// # Errors
/// [`Error::Data`] where others have one.
pub(super) fn require_split(
    source: &str,
    name: &str,
    found: Option<&'static str>,
    any: bool,
) -> Result<&'static str> {
    match found {
        Some(split) => Ok(split),
        None if !any => Ok(TRAIN),
        None => Err(Error::data(
            source,
            format!("expected train, test or val in the names of all files, found {name}"),
            "name it train-…, or put it into a folder train",
        )),
    }
}

/// Puts samples into splits and classes; each split keeps the order of its samples within a class. `names` are the
/// names of the classes that numbers stand for; without them classes are called by their numbers.
///
/// # Errors
/// [`Error::Data`] where some images of a split have labels and others don't, where there are no training images, and
/// for a number without a class.
pub(super) fn layout(source: &str, mut splits: Splits, names: Option<&[String]>) -> Result<Layout> {
    let mut notes = Vec::new();
    splits.retain(|_, samples| !samples.is_empty());
    let labeled = |samples: &[Sample]| samples.iter().filter(|one| one.label.is_some()).count();
    if splits.values().all(|samples| labeled(samples) == 0) {
        return Ok(unlabeled(splits));
    }
    for (split, samples) in &splits {
        let (count, all) = (labeled(samples), samples.len());
        let first = samples.iter().find(|sample| sample.label.is_none());
        if let Some(first) = first
            && (count > 0 || *split == TRAIN)
        {
            let problem = format!(
                "expected labels of all {split} images or of none, found {count} of {all}: {} has none",
                first.name
            );
            let hint = "take the others out, and name them as data.unlabeled";
            return Err(Error::data(source, problem, hint));
        }
        if count == 0 {
            notes.push(format!("{split} images have no labels and are not used"));
        }
    }
    splits.retain(|_, samples| labeled(samples) > 0);
    let Some(train) = take_train(&mut splits, &mut notes) else {
        return Err(Error::data(
            source,
            "expected training images, found none",
            "name their files train-….",
        ));
    };
    let mut others = TEST
        .into_iter()
        .filter_map(|name| splits.remove_entry(name));
    let (test, val) = (others.next(), others.next());
    if let (Some((test, _)), Some((val, _))) = (&test, &val) {
        notes.push(Layout::note_of_held_out(test, val));
    }
    if test.is_none() && !notes.iter().any(|note| note == TEST_ALONE) {
        notes.push(NO_TEST.to_owned());
    }
    let splits =
        [Some(train), test.map(|(_, s)| s), val.map(|(_, s)| s)].map(Option::unwrap_or_default);
    let found: BTreeSet<&Label> = splits.iter().flatten().flat_map(|one| &one.label).collect();
    let names: Option<Vec<String>> =
        names.map(|names| names.iter().map(|name| class_name(name)).collect());
    let classes = Classes::new(source, &found, names.as_deref(), &mut notes)?;
    let [train, test, val] = splits.map(|samples| {
        let item = |sample: Sample| {
            let label = sample.label.map_or(0, |label| classes.index(&label));
            let name = sample.name;
            Item { name, label }
        };
        let mut items: Vec<Item> = samples.into_iter().map(item).collect();
        items.sort_by_key(|item| item.label);
        items
    });
    Ok(Layout {
        classes: classes.names,
        train,
        test,
        val,
        notes,
        left_out: Vec::new(),
    })
}

/// Layout without labels: the training images, or all where none are called so.
fn unlabeled(mut splits: Splits) -> Layout {
    let mut notes = Vec::new();
    let samples = match splits.remove(TRAIN) {
        Some(train) => {
            let other = splits.keys().next();
            notes
                .extend(other.map(|name| format!("{name} images have no labels and are not used")));
            train
        }
        None => splits.into_values().flatten().collect(),
    };
    let item = |sample: Sample| Item {
        name: sample.name,
        label: 0,
    };
    Layout {
        train: samples.into_iter().map(item).collect(),
        notes,
        ..Layout::default()
    }
}

/// Names of the classes, and the place of each label among them.
struct Classes {
    names: Vec<String>,
    places: BTreeMap<Label, usize>,
}

impl Classes {
    /// The classes of the labels that were found: by number where all are numbers, else by name.
    fn new(
        source: &str,
        found: &BTreeSet<&Label>,
        names: Option<&[String]>,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let number = |label: &&Label| match label {
            Label::Number(number) => Some(*number),
            Label::Text(_) => None,
        };
        let numbers: Option<Vec<u64>> = found.iter().map(number).collect();
        let Some(numbers) = numbers else {
            let names: BTreeSet<String> = found.iter().map(|label| label.name()).collect();
            let names: Vec<String> = names.into_iter().collect();
            let place = |label: &Label| names.binary_search(&label.name()).unwrap_or_default();
            let places = found.iter().map(|&label| (label.clone(), place(label)));
            let places = places.collect();
            return Ok(Self { names, places });
        };
        let largest = numbers.last().copied().unwrap_or_default();
        if let Some(names) = names
            && largest >= names.len() as u64
        {
            return Err(Error::data(
                source,
                format!(
                    "expected labels below {}, the number of class names, found {largest}",
                    names.len()
                ),
                "name all classes, one a line in classes.txt",
            ));
        }
        let name = |number: &u64| match names {
            Some(names) => names[*number as usize].clone(),
            None => number.to_string(),
        };
        let unused = names
            .map_or(0, <[String]>::len)
            .saturating_sub(numbers.len());
        if unused > 0 {
            notes.push(format!(
                "{unused} of the named classes have no images and are left out"
            ));
        }
        Ok(Self {
            names: numbers.iter().map(name).collect(),
            places: found.iter().map(|&label| label.clone()).zip(0..).collect(),
        })
    }

    fn index(&self, label: &Label) -> usize {
        self.places.get(label).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(labels: &[&str]) -> Vec<Sample> {
        let sample = |(i, text): (usize, &&str)| Sample {
            name: format!("{i}"),
            label: Label::parse(text),
        };
        labels.iter().enumerate().map(sample).collect()
    }

    #[test]
    fn the_split_is_a_folder_or_a_word_of_the_name() {
        for (path, split) in [
            ("train-000000.tar", Some("train")),
            ("imagenet1k-validation-07.tar", Some("validation")),
            ("data/test-00000-of-00001.parquet", Some("test")),
            ("val/train-like.tar", Some("val")),
            ("Train_3.tar", Some("train")),
            ("test2.tar", Some("test")),
            ("trains-0.tar", None),
            ("shard-000.tar", None),
        ] {
            assert_eq!(split_of(path), split, "{path}");
        }
    }

    #[test]
    fn labels_are_numbers_or_names() {
        let of = |labels: &[&str], names: Option<&[String]>| {
            let splits = Splits::from([("train", samples(labels))]);
            let layout = layout("set", splits, names).unwrap();
            let items = layout.train.iter();
            let items: Vec<String> = items
                .map(|item| format!("{}{}", item.name, item.label))
                .collect();
            (layout.classes.join(" "), items.join(" "))
        };
        let named = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(
            of(&["10", "9", "10"], None),
            ("9 10".into(), "10 01 21".into())
        );
        assert_eq!(
            of(&["2", "0", "2"], Some(&named)),
            ("a c".into(), "10 01 21".into())
        );
        // Where one is a name, all are.
        assert_eq!(
            of(&["dog", "cat", "7"], None),
            ("7 cat dog".into(), "20 11 02".into())
        );
        let splits = Splits::from([("train", samples(&["3"]))]);
        let error = layout("set", splits, Some(&named)).unwrap_err();
        assert!(error.to_string().contains("below 3"), "{error}");
    }

    #[test]
    fn missing_labels_are_counted_and_whole_splits_without_are_left_out() {
        let refused = |splits: Splits| layout("set", splits, None).unwrap_err().to_string();
        let words = refused(Splits::from([("train", samples(&["1", "", "-1"]))]));
        assert!(words.contains("found 1 of 3: 1 has none"), "{words}");
        let words = refused(Splits::from([
            ("train", samples(&["", ""])),
            ("test", samples(&["1"])),
        ]));
        assert!(words.contains("found 0 of 2"), "{words}");
        let words = refused(Splits::from([
            ("test", samples(&["1"])),
            ("val", samples(&["1"])),
        ]));
        assert!(words.contains("expected training images"), "{words}");
        let alone = layout("set", Splits::from([("test", samples(&["1"]))]), None);
        assert_eq!(alone.unwrap().notes, [TEST_ALONE]);
        let found = layout(
            "set",
            Splits::from([("train", samples(&["1"])), ("test", samples(&["-1"]))]),
            None,
        );
        let found = found.unwrap();
        assert_eq!((found.train.len(), found.test.len()), (1, 0));
        assert!(
            found.notes[0].contains("test images have no labels"),
            "{:?}",
            found.notes
        );
        let none = Splits::from([("train", samples(&["", ""])), ("val", samples(&[""]))]);
        let found = layout("set", none, None).unwrap();
        assert_eq!(
            (found.classes.len(), found.train.len(), found.val.len()),
            (0, 2, 0)
        );
        let both = Splits::from([
            ("train", samples(&["1"])),
            ("val", samples(&["1"])),
            ("test", samples(&["1", "1"])),
        ]);
        let found = layout("set", both, None).unwrap();
        assert_eq!((found.test.len(), found.val.len()), (2, 1));
        assert!(found.notes[0].contains("held out"), "{:?}", found.notes);
    }
}
