//! PNG files: contact sheets, and single images of 8 bits.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::own_output::{mark_adversarial, mark_png};

/// A value of [0, 1] as a byte; what is outside is clamped, NaN becomes black.
pub(super) fn byte(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// Content of a PNG file of `width` × `height` pixels, whose one or three channels lie beside each other.
///
/// # Errors
/// The encoder's, for sizes that PNG does not have.
pub(super) fn encode(
    pixels: &[u8],
    width: u32,
    height: u32,
    colour: bool,
) -> std::io::Result<Vec<u8>> {
    let kind = match colour {
        true => ExtendedColorType::Rgb8,
        false => ExtendedColorType::L8,
    };
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(pixels, width, height, kind)
        .map_err(std::io::Error::other)?;
    Ok(png)
}

/// Content of a PNG file of an adversarial image, values in [0, 1], rounded to 8 bits. It is read as data like any other
/// image, and has a mark by which a later call may replace it.
///
/// # Shapes
/// `image`: `shape`, one or three channels, height, width.
///
/// # Panics
/// For values that are not of this shape.
pub fn adversarial_png(image: &[f32], shape: [usize; 3]) -> Vec<u8> {
    mark_adversarial(image_png(image, shape))
}

/// Content of a PNG file of values in [0, 1] that are looked at. It is marked as this program's, so that it is never read as
/// data.
///
/// # Shapes
/// As [`adversarial_png`].
///
/// # Panics
/// As [`adversarial_png`].
pub fn picture_png(image: &[f32], shape: [usize; 3]) -> Vec<u8> {
    mark_png(image_png(image, shape))
}

fn image_png(image: &[f32], [channels, height, width]: [usize; 3]) -> Vec<u8> {
    let plane = height * width;
    assert_eq!(image.len(), channels * plane, "values of one image");
    let pixels: Vec<u8> = (0..image.len())
        .map(|at| byte(image[at % channels * plane + at / channels]))
        .collect();
    let side = |side: usize| u32::try_from(side).expect("images have at most 4096 pixels a side");
    let png = encode(&pixels, side(width), side(height), channels == 3);
    png.expect("a size of images")
}

#[cfg(test)]
mod tests {
    use super::super::own_output::{is_adversarial_picture, is_own_picture};
    use super::*;

    #[test]
    fn images_come_back_rounded_to_8_bits_and_are_told_apart() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.png");
        // Red, green and blue planes of two pixels.
        let image = [0.0, 1.0, 0.501, 0.498, 0.2, 1.7];
        std::fs::write(&path, adversarial_png(&image, [3, 1, 2])).expect("a file");
        let read = image::open(&path).expect("a PNG").into_rgb8();
        assert_eq!(read.into_raw(), [0, 128, 51, 255, 127, 255]);
        let marks = || {
            let own = is_own_picture(&path).expect("a file");
            (own, is_adversarial_picture(&path).expect("a file"))
        };
        assert_eq!(marks(), (false, true));
        std::fs::write(&path, picture_png(&image[..2], [1, 2, 1])).expect("a file");
        assert_eq!(marks(), (true, false));
        assert_eq!(
            image::open(&path).expect("a PNG").into_luma8().dimensions(),
            (1, 2)
        );
    }
}
