//! Confidence intervals of counted shares.

use serde::{Deserialize, Serialize};

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
}
