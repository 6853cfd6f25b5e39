//! More than one number: what else there is to know of a classifier under attack.

mod answers;
mod curves;

use serde::{Deserialize, Serialize};

use crate::attack::Norm;
use crate::error::{Error, Result, nearest};

pub use answers::{Answers, NEIGHBOURS, REFERENCES, transfer};
pub use curves::{Subject, radii};

/// A thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Accuracy against radius.
    Radius,
    /// Accuracy against steps.
    Steps,
    /// Accuracy on corrupted images.
    Corruptions,
    /// Which class is taken for which, clean and under attack.
    Confusion,
    /// Nearest neighbours of clean and of attacked features.
    Features,
    /// Confidence against accuracy, clean and under attack.
    Calibration,
    /// Examples made on one classifier, tried on the others.
    Transfer,
}

/// What there is to measure, by name.
pub const MEASURES: [(&str, Measure); 7] = [
    ("radius", Measure::Radius),
    ("steps", Measure::Steps),
    ("corruptions", Measure::Corruptions),
    ("confusion", Measure::Confusion),
    ("features", Measure::Features),
    ("calibration", Measure::Calibration),
    ("transfer", Measure::Transfer),
];

/// The name of all of them together.
pub const ALL: &str = "all";

impl Measure {
    /// "all", or names with commas between them. In the order of [`MEASURES`], each once.
    ///
    /// # Errors
    /// [`Error::Recipe`] for a name that is none.
    pub fn list(names: &str) -> Result<Vec<Self>> {
        let asked: Vec<&str> = names.split(',').map(str::trim).collect();
        let known = || std::iter::once(ALL).chain(MEASURES.map(|(name, _)| name));
        for name in &asked {
            if !known().any(|other| other == *name) {
                let problem = format!("there is no measure {name:?}");
                return Err(Error::recipe("--measure", problem, nearest(name, known())));
            }
        }
        let wanted = |name: &str| asked.contains(&ALL) || asked.contains(&name);
        let all = MEASURES.into_iter().filter(|(name, _)| wanted(name));
        Ok(all.map(|(_, measure)| measure).collect())
    }

    /// Measure of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        let own = MEASURES.iter().find(|(other, _)| *other == name);
        own.map(|(_, measure)| *measure)
    }

    /// Name of the measure.
    pub fn name(self) -> &'static str {
        let own = MEASURES.iter().find(|(_, measure)| *measure == self);
        own.expect("the table has them all").0
    }

    /// The recipe's keys that it depends on beside its classifier's.
    pub fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Corruptions => &[],
            Self::Radius | Self::Steps => &["threat"],
            Self::Confusion | Self::Features | Self::Calibration | Self::Transfer => {
                &["threat", "evaluate.steps", "evaluate.step_size"]
            }
        }
    }
}

/// Accuracy at one radius, or after so many steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Radius in pixels, or steps.
    pub at: f64,
    /// In [0, 1].
    pub accuracy: f64,
}

/// Accuracy against radius.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// How distance is measured.
    pub norm: Norm,
    /// By rising radius, from 0.
    pub points: Vec<Point>,
}

/// Accuracy on corrupted images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Corrupted {
    /// "gaussian_noise", as published.
    pub kind: String,
    /// In [0, 1], at severities 1 to 5.
    pub accuracy: [f64; 5],
}

/// Nearest-neighbour accuracy of features: how far a representation moves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbours {
    /// How many vote.
    pub k: usize,
    /// Of the images as they are, in [0, 1].
    pub clean: f64,
    /// Of the attacked images, in [0, 1].
    pub attacked: f64,
}

/// Images by how sure the classifier is of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Images.
    pub images: usize,
    /// Mean probability of the class that is said.
    pub confidence: f64,
    /// Share that is right.
    pub accuracy: f64,
}

/// How far confidence and accuracy agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Expected calibration error, in [0, 1].
    pub error: f64,
    /// Of equal width, from 0 to 1.
    pub bins: Vec<Bin>,
}

/// All of it; parts that were not asked for are not there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    /// Images that were measured.
    pub images: usize,
    /// Accuracy against radius, L∞ and L2.
    #[serde(default)]
    pub radius: Vec<Curve>,
    /// Accuracy against steps, at the recipe's radius.
    #[serde(default)]
    pub steps: Vec<Point>,
    /// Common corruptions, 15 kinds.
    #[serde(default)]
    pub corruptions: Vec<Corrupted>,
    /// `[true class][class said]`, of the images as they are.
    #[serde(default)]
    pub confusion: Vec<Vec<usize>>,
    /// The same under attack.
    #[serde(default)]
    pub confusion_attacked: Vec<Vec<usize>>,
    /// Of the features.
    pub neighbours: Option<Neighbours>,
    /// Of the images as they are.
    pub calibration: Option<Calibration>,
    /// Under attack.
    pub calibration_attacked: Option<Calibration>,
}

impl Measures {
    /// Takes one measure over from others.
    pub fn take(&mut self, measure: Measure, from: &Self) {
        match measure {
            Measure::Radius => self.radius.clone_from(&from.radius),
            Measure::Steps => self.steps.clone_from(&from.steps),
            Measure::Corruptions => self.corruptions.clone_from(&from.corruptions),
            Measure::Confusion => {
                self.confusion.clone_from(&from.confusion);
                self.confusion_attacked.clone_from(&from.confusion_attacked);
            }
            Measure::Features => self.neighbours = from.neighbours,
            Measure::Calibration => {
                self.calibration.clone_from(&from.calibration);
                self.calibration_attacked
                    .clone_from(&from.calibration_attacked);
            }
            Measure::Transfer => {} // Between rows: kept elsewhere.
        }
    }
}

/// How far adversarial examples of one classifier fool others: PGD on one, each image, and what all of them say of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Images that were attacked.
    pub images: usize,
    /// METHOD/MODE: rows and columns.
    pub classifiers: Vec<String>,
    /// Of each classifier on the images as they are, in [0, 1].
    pub clean: Vec<f64>,
    /// `[where the examples come from][who is attacked]`, in [0, 1].
    pub accuracy: Vec<Vec<f64>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_listed_by_name() {
        let list = |names| Measure::list(names).map_err(|error| error.to_string());
        assert_eq!(
            list("all"),
            Ok(MEASURES.map(|(_, measure)| measure).to_vec())
        );
        assert_eq!(
            list("steps, radius,steps"),
            Ok(vec![Measure::Radius, Measure::Steps])
        );
        for names in ["", "radius,", "raduis"] {
            assert!(list(names).is_err(), "{names:?}");
        }
        let error = Measure::list("calibrate").expect_err("no such measure");
        assert_eq!(error.hint(), Some("did you mean \"calibration\"?"));
        assert_eq!(error.exit_code(), 2);
    }
}
