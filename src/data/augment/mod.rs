//! Random views of images, on the host: SimCLR's strong augmentation and the weak one of supervised
//! training.
//!
//! Strong views: Chen et al., "A simple framework for contrastive learning of visual
//! representations" (ICML 2020, appendix A), with the strengths that AdvCL uses on small images.
//! `strong` and `weak` draw the parameters; `geometry` and `colour` are pure functions of one
//! image.

mod colour;
mod draw;
mod geometry;
mod strong;
mod weak;

pub use colour::{adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation, grayscale};
pub use geometry::{Window, hflip, pad_crop, resized_crop};
pub use strong::{Jitter, Strong};
pub use weak::Weak;

#[cfg(test)]
mod tests {
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::data::Images;

    fn images(channels: usize, height: usize, width: usize) -> Images {
        let len = 40 * channels * height * width;
        let pixels = (0..len).map(|i| (i * 7919 % 253) as u8).collect();
        Images::new(pixels, [channels, height, width])
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
        let expected: Vec<f32> = images.pixels()[108..216]
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
