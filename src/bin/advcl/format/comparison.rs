//! The tables of a comparison, for the terminal, its files and the report.

use advcl::compare::{
    ComparedAccuracy, Comparison, ComparisonRow, DifferenceVerdict, LEVEL, MethodDifference, Spread,
};
use advcl::{finetune, pretrain};

use advcl::evaluate::soundness::SoundnessSummary;

use super::{NONE, Table, clock, interval, range, suite_title};

/// A table with its title.
pub type Titled = (String, Table);

/// Accuracy in percent: "55.2 ± 1.0", or the interval of the images for one seed: "55.2
/// (53.0–57.4)".
fn accuracy(spread: &Spread, images: usize) -> String {
    match spread.deviation {
        Some(_) => points(spread),
        None => match interval(spread.mean / 100.0, images) {
            Some(ends) => format!("{:.1} ({})", spread.mean, range(&ends)),
            None => points(spread),
        },
    }
}

/// A mean with its deviation: "4.1 ± 2.3". A single value has no deviation.
fn points(spread: &Spread) -> String {
    match spread.deviation {
        Some(deviation) => format!("{:.1} ± {deviation:.1}", spread.mean),
        None => format!("{:.1}", spread.mean),
    }
}

/// A difference with its sign and deviation: "+4.1 ± 2.3", "−0.5 ± 1.0".
fn signed(spread: &Spread) -> String {
    let sign = if spread.mean < 0.0 { '−' } else { '+' };
    let mean = spread.mean.abs();
    match spread.deviation {
        Some(deviation) => format!("{sign}{mean:.1} ± {deviation:.1}"),
        None => format!("{sign}{mean:.1}"),
    }
}

fn time(spread: &Spread) -> String {
    if spread.mean < 10.0 {
        format!("{:.1} s", spread.mean)
    } else {
        clock(spread.mean)
    }
}

fn probability(p: Option<f64>) -> String {
    p.map_or(NONE.to_owned(), |p| format!("{p:.3}"))
}

/// The name of an accuracy: "clean", "PGD-20", "AutoAttack".
pub fn accuracy_title(measure: ComparedAccuracy, comparison: &Comparison) -> String {
    match measure {
        ComparedAccuracy::Clean => "clean".to_owned(),
        ComparedAccuracy::Robust => format!("PGD-{}", comparison.attack_steps),
        ComparedAccuracy::Attacked => {
            let suite = comparison.attack.as_deref().map(suite_title);
            suite.unwrap_or_else(|| "attacked".to_owned())
        }
    }
}

/// Every table that has rows, the means first.
pub fn tables(comparison: &Comparison) -> Vec<Titled> {
    let mut tables = vec![means(comparison)];
    tables.extend([
        gaps(comparison),
        differences(comparison),
        warnings(comparison),
        failures(comparison),
    ]);
    tables.retain(|(_, table)| !table.is_empty());
    tables
}

/// Means over the seeds. Each row has the same number of images.
fn means(comparison: &Comparison) -> Titled {
    let rows = &comparison.rows;
    let title = |measure| accuracy_title(measure, comparison);
    let of = |images: Option<usize>| images.map_or(String::new(), |n| format!(" of {n}"));
    let images = of(rows.first().map(|row| row.images));
    let attacked = of(rows.iter().find_map(|row| row.attacked_images));
    let on_attacked = rows.iter().any(|row| row.robust_on_attacked.is_some());
    let some_seeds = |row: &ComparisonRow| row.seeds.len() != comparison.seeds.len();
    let some_seeds = rows.iter().any(some_seeds);
    let pgd = title(ComparedAccuracy::Robust);
    let mut table = Table::new()
        .left("method")
        .left("finetuning")
        .right(format!("clean %{images}"))
        .right(format!("{pgd} %{images}"));
    if comparison.attack.is_some() {
        let suite = title(ComparedAccuracy::Attacked);
        table = table.right(format!("{suite} %{attacked}"));
    }
    if on_attacked {
        table = table.right(format!("{pgd} % of the same"));
    }
    if some_seeds {
        table = table.right("seeds");
    }
    table = table
        .right("pretraining")
        .right("finetuning")
        .right("evaluation");
    for row in rows {
        let or_none = |cell: Option<String>| cell.unwrap_or_else(|| NONE.to_owned());
        let on = row.attacked_images.unwrap_or(0);
        let mut cells = vec![
            pretrain::title(&row.method),
            finetune::title(&row.finetuning),
            accuracy(&row.clean, row.images),
            accuracy(&row.robust, row.images),
        ];
        if comparison.attack.is_some() {
            cells.push(or_none(row.attacked.as_ref().map(|s| accuracy(s, on))));
        }
        if on_attacked {
            let of_same = row.robust_on_attacked.as_ref();
            cells.push(or_none(of_same.map(|s| accuracy(s, on))));
        }
        if some_seeds {
            cells.push(row.seeds.len().to_string());
        }
        cells.extend([
            time(&row.pretrain),
            or_none(row.finetune.as_ref().map(time)),
            time(&row.evaluate),
        ]);
        table.row(cells);
    }
    (about(comparison), table)
}

/// Names of the data and the seeds.
fn about(comparison: &Comparison) -> String {
    let seeds: Vec<String> = comparison.seeds.iter().map(u64::to_string).collect();
    format!("{}, seeds {}", comparison.data, seeds.join(", "))
}

/// Explanation of the figures in the table of means.
pub fn note(comparison: &Comparison) -> String {
    let images = if comparison.seeds.len() > 1 {
        "mean ± standard deviation over the seeds"
    } else {
        "in brackets 95 % intervals for the number of images; one seed shows nothing about others"
    };
    format!(
        "accuracy: {images}; time: pretraining with the pseudo-labels and encoders it learns from"
    )
}

/// Robust accuracy lost by linear finetuning, for each method with both modes.
pub fn gaps(comparison: &Comparison) -> Titled {
    let mut table = Table::new().left("method").right("points");
    for gap in &comparison.gaps {
        table.row([pretrain::title(&gap.method), points(&gap.points)]);
    }
    let title = "Robust accuracy lost by cheap finetuning: AFF less SLF, not tested";
    (title.to_owned(), table)
}

/// Differences of every method from the baseline, with their tests.
pub fn differences(comparison: &Comparison) -> Titled {
    let mut table = Table::new()
        .left("finetuning")
        .left("difference")
        .left("accuracy")
        .right("points")
        .right("seeds")
        .right("p")
        .right("p corrected")
        .left("verdict");
    for difference in &comparison.differences {
        table.row(difference_cells(difference, comparison));
    }
    let title = format!(
        "Differences from {}, paired by seed: two-sided t-test, Holm's correction over this table, level {LEVEL}",
        baseline(comparison)
    );
    (title, table)
}

/// The method that the others are held against, as written for people.
fn baseline(comparison: &Comparison) -> String {
    let baseline = comparison.baseline.as_deref().map(pretrain::title);
    baseline.unwrap_or_default()
}

/// A difference as it is taken: "ACL − AdvCL".
fn difference_title(difference: &MethodDifference, comparison: &Comparison) -> String {
    let method = pretrain::title(&difference.method);
    format!("{method} − {}", baseline(comparison))
}

fn difference_cells(difference: &MethodDifference, comparison: &Comparison) -> Vec<String> {
    vec![
        finetune::title(&difference.finetuning),
        difference_title(difference, comparison),
        accuracy_title(difference.measure, comparison),
        signed(&difference.points),
        difference.points.count.to_string(),
        probability(difference.p),
        probability(difference.p_corrected),
        difference.verdict().to_string(),
    ]
}

/// The results of the tests in sentences: each difference that is shown, or that none is.
pub fn sentences(comparison: &Comparison) -> Vec<String> {
    let baseline = match comparison.baseline.as_deref() {
        Some(name) => pretrain::title(name),
        None => return vec!["The recipe has no baseline to compare with.".to_owned()],
    };
    let all = &comparison.differences;
    if all.is_empty() {
        return vec![format!(
            "No method is compared with the baseline, {baseline}."
        )];
    }
    let tested = all.iter().filter(|difference| difference.p.is_some());
    let tested = tested.count();
    if tested == 0 {
        let seeds = comparison.seeds.len();
        return vec![format!(
            "No difference from {baseline} can be tested with {seeds} seed(s): a test takes two or more that differ."
        )];
    }
    let shown = |difference: &&MethodDifference| {
        let verdict = difference.verdict();
        matches!(
            verdict,
            DifferenceVerdict::Higher | DifferenceVerdict::Lower
        )
    };
    let sentence = |difference: &MethodDifference| {
        format!(
            "{}, {}, {}: {} points over {} seeds, shown (corrected p = {})",
            difference_title(difference, comparison),
            finetune::title(&difference.finetuning),
            accuracy_title(difference.measure, comparison),
            signed(&difference.points),
            difference.points.count,
            probability(difference.p_corrected)
        )
    };
    let mut sentences: Vec<String> = all.iter().filter(shown).map(sentence).collect();
    let others = tested - sentences.len();
    match (sentences.len(), others) {
        (0, _) => sentences.push(format!(
            "No difference from {baseline} is shown: none of {tested} tests is below the level after correction."
        )),
        (_, 0) => {}
        (_, others) => sentences.push(format!("The other {others} tests show no difference.")),
    }
    sentences
}

/// What is paired in the tests, and how large a difference they can show; nothing where nothing was tested.
pub fn power(comparison: &Comparison) -> Option<String> {
    let first = comparison.power.first()?;
    let tests = comparison.differences.iter().filter(|d| d.p.is_some());
    let tests = tests.count();
    let each = |points: fn(&advcl::compare::Power) -> f64| {
        let each = comparison.power.iter().map(|power| {
            let accuracy = accuracy_title(power.measure, comparison);
            format!("{:.1} ({accuracy})", points(power))
        });
        each.collect::<Vec<_>>().join(", ")
    };
    let alone = each(|power| power.points);
    let corrected = match tests {
        1 => String::new(),
        tests => format!(
            "; after the correction for {tests} differences, of {}",
            each(|power| power.points_corrected)
        ),
    };
    Some(format!(
        "Paired: both methods of a difference have the seed, the training images and the test images in common; the tests are over the seeds, not over single images.\n\
        Power: {} seeds that deviate as these do can show, in four of five comparisons, differences of about so many points: {alone}{corrected}.",
        first.seeds
    ))
}

fn warnings(comparison: &Comparison) -> Titled {
    let mut table = Table::new()
        .left("method")
        .left("finetuning")
        .right("seed")
        .left("check")
        .left("found");
    for warning in &comparison.warnings {
        table.row([
            pretrain::title(&warning.method),
            finetune::title(&warning.finetuning),
            warning.seed.to_string(),
            warning.finding.check.to_string(),
            warning.finding.found.clone(),
        ]);
    }
    ("Soundness: warnings".to_owned(), table)
}

fn failures(comparison: &Comparison) -> Titled {
    let mut table = Table::new()
        .left("method")
        .left("finetuning")
        .right("seed")
        .left("error");
    for failure in &comparison.failures {
        table.row([
            pretrain::title(&failure.method),
            finetune::title(&failure.finetuning),
            failure.seed.to_string(),
            failure.error.clone(),
        ]);
    }
    ("Failed".to_owned(), table)
}

/// Counts of the checks that hold, warn, or could not be made; none where the checks were turned
/// off.
pub fn soundness(comparison: &Comparison) -> Option<String> {
    let others = comparison.warnings.iter().chain(&comparison.not_checked);
    let mut summary: SoundnessSummary = others.map(|row| &row.finding).collect();
    summary.hold = comparison.checks - summary.checks();
    (comparison.checks > 0).then(|| format!("soundness: {summary}"))
}
