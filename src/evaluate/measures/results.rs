//! Results of the measures, as they are kept in files. Every share has its number of images and its 95 % Wilson interval.

use serde::{Deserialize, Serialize};

use super::{Confusion, Measure};
use crate::attack::Norm;
use crate::interval::Interval;
use crate::smoothing::{Certificate, Smoothing};

/// Upper end of an interval that is not known, in files of earlier versions.
fn one<const N: usize>() -> [f64; N] {
    [1.0; N]
}

fn unknown_high() -> f64 {
    1.0
}

/// Share of `hits` with its interval; the widest one without images.
fn counted(hits: usize, images: usize) -> Interval {
    Interval::wilson(hits, images).unwrap_or(Interval {
        share: 0.0,
        low: 0.0,
        high: 1.0,
        images: 0,
    })
}

/// Accuracy at one radius, or after a number of steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Radius in pixels, or number of steps.
    pub at: f64,
    /// Accuracy in [0, 1].
    pub accuracy: f64,
    /// Images that the accuracy is of; 0 in files of earlier versions.
    #[serde(default)]
    pub images: usize,
    /// Lower end of the accuracy's 95 % interval.
    #[serde(default)]
    pub low: f64,
    /// Upper end of the accuracy's 95 % interval.
    #[serde(default = "unknown_high")]
    pub high: f64,
}

impl Point {
    /// Point of `hits` out of `images` that are classified correctly.
    pub fn new(at: f64, hits: usize, images: usize) -> Self {
        let counted = counted(hits, images);
        Self {
            at,
            accuracy: counted.share,
            images,
            low: counted.low,
            high: counted.high,
        }
    }
}

/// Accuracy against radius.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Norm of the radius.
    pub norm: Norm,
    /// Points by rising radius, from 0.
    pub points: Vec<Point>,
}

/// Accuracy on images with one kind of corruption, at severities 1 to 5.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Corrupted {
    /// Published name of the corruption: "gaussian_noise".
    pub kind: String,
    /// Images that each accuracy is of; 0 in files of earlier versions.
    #[serde(default)]
    pub images: usize,
    /// Accuracies in [0, 1].
    pub accuracy: [f64; 5],
    /// Lower ends of the accuracies' 95 % intervals.
    #[serde(default)]
    pub low: [f64; 5],
    /// Upper ends of the accuracies' 95 % intervals.
    #[serde(default = "one")]
    pub high: [f64; 5],
}

impl Corrupted {
    /// Accuracies of `hits`, by severity, out of `images` that are classified correctly.
    pub fn new(kind: &str, hits: [usize; 5], images: usize) -> Self {
        let counted = hits.map(|hits| counted(hits, images));
        Self {
            kind: kind.to_owned(),
            images,
            accuracy: counted.map(|severity| severity.share),
            low: counted.map(|severity| severity.low),
            high: counted.map(|severity| severity.high),
        }
    }
}

/// Accuracy under an adversarial patch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Patched {
    /// Side of the square, in pixels.
    pub side: usize,
    /// Random places that were tried in each image.
    pub places: usize,
    /// Gradient steps at each place.
    pub steps: usize,
    /// Accuracy on clean images.
    pub clean: Interval,
    /// Share of the images that are classified correctly, clean and with every patch that was tried.
    pub robust: Interval,
}

impl Patched {
    /// Accuracies of `clean` and `robust` out of `images` under so many steps at so many places of a square.
    pub fn new(
        (side, places, steps): (usize, usize, usize),
        [clean, robust]: [usize; 2],
        images: usize,
    ) -> Self {
        Self {
            side,
            places,
            steps,
            clean: counted(clean, images),
            robust: counted(robust, images),
        }
    }
}

/// Certified accuracy in L2 by randomised smoothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certified {
    /// Noise, samples and confidence.
    pub settings: Smoothing,
    /// Images for which the smoothed classifier abstains, so that they count as wrong.
    pub abstained: usize,
    /// Certified accuracy by rising radius in pixels, from 0: the share of the images that the smoothed classifier classifies
    /// correctly and whose certified radius is as large. At 0 it is the accuracy of the smoothed classifier.
    pub points: Vec<Point>,
    /// Certificate of each image with the counts that it follows from, by the image's index.
    pub certificates: Vec<Certificate>,
}

impl Certified {
    /// Certified accuracy of images with these certificates, by the label of each image of the split.
    pub fn new(settings: &Smoothing, certificates: Vec<Certificate>, labels: &[usize]) -> Self {
        let correct = |one: &&Certificate| labels[one.image] == one.class;
        let at = |radius: f64| {
            let far = |one: &&Certificate| one.radius.is_some_and(|own| own >= radius);
            let hits = certificates.iter().filter(correct).filter(far).count();
            Point::new(radius, hits, certificates.len())
        };
        Self {
            settings: settings.clone(),
            abstained: certificates
                .iter()
                .filter(|one| one.radius.is_none())
                .count(),
            points: settings.radii().into_iter().map(at).collect(),
            certificates,
        }
    }
}

/// Nearest-neighbour accuracy of features: how far an attack moves a representation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbours {
    /// Number of neighbours that vote.
    pub k: usize,
    /// Images that each accuracy is of; 0 in files of earlier versions.
    #[serde(default)]
    pub images: usize,
    /// Accuracy on clean images, in [0, 1].
    pub clean: f64,
    /// Lower end of its 95 % interval.
    #[serde(default)]
    pub clean_low: f64,
    /// Upper end of its 95 % interval.
    #[serde(default = "unknown_high")]
    pub clean_high: f64,
    /// Accuracy on adversarial images, in [0, 1].
    pub attacked: f64,
    /// Lower end of its 95 % interval.
    #[serde(default)]
    pub attacked_low: f64,
    /// Upper end of its 95 % interval.
    #[serde(default = "unknown_high")]
    pub attacked_high: f64,
}

impl Neighbours {
    /// Accuracies of `clean` and `attacked` out of `images` whose `k` neighbours vote for their class.
    pub fn new(k: usize, clean: usize, attacked: usize, images: usize) -> Self {
        let [clean, attacked] = [clean, attacked].map(|hits| counted(hits, images));
        Self {
            k,
            images,
            clean: clean.share,
            clean_low: clean.low,
            clean_high: clean.high,
            attacked: attacked.share,
            attacked_low: attacked.low,
            attacked_high: attacked.high,
        }
    }
}

/// Images in one range of confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Number of images.
    pub images: usize,
    /// Mean probability of the predicted class.
    pub confidence: f64,
    /// Share that is classified correctly.
    pub accuracy: f64,
    /// Lower end of the accuracy's 95 % interval.
    #[serde(default)]
    pub low: f64,
    /// Upper end of the accuracy's 95 % interval.
    #[serde(default = "unknown_high")]
    pub high: f64,
}

impl Bin {
    /// Bin of `images` with this mean confidence, `correct` of which are classified correctly.
    pub fn new(images: usize, confidence: f64, correct: usize) -> Self {
        let counted = counted(correct, images);
        Self {
            images,
            confidence,
            accuracy: counted.share,
            low: counted.low,
            high: counted.high,
        }
    }
}

/// Agreement of confidence and accuracy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Images that were classified; 0 in files of earlier versions.
    #[serde(default)]
    pub images: usize,
    /// Expected calibration error, in [0, 1].
    pub error: f64,
    /// Bins of equal width, from confidence 0 to 1.
    pub bins: Vec<Bin>,
}

/// All measures of one classifier; those that were not computed are empty.
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
    /// Accuracy under common corruptions, 15 kinds.
    #[serde(default)]
    pub corruptions: Vec<Corrupted>,
    /// Accuracy under an adversarial patch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<Patched>,
    /// Certified accuracy by randomised smoothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoothing: Option<Certified>,
    /// Numbers of clean images by true and predicted class.
    #[serde(default)]
    pub confusion: Confusion,
    /// Share of each class's clean images that is classified correctly; none without images.
    #[serde(default)]
    pub recall: Vec<Option<Interval>>,
    /// Numbers of adversarial images by true and predicted class.
    #[serde(default)]
    pub confusion_attacked: Confusion,
    /// Share of each class's adversarial images that is classified correctly; none without images.
    #[serde(default)]
    pub recall_attacked: Vec<Option<Interval>>,
    /// Nearest-neighbour accuracy of the features.
    pub neighbours: Option<Neighbours>,
    /// Calibration on clean images.
    pub calibration: Option<Calibration>,
    /// Calibration on adversarial images.
    pub calibration_attacked: Option<Calibration>,
}

impl Measures {
    /// Takes one measure over from others.
    pub fn take(&mut self, measure: Measure, from: &Self) {
        match measure {
            Measure::Radius => self.radius.clone_from(&from.radius),
            Measure::Steps => self.steps.clone_from(&from.steps),
            Measure::Corruptions => self.corruptions.clone_from(&from.corruptions),
            Measure::Patch => self.patch = from.patch,
            Measure::Smoothing => self.smoothing.clone_from(&from.smoothing),
            Measure::Confusion => {
                self.confusion.clone_from(&from.confusion);
                self.recall.clone_from(&from.recall);
                self.confusion_attacked.clone_from(&from.confusion_attacked);
                self.recall_attacked.clone_from(&from.recall_attacked);
            }
            Measure::Features => self.neighbours.clone_from(&from.neighbours),
            Measure::Calibration => {
                self.calibration.clone_from(&from.calibration);
                self.calibration_attacked
                    .clone_from(&from.calibration_attacked);
            }
            Measure::Transfer => {} // Between rows: kept elsewhere.
        }
    }

    /// Takes the confusion matrices of clean and adversarial images, with the recall of each class.
    pub fn set_confusion(&mut self, clean: Confusion, attacked: Confusion) {
        (self.recall, self.recall_attacked) = (recall(&clean), recall(&attacked));
        (self.confusion, self.confusion_attacked) = (clean, attacked);
    }
}

/// Share of each class's images that is classified correctly.
fn recall(confusion: &Confusion) -> Vec<Option<Interval>> {
    let recall = |class| Interval::wilson(confusion.get(class, class), confusion.of_class(class));
    (0..confusion.classes()).map(recall).collect()
}

/// Transfer of adversarial examples: PGD on one classifier, and the accuracy of every classifier on the result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Images that were attacked: each accuracy is of as many.
    pub images: usize,
    /// METHOD/MODE of the rows and columns.
    pub classifiers: Vec<String>,
    /// Accuracy of each classifier on clean images, in [0, 1].
    pub clean: Vec<f64>,
    /// Lower ends of their 95 % intervals.
    #[serde(default)]
    pub clean_low: Vec<f64>,
    /// Upper ends of their 95 % intervals.
    #[serde(default)]
    pub clean_high: Vec<f64>,
    /// Accuracies in [0, 1], `[classifier that the examples were made on][classifier that they are shown to]`.
    pub accuracy: Vec<Vec<f64>>,
    /// Lower ends of their 95 % intervals.
    #[serde(default)]
    pub accuracy_low: Vec<Vec<f64>>,
    /// Upper ends of their 95 % intervals.
    #[serde(default)]
    pub accuracy_high: Vec<Vec<f64>>,
}

impl Transfer {
    /// Takes the number of clean images that each classifier classifies correctly.
    pub fn set_clean(&mut self, hits: &[usize]) {
        [self.clean, self.clean_low, self.clean_high] = self.shares(hits);
    }

    /// Appends the row of one more source: the number of its adversarial images that each classifier classifies correctly.
    pub fn push(&mut self, hits: &[usize]) {
        let [accuracy, low, high] = self.shares(hits);
        self.accuracy.push(accuracy);
        self.accuracy_low.push(low);
        self.accuracy_high.push(high);
    }

    fn shares(&self, hits: &[usize]) -> [Vec<f64>; 3] {
        let counted = hits.iter().map(|&hits| counted(hits, self.images));
        let all: Vec<Interval> = counted.collect();
        let part = |value: fn(&Interval) -> f64| all.iter().map(value).collect();
        [part(|i| i.share), part(|i| i.low), part(|i| i.high)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_earlier_versions_are_read_without_intervals() {
        let text = r#"{ "images": 4, "steps": [{ "at": 5.0, "accuracy": 0.5 }],
            "corruptions": [{ "kind": "fog", "accuracy": [0.5, 0.5, 0.5, 0.25, 0.0] }],
            "neighbours": { "k": 20, "clean": 0.5, "attacked": 0.25 },
            "calibration": { "error": 0.1, "bins": [{ "images": 4, "confidence": 0.6, "accuracy": 0.5 }] } }"#;
        let found: Measures = serde_json::from_str(text).expect("the older form");
        let Point {
            images, low, high, ..
        } = found.steps[0];
        assert_eq!((images, low, high), (0, 0.0, 1.0));
        assert_eq!(found.corruptions[0].high, [1.0; 5]);
        assert_eq!((found.patch, found.smoothing), (None, None));
    }

    #[test]
    fn certified_accuracy_falls_with_the_radius_and_counts_no_wrong_class() {
        let settings = Smoothing {
            samples: 100,
            ..Smoothing::default()
        };
        // All four of class 1; the second is taken for another one, the last is abstained from.
        let certificate = |(image, (class, hits))| Certificate {
            image,
            votes: vec![(class, 100)],
            class,
            hits,
            radius: settings.radius(hits),
        };
        let found = [(1, 100), (0, 100), (1, 90), (1, 50)];
        let certificates: Vec<Certificate> =
            found.into_iter().enumerate().map(certificate).collect();
        let found = Certified::new(&settings, certificates.clone(), &[1; 4]);
        assert_eq!((found.abstained, &found.certificates), (1, &certificates));
        // 90 of 100 certify 0.18.
        let points: Vec<(f64, f64)> = found.points.iter().map(|p| (p.at, p.accuracy)).collect();
        let expected = [(0.0, 0.5), (0.125, 0.5), (0.25, 0.25), (0.375, 0.25)];
        assert_eq!(points, expected);
        assert!(
            found
                .points
                .iter()
                .all(|p| p.images == 4 && p.high > p.accuracy)
        );
    }

    #[test]
    fn every_share_has_its_images_and_its_interval() {
        let point = Point::new(0.1, 1, 2);
        assert_eq!((point.accuracy, point.images), (0.5, 2));
        assert!((point.low - 0.0945).abs() < 1e-4 && (point.high - 0.9055).abs() < 1e-4);
        let mut measures = Measures::default();
        let confusion = |text| serde_json::from_str(text).expect("a matrix");
        measures.set_confusion(confusion("[[3, 1], [0, 0]]"), confusion("[[0, 4], [0, 0]]"));
        let shares = |all: &[Option<Interval>]| -> Vec<Option<(f64, usize)>> {
            all.iter()
                .map(|one| one.map(|i| (i.share, i.images)))
                .collect()
        };
        assert_eq!(shares(&measures.recall), [Some((0.75, 4)), None]);
        assert_eq!(shares(&measures.recall_attacked), [Some((0.0, 4)), None]);
        let mut transfer = Transfer {
            images: 4,
            ..Transfer::default()
        };
        transfer.set_clean(&[4, 2]);
        transfer.push(&[0, 1]);
        assert_eq!(
            (&transfer.clean[..], &transfer.accuracy[0][..]),
            (&[1.0, 0.5][..], &[0.0, 0.25][..])
        );
        assert!(transfer.accuracy_low[0][1] < 0.25 && transfer.accuracy_high[0][1] > 0.25);
    }
}
