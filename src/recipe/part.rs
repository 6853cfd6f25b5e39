//! What a result depends on: the parts of a recipe that must not differ when a file is used again.

use toml::{Table, Value};

use super::{Method, Recipe};
use crate::data::Images;
use crate::random;

/// A result that is kept in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A pretrained encoder.
    Encoder(Method),
    /// Pseudo-labels.
    Labels,
    /// The classifier on an encoder.
    Classifier(Method),
    /// The final figures of a classifier.
    Figures(Method),
}

/// An image set in a few characters: to be held against another, not to be read.
pub fn fingerprint(images: &Images) -> String {
    format!("fnv1a-{:016x}", random::fingerprint(&images.pixels))
}

impl Recipe {
    /// The keys that `part` depends on.
    fn keys(&self, part: Part) -> Vec<&'static str> {
        let data = ["seed", "data.source", "data.train_limit", "data.holdout"];
        match part {
            Part::Encoder(Method::Simclr) => [&data[..], &["encoder", "pretrain.simclr"]].concat(),
            Part::Encoder(Method::Advcl) => {
                let own = ["encoder", "threat", "pretrain.advcl"];
                [&self.keys(Part::Labels), &own[..]].concat()
            }
            Part::Labels => match &self.cluster {
                Some(cluster) if cluster.is_given() => [&data[..], &["cluster"]].concat(),
                _ => [&self.keys(Part::Encoder(Method::Simclr)), &["cluster"][..]].concat(),
            },
            Part::Classifier(method) => {
                [&self.keys(Part::Encoder(method)), &["finetune"][..]].concat()
            }
            Part::Figures(method) => {
                let own = ["data.test_limit", "threat", "evaluate"];
                [&self.keys(Part::Classifier(method)), &own[..]].concat()
            }
        }
    }

    /// The TOML text of just what `part` depends on, the training images included (how many, and their
    /// [`fingerprint`]). Files keep it, and are refused where it differs.
    pub fn text_of(&self, part: Part, images: usize, fingerprint: &str) -> String {
        let whole = Table::try_from(self).expect("tables of plain values");
        let mut picked = Table::new();
        for key in self.keys(part) {
            match key.split_once('.') {
                None => {
                    let value = whole.get(key).map(|value| (key.to_owned(), value.clone()));
                    picked.extend(value);
                }
                Some((table, key)) => {
                    let value = whole.get(table).and_then(|inner| inner.get(key));
                    let value = value.map(|value| (key.to_owned(), value.clone()));
                    inner(&mut picked, table).extend(value);
                }
            }
        }
        let data = inner(&mut picked, "data");
        data.insert("images".to_owned(), Value::Integer(images as i64));
        data.insert("pixels".to_owned(), Value::String(fingerprint.to_owned()));
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

    fn smoke(set: &[&str]) -> Recipe {
        let set: Vec<String> = set.iter().map(|line| (*line).to_owned()).collect();
        Recipe::load("smoke", &set).expect("a recipe")
    }

    #[test]
    fn a_part_changes_with_what_it_depends_on_and_with_nothing_else() {
        use Method::{Advcl, Simclr};
        let parts = [
            Part::Encoder(Simclr),
            Part::Labels,
            Part::Encoder(Advcl),
            Part::Classifier(Simclr),
            Part::Classifier(Advcl),
            Part::Figures(Simclr),
            Part::Figures(Advcl),
        ];
        let texts = |recipe: Recipe| parts.map(|part| recipe.text_of(part, 256, "x"));
        let before = texts(smoke(&[]));
        for (change, expected) in [
            ("seed = 1", [true; 7]),
            ("data.train_limit = 255", [true; 7]),
            ("encoder.width = 5", [true; 7]),
            ("pretrain.simclr.plan.lr = 0.2", [true; 7]),
            (
                "pretrain.advcl.attack_steps = 3",
                [false, false, true, false, true, false, true],
            ),
            (
                "cluster.restarts = 2",
                [false, true, true, false, true, false, true],
            ),
            (
                "threat.radius = 0.2",
                [false, false, true, false, true, true, true],
            ),
            (
                "finetune.augment = true",
                [false, false, false, true, true, true, true],
            ),
            (
                "evaluate.steps = 4",
                [false, false, false, false, false, true, true],
            ),
            (
                "data.test_limit = 50",
                [false, false, false, false, false, true, true],
            ),
        ] {
            let after = texts(smoke(&[change]));
            for (((part, before), after), differs) in
                parts.iter().zip(&before).zip(&after).zip(expected)
            {
                assert_eq!(before != after, differs, "{change}: {part:?}");
            }
        }
        let images = smoke(&[]).text_of(parts[0], 256, "y");
        assert!(images != before[0] && images.contains("images = 256"));
    }
}
