//! Images of any size brought to one: cropped, padded or stretched, antialiased as torchvision and Pillow do it.

use fast_image_resize::images::TypedImage;
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

/// How an image of another shape is brought to the size that is asked for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Scaled until it covers the size, and its middle cut out: torchvision's `Resize` and `CenterCrop`.
    #[default]
    Crop,
    /// Scaled until it is inside the size, and black borders put around it.
    Pad,
    /// Height and width scaled on their own.
    Stretch,
}

impl Fit {
    /// What was done, in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crop => "scaled and cropped",
            Self::Pad => "scaled and padded",
            Self::Stretch => "stretched",
        }
    }

    /// Height and width to which an image is scaled, before borders are cut off or put around it.
    pub(super) fn scaled(self, found: [usize; 2], size: [usize; 2]) -> [usize; 2] {
        match self {
            Self::Stretch => size,
            Self::Crop => covering(found, size, usize::max),
            Self::Pad => covering(found, size, usize::min),
        }
    }
}

/// How values between pixels are computed. Both are antialiased.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The four nearest pixels, weighted by distance.
    #[default]
    Bilinear,
    /// The sixteen nearest pixels, weighted by cubic polynomials (a = −0.5).
    Bicubic,
}

/// An image of bytes, `[height, width, channels]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) pixels: Vec<u8>,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Number of channels, 1 or 3.
    pub(super) channels: usize,
}

impl Picture {
    /// The image in another size, `[height, width]`.
    pub(super) fn fitted(self, size: [usize; 2], fit: Fit, interpolation: Interpolation) -> Self {
        let found = [self.height, self.width];
        if found == size {
            return self;
        }
        let scaled = self.scaled(fit.scaled(found, size), interpolation);
        match fit {
            Fit::Stretch => scaled,
            Fit::Crop => scaled.cut(size),
            Fit::Pad => scaled.padded(size),
        }
    }

    fn scaled(mut self, [height, width]: [usize; 2], interpolation: Interpolation) -> Self {
        if [self.height, self.width] == [height, width] {
            return self;
        }
        let filter = match interpolation {
            Interpolation::Bilinear => FilterType::Bilinear,
            Interpolation::Bicubic => FilterType::CatmullRom,
        };
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(filter))
            .use_alpha(false);
        let pixels = match self.channels {
            1 => self.resized::<U8>([height, width], &options),
            _ => self.resized::<U8x3>([height, width], &options),
        };
        Self {
            pixels,
            height,
            width,
            channels: self.channels,
        }
    }

    /// The pixels in another size. The crate could also tell their kind from a value, and borrow them: it would then be compiled once
    /// for each of its thirteen kinds and each sort of image, which took a quarter of the time that this crate takes.
    fn resized<P: PixelTrait>(
        &mut self,
        [height, width]: [usize; 2],
        options: &ResizeOptions,
    ) -> Vec<u8> {
        let image = |[height, width]: [usize; 2], pixels| {
            TypedImage::<P>::from_buffer(width as u32, height as u32, pixels)
                .expect("as many bytes as the size says")
        };
        let mut pixels = vec![0; height * width * self.channels];
        let source = image([self.height, self.width], &mut self.pixels);
        let mut target = image([height, width], &mut pixels);
        Resizer::new()
            .resize_typed(&source, &mut target, options)
            .expect("the whole image");
        pixels
    }

    /// The middle of the image. Odd borders are divided as by torchvision, which rounds halves to even.
    fn cut(self, [height, width]: [usize; 2]) -> Self {
        let start =
            |larger: usize, size: usize| ((larger - size) as f64 / 2.0).round_ties_even() as usize;
        let (top, left) = (start(self.height, height), start(self.width, width));
        let mut pixels = Vec::with_capacity(height * width * self.channels);
        for row in top..top + height {
            let from = (row * self.width + left) * self.channels;
            pixels.extend(&self.pixels[from..][..width * self.channels]);
        }
        Self {
            pixels,
            height,
            width,
            channels: self.channels,
        }
    }

    /// The image in the middle of black borders.
    fn padded(self, [height, width]: [usize; 2]) -> Self {
        let (top, left) = ((height - self.height) / 2, (width - self.width) / 2);
        let mut pixels = vec![0; height * width * self.channels];
        let length = self.width * self.channels;
        for row in 0..self.height {
            let to = ((top + row) * width + left) * self.channels;
            pixels[to..][..length].copy_from_slice(&self.pixels[row * length..][..length]);
        }
        Self {
            pixels,
            height,
            width,
            channels: self.channels,
        }
    }
}

/// Height and width of an image, in its own proportions, that covers `size` (`choose` is the larger of two) or is inside it
/// (the smaller): one side is as asked for, the other one cut to a whole number.
fn covering(
    [height, width]: [usize; 2],
    size: [usize; 2],
    choose: fn(usize, usize) -> usize,
) -> [usize; 2] {
    // In the same proportions both sides are as asked for.
    let by_height = size[0] * width / height;
    let by_width = size[1] * height / width;
    let (exact, other) = (size[0] * width, size[1] * height);
    if exact == other {
        return size;
    }
    // Whether scaling to the height gives the larger image.
    let height_is_larger = exact > other;
    let larger_is_wanted = choose(0, 1) == 1;
    if height_is_larger == larger_is_wanted {
        [size[0], choose(by_height, size[1]).max(1)]
    } else {
        [choose(by_width, size[0]).max(1), size[1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gray image of `7 x + 11 y + x y` modulo 256.
    fn picture(height: usize, width: usize) -> Picture {
        let pixel = |i: usize| {
            let (y, x) = (i / width, i % width);
            ((7 * x + 11 * y + x * y) % 256) as u8
        };
        Picture {
            pixels: (0..height * width).map(pixel).collect(),
            height,
            width,
            channels: 1,
        }
    }

    #[test]
    fn sizes_are_those_of_torchvision() {
        for (found, size, cover, inside) in [
            ([100, 150], [64, 64], [64, 96], [42, 64]),
            ([150, 100], [64, 64], [96, 64], [64, 42]),
            ([97, 131], [64, 64], [64, 86], [47, 64]),
            ([100, 150], [48, 96], [64, 96], [48, 72]),
            ([10, 1000], [64, 64], [64, 6400], [1, 64]),
            ([3, 1000], [64, 64], [64, 21333], [1, 64]),
            ([128, 128], [64, 64], [64, 64], [64, 64]),
        ] {
            assert_eq!(covering(found, size, usize::max), cover, "{found:?}");
            assert_eq!(covering(found, size, usize::min), inside, "{found:?}");
        }
    }

    #[test]
    fn every_fit_gives_the_size_and_keeps_an_image_that_has_it() {
        for found in [[9, 30], [30, 9], [64, 48], [1, 1], [200, 3]] {
            for fit in [Fit::Crop, Fit::Pad, Fit::Stretch] {
                let fitted = picture(found[0], found[1]).fitted([16, 12], fit, Default::default());
                assert_eq!(
                    [fitted.height, fitted.width],
                    [16, 12],
                    "{found:?}, {fit:?}"
                );
                assert_eq!(fitted.pixels.len(), 16 * 12);
            }
        }
        let same = picture(16, 12);
        assert_eq!(
            same.clone().fitted([16, 12], Fit::Crop, Default::default()),
            same
        );
        let padded = picture(8, 16).fitted([16, 16], Fit::Pad, Default::default());
        assert_eq!(&padded.pixels[..4 * 16], [0; 64]);
        assert_eq!(&padded.pixels[4 * 16..12 * 16], picture(8, 16).pixels);
    }

    #[test]
    fn values_are_pillows_within_one_level() {
        // Pillow 13.0.0: Image.fromarray(picture(20, 30)).resize((6, 4), BILINEAR and BICUBIC), antialiased.
        let expected = PILLOW;
        for (interpolation, values) in [Interpolation::Bilinear, Interpolation::Bicubic]
            .into_iter()
            .zip(expected)
        {
            let found = picture(20, 30).fitted([4, 6], Fit::Stretch, interpolation);
            let near = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= 1;
            let all = found.pixels.iter().zip(&values).all(near);
            assert!(
                all,
                "{interpolation:?}: {:?}, expected {values:?}",
                found.pixels
            );
        }
    }

    const PILLOW: [[u8; 24]; 2] = [
        [
            50, 93, 139, 159, 149, 119, 111, 162, 138, 104, 125, 135, 167, 122, 110, 146, 115, 126,
            147, 102, 148, 109, 140, 118,
        ],
        [
            42, 87, 143, 166, 146, 119, 107, 174, 140, 97, 125, 133, 176, 119, 102, 154, 114, 127,
            148, 96, 157, 103, 143, 118,
        ],
    ];
}
