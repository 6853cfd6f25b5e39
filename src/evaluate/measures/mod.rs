//! Measures of a classifier beside its accuracy: curves, corruptions, an adversarial patch, certified accuracy, confusion,
//! calibration, features, transfer. Every share has its number of images and its 95 % Wilson interval.

mod confusion;
mod curves;
mod patch;
mod predictions;
mod results;
mod smoothing;

use crate::error::{Error, Result, nearest};

pub use confusion::Confusion;
pub use curves::{MeasuredClassifier, radii};
pub use predictions::{NEIGHBOURS, Predictions, REFERENCES, transfer};
pub use results::{
    Bin, Calibration, Certified, Corrupted, Curve, Measures, Neighbours, Patched, Point, Transfer,
};

/// Measure beside clean and robust accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Accuracy against radius.
    Radius,
    /// Accuracy against steps.
    Steps,
    /// Accuracy on corrupted images.
    Corruptions,
    /// Accuracy under an adversarial patch.
    Patch,
    /// Certified accuracy by randomised smoothing.
    Smoothing,
    /// Confusion matrix, clean and under attack.
    Confusion,
    /// Nearest-neighbour accuracy of clean and of attacked features.
    Features,
    /// Confidence against accuracy, clean and under attack.
    Calibration,
    /// Accuracy of each classifier on the adversarial examples of every other one.
    Transfer,
}

/// Every measure with its name.
pub const MEASURES: [(&str, Measure); 9] = [
    ("radius", Measure::Radius),
    ("steps", Measure::Steps),
    ("corruptions", Measure::Corruptions),
    ("patch", Measure::Patch),
    ("smoothing", Measure::Smoothing),
    ("confusion", Measure::Confusion),
    ("features", Measure::Features),
    ("calibration", Measure::Calibration),
    ("transfer", Measure::Transfer),
];

/// Name of all measures together.
pub const ALL: &str = "all";

impl Measure {
    /// Reads "all", or names with commas between them. The result is in the order of [`MEASURES`], each once.
    ///
    /// # Errors
    /// [`Error::Recipe`] for an unknown name.
    pub fn list(names: &str) -> Result<Vec<Self>> {
        let given: Vec<&str> = names.split(',').map(str::trim).collect();
        let known = || std::iter::once(ALL).chain(MEASURES.map(|(name, _)| name));
        for name in &given {
            if !known().any(|other| other == *name) {
                let problem = format!("there is no measure {name:?}");
                return Err(Error::recipe("--measure", problem, nearest(name, known())));
            }
        }
        let wanted = |name: &str| given.contains(&ALL) || given.contains(&name);
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

    /// Keys of the recipe that the measure depends on, beside those of its classifier.
    pub fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Corruptions => &[],
            Self::Patch => &["evaluate.patch"],
            Self::Smoothing => &["evaluate.smoothing"],
            Self::Radius | Self::Steps => &["threat"],
            Self::Confusion | Self::Features | Self::Calibration | Self::Transfer => {
                &["threat", "evaluate.steps", "evaluate.step_size"]
            }
        }
    }
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
