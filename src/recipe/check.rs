//! What makes a recipe impossible: checked at the door, named by its key.

use super::{Method, Recipe, SplitName};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::train::{Plan, Schedule};
use crate::view::HighFrequency;

/// Where a recipe stands, for messages; its methods refuse a key's value.
#[derive(Clone, Copy)]
struct Check<'a> {
    place: &'a str,
}

impl Check<'_> {
    fn refuse(self, key: &str, problem: impl Into<String>, hint: &str) -> Result<()> {
        let place = format!("{}, {key}", self.place);
        Err(Error::recipe(place, problem, hint))
    }

    fn in_range(self, key: &str, value: f64, low: f64, high: f64) -> Result<()> {
        if value >= low && value <= high {
            return Ok(());
        }
        let problem = format!("expected a number from {low} to {high}, found {value}");
        self.refuse(key, problem, "")
    }

    fn at_least_one(self, key: &str, value: usize) -> Result<()> {
        match value {
            0 => self.refuse(key, "expected 1 or more, found 0", ""),
            _ => Ok(()),
        }
    }

    fn views(self, key: &str, outcome: Result<(), String>) -> Result<()> {
        outcome.or_else(|problem| self.refuse(key, problem, ""))
    }

    fn plan(self, key: &str, plan: &Plan) -> Result<()> {
        let key = |name: &str| format!("{key}.plan.{name}");
        self.at_least_one(&key("epochs"), plan.epochs)?;
        if plan.batch_size < 2 {
            // BatchNorm has no variance, and the contrastive loss no negatives, in a batch of one.
            let problem = format!("expected 2 or more, found {}", plan.batch_size);
            return self.refuse(&key("batch_size"), problem, "");
        }
        let warmup_from = match &plan.schedule {
            Schedule::Cosine { warmup_from, .. } => *warmup_from,
            Schedule::Steps { .. } => 0.0,
        };
        for (name, value, high) in [
            ("lr", plan.lr, 1e3),
            ("schedule.cosine.warmup_from", warmup_from, 1e3),
            ("momentum", plan.momentum, 1.0),
            ("weight_decay", plan.weight_decay, 1.0),
        ] {
            self.in_range(&key(name), value, 0.0, high)?;
        }
        match &plan.schedule {
            Schedule::Cosine { warmup_epochs, .. } if *warmup_epochs > plan.epochs => {
                let problem = format!("{warmup_epochs} warm-up epochs of {} epochs", plan.epochs);
                self.refuse(&key("schedule.cosine.warmup_epochs"), problem, "")
            }
            _ => Ok(()),
        }
    }
}

impl Recipe {
    /// What can be known to be impossible before any data is read.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        let check = Check { place };
        if self.encoder.width == 0 || self.encoder.width > 1024 {
            let found = self.encoder.width;
            let problem = format!("expected 1 to 1024 channels, found {found}");
            return check.refuse("encoder.width", problem, "");
        }
        check.in_range("data.holdout", self.data.holdout, 0.0, 0.9)?;
        if self.evaluate.split == SplitName::Holdout && self.data.holdout == 0.0 {
            let problem = "holdout images are to be evaluated, but none are held out";
            return check.refuse("evaluate.split", problem, "set data.holdout to 0.2, say");
        }
        self.check_methods(check)?;
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
        check.plan("finetune", &self.finetune.plan)?;
        check.at_least_one("evaluate.batch_size", self.evaluate.batch_size)?;
        check.at_least_one("evaluate.steps", self.evaluate.steps)
    }

    /// The tables below `[pretrain]`.
    fn check_methods(&self, check: Check) -> Result<()> {
        let methods = self.methods();
        if methods.is_empty() {
            let hint = "add a table [pretrain.simclr] or [pretrain.advcl]";
            return check.refuse("pretrain", "no method to pretrain with", hint);
        }
        for method in methods {
            let table = format!("pretrain.{}", method.name());
            let key = |name: &str| format!("{table}.{name}");
            if let Some(plan) = self.pretrain.plan(method) {
                check.plan(&table, plan)?;
            }
            match method {
                Method::Simclr => {
                    let Some(simclr) = &self.pretrain.simclr else {
                        continue;
                    };
                    check.in_range(&key("temperature"), simclr.temperature, 0.01, 100.0)?;
                    check.views(&key("strong"), simclr.strong.check())?;
                }
                Method::Advcl => {
                    let Some(advcl) = &self.pretrain.advcl else {
                        continue;
                    };
                    check.in_range(&key("temperature"), advcl.temperature, 0.01, 100.0)?;
                    check.in_range(&key("cluster_weight"), advcl.cluster_weight, 0.0, 1e6)?;
                    let radius = f64::from(advcl.high_frequency_radius);
                    check.in_range(&key("high_frequency_radius"), radius, 0.0, 1e6)?;
                    check.at_least_one(&key("attack_steps"), advcl.attack_steps)?;
                    check.views(&key("strong"), advcl.strong.check())?;
                    check.views(&key("weak"), advcl.weak.check())?;
                }
                Method::AdversarialTraining => {
                    let Some(training) = &self.pretrain.adversarial_training else {
                        continue;
                    };
                    check.at_least_one(&key("attack_steps"), training.attack_steps)?;
                    check.views(&key("weak"), training.weak.check())?;
                }
            }
            if !method.clustered() {
                continue;
            }
            match &self.cluster {
                None => {
                    let problem = format!("{} needs pseudo-labels", method.title());
                    let hint = "add a table [cluster]; counts = [] trains without pseudo-labels";
                    return check.refuse("cluster", problem, hint);
                }
                Some(cluster) if !cluster.is_given() && self.pretrain.simclr.is_none() => {
                    let problem = "no features to cluster: there is no [pretrain.simclr]";
                    let hint = "add it, or name a cluster.model or a cluster.labels_file";
                    return check.refuse("cluster", problem, hint);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// What is impossible with this data set.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the key.
    pub fn check_data(&self, data: &Dataset) -> Result<()> {
        let images = data.train.images.len();
        let own = |method: &Method| {
            let plan = self.pretrain.plan(*method)?;
            Some((format!("pretrain.{}", method.name()), plan))
        };
        let finetune = ("finetune".to_owned(), &self.finetune.plan);
        for (key, plan) in Method::ALL.iter().filter_map(own).chain([finetune]) {
            if plan.batch_size > images {
                let batch = plan.batch_size;
                let problem =
                    format!("a batch of {batch} is larger than the {images} training images");
                let hint = format!(
                    "--set '{key}.plan.batch_size = {}'",
                    images.min(batch / 2).max(2)
                );
                return Err(Error::recipe(
                    format!("{key}.plan.batch_size"),
                    problem,
                    hint,
                ));
            }
        }
        let (height, width) = (data.train.images.height, data.train.images.width);
        if let Some(advcl) = &self.pretrain.advcl
            && HighFrequency::new(height, width, advcl.high_frequency_radius).drops_everything()
        {
            let radius = advcl.high_frequency_radius;
            let problem = format!("nothing of {height} × {width} images is left beyond {radius}");
            let largest = HighFrequency::largest_radius(height, width);
            // Rounded down: the largest itself is an exact distance.
            let largest = (largest * 100.0).floor() / 100.0;
            let hint = format!("the largest useful radius for this size is {largest}");
            return Err(Error::recipe(
                "pretrain.advcl.high_frequency_radius",
                problem,
                hint,
            ));
        }
        if let Some(count) = self.cluster_counts().iter().find(|count| **count > images) {
            let problem = format!("{count} clusters of only {images} training images");
            return Err(Error::recipe(
                "cluster.counts",
                problem,
                "leave the largest numbers out",
            ));
        }
        Ok(())
    }
}
