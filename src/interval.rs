//! Confidence intervals of counted shares.

use serde::{Deserialize, Serialize};
use statrs::function::beta::beta_reg;

/// 97.5 % quantile of the normal distribution: 95 % of it lie within this many deviations.
const Z: f64 = 1.959_963_984_540_054;

/// Share of images with its 95 % interval, all in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The share.
    pub share: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Number of images that the share is of.
    pub images: usize,
}

impl Interval {
    /// Wilson's score interval (Wilson, JASA 1927) of `hits` out of `images`; none without images.
    ///
    /// Stays within [0, 1] and keeps a width at 0 % and 100 %. Covers the sampling error of the images, not variation
    /// between seeds.
    ///
    /// ```
    /// use advcl::interval::Interval;
    ///
    /// let robust = Interval::wilson(1103, 2000).expect("images");
    /// assert_eq!(format!("{:.3} to {:.3}", robust.low, robust.high), "0.530 to 0.573");
    /// ```
    pub fn wilson(hits: usize, images: usize) -> Option<Self> {
        if images == 0 {
            return None;
        }
        let (n, share) = (images as f64, hits.min(images) as f64 / images as f64);
        let centre = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half =
            Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        Some(Self {
            share,
            low: (centre - half).clamp(0.0, share),
            high: (centre + half).clamp(share, 1.0),
            images,
        })
    }
}

/// Returns the lower end of the one-sided interval of Clopper and Pearson (Biometrika 1934): a probability that is below the true one
/// with confidence 1 − `alpha`, by `hits` out of `trials` independent trials. It is the `alpha` quantile of
/// Beta(hits, trials − hits + 1); 0 without hits.
///
/// Accurate to 1e-8 for up to a million trials.
///
/// ```
/// // 100 of 100: the probability whose hundredth power is alpha.
/// let low = advcl::interval::clopper_pearson_low(100, 100, 0.001);
/// assert!((low - 0.001f64.powf(0.01)).abs() < 1e-12);
/// ```
pub fn clopper_pearson_low(hits: usize, trials: usize, alpha: f64) -> f64 {
    let (hits, trials) = (hits.min(trials) as f64, trials as f64);
    if hits == 0.0 {
        return 0.0;
    }
    if hits == trials {
        return alpha.powf(1.0 / trials);
    }
    // Bisection to the last bit: statrs' quantile is off by 1e-9 near 1, which the quantile of the normal distribution makes more of.
    let (mut low, mut high) = (0.0f64, 1.0f64);
    loop {
        let middle = low.midpoint(high);
        if middle <= low || middle >= high {
            return low;
        }
        match beta_reg(hits, trials - hits + 1.0, middle) < alpha {
            true => low = middle,
            false => high = middle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_tables() {
        // statsmodels' proportion_confint(…, method="wilson").
        for (hits, images, low, high) in [
            (0, 20, 0.0, 0.161_125),
            (20, 20, 0.838_875, 1.0),
            (1103, 2000, 0.529_625, 0.573_177),
            (1, 2, 0.094_531, 0.905_469),
        ] {
            let found = Interval::wilson(hits, images).expect("images");
            let near = |a: f64, b: f64| (a - b).abs() < 1e-5;
            assert!(near(found.low, low) && near(found.high, high), "{found:?}");
            assert_eq!(found.images, images);
        }
        assert_eq!(Interval::wilson(0, 0), None);
    }

    #[test]
    fn lower_bounds_are_those_of_scipy() {
        // scipy.stats.beta.ppf(alpha, hits, trials - hits + 1) of SciPy 1.17.1.
        for (hits, trials, alpha, expected) in [
            // The lower ends of two-sided 95 % intervals, as in tables.
            (10, 20, 0.025, 0.271_957_849_560_791_83),
            (8, 10, 0.025, 0.443_904_537_692_358_5),
            (1, 50, 0.05, 0.001_025_339_867_232_063_6),
            // All, nearly all and most of a hundred; what 1,000 and 100,000 samples give.
            (100, 100, 0.001, 0.933_254_300_796_991),
            (99, 100, 0.001, 0.911_373_111_296_042_4),
            (60, 100, 0.001, 0.440_984_265_221_299_4),
            (900, 1_000, 0.001, 0.867_464_018_025_748_4),
            (99_000, 100_000, 0.001, 0.988_989_340_377_474_8),
        ] {
            let found = clopper_pearson_low(hits, trials, alpha);
            assert!(
                (found - expected).abs() < 1e-12,
                "{hits} of {trials}: {found}, not {expected}"
            );
        }
        assert_eq!(clopper_pearson_low(0, 100, 0.001), 0.0);
        // The more of them are hits, the higher; the surer one wants to be, the lower.
        let low = |hits, alpha| clopper_pearson_low(hits, 50, alpha);
        assert!((0..50).all(|hits| low(hits, 0.01) < low(hits + 1, 0.01)));
        assert!((1..=50).all(|hits| low(hits, 0.001) < low(hits, 0.01)));
    }
}
