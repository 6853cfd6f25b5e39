//! Results as text.

mod data;
mod predictions;

use std::path::Path;

use advcl::evaluate::adversarial::Verification;
use advcl::evaluate::soundness::{Soundness, SoundnessSummary};
use advcl::evaluate::{Attacked, Tally, uneven};
use advcl::experiment::Summary;
use advcl::import::Imported;
use advcl::nn::Stem;
use advcl::selftest::GoldenCheck;
use advcl::{finetune, pretrain};

use crate::format::{
    NONE, Table, brief, by_class, percent, percent_of, radius, row_title, share, suite_title,
    tallies,
};

pub use crate::format::clock;
pub use data::{data, data_text};
pub use predictions::{
    Prediction, predicted, prediction_heads, predictions, ranked, with_probability,
};

/// The final table: a row for each classifier.
pub fn summary(summary: &Summary) -> String {
    let mut table = Table::new()
        .left("method")
        .left("finetuning")
        .right("clean")
        .right("robust")
        .right("radius")
        .right("attack")
        .right("pretrain")
        .right("total");
    for outcome in &summary.outcomes {
        let total = &outcome.accuracy.total;
        let seconds = &outcome.seconds;
        table.row([
            pretrain::title(&outcome.method),
            finetune::title(&outcome.finetuning),
            share(total.clean, total.images),
            share(total.robust, total.images),
            radius(&outcome.threat),
            format!("PGD-{}", outcome.attack_steps),
            clock(seconds.pretrain),
            clock(seconds.pretrain + seconds.finetune + seconds.evaluate),
        ]);
    }
    table.text()
}

/// Balanced accuracy and worst class of each classifier, where the classes have unequal numbers of images or `always`.
/// Empty otherwise: with equal classes the balanced accuracy is the accuracy.
pub fn balance(summary: &Summary, always: bool) -> String {
    let outcomes = || summary.outcomes.iter();
    let images = outcomes().find_map(|outcome| uneven(&outcome.accuracy.classes));
    let rows = outcomes().filter_map(|o| Some((row_title(o), o.by_class.as_ref()?)));
    let table = by_class(rows);
    let title = match images {
        Some((fewest, most)) => {
            format!("every class counts alike; they have {fewest} to {most} images")
        }
        None if always => "every class counts alike".to_owned(),
        None => return String::new(),
    };
    if table.is_empty() {
        return String::new();
    }
    format!("{title}\n{}", table.text())
}

/// Attack by attack: on how many images it ran, how many it broke, how long it took. `name` is the classifier's, `steps`
/// are those of PGD.
pub fn attacked(name: &str, steps: usize, attacked: &Attacked) -> String {
    let mut title = format!(
        "{name}, {}: robust {}",
        suite_title(&attacked.suite),
        share(attacked.robust, attacked.images),
    );
    if let Some(pgd) = &attacked.pgd {
        let robust = share(pgd.robust, pgd.images);
        title += &format!("; PGD-{steps} on the same images {robust}");
    }
    let mut table = Table::new()
        .left("attack")
        .right("images")
        .right("broken")
        .right("robust")
        .right("time")
        .right("images/s");
    let mut left = attacked.clean;
    for tried in &attacked.attacks {
        left -= tried.broken;
        let rate = tried.images as f64 / tried.seconds;
        table.row([
            tried.attack.to_string(),
            tried.images.to_string(),
            tried.broken.to_string(),
            percent_of(left, attacked.images),
            clock(tried.seconds),
            if rate.is_finite() {
                format!("{rate:.1}")
            } else {
                NONE.to_owned()
            },
        ]);
    }
    format!("{title}\n{}", table.text())
}

/// Soundness of the figures of classifiers by name: how many checks hold, then a line for each warning. Empty where the
/// checks were turned off.
pub fn soundness<'a>(checked: impl Iterator<Item = (String, &'a Soundness)> + Clone) -> String {
    let findings = checked
        .clone()
        .flat_map(|(_, soundness)| &soundness.findings);
    let verdicts: SoundnessSummary = findings.collect();
    if verdicts.checks() == 0 {
        return String::new();
    }
    let mut text = format!("soundness: {verdicts}\n");
    for (title, soundness) in checked {
        for finding in soundness.warnings() {
            let check = &finding.check;
            let (found, meaning) = (&finding.found, &finding.meaning);
            text += &format!("warning: {title}: {check}: {found}; {meaning}\n");
        }
    }
    text
}

/// Verification of stored adversarial examples.
pub fn verification(found: &Verification) -> String {
    let of = |count: usize| format!("{count} of {}", found.examples);
    pairs(&[
        ("classifier".to_owned(), found.classifier.clone()),
        ("images".to_owned(), found.images.to_string()),
        (
            "clean accuracy".to_owned(),
            share(found.clean, found.images),
        ),
        ("examples".to_owned(), found.examples.to_string()),
        ("pixels in [0, 1]".to_owned(), of(found.in_box)),
        (
            format!("{} distance at most {}", found.norm, found.radius),
            format!("{}; the farthest {:.6}", of(found.in_ball), found.farthest),
        ),
        ("misclassified".to_owned(), of(found.fooled)),
        ("valid: all of these".to_owned(), of(found.valid)),
        (
            "robust accuracy at most".to_owned(),
            percent(found.robust_accuracy),
        ),
    ])
}

/// The model that was imported, and the weights that were not used.
pub fn imported(imported: &Imported, path: &Path) -> String {
    let info = &imported.model.info;
    let (depth, width) = (usize::from(info.encoder.depth), info.encoder.width);
    let [height, across] = info.image_size;
    let routes: Vec<&str> = info.routes.iter().map(|route| route.name()).collect();
    let prefix = match imported.prefix.trim_end_matches('.') {
        "" => "at the top".to_owned(),
        prefix => format!("below {prefix}"),
    };
    let classes = match info.classes.len() {
        0 => "none: an encoder alone".to_owned(),
        count => format!("{count}: {}", few(&info.classes)),
    };
    // Counters of batches are no loss to anyone.
    let left_out = imported.left_out.iter();
    let left_out: Vec<&String> =
        (left_out.filter(|name| !name.ends_with("num_batches_tracked"))).collect();
    let left_out = match left_out.is_empty() {
        true => "nothing".to_owned(),
        false => few(&left_out),
    };
    let normalize = match &info.normalize {
        Some(_) => "inside the model",
        None => "none: images as they are, in [0, 1]",
    };
    pairs(&[
        ("model".to_owned(), path.display().to_string()),
        ("weights".to_owned(), prefix),
        (
            "encoder".to_owned(),
            format!(
                "ResNet-{depth} of width {width}, {}",
                stem(info.encoder.stem)
            ),
        ),
        (
            "images".to_owned(),
            format!("{height} × {across}, {} channels", info.channels),
        ),
        (
            "BatchNorm branches".to_owned(),
            format!("{}; in use: {}", routes.join(", "), info.route.name()),
        ),
        ("normalization".to_owned(), normalize.to_owned()),
        ("classes".to_owned(), classes),
        ("not used".to_owned(), left_out),
    ])
}

/// The first layer in words.
fn stem(stem: Stem) -> &'static str {
    match stem {
        Stem::Cifar => "first layer 3 × 3 with stride 1",
        Stem::Strided => "first layer 3 × 3 with stride 2",
        Stem::Imagenet => "first layer 7 × 7 with stride 2, then max pooling",
    }
}

/// Names, a few of them where there are many.
fn few(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Accuracy by class, for each classifier.
pub fn classes(summary: &Summary) -> String {
    let mut table = Table::new().left("class").right("images");
    for outcome in &summary.outcomes {
        table = table
            .right(format!("{} clean %", row_title(outcome)))
            .right("robust %");
    }
    for (name, tallies) in tallies(&summary.outcomes) {
        let images = tallies.iter().flatten().next();
        let mut row = vec![name, images.map_or(0, |tally| tally.images).to_string()];
        for tally in tallies {
            let Tally {
                images,
                clean,
                robust,
            } = tally.unwrap_or_default();
            row.extend([brief(clean, images), brief(robust, images)]);
        }
        table.row(row);
    }
    table.text()
}

/// Pairs of a name and a value, aligned.
pub fn pairs(pairs: &[(String, String)]) -> String {
    let mut table = Table::new().left("").left("");
    for (name, value) in pairs {
        table.row([name, value]);
    }
    table.text()
}

/// A line for a golden file with the quantity nearest to its tolerance; with `all`, a line for each
/// quantity below it.
pub fn check(check: &GoldenCheck, all: bool) -> String {
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
