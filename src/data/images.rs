//! Images in memory, as bytes.

use rayon::prelude::*;

use super::fit::Picture;
use super::reading::{Channels, Reading, Size};
use crate::tensor::Batch;

/// Weights of red, green and blue in a pixel's gray value (ITU-R BT.601).
pub(super) const LUMA: [f32; 3] = [0.2989, 0.587, 0.114];

/// Images of one size, stored as bytes.
///
/// ```
/// use advcl::data::Images;
///
/// // Two gray images, 2 × 3 pixels each: a black one and a white one.
/// let pixels = [[0; 6], [255; 6]].concat();
/// let images = Images { pixels, channels: 1, height: 2, width: 3 };
/// assert_eq!(images.len(), 2);
/// let batch = images.batch(&[1, 1, 0]);
/// assert_eq!(batch.shape, [3, 1, 2, 3]);
/// assert_eq!(batch.data[..12], [1.0; 12]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Values as `[len, channels, height, width]`, row-major.
    pub pixels: Vec<u8>,
    /// Number of channels: 1 (gray) or 3 (red, green, blue).
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

impl Images {
    /// Number of images.
    pub fn len(&self) -> usize {
        // Sizes of zero never come from `load`, but the fields are public.
        self.pixels.len().checked_div(self.image_len()).unwrap_or(0)
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of values in an image: channels × height × width.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Values of image `i` as `[channels, height, width]`, row-major.
    ///
    /// # Panics
    /// If `i` is not below [`Images::len`].
    pub fn image(&self, i: usize) -> &[u8] {
        let len = self.image_len();
        &self.pixels[i * len..][..len]
    }

    /// Selects the images at `indices`, in that order; an index may occur more than once.
    ///
    /// # Panics
    /// If an index is not below [`Images::len`].
    pub fn select(&self, indices: &[usize]) -> Self {
        let mut pixels = Vec::with_capacity(indices.len() * self.image_len());
        for &i in indices {
            pixels.extend_from_slice(self.image(i));
        }
        Self { pixels, ..*self }
    }

    /// Converts gray images to colour (three equal channels), or colour images to gray (their
    /// luma).
    ///
    /// # Panics
    /// If either number of channels is not 1 or 3.
    pub fn with_channels(&self, channels: usize) -> Self {
        let plane = self.height * self.width;
        let mut pixels = Vec::with_capacity(self.len() * channels * plane);
        for image in (0..self.len()).map(|i| self.image(i)) {
            match (self.channels, channels) {
                (1, 3) => pixels.extend(image.repeat(3)),
                (3, 1) => pixels.extend((0..plane).map(|p| {
                    let value = |channel: usize| f32::from(image[channel * plane + p]);
                    luma([value(0), value(1), value(2)]).round() as u8
                })),
                (found, wanted) if found == wanted => pixels.extend_from_slice(image),
                (found, wanted) => panic!("cannot make {wanted} channels of {found}"),
            }
        }
        Self {
            pixels,
            channels,
            ..*self
        }
    }

    /// The images in the size and with the channels that are asked for, as far as any are.
    pub(super) fn read_as(self, reading: &Reading) -> Self {
        let sides = reading.size.map_or([self.height, self.width], Size::sides);
        let channels = reading.channels.map_or(self.channels, Channels::count);
        if self.is_empty() || ([self.height, self.width], self.channels) == (sides, channels) {
            return self;
        }
        let (plane, own) = (self.height * self.width, self.channels);
        let convert = |image: &[u8]| {
            let value = |i: usize| image[i % own * plane + i / own];
            let mut picture = Picture {
                pixels: (0..image.len()).map(value).collect(),
                height: self.height,
                width: self.width,
                channels: own,
            };
            if let Some(wanted) = reading.channels {
                picture = picture.with_channels(wanted);
            }
            picture
                .fitted(sides, reading.fit, reading.interpolation)
                .planes()
        };
        let pixels = self
            .pixels
            .par_chunks(self.image_len())
            .flat_map_iter(convert);
        Self {
            pixels: pixels.collect(),
            channels,
            height: sides[0],
            width: sides[1],
        }
    }

    /// Copies the images at `indices` into a batch of values in [0, 1].
    ///
    /// # Shapes
    /// `[indices.len(), channels, height, width]`.
    ///
    /// # Panics
    /// If an index is not below [`Images::len`].
    pub fn batch(&self, indices: &[usize]) -> Batch {
        let mut data = Vec::with_capacity(indices.len() * self.image_len());
        for &i in indices {
            data.extend(self.image(i).iter().copied().map(unit));
        }
        Batch {
            data,
            shape: [indices.len(), self.channels, self.height, self.width],
        }
    }

    /// Mean and standard deviation of each channel, for values in [0, 1]. The deviation is the
    /// population's; zeros if there are no images.
    pub fn channel_means(&self) -> Vec<(f64, f64)> {
        let plane = self.height * self.width;
        let mut sums = vec![(0u64, 0u64); self.channels];
        for i in 0..self.len() {
            for (sum, values) in sums.iter_mut().zip(self.image(i).chunks_exact(plane)) {
                for &value in values {
                    let value = u64::from(value);
                    sum.0 += value;
                    sum.1 += value * value;
                }
            }
        }
        // Integer sums are exact: 2^64 / 255^2 is 2.8e14 pixels.
        let count = (self.len() * plane).max(1) as f64;
        sums.into_iter()
            .map(|(sum, squares)| {
                let mean = sum as f64 / count;
                let variance = (squares as f64 / count - mean * mean).max(0.0);
                (mean / 255.0, variance.sqrt() / 255.0)
            })
            .collect()
    }
}

/// Converts a byte into a pixel value in [0, 1].
pub(super) fn unit(byte: u8) -> f32 {
    f32::from(byte) / 255.0
}

/// Gray value of a colour.
pub(super) fn luma([r, g, b]: [f32; 3]) -> f32 {
    LUMA[0] * r + LUMA[1] * g + LUMA[2] * b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> Images {
        Images {
            pixels: (0..12).map(|i| i * 20).collect(),
            channels: 1,
            height: 2,
            width: 2,
        }
    }

    #[test]
    fn select_and_batch_keep_the_order_asked_for() {
        let images = images();
        assert_eq!((images.len(), images.image_len()), (3, 4));
        assert_eq!(images.image(1), [80, 100, 120, 140]);
        assert_eq!(
            images.select(&[2, 0]).pixels,
            [160, 180, 200, 220, 0, 20, 40, 60]
        );
        let batch = images.batch(&[1]);
        assert_eq!(batch.shape, [1, 1, 2, 2]);
        assert_eq!(batch.data[1], 100.0 / 255.0);
    }

    #[test]
    fn gray_becomes_colour_and_colour_its_luma() {
        let gray = images();
        let colour = gray.with_channels(3);
        assert_eq!((colour.len(), colour.channels), (3, 3));
        assert_eq!(colour.image(1), [[80, 100, 120, 140]; 3].concat());
        assert_eq!(colour.with_channels(1), gray);
        assert_eq!(gray.with_channels(1), gray);
        assert_eq!(colour.with_channels(3), colour);
        // Red, green, blue and white of 200, by the weights of ITU-R 601.
        let pixels = [[200, 0, 0, 200], [0, 200, 0, 200], [0, 0, 200, 200]].concat();
        let colour = Images {
            pixels,
            channels: 3,
            ..gray
        };
        assert_eq!(colour.with_channels(1).pixels, [60, 117, 23, 200]);
    }

    #[test]
    fn an_image_of_no_size_is_no_image() {
        let images = Images {
            pixels: vec![],
            channels: 1,
            height: 0,
            width: 0,
        };
        assert!(images.is_empty());
    }

    #[test]
    fn means_and_deviations_are_of_pixels_in_0_1() {
        let images = Images {
            pixels: vec![0, 255, 51, 51, 255, 0, 51, 51],
            channels: 2,
            height: 1,
            width: 2,
        };
        let means = images.channel_means();
        assert_eq!(means[0], (0.5, 0.5));
        assert!(
            (means[1].0 - 0.2).abs() < 1e-12 && means[1].1 < 1e-6,
            "{means:?}"
        );
        let none = Images {
            pixels: vec![],
            ..images
        };
        assert_eq!(none.channel_means(), [(0.0, 0.0); 2]);
    }
}
