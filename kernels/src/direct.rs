//! Convolution as sums of products, exact to rounding.

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::element::Element;
use crate::memory::Shared;
use crate::pack::{Block, Columns, Packed, Way};
use crate::shape::{Convolution, Tap};
use crate::simd::rows as tile_rows;
use crate::then::Then;
use crate::tile::{Term, sum_of_products, transposed_product};

/// Images that a task takes at a time: their rows of one pixel stay in the first-level cache.
const IMAGES: usize = 32;
/// Groups of pixels that an image block is cut into, at most.
const GROUPS: usize = 16;

/// The output, or the gradient of the input, as `packed` was made for.
pub(crate) fn convolve<E: Element>(
    conv: &Convolution,
    source: &[f32],
    packed: &Packed,
    then: Option<&Then>,
) -> Vec<f32> {
    let taps = match packed.way {
        Way::Forward => conv.taps(),
        Way::Back => conv.taps_back(),
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
        then,
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
    // SAFETY: the tasks cover all images at all pixels, and each wrote all columns of its own (zeros where no tap
    // reaches a pixel).
    unsafe { result.assume_init() }.into_vec()
}

struct Job<'a> {
    source: &'a [f32],
    packed: &'a Packed,
    taps: &'a [Vec<Tap>],
    result: Shared,
    batch: usize,
    kernel: usize,
    then: Option<&'a Then<'a>>,
}

/// A block of images at a group of pixels: written by this task alone.
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
            then,
        } = *self.job;
        let Packed {
            columns,
            depth,
            ref values,
            ..
        } = *packed;
        let (first, last) = self.images;
        let tiles = (last - first).div_ceil(tile_rows(S::F32_LANES));
        let mut terms = [Term::default(); 9];
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
                    // SAFETY: taps lie inside the source and the kernel (made by `Convolution`, whose lengths were
                    // checked), so each term has `to - from` rows of `depth` values from image `from` on, and
                    // `depth` packed rows; the result's rows belong to this task's images and pixels, and
                    // `block.cols` columns are there.
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
        if let Some(then) = then {
            for pixel in self.pixels.0..self.pixels.1 {
                let row = pixel * batch;
                // SAFETY: these images' rows at this pixel, this task's own.
                unsafe {
                    then.apply_rows(simd, result, columns.count, row + first, row + last);
                }
            }
        }
    }
}

/// The gradient of the weight, `[out, in, kernel, kernel]`.
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
    // Fixed by the shape, not by the threads: each group sums its pixels in order, then the groups are summed in
    // order.
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

/// One block of output channels, summed over a group of pixels into `[kernel²][in][block columns]`.
struct WeightTask<'a, E> {
    conv: &'a Convolution,
    /// Cells of a pixel and channel.
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
        // Columns that are whole vectors are read where they lie.
        let whole = block.cols == width;
        // Not lent by a closure: that would be compiled without this function's instructions.
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
                    // SAFETY: the tap lies inside `x`; each of its rows has cells `from..to`; `columns` has as many
                    // rows of whole vectors; the sum's rows `from..to` of this tap are whole vectors of our own
                    // buffer.
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
