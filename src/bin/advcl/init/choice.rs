//! Settings that fit a data set, from the figures of a look at it.

use advcl::data::Scan;
use advcl::nn::{Depth, EncoderConfig, Stem};
use advcl::recipe::Recipe;
use advcl::run::ModelInfo;

/// Share of each class that is kept for testing where there are no test images.
const TEST_SHARE: f64 = 0.2;
/// Numbers of clusters in the paper.
const CLUSTERS: [usize; 5] = [2, 10, 50, 100, 500];
/// Images that a cluster should have.
const PER_CLUSTER: usize = 20;
/// Largest batch of pretraining, as in the shipped recipes for CPUs.
const BATCH: usize = 128;
/// Sides from which on images are large: behind the first layer of ImageNet's networks a quarter of them is left, 32 pixels.
const LARGE: usize = 128;
/// Deviation of gray values above which images are taken for digits, letters or clothing: bright on black.
const STRONG_CONTRAST: f64 = 0.28;
/// Labels of a class below which a classifier is trained as with few labels.
const FEW: usize = 50;
/// Most epochs: more are rarely of use to networks of this size.
const MOST_EPOCHS: usize = 500;
/// Part of the time given that training may take; the rest is for what cannot be foreseen.
const SAFE: f64 = 0.9;

/// Settings that fit a data set.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Value of `data.size`, where the images need one.
    pub size: Option<usize>,
    /// Height and width of the images for training.
    pub sides: [usize; 2],
    /// Channels of the images for training.
    pub channels: usize,
    /// Whether transparent images need a background.
    pub background: bool,
    /// Share of the training images that is kept for testing.
    pub test_share: Option<f64>,
    /// Whether there are labels to learn from.
    pub labeled: bool,
    /// Images for pretraining, and for testing.
    pub images: usize,
    pub tested: usize,
    pub batch: usize,
    /// Learning rate of pretraining.
    pub lr: f64,
    pub clusters: Vec<usize>,
    /// Radius with the reason for it.
    pub radius: &'static str,
    pub why_radius: String,
    pub high_frequency_radius: f64,
    pub encoder: EncoderConfig,
    /// File of the weights that pretraining begins at.
    pub weights: Option<String>,
    /// Epochs of the classifier, and the milestones of its learning rate.
    pub head_epochs: usize,
    pub head_milestones: [usize; 2],
    pub head_batch: usize,
    pub evaluated_at_a_time: usize,
    /// Epochs of pretraining.
    pub epochs: usize,
}

impl Choice {
    /// Settings for what was found, and for the weights that pretraining begins at; `size` brings images to one size.
    /// Epochs are chosen later.
    pub fn new(
        scan: &Scan,
        size: Option<usize>,
        background: bool,
        weights: Option<&(String, ModelInfo)>,
    ) -> Self {
        let first = scan.sizes.first();
        let found = first.map_or([0; 2], |size| [size.height, size.width]);
        let sides = size.map_or(found, |side| [side, side]);
        let sides = weights.map_or(sides, |(_, info)| info.image_size);
        let labeled = scan.classes.len() > 1;
        let test_share = (labeled && scan.images[1] == 0).then_some(TEST_SHARE);
        let held = |count: usize| match (test_share, count) {
            (None, _) | (_, 0 | 1) => 0,
            (Some(share), count) => ((count as f64 * share).round() as usize).clamp(1, count - 1),
        };
        let tested: usize = scan.counts.iter().map(|counts| held(counts[0])).sum();
        let images = scan.images[0] - tested;
        let batch = power_of_two(images.min(BATCH));
        let clusters = CLUSTERS.into_iter();
        let mut clusters: Vec<usize> = clusters.filter(|k| k * PER_CLUSTER <= images).collect();
        if clusters.is_empty() && images >= 4 {
            clusters.push(2);
        }
        let channels = if scan.channels[1] > 0 { 3 } else { 1 };
        let channels = weights.map_or(channels, |(_, info)| info.channels);
        let (radius, why_radius) = radius(scan, channels);
        let smallest = scan
            .counts
            .iter()
            .map(|counts| counts[0] - held(counts[0]))
            .min();
        let few = smallest.unwrap_or(0) < FEW;
        Self {
            size: size.filter(|_| weights.is_none()),
            sides,
            channels,
            background,
            test_share,
            labeled,
            images,
            tested: tested + scan.images[1],
            batch,
            lr: 0.5 * batch as f64 / BATCH as f64,
            clusters,
            radius,
            why_radius,
            // A quarter of the size, as the paper's 8 of 32.
            high_frequency_radius: (sides[0].min(sides[1]) / 4).max(1) as f64,
            encoder: weights.map_or_else(|| small(sides), |(_, info)| info.encoder.clone()),
            weights: weights.map(|(file, _)| file.clone()),
            head_epochs: if few { 200 } else { 25 },
            head_milestones: if few { [120, 160] } else { [15, 20] },
            head_batch: power_of_two(images.min(256)),
            evaluated_at_a_time: 250,
            epochs: 1,
        }
    }

    /// Steps of an epoch.
    pub fn steps(&self) -> usize {
        self.images / self.batch
    }

    /// The largest number of epochs that fits into `budget` seconds with what was measured; one at least.
    pub fn epochs_within(&self, budget: f64, measured: &Measured) -> usize {
        let left = SAFE * budget - self.seconds_besides(measured);
        let epochs = left / (self.steps() as f64 * measured.steps());
        (epochs as usize).clamp(1, MOST_EPOCHS)
    }

    /// Seconds of a run that do not depend on the epochs: reading, and the attacks of the evaluation.
    fn seconds_besides(&self, measured: &Measured) -> f64 {
        if !self.labeled {
            return measured.loading;
        }
        // Two classifiers; PGD-20 computes 20 gradients and a prediction of every image, a step of SimCLR those of two views.
        let of_an_image = measured.simclr / (2 * self.batch) as f64;
        measured.loading + 2.0 * 21.0 * of_an_image * self.tested as f64
    }

    /// Seconds that a run is expected to take.
    pub fn seconds(&self, measured: &Measured) -> f64 {
        let pretraining = (self.epochs * self.steps()) as f64 * measured.steps();
        self.seconds_besides(measured) + pretraining
    }

    /// Bytes that a run is expected to take at most.
    pub fn bytes(&self, recipe: &Recipe) -> u64 {
        let [height, width] = self.sides;
        let held = (self.images + self.tested) * self.channels * height * width;
        let shape = [self.channels, height, width];
        let entries = recipe.pretrain.entries().iter();
        let peak = entries.map(|entry| {
            advcl::pretrain::memory::peak(entry.method(), &recipe.encoder, shape, held)
        });
        peak.max().unwrap_or(0)
    }
}

/// Seconds on this machine.
pub struct Measured {
    /// Reading the images.
    pub loading: f64,
    /// A step of SimCLR, and one of AdvCL.
    pub simclr: f64,
    pub advcl: f64,
}

impl Measured {
    /// A step of each method.
    pub fn steps(&self) -> f64 {
        self.simclr + self.advcl
    }
}

/// An encoder for images of this size that a CPU can train.
fn small([height, width]: [usize; 2]) -> EncoderConfig {
    EncoderConfig {
        depth: Depth::D10,
        width: 16,
        stem: match height.min(width) {
            ..=16 => Stem::Cifar,
            17..LARGE => Stem::Strided,
            LARGE.. => Stem::Imagenet,
        },
    }
}

/// The largest power of two that is no more than `most`.
fn power_of_two(most: usize) -> usize {
    1 << most.max(1).ilog2()
}

/// Radius of the threat model, and why.
fn radius(scan: &Scan, channels: usize) -> (&'static str, String) {
    let deviation = scan.means.first().map_or(0.0, |(_, deviation)| *deviation);
    if channels == 3 {
        return (
            "8/255",
            "Colour images are taken for photographs".to_owned(),
        );
    }
    if deviation >= STRONG_CONTRAST {
        let why = format!(
            "Gray images of strong contrast (deviation {deviation:.2}), as digits or clothing are: 0.1 to 0.3 are usual there"
        );
        return ("0.1", why);
    }
    let why = format!(
        "Gray images of a photograph's contrast (deviation {deviation:.2}): as for colour photographs"
    );
    ("8/255", why)
}
