//! Results as text.

use std::path::{Path, PathBuf};

use advcl::data::{Batch, Dataset, Split};
use advcl::{finetune, inspect, pretrain};
use serde::Serialize;

use advcl::attack::Norm;
use advcl::evaluate::Attacked;
use advcl::evaluate::adversarial::Verification;
use advcl::experiment::{Outcome, Summary};
use advcl::import::Imported;
use advcl::logits::probabilities;
use advcl::selftest::Check;

/// Columns as wide as their widest cell; the first two left, the others right.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |c: usize| {
        rows.iter()
            .map(|row| row[c].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(c, (cell, width))| {
                if c < 2 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
        let line: Vec<String> = cells.collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Words as a row.
pub fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// Seconds as minutes and seconds.
pub fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// A fraction in percent.
pub fn percent(part: usize, whole: usize) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    format!("{:.1} %", 100.0 * part as f64 / whole as f64)
}

/// "0.1 (L∞)".
fn radius(outcome: &Outcome) -> String {
    let norm = match outcome.threat.norm {
        Norm::Linf => "L∞",
        Norm::L2 => "L2",
    };
    format!("{} ({norm})", outcome.threat.radius)
}

/// The final table: a row a method.
pub fn summary(summary: &Summary) -> String {
    let head = [
        "method",
        "finetuning",
        "clean",
        "robust",
        "radius",
        "attack",
        "pretrain",
        "total",
    ];
    let mut rows = vec![cells(head)];
    for outcome in &summary.outcomes {
        let total = &outcome.accuracy.total;
        let seconds = &outcome.seconds;
        rows.push(vec![
            pretrain::title(&outcome.method),
            finetune::title(&outcome.finetuning),
            percent(total.clean, total.images),
            percent(total.robust, total.images),
            radius(outcome),
            format!("PGD-{}", outcome.attack_steps),
            clock(seconds.pretrain),
            clock(seconds.pretrain + seconds.finetune + seconds.evaluate),
        ]);
    }
    aligned(&rows)
}

/// Attack by attack: on how many images, how many it broke, how long it took.
pub fn attacked(outcome: &Outcome, attacked: &Attacked) -> String {
    let title = format!(
        "{} {}, {}",
        pretrain::title(&outcome.method),
        finetune::title(&outcome.finetuning),
        attacked.suite
    );
    let mut rows = vec![cells([
        "attack", "", "images", "broken", "robust", "takes", "images/s",
    ])];
    let mut left = attacked.clean;
    for tried in &attacked.attacks {
        left -= tried.broken;
        let rate = tried.images as f64 / tried.seconds;
        rows.push(vec![
            tried.attack.to_string(),
            String::new(),
            tried.images.to_string(),
            tried.broken.to_string(),
            percent(left, attacked.images),
            clock(tried.seconds),
            if rate.is_finite() {
                format!("{rate:.1}")
            } else {
                "–".to_owned()
            },
        ]);
    }
    format!("{title}\n{}", aligned(&rows))
}

/// Whether the figures can be believed: a line where every check holds, else a line a warning. Nothing where none was made.
pub fn soundness(summary: &Summary) -> String {
    let mut checks = 0;
    let mut lines = String::new();
    for outcome in &summary.outcomes {
        let Some(soundness) = &outcome.soundness else {
            continue;
        };
        checks += soundness.findings.len();
        for finding in soundness.warnings() {
            let (method, finetuning) = (
                pretrain::title(&outcome.method),
                finetune::title(&outcome.finetuning),
            );
            let (check, found, meaning) = (&finding.check, &finding.found, &finding.meaning);
            lines += &format!("warning: {method} {finetuning}: {check}: {found}; {meaning}\n");
        }
    }
    match (checks, lines.is_empty()) {
        (0, _) => String::new(),
        (_, true) => format!("soundness: {checks} checks hold\n"),
        (_, false) => lines,
    }
}

/// What stored adversarial examples are worth.
pub fn verification(found: &Verification) -> String {
    let of = |count: usize| format!("{count} of {}", found.examples);
    let norm = match found.norm {
        Norm::Linf => "L∞",
        Norm::L2 => "L2",
    };
    pairs(&[
        ("classifier".to_owned(), found.classifier.clone()),
        ("images".to_owned(), found.images.to_string()),
        (
            "right as they are".to_owned(),
            percent(found.clean, found.images),
        ),
        ("examples".to_owned(), found.examples.to_string()),
        ("pixels in [0, 1]".to_owned(), of(found.in_box)),
        (
            format!("{norm} distance at most {}", found.radius),
            format!("{}; the farthest {:.6}", of(found.in_ball), found.farthest),
        ),
        ("misclassified".to_owned(), of(found.fooled)),
        ("all of this".to_owned(), of(found.valid)),
        (
            "robust accuracy at most".to_owned(),
            format!("{:.1} %", 100.0 * found.robust_accuracy),
        ),
    ])
}

/// What was made of weights, and what of them was not used.
pub fn imported(imported: &Imported, path: &Path) -> String {
    let info = &imported.model.info;
    let (depth, width) = (usize::from(info.encoder.depth), info.encoder.width);
    let [height, across] = info.image_size;
    let routes: Vec<&str> = info.routes.iter().map(|route| route.name()).collect();
    let left_out = match imported.left_out.as_slice() {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    };
    pairs(&[
        ("model".to_owned(), path.display().to_string()),
        (
            "encoder".to_owned(),
            format!("ResNet-{depth} of width {width}"),
        ),
        (
            "images".to_owned(),
            format!("{height} × {across}, {} channels", info.channels),
        ),
        (
            "BatchNorm branches".to_owned(),
            format!("{}; {} is used", routes.join(", "), info.route.name()),
        ),
        ("left out".to_owned(), left_out),
    ])
}

/// Accuracy by class, for each method.
pub fn classes(summary: &Summary) -> String {
    let mut head = cells(["class", "images"]);
    for outcome in &summary.outcomes {
        head.push(format!(
            "{} {} clean",
            pretrain::title(&outcome.method),
            finetune::title(&outcome.finetuning)
        ));
        head.push("robust".to_owned());
    }
    let mut rows = vec![head];
    for (class, name) in summary.classes.iter().enumerate() {
        let images = summary
            .outcomes
            .first()
            .map_or(0, |o| o.accuracy.classes[class].images);
        let mut row = vec![name.clone(), images.to_string()];
        for outcome in &summary.outcomes {
            let tally = &outcome.accuracy.classes[class];
            row.push(percent(tally.clean, tally.images));
            row.push(percent(tally.robust, tally.images));
        }
        rows.push(row);
    }
    aligned(&rows)
}

/// Pairs of a name and a value, aligned.
pub fn pairs(pairs: &[(String, String)]) -> String {
    let rows: Vec<_> = pairs
        .iter()
        .map(|(a, b)| vec![a.clone(), b.clone()])
        .collect();
    aligned(&rows)
}

/// A line a golden file with the quantity nearest to its tolerance; with `all`, a line a quantity below it.
pub fn check(check: &Check, all: bool) -> String {
    let word = if check.passed() { "ok  " } else { "FAIL" };
    let mut text = format!(
        "{word}  {:<17} {:>3} quantities",
        check.name,
        check.quantities.len()
    );
    if let Some(worst) = check.worst() {
        let (name, error, tolerance) = (&worst.name, worst.error, worst.tolerance);
        text += &format!(", worst {error:.1e} (tolerance {tolerance:.0e}): {name}");
    }
    if check.tries > 1 {
        text += &format!(", {} tries", check.tries);
    }
    text += &format!("  [{}]\n", check.folder);
    let mark = |passed| if passed { "    " } else { "miss" };
    if all || !check.passed() {
        for q in &check.quantities {
            let passed = q.error <= q.tolerance;
            if all || !passed {
                text += &format!(
                    "      {} {:.1e} of {:.0e}  {}\n",
                    mark(passed),
                    q.error,
                    q.tolerance,
                    q.name
                );
            }
        }
    }
    text
}

/// What a model says of one image.
#[derive(Serialize)]
pub struct Prediction {
    pub image: PathBuf,
    /// Most probable first.
    pub classes: Vec<Ranked>,
}

/// A class, its logit and its probability.
#[derive(Serialize)]
pub struct Ranked {
    pub class: String,
    pub logit: f32,
    pub probability: f32,
}

/// Classes by falling probability, from one image's logits.
pub fn ranked(logits: &[f32], names: &[String]) -> Vec<Ranked> {
    let ranked = |(class, (&logit, probability)): (&String, (&f32, f32))| Ranked {
        class: class.clone(),
        logit,
        probability,
    };
    let both = logits.iter().zip(probabilities(logits));
    let mut classes: Vec<Ranked> = names.iter().zip(both).map(ranked).collect();
    classes.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    classes
}

/// A line an image: its file and its first classes.
pub fn predictions(predictions: &[Prediction], shown: usize) -> String {
    let cell = |r: &Ranked| format!("{} {:.1} %", r.class, 100.0 * r.probability);
    let row = |p: &Prediction| {
        let classes: Vec<String> = p.classes.iter().take(shown).map(cell).collect();
        vec![p.image.display().to_string(), classes.join(", ")]
    };
    aligned(&predictions.iter().map(row).collect::<Vec<_>>())
}

/// What is in a data set.
#[derive(Serialize)]
pub struct DataSummary {
    pub name: String,
    /// Channels, height, width.
    pub shape: [usize; 3],
    pub train: usize,
    pub test: usize,
    /// Name, training images, test images.
    pub classes: Vec<(String, usize, usize)>,
    /// Mean and standard deviation of each channel of the training images, in [0, 1].
    pub channels: Vec<(f64, f64)>,
    pub sheet: PathBuf,
    /// The sheet's columns, from the left.
    pub views: Vec<String>,
}

pub fn data(data: &Dataset, views: &[(&'static str, Batch)], sheet: &Path) -> DataSummary {
    let images = &data.train.images;
    let counts = |split: &Split| inspect::counts(split, data.classes.len());
    let (train, test) = (counts(&data.train), counts(&data.test));
    let class = |(index, name): (usize, &String)| (name.clone(), train[index], test[index]);
    DataSummary {
        name: data.name.clone(),
        shape: [images.channels, images.height, images.width],
        train: images.len(),
        test: data.test.images.len(),
        classes: data.classes.iter().enumerate().map(class).collect(),
        channels: inspect::channel_means(images),
        sheet: sheet.to_path_buf(),
        views: views.iter().map(|(name, _)| (*name).to_owned()).collect(),
    }
}

pub fn data_text(data: &DataSummary) -> String {
    let [channels, height, width] = data.shape;
    let mut about = vec![
        ("data set".to_owned(), data.name.clone()),
        (
            "images".to_owned(),
            format!("{} training, {} test", data.train, data.test),
        ),
        (
            "size".to_owned(),
            format!("{height} × {width}, {channels} channel(s)"),
        ),
    ];
    for (index, (mean, deviation)) in data.channels.iter().enumerate() {
        let text = format!("mean {mean:.4}, deviation {deviation:.4}");
        about.push((format!("channel {index}"), text));
    }
    about.push(("contact sheet".to_owned(), data.sheet.display().to_string()));
    about.push(("its columns".to_owned(), data.views.join(", ")));
    let mut text = pairs(&about);
    if !data.classes.is_empty() {
        let mut rows = vec![cells(["class", "", "train", "test"])];
        for (name, train, test) in &data.classes {
            rows.push(vec![
                name.clone(),
                String::new(),
                train.to_string(),
                test.to_string(),
            ]);
        }
        text += &format!("\n{}", aligned(&rows));
    }
    text
}
