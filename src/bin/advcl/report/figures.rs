//! The headline's rows: a classifier of a run, or of all seeds of a comparison.

use std::path::Path;

use advcl::attack::Norm;
use advcl::compare::Spread;
use advcl::interval::Interval;
use advcl::report::{Folder, Row};
use advcl::{finetune, pretrain};
use serde::Serialize;

/// A share with what is known of its noise.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figure {
    /// In [0, 1].
    pub share: f64,
    /// Of the 95 % interval, or the mean less the deviation.
    pub low: f64,
    /// The other end.
    pub high: f64,
    /// Over seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
}

/// A row of the headline.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// The run's name, or the comparison's.
    pub run: String,
    /// The method's table.
    pub method: String,
    /// The mode's table, or "end-to-end".
    pub finetuning: String,
    /// Over how many seeds.
    pub seeds: usize,
    /// Images judged, each time.
    pub images: usize,
    /// As they are.
    pub clean: Figure,
    /// Under PGD.
    pub robust: Figure,
    /// Its steps.
    pub steps: usize,
    /// Under the attacks beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attacked: Option<Attacked>,
    /// "0.1 (L∞)".
    pub radius: String,
    /// Seconds of everything, the mean over seeds.
    pub seconds: f64,
}

/// Under the attacks beside PGD.
#[derive(Clone, Debug, Serialize)]
pub struct Attacked {
    /// Which.
    pub suite: String,
    /// On how many images.
    pub images: usize,
    /// What was left.
    pub robust: Figure,
}

impl Line {
    /// "AdvCL · SLF".
    pub fn title(&self) -> String {
        title(&self.method, &self.finetuning)
    }

    /// The lowest robust accuracy that is known, with the attack's name.
    pub fn worst(&self) -> (String, Figure) {
        let pgd = (format!("PGD-{}", self.steps), self.robust);
        match &self.attacked {
            Some(more) => (suite_title(&more.suite), more.robust),
            None => pgd,
        }
    }
}

/// "AdvCL · SLF".
pub fn title(method: &str, finetuning: &str) -> String {
    format!(
        "{} · {}",
        pretrain::title(method),
        finetune::title(finetuning)
    )
}

/// As the literature writes it.
pub fn suite_title(name: &str) -> String {
    match name {
        "autoattack" => "AutoAttack".to_owned(),
        other => other.to_owned(),
    }
}

/// "L∞".
pub fn norm(norm: Norm) -> &'static str {
    match norm {
        Norm::Linf => "L∞",
        Norm::L2 => "L2",
    }
}

/// One for each classifier, and for each classifier of a comparison.
pub fn lines(folders: &[Folder]) -> Vec<Line> {
    // What a row is of: the run, or the comparison, and the classifier.
    let mut groups: Vec<((&Path, &str), &Folder, Vec<&Row>)> = Vec::new();
    for folder in folders {
        for row in &folder.rows {
            let run = folder.comparison.as_ref().unwrap_or(&folder.path);
            let key = (run.as_path(), row.classifier.as_str());
            match groups.iter_mut().find(|(other, ..)| *other == key) {
                Some((.., rows)) => rows.push(row),
                None => groups.push((key, folder, vec![row])),
            }
        }
    }
    let of = groups.iter();
    of.filter_map(|(_, folder, rows)| line(folder_name(folder), rows))
        .collect()
}

/// The comparison's name, where it is a seed of one.
pub fn folder_name(folder: &Folder) -> &str {
    match &folder.comparison {
        Some(_) => folder
            .name
            .rsplit_once(", ")
            .map_or(&folder.name, |(name, _)| name),
        None => &folder.name,
    }
}

/// None where no images were judged.
fn line(run: &str, rows: &[&Row]) -> Option<Line> {
    let first = &rows[0].outcome;
    let of = |value: &dyn Fn(&Row) -> Option<Interval>| -> Option<Figure> {
        let all: Option<Vec<Interval>> = rows.iter().map(|row| value(row)).collect();
        match all.as_deref()? {
            [one] => Some(Figure {
                share: one.share,
                low: one.low,
                high: one.high,
                deviation: None,
            }),
            many => {
                let shares: Vec<f64> = many.iter().map(|one| one.share).collect();
                let Spread {
                    mean, deviation, ..
                } = Spread::of(&shares);
                let half = deviation.unwrap_or(0.0);
                Some(Figure {
                    share: mean,
                    low: (mean - half).max(0.0),
                    high: (mean + half).min(1.0),
                    deviation,
                })
            }
        }
    };
    let attacked = of(&|row| row.worst).zip(first.attacked.as_ref());
    let seconds = |row: &&Row| {
        let seconds = &row.outcome.seconds;
        seconds.pretrain + seconds.finetune + seconds.evaluate
    };
    Some(Line {
        run: run.to_owned(),
        method: first.method.clone(),
        finetuning: first.finetuning.clone(),
        seeds: rows.len(),
        images: first.images,
        clean: of(&|row| row.clean)?,
        robust: of(&|row| row.robust)?,
        steps: first.attack_steps,
        attacked: attacked.map(|(robust, attacked)| Attacked {
            suite: attacked.suite.clone(),
            images: attacked.images,
            robust,
        }),
        radius: format!("{} ({})", first.threat.radius, norm(first.threat.norm)),
        seconds: rows.iter().map(seconds).sum::<f64>() / rows.len() as f64,
    })
}
