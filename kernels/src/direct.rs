//! Convolution as direct sums of products, exact to rounding.

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::columns::{Block, Columns};
use crate::element::Element;
use crate::epilogue::PreparedEpilogue;
use crate::memory::Shared;
use crate::packed::Packed;
use crate::shape::{Convolution, MAX_KERNEL, Pass, Tap};
use crate::simd::rows as tile_rows;
use crate::tile::{Term, sum_of_products, transposed_product};

/// Images of a task: their rows of one pixel stay in the first-level cache.
const IMAGES: usize = 32;
/// Largest number of groups that the pixels of a block of images are split into.
const GROUPS: usize = 16;

/// Packs `w`, `[out, in, kernel²]`, as `[block][kernel²][depth][block columns]`, padded with zeros.
///
/// In the forward pass the depth is the input channels and the columns are the output channels; in
/// the backward pass it is the reverse.
pub(crate) fn pack<E: Element>(conv: &Convolution, w: &[f32], pass: Pass) -> Vec<f32> {
    let (input, taps) = (conv.input.channels, conv.kernel * conv.kernel);
    let (depth, count) = conv.depth_and_columns(pass);
    let cells = depth / E::PACK;
    let columns = Columns::new(count);
    let mut packed = vec![0.0; columns.padded() * taps * cells];
    let blocks: Vec<Block> = columns.blocks().collect();
    let mut rest = &mut packed[..];
    let mut parts = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (part, after) = rest.split_at_mut(block.width() * taps * cells);
        parts.push((block, part));
        rest = after;
    }
    let weight = |column: usize, k: usize, tap: usize| {
        let (o, i) = pass.channels(column, k);
        w[(o * input + i) * taps + tap]
    };
    parts.into_par_iter().for_each(|(block, part)| {
        let width = block.width();
        for column in 0..block.cols {
            for cell in 0..cells {
                for tap in 0..taps {
                    let value = |k: usize| weight(block.start + column, k, tap);
                    let (first, last) = (cell * E::PACK, (cell + 1) * E::PACK - 1);
                    part[(tap * cells + cell) * width + column] =
                        E::cell(value(first), value(last));
                }
            }
        }
    });
    packed
}

/// The output of a convolution, or the gradient of its input, depending on `packed`.
pub(crate) fn convolve<E: Element>(
    conv: &Convolution,
    source: &[f32],
    packed: &Packed,
    epilogue: Option<&PreparedEpilogue>,
) -> Vec<f32> {
    let taps = match packed.pass {
        Pass::Forward => conv.taps(),
        Pass::Backward => conv.taps_backward(),
    };
    let batch = conv.input.batch;
    let mut result = Box::<[f32]>::new_uninit_slice(taps.len() * batch * packed.columns.count);
    if result.is_empty() {
        return Vec::new();
    }
    let groups = taps.len().min(GROUPS);
    let source = E::flat(source);
    let job = Job {
        source: &source,
        packed,
        taps: &taps,
        result: Shared::uninit(&mut result),
        batch,
        kernel: conv.kernel * conv.kernel,
        epilogue,
    };
    (0..batch.div_ceil(IMAGES) * groups)
        .into_par_iter()
        .for_each(|task| {
            let (images, group) = (task / groups, task % groups);
            E::dispatch(Task::<E> {
                job: &job,
                images: (images * IMAGES, batch.min((images + 1) * IMAGES)),
                pixels: (
                    taps.len() * group / groups,
                    taps.len() * (group + 1) / groups,
                ),
                element: PhantomData,
            });
        });
    // SAFETY: the tasks cover all images at all pixels, and each wrote all columns of its part
    // (zeros where no tap reaches a pixel).
    unsafe { result.assume_init() }.into_vec()
}

/// What all tasks of a convolution share.
struct Job<'a> {
    source: &'a [f32],
    packed: &'a Packed,
    taps: &'a [Vec<Tap>],
    result: Shared,
    batch: usize,
    /// Positions of the kernel.
    kernel: usize,
    epilogue: Option<&'a PreparedEpilogue<'a>>,
}

/// The convolution of a block of images at a group of pixels, which this task alone writes.
struct Task<'a, E> {
    job: &'a Job<'a>,
    images: (usize, usize),
    pixels: (usize, usize),
    element: PhantomData<E>,
}

impl<E: Element> WithSimd for Task<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Job {
            source,
            packed,
            taps,
            result,
            batch,
            kernel,
            epilogue,
        } = *self.job;
        let Packed {
            columns,
            depth,
            ref values,
            ..
        } = *packed;
        let (first, last) = self.images;
        let tiles = (last - first).div_ceil(tile_rows(S::F32_LANES));
        let mut terms = [Term::default(); MAX_KERNEL * MAX_KERNEL];
        for block in columns.blocks() {
            let width = block.width_in::<S>();
            let part = &values[block.start * kernel * depth..][..width * kernel * depth];
            for pixel in self.pixels.0..self.pixels.1 {
                let taps = &taps[pixel];
                for (term, tap) in terms.iter_mut().zip(taps) {
                    term.a = tap.pixel * batch * depth;
                    term.b = tap.weight * depth * width;
                }
                for tile in 0..tiles {
                    let from = first + (last - first) * tile / tiles;
                    let to = first + (last - first) * (tile + 1) / tiles;
                    // SAFETY: taps lie inside the source and the kernel (made by `Convolution`,
                    // whose lengths were checked), so each term has `to - from` rows of `depth`
                    // values from image `from` on, and `depth` packed rows; the result's rows
                    // belong to this task's images and pixels, and `block.cols` columns are there.
                    unsafe {
                        sum_of_products::<E, S>(
                            simd,
                            (to - from, block.vectors),
                            &terms[..taps.len()],
                            source.as_ptr().add(from * depth),
                            depth,
                            part.as_ptr(),
                            depth,
                            result.at((pixel * batch + from) * columns.count + block.start),
                            columns.count,
                            block.cols,
                        );
                    }
                }
            }
        }
        if let Some(epilogue) = epilogue {
            for pixel in self.pixels.0..self.pixels.1 {
                let row = pixel * batch;
                // SAFETY: these images' rows at this pixel were written above, by this task.
                unsafe {
                    epilogue.apply_rows(simd, result, columns.count, row + first, row + last);
                }
            }
        }
    }
}

/// The gradient of a convolution's weight, `[out, in, kernel, kernel]`.
pub(crate) fn weight_gradient<E: Element>(conv: &Convolution, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let taps = conv.taps();
    let kernel = conv.kernel * conv.kernel;
    let input = conv.input.channels;
    let columns = Columns::new(conv.channels);
    let blocks: Vec<Block> = columns.blocks().collect();
    let mut gradient = vec![0.0; conv.weight_len()];
    if gradient.is_empty() || conv.input.is_empty() {
        return gradient;
    }
    let x = E::paired(x, conv.input.batch, input);
    let dy = E::paired(dy, conv.input.batch, conv.channels);
    // The shape decides the groups, not the number of threads: each group sums its pixels in order,
    // then the groups are summed in order.
    let groups = 8usize.div_ceil(blocks.len()).min(taps.len());
    let sums: Vec<Vec<f32>> = (0..blocks.len() * groups)
        .into_par_iter()
        .map(|task| {
            let (block, group) = (blocks[task / groups], task % groups);
            let pixels = (
                taps.len() * group / groups,
                taps.len() * (group + 1) / groups,
            );
            let mut sum = vec![0.0; kernel * input * block.width()];
            E::dispatch(WeightTask::<E> {
                conv,
                rows: conv.input.batch / E::PACK,
                x: &x,
                dy: &dy,
                taps: &taps,
                block,
                pixels,
                sum: &mut sum,
                element: PhantomData,
            });
            sum
        })
        .collect();
    gradient
        .par_chunks_mut(input * kernel)
        .enumerate()
        .for_each(|(o, row)| {
            let index = blocks
                .iter()
                .position(|b| (b.start..b.start + b.cols).contains(&o));
            let index = index.expect("each output channel is in a block");
            let (block, column) = (blocks[index], o - blocks[index].start);
            for i in 0..input {
                for tap in 0..kernel {
                    let at = (tap * input + i) * block.width() + column;
                    row[i * kernel + tap] = sums[index * groups..(index + 1) * groups]
                        .iter()
                        .map(|sum| sum[at])
                        .sum();
                }
            }
        });
    gradient
}

/// The weight gradient of a block of output channels over a group of pixels, `[kernel²][in][block
/// columns]`.
struct WeightTask<'a, E> {
    conv: &'a Convolution,
    /// Cells per pixel and channel.
    rows: usize,
    x: &'a [f32],
    dy: &'a [f32],
    taps: &'a [Vec<Tap>],
    block: Block,
    pixels: (usize, usize),
    sum: &'a mut [f32],
    element: PhantomData<E>,
}

impl<E: Element> WithSimd for WeightTask<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            conv,
            rows,
            x,
            dy,
            taps,
            block,
            pixels,
            sum,
            ..
        } = self;
        let (input, output) = (conv.input.channels, conv.channels);
        let width = block.width_in::<S>();
        let tiles = input.div_ceil(tile_rows(S::F32_LANES));
        // Columns that are whole vectors need no copy.
        let whole = block.cols == width;
        // Not a scratch buffer: its closure would be compiled without this function's instruction
        // set.
        let mut packed = vec![0.0; if whole { 0 } else { rows * width }];
        for pixel in pixels.0..pixels.1 {
            let source = &dy[pixel * rows * output..(pixel + 1) * rows * output];
            let (columns, apart) = if whole {
                (source[block.start..].as_ptr(), output)
            } else {
                let from = source.chunks_exact(output);
                for (row, from) in packed.chunks_exact_mut(width).zip(from) {
                    row[..block.cols].copy_from_slice(&from[block.start..block.start + block.cols]);
                }
                (packed.as_ptr(), width)
            };
            for tap in &taps[pixel] {
                let rows_at = tap.pixel * rows * input;
                let sum_at = tap.weight * input * width;
                for tile in 0..tiles {
                    let (from, to) = (input * tile / tiles, input * (tile + 1) / tiles);
                    // SAFETY: the tap lies inside `x`; each of its rows has cells `from..to`;
                    // `columns` has as many rows of whole vectors; the sum's rows `from..to` of
                    // this tap are whole vectors of our own buffer.
                    unsafe {
                        transposed_product::<E, S>(
                            simd,
                            (to - from, block.vectors),
                            x.as_ptr().add(rows_at + from),
                            input,
                            columns,
                            apart,
                            rows,
                            sum.as_mut_ptr().add(sum_at + from * width),
                            width,
                        );
                    }
                }
            }
        }
    }
}
