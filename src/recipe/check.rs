//! What makes a recipe impossible.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::{Recipe, Threat};
use crate::attack::Norm;
use crate::check::Check;
use crate::data::{self, Dataset, Images};
use crate::error::{Error, Result, nearest};
use crate::finetune::{self, Trains};
use crate::nn::BatchNormOver;
use crate::pixels::Pixels;
use crate::pretrain::Entry;
use crate::train::{Plan, Schedule};

/// Ends of the keys of an attack's step size, number of steps, and radius.
const SIZE: &str = "step_size";
const STEPS: &str = "steps";
const RADIUS: &str = "radius";

/// Share of a distance that is rounding.
const ROUNDING: f64 = 1e-9;

impl Recipe {
    /// What can be known to be impossible before any data is read.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        let check = Check::new(place);
        if self.encoder.width == 0 || self.encoder.width > 1024 {
            let found = self.encoder.width;
            let problem = format!("expected 1 to 1024 channels, found {found}");
            return check.refuse("encoder.width", problem, "");
        }
        self.check_seeds(&check)?;
        let farthest = match self.threat.norm {
            Norm::Linf => Some(Norm::Linf.farthest(1)),
            // Known with the images.
            Norm::L2 => None,
        };
        self.check_distances(&check, farthest)?;
        check.in_range("checkpoint.minutes", self.checkpoint.minutes, 0.0, 1e6)?;
        check.in_range("data.test_share", self.data.test_share, 0.0, 0.9)?;
        if let Some(size) = self.data.size {
            let sides = size.sides();
            if sides
                .iter()
                .any(|side| !(1..=data::MAX_SIDE).contains(side))
            {
                let problem = format!("expected 1 to {} pixels, found {sides:?}", data::MAX_SIDE);
                return check.refuse("data.size", problem, "64, or [48, 96] for height and width");
            }
        }
        if let Some(most) = self.data.max_pixels {
            check.at_least_one("data.max_pixels", most)?;
        }
        check.in_range("data.holdout", self.data.holdout, 0.0, 0.9)?;
        let entries = self.pretrain.entries();
        if entries.is_empty() {
            let hint = "add a table [pretrain.simclr] or [pretrain.advcl]";
            return check.refuse("pretrain", "no method to pretrain with", hint);
        }
        for (place, entry) in entries.iter().enumerate() {
            self.check_entry(entry, &entries[..place], &check)?;
        }
        if let Some(probe) = &self.probe {
            check.at_least_one("probe.every", probe.every)?;
            check.at_least_one("probe.neighbours", probe.neighbours)?;
        }
        if let Some(cluster) = &self.cluster {
            check.at_least_one("cluster.restarts", cluster.restarts)?;
            check.at_least_one("cluster.iterations", cluster.iterations)?;
            if cluster.labels_file.is_some() && cluster.model.is_some() {
                let problem = "labels_file and model cannot both say what the labels are";
                return check.refuse("cluster", problem, "leave one of the two out");
            }
            let mut sorted = cluster.counts.clone();
            sorted.sort_unstable();
            sorted.dedup();
            if sorted.len() != cluster.counts.len() || sorted.first().is_some_and(|&k| k < 2) {
                let found = &cluster.counts;
                let problem = format!("expected different numbers, 2 or more, found {found:?}");
                return check.refuse("cluster.counts", problem, "");
            }
        }
        if self.finetune.entries().is_empty() {
            let hint = "add a table [finetune.slf], say";
            return check.refuse("finetune", "no finetuning mode", hint);
        }
        for entry in self.finetune.entries() {
            entry.check(&check.within("finetune", &entry.name))?;
        }
        self.check_shards(&check)?;
        check.at_least_one("evaluate.batch_size", self.evaluate.batch_size)?;
        check.at_least_one("evaluate.steps", self.evaluate.steps)?;
        if let Some(limit) = self.evaluate.measure_limit {
            check.at_least_one("evaluate.measure_limit", limit)?;
        }
        let checked = [
            ("smoothing", self.evaluate.smoothing.check()),
            ("patch", self.evaluate.patch.check()),
        ];
        for (table, checked) in checked {
            if let Err((key, problem)) = checked {
                return check.within("evaluate", table).refuse(key, problem, "");
            }
        }
        let Some(compare) = &self.compare else {
            return Ok(());
        };
        let different: BTreeSet<_> = compare.seeds.iter().collect();
        if compare.seeds.is_empty() || different.len() != compare.seeds.len() {
            let problem = format!("expected different seeds, found {:?}", compare.seeds);
            return check.refuse("compare.seeds", problem, "[0, 1, 2], say");
        }
        match compare.baseline.as_deref() {
            Some(name) if self.pretrain.get(name).is_none() => {
                let names = entries.iter().map(|entry| entry.name.as_str());
                let problem = format!("the recipe has no table [pretrain.{name}]");
                check.refuse("compare.baseline", problem, nearest(name, names))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a radius or a step size that reaches beyond every image, which are at most `farthest` apart, and steps of no
    /// size: nobody would be attacked.
    fn check_distances(&self, check: &Check, farthest: Option<f64>) -> Result<()> {
        let norm = self.threat.norm;
        let radius = self.threat.radius.value();
        if let Some((problem, hint)) = beyond(norm, radius, farthest) {
            return check.refuse("threat.radius", problem, hint);
        }
        for entry in self.pretrain.entries() {
            let own = entry.common().attack_radius.as_ref();
            if let Some((problem, hint)) = own.and_then(|own| beyond(norm, own.value(), farthest)) {
                let check = check.within("pretrain", &entry.name);
                return check.refuse("attack_radius", problem, hint);
            }
        }
        for StepSize { key, size, .. } in self.step_sizes() {
            if size.value() == 0.0 {
                return check.refuse(&key, "expected more than 0, found 0", "");
            }
            if let Some((problem, hint)) = beyond(norm, size.value(), farthest) {
                return check.refuse(&key, problem, hint);
            }
        }
        Ok(())
    }

    /// The step sizes that the recipe has, whatever method or mode they are of.
    fn step_sizes(&self) -> Vec<StepSize> {
        let table = Table::try_from(self).expect("tables of plain values");
        let tables = tables(&table).into_iter();
        tables
            .flat_map(|(place, table)| step_sizes(&place, table))
            .collect()
    }

    /// Sentences about step sizes that do not suit the radius: attacks that cannot reach it, and steps that are longer than it. Those of
    /// the evaluation alone, unless encoders or classifiers are trained too.
    pub fn notes_of_steps(&self, trains: bool) -> Vec<String> {
        // A patch is within no radius.
        let attacks = (self.step_sizes().into_iter()).filter(|one| {
            let key = one.key.as_str();
            key == "evaluate.step_size" || (trains && !key.starts_with("evaluate."))
        });
        let note = |StepSize {
                        key,
                        size,
                        steps,
                        radius: within,
                    }: StepSize| {
            let within = within.as_ref().unwrap_or(&self.threat.radius);
            let radius = within.value();
            let steps = steps.filter(|_| radius > 0.0)?;
            let problem = if size.value() * (steps as f64) < radius * (1.0 - ROUNDING) {
                format!("{steps} steps of {size} do not reach the radius of {within}")
            } else if steps > 1 && size.value() > radius * (1.0 + ROUNDING) {
                format!("steps of {size} are longer than the radius of {within}")
            } else {
                return None;
            };
            let fitting = match steps {
                4.. => format!(
                    "{} fits, a quarter of the radius, as where the key is left out",
                    radius / 4.0
                ),
                few => format!("{} fits", radius / few as f64),
            };
            Some(format!("{key}: {problem}; {fitting}"))
        };
        attacks.filter_map(note).collect()
    }

    /// Sentences about settings of the trainings that change nothing: milestones and periods that no epoch comes after, and a probe that
    /// is never due.
    pub fn notes_of_plans(&self) -> Vec<String> {
        let table = Table::try_from(self).expect("tables of plain values");
        let tables = tables(&table).into_iter();
        let mut notes: Vec<String> = tables
            .filter_map(|(place, table)| late_milestones(&place, table))
            .collect();
        let entries = self.pretrain.entries();
        notes.extend(entries.iter().filter_map(|entry| {
            let (key, reason) = entry.method().without_effect()?;
            Some(format!("pretrain.{}.{key}: {reason}", entry.name))
        }));
        if let Some(probe) = &self.probe {
            let epochs = |entry: &Entry| entry.method().plan().epochs;
            let shorter = entries.iter().filter(|entry| epochs(entry) < probe.every);
            let names: Vec<String> = shorter
                .map(|entry| format!("pretrain.{} ({})", entry.name, epochs(entry)))
                .collect();
            if !names.is_empty() {
                notes.push(format!(
                    "probe.every: encoders with fewer epochs than {} are never probed: {}",
                    probe.every,
                    names.join(", ")
                ));
            }
        }
        notes
    }

    /// Refuses more shards than the batches have images for.
    fn check_shards(&self, check: &Check) -> Result<()> {
        check.at_least_one("shards", self.shards)?;
        for (table, name, plan) in self.encoder_plans() {
            let whose = format!("which is {table}.{name}.plan.batch_size");
            let hint = "take fewer shards or larger batches";
            self.check_parts(check, (plan.batch_size, whose, hint), Trains::Everything)?;
            if self.batchnorm == BatchNormOver::Global && plan.micro_batch.is_some() {
                let problem = format!(
                    "\"global\" and {table}.{name}.plan.micro_batch: BatchNorm over the whole batch wants all of it in memory"
                );
                return check.refuse("batchnorm", problem, "leave one of the two out");
            }
        }
        for entry in self.finetune.entries() {
            self.check_labeled(check, entry, usize::MAX)?;
        }
        Ok(())
    }

    /// Refuses more shards than there are images for in the batches of a finetuning mode with so many labeled images: where they are
    /// fewer than a batch, all of them are one.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the key.
    pub(crate) fn check_labeled(
        &self,
        check: &Check,
        entry: &finetune::Entry,
        labeled: usize,
    ) -> Result<()> {
        let name = &entry.name;
        match &entry.settings.plan {
            Some(plan) if entry.encodes() => {
                let batch = match plan.batch_size <= labeled {
                    true => (
                        plan.batch_size,
                        format!("which is finetune.{name}.plan.batch_size"),
                        "take fewer shards or larger batches",
                    ),
                    false => (
                        labeled,
                        format!("the labeled ones of finetune.{name}"),
                        "take fewer shards, or more images with labels",
                    ),
                };
                self.check_parts(check, batch, entry.trains())
            }
            _ => Ok(()),
        }
    }

    /// Refuses more shards than a batch of so many images, with words for them and a hint, has images for. BatchNorm has no variance in
    /// a shard of one; that of a frozen encoder does without.
    fn check_parts(
        &self,
        check: &Check,
        (images, whose, hint): (usize, String, &str),
        trains: Trains,
    ) -> Result<()> {
        let (least, words) = match trains {
            Trains::Everything => (2, "2 images"),
            Trains::Head => (1, "1 image"),
        };
        if self.shards == 1 || images / least >= self.shards {
            return Ok(());
        }
        let problem = format!(
            "{} shards of {images} images, {whose}: expected {words} a shard at least",
            self.shards
        );
        check.refuse("shards", problem, hint)
    }

    /// Refuses distances that reach beyond every image of this size.
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe) naming the key.
    pub fn check_images(&self, images: &Images) -> Result<()> {
        let farthest = self.threat.norm.farthest(images.image_len());
        self.check_distances(&Check::new(""), Some(farthest))
    }

    /// Seeds are kept in TOML, whose whole numbers have 64 bits with a sign.
    fn check_seeds(&self, check: &Check) -> Result<()> {
        let most = i64::MAX as u64;
        let compared = self.compare.iter().flat_map(|compare| &compare.seeds);
        let named = compared.map(|seed| ("compare.seeds", seed));
        match named
            .chain([("seed", &self.seed)])
            .find(|(_, seed)| **seed > most)
        {
            Some((key, seed)) => {
                let problem = format!("expected 0 to {most}, found {seed}");
                check.refuse(key, problem, "choose a smaller one")
            }
            None => Ok(()),
        }
    }

    /// A table below `[pretrain]`, and what it needs of the rest; `earlier` are those that are made before it.
    fn check_entry(&self, entry: &Entry, earlier: &[Entry], whole: &Check) -> Result<()> {
        let check = whole.within("pretrain", &entry.name);
        let method = entry.method();
        check.plan("plan", method.plan())?;
        method.check(&check)?;
        let common = entry.common();
        common.check(method.attacks(), method.starts_at(), &check)?;
        let sources = [
            ("learns from", method.source()),
            ("begins at", common.init.as_deref()),
        ];
        for (does, source) in sources {
            let Some(source) = source else { continue };
            let there = earlier.iter().any(|entry| entry.name == source);
            if !there && !is_path(source) {
                let title = entry.title();
                if source == entry.name {
                    let hint = "name a model file, or a method that comes before";
                    return check.refuse("", format!("{title} {does} itself"), hint);
                }
                if self.pretrain.get(source).is_some() {
                    let problem = format!("{title} {does} {source:?}, which is made after it");
                    let hint = "name a model file of another run, or a method that comes before";
                    return check.refuse("", problem, hint);
                }
                let problem = format!("{title} {does} {source:?}: there is none");
                let hint = format!("add a table [pretrain.{source}], or name a model file");
                return check.refuse("", problem, hint);
            }
        }
        if !method.clustered() {
            return Ok(());
        }
        let Some(cluster) = &self.cluster else {
            let problem = format!("{} needs pseudo-labels", entry.title());
            let hint = "add a table [cluster]; counts = [] trains without pseudo-labels";
            return whole.refuse("cluster", problem, hint);
        };
        let asked = method.cluster_counts().unwrap_or_default();
        if let Some(count) = asked.iter().find(|count| !cluster.counts.contains(count)) {
            let problem = format!("{count} is not one of cluster.counts, {:?}", cluster.counts);
            return check.refuse("clusters", problem, "add it there");
        }
        if !cluster.is_given() && self.pretrain.get("simclr").is_none() {
            let problem = "no features to cluster: there is no [pretrain.simclr]";
            let hint = "add it, or name a cluster.model or a cluster.labels_file";
            return whole.refuse("cluster", problem, hint);
        }
        Ok(())
    }

    /// What is impossible with this data set.
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe) naming the key.
    pub fn check_data(&self, data: &Dataset) -> Result<()> {
        let images = data.train.images.len();
        let whole = Check::new("");
        for entry in self.pretrain.entries() {
            let check = whole.within("pretrain", &entry.name);
            check.batch("plan", entry.method().plan(), images)?;
            entry.method().check_images(&data.train.images, &check)?;
        }
        if let Some(count) = self.cluster_counts().iter().find(|count| **count > images) {
            let problem = format!("{count} clusters of only {images} training images");
            let hint = "leave the largest numbers out";
            return whole.refuse("cluster.counts", problem, hint);
        }
        Ok(())
    }
}

impl Threat {
    /// Refuses a radius of 0, and one that reaches beyond every image; `values` is the number of values of an image.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) naming the option `--radius`.
    pub fn require_possible(&self, values: usize) -> Result<()> {
        let (radius, usual) = (
            self.radius.value(),
            "pixels are in [0, 1]: \"8/255\" is usual",
        );
        if radius == 0.0 {
            let problem = "expected more than 0, found 0: nothing would be changed";
            return Err(Error::input("--radius", problem, usual));
        }
        match beyond(self.norm, radius, Some(self.norm.farthest(values))) {
            Some((problem, hint)) => Err(Error::input("--radius", problem, hint)),
            None => Ok(()),
        }
    }
}

/// Problem of a distance that is longer than the longest one, and a hint; none of one that is not.
fn beyond(norm: Norm, value: f64, farthest: Option<f64>) -> Option<(String, &'static str)> {
    let most = farthest.filter(|most| value > *most)?;
    let (most, apart, hint) = match norm {
        Norm::Linf => (
            "1".to_owned(),
            "the distance of black and white",
            "pixels are in [0, 1]: \"8/255\" is usual",
        ),
        Norm::L2 => (
            format!("{most:.2}"),
            "the largest distance of images of this size",
            "pixels are in [0, 1]: 0.5 is usual for small images, 3 for large ones",
        ),
    };
    let problem = format!("expected at most {most}, {apart} within {norm}, found {value}");
    Some((problem, hint))
}

/// A step size of a recipe.
struct StepSize {
    /// Its key in full.
    key: String,
    size: Pixels,
    /// Number of steps beside it.
    steps: Option<usize>,
    /// Radius beside it, where that is not the threat model's.
    radius: Option<Pixels>,
}

/// A table and all tables inside it, the inner ones first, each with its key in full: an empty one for the table itself.
fn tables(table: &Table) -> Vec<(String, &Table)> {
    let mut found = Vec::new();
    for (key, value) in table {
        if let Value::Table(inner) = value {
            let inner = tables(inner).into_iter();
            found.extend(inner.map(|(below, table)| (full_key(key, &below), table)));
        }
    }
    found.push((String::new(), table));
    found
}

/// Key of what a table has under another key; either may be empty.
fn full_key(place: &str, key: &str) -> String {
    match (place, key) {
        ("", only) | (only, "") => only.to_owned(),
        (place, key) => format!("{place}.{key}"),
    }
}

/// The step sizes among a table's own values.
fn step_sizes(place: &str, table: &Table) -> Vec<StepSize> {
    let size = |(key, value): (&String, &Value)| {
        let which = key.strip_suffix(SIZE)?;
        let steps = table.get(&format!("{which}{STEPS}"));
        let steps = steps.and_then(Value::as_integer);
        let radius = table.get(&format!("{which}{RADIUS}"));
        let radius = radius.and_then(Value::as_str);
        Some(StepSize {
            key: full_key(place, key),
            size: value.as_str()?.parse().ok()?,
            steps: steps.and_then(|steps| steps.try_into().ok()),
            radius: radius.and_then(|radius| radius.parse().ok()),
        })
    };
    table.iter().filter_map(size).collect()
}

/// A sentence about the milestones that no epoch comes after, where a table is a plan, whatever it is called and whatever it is of.
fn late_milestones(place: &str, table: &Table) -> Option<String> {
    let plan: Plan = table.clone().try_into().ok()?;
    let Schedule::Steps { milestones } = &plan.schedule else {
        return None;
    };
    let late = milestones.iter().filter(|at| **at >= plan.epochs);
    let late: Vec<String> = late.map(usize::to_string).collect();
    if late.is_empty() {
        return None;
    }
    Some(format!(
        "{place}.schedule.steps.milestones: no epoch comes after {} of {} epochs, so the learning rate is not divided there; expected less than {}",
        late.join(", "),
        plan.epochs,
        plan.epochs
    ))
}

/// Whether an encoder's source is a file, and no method's name.
pub fn is_path(source: &str) -> bool {
    source.contains(['/', '\\', '.'])
}
