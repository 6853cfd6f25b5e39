//! Typed recipes: what changes the numbers of a run. Read, overridden, checked once, never changed after.

mod check;
mod depends;
pub mod keys;
mod schema;

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::attack::{Ball, Norm, Patch, Suite};
use crate::cluster::ClusterSettings;
use crate::data::{self, Channels, Damaged, Fit, Interpolation, Reading, Size};
use crate::error::{Error, Result, nearest};
use crate::files;
use crate::finetune::{Finetune, Trains};
use crate::nn::{BatchNormOver, EncoderConfig, Precision, Sharding};
use crate::pixels::Pixels;
use crate::pretrain::{self, Pretrain};
use crate::probe::ProbeSettings;
use crate::smoothing::Smoothing;
use crate::train::Plan;

pub use crate::tables::{Entry, Tables};
pub use check::is_path;
pub use depends::{
    Artifact, CLASSIFIER, CLUSTERED, Difference, Fingerprints, PRETRAINED, PSEUDO_LABELS, SOURCE,
    START, Upstream, differences, from_text, in_words, title, to_text,
};

/// Method whose encoder's features are clustered, where a recipe names no other.
pub const CLUSTERED_METHOD: &str = "simclr";

/// The recipes inside the binary: name, one line about it, text.
pub const SHIPPED: [(&str, &str, &str); 11] = [
    (
        "quickstart",
        "embedded Fashion-MNIST: SimCLR and AdvCL side by side, minutes on two cores",
        include_str!("../../recipes/quickstart.toml"),
    ),
    (
        "smoke",
        "the same steps in seconds, to see that everything works; its numbers mean nothing",
        include_str!("../../recipes/smoke.toml"),
    ),
    (
        "few-labels",
        "embedded Fashion-MNIST: 5,000 images, 50 labels; minutes on two cores",
        include_str!("../../recipes/few-labels.toml"),
    ),
    (
        "compare-quick",
        "embedded Fashion-MNIST: every method by SLF, ALF and AFF, three seeds; half an hour on two cores",
        include_str!("../../recipes/compare-quick.toml"),
    ),
    (
        "robust-from-pretrained",
        "embedded Fashion-MNIST: ACL and DeACL from a standard encoder beside ACL from nothing, three seeds; twenty minutes on two cores",
        include_str!("../../recipes/robust-from-pretrained.toml"),
    ),
    (
        "compare-pseudo-labels",
        "embedded Fashion-MNIST: AdvCL with a larger cluster term beside RoCL and ACL, five seeds; half an hour on two cores",
        include_str!("../../recipes/compare-pseudo-labels.toml"),
    ),
    (
        "compare-fashion",
        "embedded Fashion-MNIST: AdvCL+ beside its rivals at equal time, by AutoAttack, five seeds; three hours on two cores",
        include_str!("../../recipes/compare-fashion.toml"),
    ),
    (
        "cifar10-12k-cpu",
        "colour on a laptop: 12,000 CIFAR-10 images, also with all labels as a ceiling; 15 minutes on two cores",
        include_str!("../../recipes/cifar10-12k-cpu.toml"),
    ),
    (
        "compare-cifar10-12k",
        "colour: every method and AdvCL's ablations by SLF, ALF and AFF, three seeds; a night on two cores",
        include_str!("../../recipes/compare-cifar10-12k.toml"),
    ),
    (
        "compare-cifar10",
        "every method in its paper's setting: CIFAR-10, ResNet-18, 1000 epochs; wants GPUs",
        include_str!("../../recipes/compare-cifar10.toml"),
    ),
    (
        "cifar10-advcl",
        "the paper's setting: CIFAR-10, ResNet-18, batch 512, 1000 epochs; wants a GPU",
        include_str!("../../recipes/cifar10-advcl.toml"),
    ),
];

/// Everything that decides a run's numbers, with the seed.
///
/// ```
/// use advcl::Recipe;
///
/// let recipe = Recipe::load("quickstart", &["threat.radius = '8/255'".to_owned()])?;
/// assert_eq!(recipe.threat.radius.to_string(), "8/255");
/// assert_eq!(recipe.pretrain.entries()[0].name, "simclr");
///
/// // Mistakes are refused with their place and a hint.
/// let error = Recipe::load("quickstart", &["evaluate.stps = 5".to_owned()]).unwrap_err();
/// assert!(error.to_string().contains("unknown field `stps`"));
/// # Ok::<(), advcl::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Of all random numbers.
    pub seed: u64,
    /// Precision of the products in pretraining's convolutions: `f32`, `bf16` where the processor has it, or the faster one by `auto`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub precision: Precision,
    /// Shards of every training batch: any number of ranks of MPI that divides it computes the same bits.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(extend("default" = 1))]
    pub shards: usize,
    /// Images that share BatchNorm's statistics where batches have shards: those of each `shard`, or with `global` all of the batch.
    #[serde(default, skip_serializing_if = "is_default")]
    pub batchnorm: BatchNormOver,
    /// Which images.
    pub data: Data,
    /// The network.
    pub encoder: EncoderConfig,
    /// What an attacker may do, in pretraining and evaluation.
    pub threat: Threat,
    /// The encoders to make.
    pub pretrain: Pretrain,
    /// A look at the encoders while they are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeSettings>,
    /// Pseudo-labels for AdvCL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterSettings>,
    /// Other images to finetune and evaluate on: transfer. Left out, they are those of `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downstream: Option<Downstream>,
    /// From encoders to classifiers.
    pub finetune: Finetune,
    /// The final figures.
    pub evaluate: Evaluate,
    /// For `advcl compare`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Compare>,
    /// How often an unfinished training is saved.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checkpoint: CheckpointSettings,
}

/// How often an unfinished training is saved. The weights are the same, whatever is chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointSettings {
    /// Minutes between two checkpoints within an epoch; there is one after every epoch in any case. A process that is
    /// killed loses no more than that.
    #[serde(default = "ten")]
    pub minutes: f64,
}

fn ten() -> f64 {
    10.0
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self { minutes: ten() }
    }
}

impl CheckpointSettings {
    /// Time between two checkpoints.
    pub fn interval(&self) -> Duration {
        Duration::try_from_secs_f64(self.minutes * 60.0).unwrap_or(Duration::MAX)
    }
}

/// Which images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The name of the embedded set, or a path.
    pub source: String,
    /// More images for pretraining, without labels: names or paths. Labels come from `source` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlabeled: Vec<String>,
    /// Use only so many training images, the same share of each class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// This share of the training images is kept out of training, to choose settings on; where it is 0, a data set's
    /// validation images are that.
    #[serde(default)]
    pub holdout: f64,
    /// Evaluate on so many images of the split, the same share of each class. Where there is a `downstream`, its limit
    /// counts instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
    /// This share of each class's training images becomes the test set, where there is none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub test_share: f64,
    /// Height and width of all images in pixels, `64` or `[48, 96]`; images must have one size where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// How images of another shape are brought to the size.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fit: Fit,
    /// How values between pixels are computed when images are scaled.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interpolation: Interpolation,
    /// Channels of all images. Where it is left out, images keep theirs, and a mixture becomes RGB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// Colour behind transparent pixels, `[255, 255, 255]`; transparency is refused where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<[u8; 3]>,
    /// Most pixels of an image that is scaled to `size`; 100 million where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<usize>,
    /// What becomes of images that cannot be read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub damaged: Damaged,
}

impl Data {
    /// How the images are read.
    pub fn reading(&self) -> Reading {
        Reading {
            size: self.size,
            fit: self.fit,
            interpolation: self.interpolation,
            channels: self.channels,
            background: self.background,
            max_pixels: self.max_pixels,
        }
    }
}

/// Images to finetune and evaluate on, with classes and a size of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Downstream {
    /// The name of the embedded set, or a path.
    pub source: String,
    /// As in `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// As in `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
    /// Makes gray images colour ones, or colour ones gray, as the encoder wants them; refused otherwise.
    #[serde(default)]
    pub convert_channels: bool,
}

/// What an attacker may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Threat {
    /// How a perturbation is measured.
    pub norm: Norm,
    /// ε, in pixels.
    pub radius: Pixels,
}

impl Threat {
    /// The ball.
    pub fn ball(&self) -> Ball {
        Ball {
            norm: self.norm,
            radius: self.radius.value(),
        }
    }
}

/// The final figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// `test`, or `holdout` while settings are being chosen.
    pub split: SplitName,
    /// Images at a time.
    pub batch_size: usize,
    /// Of PGD.
    pub steps: usize,
    /// Of PGD, in pixels; a quarter of the radius where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Pixels>,
    /// More attacks, after PGD: `"autoattack"`, another suite or attack by name, or a list of attacks with their settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack: Option<Suite>,
    /// These attacks see only so many of the images, the same share of each class: they take long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack_limit: Option<usize>,
    /// What `--measure` asks for is measured on so many of the images at most, the same share of each class; 500 where it
    /// is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure_limit: Option<usize>,
    /// Certified accuracy by randomised smoothing, which `--measure smoothing` asks for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub smoothing: Smoothing,
    /// The adversarial patch of `--measure patch`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub patch: Patch,
    /// Whether it is checked that the figures can be believed. They are the same without.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    #[schemars(extend("default" = true))]
    pub soundness: bool,
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn one() -> usize {
    1
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Several runs of the recipe, side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// In place of `seed`, a run each.
    pub seeds: Vec<u64>,
    /// Whom the other methods are held against; AdvCL where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
}

/// Which images are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SplitName {
    /// The test set.
    Test,
    /// The part of the training set that was kept out (`data.holdout`), or else the validation images.
    Holdout,
}

impl Recipe {
    /// A shipped recipe by name, or one from a file; `overrides` are `KEY = VALUE` texts, applied in order. A
    /// value in braces replaces the whole table of that name; any other value replaces one key.
    ///
    /// # Errors
    /// [`Error::Recipe`] with file, line and column; [`Error::Io`].
    pub fn load(name: &str, overrides: &[String]) -> Result<Self> {
        let (place, text) = Self::source(name)?;
        Self::parse(&place, &text, overrides)
    }

    /// Where a recipe stands and its text.
    ///
    /// # Errors
    /// As [`Recipe::load`].
    pub fn source(name: &str) -> Result<(String, String)> {
        if let Some((name, _, text)) = SHIPPED.iter().find(|(shipped, ..)| *shipped == name) {
            return Ok((format!("{name} (shipped)"), (*text).to_owned()));
        }
        let path = Path::new(name);
        if !path.exists() && !name.contains(['/', '\\', '.']) {
            let hint = nearest(name, SHIPPED.map(|(name, ..)| name));
            return Err(Error::recipe(
                name,
                "no shipped recipe of this name, and no such file",
                hint,
            ));
        }
        Ok((name.to_owned(), files::read_text(path)?))
    }

    /// A recipe from its text; `place` is for messages.
    ///
    /// # Errors
    /// [`Error::Recipe`] with line and column.
    pub fn parse(place: &str, text: &str, overrides: &[String]) -> Result<Self> {
        Self::parse_relocated(place, text, |_| (), overrides)
    }

    /// [`Recipe::parse`] with a change of the text's tables before the overrides: paths of files that
    /// were moved.
    pub(crate) fn parse_relocated(
        place: &str,
        text: &str,
        relocate: impl Fn(&mut Table),
        overrides: &[String],
    ) -> Result<Self> {
        let at = |error: toml::de::Error, text: &str, place: &str| {
            let offset = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = &text[..offset];
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            let problem = error.message().trim().replace('\n', "; ");
            Error::recipe(
                format!("{place}, line {line}, column {column}"),
                problem,
                "`advcl recipe keys` prints every key with its type and default",
            )
        };
        // Read once without overrides, so that errors have a line and a column.
        let _: Self = toml::from_str(text).map_err(|error| at(error, text, place))?;
        let mut table: Table = toml::from_str(text).map_err(|error| at(error, text, place))?;
        relocate(&mut table);
        for line in overrides {
            let place = format!("--set {line:?}");
            let text = as_toml(line);
            let change: Table = toml::from_str(&text).map_err(|error| at(error, &text, &place))?;
            clear_inline(&mut table, line, &change);
            merge(&mut table, change);
            // Checked one by one, so that the error names the override at fault.
            if let Err(error) = Value::Table(table.clone()).try_into::<Self>() {
                let key = error.message().trim().replace('\n', "; ");
                let hint = "keys are written in full, values as in TOML: --set 'pretrain.advcl.plan.epochs = 5'";
                return Err(Error::recipe(place, key, hint));
            }
        }
        expand_homes(&mut table);
        let recipe: Self = Value::Table(table)
            .try_into()
            .map_err(|error: toml::de::Error| Error::recipe(place, error.message(), ""))?;
        recipe.check(place)?;
        Ok(recipe)
    }

    /// Sources of images: names of embedded data sets, or paths.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        let downstream = self.downstream.as_ref();
        let downstream = downstream.map(|downstream| downstream.source.as_str());
        let unlabeled = self.data.unlabeled.iter().map(String::as_str);
        std::iter::once(self.data.source.as_str())
            .chain(unlabeled)
            .chain(downstream)
    }

    /// Paths of everything that the recipe names: images that are not embedded, and files of other runs.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let embedded = |source: &&str| data::EMBEDDED.contains(source);
        self.sources()
            .filter(move |source| !embedded(source))
            .chain(self.files())
    }

    /// Overrides that let at most `most` images pass an encoder at once: a `micro_batch` for every plan that trains one by
    /// larger batches.
    pub fn micro_batches(&self, most: usize) -> Vec<String> {
        self.encoder_plans()
            .filter(|(_, _, plan)| plan.batch_size > most)
            .map(|(table, name, _)| format!("{table}.{name:?}.plan.micro_batch = {most}"))
            .collect()
    }

    /// Plans by which encoders are trained, each with its table's parent and name.
    pub(crate) fn encoder_plans(&self) -> impl Iterator<Item = (&'static str, &str, &Plan)> {
        let pretrain = self.pretrain.entries().iter();
        let pretrain = pretrain.map(|entry| {
            let plan = entry.method().plan();
            ("pretrain", entry.name.as_str(), plan)
        });
        let finetune = self.finetune.entries().iter().filter_map(|entry| {
            let plan = entry.settings.plan.as_ref()?;
            let everything = entry.trains() == Trains::Everything;
            everything.then_some(("finetune", entry.name.as_str(), plan))
        });
        pretrain.chain(finetune)
    }

    /// How training batches are cut.
    pub fn sharding(&self) -> Sharding {
        Sharding {
            count: self.shards,
            batchnorm: self.batchnorm,
        }
    }

    /// Text of the recipe, every key written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables of plain values")
    }

    /// Of a comparison; the one seed where the recipe has none.
    pub fn seeds(&self) -> Vec<u64> {
        self.compare
            .as_ref()
            .map_or(vec![self.seed], |compare| compare.seeds.clone())
    }

    /// Whom a comparison holds the other methods against.
    pub fn baseline(&self) -> Option<&str> {
        let named = self
            .compare
            .as_ref()
            .and_then(|compare| compare.baseline.as_deref());
        let name = named.unwrap_or("advcl");
        self.pretrain.get(name).map(|entry| entry.name.as_str())
    }

    /// The ball that a method's attacks stay within: the threat model's, or one of the method's own radius.
    pub fn attack_ball(&self, entry: &pretrain::Entry) -> Ball {
        let mut ball = self.threat.ball();
        if let Some(own) = &entry.common().attack_radius {
            ball.radius = own.value();
        }
        ball
    }

    /// The numbers of clusters.
    pub fn cluster_counts(&self) -> &[usize] {
        self.cluster.as_ref().map_or(&[], |cluster| &cluster.counts)
    }
}

/// Takes out the table that `line` (`a.b = { … }`, parsed: `change`) writes anew, so that nothing of it is merged.
fn clear_inline(table: &mut Table, line: &str, change: &Table) {
    // The key alone, parsed as TOML: what it nests ends in the zero, whatever quotes and dots are in it.
    let key = line.split('=').next().unwrap_or_default();
    let Ok(key) = toml::from_str::<Table>(&format!("{key} = 0")) else {
        return;
    };
    let (mut key, mut change, mut table) = (&key, change, table);
    while let Some((name, inner)) = key.iter().next() {
        match (inner, change.get(name)) {
            (Value::Table(inner), Some(Value::Table(changed))) => {
                let Some(Value::Table(below)) = table.get_mut(name) else {
                    return;
                };
                (key, change, table) = (inner, changed, below);
            }
            (_, Some(Value::Table(_))) => {
                table.remove(name);
                return;
            }
            _ => return,
        }
    }
}

/// An override as TOML: with quotes around a text that lost them to a shell (`data.source=./images`), unchanged otherwise.
pub fn as_toml(line: &str) -> Cow<'_, str> {
    match toml::from_str::<Table>(line) {
        Ok(_) => Cow::Borrowed(line),
        Err(_) => quoted(line).map_or(Cow::Borrowed(line), Cow::Owned),
    }
}

fn quoted(line: &str) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    let value = value.trim();
    let plain = !value.is_empty() && !value.contains(['"', '\'', '[', ']', '{', '}', '\n', '#']);
    let text = format!("{} = '{value}'", key.trim());
    (plain && toml::from_str::<Table>(&text).is_ok()).then_some(text)
}

/// What can be said of images that a model file is used on; the rest of their reading is the model's.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ForModel {
    data: ForModelImages,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ForModelImages {
    background: Option<[u8; 3]>,
    max_pixels: Option<usize>,
    damaged: Damaged,
}

/// How images are read for a model file, which brings `reading` and has no recipe, with overrides of `data.background`,
/// `data.max_pixels` and `data.damaged`.
///
/// # Errors
/// [`Error::Recipe`] for other keys, and for impossible values.
pub fn reading_with(reading: Reading, overrides: &[String]) -> Result<(Reading, Damaged)> {
    let (mut table, mut found) = (Table::new(), ForModel::default());
    for line in overrides {
        let refused = |error: toml::de::Error| {
            let problem = error.message().trim().replace('\n', "; ");
            let hint = "a model file has no recipe: data.background, data.max_pixels and data.damaged can be set for its images";
            Error::recipe(format!("--set {line:?}"), problem, hint)
        };
        merge(&mut table, toml::from_str(&as_toml(line)).map_err(refused)?);
        found = Value::Table(table.clone()).try_into().map_err(refused)?;
    }
    let ForModel { data } = found;
    if data.max_pixels == Some(0) {
        let problem = "expected 1 or more, found 0";
        return Err(Error::recipe(
            "data.max_pixels",
            problem,
            "leave it out for the usual limit",
        ));
    }
    let reading = Reading {
        background: data.background.or(reading.background),
        max_pixels: data.max_pixels.or(reading.max_pixels),
        ..reading
    };
    Ok((reading, data.damaged))
}

/// Expands `~/` at the beginning of paths: of images, and of other runs' files.
fn expand_homes(table: &mut Table) {
    fn expand(value: &mut Value) {
        match value {
            Value::String(text) => *text = files::expand_home(text),
            Value::Array(values) => values.iter_mut().for_each(expand),
            _ => {}
        }
    }
    for name in ["data", "downstream"] {
        if let Some(Value::Table(inner)) = table.get_mut(name) {
            for key in ["source", "unlabeled"] {
                inner.get_mut(key).into_iter().for_each(expand);
            }
        }
    }
    if let Some(Value::Table(cluster)) = table.get_mut("cluster") {
        for key in ["model", "labels_file"] {
            cluster.get_mut(key).into_iter().for_each(expand);
        }
    }
    if let Some(Value::Table(methods)) = table.get_mut("pretrain") {
        // Whatever a method calls them: no other text of a method begins in this way.
        let settings = methods
            .iter_mut()
            .filter_map(|(_, value)| value.as_table_mut());
        settings.flatten().for_each(|(_, value)| expand(value));
    }
}

/// Puts `change` over `table`, table by table.
fn merge(table: &mut Table, change: Table) {
    for (key, value) in change {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(change)) => merge(inner, change),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smoke(set: &str) -> Result<Recipe> {
        Recipe::load("smoke", &[set.to_owned()])
    }

    #[test]
    fn braces_replace_a_table_and_dots_change_one_key() {
        let schedule = |recipe: Result<Recipe>| {
            recipe.expect("a recipe").finetune.entries()[0]
                .settings
                .plan
                .as_ref()
                .expect("a plan")
                .schedule
                .clone()
        };
        let replaced = "finetune.slf.plan.schedule = { cosine = { warmup_epochs = 1 } }";
        let cosine = crate::train::Schedule::Cosine {
            warmup_epochs: 1,
            warmup_from: 0.0,
        };
        assert_eq!(schedule(smoke(replaced)), cosine);
        // A part of a table in braces is not the table.
        assert!(smoke("evaluate = { steps = 4 }").is_err());
        let merged = smoke("evaluate.steps = 4").expect("a recipe").evaluate;
        assert_eq!((merged.steps, merged.batch_size), (4, 100));
        // A table that was not there.
        let weak = smoke("pretrain.advcl.weak = {}").expect("a recipe");
        assert_eq!(weak, smoke("seed = 0").expect("a recipe"));
    }

    #[test]
    fn step_sizes_may_be_left_out() {
        let kept = |line: &&str| !line.contains("step_size");
        let text: Vec<&str> = SHIPPED[1].2.lines().filter(kept).collect();
        let text = text.join("\n");
        let recipe = Recipe::parse("smoke", &text, &[]).expect("a recipe");
        assert_eq!(recipe.evaluate.step_size, None);
        assert!(!recipe.to_toml().contains("step_size"));
        let ball = recipe.threat.ball();
        assert_eq!(crate::attack::Pgd::new(3, None, ball).step_size, 0.025);
    }

    #[test]
    fn steps_that_do_not_suit_the_radius_are_said() {
        let notes = |set: &[&str], trains: bool| {
            let set: Vec<String> = set.iter().map(|&line| line.to_owned()).collect();
            let recipe = Recipe::load("smoke", &set).expect("a recipe");
            recipe.notes_of_steps(trains)
        };
        // No shipped recipe has such steps, and a patch is within no radius.
        for (name, ..) in SHIPPED {
            let recipe = Recipe::load(name, &["evaluate.patch.steps = 1".to_owned()]);
            let notes = recipe.expect("a recipe").notes_of_steps(true);
            assert!(notes.is_empty(), "{name}: {notes:?}");
        }
        let far = [
            "threat = { norm = 'l2', radius = '0.5' }",
            "evaluate.steps = 9",
        ];
        let of_evaluation = "evaluate.step_size: 9 steps of 0.05 do not reach the radius of 0.5; 0.125 fits, a quarter of the radius, \
                             as where the key is left out";
        assert_eq!(notes(&far, false), [of_evaluation]);
        let all = notes(&far, true);
        assert!(all.contains(&of_evaluation.to_owned()), "{all:?}");
        let of_method = "pretrain.advcl.attack_step_size: 2 steps of 0.05 do not reach the radius of 0.5; 0.25 fits";
        assert!(all.contains(&of_method.to_owned()), "{all:?}");
        let of_mode = "finetune.aff = { loss.pgd = { steps = 5, step_size = '0.05' }, plan = { epochs = 1, batch_size = 50, lr = 0.1, momentum = 0.9, weight_decay = 0.0, schedule.cosine = {} } }";
        let near = notes(&["threat.radius = '4/255'", of_mode], true);
        for key in [
            "evaluate.step_size",
            "pretrain.advcl.attack_step_size",
            "finetune.aff.loss.pgd.step_size",
        ] {
            let words = format!("{key}: steps of 0.05 are longer than the radius of 4/255; ");
            let said = near.iter().any(|note| note.starts_with(&words));
            assert!(said, "{key}: {near:?}");
        }
        // A method's own radius counts in the place of the threat model's.
        let own = notes(&["pretrain.advcl.attack_radius = 0.3"], true);
        let of_method = "pretrain.advcl.attack_step_size: 2 steps of 0.05 do not reach the radius of 0.3; 0.15 fits";
        assert_eq!(own, [of_method]);
        // What is advised suits; so does a single step that may cross the ball, and no step suits a ball of a point.
        for set in [
            &[
                "threat.radius = 0.5",
                "evaluate.step_size = 0.125",
                "evaluate.steps = 4",
            ][..],
            &["threat.radius = '4/255'", "evaluate.steps = 1"],
            &["threat.radius = 0"],
        ] {
            assert_eq!(notes(set, false), [""; 0], "{set:?}");
        }
    }

    #[test]
    fn settings_of_trainings_that_change_nothing_are_said() {
        let notes = |name: &str, set: &[&str]| {
            let set: Vec<String> = set.iter().map(|&line| line.to_owned()).collect();
            let recipe = Recipe::load(name, &set).expect("a recipe");
            recipe.notes_of_plans()
        };
        for (name, ..) in SHIPPED {
            assert_eq!(notes(name, &[]), [""; 0], "{name}");
        }
        // Of five epochs the last comes after the fourth.
        let milestones = |list: &str| {
            let set = format!("finetune.slf.plan.schedule.steps.milestones = {list}");
            notes("smoke", &[&set])
        };
        assert_eq!(milestones("[0, 4]"), [""; 0]);
        let late = "finetune.slf.plan.schedule.steps.milestones: no epoch comes after 5, 20 of 5 epochs, so the learning rate is not \
                    divided there; expected less than 5";
        assert_eq!(milestones("[3, 5, 20]"), [late]);
        // Every plan of a method counts.
        let head = "pretrain.\"dynacl++\".head_plan.schedule.steps.milestones = [10]";
        let late = "pretrain.dynacl++.head_plan.schedule.steps.milestones: no epoch comes after 10 of 10 epochs, so the learning rate is \
                    not divided there; expected less than 10";
        assert_eq!(notes("compare-quick", &[head]), [late]);

        for (method, key) in [("dynacl", "dynacl"), ("advcl+", "\"advcl+\"")] {
            let period = |period: usize, epochs: usize| {
                let [period, epochs] = [
                    format!("pretrain.{key}.period = {period}"),
                    format!("pretrain.{key}.plan.epochs = {epochs}"),
                ];
                notes("compare-fashion", &[&period, &epochs])
            };
            assert_eq!(period(3, 4), [""; 0]);
            assert_eq!(period(1, 1), [""; 0]);
            let never = format!(
                "pretrain.{method}.period: with a period of 4 and 4 epochs the augmentation never weakens; expected less than 4"
            );
            assert_eq!(period(4, 4), [never]);
        }

        let probe = |every: usize| {
            let every = format!("probe.every = {every}");
            notes("smoke", &[&every, "pretrain.advcl.plan.epochs = 5"])
        };
        assert_eq!(probe(2), [""; 0]);
        let never = "probe.every: encoders with fewer epochs than 3 are never probed: pretrain.simclr (2), \
                     pretrain.adversarial-training (2)";
        assert_eq!(probe(3), [never]);
    }

    #[test]
    fn impossible_values_are_named() {
        for (set, words) in [
            ("evaluate.steps = 0", "evaluate.steps: expected 1 or more"),
            (
                "pretrain.advcl.attack_steps = 0",
                "attack_steps: expected 1 or more",
            ),
            (
                "pretrain.adversarial-training.attack_steps = 0",
                "pretrain.adversarial-training.attack_steps: expected 1 or more",
            ),
            (
                "pretrain.adversarial-training.weak.flip = 2",
                "pretrain.adversarial-training.weak: ",
            ),
            (
                "pretrain.adversarial-training.plan.batch_size = 1",
                "pretrain.adversarial-training.plan.batch_size: expected 2 or more",
            ),
            (
                "evaluate.smoothing.samples = 5",
                "evaluate.smoothing.samples: expected 10 to 1000000, found 5",
            ),
            (
                "evaluate.smoothing.alpha = nan",
                "evaluate.smoothing.alpha: expected more than 0, at most 0.5, found NaN",
            ),
            (
                "evaluate.patch.size = 1.5",
                "evaluate.patch.size: expected more than 0, at most 1, found 1.5",
            ),
            (
                "evaluate.patch.step_size = 0",
                "evaluate.patch.step_size: expected more than 0",
            ),
            (
                "cluster.iterations = 0",
                "cluster.iterations: expected 1 or more",
            ),
            (
                "pretrain.simclr.plan.schedule.cosine.warmup_from = inf",
                "warmup_from: expected a number from 0 to 1000",
            ),
            (
                "cluster = { counts = [2], restarts = 1, iterations = 1, model = 'a', labels_file = 'b' }",
                "labels_file and model cannot both",
            ),
        ] {
            let error = smoke(set).expect_err(set).to_string();
            assert!(error.contains(words), "{set}: {error}");
        }
        smoke("cluster.counts = []").expect("no pseudo-labels at all");
    }

    #[test]
    fn a_radius_that_leaves_nothing_is_refused_with_the_largest_that_does() {
        let data = crate::data::load("fashion-mnist-12k").expect("the embedded set");
        let check = |radius: &str| {
            let set = format!("pretrain.advcl.high_frequency_radius = {radius}");
            smoke(&set).expect("a recipe").check_data(&data)
        };
        check("19.79").expect("one frequency is left");
        let error = check("19.9").expect_err("nothing is left");
        assert!(
            error
                .to_string()
                .contains("pretrain.advcl.high_frequency_radius"),
            "{error}"
        );
        assert!(
            error.hint().is_some_and(|hint| hint.ends_with("is 19.79")),
            "{error:?}"
        );
    }
}
