//! The headline's rows: a classifier of a run, or of all seeds of a comparison.

use std::path::Path;

use advcl::compare::{Spread, same_suite, suites};
use advcl::evaluate::{Attacked, ByClass};
use advcl::experiment::{Outcome, Seconds};
use advcl::interval::Interval;
use advcl::report::{Left, ReportedRow, ReportedRun, strongest};
use advcl::{finetune, pretrain};
use serde::Serialize;

use crate::format::{radius, suite_title};

/// A share of images with what is known of its noise.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct HeadlineFigure {
    /// The share, in [0, 1]; the mean over seeds.
    pub share: f64,
    /// Lower end of the 95 % interval, or the mean less the deviation.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Standard deviation over seeds, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
    /// Images that were evaluated, for each seed.
    pub images: usize,
}

/// A row of the headline.
#[derive(Clone, Debug, Serialize)]
pub struct HeadlineRow {
    /// The run's name, or the comparison's.
    pub run: String,
    /// The method's table.
    pub method: String,
    /// The mode's table, or "end-to-end".
    pub finetuning: String,
    /// Number of seeds.
    pub seeds: usize,
    /// Accuracy on clean images.
    pub clean: HeadlineFigure,
    /// Accuracy under PGD.
    pub robust: HeadlineFigure,
    /// Balanced accuracy and worst class; over several seeds means, and the worst class of the worst seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_class: Option<ByClass>,
    /// Steps of PGD.
    pub steps: usize,
    /// The suites of attacks beside PGD, the latest first.
    pub attacks: Vec<HeadlineAttack>,
    /// "0.1 (L∞)".
    pub radius: String,
    /// Whether the figures are under the recipe's conditions.
    pub current: bool,
    /// Other conditions in words: radius, attack, images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<String>,
    /// Seconds of pretraining (with the pseudo-labels and encoders it learns from), finetuning and
    /// evaluation; means over the seeds.
    pub times: Seconds,
    /// Their sum.
    pub seconds: f64,
}

/// Accuracy under a suite of attacks beside PGD.
#[derive(Clone, Debug, Serialize)]
pub struct HeadlineAttack {
    /// "autoattack", "square", "custom".
    pub suite: String,
    /// Images that no attack broke.
    pub robust: HeadlineFigure,
    /// Accuracy under PGD on the same images, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgd: Option<HeadlineFigure>,
    /// Whether its attacks are more than weak ones.
    #[serde(skip)]
    pub thorough: bool,
}

impl HeadlineRow {
    /// "AdvCL · SLF", with the conditions where they are not the recipe's.
    pub fn title(&self) -> String {
        let title = title(&self.method, &self.finetuning);
        match &self.conditions {
            Some(conditions) => format!("{title} ({conditions})"),
            None => title,
        }
    }

    /// Accuracy under a suite with this title; of several runs of it, that on the most images.
    pub fn attack(&self, title: &str) -> Option<&HeadlineAttack> {
        let same = self.attacks.iter().filter(|one| one.title() == title);
        same.max_by(|a, b| self.left(a).compare_runs(&self.left(b)))
    }

    /// Accuracy under the strongest attack that ran, with its name: a suite or PGD.
    pub fn strongest(&self) -> (String, HeadlineFigure) {
        match strongest(&self.attacks, |attack| self.left(attack)) {
            Some(attack) => (attack.title(), attack.robust),
            None => (format!("PGD-{}", self.steps), self.robust),
        }
    }

    /// Whether more than weak attacks ran.
    pub fn is_thorough(&self) -> bool {
        self.attacks.iter().any(|attack| attack.thorough)
    }

    /// Shares of the images that a suite and PGD left.
    fn left<'a>(&self, attack: &'a HeadlineAttack) -> Left<'a> {
        Left {
            suite: &attack.suite,
            images: attack.robust.images,
            robust: attack.robust.share,
            pgd: attack.pgd.unwrap_or(self.robust).share,
            thorough: attack.thorough,
        }
    }
}

impl HeadlineAttack {
    /// Title of the suite.
    pub fn title(&self) -> String {
        suite_title(&self.suite)
    }
}

/// Titles of the suites that ran on some rows.
pub fn suite_titles(rows: &[HeadlineRow]) -> Vec<String> {
    let mut titles = Vec::new();
    for attack in rows.iter().flat_map(|row| &row.attacks) {
        if !titles.contains(&attack.title()) {
            titles.push(attack.title());
        }
    }
    titles
}

/// "AdvCL · SLF".
pub fn title(method: &str, finetuning: &str) -> String {
    format!(
        "{} · {}",
        pretrain::title(method),
        finetune::title(finetuning)
    )
}

/// The run's name, or that of its comparison.
pub fn run_name(run: &ReportedRun) -> &str {
    match &run.comparison {
        Some(_) => run
            .name
            .rsplit_once(", ")
            .map_or(&run.name, |(name, _)| name),
        None => &run.name,
    }
}

/// The rows: one for each classifier of a run, and for each classifier of a comparison.
pub fn headline(runs: &[ReportedRun]) -> Vec<HeadlineRow> {
    /// The run or the comparison, the classifier, and the conditions and images that are not the recipe's.
    type Key<'a> = (&'a Path, &'a str, Option<(String, &'a str)>);
    let mut groups: Vec<(Key, &ReportedRun, Vec<&ReportedRow>)> = Vec::new();
    for run in runs {
        for row in &run.rows {
            let path = run.comparison.as_ref().unwrap_or(&run.path);
            let images = row.outcome.evaluated.fingerprint.as_str();
            let other = (!row.current).then(|| (conditions(row), images));
            let key = (path.as_path(), row.classifier.as_str(), other);
            match groups.iter_mut().find(|(other, ..)| *other == key) {
                Some((.., rows)) => rows.push(row),
                None => groups.push((key, run, vec![row])),
            }
        }
    }
    let groups = groups.iter();
    groups
        .filter_map(|(_, run, rows)| headline_row(run_name(run), rows))
        .collect()
}

/// Conditions of a row in words.
pub fn conditions(row: &ReportedRow) -> String {
    let Outcome {
        threat,
        attack_steps,
        evaluated,
        images,
        ..
    } = &row.outcome;
    format!(
        "{}, PGD-{attack_steps}, {images} images of {}",
        radius(threat),
        evaluated.data
    )
}

/// A share of images for every seed as one figure; none where a seed lacks it.
fn figure(
    rows: &[&ReportedRow],
    counts: impl Fn(&Outcome) -> Option<(usize, usize)>,
) -> Option<HeadlineFigure> {
    let counts: Option<Vec<(usize, usize)>> = rows.iter().map(|row| counts(&row.outcome)).collect();
    let counts = counts?;
    let images = counts.first()?.1;
    let intervals = counts
        .iter()
        .map(|&(hits, all)| Interval::wilson(hits, all));
    let intervals: Vec<Interval> = intervals.collect::<Option<_>>()?;
    if let [one] = intervals[..] {
        return Some(HeadlineFigure {
            share: one.share,
            low: one.low,
            high: one.high,
            deviation: None,
            images,
        });
    }
    let shares: Vec<f64> = intervals.iter().map(|one| one.share).collect();
    let spread = Spread::of(&shares);
    let half = spread.deviation.unwrap_or(0.0);
    Some(HeadlineFigure {
        share: spread.mean,
        low: (spread.mean - half).max(0.0),
        high: (spread.mean + half).min(1.0),
        deviation: spread.deviation,
        images,
    })
}

/// None where no images were evaluated.
fn headline_row(run: &str, rows: &[&ReportedRow]) -> Option<HeadlineRow> {
    let first = &rows[0].outcome;
    let total = |outcome: &Outcome| outcome.accuracy.total;
    let attack = |like: &Attacked| {
        let robust = figure(rows, |outcome| {
            let attacked = same_suite(outcome, like)?;
            Some((attacked.robust, attacked.images))
        });
        let pgd = figure(rows, |outcome| {
            let pgd = same_suite(outcome, like)?.pgd?;
            Some((pgd.robust, pgd.images))
        });
        Some(HeadlineAttack {
            suite: like.suite.clone(),
            robust: robust?,
            pgd,
            thorough: like.is_thorough(),
        })
    };
    let by_class = rows.iter().map(|row| row.outcome.by_class.as_ref());
    let by_class: Option<Vec<&ByClass>> = by_class.collect();
    let mean = |seconds: fn(&Seconds) -> f64| {
        let all = rows.iter().map(|row| seconds(&row.outcome.seconds));
        all.sum::<f64>() / rows.len() as f64
    };
    let times = Seconds {
        pretrain: mean(|seconds| seconds.pretrain),
        finetune: mean(|seconds| seconds.finetune),
        evaluate: mean(|seconds| seconds.evaluate),
    };
    Some(HeadlineRow {
        run: run.to_owned(),
        method: first.method.clone(),
        finetuning: first.finetuning.clone(),
        seeds: rows.len(),
        clean: figure(rows, |outcome| {
            Some((total(outcome).clean, total(outcome).images))
        })?,
        robust: figure(rows, |outcome| {
            Some((total(outcome).robust, total(outcome).images))
        })?,
        by_class: by_class.and_then(|seeds| ByClass::over_seeds(&seeds)),
        steps: first.attack_steps,
        attacks: suites(first).filter_map(attack).collect(),
        radius: radius(&first.threat),
        current: rows.iter().all(|row| row.current),
        conditions: (!rows[0].current).then(|| conditions(rows[0])),
        times,
        seconds: times.pretrain + times.finetune + times.evaluate,
    })
}
