//! Differences between methods over the seeds of a comparison, and whether their tests show them.

use advcl::compare::LEVEL;
use maud::{Markup, html};

use super::html::table;
use super::model::ReportPage;
use crate::format::comparison::{differences, gaps, power, sentences};

/// The differences of every comparison.
pub fn comparisons(report: &ReportPage) -> Markup {
    html! {
        p { "Accuracy of each method less that of the baseline, by the same finetuning, paired by seed. A difference counts as shown where its "
            "two-sided paired t-test, corrected for all differences of the comparison (Holm), is below the level of " (LEVEL) "." }
        @for reported in report.comparisons {
            @let comparison = &reported.comparison;
            @if report.comparisons.len() > 1 { h3 { (reported.name) } }
            ul { @for sentence in sentences(comparison) { li { (sentence) } } }
            @for line in power(comparison).iter().flat_map(|text| text.lines()) { p { (line) } }
            @for (title, rows) in [differences(comparison), gaps(comparison)] {
                @if !rows.is_empty() { (table(&title, &rows)) }
            }
        }
    }
}
