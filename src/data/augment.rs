//! Random views of images, on the host: SimCLR's strong augmentation and the weak one of supervised
//! training.
//!
//! Strong views: Chen et al., "A simple framework for contrastive learning of visual
//! representations" (ICML 2020, appendix A), with the strengths that AdvCL uses on small images.
//! Here are the random choices; what they choose between is `transform`, pure functions on one
//! image.

use std::fmt::Debug;

use rand::{Rng, RngExt, rngs::ChaCha8Rng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::{Batch, Images};
use crate::random;

mod transform;

pub(crate) use transform::luma;
use transform::{Resizer, pad_crop_into};
pub use transform::{
    Window, adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation, grayscale, hflip,
    pad_crop, resized_crop,
};

/// A strong view: random resized crop, flip, colour jitter, grayscale, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Strong {
    /// Smallest and largest area of the crop, as a share of the image.
    pub scale: (f32, f32),
    /// Smallest and largest width / height of the crop.
    pub ratio: (f32, f32),
    /// Probability of a horizontal flip.
    pub flip: f32,
    /// Colour jitter.
    pub jitter: Jitter,
    /// Probability of losing all colour.
    pub grayscale: f32,
}

/// How far colours may move. The four steps are taken in random order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jitter {
    /// b: the factor is uniform in [max(0, 1 - b), 1 + b].
    pub brightness: f32,
    /// As brightness, around the image's mean gray.
    pub contrast: f32,
    /// As brightness, around each pixel's gray.
    pub saturation: f32,
    /// h: the turn is uniform in [-h, h], in turns of the colour circle, at most 0.5.
    pub hue: f32,
    /// Probability that an image is jittered at all.
    pub probability: f32,
}

/// A weak view: random crop with zero padding, then flip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Weak {
    /// Pixels of zeros on each side before the crop.
    pub padding: usize,
    /// Probability of a horizontal flip.
    pub flip: f32,
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

impl Default for Weak {
    fn default() -> Self {
        Self {
            padding: 4,
            flip: 0.5,
        }
    }
}

/// One step of colour jitter with its factor (hue: turns).
#[derive(Clone, Copy)]
enum Step {
    Brightness(f32),
    Contrast(f32),
    Saturation(f32),
    Hue(f32),
}

impl Strong {
    /// One strong view of each image named by `indices`.
    ///
    /// All parameters are drawn first, image by image, so the result depends on `rng` and not on
    /// the number of threads. Gray images draw what colour images draw; hue, saturation and
    /// grayscale leave them as they are.
    ///
    /// # Shapes
    /// `[indices.len(), channels, height, width]` out, f32 in [0, 1].
    ///
    /// # Panics
    /// Where an index is out of range; it may with settings that [`Strong::check`] refuses.
    pub fn apply(&self, images: &Images, indices: &[usize], rng: &mut ChaCha8Rng) -> Batch {
        let shape = [images.channels, images.height, images.width];
        let parameters: Vec<_> = (indices.iter())
            .map(|_| {
                let window = self.draw_window(images.height, images.width, rng);
                let flip = chance(rng, self.flip);
                let steps = self.jitter.draw(rng);
                (window, flip, steps, chance(rng, self.grayscale))
            })
            .collect();
        views(
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
                        Step::Brightness(factor) => adjust_brightness(view, factor),
                        Step::Contrast(factor) => adjust_contrast(view, images.channels, factor),
                        Step::Saturation(factor) => {
                            adjust_saturation(view, images.channels, factor)
                        }
                        Step::Hue(turns) => adjust_hue(view, images.channels, turns),
                    }
                }
                if gray {
                    grayscale(view, images.channels);
                }
            },
        )
    }

    /// Refuses values that cannot be meant, in one sentence: the key, what is expected, what was
    /// found.
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

    /// A window of random area and shape: ten attempts, then the largest central one within the
    /// ratios.
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
    fn draw(&self, rng: &mut ChaCha8Rng) -> Option<[Step; 4]> {
        let applied = chance(rng, self.probability);
        let mut factor = |strength: f32| uniform(rng, (1.0 - strength).max(0.0), 1.0 + strength);
        let mut steps = [
            Step::Brightness(factor(self.brightness)),
            Step::Contrast(factor(self.contrast)),
            Step::Saturation(factor(self.saturation)),
            Step::Hue(uniform(rng, -self.hue, self.hue)),
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

impl Weak {
    /// One weak view of each image named by `indices`; shapes, order of draws and panics as in
    /// [`Strong::apply`].
    pub fn apply(&self, images: &Images, indices: &[usize], rng: &mut ChaCha8Rng) -> Batch {
        let shape = [images.channels, images.height, images.width];
        let parameters: Vec<_> = (indices.iter())
            .map(|_| {
                let top = rng.random_range(0..=2 * self.padding);
                let left = rng.random_range(0..=2 * self.padding);
                (top, left, chance(rng, self.flip))
            })
            .collect();
        views(images, indices, &parameters, |drawn, image, view, _| {
            let &(top, left, flip) = drawn;
            let window = Window {
                top,
                left,
                height: images.height,
                width: images.width,
            };
            pad_crop_into(image, shape, self.padding, window, view);
            if flip {
                hflip(view, images.width);
            }
        })
    }

    /// Refuses values that cannot be meant, in one sentence: the key, what is expected, what was
    /// found.
    pub fn check(&self) -> Result<(), String> {
        // More than any image asks for, and far from overflow.
        let valid = self.padding <= 1024;
        require(valid, "padding", "at most 1024 pixels", self.padding)?;
        check_probability("flip", self.flip)
    }
}

fn check_probability(key: &str, value: f32) -> Result<(), String> {
    let valid = (0.0..=1.0).contains(&value);
    require(valid, key, "a probability from 0 to 1", value)
}

fn require(valid: bool, key: &str, expected: &str, found: impl Debug) -> Result<(), String> {
    if valid {
        return Ok(());
    }
    Err(format!("{key}: expected {expected}, found {found:?}"))
}

fn chance(rng: &mut impl Rng, probability: f32) -> bool {
    rng.random::<f32>() < probability
}

fn uniform(rng: &mut impl Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.random::<f32>()
}

/// Fills a batch in parallel: `make(parameters, image as f32, view, resizer)` for each index.
fn views<P: Sync>(
    images: &Images,
    indices: &[usize],
    parameters: &[P],
    make: impl Fn(&P, &[f32], &mut [f32], &mut Resizer) + Sync,
) -> Batch {
    let len = images.channels * images.height * images.width;
    let mut data = vec![0.0; indices.len() * len];
    data.par_chunks_exact_mut(len.max(1))
        .zip(indices.par_iter().zip(parameters))
        .with_min_len(16)
        .for_each_init(
            || (Vec::with_capacity(len), Resizer::default()),
            |(image, resizer), (view, (&index, drawn))| {
                let bytes = &images.pixels[index * len..][..len];
                image.clear();
                image.extend(bytes.iter().map(|&byte| f32::from(byte) / 255.0));
                make(drawn, image, view, resizer);
            },
        );
    Batch {
        data,
        shape: [indices.len(), images.channels, images.height, images.width],
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn images(channels: usize, height: usize, width: usize) -> Images {
        let len = 40 * channels * height * width;
        Images {
            pixels: (0..len).map(|i| (i * 7919 % 253) as u8).collect(),
            channels,
            height,
            width,
        }
    }

    fn seeded() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(3)
    }

    fn still() -> Strong {
        Strong {
            scale: (1.0, 1.0),
            ratio: (1.0, 1.0),
            flip: 0.0,
            jitter: Jitter {
                probability: 0.0,
                ..Jitter::default()
            },
            grayscale: 0.0,
        }
    }

    #[test]
    fn nothing_drawn_is_nothing_changed() {
        let images = images(3, 6, 6);
        let weak = Weak {
            padding: 0,
            flip: 0.0,
        };
        let expected: Vec<f32> = images.pixels[108..216]
            .iter()
            .map(|&byte| f32::from(byte) / 255.0)
            .collect();
        assert_eq!(still().apply(&images, &[1], &mut seeded()).data, expected);
        let view = weak.apply(&images, &[1], &mut seeded());
        assert_eq!(view.data, expected);
        assert_eq!(view.shape, [1, 3, 6, 6]);
    }

    #[test]
    fn a_certain_flip_flips() {
        let images = images(1, 3, 4);
        let flip = Strong {
            ratio: (4.0 / 3.0, 4.0 / 3.0),
            flip: 1.0,
            ..still()
        };
        let mut view = flip.apply(&images, &[0, 5], &mut seeded());
        hflip(&mut view.data, 4);
        let straight = Strong { flip: 0.0, ..flip };
        assert_eq!(view, straight.apply(&images, &[0, 5], &mut seeded()));
    }

    #[test]
    fn the_seed_decides_and_the_number_of_threads_does_not() {
        let indices: Vec<usize> = (0..40).rev().collect();
        for channels in [1, 3] {
            let images = images(channels, 9, 7);
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                pool.build().unwrap().install(|| {
                    let mut rng = seeded();
                    let strong = Strong::default().apply(&images, &indices, &mut rng);
                    let weak = Weak::default().apply(&images, &indices, &mut rng);
                    (strong, weak, rng.random::<u64>())
                })
            };
            let (strong, weak, next) = on(1);
            assert_eq!((strong.clone(), weak.clone(), next), on(2));
            assert_eq!(strong.shape, [40, channels, 9, 7]);
            for value in strong.data.iter().chain(&weak.data) {
                assert!((0.0..=1.0).contains(value), "{value}");
            }
            let mut other = ChaCha8Rng::seed_from_u64(4);
            let another = Strong::default().apply(&images, &indices, &mut other);
            assert_ne!(strong, another);
        }
    }

    #[test]
    fn windows_have_the_area_and_shape_asked_for() {
        let strong = Strong::default();
        let mut rng = seeded();
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
        // No attempt fits 50 x 4: the central window at the smallest ratio.
        let fallback = strong.draw_window(50, 4, &mut rng);
        assert!(fallback.height <= 6, "{fallback:?}");
    }

    #[test]
    fn recipes_may_leave_keys_out_but_not_invent_them() {
        let strong: Strong = serde_json::from_str(r#"{"jitter": {"hue": 0.2}}"#).unwrap();
        let mut expected = Strong::default();
        expected.jitter.hue = 0.2;
        assert_eq!(strong, expected);
        assert!(serde_json::from_str::<Weak>(r#"{"pading": 4}"#).is_err());
    }

    #[test]
    fn impossible_values_are_named() {
        assert_eq!(Strong::default().check(), Ok(()));
        assert_eq!(Weak::default().check(), Ok(()));
        let refused = |change: fn(&mut Strong), key: &str| {
            let mut strong = Strong::default();
            change(&mut strong);
            let problem = strong.check().unwrap_err();
            assert!(problem.starts_with(key), "{problem}");
        };
        refused(|s| s.scale = (0.0, 1.0), "scale");
        refused(|s| s.scale = (0.5, 1.1), "scale");
        refused(|s| s.ratio = (2.0, 1.0), "ratio");
        refused(|s| s.flip = f32::NAN, "flip");
        refused(|s| s.grayscale = -0.1, "grayscale");
        refused(|s| s.jitter.contrast = -0.1, "jitter.contrast");
        refused(|s| s.jitter.hue = 0.6, "jitter.hue");
        refused(|s| s.jitter.probability = 1.5, "jitter.probability");
        let weak = Weak {
            padding: 5000,
            flip: 0.5,
        };
        assert!(weak.check().unwrap_err().starts_with("padding"));
    }
}
