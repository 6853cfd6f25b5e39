//! Figures by class: the table of balanced accuracies and worst classes, for the terminal, Markdown and the page; and the counts of
//! several classifiers side by side.

use std::collections::BTreeMap;

use advcl::evaluate::{ByClass, ClassFigures, Tally};
use advcl::experiment::Outcome;

use super::{Table, percent};

/// The counts of every class by its name, one for each of the outcomes: classifiers may have classes in another order, or others.
/// Classes are in the order of the first outcome, then come those that only later ones have.
pub fn tallies<'a>(
    outcomes: impl IntoIterator<Item = &'a Outcome>,
) -> Vec<(String, Vec<Option<Tally>>)> {
    let outcomes: Vec<&Outcome> = outcomes.into_iter().collect();
    let mut rows: Vec<(String, Vec<Option<Tally>>)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (number, outcome) in outcomes.iter().enumerate() {
        for (label, tally) in outcome.accuracy.classes.iter().enumerate() {
            let name = outcome.class(label);
            let place = *places.entry(name.clone()).or_insert_with(|| {
                rows.push((name, vec![None; outcomes.len()]));
                rows.len() - 1
            });
            rows[place].1[number] = Some(*tally);
        }
    }
    rows
}

/// A row for each classifier, by its title.
pub fn by_class<'a>(rows: impl IntoIterator<Item = (String, &'a ByClass)>) -> Table {
    let mut table = Table::new()
        .left("classifier")
        .right("balanced clean")
        .left("worst class")
        .right("balanced robust")
        .left("worst class");
    for (title, row) in rows {
        table.row([
            title,
            percent(row.clean.balanced_accuracy),
            worst(&row.clean),
            percent(row.robust.balanced_accuracy),
            worst(&row.robust),
        ]);
    }
    table
}

/// The worst class: "cat 50.0 % of 20".
fn worst(figures: &ClassFigures) -> String {
    let accuracy = percent(figures.worst_accuracy);
    format!(
        "{} {accuracy} of {}",
        figures.worst_class, figures.worst_images
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_are_matched_by_the_names_of_classes() {
        let outcome = |classes: &[&str], counts: &[usize]| -> Outcome {
            let tally = |&images: &usize| json!({"images": images, "clean": 0, "robust": 0});
            let tallies: Vec<_> = counts.iter().map(tally).collect();
            serde_json::from_value(json!({
                "method": "simclr", "finetuning": "slf", "clean_accuracy": 0.0, "robust_accuracy": 0.0,
                "images": 6, "split": "test", "threat": {"norm": "linf", "radius": "0.1"},
                "attack_steps": 1, "attack_step_size": 0.1,
                "seconds": {"pretrain": 0.0, "finetune": 0.0, "evaluate": 0.0},
                "accuracy": {"total": {"images": 6, "clean": 0, "robust": 0}, "classes": tallies},
                "classes": classes,
            }))
            .expect("an outcome")
        };
        let (first, second) = (
            outcome(&["a", "b", "c"], &[0, 2, 4]),
            outcome(&["c", "b", "d"], &[4, 2, 7]),
        );
        let found: Vec<(String, Vec<Option<usize>>)> = tallies([&first, &second])
            .into_iter()
            .map(|(name, counts)| {
                let images = counts.iter().map(|tally| tally.map(|tally| tally.images));
                (name, images.collect())
            })
            .collect();
        let row = |name: &str, images: [Option<usize>; 2]| (name.to_owned(), images.to_vec());
        let expected = [
            row("a", [Some(0), None]),
            row("b", [Some(2), Some(2)]),
            row("c", [Some(4), Some(4)]),
            row("d", [None, Some(7)]),
        ];
        assert_eq!(found, expected);
    }
}
