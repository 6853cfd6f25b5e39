//! Randomised smoothing: certified accuracy in L2, a proof instead of an attack.
//!
//! Source: Cohen, Rosenfeld and Kolter, "Certified adversarial robustness via randomized smoothing" (ICML 2019). The smoothed
//! classifier names the class that a base classifier finds most often when Gaussian noise is added to the image. No change
//! shorter than a radius, which follows from how often it finds it, makes the smoothed classifier name another class.
//!
//! The certificate is of the smoothed classifier, not of the base classifier. A network that was not trained on noisy images
//! classifies few of them correctly, so small figures are to be expected of it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, Normal};

use crate::error::Result;
use crate::interval::clopper_pearson_low;
use crate::logits::finite_predictions;
use crate::pixels::Pixels;
use crate::random;
use crate::tensor::{Batch, to_tensor};

/// Largest number of samples: [`clopper_pearson_low`] is accurate up to there.
const MOST: usize = 1_000_000;
/// Largest deviation of the noise: beyond it nothing of an image is left.
const LOUDEST: f64 = 10.0;

/// Settings of randomised smoothing.
///
/// ```
/// use advcl::smoothing::Smoothing;
///
/// let smoothing = Smoothing::default();
/// // What is found for nearly all samples is certified, what is found for half of them is not.
/// assert!(smoothing.radius(990).is_some_and(|radius| radius > 0.4));
/// assert_eq!(smoothing.radius(500), None);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Smoothing {
    /// Standard deviation σ of the noise, in pixels. A larger one certifies larger radii, of fewer images.
    pub sigma: Pixels,
    /// Noisy copies of an image that its certificate rests on, n. Papers use 100,000, which takes a hundred times as long.
    pub samples: usize,
    /// Noisy copies of an image by which the class is chosen before, n0.
    pub selection: usize,
    /// Probability α that the certificate of an image is wrong.
    pub alpha: f64,
}

impl Default for Smoothing {
    fn default() -> Self {
        Self {
            sigma: "0.25".parse().expect("a number"),
            samples: 1_000,
            selection: 100,
            alpha: 0.001,
        }
    }
}

/// Outcome of smoothing for one image, with the counts that it follows from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Index of the image in its split.
    pub image: usize,
    /// Predicted classes of the noisy copies that choose the class, each with its number of copies, in label order.
    pub votes: Vec<(usize, usize)>,
    /// The class that is certified: the most frequent one, of several the first.
    pub class: usize,
    /// Number of further noisy copies that are classified as that class.
    pub hits: usize,
    /// Radius in L2, in pixels, within which the smoothed classifier's class cannot be changed; none where it abstains.
    pub radius: Option<f64>,
}

impl Smoothing {
    /// Refuses settings that cannot be carried out, by their key and the problem.
    ///
    /// # Errors
    /// The key and what is expected of it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let sigma = self.sigma.value();
        if !(sigma > 0.0 && sigma <= LOUDEST) {
            let problem = format!("expected more than 0, at most {LOUDEST}, found {sigma}");
            return Err(("sigma", problem));
        }
        if !(self.alpha > 0.0 && self.alpha <= 0.5) {
            let problem = format!("expected more than 0, at most 0.5, found {}", self.alpha);
            return Err(("alpha", problem));
        }
        if !(1..=MOST).contains(&self.selection) {
            let problem = format!("expected 1 to {MOST}, found {}", self.selection);
            return Err(("selection", problem));
        }
        // One class for every sample must be enough: α^(1/n) > 1/2.
        let least = (-self.alpha.log2()).floor() as usize + 1;
        if !(least..=MOST).contains(&self.samples) {
            let problem = format!(
                "expected {least} to {MOST}, found {}: with fewer nothing is certified at alpha = {}",
                self.samples, self.alpha
            );
            return Err(("samples", problem));
        }
        Ok(())
    }

    /// Noisy copies of each image, in all.
    pub fn copies(&self) -> usize {
        self.selection + self.samples
    }

    /// Certified radius in L2, in pixels, where `hits` of the samples are classified as the chosen class: σ Φ⁻¹(p) with the
    /// lower bound p of Clopper and Pearson (the paper's algorithm CERTIFY). None where p is at most 1/2.
    pub fn radius(&self, hits: usize) -> Option<f64> {
        let low = clopper_pearson_low(hits, self.samples, self.alpha);
        (low > 0.5).then(|| self.sigma.value() * Normal::standard().inverse_cdf(low))
    }

    /// Radii at which certified accuracy is counted, in pixels: 0 and the multiples of σ/2, up to the largest radius that so many
    /// samples can certify.
    pub fn radii(&self) -> Vec<f64> {
        let largest = self.radius(self.samples).unwrap_or(0.0);
        let multiples = (0..).map(|half| f64::from(half) * self.sigma.value() / 2.0);
        multiples.take_while(|radius| *radius <= largest).collect()
    }
}

/// Base classifier whose smoothed version is certified.
pub struct Smoothed<'a> {
    /// Classifier, from `[batch, channels, height, width]` to logits `[batch, classes]`. A row of logits depends on its image
    /// alone.
    pub logits: &'a dyn Fn(Tensor<4>) -> Tensor<2>,
    /// Noise, samples and confidence.
    pub settings: &'a Smoothing,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Noisy copies in a forward pass; results do not depend on it.
    pub batch_size: usize,
    /// Device of the classifier.
    pub device: &'a Device,
    /// Stage in errors.
    pub stage: &'a str,
}

impl Smoothed<'_> {
    /// Certifies one image, a batch of one, by the algorithm CERTIFY of the paper. Its noise is drawn by its index in the split:
    /// first for the choice of the class, then for the certificate. Noisy copies are not clamped to [0, 1], as in the published
    /// code: the proof is of Gaussian noise. `progress` gets the number of copies of each batch when it is done.
    ///
    /// # Errors
    /// [`Error::Logits`](crate::Error::Logits) for logits that are not finite; an error of `progress`.
    pub fn certify(
        &self,
        index: usize,
        image: &Batch,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Certificate> {
        let mut rng = random::generator(self.seed, "smoothing", index as u64);
        let place = (index, image);
        let votes = self.votes(self.settings.selection, place, &mut rng, progress)?;
        let most = votes
            .iter()
            .max_by_key(|(class, count)| (**count, Reverse(**class)));
        let class = most.map_or(0, |(class, _)| *class);
        let found = self.votes(self.settings.samples, place, &mut rng, progress)?;
        let hits = found.get(&class).copied().unwrap_or(0);
        let radius = self.settings.radius(hits);
        Ok(Certificate {
            image: index,
            votes: votes.into_iter().collect(),
            class,
            hits,
            radius,
        })
    }

    /// Numbers of `count` noisy copies of an image by predicted class.
    fn votes(
        &self,
        count: usize,
        (index, image): (usize, &Batch),
        rng: &mut ChaCha8Rng,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<BTreeMap<usize, usize>> {
        let sigma = self.settings.sigma.value() as f32;
        let [_, channels, height, width] = image.shape;
        let (mut votes, mut left) = (BTreeMap::new(), count);
        while left > 0 {
            let size = left.min(self.batch_size);
            let values = (0..size).flat_map(|_| &image.data);
            let noisy = values.map(|value| value + sigma * rng.sample::<f32, _>(StandardNormal));
            let batch = Batch {
                data: noisy.collect(),
                shape: [size, channels, height, width],
            };
            let logits = (self.logits)(to_tensor(batch, self.device));
            for class in finite_predictions(self.stage, &vec![index; size], logits)? {
                *votes.entry(class).or_default() += 1;
            }
            left -= size;
            progress(size)?;
        }
        Ok(votes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certify(settings: &Smoothing, batch_size: usize, index: usize) -> Certificate {
        let device = crate::device::open("cpu").expect("the CPU");
        // Two classes: dark images, and those whose mean is above 0.5.
        let logits = |x: Tensor<4>| {
            let rows = x.dims()[0];
            let bright = x.reshape([rows, 4]).mean_dim(1) - 0.5;
            Tensor::cat(vec![bright.clone().neg(), bright], 1)
        };
        let smoothed = Smoothed {
            logits: &logits,
            settings,
            seed: 3,
            batch_size,
            device: &device,
            stage: "smoothing",
        };
        let image = Batch {
            data: vec![0.4, 0.6, 0.7, 0.6],
            shape: [1, 1, 2, 2],
        };
        let found = smoothed.certify(index, &image, &mut |_| Ok(()));
        found.expect("a certificate")
    }

    #[test]
    fn radii_are_those_of_scipy() {
        let smoothing = |samples| Smoothing {
            samples,
            ..Smoothing::default()
        };
        // 0.25 * norm.ppf(beta.ppf(0.001, hits, samples - hits + 1)) of SciPy 1.17.1.
        for (hits, samples, expected) in [
            (100, 100, 0.375_118_756_030_159_1),
            (99, 100, 0.337_314_759_702_597_56),
            (900, 1_000, 0.278_620_790_569_949_9),
            (99_000, 100_000, 0.572_499_988_803_441_6),
        ] {
            let found = smoothing(samples).radius(hits).expect("more than half");
            assert!(
                (found - expected).abs() < 1e-9,
                "{hits} of {samples}: {found}"
            );
        }
        // The lower bound is 0.44.
        assert_eq!(smoothing(100).radius(60), None);
        assert_eq!(smoothing(100).radius(0), None);
        // 0.375 is the third of the multiples of 0.125, and just below the largest radius of 100 samples.
        assert_eq!(smoothing(100).radii(), [0.0, 0.125, 0.25, 0.375]);
    }

    #[test]
    fn a_linear_classifier_is_certified_within_its_margin_whatever_the_batch_size() {
        // The mean 0.575 is 0.075 above the border: the distance is 0.075 · √4 in L2, and the class is found for
        // Φ(0.15 / σ) of the samples.
        let settings = Smoothing {
            samples: 20_000,
            ..Smoothing::default()
        };
        let whole = certify(&settings, 100_000, 5);
        assert_eq!(whole.class, 1);
        let share = whole.hits as f64 / 20_000.0;
        let expected = Normal::standard().cdf(0.15 / 0.25);
        assert!(
            (share - expected).abs() < 4.0 * (0.25f64 / 20_000.0).sqrt(),
            "{share}"
        );
        let radius = whole.radius.expect("most of them");
        assert!(radius < 0.15 && radius > 0.14, "{radius}");
        let few = Smoothing {
            samples: 150,
            ..Smoothing::default()
        };
        let whole = certify(&few, 1_000, 5);
        assert_eq!(whole.votes.iter().map(|vote| vote.1).sum::<usize>(), 100);
        for batch_size in [1, 7, 100] {
            assert_eq!(certify(&few, batch_size, 5), whole, "{batch_size}");
        }
        assert_ne!(certify(&few, 1_000, 6).hits, whole.hits, "the same noise");
    }

    #[test]
    fn a_constant_classifier_has_the_largest_radius_and_a_tie_of_all_abstains() {
        let device = crate::device::open("cpu").expect("the CPU");
        let settings = Smoothing::default();
        let certify = |logits: &dyn Fn(Tensor<4>) -> Tensor<2>| {
            let smoothed = Smoothed {
                logits,
                settings: &settings,
                seed: 0,
                batch_size: 300,
                device: &device,
                stage: "smoothing",
            };
            let image = Batch {
                data: vec![0.5],
                shape: [1, 1, 1, 1],
            };
            let mut done = 0;
            let mut progress = |copies| {
                done += copies;
                Ok(())
            };
            let found = smoothed.certify(0, &image, &mut progress).expect("finite");
            assert_eq!(done, settings.copies());
            found
        };
        let ones = |x: Tensor<4>| Tensor::ones([x.dims()[0], 1], &x.device());
        let constant = certify(&|x| Tensor::cat(vec![ones(x.clone()), ones(x) * 2.0], 1));
        assert_eq!((constant.class, constant.hits), (1, settings.samples));
        assert_eq!(constant.radius, settings.radius(settings.samples));
        // Above and below the image's value by chance.
        let chance = certify(&|x| {
            let column = x.clone().reshape([x.dims()[0], 1]) - 0.5;
            Tensor::cat(vec![column.clone().neg(), column], 1)
        });
        assert_eq!(chance.radius, None, "{chance:?}");
    }

    #[test]
    fn impossible_settings_are_named() {
        let key = |change: fn(&mut Smoothing)| {
            let mut settings = Smoothing::default();
            change(&mut settings);
            settings.check().err().map(|(key, _)| key)
        };
        assert_eq!(key(|_| ()), None);
        // 0.5^10 is below 0.001, 0.5^9 is not.
        assert_eq!(key(|s| s.samples = 10), None);
        assert_eq!(key(|s| s.samples = 9), Some("samples"));
        assert_eq!(key(|s| s.samples = MOST + 1), Some("samples"));
        assert_eq!(key(|s| s.selection = 0), Some("selection"));
        for alpha in [0.0, -1.0, 0.6, f64::NAN, f64::INFINITY] {
            let settings = Smoothing {
                alpha,
                ..Smoothing::default()
            };
            assert_eq!(settings.check().err().map(|(key, _)| key), Some("alpha"));
        }
        assert_eq!(key(|s| s.alpha = f64::from_bits(1)), Some("samples"));
        for sigma in ["0", "11"] {
            let sigma = sigma.parse().expect("a distance");
            let settings = Smoothing {
                sigma,
                ..Smoothing::default()
            };
            assert_eq!(settings.check().err().map(|(key, _)| key), Some("sigma"));
        }
    }
}
