//! The gradient of a convolution's weight.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::images_at_once;
use super::plan::{Plan, Run, Strips};
use super::strips::Source;
use super::tiles::{BLOCK, CELLS, DEPTH, SIDE, STEP, Sum, TILE, Term, Tiles};
use crate::memory::with_scratch;
use crate::shape::{Convolution, Pass};

/// Tasks that there are at least, if the shape allows.
const TASKS: usize = 16;
/// Rows that a block of sums takes in before the next one: long enough to be worth loading the
/// sums, short enough that what all positions of the kernel read again stays near.
const ROWS: usize = 512;

/// How the strips lie in memory, for some images.
#[derive(Clone, Copy)]
struct Layout {
    /// Values of a channel of the input in a strip.
    strip: usize,
    /// Steps of a product over a run.
    steps: usize,
    /// Cells of the input, and of the gradient of the output.
    cells: (usize, usize),
}

impl Layout {
    fn new(conv: &Convolution, plan: &Plan, images: usize) -> Self {
        // An odd number of cache lines: the channels of a tile are one strip apart, and must not
        // all fall on the same few lines of the cache.
        let strip = (plan.rows(images, DEPTH).div_ceil(DEPTH) | 1) * DEPTH;
        let steps = (plan.longest * images).div_ceil(DEPTH);
        let channels = conv.input.channels.next_multiple_of(SIDE);
        let blocks = conv.channels.div_ceil(BLOCK);
        Self {
            strip,
            steps,
            cells: (
                plan.strips.count * channels * strip / 2,
                plan.runs.len() * blocks * steps * STEP,
            ),
        }
    }
}

/// The gradient of the weight, `[out, in, kernel, kernel]`. Its bits do not depend on the number of
/// threads: the shape alone decides how the sums are split.
///
/// `images` are taken at a time; without a number, as many as stay in the caches.
pub(super) fn weight_gradient<T: Tiles>(
    conv: &Convolution,
    x: &[f32],
    dy: &[f32],
    images: Option<usize>,
) -> Vec<f32> {
    let mut gradient = vec![0.0; conv.weight_len()];
    if gradient.is_empty() || conv.input.is_empty() {
        return gradient;
    }
    let plan = Plan::new(conv, Pass::Forward);
    let batch = conv.input.batch;
    let at_once = images.unwrap_or_else(|| {
        let (x, dy) = Layout::new(conv, &plan, batch).cells;
        images_at_once(batch, x + dy)
    });
    let mut parts = Parts::new(conv, &plan);
    for first in (0..batch).step_by(at_once) {
        let images = (first, batch.min(first + at_once));
        let layout = Layout::new(conv, &plan, images.1 - images.0);
        with_scratch(layout.cells.0 + layout.cells.1, |scratch| {
            let (rows, columns) = scratch.split_at_mut(layout.cells.0);
            let source = Source {
                values: x,
                batch,
                channels: conv.input.channels,
                strips: plan.strips,
                images,
            };
            source.by_channels(rows, layout.strip);
            let output = conv.output();
            let gradient = Source {
                values: dy,
                channels: conv.channels,
                strips: Strips::whole(output.height, output.width),
                ..source
            };
            gradient.by_tiles(columns, layout.steps);
            parts.add::<T>(Factors {
                runs: &plan.runs,
                layout,
                images: images.1 - images.0,
                rows,
                columns,
            });
        });
    }
    parts.write(&mut gradient);
    gradient
}

/// The factors of the products of some images.
#[derive(Clone, Copy)]
struct Factors<'a> {
    runs: &'a [Run],
    layout: Layout,
    images: usize,
    /// The input, [`Source::by_channels`].
    rows: &'a [MaybeUninit<f32>],
    /// The gradient of the output, [`Source::by_tiles`].
    columns: &'a [MaybeUninit<f32>],
}

/// The gradient as sums over groups of runs: `[group][block of in][block of out][kernel²]`, a block
/// of sums each.
struct Parts {
    sums: Vec<f32>,
    groups: usize,
    /// Channels.
    input: usize,
    output: usize,
    /// Height and width of the kernel.
    kernel: usize,
}

impl Parts {
    fn new(conv: &Convolution, plan: &Plan) -> Self {
        let (input, output) = (conv.input.channels, conv.channels);
        let pairs = input.div_ceil(BLOCK) * output.div_ceil(BLOCK);
        let groups = TASKS.div_ceil(pairs).min(plan.runs.len());
        let blocks = groups * pairs * conv.kernel * conv.kernel;
        Self {
            sums: vec![0.0; blocks * CELLS],
            groups,
            input,
            output,
            kernel: conv.kernel,
        }
    }

    /// Blocks of input and of output channels.
    fn blocks(&self) -> (usize, usize) {
        (self.input.div_ceil(BLOCK), self.output.div_ceil(BLOCK))
    }

    /// Adds the products of some images. A task takes a group of runs at a pair of blocks.
    fn add<T: Tiles>(&mut self, factors: Factors) {
        let (inputs, outputs) = self.blocks();
        let (input, output, groups) = (self.input, self.output, self.groups);
        let taps = self.kernel * self.kernel;
        let count = factors.runs.len();
        let tiles =
            |channels: usize, block: usize| (channels - block * BLOCK).div_ceil(SIDE).min(2);
        self.sums
            .par_chunks_mut(taps * CELLS)
            .enumerate()
            .for_each(|(task, sums)| {
                let (group, pair) = (task / (inputs * outputs), task % (inputs * outputs));
                let blocks = (pair / outputs, pair % outputs);
                factors.add::<T>(
                    (count * group / groups, count * (group + 1) / groups),
                    blocks,
                    (tiles(input, blocks.0), tiles(output, blocks.1)),
                    (input, output),
                    sums,
                );
            });
    }

    /// Sums the groups in order, into `[out, in, kernel²]`.
    fn write(&self, gradient: &mut [f32]) {
        let (inputs, outputs) = self.blocks();
        let (input, taps) = (self.input, self.kernel * self.kernel);
        let part = taps * CELLS;
        gradient
            .par_chunks_mut(BLOCK * input * taps)
            .enumerate()
            .for_each(|(block, rows)| {
                for (o, row) in rows.chunks_exact_mut(input * taps).enumerate() {
                    for (i, values) in row.chunks_exact_mut(taps).enumerate() {
                        let pair = i / BLOCK * outputs + block;
                        let (i, tile) = (i % BLOCK, o / SIDE);
                        let at = (i / SIDE * 2 + tile) * TILE + i % SIDE * SIDE + o % SIDE;
                        for (tap, value) in values.iter_mut().enumerate() {
                            let place = pair * part + tap * CELLS + at;
                            let sums = self.sums[place..].iter().step_by(inputs * outputs * part);
                            *value = sums.sum();
                        }
                    }
                }
            });
    }
}

impl Factors<'_> {
    /// Adds the products of the runs `first..last` to the sums of a pair of blocks, `[kernel²]`
    /// blocks of sums.
    fn add<T: Tiles>(
        self,
        (first, last): (usize, usize),
        blocks: (usize, usize),
        tiles: (usize, usize),
        (input, output): (usize, usize),
        sums: &mut [f32],
    ) {
        let Layout { strip, steps, .. } = self.layout;
        let (channels, outputs) = (input.next_multiple_of(SIDE), output.div_ceil(BLOCK));
        let span = ROWS.div_ceil(steps * DEPTH);
        let mut hold = T::begin();
        let mut terms = Vec::with_capacity(span);
        for from in (first..last).step_by(span) {
            for (weight, sums) in sums.chunks_exact_mut(CELLS).enumerate() {
                terms.clear();
                // The same for all runs: it depends on the column of the kernel.
                let mut column = 0;
                for index in from..last.min(from + span) {
                    let run = &self.runs[index];
                    let Some(tap) = run.taps.iter().find(|tap| tap.weight == weight) else {
                        continue; // beyond the border
                    };
                    column = tap.column;
                    let row = (tap.strip * channels + blocks.0 * BLOCK) * strip / 2;
                    let tile = (index * outputs + blocks.1) * steps * STEP;
                    terms.push(Term {
                        a: self.rows[row..].as_ptr().cast(),
                        b: self.columns[tile..].as_ptr().cast(),
                    });
                }
                let sum = Sum {
                    terms: &terms,
                    offset: column * self.images,
                    apart: strip,
                    steps,
                    tiles,
                    adds: true,
                };
                // SAFETY: `tiles.0` tiles of channels are left in the strip from this block on, and
                // each channel has `steps` times 32 values from the tap's column on (the layout is
                // made so); the gradient has as many steps in each block, with `tiles.1` tiles. All
                // of these are written. The sums are ours, a block for each weight. Rows behind a
                // run's last belong to the next column, and meet zeros in the gradient.
                unsafe { hold.sum(&sum, sums.as_mut_ptr()) }
            }
        }
    }
}
