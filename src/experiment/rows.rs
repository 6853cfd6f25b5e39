//! Rows of a run's table.

use crate::error::{Error, Result};
use crate::recipe::Recipe;

/// Row of the table: a method, and the mode by which its encoder is finetuned; no mode where the method
/// trained the classifier itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The method's table.
    pub method: String,
    /// The mode's table.
    pub mode: Option<String>,
}

/// Name of the mode of classifiers that were trained together with their encoders.
pub(super) const END_TO_END: &str = "end-to-end";

impl Cell {
    /// Rows of a recipe: each method, or the one given, in each mode, or in the one given.
    ///
    /// # Errors
    /// [`Error::Recipe`] for names that the recipe does not have, and for a mode of methods that none finetunes.
    pub fn of(recipe: &Recipe, method: Option<&str>, mode: Option<&str>) -> Result<Vec<Self>> {
        let methods = match method {
            Some(name) => std::slice::from_ref(recipe.pretrain.require(name)?),
            None => recipe.pretrain.entries(),
        };
        let modes = match mode {
            Some(name) => std::slice::from_ref(recipe.finetune.require(name)?),
            None => recipe.finetune.entries(),
        };
        let mut cells = Vec::new();
        for entry in methods {
            let cell = |mode| Self {
                method: entry.name.clone(),
                mode,
            };
            // A classifier of the other images' classes is finetuned, whatever the encoder was trained on.
            if !entry.method().supervised() || recipe.downstream.is_some() {
                cells.extend(modes.iter().map(|mode| cell(Some(mode.name.clone()))));
            } else if mode.is_none() {
                cells.push(cell(None));
            }
        }
        if cells.is_empty() {
            let names: Vec<&str> = methods.iter().map(|entry| entry.name.as_str()).collect();
            let names = names.join(", ");
            let problem = format!("{names}: the classifier is trained with the encoder");
            let hint = "nothing is finetuned: leave the mode out";
            return Err(Error::recipe("mode", problem, hint));
        }
        Ok(cells)
    }

    /// The mode's table, or "end-to-end".
    pub fn mode_name(&self) -> &str {
        self.mode.as_deref().unwrap_or(END_TO_END)
    }

    /// METHOD/MODE: name in logs, and folder of its results below the run folder.
    pub fn stage(&self) -> String {
        format!("{}/{}", self.method, self.mode_name())
    }

    /// Folder of its model below the run folder: a supervised method's is that of the encoder.
    pub fn model_stage(&self) -> String {
        match self.mode {
            Some(_) => self.stage(),
            None => self.method.clone(),
        }
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.stage())
    }
}
