//! Activations rounded to bf16, in the order in which tiles are loaded.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::plan::Strips;
use super::tiles::{BLOCK, DEPTH, SIDE, STEP, TILE};
use crate::element::{Element, Half};
use crate::simd::dispatch;

/// Cells that are not written yet.
type Cells = [MaybeUninit<f32>];

/// Cells that one task of [`Source::by_rows`] writes, about.
const PIECE: usize = 1 << 13;

/// Activations of some images, as strips. A row of a strip is the channels of one image at one
/// pixel.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// `[pixels, batch, channels]`.
    pub values: &'a [f32],
    pub batch: usize,
    pub channels: usize,
    pub strips: Strips,
    /// The first image, and the one after the last.
    pub images: (usize, usize),
}

impl<'a> Source<'a> {
    /// The rows of a strip from `first` on, without end; none for a row beyond the border.
    #[inline(always)]
    fn rows(self, strip: usize, first: usize) -> Rows<'a> {
        let count = self.images.1 - self.images.0;
        let mut rows = Rows {
            source: self,
            strip,
            column: first / count,
            image: first % count,
            pixel: None,
        };
        rows.pixel = self.strips.pixel(strip, rows.column);
        rows
    }

    /// Writes all strips, `[strip][row][channels]`: rows of `width` cells, `rows` to a strip.
    pub fn by_rows(self, cells: &mut Cells, rows: usize, width: usize) {
        let piece = (PIECE / width).max(1);
        cells
            .par_chunks_mut(rows * width)
            .enumerate()
            .for_each(|(strip, cells)| {
                cells
                    .par_chunks_mut(piece * width)
                    .enumerate()
                    .for_each(|(index, cells)| {
                        dispatch(ByRows {
                            rows: self.rows(strip, index * piece),
                            width,
                            cells,
                        });
                    });
            });
    }

    /// Writes all strips transposed, `[strip][channel][row]`: each channel has `rows` values (a
    /// multiple of 32), and the channels are padded to tiles.
    pub fn by_channels(self, cells: &mut Cells, rows: usize) {
        let blocks = self.channels.div_ceil(SIDE);
        cells
            .par_chunks_mut(SIDE * rows / 2)
            .enumerate()
            .for_each(|(index, cells)| {
                dispatch(ByChannels {
                    rows: self.rows(index / blocks, 0),
                    start: index % blocks * SIDE,
                    half: rows / 2,
                    cells,
                });
            });
    }

    /// Writes all strips as tiles of columns, `[strip][block of 32 channels][step][two tiles]`:
    /// `steps` of 32 rows each. A tile is 16 pairs of rows by 16 channels; the second one is left
    /// alone where a block has only one.
    pub fn by_tiles(self, cells: &mut Cells, steps: usize) {
        let blocks = self.channels.div_ceil(BLOCK);
        cells
            .par_chunks_mut(steps * STEP)
            .enumerate()
            .for_each(|(index, cells)| {
                dispatch(ByTiles {
                    rows: self.rows(index / blocks, 0),
                    start: index % blocks * BLOCK,
                    cells,
                });
            });
    }
}

/// See [`Source::rows`].
struct Rows<'a> {
    source: Source<'a>,
    strip: usize,
    column: usize,
    image: usize,
    /// The pixel at this column.
    pixel: Option<usize>,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn next(&mut self) -> Option<&'a [f32]> {
        let Source {
            values,
            batch,
            channels,
            strips,
            images,
        } = self.source;
        let row = self.pixel.map(|pixel| {
            let at = (pixel * batch + images.0 + self.image) * channels;
            &values[at..at + channels]
        });
        self.image += 1;
        if self.image == images.1 - images.0 {
            self.image = 0;
            self.column += 1;
            self.pixel = strips.pixel(self.strip, self.column);
        }
        row
    }

    /// Sixteen cells of the next two rows, for each of `to`, from channel `start` on.
    #[inline(always)]
    fn next_pair<'t>(&mut self, start: usize, to: impl Iterator<Item = &'t mut Cells>) {
        let rows = [self.next(), self.next()];
        for (tile, to) in to.enumerate() {
            let start = start + tile * SIDE;
            let [first, second] = rows.map(|row| row.map_or([0.0; SIDE], |row| padded(row, start)));
            for ((cell, first), second) in to.iter_mut().zip(first).zip(second) {
                cell.write(Half::cell(first, second));
            }
        }
    }
}

/// Sixteen values from `start` on, with zeros behind the last.
#[inline(always)]
fn padded(row: &[f32], start: usize) -> [f32; SIDE] {
    let rest = &row[start..];
    if let Some(whole) = rest.first_chunk() {
        return *whole;
    }
    let mut values = [0.0; SIDE];
    values[..rest.len()].copy_from_slice(rest);
    values
}

/// The task of [`Source::by_rows`].
struct ByRows<'a> {
    rows: Rows<'a>,
    width: usize,
    cells: &'a mut Cells,
}

impl WithSimd for ByRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        for cells in self.cells.chunks_exact_mut(self.width) {
            let values = self.rows.next().unwrap_or_default();
            let (pairs, last) = values.as_chunks::<2>();
            let (whole, rest) = cells.split_at_mut(pairs.len());
            for (cell, [first, second]) in whole.iter_mut().zip(pairs) {
                cell.write(Half::cell(*first, *second));
            }
            let mut last = last.iter();
            rest.fill_with(|| MaybeUninit::new(Half::cell(*last.next().unwrap_or(&0.0), 0.0)));
        }
    }
}

/// The task of [`Source::by_channels`], for 16 channels of a strip.
struct ByChannels<'a> {
    rows: Rows<'a>,
    /// The first channel.
    start: usize,
    /// Cells of a channel.
    half: usize,
    cells: &'a mut Cells,
}

impl WithSimd for ByChannels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        for at in (0..self.half).step_by(SIDE) {
            let mut block = [[MaybeUninit::new(0.0); SIDE]; SIDE];
            for pair in &mut block {
                let to = std::iter::once(&mut pair[..]);
                self.rows.next_pair(self.start, to);
            }
            for (channel, cells) in self.cells.chunks_exact_mut(self.half).enumerate() {
                for (cell, pair) in cells[at..at + SIDE].iter_mut().zip(&block) {
                    *cell = pair[channel];
                }
            }
        }
    }
}

/// The task of [`Source::by_tiles`], for a block of 32 channels of a strip.
struct ByTiles<'a> {
    rows: Rows<'a>,
    /// The first channel.
    start: usize,
    cells: &'a mut Cells,
}

impl WithSimd for ByTiles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        let tiles = (self.rows.source.channels - self.start)
            .div_ceil(SIDE)
            .min(2);
        for step in self.cells.chunks_exact_mut(STEP) {
            for pair in 0..DEPTH / 2 {
                let to = step.chunks_exact_mut(TILE).take(tiles);
                let to = to.map(|tile| &mut tile[pair * SIDE..(pair + 1) * SIDE]);
                self.rows.next_pair(self.start, to);
            }
        }
    }
}
