//! The report without pictures: Markdown, JSON, CSV.

use advcl::evaluate::soundness::Verdict;
use advcl::report::Folder;
use anyhow::Result;
use serde::Serialize;

use super::figures::{Figure, Line, suite_title, title};
use crate::table::clock;

/// Everything that was measured.
#[derive(Serialize)]
pub struct Json<'a> {
    /// The headline.
    pub lines: &'a [Line],
    /// Run by run.
    pub runs: &'a [Folder],
}

/// Indented, with a line's end.
pub fn json(lines: &[Line], runs: &[Folder]) -> Result<String> {
    Ok(serde_json::to_string_pretty(&Json { lines, runs })? + "\n")
}

/// A cell of a table in Markdown.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace('\n', " ")
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(head.iter().map(|cell| escaped(cell)).collect());
    text += &line(vec!["---".to_owned(); head.len()]);
    for row in rows {
        text += &line(row.iter().map(|cell| escaped(cell)).collect());
    }
    text
}

fn words(figure: &Figure) -> String {
    let share = 100.0 * figure.share;
    match figure.deviation {
        Some(deviation) => format!("{share:.1} ± {:.1}", 100.0 * deviation),
        None => format!(
            "{share:.1} ({:.1}–{:.1})",
            100.0 * figure.low,
            100.0 * figure.high
        ),
    }
}

/// The headline, and what there is of checks and attacks.
pub fn markdown(lines: &[Line], runs: &[Folder]) -> String {
    let several = lines.iter().any(|line| line.run != lines[0].run);
    let suite = lines
        .iter()
        .find_map(|line| line.attacked.as_ref())
        .map(|a| suite_title(&a.suite));
    let mut head = vec!["classifier", "clean %", "PGD %"];
    head.extend(suite.iter().map(String::as_str));
    head.extend(["radius", "images", "seeds", "took"]);
    let row = |line: &Line| {
        let name = match several {
            true => format!("{}: {}", line.run, line.title()),
            false => line.title(),
        };
        let mut cells = vec![name, words(&line.clean), words(&line.robust)];
        if suite.is_some() {
            cells.push(
                line.attacked
                    .as_ref()
                    .map_or("–".to_owned(), |a| words(&a.robust)),
            );
        }
        cells.extend([
            line.radius.clone(),
            line.images.to_string(),
            line.seeds.to_string(),
            clock(line.seconds),
        ]);
        cells
    };
    let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    let mut text = format!(
        "# Robustness report\n\nIn brackets: 95 % intervals (Wilson); ±: deviation over seeds.\n\n{}",
        table(&head, &rows)
    );
    for folder in runs {
        for row in &folder.rows {
            let name = format!(
                "{}, {}",
                folder.name,
                title(&row.outcome.method, &row.outcome.finetuning)
            );
            if let Some(attacked) = &row.outcome.attacked {
                let tried = attacked.attacks.iter().map(|tried| {
                    vec![
                        tried.attack.to_string(),
                        tried.images.to_string(),
                        tried.broken.to_string(),
                        clock(tried.seconds),
                    ]
                });
                let rows: Vec<Vec<String>> = tried.collect();
                let suite = suite_title(&attacked.suite);
                let head = ["attack", "images", "broken", "took"];
                text += &format!("\n## {name}: {suite}\n\n{}", table(&head, &rows));
            }
            if let Some(soundness) = &row.outcome.soundness {
                let finding = |finding: &advcl::evaluate::soundness::Finding| {
                    let holds = if finding.verdict == Verdict::Holds {
                        "holds"
                    } else {
                        "**warning**"
                    };
                    let meaning = if finding.verdict == Verdict::Holds {
                        ""
                    } else {
                        &finding.meaning
                    };
                    vec![
                        finding.check.to_string(),
                        holds.to_owned(),
                        finding.found.clone(),
                        meaning.to_owned(),
                    ]
                };
                let rows: Vec<Vec<String>> = soundness.findings.iter().map(finding).collect();
                let head = ["check", "", "found", "which means"];
                text += &format!("\n## {name}: soundness\n\n{}", table(&head, &rows));
            }
        }
    }
    text
}

/// A cell in quotes where it needs them.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// A line a classifier; shares in [0, 1].
pub fn csv(lines: &[Line]) -> String {
    let head = "run,method,finetuning,seeds,images,radius,clean,clean_low,clean_high,pgd_steps,robust,robust_low,robust_high,attack,attack_images,attacked,attacked_low,attacked_high,seconds\n";
    let mut text = head.to_owned();
    for line in lines {
        let figure = |figure: &Figure| {
            [figure.share, figure.low, figure.high].map(|value| format!("{value:.6}"))
        };
        let mut cells: Vec<String> = [&line.run, &line.method, &line.finetuning]
            .map(|t| quoted(t))
            .to_vec();
        cells.extend([
            line.seeds.to_string(),
            line.images.to_string(),
            quoted(&line.radius),
        ]);
        cells.extend(figure(&line.clean));
        cells.push(line.steps.to_string());
        cells.extend(figure(&line.robust));
        match &line.attacked {
            Some(attacked) => {
                cells.extend([quoted(&attacked.suite), attacked.images.to_string()]);
                cells.extend(figure(&attacked.robust));
            }
            None => cells.extend(std::iter::repeat_n(String::new(), 5)),
        }
        cells.push(format!("{:.1}", line.seconds));
        text += &(cells.join(",") + "\n");
    }
    text
}
