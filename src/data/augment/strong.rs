//! Strong augmentation of SimCLR: random resized crop, flip, colour jitter, grayscale.

use std::ops::Range;

use rand::{RngExt, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

use super::colour::{adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation, grayscale};
use super::draw::{chance, check_probability, require, uniform, views};
use super::geometry::{Window, hflip};
use crate::data::images::Images;
use crate::random;
use crate::tensor::Batch;

/// Settings of strong views: random resized crop, flip, colour jitter, grayscale, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Strong {
    /// Smallest and largest area of the crop, as a share of the image.
    pub scale: (f32, f32),
    /// Smallest and largest aspect ratio (width / height) of the crop.
    pub ratio: (f32, f32),
    /// Probability of a horizontal flip.
    pub flip: f32,
    /// Colour jitter.
    pub jitter: Jitter,
    /// Probability of conversion to gray.
    pub grayscale: f32,
}

/// Settings of the colour jitter. Its four steps are applied in random order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jitter {
    /// Strength b of brightness changes: the factor is uniform in [max(0, 1 - b), 1 + b].
    pub brightness: f32,
    /// Strength of contrast changes around the image's mean gray, with the factor as for
    /// brightness.
    pub contrast: f32,
    /// Strength of saturation changes around each pixel's gray, with the factor as for brightness.
    pub saturation: f32,
    /// Strength h of hue rotations: uniform in [-h, h], in turns of the colour circle; at most 0.5.
    pub hue: f32,
    /// Probability that an image is jittered at all.
    pub probability: f32,
}

impl Default for Strong {
    fn default() -> Self {
        Self {
            scale: (0.2, 1.0),
            ratio: (3.0 / 4.0, 4.0 / 3.0),
            flip: 0.5,
            jitter: Jitter::default(),
            grayscale: 0.2,
        }
    }
}

impl Default for Jitter {
    fn default() -> Self {
        Self {
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.4,
            hue: 0.1,
            probability: 0.8,
        }
    }
}

/// Step of the colour jitter with its factor (hue: turns).
#[derive(Clone, Copy)]
enum JitterStep {
    Brightness(f32),
    Contrast(f32),
    Saturation(f32),
    Hue(f32),
}

impl Strong {
    /// Makes one strong view of each image at `indices`.
    ///
    /// All parameters are drawn first, image by image, so that the result depends on `rng` and not
    /// on the number of threads. The same numbers are drawn for gray images as for colour images,
    /// although hue, saturation and grayscale do not change them.
    ///
    /// # Shapes
    /// Output: `[indices.len(), channels, height, width]`, f32 in [0, 1].
    ///
    /// # Panics
    /// If an index is out of range, and possibly with settings that [`Strong::check`] refuses.
    pub fn apply(&self, images: &Images, indices: &[usize], rng: &mut ChaCha8Rng) -> Batch {
        self.apply_at(0..indices.len(), images, indices, rng)
    }

    /// Makes the views at the places `own` of the batch alone, the same ones as [`Strong::apply`] by the same random numbers; the
    /// other rows are zeros.
    pub fn apply_at(
        &self,
        own: Range<usize>,
        images: &Images,
        indices: &[usize],
        rng: &mut ChaCha8Rng,
    ) -> Batch {
        let shape = images.shape();
        let parameters: Vec<_> = (indices.iter())
            .map(|_| {
                let window = self.draw_window(images.height, images.width, rng);
                let flip = chance(rng, self.flip);
                let steps = self.jitter.draw(rng);
                (window, flip, steps, chance(rng, self.grayscale))
            })
            .collect();
        views(
            own,
            images,
            indices,
            &parameters,
            |drawn, image, view, resizer| {
                let &(window, flip, steps, gray) = drawn;
                resizer.run(image, shape, window, [images.height, images.width], view);
                if flip {
                    hflip(view, images.width);
                }
                for step in steps.into_iter().flatten() {
                    match step {
                        JitterStep::Brightness(factor) => adjust_brightness(view, factor),
                        JitterStep::Contrast(factor) => {
                            adjust_contrast(view, images.channels, factor)
                        }
                        JitterStep::Saturation(factor) => {
                            adjust_saturation(view, images.channels, factor)
                        }
                        JitterStep::Hue(turns) => adjust_hue(view, images.channels, turns),
                    }
                }
                if gray {
                    grayscale(view, images.channels);
                }
            },
        )
    }

    /// Refuses invalid settings in one sentence: the key, what is expected, what was found.
    pub fn check(&self) -> Result<(), String> {
        let (low, high) = self.scale;
        let valid = low > 0.0 && low <= high && high <= 1.0;
        require(valid, "scale", "0 < low <= high <= 1", self.scale)?;
        let (low, high) = self.ratio;
        let valid = low > 0.0 && low <= high && high.is_finite();
        require(valid, "ratio", "0 < low <= high", self.ratio)?;
        check_probability("flip", self.flip)?;
        check_probability("grayscale", self.grayscale)?;
        self.jitter.check()
    }

    /// Draws a window of random area and shape. After ten windows that do not fit, it is the
    /// largest central one within the ratios.
    fn draw_window(&self, height: usize, width: usize, rng: &mut ChaCha8Rng) -> Window {
        let area = (height * width) as f32;
        for _ in 0..10 {
            let target = area * uniform(rng, self.scale.0, self.scale.1);
            let ratio = uniform(rng, self.ratio.0.ln(), self.ratio.1.ln()).exp();
            let w = (target * ratio).sqrt().round_ties_even() as usize;
            let h = (target / ratio).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                return Window {
                    top: rng.random_range(0..=height - h),
                    left: rng.random_range(0..=width - w),
                    height: h,
                    width: w,
                };
            }
        }
        let ratio = (width as f32 / height as f32).clamp(self.ratio.0, self.ratio.1);
        let side = |value: f32, most: usize| (value.round_ties_even() as usize).clamp(1, most);
        let h = side(width as f32 / ratio, height);
        let w = side(height as f32 * ratio, width);
        Window {
            top: (height - h) / 2,
            left: (width - w) / 2,
            height: h,
            width: w,
        }
    }
}

impl Jitter {
    /// Draws the four steps; none with probability 1 - `probability`. Always draws the same number
    /// of values.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Option<[JitterStep; 4]> {
        let applied = chance(rng, self.probability);
        let mut factor = |strength: f32| uniform(rng, (1.0 - strength).max(0.0), 1.0 + strength);
        let mut steps = [
            JitterStep::Brightness(factor(self.brightness)),
            JitterStep::Contrast(factor(self.contrast)),
            JitterStep::Saturation(factor(self.saturation)),
            JitterStep::Hue(uniform(rng, -self.hue, self.hue)),
        ];
        random::shuffle(&mut steps, rng);
        applied.then_some(steps)
    }

    fn check(&self) -> Result<(), String> {
        for (key, value) in [
            ("jitter.brightness", self.brightness),
            ("jitter.contrast", self.contrast),
            ("jitter.saturation", self.saturation),
        ] {
            let valid = value >= 0.0 && value.is_finite();
            require(valid, key, "a number from 0 up", value)?;
        }
        let valid = (0.0..=0.5).contains(&self.hue);
        require(valid, "jitter.hue", "turns from 0 to 0.5", self.hue)?;
        check_probability("jitter.probability", self.probability)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn windows_have_the_area_and_shape_asked_for() {
        let strong = Strong::default();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for (height, width) in [(32, 32), (28, 40), (1, 1), (50, 4), (3, 90)] {
            for _ in 0..200 {
                let drawn = strong.draw_window(height, width, &mut rng);
                assert!(drawn.fits(height, width), "{drawn:?}");
                if height > 20 && width > 20 {
                    let share = (drawn.height * drawn.width) as f32 / (height * width) as f32;
                    assert!((0.17..=1.0).contains(&share), "{drawn:?}");
                    let ratio = drawn.width as f32 / drawn.height as f32;
                    assert!((0.7..=1.45).contains(&ratio), "{drawn:?}");
                }
            }
        }
        // No attempt fits into 50 × 4: the central window of the smallest ratio.
        let fallback = strong.draw_window(50, 4, &mut rng);
        assert!(fallback.height <= 6, "{fallback:?}");
    }
}
