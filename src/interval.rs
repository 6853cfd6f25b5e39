//! How far a counted share can be trusted.

use serde::Serialize;

/// The normal distribution's: 95 % lie within so many deviations.
const Z: f64 = 1.959_963_984_540_054;

/// A share of images with its 95 % interval, all in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// What was counted.
    pub share: f64,
    /// The interval's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Wilson's score interval (Wilson, JASA 1927): unlike mean ± deviation it stays within [0, 1], and is no point for 0 or all
    /// of the images. It knows of the images that were drawn, not of seeds. None for no images.
    pub fn wilson(hits: usize, images: usize) -> Option<Self> {
        if images == 0 {
            return None;
        }
        let (n, share) = (images as f64, hits as f64 / images as f64);
        let centre = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half =
            Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        Some(Self {
            share,
            low: (centre - half).clamp(0.0, share),
            high: (centre + half).clamp(share, 1.0),
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
        }
        assert_eq!(Interval::wilson(0, 0), None);
    }
}
