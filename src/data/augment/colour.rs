//! Brightness and colour changes of one image, with given parameters.
//!
//! Images are f32 planes `[channels, height, width]` with values in [0, 1]. The results are those
//! of torchvision's transforms on float tensors, clamping included.

use crate::data::images::{LUMA, luma};

/// Multiplies by `factor`, then clamps to [0, 1].
pub fn adjust_brightness(image: &mut [f32], factor: f32) {
    for value in image {
        *value = (*value * factor).clamp(0.0, 1.0);
    }
}

/// Adjusts the contrast: `factor` · image + (1 - `factor`) · mean of its gray values, clamped to
/// [0, 1].
pub fn adjust_contrast(image: &mut [f32], channels: usize, factor: f32) {
    let mean = match colours(image, channels) {
        // The mean of a weighted sum is the weighted sum of the means.
        Some(planes) => planes.iter().zip(LUMA).map(|(p, w)| w * mean(p)).sum(),
        None => mean(image),
    };
    let offset = (1.0 - factor) * mean;
    for value in image {
        *value = (*value * factor + offset).clamp(0.0, 1.0);
    }
}

/// Adjusts the saturation: `factor` · image + (1 - `factor`) · its gray values, clamped to [0, 1].
/// Gray images do not change.
pub fn adjust_saturation(image: &mut [f32], channels: usize, factor: f32) {
    each_colour(image, channels, |rgb| {
        let offset = (1.0 - factor) * luma(rgb);
        rgb.map(|value| (value * factor + offset).clamp(0.0, 1.0))
    });
}

/// Rotates the hue (of hue, saturation, value) by `turns` of the colour circle. Gray images do not
/// change.
pub fn adjust_hue(image: &mut [f32], channels: usize, turns: f32) {
    if turns == 0.0 {
        return;
    }
    // Hue in sixths of the circle, red at 0.
    let sixths = 6.0 * turns.rem_euclid(1.0);
    each_colour(image, channels, |[r, g, b]| {
        let value = r.max(g).max(b);
        let chroma = value - r.min(g).min(b);
        // Gray has no hue: the numerator is 0, so any divisor will do.
        let scale = if chroma == 0.0 { 1.0 } else { 1.0 / chroma };
        let hue = if value == r {
            (g - b) * scale
        } else if value == g {
            2.0 + (b - r) * scale
        } else {
            4.0 + (r - g) * scale
        };
        // A channel lacks the whole chroma in the third of the circle opposite its own colour,
        // nothing in its own third, and a linear share in between. Shifts of 5, 3, 1 put that
        // zone's middle at 2.
        let hue = hue + sixths;
        let hue = if hue < 0.0 { hue + 6.0 } else { hue };
        let hue = if hue >= 6.0 { hue - 6.0 } else { hue };
        [5.0, 3.0, 1.0].map(|shift| {
            let k: f32 = hue + shift;
            let k = if k >= 6.0 { k - 6.0 } else { k };
            value - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
        })
    });
}

/// Sets all three channels to the gray value of each pixel. Gray images do not change.
pub fn grayscale(image: &mut [f32], channels: usize) {
    each_colour(image, channels, |rgb| [luma(rgb); 3]);
}

/// Red, green and blue planes of a colour image; none for a gray one.
fn colours(image: &mut [f32], channels: usize) -> Option<[&mut [f32]; 3]> {
    if channels != 3 {
        return None;
    }
    let (red, rest) = image.split_at_mut(image.len() / 3);
    let (green, blue) = rest.split_at_mut(rest.len() / 2);
    Some([red, green, blue])
}

/// Replaces each colour of a colour image.
fn each_colour(image: &mut [f32], channels: usize, change: impl Fn([f32; 3]) -> [f32; 3]) {
    if let Some([red, green, blue]) = colours(image, channels) {
        for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
            [*r, *g, *b] = change([*r, *g, *b]);
        }
    }
}

/// Mean, summed in eight lanes: faster than one long f32 sum, and closer to the exact mean.
fn mean(values: &[f32]) -> f32 {
    let mut lanes = [0.0; 8];
    let blocks = values.chunks_exact(8);
    let rest: f32 = blocks.remainder().iter().sum();
    for block in blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane += value;
        }
    }
    (lanes.iter().sum::<f32>() + rest) / values.len() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn colourful() -> Vec<f32> {
        (0..3 * 4 * 5)
            .map(|i| (i * 37 % 60) as f32 / 59.0)
            .collect()
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            assert!((f - e).abs() < 1e-6, "{i}: {f} against {e}");
        }
    }

    #[test]
    fn brightness_scales_and_clamps() {
        let mut image = [0.0, 0.25, 0.75];
        adjust_brightness(&mut image, 2.0);
        assert_eq!(image, [0.0, 0.5, 1.0]);
    }

    #[test]
    fn contrast_blends_with_the_mean_gray() {
        let mut gray = [0.0, 0.5, 1.0, 0.5];
        adjust_contrast(&mut gray, 1, 0.5);
        assert_eq!(gray, [0.25, 0.5, 0.75, 0.5]);
        let mut image = [1.0, 0.5, 0.0, 1.0, 0.0, 0.0];
        adjust_contrast(&mut image, 3, 0.0);
        assert_close(&image, &[0.2989 * 0.75 + 0.587 * 0.5; 6]);
    }

    #[test]
    fn without_saturation_an_image_is_gray() {
        let (mut image, mut gray) = (colourful(), colourful());
        adjust_saturation(&mut image, 3, 0.0);
        grayscale(&mut gray, 3);
        assert_close(&image, &gray);
        assert_eq!(gray[..20], gray[20..40]);
        assert_eq!(gray[..20], gray[40..]);
        let expected = 0.2989 * colourful()[0] + 0.587 * colourful()[20] + 0.114 * colourful()[40];
        assert_close(&gray[..1], &[expected]);
    }

    #[test]
    fn hue_turns_in_a_circle() {
        let turned = |mut image: Vec<f32>, turns| {
            adjust_hue(&mut image, 3, turns);
            image
        };
        assert_eq!(turned(colourful(), 0.0), colourful());
        assert_close(&turned(colourful(), 1.0), &colourful());
        assert_close(&turned(turned(colourful(), 0.3), -0.3), &colourful());
        // Red goes to green, gray stays.
        let (red, green) = (vec![0.9, 0.2, 0.2], [0.2, 0.9, 0.2]);
        assert_close(&turned(red, 1.0 / 3.0), &green);
        assert_close(&turned(vec![0.4; 3], 0.2), &[0.4; 3]);
    }

    #[test]
    fn gray_images_have_no_colour_to_change() {
        let mut image = colourful();
        adjust_hue(&mut image, 1, 0.3);
        adjust_saturation(&mut image, 1, 0.3);
        grayscale(&mut image, 1);
        assert_eq!(image, colourful());
    }
}
