//! What makes a recipe impossible: checked at the door, named by its key.

use super::{Recipe, SplitName};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::train::{Plan, Schedule};
use crate::view::HighFrequency;

impl Recipe {
    /// What can be known to be impossible before any data is read.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        let refuse = |key: &str, problem: String, hint: &str| {
            Err(Error::recipe(format!("{place}, {key}"), problem, hint))
        };
        let in_range = |key: &str, value: f64, low: f64, high: f64| {
            if value >= low && value <= high {
                return Ok(());
            }
            refuse(
                key,
                format!("expected a number from {low} to {high}, found {value}"),
                "",
            )
        };
        let at_least_one = |key: &str, value: usize| match value {
            0 => refuse(key, "expected 1 or more, found 0".to_owned(), ""),
            _ => Ok(()),
        };
        if self.encoder.width == 0 || self.encoder.width > 1024 {
            let found = self.encoder.width;
            return refuse(
                "encoder.width",
                format!("expected 1 to 1024 channels, found {found}"),
                "",
            );
        }
        in_range("data.holdout", self.data.holdout, 0.0, 0.9)?;
        if self.evaluate.split == SplitName::Holdout && self.data.holdout == 0.0 {
            let problem = "holdout images are to be evaluated, but none are held out".to_owned();
            return refuse("evaluate.split", problem, "set data.holdout to 0.2, say");
        }
        if self.methods().is_empty() {
            let problem = "no method to pretrain with".to_owned();
            return refuse(
                "pretrain",
                problem,
                "add a table [pretrain.simclr] or [pretrain.advcl]",
            );
        }
        if let Some(simclr) = &self.pretrain.simclr {
            check_plan(place, "pretrain.simclr", &simclr.plan)?;
            in_range(
                "pretrain.simclr.temperature",
                simclr.temperature,
                0.01,
                100.0,
            )?;
            check_views(place, "pretrain.simclr.strong", simclr.strong.check())?;
        }
        if let Some(advcl) = &self.pretrain.advcl {
            check_plan(place, "pretrain.advcl", &advcl.plan)?;
            in_range("pretrain.advcl.temperature", advcl.temperature, 0.01, 100.0)?;
            in_range(
                "pretrain.advcl.cluster_weight",
                advcl.cluster_weight,
                0.0,
                1e6,
            )?;
            let radius = f64::from(advcl.high_frequency_radius);
            in_range("pretrain.advcl.high_frequency_radius", radius, 0.0, 1e6)?;
            at_least_one("pretrain.advcl.attack_steps", advcl.attack_steps)?;
            check_views(place, "pretrain.advcl.strong", advcl.strong.check())?;
            check_views(place, "pretrain.advcl.weak", advcl.weak.check())?;
            match &self.cluster {
                None => {
                    let hint = "add a table [cluster]; counts = [] trains without pseudo-labels";
                    return refuse("cluster", "AdvCL needs pseudo-labels".to_owned(), hint);
                }
                Some(cluster) if !cluster.is_given() && self.pretrain.simclr.is_none() => {
                    let problem =
                        "no features to cluster: there is no [pretrain.simclr]".to_owned();
                    let hint = "add it, or name a cluster.model or a cluster.labels_file";
                    return refuse("cluster", problem, hint);
                }
                Some(_) => {}
            }
        }
        if let Some(cluster) = &self.cluster {
            at_least_one("cluster.restarts", cluster.restarts)?;
            at_least_one("cluster.iterations", cluster.iterations)?;
            if cluster.labels_file.is_some() && cluster.model.is_some() {
                let problem =
                    "labels_file and model cannot both say what the labels are".to_owned();
                return refuse("cluster", problem, "leave one of the two out");
            }
            let mut sorted = cluster.counts.clone();
            sorted.sort_unstable();
            sorted.dedup();
            if sorted.len() != cluster.counts.len() || sorted.first().is_some_and(|&k| k < 2) {
                let problem = format!(
                    "expected different numbers, 2 or more, found {:?}",
                    cluster.counts
                );
                return refuse("cluster.counts", problem, "");
            }
        }
        check_plan(place, "finetune", &self.finetune.plan)?;
        at_least_one("evaluate.batch_size", self.evaluate.batch_size)?;
        at_least_one("evaluate.steps", self.evaluate.steps)
    }

    /// What is impossible with this data set.
    ///
    /// # Errors
    /// [`Error::Recipe`] naming the key.
    pub fn check_data(&self, data: &Dataset) -> Result<()> {
        let images = data.train.images.len();
        let plans = [
            (
                "pretrain.simclr",
                self.pretrain.simclr.as_ref().map(|s| &s.plan),
            ),
            (
                "pretrain.advcl",
                self.pretrain.advcl.as_ref().map(|s| &s.plan),
            ),
            ("finetune", Some(&self.finetune.plan)),
        ];
        for (key, plan) in plans {
            if let Some(plan) = plan.filter(|plan| plan.batch_size > images) {
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

fn check_views(place: &str, key: &str, outcome: Result<(), String>) -> Result<()> {
    outcome.map_err(|problem| Error::recipe(format!("{place}, {key}"), problem, ""))
}

fn check_plan(place: &str, key: &str, plan: &Plan) -> Result<()> {
    let refuse = |name: &str, problem: String| {
        Err(Error::recipe(
            format!("{place}, {key}.plan.{name}"),
            problem,
            "",
        ))
    };
    if plan.epochs == 0 {
        return refuse("epochs", "expected 1 or more, found 0".to_owned());
    }
    if plan.batch_size < 2 {
        // BatchNorm has no variance, and the contrastive loss no negatives, in a batch of one.
        return refuse(
            "batch_size",
            format!("expected 2 or more, found {}", plan.batch_size),
        );
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
        if !(value >= 0.0 && value <= high) {
            return refuse(
                name,
                format!("expected a number from 0 to {high}, found {value}"),
            );
        }
    }
    match &plan.schedule {
        Schedule::Cosine { warmup_epochs, .. } if *warmup_epochs > plan.epochs => {
            let problem = format!("{warmup_epochs} warm-up epochs of {} epochs", plan.epochs);
            refuse("schedule.cosine.warmup_epochs", problem)
        }
        _ => Ok(()),
    }
}
