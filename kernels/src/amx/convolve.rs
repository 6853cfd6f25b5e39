//! The output of a convolution, and the gradient of its input.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::images_at_once;
use super::pack::steps;
use super::plan::{Plan, Run};
use super::strips::Source;
use super::tiles::{BLOCK, CELLS, DEPTH, SIDE, STEP, Sum, TILE, Term, Tiles};
use crate::epilogue::PreparedEpilogue;
use crate::memory::{Shared, with_scratch};
use crate::packed::Packed;
use crate::shape::Convolution;
use crate::simd::dispatch;
use crate::vector::{load, store_some};

/// Rows of the result that a task computes, about: enough to read the weights seldom.
const ROWS: usize = 1024;
/// Tasks that there are at least, if the shape allows.
const TASKS: usize = 16;

/// The output of a convolution, or the gradient of its input, depending on `packed`.
///
/// `images` are computed at a time; without a number, as many as stay in the caches. No sum depends
/// on that, nor on how the work is cut.
pub(super) fn convolve<T: Tiles>(
    conv: &Convolution,
    source: &[f32],
    packed: &Packed,
    epilogue: Option<&PreparedEpilogue>,
    images: Option<usize>,
) -> Vec<f32> {
    let plan = Plan::new(conv, packed.pass);
    let (depth, columns) = conv.depth_and_columns(packed.pass);
    let batch = conv.input.batch;
    let pixels: usize = plan.runs.iter().map(|run| run.pixels).sum();
    let mut result = Box::<[f32]>::new_uninit_slice(pixels * batch * columns);
    if result.is_empty() {
        return Vec::new();
    }
    let width = packed.depth;
    let cells = |images: usize| plan.strips.count * plan.rows(images, SIDE) * width;
    let at_once = images.unwrap_or_else(|| images_at_once(batch, cells(batch)));
    let shared = Shared::uninit(&mut result);
    for first in (0..batch).step_by(at_once) {
        let images = (first, batch.min(first + at_once));
        let count = images.1 - images.0;
        let strip = plan.rows(count, SIDE);
        with_scratch(cells(count), |rounded| {
            let values = Source {
                values: source,
                batch,
                channels: depth,
                strips: plan.strips,
                images,
            };
            values.by_rows(rounded, strip, width);
            let job = Job {
                rounded,
                strip,
                steps: steps(depth),
                packed,
                taps: conv.kernel * conv.kernel,
                columns,
                batch,
                images,
                result: shared,
                epilogue,
            };
            job.run::<T>(&plan);
        });
    }
    // SAFETY: the runs have all pixels, the loop all images, and each task wrote all columns of its
    // part (zeros where no tap reaches a pixel).
    unsafe { result.assume_init() }.into_vec()
}

/// What all tasks share.
#[derive(Clone, Copy)]
struct Job<'a> {
    /// `[strip][row][cells]`, all written.
    rounded: &'a [MaybeUninit<f32>],
    /// Rows of a strip.
    strip: usize,
    /// Steps of a product.
    steps: usize,
    packed: &'a Packed,
    /// Positions of the kernel.
    taps: usize,
    /// Columns of the result.
    columns: usize,
    batch: usize,
    images: (usize, usize),
    result: Shared,
    epilogue: Option<&'a PreparedEpilogue<'a>>,
}

impl Job<'_> {
    /// Cuts the work into runs, and where they are few also into blocks of columns.
    fn run<T: Tiles>(&self, plan: &Plan) {
        let rows = plan.longest * (self.images.1 - self.images.0);
        let parts: Vec<&[Run]> = plan.runs.chunks(ROWS.div_ceil(rows)).collect();
        let blocks = self.columns.div_ceil(BLOCK);
        let groups = TASKS.div_ceil(parts.len()).min(blocks);
        (0..parts.len() * groups).into_par_iter().for_each(|task| {
            let (part, group) = (task / groups, task % groups);
            dispatch(Task {
                job: self,
                runs: parts[part],
                blocks: (blocks * group / groups, blocks * (group + 1) / groups),
                tiles: T::begin(),
            });
        });
    }
}

/// Some runs of the result at some blocks of its columns, which this task alone writes.
struct Task<'a, T> {
    job: &'a Job<'a>,
    runs: &'a [Run],
    blocks: (usize, usize),
    tiles: T,
}

impl<T: Tiles> WithSimd for Task<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Job {
            rounded,
            strip,
            steps,
            packed,
            taps,
            columns,
            images,
            ..
        } = *self.job;
        let (depth, count) = (steps * DEPTH, images.1 - images.0);
        let weights = &packed.values[..columns.div_ceil(BLOCK) * taps * steps * STEP];
        let mut terms = Vec::with_capacity(taps);
        let mut sums = Sums([MaybeUninit::uninit(); CELLS]);
        // The columns outside, so that their weights stay in the nearest cache.
        for block in self.blocks.0..self.blocks.1 {
            let column_tiles = (columns - block * BLOCK).div_ceil(SIDE).min(2);
            for run in self.runs {
                terms.clear();
                terms.extend(run.taps.iter().map(|tap| {
                    let row = tap.strip * strip + tap.column * count;
                    Term {
                        a: rounded[row * depth / 2..].as_ptr().cast(),
                        b: weights[(block * taps + tap.weight) * steps * STEP..]
                            .as_ptr()
                            .cast(),
                    }
                }));
                let rows = run.pixels * count;
                for first in (0..rows).step_by(BLOCK) {
                    let sum = Sum {
                        terms: &terms,
                        offset: first * depth,
                        apart: depth,
                        steps,
                        tiles: ((rows - first).div_ceil(SIDE).min(2), column_tiles),
                        adds: false,
                    };
                    // SAFETY: a strip has rows for the run's, rounded up to tiles, behind each
                    // tap's column (made by `Plan`), all of them written; the weights have `steps`
                    // times two tiles for each block and tap. The rows of the result belong to
                    // this task.
                    unsafe {
                        self.tiles.sum(&sum, sums.0.as_mut_ptr().cast());
                        self.job.put(simd, &sums, run, (first, rows), block * BLOCK);
                    }
                }
            }
        }
    }
}

/// A block of sums, as [`Tiles::sum`] leaves it.
#[repr(align(64))]
struct Sums([MaybeUninit<f32>; CELLS]);

impl Job<'_> {
    /// Takes a block of a run's sums to the result, with the epilogue. `first` is its first row in
    /// the run, which has `rows`; `start` is its first column.
    ///
    /// # Safety
    /// The sums of the rows and columns that the result has are written, and no other thread
    /// touches these values of the result.
    #[inline(always)]
    unsafe fn put<S: Simd>(
        &self,
        simd: S,
        sums: &Sums,
        run: &Run,
        (first, rows): (usize, usize),
        start: usize,
    ) {
        let count = self.images.1 - self.images.0;
        let (mut pixel, mut image) = (first / count, first % count);
        for row in 0..BLOCK.min(rows - first) {
            let place = run.first + run.step * pixel;
            let to = (place * self.batch + self.images.0 + image) * self.columns;
            let from = row / SIDE * 2 * TILE + row % SIDE * SIDE;
            for column in (start..self.columns.min(start + BLOCK)).step_by(S::F32_LANES) {
                let place = column - start;
                let from = from + place / SIDE * TILE + place % SIDE;
                let left = self.columns - column;
                // SAFETY: whole vectors lie inside a row of a tile, and the first `left` values of
                // this one are written (or all); whatever the others are, they are sums of this
                // block. `left` values of the result are there. A block begins at a multiple of
                // every vector's lanes, so the column does, too, and it is less than the
                // epilogue's period.
                unsafe {
                    let mut value = load(simd, sums.0.as_ptr().cast::<f32>().add(from));
                    if let Some(epilogue) = self.epilogue {
                        value = epilogue.apply(simd, value, column, to + column, left);
                    }
                    store_some(simd, self.result.at(to + column), left, value);
                }
            }
            image += 1;
            if image == count {
                (pixel, image) = (pixel + 1, 0);
            }
        }
    }
}
