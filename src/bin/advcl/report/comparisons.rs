//! Differences between methods over the seeds of a comparison, and whether their tests show them.

use advcl::compare::{Comparison, DifferenceVerdict, LEVEL, MethodDifference};
use advcl::pretrain;
use maud::{Markup, html};

use super::headline::title;
use super::html::table;
use super::model::ReportPage;
use crate::format::comparison::{accuracy_title, differences, gaps};

/// The differences of every comparison.
pub fn comparisons(report: &ReportPage) -> Markup {
    html! {
        p { "Accuracy of each method less that of the baseline, by the same finetuning, paired by seed. A difference counts as shown where its "
            "two-sided paired t-test, corrected for all differences of the comparison (Holm), is below the level of " (LEVEL) "." }
        @for reported in report.comparisons {
            @let comparison = &reported.comparison;
            @if report.comparisons.len() > 1 { h3 { (reported.name) } }
            ul { @for sentence in shown_differences(comparison) { li { (sentence) } } }
            @for (title, rows) in [differences(comparison), gaps(comparison)] {
                @if !rows.is_empty() { (table(&title, &rows)) }
            }
        }
    }
}

/// The results of the tests in sentences.
pub fn shown_differences(comparison: &Comparison) -> Vec<String> {
    let Some(baseline) = comparison.baseline.as_deref().map(pretrain::title) else {
        return vec!["The recipe has no baseline to compare with.".to_owned()];
    };
    let all = &comparison.differences;
    if all.is_empty() {
        return vec![format!(
            "No method is compared with the baseline, {baseline}."
        )];
    }
    let tested = all
        .iter()
        .filter(|difference| difference.p.is_some())
        .count();
    if tested == 0 {
        let seeds = comparison.seeds.len();
        return vec![format!(
            "No difference from {baseline} can be tested with {seeds} seed(s): a test takes two or more that differ."
        )];
    }
    let shown = |difference: &MethodDifference| {
        let more = match difference.verdict() {
            DifferenceVerdict::Higher => "higher",
            DifferenceVerdict::Lower => "lower",
            DifferenceVerdict::NotShown | DifferenceVerdict::Unknown => return None,
        };
        let accuracy = accuracy_title(difference.measure, comparison);
        let points = &difference.points;
        Some(format!(
            "{}: {accuracy} accuracy {more} than {baseline}'s, {:+.1} ± {:.1} points (corrected p = {:.3}).",
            title(&difference.method, &difference.finetuning),
            points.mean,
            points.deviation.unwrap_or(0.0),
            difference.p_corrected.unwrap_or(1.0),
        ))
    };
    let mut sentences: Vec<String> = all.iter().filter_map(shown).collect();
    if sentences.is_empty() {
        sentences.push(format!(
            "No difference from {baseline} is shown: none of {tested} tests is below the level after correction."
        ));
    }
    sentences
}
