//! What a result depends on: the parts of a recipe that must not differ when a file is used again.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Recipe;
use super::check::is_path;
use crate::cluster;
use crate::data::Split;
use crate::random;

/// A result that is kept in a file. Methods are called by their tables' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A pretrained encoder.
    Encoder(&'a str),
    /// Pseudo-labels.
    Labels,
    /// The classifier on an encoder: method and finetuning mode. A supervised method has no mode.
    Classifier(&'a str, Option<&'a str>),
    /// Clean accuracy of a classifier, and PGD.
    Figures(&'a str, Option<&'a str>),
    /// What the attacks beside PGD come to.
    Attack(&'a str, Option<&'a str>),
    /// Something else that is measured of a classifier, and the keys that it depends on beside the classifier's.
    Measure(&'a str, Option<&'a str>, &'a [&'a str]),
}

/// The images of a recipe, and the files that it names.
#[derive(Clone, Debug)]
pub struct Fingerprints {
    /// Of `data`.
    pub train: Fingerprint,
    /// Of `downstream`, where there is one.
    pub downstream: Option<Fingerprint>,
    /// Of the images that classifiers are judged by.
    pub judged: Fingerprint,
    /// Of the files that the recipe names ([`Recipe::files`]), by their paths.
    pub files: BTreeMap<String, String>,
}

/// The training images in a few characters: to be held against others, not to be read.
#[derive(Clone, Debug)]
pub struct Fingerprint {
    /// How many.
    pub images: usize,
    /// Of their pixels.
    pub pixels: String,
    /// Of their labels and the classes' names.
    pub labels: String,
}

impl Fingerprint {
    /// Of images with these classes.
    pub fn of(split: &Split, classes: &[String]) -> Self {
        let mut labels: Vec<u8> = classes.join("\0").into_bytes();
        labels.extend(split.labels.iter().flat_map(|&l| (l as u64).to_le_bytes()));
        Self {
            images: split.images.len(),
            pixels: hash(&split.images.pixels),
            labels: hash(&labels),
        }
    }

    fn note(&self, table: &mut Table, labels: bool) {
        table.insert("images".to_owned(), Value::Integer(self.images as i64));
        table.insert("pixels".to_owned(), Value::String(self.pixels.clone()));
        if labels {
            table.insert("labels".to_owned(), Value::String(self.labels.clone()));
        }
    }
}

/// A few characters that other bytes hardly have.
pub fn hash(bytes: &[u8]) -> String {
    format!("fnv1a-{:016x}", random::fingerprint(bytes))
}

/// What the keys of files begin with, as if they were a table's.
const FILES: &str = "files.";

impl Recipe {
    /// The files of other runs that it names: encoders to learn from or to cluster by, and pseudo-labels.
    pub fn files(&self) -> Vec<&str> {
        let sources = self.pretrain.entries().iter();
        let sources = sources.filter_map(|entry| entry.method().source());
        let mut files: Vec<&str> = sources.filter(|source| is_path(source)).collect();
        files.extend(self.cluster.iter().flat_map(cluster::Settings::file));
        files
    }

    fn supervised(&self, name: &str) -> bool {
        let entry = self.pretrain.get(name);
        entry.is_some_and(|entry| entry.method().supervised())
    }

    /// The keys that `part` depends on.
    fn keys(&self, part: Part) -> Vec<String> {
        let data = ["seed", "data.source", "data.train_limit", "data.holdout"];
        let mut keys = data.map(str::to_owned).to_vec();
        match part {
            Part::Encoder(name) => {
                keys.push("encoder".to_owned());
                keys.push(format!("pretrain.{name}"));
                let Some(entry) = self.pretrain.get(name) else {
                    return keys;
                };
                let method = entry.method();
                if method.attacks() {
                    keys.push("threat".to_owned());
                }
                if method.clustered() {
                    keys.extend(self.keys(Part::Labels));
                }
                match method.source() {
                    Some(source) if is_path(source) => keys.push(format!("{FILES}{source}")),
                    Some(source) => keys.extend(self.keys(Part::Encoder(source))),
                    None => {}
                }
            }
            Part::Labels => {
                keys.push("cluster".to_owned());
                let file = self.cluster.as_ref().and_then(cluster::Settings::file);
                keys.extend(file.map(|file| format!("{FILES}{file}")));
                if !self
                    .cluster
                    .as_ref()
                    .is_some_and(cluster::Settings::is_given)
                {
                    keys.extend(self.keys(Part::Encoder("simclr")));
                }
            }
            Part::Classifier(name, mode) => {
                keys.extend(self.keys(Part::Encoder(name)));
                // A supervised method's is trained with the encoder.
                if let Some(mode) = mode {
                    keys.push("downstream".to_owned());
                    keys.push(format!("finetune.{mode}"));
                    let entry = self.finetune.require(mode);
                    if entry.is_ok_and(|entry| entry.loss().attacks()) {
                        keys.push("threat".to_owned());
                    }
                }
            }
            Part::Figures(name, mode) => {
                keys.extend(self.keys(Part::Classifier(name, mode)));
                let own = ["split", "batch_size", "steps", "step_size"];
                keys.extend(own.map(|key| format!("evaluate.{key}")));
                keys.extend(["data.test_limit", "threat"].map(str::to_owned));
            }
            // Nothing here depends on how many images are attacked at a time.
            Part::Attack(name, mode) => {
                keys.extend(self.keys(Part::Classifier(name, mode)));
                let own = [
                    "evaluate.split",
                    "evaluate.attack",
                    "evaluate.attack_limit",
                    "data.test_limit",
                    "threat",
                ];
                keys.extend(own.map(str::to_owned));
            }
            Part::Measure(name, mode, more) => {
                keys.extend(self.keys(Part::Classifier(name, mode)));
                let own = [
                    "evaluate.split",
                    "evaluate.measure_limit",
                    "data.test_limit",
                ];
                keys.extend(own.iter().chain(more).map(|key| (*key).to_owned()));
            }
        }
        keys
    }

    /// Whether the labels of the training images went into `part`.
    fn labeled(&self, part: Part) -> bool {
        match part {
            Part::Encoder(name) => self.supervised(name),
            Part::Labels => false,
            Part::Classifier(..) | Part::Figures(..) | Part::Attack(..) | Part::Measure(..) => true,
        }
    }

    /// The TOML text of just what `part` depends on, the fingerprints of its training images included. Files keep it, and
    /// are refused where it differs.
    pub fn text_of(&self, part: Part, prints: &Fingerprints) -> String {
        let whole = Table::try_from(self).expect("tables of plain values");
        let mut picked = Table::new();
        for key in self.keys(part) {
            if let Some(file) = key.strip_prefix(FILES) {
                let print = prints.files.get(file).cloned().map(Value::String);
                inner(&mut picked, "files").extend(print.map(|print| (file.to_owned(), print)));
                continue;
            }
            match key.split_once('.') {
                None => {
                    let value = whole.get(&key).map(|value| (key.clone(), value.clone()));
                    picked.extend(value);
                }
                Some((table, key)) => {
                    let value = whole.get(table).and_then(|inner| inner.get(key));
                    let value = value.map(|value| (key.to_owned(), value.clone()));
                    inner(&mut picked, table).extend(value);
                }
            }
        }
        prints
            .train
            .note(inner(&mut picked, "data"), self.labeled(part));
        if let (Some(print), Some(table)) = (&prints.downstream, picked.get_mut("downstream")) {
            print.note(table.as_table_mut().expect("a table of the recipe"), true);
        }
        if let Part::Figures(..) | Part::Attack(..) | Part::Measure(..) = part {
            prints.judged.note(inner(&mut picked, "judged"), true);
        }
        toml::to_string(&picked).expect("tables of plain values")
    }
}

/// The table of that name, made where it is missing.
fn inner<'a>(table: &'a mut Table, name: &str) -> &'a mut Table {
    let empty = || Value::Table(Table::new());
    let value = table.entry(name).or_insert_with(empty);
    value.as_table_mut().expect("a table of the recipe")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    fn smoke(set: &[&str]) -> Recipe {
        let set: Vec<String> = set.iter().map(|line| (*line).to_owned()).collect();
        Recipe::load("smoke", &set).expect("a recipe")
    }

    #[test]
    fn a_part_changes_with_what_it_depends_on_and_with_nothing_else() {
        let (at, slf) = ("adversarial-training", Some("slf"));
        let parts = [
            ("encoder of SimCLR", Part::Encoder("simclr")),
            ("labels", Part::Labels),
            ("encoder of AdvCL", Part::Encoder("advcl")),
            ("classifier of SimCLR", Part::Classifier("simclr", slf)),
            ("classifier of AdvCL", Part::Classifier("advcl", slf)),
            ("figures of SimCLR", Part::Figures("simclr", slf)),
            ("figures of AdvCL", Part::Figures("advcl", slf)),
            ("encoder of AT", Part::Encoder(at)),
            ("classifier of AT", Part::Classifier(at, None)),
            ("figures of AT", Part::Figures(at, None)),
            ("curve of AdvCL", Part::Measure("advcl", slf, &["threat"])),
        ];
        let print = |pixels: &str| Fingerprint {
            images: 256,
            pixels: pixels.to_owned(),
            labels: "y".to_owned(),
        };
        let train = print("x");
        let texts = |recipe: &Recipe, train: &Fingerprint| {
            let prints = Fingerprints {
                train: train.clone(),
                downstream: None,
                judged: print("judged"),
                files: BTreeMap::new(),
            };
            parts.map(|(_, part)| recipe.text_of(part, &prints))
        };
        let before = texts(&smoke(&[]), &train);
        // The names of those that change begin or end with one of the words.
        let compare = |change: &str, after: &[String], words: &[&str]| {
            for (((name, _), before), after) in parts.iter().zip(&before).zip(after) {
                let expected = |word: &&str| name.starts_with(word) || name.ends_with(word);
                let differs = words.iter().any(expected);
                assert_eq!(before != after, differs, "{change}: {name}");
            }
        };
        let all: &[&str] = &["SimCLR", "AdvCL", "AT", "labels"];
        for (change, words) in [
            ("seed = 1", all),
            ("data.train_limit = 255", all),
            ("encoder.width = 5", all),
            (
                "pretrain.simclr.plan.lr = 0.2",
                &["SimCLR", "AdvCL", "labels"],
            ),
            ("pretrain.advcl.attack_steps = 3", &["AdvCL"]),
            ("pretrain.adversarial-training.attack_steps = 3", &["AT"]),
            ("cluster.restarts = 2", &["AdvCL", "labels"]),
            ("threat.radius = 0.2", &["AdvCL", "AT", "figures"]),
            ("evaluate.steps = 4", &["figures"]),
            ("data.test_limit = 50", &["figures", "curve"]),
            ("evaluate.measure_limit = 9", &["curve"]),
            ("evaluate.soundness = false", &[]),
        ] {
            compare(change, &texts(&smoke(&[change]), &train), words);
        }
        // The classifier that is trained with its encoder is not finetuned.
        let change = "finetune.slf.augment = true";
        let after = texts(&smoke(&[change]), &train);
        assert!(after[3..7].iter().zip(&before[3..7]).all(|(a, b)| a != b));
        assert_ne!(after[10], before[10]);
        assert_eq!((&after[..3], &after[7..10]), (&before[..3], &before[7..10]));
        // Other images; the same with other labels.
        let other = |change: fn(&mut Fingerprint)| {
            let mut train = train.clone();
            change(&mut train);
            texts(&smoke(&[]), &train)
        };
        compare("pixels", &other(|train| train.pixels = "z".to_owned()), all);
        compare("images", &other(|train| train.images = 255), all);
        let labeled = ["classifier", "figures", "curve", "AT"];
        compare(
            "labels",
            &other(|train| train.labels = "z".to_owned()),
            &labeled,
        );
    }

    #[test]
    fn files_and_judged_images_count_where_they_are_used() {
        let cluster =
            "cluster = { counts = [2], restarts = 1, iterations = 1, labels_file = 'a/b.c' }";
        let recipe = smoke(&[cluster]);
        assert_eq!(recipe.files(), ["a/b.c"]);
        let print = |pixels: &str| Fingerprint {
            images: 1,
            pixels: pixels.to_owned(),
            labels: String::new(),
        };
        let text = |part, file: &str, judged: &str| {
            let prints = Fingerprints {
                train: print("train"),
                downstream: None,
                judged: print(judged),
                files: BTreeMap::from([("a/b.c".to_owned(), file.to_owned())]),
            };
            recipe.text_of(part, &prints)
        };
        let slf = Some("slf");
        for (part, by_file, by_judged) in [
            (Part::Labels, true, false),
            (Part::Encoder("simclr"), false, false),
            (Part::Encoder("advcl"), true, false),
            (Part::Classifier("advcl", slf), true, false),
            (Part::Figures("advcl", slf), true, true),
            (Part::Figures("simclr", slf), false, true),
        ] {
            let before = text(part, "1", "test");
            assert_eq!(before != text(part, "2", "test"), by_file, "{part:?}");
            assert_eq!(before != text(part, "1", "other"), by_judged, "{part:?}");
        }
    }

    #[test]
    fn a_fingerprint_tells_labels_and_names_of_classes_apart() {
        let data = crate::data::load("fashion-mnist-12k").expect("the embedded set");
        let print = Fingerprint::of(&data.train, &data.classes);
        assert_eq!(print.images, 10_000);
        let labels = |change: fn(&mut Dataset)| {
            let mut data = data.clone();
            change(&mut data);
            let other = Fingerprint::of(&data.train, &data.classes);
            assert_eq!(other.pixels, print.pixels);
            other.labels
        };
        assert_eq!(labels(|_| ()), print.labels);
        assert_ne!(
            labels(|data| data.train.labels.swap(0, 9_999)),
            print.labels
        );
        assert_ne!(labels(|data| data.classes.swap(0, 1)), print.labels);
    }
}
