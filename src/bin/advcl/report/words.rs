//! What the figures say, in sentences, the unpleasant ones too. No row is called the best: which differences exceed the noise is what
//! tests say.

use advcl::evaluate::measures::Corrupted;
use maud::{Markup, html};

use super::headline::{HeadlineFigure, HeadlineRow};
use super::html::{count, percent};
use super::measured::mean;
use super::model::{Measured, ReportPage};

/// Rows that a sentence names, at most.
const NAMED: usize = 4;
/// Calibration error from which a classifier is said to be too sure of itself.
const UNSURE: f64 = 0.1;
/// Points between average accuracy and that of the worst class from which the class is named.
const UNEVEN: f64 = 0.1;

/// The sentences of the page.
pub fn words(report: &ReportPage) -> Markup {
    html! {
        ul { @for sentence in sentences(report) { li { (sentence) } } }
    }
}

fn sentences(report: &ReportPage) -> Vec<String> {
    let mut sentences = vec![attacked(report)];
    sentences.extend(chance(report));
    sentences.extend(worst_classes(report));
    sentences.extend(corruptions(report));
    sentences.extend(calibration(report));
    sentences.extend(noise(report));
    sentences
}

/// Names of rows, the first ones of many.
fn named(names: &[String]) -> String {
    match names.len() {
        0..=NAMED => names.join(", "),
        all => format!("{} and {} more", names[..NAMED].join(", "), all - NAMED),
    }
}

/// The row's name, after that of its run where there are several.
fn name(report: &ReportPage, row: &HeadlineRow) -> String {
    match report.leads.len() > 1 {
        true => format!("{}: {}", row.run, row.title()),
        false => row.title(),
    }
}

/// How much of the clean accuracy attacks leave.
fn attacked(report: &ReportPage) -> String {
    let each = report.rows.iter().map(|row| {
        let (attack, worst) = row.strongest();
        let (clean, robust) = (percent(row.clean.share), percent(worst.share));
        format!(
            "{} {robust} under {attack}, {clean} clean",
            name(report, row)
        )
    });
    let each: Vec<String> = each.collect();
    let shown = each[..each.len().min(2 * NAMED)].join("; ");
    let more = match each.len().saturating_sub(2 * NAMED) {
        0 => String::new(),
        more => format!("; {more} more are in the table"),
    };
    format!("Images that are classified correctly: {shown}{more}.")
}

/// Rows whose accuracy is not above that of naming the most frequent class.
fn chance(report: &ReportPage) -> Vec<String> {
    let Some(chance) = report.facts.chance() else {
        return Vec::new();
    };
    let below = |share: fn(&HeadlineRow) -> f64| {
        let rows = report.rows.iter().filter(|row| share(row) <= chance);
        rows.map(|row| name(report, row)).collect::<Vec<_>>()
    };
    let mut sentences = Vec::new();
    let clean = below(|row| row.clean.low);
    if !clean.is_empty() {
        sentences.push(format!(
            "Not shown to be better than naming the most frequent class always ({}), even on clean images: {}.",
            percent(chance),
            named(&clean)
        ));
    }
    let robust = below(|row| row.strongest().1.low);
    if !robust.is_empty() {
        sentences.push(format!(
            "Under attack not shown to be better than that ({}): {}.",
            percent(chance),
            named(&robust)
        ));
    }
    sentences
}

/// The class that attacks take the most from.
fn worst_classes(report: &ReportPage) -> Option<String> {
    let uneven = report.rows.iter().filter_map(|row| {
        let worst = &row.by_class.as_ref()?.robust;
        (row.robust.share - worst.worst_accuracy > UNEVEN).then(|| {
            format!(
                "{} for {} (average {}), class {}",
                percent(worst.worst_accuracy),
                name(report, row),
                percent(row.robust.share),
                worst.worst_class
            )
        })
    });
    let uneven: Vec<String> = uneven.collect();
    (!uneven.is_empty()).then(|| {
        format!(
            "An average hides classes that fall further under PGD: {}.",
            named(&uneven)
        )
    })
}

/// What common corruptions leave, without any attacker.
fn corruptions(report: &ReportPage) -> Vec<String> {
    let all = report.measured(|m| Some((m.corruptions.first()?.images, &m.corruptions)));
    let one = |one: &Measured<&Vec<Corrupted>>| {
        let kinds = one.value.iter();
        let average = mean(kinds.clone().flat_map(|kind| kind.accuracy));
        let worst = kinds.min_by(|a, b| a.accuracy[4].total_cmp(&b.accuracy[4]))?;
        let clean = one.shown.row.outcome.clean_accuracy;
        let kind = worst.kind.replace('_', " ");
        let verdict = match clean - average {
            lost if lost > 0.1 => "Common corruptions, which nobody intends, cost much",
            lost if lost > 0.02 => "Common corruptions cost something",
            _ => "Common corruptions cost little on average",
        };
        Some(format!(
            "{verdict}: {} classifies {} of the corrupted images correctly, {} of the clean ones; of those with the strongest {kind}, {}.",
            one.shown.label,
            percent(average),
            percent(clean),
            percent(worst.accuracy[4])
        ))
    };
    all.iter().take(NAMED).filter_map(one).collect()
}

/// Classifiers whose probabilities cannot be taken at their word.
fn calibration(report: &ReportPage) -> Option<String> {
    let all = report.measured(|m| Some((m.calibration.as_ref()?.images, m)));
    let wrong = all.iter().filter_map(|one| {
        let attacked = one.value.calibration_attacked.as_ref()?;
        let label = &one.shown.label;
        (attacked.error > UNSURE).then(|| format!("{label} {}", percent(attacked.error)))
    });
    let wrong: Vec<String> = wrong.collect();
    (!wrong.is_empty()).then(|| {
        format!(
            "Under attack the predicted probabilities are wrong (expected calibration error): {}.",
            named(&wrong)
        )
    })
}

/// What the figures cannot show.
fn noise(report: &ReportPage) -> Option<String> {
    let half = |figure: &HeadlineFigure| 100.0 * (figure.high - figure.low) / 2.0;
    let figures = report.rows.iter().flat_map(|row| [&row.clean, &row.robust]);
    let widest = figures.max_by(|a, b| half(a).total_cmp(&half(b)))?;
    let half = half(widest);
    Some(match report.rows.iter().any(|row| row.seeds > 1) {
        true => format!(
            "Deviations over the seeds are up to {half:.1} points; which differences exceed them, only the tests say."
        ),
        false => format!(
            "One seed, {} images: intervals of up to ±{half:.1} points, and another training may differ by more. A smaller difference of two rows shows nothing.",
            count(widest.images)
        ),
    })
}
