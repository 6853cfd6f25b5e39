//! `advcl recipe`: recipes, and the keys that they can have.

use advcl::experiment::{Data, FolderRecipe, Purpose};
use advcl::files;
use advcl::recipe::{Recipe, keys};
use anyhow::Result;

use crate::args::{List, RecipeArg, RecipeCommand, Shared};
use crate::list::list;
use crate::output::{print, print_json};
use crate::recipe_text::edited;
use crate::session::{Source, resolve, source};

/// Carries out a command on recipes.
pub fn recipe(what: &RecipeCommand, shared: &Shared) -> Result<()> {
    match what {
        RecipeCommand::Show(arg) => show(arg, shared),
        RecipeCommand::Keys { key } => print_keys(key.as_deref(), shared),
        RecipeCommand::Check(arg) => {
            let (recipe, _) = resolve(arg, shared)?;
            Data::load(&recipe, Purpose::Train)?;
            print("ok\n")
        }
        RecipeCommand::List => list(List::Recipes, shared),
    }
}

fn show(arg: &RecipeArg, shared: &Shared) -> Result<()> {
    let (recipe, _) = resolve(arg, shared)?;
    if shared.json {
        return print_json(&recipe);
    }
    let text = match source(arg, shared) {
        Source::Named(name) => Recipe::source(name)?.1,
        Source::Folder(folder) => {
            let path = FolderRecipe::load(folder, &[])?.map(|found| found.path);
            let path = path.unwrap_or_else(|| folder.to_path_buf());
            files::read_text(&path)?
        }
    };
    print(&with_overrides(&text, &recipe, &shared.set))
}

/// Returns `text` with the overrides that make it `recipe`. Where they do not, because a folder's images were
/// moved, say, the recipe is written anew, without comments.
fn with_overrides(text: &str, recipe: &Recipe, overrides: &[String]) -> String {
    let is_recipe = |text: &String| Recipe::parse("", text, &[]).is_ok_and(|read| read == *recipe);
    let edited = if overrides.is_empty() {
        Some(text.to_owned())
    } else {
        edited(text, overrides).ok()
    };
    edited.filter(is_recipe).unwrap_or_else(|| recipe.to_toml())
}

fn print_keys(key: Option<&str>, shared: &Shared) -> Result<()> {
    let keys = match key {
        Some(key) => keys::below(key)?,
        None => keys::all(),
    };
    if shared.json {
        return print_json(&keys);
    }
    let lines = keys.iter().map(|key| {
        let value = match key.default_text() {
            Some(default) => format!("default {default}"),
            None if key.required => "required".to_owned(),
            None => "optional".to_owned(),
        };
        format!("{}: {}, {value}\n    {}\n", key.key, key.kind, key.about)
    });
    print(&lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use advcl::recipe::SHIPPED;

    use super::*;

    #[test]
    fn overrides_change_their_keys_and_keep_comments_and_order() {
        let variant = "{ plan = { epochs = 1, batch_size = 64, lr = 0.1, momentum = 0.9, weight_decay = 0, schedule.cosine = {} } }";
        let supervised = format!("pretrain.supervised-mine = {variant}");
        let overrides: [&[&str]; 12] = [
            &["seed = 3"],
            &["seed = 3 # by lot", "seed = 4"],
            &["data.holdout = 0.25", "data.source = 'my images'"],
            &["threat.norm = 'l2'", "threat.radius = '1/2'"],
            &[
                "pretrain.advcl.plan.epochs = 77",
                "pretrain.advcl.plan.optimizer = 'lars'",
            ],
            &["pretrain.simclr.plan.schedule = { steps = { milestones = [1] } }"],
            &["finetune.slf.plan.schedule.steps.milestones = [1, 2]"],
            &[
                "pretrain.advcl.strong.jitter.hue = 0",
                "pretrain.advcl.weak = { flip = 0.1 }",
            ],
            &[
                "probe.every = 1",
                "data.holdout = 0.1",
                "probe.neighbours = 3",
            ],
            &["downstream = { source = 'x' }", "downstream.test_limit = 7"],
            &[supervised.as_str()],
            &["[evaluate]\nattack = [{ kind = 'square', queries = 3 }]\nsteps = 9"],
        ];
        for (name, _, text) in SHIPPED {
            for set in overrides {
                let set: Vec<String> = set.iter().map(|line| (*line).to_owned()).collect();
                // What the one has not: its classifier follows no plan; there is no AdvCL in the other.
                let of_nothing = |line: &String| match name {
                    "few-labels" => line.starts_with("finetune.slf.plan"),
                    "robust-from-pretrained" => line.starts_with("pretrain.advcl."),
                    _ => false,
                };
                if set.iter().any(of_nothing) {
                    continue;
                }
                let recipe = Recipe::load(name, &set).expect("possible overrides");
                let shown = edited(text, &set).expect("TOML");
                let read = Recipe::parse("shown", &shown, &[]).expect("a recipe");
                assert_eq!(read, recipe, "{name} {set:?}:\n{shown}");
                assert_eq!(with_overrides(text, &recipe, &set), shown);
                let comments = |text: &str| -> Vec<String> {
                    let lines = text.lines().filter(|line| line.starts_with('#'));
                    lines.map(str::to_owned).collect()
                };
                assert_eq!(comments(&shown), comments(text), "{name} {set:?}");
                // What was there and is not meant stays where it was. Two methods may have the same
                // plan: a line that only one of them keeps has no place of its own.
                let times =
                    |text: &str, line: &str| text.lines().filter(|other| *other == line).count();
                let kept = |line: &&str| times(&shown, line) == times(text, line);
                let mut after = shown.lines();
                let mut lines = text.lines().filter(kept);
                assert!(
                    lines.all(|line| after.any(|other| other == line)),
                    "{name} {set:?}:\n{shown}"
                );
                let gone = text.lines().filter(|line| times(&shown, line) == 0);
                assert!(gone.count() <= 4, "{name} {set:?}:\n{shown}");
            }
            let recipe = Recipe::load(name, &[]).expect("a shipped recipe");
            assert_eq!(with_overrides(text, &recipe, &[]), text);
        }
    }

    #[test]
    fn a_text_that_is_not_the_recipe_is_written_anew() {
        let (_, _, text) = SHIPPED[1];
        let moved = Recipe::load("smoke", &["data.source = 'elsewhere'".to_owned()]);
        let moved = moved.expect("a recipe");
        let shown = with_overrides(text, &moved, &[]);
        assert_eq!(shown, moved.to_toml());
    }
}
