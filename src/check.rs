//! Checks of a recipe's values; an error names the key.

use crate::error::{Error, Result};
use crate::train::{Plan, Schedule};

/// The place of the keys that are checked: a recipe and a table of it.
#[derive(Clone, Debug)]
pub struct Check<'a> {
    /// The recipe's name for messages; may be empty.
    place: &'a str,
    /// The table's name, "pretrain.advcl"; empty for the whole recipe.
    table: String,
}

impl<'a> Check<'a> {
    /// Checks of a whole recipe; `place` names it in messages and may be empty.
    pub fn new(place: &'a str) -> Self {
        Self {
            place,
            table: String::new(),
        }
    }

    /// Checks of the table `name` below `tables`: "advcl" below "pretrain".
    pub fn within(&self, tables: &str, name: &str) -> Self {
        Self {
            place: self.place,
            table: format!("{tables}.{name}"),
        }
    }

    /// The key's full name.
    pub fn key(&self, key: &str) -> String {
        match (self.table.as_str(), key) {
            ("", key) => key.to_owned(),
            (table, "") => table.to_owned(),
            (table, key) => format!("{table}.{key}"),
        }
    }

    /// Refuses the value of `key`; the whole table if the key is empty.
    ///
    /// # Errors
    /// [`Error::Recipe`], always.
    pub fn refuse<T>(
        &self,
        key: &str,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> Result<T> {
        let key = self.key(key);
        let place = match self.place {
            "" => key,
            place => format!("{place}, {key}"),
        };
        Err(Error::recipe(place, problem, hint))
    }

    /// Refuses a number outside `low..=high`, and NaN.
    ///
    /// # Errors
    /// [`Error::Recipe`].
    pub fn in_range(&self, key: &str, value: f64, low: f64, high: f64) -> Result<()> {
        if value >= low && value <= high {
            return Ok(());
        }
        let problem = format!("expected a number from {low} to {high}, found {value}");
        self.refuse(key, problem, "")
    }

    /// Refuses zero.
    ///
    /// # Errors
    /// [`Error::Recipe`].
    pub fn at_least_one(&self, key: &str, value: usize) -> Result<()> {
        match value {
            0 => self.refuse(key, "expected 1 or more, found 0", ""),
            _ => Ok(()),
        }
    }

    /// Turns the error of a view's settings into one that names the key.
    ///
    /// # Errors
    /// [`Error::Recipe`].
    pub fn views(&self, key: &str, outcome: Result<(), String>) -> Result<()> {
        outcome.or_else(|problem| self.refuse(key, problem, ""))
    }

    /// Refuses an impossible plan under `key`.
    ///
    /// # Errors
    /// [`Error::Recipe`].
    pub fn plan(&self, key: &str, plan: &Plan) -> Result<()> {
        let key = |name: &str| format!("{key}.{name}");
        self.at_least_one(&key("epochs"), plan.epochs)?;
        if plan.batch_size < 2 {
            // BatchNorm has no variance, and the contrastive loss no negatives, in a batch of one.
            let problem = format!("expected 2 or more, found {}", plan.batch_size);
            return self.refuse(&key("batch_size"), problem, "");
        }
        if let Some(most) = plan.micro_batch
            && !(2..=plan.batch_size).contains(&most)
        {
            let problem = format!("expected 2 to {} images, found {most}", plan.batch_size);
            let hint = "BatchNorm needs 2 images, and no part is larger than plan.batch_size; leave it out for whole batches";
            return self.refuse(&key("micro_batch"), problem, hint);
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

    /// Refuses a batch that is larger than the data.
    ///
    /// # Errors
    /// [`Error::Recipe`].
    pub fn batch(&self, key: &str, plan: &Plan, images: usize) -> Result<()> {
        let batch = plan.batch_size;
        if batch <= images {
            return Ok(());
        }
        let key = format!("{key}.batch_size");
        let problem = format!("a batch of {batch} is larger than the {images} training images");
        let most = images.min(batch / 2).max(2);
        let hint = format!("--set '{} = {most}'", self.key(&key));
        self.refuse(&key, problem, hint)
    }
}
