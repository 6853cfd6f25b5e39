//! What results depend on: everything in the recipe but what is known not to matter to them.
//!
//! A result keeps its dependencies as TOML. What it was computed from stands in a table of its own
//! (a classifier has its encoder's dependencies in `pretrained`), taken from the file that was used and
//! not from the recipe of today. Images count by their pixels; where they lie does not matter, nor in
//! which order they are read.
//!
//! A key that nobody thought of is a dependency of everything below it: keys are left out by name here,
//! never taken in by name.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::Recipe;
use super::check::is_path;
use crate::cluster::ClusterSettings;
use crate::data::SplitFingerprint;
use crate::error::Result;
use crate::files;
use crate::finetune;
use crate::pretrain;
use crate::run::model_file;

/// Result of a run that is kept in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Artifact<'a> {
    /// Pretrained encoder of a method's table; with its classifier, where the method is supervised.
    Encoder(&'a str),
    /// Pseudo-labels of the training images.
    PseudoLabels,
    /// Classifier on an encoder, of a finetuning mode's table.
    Classifier(&'a str),
    /// Clean accuracy and accuracy under PGD; soundness checks of them.
    Pgd,
    /// Accuracy under the attack suite beside PGD.
    Suite,
    /// A further measure of a classifier, with the keys that it needs of those that only some measures
    /// need (`FOR_SOME_MEASURES`).
    Measure(&'a [&'a str]),
}

/// Keys that a measure depends on only where it says so.
pub const FOR_SOME_MEASURES: [&str; 5] = [
    "threat",
    "evaluate.steps",
    "evaluate.step_size",
    "evaluate.smoothing",
    "evaluate.patch",
];

/// Dependencies of what a result was computed from, with the names of the tables that they become.
pub type Upstream<'a> = &'a [(&'a str, &'a Table)];

/// Table with the encoder's dependencies in those of a classifier.
pub const PRETRAINED: &str = "pretrained";
/// Table with the dependencies of an encoder that another one learns from.
pub const SOURCE: &str = "source";
/// Table with the dependencies of an encoder whose weights another one begins at.
pub const START: &str = "start";
/// Table with the pseudo-labels' dependencies in those of an encoder.
pub const PSEUDO_LABELS: &str = "pseudo_labels";
/// Table with the dependencies of the encoder whose features are clustered.
pub const CLUSTERED: &str = "clustered";
/// Table with the classifier's dependencies in those of its figures.
pub const CLASSIFIER: &str = "classifier";
const UPSTREAM: [&str; 6] = [
    PRETRAINED,
    SOURCE,
    START,
    PSEUDO_LABELS,
    CLUSTERED,
    CLASSIFIER,
];

/// Tables and keys that no result depends on as they are written: images are compared by pixels, and the
/// others decide what is computed, not how.
const NEVER: [&str; 5] = ["data", "downstream", "compare", "probe", "checkpoint"];
const NEVER_OF_EVALUATE: [&str; 3] = ["split", "batch_size", "soundness"];

/// Fingerprints of a recipe's images and files.
#[derive(Clone, Debug)]
pub struct Fingerprints {
    /// Training images of `data`.
    pub train: SplitFingerprint,
    /// Training images of `downstream`, where there is one.
    pub downstream: Option<SplitFingerprint>,
    /// Images that classifiers are evaluated on.
    pub evaluated: SplitFingerprint,
    /// Hashes of the files that the recipe names ([`Recipe::files`]), by their paths.
    pub files: BTreeMap<String, String>,
}

impl Recipe {
    /// Files of other runs that the recipe names: encoders to learn from, to begin at or to cluster by,
    /// and pseudo-labels.
    pub fn files(&self) -> Vec<&str> {
        let sources = self.pretrain.entries().iter();
        let sources = sources.flat_map(|entry| {
            let init = entry.common().init.as_deref();
            entry.method().source().into_iter().chain(init)
        });
        let mut files: Vec<&str> = sources.filter(|source| is_path(source)).collect();
        files.extend(self.cluster.iter().flat_map(ClusterSettings::file));
        files
    }

    /// Hashes of [`Recipe::files`].
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for anything but a regular file; [`Error::Run`] for a folder of several models.
    pub fn file_hashes(&self) -> Result<BTreeMap<String, String>> {
        let cluster = self.cluster.as_ref();
        let labels = cluster.and_then(|cluster| cluster.labels_file.as_deref());
        let hashed = |file: &str| {
            let path = match labels == Some(file) {
                true => Path::new(file).to_path_buf(),
                false => model_file(Path::new(file))?,
            };
            let content = files::read(&path)?;
            Ok((file.to_owned(), files::hash(&content)))
        };
        self.files().into_iter().map(hashed).collect()
    }

    /// Everything that `artifact` depends on.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a method or mode that the recipe has no table for.
    pub fn dependencies(
        &self,
        artifact: Artifact,
        prints: &Fingerprints,
        upstream: Upstream,
    ) -> Result<Table> {
        let mut facts = Facts::default();
        match artifact {
            Artifact::Encoder(name) => {
                let entry = self.pretrain.require(name)?;
                let method = entry.method();
                facts.attacks = method.attacks();
                facts.own_radius = entry.common().attack_radius.is_some();
                facts.labels = method.supervised();
            }
            Artifact::Classifier(mode) => {
                let entry = self.finetune.require(mode)?;
                facts.attacks = entry.loss().attacks();
                facts.steps = entry.settings.solver.is_sgd();
                facts.labels = true;
            }
            _ => {}
        }
        let whole = Table::try_from(self).expect("tables of plain values");
        let mut picked = pick(&whole, artifact, facts);
        name_files_by_content(&mut picked, &prints.files);
        let images = match artifact {
            Artifact::Encoder(_) | Artifact::PseudoLabels => of_images(&prints.train, facts.labels),
            Artifact::Classifier(_) => {
                of_images(prints.downstream.as_ref().unwrap_or(&prints.train), true)
            }
            Artifact::Pgd | Artifact::Suite | Artifact::Measure(_) => {
                let mut table = of_images(&prints.evaluated, true);
                // Stored examples and random numbers go by an image's place.
                table.insert("order".to_owned(), prints.evaluated.order.clone().into());
                table
            }
        };
        picked.insert("images".to_owned(), Value::Table(images));
        for (name, table) in upstream {
            picked.insert((*name).to_owned(), Value::Table((*table).clone()));
        }
        Ok(picked)
    }
}

impl Recipe {
    /// Keys of training and threat model that differ from those of another recipe, among methods and modes
    /// that both have. Images are left out: results are compared by pixels.
    pub fn contradictions(&self, folder: &Self) -> Vec<Difference> {
        let table = |recipe: &Self| {
            let mut table = Table::try_from(recipe).expect("tables of plain values");
            remove_all(
                &mut table,
                &["seed", "compare", "probe", "evaluate", "checkpoint"],
            );
            table
        };
        let (mut folder, mut command) = (table(folder), table(self));
        for name in ["pretrain", "finetune"] {
            let names = |table: &Table| -> Vec<String> {
                let inner = table.get(name).and_then(Value::as_table);
                inner
                    .into_iter()
                    .flatten()
                    .map(|(key, _)| key.clone())
                    .collect()
            };
            let both: Vec<String> = names(&folder);
            let both: Vec<String> = names(&command)
                .into_iter()
                .filter(|n| both.contains(n))
                .collect();
            for table in [&mut folder, &mut command] {
                if let Some(Value::Table(entries)) = table.get_mut(name) {
                    entries.retain(|key, _| both.iter().any(|name| name == key));
                }
            }
        }
        differences(&folder, &command)
    }
}

/// What the recipe's types know of an artifact.
#[derive(Clone, Copy, Default)]
struct Facts {
    attacks: bool,
    /// Whether the attacks have a radius of their own.
    own_radius: bool,
    labels: bool,
    /// Whether a classifier is trained by the steps of its plan.
    steps: bool,
}

/// The recipe's tables without what does not matter to `artifact`.
fn pick(whole: &Table, artifact: Artifact, facts: Facts) -> Table {
    let mut picked = whole.clone();
    remove_all(&mut picked, &NEVER);
    match artifact {
        Artifact::Encoder(name) => {
            remove_all(&mut picked, &["finetune", "evaluate", "cluster"]);
            only(&mut picked, "pretrain", name);
        }
        Artifact::PseudoLabels => {
            remove_all(
                &mut picked,
                &[
                    "finetune",
                    "evaluate",
                    "pretrain",
                    "encoder",
                    "precision",
                    "shards",
                    "batchnorm",
                ],
            );
        }
        Artifact::Classifier(mode) => {
            remove_all(
                &mut picked,
                &["evaluate", "pretrain", "cluster", "encoder", "precision"],
            );
            only(&mut picked, "finetune", mode);
            if let Some(Value::Table(modes)) = picked.get_mut("finetune")
                && !facts.steps
            {
                remove(modes, mode, "plan");
            }
        }
        Artifact::Pgd | Artifact::Suite | Artifact::Measure(_) => {
            remove_all(
                &mut picked,
                &[
                    "finetune",
                    "pretrain",
                    "cluster",
                    "encoder",
                    "precision",
                    "shards",
                    "batchnorm",
                ],
            );
            const OF_MEASURES: &[&str] = &["measure_limit", "smoothing", "patch"];
            const OF_SUITES: &[&str] = &["attack", "attack_limit"];
            let more = match artifact {
                Artifact::Suite => [&["steps", "step_size"], OF_MEASURES],
                Artifact::Measure(_) => [OF_SUITES, &[]],
                _ => [OF_SUITES, OF_MEASURES],
            };
            let names = NEVER_OF_EVALUATE.iter().chain(more.into_iter().flatten());
            names.for_each(|name| remove(&mut picked, "evaluate", name));
        }
    }
    match artifact {
        Artifact::Encoder(_) | Artifact::Classifier(_) if !facts.attacks => {
            picked.remove("threat");
        }
        Artifact::Encoder(_) if facts.own_radius => remove(&mut picked, "threat", "radius"),
        Artifact::PseudoLabels => {
            picked.remove("threat");
        }
        Artifact::Measure(needed) => {
            for key in FOR_SOME_MEASURES
                .into_iter()
                .filter(|key| !needed.contains(key))
            {
                match key.split_once('.') {
                    Some((table, key)) => remove(&mut picked, table, key),
                    None => remove_all(&mut picked, &[key]),
                }
            }
        }
        _ => {}
    }
    picked
}

fn remove_all(picked: &mut Table, names: &[&str]) {
    picked.retain(|name, _| !names.contains(&name));
}

/// Leaves only one entry of a table of entries; a key that is none stays.
fn only(picked: &mut Table, table: &str, name: &str) {
    if let Some(Value::Table(entries)) = picked.get_mut(table) {
        entries.retain(|key, value| key == name || !value.is_table());
    }
}

fn remove(picked: &mut Table, table: &str, key: &str) {
    if let Some(Value::Table(inner)) = picked.get_mut(table) {
        inner.remove(key);
    }
}

/// Replaces the paths of files by hashes of their content: a file that was moved is the same file.
fn name_files_by_content(table: &mut Table, hashes: &BTreeMap<String, String>) {
    for (_, value) in table.iter_mut() {
        match value {
            Value::String(text) => {
                if let Some(hash) = hashes.get(text) {
                    text.clone_from(hash);
                }
            }
            Value::Table(inner) => name_files_by_content(inner, hashes),
            _ => {}
        }
    }
}

fn of_images(print: &SplitFingerprint, labels: bool) -> Table {
    let mut table = Table::new();
    table.insert("count".to_owned(), Value::Integer(print.images as i64));
    table.insert("pixels".to_owned(), print.pixels.clone().into());
    if labels {
        table.insert("labels".to_owned(), print.labels.clone().into());
    }
    table
}

/// Dependencies as the text that files keep.
pub fn to_text(table: &Table) -> String {
    toml::to_string(table).expect("tables of plain values")
}

/// Dependencies that a file keeps; none where they are not in today's form.
pub fn from_text(text: &str) -> Option<Table> {
    let table: Table = toml::from_str(text).ok()?;
    table.contains_key("images").then_some(table)
}

/// A key whose value in a folder is not the command's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Key as in a recipe: `pretrain.simclr.plan.lr`.
    pub key: String,
    /// Value of the folder's result; none where the key was not there.
    pub folder: Option<String>,
    /// Value of the command; none where the key is not there.
    pub command: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let images = |what: &str| match (&self.folder, &self.command) {
            (Some(folder), Some(command)) => {
                format!("{folder} {what} in the folder, {command} now")
            }
            _ => format!("other {what}"),
        };
        match self.key.as_str() {
            "images.count" => f.write_str(&images("images")),
            "images.pixels" => f.write_str("the images are not the same"),
            "images.labels" => f.write_str("the labels are not the same"),
            "images.order" => f.write_str("the images are in another order"),
            key => {
                let is_file = |value: &Option<String>| {
                    let value = value.as_deref().unwrap_or_default();
                    files::is_hash(value.trim_matches('"'))
                };
                if is_file(&self.folder) && is_file(&self.command) {
                    return write!(f, "the file that {key} names has another content");
                }
                let or_none =
                    |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
                let (folder, command) = (or_none(&self.folder), or_none(&self.command));
                write!(
                    f,
                    "{key} is {folder} in the folder, {command} in this command"
                )
            }
        }
    }
}

/// Keys in which two tables of dependencies differ, in alphabetical order.
pub fn differences(folder: &Table, command: &Table) -> Vec<Difference> {
    let (folder, command) = (leaves(folder), leaves(command));
    let keys: std::collections::BTreeSet<&String> = folder.keys().chain(command.keys()).collect();
    let differs = |key: &&&String| folder.get(**key) != command.get(**key);
    let mut found: Vec<Difference> = keys
        .iter()
        .filter(differs)
        .map(|key| Difference {
            key: short(key),
            folder: folder.get(*key).cloned(),
            command: command.get(*key).cloned(),
        })
        .collect();
    // One encoder below another may bring the same key twice.
    found.sort_by(|a, b| a.key.cmp(&b.key));
    found.dedup();
    found
}

/// Key without the names of the results that it comes through.
fn short(key: &str) -> String {
    let mut rest = key;
    while let Some((first, below)) = rest.split_once('.')
        && UPSTREAM.contains(&first)
    {
        rest = below;
    }
    rest.to_owned()
}

/// Values of a table by dotted key.
fn leaves(table: &Table) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                let below = leaves(inner).into_iter();
                found.extend(below.map(|(below, value)| (format!("{key}.{below}"), value)));
            }
            value => {
                found.insert(key.clone(), value.to_string());
            }
        }
    }
    found
}

/// Some differences in a line; the rest is counted.
pub fn in_words(differences: &[Difference]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = differences
        .iter()
        .take(SHOWN)
        .map(Difference::to_string)
        .collect();
    let more = differences.len().saturating_sub(SHOWN);
    let shown = shown.join("; ");
    if more == 0 {
        shown
    } else {
        format!("{shown}; and {more} more")
    }
}

/// Title of a method or mode's table for messages.
pub fn title(artifact: Artifact) -> String {
    match artifact {
        Artifact::Encoder(name) => format!("{} encoder", pretrain::title(name)),
        Artifact::PseudoLabels => "pseudo-labels".to_owned(),
        Artifact::Classifier(mode) => format!("{} classifier", finetune::title(mode)),
        Artifact::Pgd => "clean and PGD accuracy".to_owned(),
        Artifact::Suite => "attack suite".to_owned(),
        Artifact::Measure(_) => "measure".to_owned(),
    }
}

#[cfg(test)]
#[path = "depends_tests.rs"]
pub(super) mod tests;
