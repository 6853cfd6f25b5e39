//! The table of balanced accuracies and worst classes, for the terminal, Markdown and the page.

use advcl::evaluate::{ByClass, ClassFigures};

use super::{Table, percent};

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
