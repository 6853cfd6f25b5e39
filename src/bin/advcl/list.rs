//! Lists of names, each with a line about it.

use advcl::finetune::MODES;
use advcl::pretrain::METHODS;
use advcl::recipe::SHIPPED;
use anyhow::Result;

use crate::args::{List, Shared};
use crate::output::{print, print_json};
use crate::table;

/// Prints the pretraining methods, the finetuning modes or the shipped recipes.
pub fn list(what: List, shared: &Shared) -> Result<()> {
    let rows: Vec<(&str, &str)> = match what {
        List::Methods => METHODS.iter().map(|m| (m.name, m.about)).collect(),
        List::Modes => MODES.iter().map(|m| (m.name, m.about)).collect(),
        List::Recipes => SHIPPED.iter().map(|(n, about, _)| (*n, *about)).collect(),
    };
    if shared.json {
        let named = |(name, about)| serde_json::json!({"name": name, "about": about});
        return print_json(&rows.into_iter().map(named).collect::<Vec<_>>());
    }
    let owned = |(name, about): (&str, &str)| (name.to_owned(), about.to_owned());
    print(&table::pairs(
        &rows.into_iter().map(owned).collect::<Vec<_>>(),
    ))
}
