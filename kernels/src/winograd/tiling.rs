//! How images are cut into tiles, and how the tiles' planes lie in memory.

use crate::shape::Activation;

/// Output pixels along a tile's side.
pub(super) const SIDE: usize = 4;
/// Input pixels along a tile's side.
pub(super) const SPAN: usize = 6;
/// Positions of a transformed tile.
pub(super) const POSITIONS: usize = SPAN * SPAN;
/// Unused values between the planes of two positions: without them the planes' addresses would
/// collide in the caches.
pub(super) const GAP: usize = 80;

/// Bytes of planes that a thread works on at a time.
pub(super) const CACHED: usize = 300_000;

/// Input times output channels from which all rows are transformed at once and the threads share
/// the positions. Small under Miri, so that the shapes it can finish reach that code.
pub(super) const WIDE: usize = if cfg!(miri) { 8 * 16 } else { 256 * 256 };
/// Input times output channels up to which a weight gradient is summed in separate groups of rows.
pub(super) const NARROW: usize = if cfg!(miri) { 8 * 8 } else { 64 * 64 };

/// Number of matrix products that an image of this size takes.
pub(crate) fn products(height: usize, width: usize) -> usize {
    height.div_ceil(SIDE) * width.div_ceil(SIDE) * POSITIONS
}

/// The tiles of a batch as rows of planes. A row is one tile of one image, or of two images where a
/// cell holds one value of each. The rows of a tile's images are consecutive.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    pub height: usize,
    pub width: usize,
    pub batch: usize,
    /// Images in a row.
    pack: usize,
}

/// Consecutive images of one tile.
pub(super) struct Run {
    /// Top row of the tile's output pixels.
    pub y: usize,
    /// Left column of the tile's output pixels.
    pub x: usize,
    /// Index of the first image.
    pub image: usize,
    /// Number of images.
    pub images: usize,
    /// Index of the first row, counted from the block's start.
    pub row: usize,
}

impl Tiling {
    /// The tiling of an activation, with `pack` images in a row.
    pub fn new(shape: &Activation, pack: usize) -> Self {
        Self {
            height: shape.height,
            width: shape.width,
            batch: shape.batch,
            pack,
        }
    }

    /// Whether a row holds the values of several images.
    pub fn is_paired(&self) -> bool {
        self.pack > 1
    }

    /// Number of tiles beside each other.
    fn across(&self) -> usize {
        self.width.div_ceil(SIDE)
    }

    /// Number of rows of one tile.
    fn rows_of_tile(&self) -> usize {
        self.batch / self.pack
    }

    /// Number of rows of all tiles.
    pub fn rows(&self) -> usize {
        self.height.div_ceil(SIDE) * self.across() * self.rows_of_tile()
    }

    /// The runs that make up rows `from..to`.
    #[inline(always)]
    pub fn runs(self, from: usize, to: usize) -> impl Iterator<Item = Run> {
        let mut row = from;
        std::iter::from_fn(move || {
            if row >= to {
                return None;
            }
            let (tile, within) = (row / self.rows_of_tile(), row % self.rows_of_tile());
            let rows = (self.rows_of_tile() - within).min(to - row);
            let (y, x) = (tile / self.across() * SIDE, tile % self.across() * SIDE);
            let run = Run {
                y,
                x,
                image: within * self.pack,
                images: rows * self.pack,
                row: row - from,
            };
            row += rows;
            Some(run)
        })
    }

    /// Offset of the pixel at (`y`, `x`) with `channels` values per image; `None` outside the
    /// image.
    #[inline(always)]
    pub fn offset(&self, y: usize, x: usize, channels: usize) -> Option<usize> {
        (y < self.height && x < self.width).then(|| (y * self.width + x) * self.batch * channels)
    }
}
