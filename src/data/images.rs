//! Images of one size, as bytes.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::block::Block;
use super::fit::Picture;
use super::reading::{Channels, Reading, Size};
use crate::tensor::Batch;

/// Weights of red, green and blue in a pixel's gray value (ITU-R BT.601).
pub(super) const LUMA: [f32; 3] = [0.2989, 0.587, 0.114];

/// Images of one size, stored as bytes: in memory, or in a file that is read as the images are asked for.
///
/// Copies and selections share the stored values.
///
/// ```
/// use advcl::data::Images;
///
/// // Two gray images, 2 × 3 pixels each: a black one and a white one.
/// let images = Images::new([[0; 6], [255; 6]].concat(), [1, 2, 3]);
/// assert_eq!(images.len(), 2);
/// let batch = images.batch(&[1, 1, 0]);
/// assert_eq!(batch.shape, [3, 1, 2, 3]);
/// assert_eq!(batch.data[..12], [1.0; 12]);
/// ```
#[derive(Clone)]
pub struct Images {
    blocks: Vec<Stored>,
    rows: Vec<Row>,
    /// Number of channels: 1 (gray) or 3 (red, green, blue).
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

/// A block, and the files that its images come from, where they come from files.
#[derive(Clone)]
struct Stored {
    values: Arc<Block>,
    files: Option<Arc<Files>>,
}

/// Files of the images of a block.
pub(super) struct Files {
    /// Folder or archive that the names begin at, unless they are absolute.
    pub(super) base: PathBuf,
    /// Name of the file of each image, in the order of the block.
    pub(super) names: Vec<PathBuf>,
}

/// Where an image is: which block, and how many images are before it there. Small, because large sets have
/// many of them.
#[derive(Clone, Copy)]
struct Row {
    block: u32,
    place: u32,
}

impl Images {
    /// Images from their values, `[len, channels, height, width]`, row-major.
    ///
    /// # Panics
    /// Unless `pixels` are the values of whole images.
    pub fn new(pixels: Vec<u8>, shape: [usize; 3]) -> Self {
        let image_len: usize = shape.iter().product();
        let len = pixels.len().checked_div(image_len).unwrap_or(0);
        assert_eq!(len * image_len, pixels.len(), "values of whole images");
        Self::stored(Arc::new(Block::Memory(pixels)), 0..len, shape)
    }

    /// The images at `places` of a block.
    pub(super) fn stored(
        block: Arc<Block>,
        places: impl IntoIterator<Item = usize>,
        [channels, height, width]: [usize; 3],
    ) -> Self {
        let row = |place| Row {
            block: 0,
            place: u32::try_from(place).expect("fewer than four thousand million images"),
        };
        let stored = Stored {
            values: block,
            files: None,
        };
        Self {
            blocks: vec![stored],
            rows: places.into_iter().map(row).collect(),
            channels,
            height,
            width,
        }
    }

    /// The same images, of one block, with the files that they come from.
    pub(super) fn read_from(mut self, files: Arc<Files>) -> Self {
        self.blocks[0].files = Some(files);
        self
    }

    /// The files of the block of images that have one alone.
    pub(super) fn files(&self) -> Option<&Files> {
        self.blocks[0].files.as_deref()
    }

    /// File that image `i` was read from, absolute; inside an archive the archive's path with the member's name after it.
    /// None for images that were not read from files of their own.
    ///
    /// # Panics
    /// If `i` is not below [`Images::len`].
    pub fn path(&self, i: usize) -> Option<PathBuf> {
        let row = self.rows[i];
        let files = self.blocks[row.block as usize].files.as_ref()?;
        Some(files.base.join(&files.names[row.place as usize]))
    }

    /// Values of the block of images that have one alone, with those of images that were not selected.
    pub(super) fn block(&self) -> &[u8] {
        &self.blocks[0].values
    }

    /// Place of each image in its block.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().map(|row| row.place as usize)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Channels, height and width.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Number of values in an image: channels × height × width.
    pub fn image_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Bytes of memory that images hold together: what they share counts once, and what is in files does not count.
    pub fn memory_of<'a>(images: impl IntoIterator<Item = &'a Self>) -> usize {
        let blocks = images.into_iter().flat_map(|images| &images.blocks);
        let held = blocks.filter(|block| matches!(*block.values, Block::Memory(_)));
        let lengths: HashMap<_, usize> = held
            .map(|block| (Arc::as_ptr(&block.values), block.values.len()))
            .collect();
        lengths.into_values().sum()
    }

    /// Values of image `i` as `[channels, height, width]`, row-major.
    ///
    /// # Panics
    /// If `i` is not below [`Images::len`].
    pub fn image(&self, i: usize) -> &[u8] {
        let (row, len) = (self.rows[i], self.image_len());
        &self.blocks[row.block as usize].values[row.place as usize * len..][..len]
    }

    /// Hash of the values of image `i`: those of two different images are different but for a coincidence.
    ///
    /// # Panics
    /// If `i` is not below [`Images::len`].
    pub(super) fn hash(&self, i: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.image(i).hash(&mut hasher);
        hasher.finish()
    }

    /// A copy of all values, `[len, channels, height, width]`, row-major.
    pub fn pixels(&self) -> Vec<u8> {
        let mut pixels = Vec::with_capacity(self.len() * self.image_len());
        (0..self.len()).for_each(|i| pixels.extend_from_slice(self.image(i)));
        pixels
    }

    /// Selects the images at `indices`, in that order; an index may occur more than once.
    ///
    /// # Panics
    /// If an index is not below [`Images::len`].
    pub fn select(&self, indices: &[usize]) -> Self {
        Self {
            blocks: self.blocks.clone(),
            rows: indices.iter().map(|&i| self.rows[i]).collect(),
            ..*self
        }
    }

    /// Adds images after the last one.
    ///
    /// # Panics
    /// For images of another shape.
    pub(super) fn append(&mut self, other: &Self) {
        assert_eq!(self.shape(), other.shape(), "images of one shape");
        let before = self.blocks.len() as u32;
        let moved = |row: &Row| Row {
            block: before + row.block,
            ..*row
        };
        self.rows.extend(other.rows.iter().map(moved));
        self.blocks.extend(other.blocks.iter().cloned());
    }

    /// Converts gray images to colour (three equal channels), or colour images to gray (their
    /// luma).
    ///
    /// # Panics
    /// If either number of channels is not 1 or 3.
    pub fn with_channels(&self, channels: usize) -> Self {
        if channels == self.channels {
            return self.clone();
        }
        let plane = self.height * self.width;
        let value = |image: &[u8], channel: usize, p: usize| f32::from(image[channel * plane + p]);
        let convert = |image: &[u8]| match (self.channels, channels) {
            (1, 3) => image.repeat(3),
            (3, 1) => (0..plane)
                .map(|p| luma([0, 1, 2].map(|channel| value(image, channel, p))).round() as u8)
                .collect(),
            (found, wanted) => panic!("cannot make {wanted} channels of {found}"),
        };
        self.converted([channels, self.height, self.width], |i| {
            convert(self.image(i))
        })
    }

    /// Images of another shape, each made from the one of its index.
    fn converted(
        &self,
        shape: [usize; 3],
        convert: impl Fn(usize) -> Vec<u8> + Send + Sync,
    ) -> Self {
        let pixels = (0..self.len()).into_par_iter().flat_map_iter(convert);
        let converted = Self::new(pixels.collect(), shape);
        let paths: Option<Vec<PathBuf>> = (0..self.len()).map(|i| self.path(i)).collect();
        match paths {
            None => converted,
            Some(paths) => converted.read_from(Arc::new(Files {
                base: PathBuf::new(),
                names: paths,
            })),
        }
    }

    /// The images in the size and with the channels that are asked for, as far as any are.
    pub(super) fn read_as(self, reading: &Reading) -> Self {
        let sides = reading.size.map_or([self.height, self.width], Size::sides);
        let channels = reading.channels.map_or(self.channels, Channels::count);
        if ([self.height, self.width], self.channels) == (sides, channels) {
            return self;
        }
        if self.is_empty() {
            return Self::new(Vec::new(), [channels, sides[0], sides[1]]);
        }
        self.converted([channels, sides[0], sides[1]], |i| {
            self.picture(i).read_as(reading).planes()
        })
    }

    /// Image `i` with its channels beside each other.
    pub(super) fn picture(&self, i: usize) -> Picture {
        let (image, plane) = (self.image(i), self.height * self.width);
        let value = |at: usize| image[at % self.channels * plane + at / self.channels];
        Picture {
            pixels: (0..image.len()).map(value).collect(),
            height: self.height,
            width: self.width,
            channels: self.channels,
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

impl PartialEq for Images {
    /// Whether both have the same shape and the same values in the same order, wherever they are stored.
    fn eq(&self, other: &Self) -> bool {
        let same = |i: usize| self.image(i) == other.image(i);
        self.shape() == other.shape() && self.len() == other.len() && (0..self.len()).all(same)
    }
}

impl Eq for Images {}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [channels, height, width] = self.shape();
        write!(f, "{} images, {channels} × {height} × {width}", self.len())
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
        Images::new((0..12).map(|i| i * 20).collect(), [1, 2, 2])
    }

    #[test]
    fn select_and_batch_keep_the_order_asked_for() {
        let images = images();
        assert_eq!((images.len(), images.image_len()), (3, 4));
        assert_eq!(images.image(1), [80, 100, 120, 140]);
        assert_eq!(
            images.select(&[2, 0]).pixels(),
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
        let colour = Images::new(pixels, [3, 2, 2]);
        assert_eq!(colour.with_channels(1).pixels(), [60, 117, 23, 200]);
    }

    #[test]
    fn what_is_appended_keeps_its_own_values() {
        let (mut all, other) = (images(), images().select(&[2, 2, 1]));
        all.append(&other.select(&[1, 2]));
        assert_eq!(all.len(), 5);
        assert_eq!(all.image(3), other.image(0));
        assert_eq!(all.select(&[4, 0]).pixels(), all.select(&[1, 0]).pixels());
        assert_eq!(Images::memory_of([&all, &other, &all.select(&[0])]), 24);
    }

    #[test]
    fn an_image_of_no_size_is_no_image() {
        assert!(Images::new(vec![], [1, 0, 0]).is_empty());
    }

    #[test]
    fn means_and_deviations_are_of_pixels_in_0_1() {
        let images = Images::new(vec![0, 255, 51, 51, 255, 0, 51, 51], [2, 1, 2]);
        let means = images.channel_means();
        assert_eq!(means[0], (0.5, 0.5));
        assert!(
            (means[1].0 - 0.2).abs() < 1e-12 && means[1].1 < 1e-6,
            "{means:?}"
        );
        let none = images.select(&[]);
        assert_eq!(none.channel_means(), [(0.0, 0.0); 2]);
    }
}
