//! The data of a report's page, shared by its sections.

use advcl::data::Batch;
use advcl::evaluate::measures::Measures;
use advcl::evaluate::soundness::Soundness;
use advcl::report::{
    Example, FeatureMap, LossSurface, ReportedComparison, ReportedRow, ReportedRun,
};
use maud::Markup;

use super::headline::HeadlineRow;
use crate::format::quoted;

/// Number of classifiers with pictures: each takes time and space on the page.
pub const PICTURED: usize = 6;
/// Number of runs with views and training curves.
pub const SIDE_BY_SIDE: usize = 4;

/// Everything that is on the page.
pub struct ReportPage<'a> {
    /// All runs, those of a comparison seed by seed.
    pub runs: &'a [ReportedRun],
    /// The tests of each comparison.
    pub comparisons: &'a [ReportedComparison],
    /// Runs that pictures and curves are of: of a comparison, the first seed.
    pub leads: &'a [&'a ReportedRun],
    /// Images, labels, classes.
    pub facts: &'a Facts,
    /// The headline's rows.
    pub rows: &'a [HeadlineRow],
    /// The classifiers of these runs.
    pub shown: &'a [ShownClassifier<'a>],
    /// Views of their pretraining.
    pub views: &'a [ShownViews<'a>],
}

/// Data of the first of the runs, where its images were read.
#[derive(Default)]
pub struct Facts {
    /// Images that encoders are pretrained on.
    pub training: usize,
    /// Training images with labels.
    pub labeled: usize,
    /// Evaluated images of each class.
    pub classes: Vec<usize>,
    /// Images that are held out of training, of each run with curves; of none that were not counted.
    pub held_out: Vec<usize>,
}

impl Facts {
    /// Accuracy of naming the most frequent class always; none without images.
    pub fn chance(&self) -> Option<f64> {
        let (all, most) = (
            self.classes.iter().sum::<usize>(),
            self.classes.iter().max()?,
        );
        (all > 0).then(|| *most as f64 / all as f64)
    }
}

/// Number of classifiers from which their parts of a section are folded.
pub const MANY: usize = 8;

/// A classifier of one run.
pub struct ShownClassifier<'a> {
    /// "AdvCL · SLF", after the run's name where there are several.
    pub label: String,
    /// Its run.
    pub run: &'a ReportedRun,
    /// Its figures.
    pub row: &'a ReportedRow,
    /// Pictures of the first classifiers.
    pub pictures: Option<Pictures>,
    /// Whether its figures belong to the recipe and the images as they are now.
    pub up_to_date: bool,
}

/// Pictures that are computed from a classifier.
pub struct Pictures {
    pub examples: Vec<Example>,
    pub map: Option<FeatureMap>,
    pub surface: Option<LossSurface>,
}

/// The views of a run's pretraining.
pub struct ShownViews<'a> {
    pub run: &'a ReportedRun,
    pub columns: Vec<(&'static str, Batch)>,
}

/// The reason why a section is not on the page, and the command that would make it.
pub struct Missing {
    pub why: String,
    pub command: Option<String>,
}

/// A section's content.
pub type SectionBody = Result<Markup, Missing>;

impl Missing {
    /// A section that no command makes.
    pub fn because(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            command: None,
        }
    }

    /// A section that needs a command.
    pub fn until(why: impl Into<String>, command: String) -> Self {
        Self {
            why: why.into(),
            command: Some(command),
        }
    }
}

impl ShownClassifier<'_> {
    /// The class's name, or its number.
    pub fn class(&self, label: usize) -> String {
        self.row.outcome.class(label)
    }

    /// The checks of its evaluation.
    pub fn soundness(&self) -> Option<&Soundness> {
        self.row.outcome.soundness.as_ref()
    }
}

/// One measure of a classifier.
pub struct Measured<'a, T> {
    /// Colour and shape of the classifier.
    pub style: usize,
    pub shown: &'a ShownClassifier<'a>,
    /// Number of images that it was measured on.
    pub images: usize,
    pub value: T,
}

impl ReportPage<'_> {
    /// The classifiers of which `part` was measured, with the number of images of the measure: it may have
    /// been taken with another limit than its neighbours.
    pub fn measured<'a, T>(
        &'a self,
        part: impl Fn(&'a Measures) -> Option<(usize, T)>,
    ) -> Vec<Measured<'a, T>> {
        let measured = |(style, shown): (usize, &'a ShownClassifier<'a>)| {
            let (images, value) = part(shown.row.outcome.measures.as_ref()?)?;
            Some(Measured {
                style,
                shown,
                images,
                value,
            })
        };
        self.shown.iter().enumerate().filter_map(measured).collect()
    }

    /// An `advcl evaluate` command on the first run.
    pub fn evaluate(&self, options: &str) -> String {
        format!("advcl evaluate {}{options}", quoted(&self.leads[0].path))
    }

    /// The command that runs AutoAttack on the first run, or on all runs of its comparison.
    pub fn autoattack(&self) -> String {
        match &self.leads[0].comparison {
            Some(path) => format!(
                "advcl compare --run {} --set 'evaluate.attack = \"autoattack\"'",
                quoted(path)
            ),
            None => self.evaluate(" --attack autoattack"),
        }
    }

    /// A section whose measures were not taken.
    pub fn not_measured(&self, names: &str) -> Missing {
        let command = self.evaluate(&format!(" --measure {names}"));
        Missing::until("not measured yet", command)
    }
}

/// Each text once, in order.
pub fn distinct(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = Vec::new();
    for text in texts {
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    seen
}
