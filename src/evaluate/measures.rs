//! More than one number: what else there is to know of a classifier under attack.

use serde::{Deserialize, Serialize};

use crate::attack::Norm;

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
