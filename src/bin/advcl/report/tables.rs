//! The report without pictures: Markdown, JSON, CSV.

use advcl::compare::pgd_on_attacked;
use advcl::report::{ReportedComparison, ReportedRow, ReportedRun};
use anyhow::Result;
use serde::Serialize;

use super::comparisons::shown_differences;
use super::headline::{HeadlineFigure, HeadlineRow, title};
use super::trust::verdict;
use crate::format::comparison::{differences, gaps};
use crate::format::{NONE, Table, clock, printable, share, suite_title};

/// Everything that was measured.
#[derive(Serialize)]
pub struct ReportJson<'a> {
    /// The headline.
    pub lines: &'a [HeadlineRow],
    /// Means and tests of each comparison.
    pub comparisons: &'a [ReportedComparison],
    /// All figures, run by run.
    pub runs: &'a [ReportedRun],
}

impl ReportJson<'_> {
    /// Formats it with indentation.
    pub fn text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

/// A cell: "55.2 (53.0–57.4) of 2000", or "55.2 ± 1.0 of 2000".
fn figure(figure: &HeadlineFigure) -> String {
    let (share, images) = (100.0 * figure.share, figure.images);
    match figure.deviation {
        Some(deviation) => format!("{share:.1} ± {:.1} of {images}", 100.0 * deviation),
        None => {
            let (low, high) = (100.0 * figure.low, 100.0 * figure.high);
            format!("{share:.1} ({low:.1}–{high:.1}) of {images}")
        }
    }
}

/// The headline, and the tests, attacks and checks that there are.
pub fn markdown(
    rows: &[HeadlineRow],
    comparisons: &[ReportedComparison],
    runs: &[ReportedRun],
) -> String {
    let mut text = format!(
        "# Robustness report\n\nAccuracy in %. In brackets: 95 % intervals (Wilson) for the number of images; ±: standard deviation \
         over seeds. Time: pretraining (with the pseudo-labels and encoders it learns from), finetuning and evaluation.\n\n{}",
        headline_table(rows).markdown()
    );
    if rows.iter().any(|row| !row.current) {
        text += "\n\\*: measured with other settings than the recipe has now.\n";
    }
    for reported in comparisons {
        let comparison = &reported.comparison;
        let name = printable(&reported.name);
        text += &format!("\n## {name}: differences and their tests\n\n");
        for sentence in shown_differences(comparison) {
            text += &format!("- {}\n", printable(&sentence));
        }
        for (title, table) in [differences(comparison), gaps(comparison)] {
            if !table.is_empty() {
                text += &format!("\n{}\n\n{}", printable(&title), table.markdown());
            }
        }
    }
    for run in runs {
        for row in &run.rows {
            text += &details(run, row);
        }
    }
    text
}

fn headline_table(rows: &[HeadlineRow]) -> Table {
    let several = rows.iter().any(|row| row.run != rows[0].run);
    let suite = rows.iter().find_map(|row| row.attacked.as_ref());
    let suite = suite.map(|attacked| suite_title(&attacked.suite));
    let on_same = |row: &HeadlineRow| row.attacked.as_ref().is_some_and(|a| a.pgd.is_some());
    let on_same = rows.iter().any(on_same);
    let mut table = Table::new().left("classifier").right("clean").right("PGD");
    if on_same {
        table = table.right("PGD on the attacked images");
    }
    if let Some(suite) = &suite {
        table = table.right(suite);
    }
    table = table.right("radius").right("seeds").right("time");
    for row in rows {
        let mark = if row.current { "" } else { "*" };
        let name = if several {
            format!("{}: {}{mark}", row.run, row.title())
        } else {
            format!("{}{mark}", row.title())
        };
        let mut cells = vec![
            name,
            figure(&row.clean),
            format!("{} (PGD-{})", figure(&row.robust), row.steps),
        ];
        let attacked = row.attacked.as_ref();
        let or_none = |value: Option<&HeadlineFigure>| value.map_or(NONE.to_owned(), figure);
        if on_same {
            cells.push(or_none(attacked.and_then(|attacked| attacked.pgd.as_ref())));
        }
        if suite.is_some() {
            cells.push(or_none(attacked.map(|attacked| &attacked.robust)));
        }
        cells.extend([
            row.radius.clone(),
            row.seeds.to_string(),
            clock(row.seconds),
        ]);
        table.row(cells);
    }
    table
}

/// The attacks and the checks of one classifier.
fn details(run: &ReportedRun, row: &ReportedRow) -> String {
    let outcome = &row.outcome;
    let name = title(&outcome.method, &outcome.finetuning);
    let name = printable(&format!("{}, {name}", run.name));
    let mut text = String::new();
    if let Some(attacked) = &outcome.attacked {
        let mut table = Table::new()
            .left("attack")
            .right("images")
            .right("broken")
            .right("time");
        for tried in &attacked.attacks {
            table.row([
                tried.attack.to_string(),
                tried.images.to_string(),
                tried.broken.to_string(),
                clock(tried.seconds),
            ]);
        }
        let robust = share(attacked.robust, attacked.images);
        text += &format!(
            "\n## {name}: {}\n\nRobust: {robust}",
            suite_title(&attacked.suite)
        );
        if let Some(pgd) = pgd_on_attacked(outcome) {
            let (steps, robust) = (outcome.attack_steps, share(pgd.robust, pgd.images));
            text += &format!("; PGD-{steps} on the same images: {robust}");
        }
        text += &format!(".\n\n{}", table.markdown());
    }
    if let Some(soundness) = &outcome.soundness {
        let mut table = Table::new()
            .left("check")
            .left("outcome")
            .left("found")
            .left("consequence");
        for finding in &soundness.findings {
            let warns = soundness.warnings().any(|warning| warning == finding);
            let meaning = if warns { finding.meaning.as_str() } else { "" };
            table.row([
                finding.check.to_string(),
                verdict(finding.verdict).to_owned(),
                finding.found.clone(),
                meaning.to_owned(),
            ]);
        }
        let verdicts = printable(&soundness.summary().to_string());
        text += &format!(
            "\n## {name}: soundness\n\n{verdicts}.\n\n{}",
            table.markdown()
        );
    }
    text
}

/// A line for each classifier; shares in [0, 1], each with its interval and its number of images.
pub fn csv(rows: &[HeadlineRow]) -> String {
    let head = "run method finetuning seeds current radius \
                clean clean_low clean_high clean_images pgd_steps \
                robust robust_low robust_high robust_images attack \
                attacked attacked_low attacked_high attacked_images \
                robust_on_attacked robust_on_attacked_low robust_on_attacked_high \
                robust_on_attacked_images \
                pretrain_seconds finetune_seconds evaluate_seconds seconds";
    let mut table = head.split_whitespace().fold(Table::new(), Table::left);
    for row in rows {
        let attacked = row.attacked.as_ref();
        let mut cells = vec![
            row.run.clone(),
            row.method.clone(),
            row.finetuning.clone(),
            row.seeds.to_string(),
            row.current.to_string(),
            row.radius.clone(),
        ];
        cells.extend(numbers(Some(&row.clean)));
        cells.push(row.steps.to_string());
        cells.extend(numbers(Some(&row.robust)));
        cells.push(attacked.map_or(String::new(), |attacked| attacked.suite.clone()));
        cells.extend(numbers(attacked.map(|attacked| &attacked.robust)));
        cells.extend(numbers(attacked.and_then(|attacked| attacked.pgd.as_ref())));
        let times = &row.times;
        let times = [times.pretrain, times.finetune, times.evaluate, row.seconds];
        cells.extend(times.map(|seconds| format!("{seconds:.1}")));
        table.row(cells);
    }
    table.csv()
}

/// The cells of a figure: share, ends of the interval, number of images.
fn numbers(figure: Option<&HeadlineFigure>) -> [String; 4] {
    figure.map_or_else(Default::default, |figure| {
        let [share, low, high] =
            [figure.share, figure.low, figure.high].map(|value| format!("{value:.6}"));
        [share, low, high, figure.images.to_string()]
    })
}
