//! The report without pictures: Markdown, JSON, CSV.

use advcl::compare::suites;
use advcl::evaluate::{ByClass, ClassFigures};
use advcl::report::{ReportedComparison, ReportedRow, ReportedRun};
use anyhow::Result;
use serde::Serialize;

use super::headline::{
    HeadlineAttack, HeadlineFigure, HeadlineRow, conditions, suite_titles, title,
};
use super::trust::verdict;
use crate::format::comparison::{differences, gaps, power, sentences};
use crate::format::{NONE, Table, by_class, clock, printable, share, suite_title};

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

/// Beginning of the report as Markdown.
const TITLE: &str = "# Robustness report\n";
/// Heads of the report as comma-separated values.
const HEADS: &str = "run method finetuning seeds conditions radius \
                     clean clean_low clean_high clean_images pgd_steps \
                     robust robust_low robust_high robust_images attack \
                     attacked attacked_low attacked_high attacked_images \
                     robust_on_attacked robust_on_attacked_low robust_on_attacked_high \
                     robust_on_attacked_images \
                     pretrain_seconds finetune_seconds evaluate_seconds seconds \
                     clean_balanced clean_worst_class clean_worst clean_worst_images \
                     robust_balanced robust_worst_class robust_worst robust_worst_images";

/// Whether a file that begins with `head` is a report without pictures.
pub fn is_report(head: &[u8]) -> bool {
    let json = "{\n  \"lines\": [";
    let heads: Vec<&str> = HEADS.split_whitespace().take(4).collect();
    let csv = heads.join(",") + ",";
    let beginnings = [TITLE, json, csv.as_str()];
    beginnings
        .iter()
        .any(|beginning| head.starts_with(beginning.as_bytes()))
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
        "{TITLE}\nAccuracy in %. In brackets: 95 % intervals (Wilson) for the number of images; ±: standard deviation \
         over seeds. Time: pretraining (with the pseudo-labels and encoders it learns from), finetuning and evaluation.\n\n{}",
        headline_table(rows).markdown()
    );
    let classes = class_figures(rows);
    if !classes.is_empty() {
        text += &format!(
            "\n## Every class counts alike\n\nBalanced: the mean of the classes' accuracies. The worst class, of several seeds: \
             that of the worst one.\n\n{}",
            classes.markdown()
        );
    }
    for reported in comparisons {
        let comparison = &reported.comparison;
        let name = printable(&reported.name);
        text += &format!("\n## {name}: differences and their tests\n\n");
        for sentence in sentences(comparison) {
            text += &format!("- {}\n", printable(&sentence));
        }
        for line in power(comparison).iter().flat_map(|text| text.lines()) {
            text += &format!("\n{}\n", printable(line));
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

/// Balanced accuracy and worst class of each row.
pub fn class_figures(rows: &[HeadlineRow]) -> Table {
    let with = rows
        .iter()
        .filter_map(|row| Some((row, row.by_class.as_ref()?)));
    by_class(with.map(|(row, figures)| (name(rows, row), figures)))
}

/// The row's title, after the name of its run where there are several.
fn name(rows: &[HeadlineRow], row: &HeadlineRow) -> String {
    if rows.iter().any(|row| row.run != rows[0].run) {
        format!("{}: {}", row.run, row.title())
    } else {
        row.title()
    }
}

fn headline_table(rows: &[HeadlineRow]) -> Table {
    let suites = suite_titles(rows);
    let mut table = Table::new().left("classifier").right("clean").right("PGD");
    for suite in &suites {
        table = table.right(suite);
    }
    table = table.right("radius").right("seeds").right("time");
    for row in rows {
        let name = name(rows, row);
        let pgd = format!("PGD-{}", row.steps);
        let mut cells = vec![
            name,
            figure(&row.clean),
            format!("{} ({pgd})", figure(&row.robust)),
        ];
        for suite in &suites {
            cells.push(match row.attack(suite) {
                Some(HeadlineAttack {
                    robust,
                    pgd: Some(same),
                    ..
                }) if robust.images != row.robust.images => {
                    format!("{}; {pgd} on these {}", figure(robust), figure(same))
                }
                Some(attack) => figure(&attack.robust),
                None => NONE.to_owned(),
            });
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
    let mut name = format!(
        "{}, {}",
        run.name,
        title(&outcome.method, &outcome.finetuning)
    );
    if !row.current {
        name += &format!(" ({})", conditions(row));
    }
    let name = printable(&name);
    let mut text = String::new();
    for attacked in suites(outcome) {
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
        if let Some(pgd) = &attacked.pgd {
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
        let verdicts = printable(&soundness.summary().to_string()).into_owned();
        text += &format!(
            "\n## {name}: soundness\n\n{verdicts}.\n\n{}",
            table.markdown()
        );
    }
    text
}

/// A line for each classifier, and one more for each further suite of attacks; shares in [0, 1], each with
/// its interval and its number of images.
pub fn csv(rows: &[HeadlineRow]) -> String {
    let mut table = HEADS.split_whitespace().fold(Table::new(), Table::left);
    for row in rows {
        let attacks = row.attacks.iter().map(Some);
        let none = row.attacks.is_empty().then_some(None);
        for attack in attacks.chain(none) {
            table.row(csv_cells(row, attack));
        }
    }
    table.csv()
}

fn csv_cells(row: &HeadlineRow, attack: Option<&HeadlineAttack>) -> Vec<String> {
    let mut cells = vec![
        row.run.clone(),
        row.method.clone(),
        row.finetuning.clone(),
        row.seeds.to_string(),
        row.conditions.clone().unwrap_or_default(),
        row.radius.clone(),
    ];
    cells.extend(numbers(Some(&row.clean)));
    cells.push(row.steps.to_string());
    cells.extend(numbers(Some(&row.robust)));
    cells.push(attack.map_or(String::new(), |attack| attack.suite.clone()));
    cells.extend(numbers(attack.map(|attack| &attack.robust)));
    cells.extend(numbers(attack.and_then(|attack| attack.pgd.as_ref())));
    let times = &row.times;
    let times = [times.pretrain, times.finetune, times.evaluate, row.seconds];
    cells.extend(times.map(|seconds| format!("{seconds:.1}")));
    let by_class: Option<&ByClass> = row.by_class.as_ref();
    cells.extend(of_classes(by_class.map(|figures| &figures.clean)));
    cells.extend(of_classes(by_class.map(|figures| &figures.robust)));
    cells
}

/// The cells of balanced accuracy and worst class.
fn of_classes(figures: Option<&ClassFigures>) -> [String; 4] {
    figures.map_or_else(Default::default, |figures| {
        let [balanced, worst] =
            [figures.balanced_accuracy, figures.worst_accuracy].map(|value| format!("{value:.6}"));
        let class = figures.worst_class.clone();
        [balanced, class, worst, figures.worst_images.to_string()]
    })
}

/// The cells of a figure: share, ends of the interval, number of images.
fn numbers(figure: Option<&HeadlineFigure>) -> [String; 4] {
    figure.map_or_else(Default::default, |figure| {
        let [share, low, high] =
            [figure.share, figure.low, figure.high].map(|value| format!("{value:.6}"));
        [share, low, high, figure.images.to_string()]
    })
}
