//! Winograd's F(4 × 4, 3 × 3) (Lavin and Gray, CVPR 2016) for stride 1: 36 products where the direct sum takes 144.
//!
//! A tile is 4 × 4 output pixels of one image. Its 6 × 6 input pixels are transformed (`Bᵀ d B`), as are the
//! kernels (`G g Gᵀ`); at each of the 36 places the product is then a matrix product over channels, and what comes
//! out is transformed back (`Aᵀ m A`). The transforms are plain vector code over `batch × channels`.

// Both indices of a transform's half-way matrix are used, one of them in its columns: iterators would hide which.
#![allow(clippy::needless_range_loop)]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::memory::{Shared, uninitialised, with_scratch};
use crate::pack::{Block, Columns};
use crate::shape::{Activation, Convolution};
use crate::simd::{VECTORS, dispatch, rows as tile_rows};
use crate::tile::{Term, load, load_some, store, store_some, sum_of_products, transposed_product};

/// Output pixels of a tile's side.
const SIDE: usize = 4;
/// Input pixels of a tile's side.
const SPAN: usize = 6;
/// Places.
const PLACES: usize = SPAN * SPAN;
/// Between the planes of two places: without it their addresses would collide in the caches.
const GAP: usize = 80;

/// Bᵀ d
#[inline(always)]
fn input_transform<S: Simd>(s: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
    let k = |value| s.splat_f32s(value);
    let e = s.mul_add_e_f32s(k(-4.0), d[2], d[4]);
    let f = s.mul_add_e_f32s(k(-4.0), d[1], d[3]);
    let g = s.sub_f32s(d[4], d[2]);
    let h = s.sub_f32s(d[3], d[1]);
    [
        s.mul_add_e_f32s(k(4.0), d[0], s.mul_add_e_f32s(k(-5.0), d[2], d[4])),
        s.add_f32s(e, f),
        s.sub_f32s(e, f),
        s.mul_add_e_f32s(k(2.0), h, g),
        s.mul_add_e_f32s(k(-2.0), h, g),
        s.mul_add_e_f32s(k(4.0), d[1], s.mul_add_e_f32s(k(-5.0), d[3], d[5])),
    ]
}

/// Aᵀ m
#[inline(always)]
fn output_transform<S: Simd>(s: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
    let k = |value| s.splat_f32s(value);
    let (sum, difference) = (s.add_f32s(m[1], m[2]), s.sub_f32s(m[1], m[2]));
    let (sum2, difference2) = (s.add_f32s(m[3], m[4]), s.sub_f32s(m[3], m[4]));
    [
        s.add_f32s(m[0], s.add_f32s(sum, sum2)),
        s.mul_add_e_f32s(k(2.0), difference2, difference),
        s.mul_add_e_f32s(k(4.0), sum2, sum),
        s.add_f32s(m[5], s.mul_add_e_f32s(k(8.0), difference2, difference)),
    ]
}

/// A y: the way back of [`output_transform`].
#[inline(always)]
fn output_adjoint<S: Simd>(s: S, y: [S::f32s; 4]) -> [S::f32s; 6] {
    let k = |value| s.splat_f32s(value);
    let (e, f) = (s.add_f32s(y[0], y[2]), s.add_f32s(y[1], y[3]));
    let g = s.mul_add_e_f32s(k(4.0), y[2], y[0]);
    let h = s.mul_add_e_f32s(k(4.0), y[3], y[1]);
    [
        y[0],
        s.add_f32s(e, f),
        s.sub_f32s(e, f),
        s.mul_add_e_f32s(k(2.0), h, g),
        s.mul_add_e_f32s(k(-2.0), h, g),
        y[3],
    ]
}

/// G g
#[inline(always)]
fn kernel_transform<S: Simd>(s: S, g: [S::f32s; 3]) -> [S::f32s; 6] {
    let k = |value: f32| s.splat_f32s(value);
    let sixth = s.mul_f32s(k(-1.0 / 6.0), s.add_f32s(g[0], g[2]));
    let rest = s.mul_add_e_f32s(k(1.0 / 24.0), g[0], s.mul_f32s(k(1.0 / 6.0), g[2]));
    [
        s.mul_f32s(k(0.25), g[0]),
        s.mul_add_e_f32s(k(-1.0 / 6.0), g[1], sixth),
        s.mul_add_e_f32s(k(1.0 / 6.0), g[1], sixth),
        s.mul_add_e_f32s(k(1.0 / 12.0), g[1], rest),
        s.mul_add_e_f32s(k(-1.0 / 12.0), g[1], rest),
        g[2],
    ]
}

/// Gᵀ u: the way back of [`kernel_transform`].
#[inline(always)]
fn kernel_adjoint<S: Simd>(s: S, u: [S::f32s; 6]) -> [S::f32s; 3] {
    let k = |value: f32| s.splat_f32s(value);
    let (sum, difference) = (s.add_f32s(u[1], u[2]), s.sub_f32s(u[2], u[1]));
    let (sum2, difference2) = (s.add_f32s(u[3], u[4]), s.sub_f32s(u[3], u[4]));
    let low = s.mul_add_e_f32s(k(-1.0 / 6.0), sum, s.mul_f32s(k(1.0 / 24.0), sum2));
    let high = s.mul_add_e_f32s(k(-1.0 / 6.0), sum, u[5]);
    [
        s.mul_add_e_f32s(k(0.25), u[0], low),
        s.mul_add_e_f32s(
            k(1.0 / 12.0),
            difference2,
            s.mul_f32s(k(1.0 / 6.0), difference),
        ),
        s.mul_add_e_f32s(k(1.0 / 6.0), sum2, high),
    ]
}

/// How a picture is cut into tiles. A row is one tile of one image; all images of a tile follow each other.
#[derive(Clone, Copy)]
struct Tiling {
    height: usize,
    width: usize,
    batch: usize,
}

/// Consecutive images of one tile.
struct Run {
    y: usize,
    x: usize,
    /// The first image.
    image: usize,
    /// The first row, counted from the block's start.
    row: usize,
    images: usize,
}

impl Tiling {
    fn of(shape: &Activation) -> Self {
        Self {
            height: shape.height,
            width: shape.width,
            batch: shape.batch,
        }
    }

    fn across(&self) -> usize {
        self.width.div_ceil(SIDE)
    }

    fn rows(&self) -> usize {
        self.height.div_ceil(SIDE) * self.across() * self.batch
    }

    /// The runs that make up rows `from..to`.
    #[inline(always)]
    fn runs(self, from: usize, to: usize) -> impl Iterator<Item = Run> {
        let mut row = from;
        std::iter::from_fn(move || {
            if row >= to {
                return None;
            }
            let (tile, image) = (row / self.batch, row % self.batch);
            let images = (self.batch - image).min(to - row);
            let (y, x) = (tile / self.across() * SIDE, tile % self.across() * SIDE);
            let run = Run {
                y,
                x,
                image,
                row: row - from,
                images,
            };
            row += images;
            Some(run)
        })
    }

    /// Where the pixel at (`y`, `x`) starts, for `channels` values an image; none outside the picture.
    #[inline(always)]
    fn offset(&self, y: usize, x: usize, channels: usize) -> Option<usize> {
        (y < self.height && x < self.width).then(|| (y * self.width + x) * self.batch * channels)
    }
}

/// Transforms rows `from..to` of a picture into 36 planes.
struct Spread<'a> {
    tiling: Tiling,
    channels: usize,
    source: &'a [f32],
    rows: (usize, usize),
    /// Where the first row goes in the first plane.
    planes: *mut f32,
    /// From plane to plane.
    stride: usize,
    /// Of a gradient, by the way back of the output's transform; else of the input.
    gradient: bool,
}

impl WithSimd for Spread<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            tiling,
            channels,
            source,
            rows,
            planes,
            stride,
            gradient,
        } = self;
        let zero = simd.splat_f32s(0.0);
        for run in tiling.runs(rows.0, rows.1) {
            let (len, base) = (run.images * channels, run.image * channels);
            let span = if gradient { SIDE } else { SPAN };
            let mut offsets = [[None; SPAN]; SPAN];
            for (a, line) in offsets.iter_mut().enumerate().take(span) {
                for (b, offset) in line.iter_mut().enumerate().take(span) {
                    // The input's tile begins one pixel before the output's.
                    let skip = usize::from(!gradient);
                    let at = (run.y + a)
                        .checked_sub(skip)
                        .zip((run.x + b).checked_sub(skip));
                    *offset = at.and_then(|(y, x)| tiling.offset(y, x, channels));
                }
            }
            for e in (0..len).step_by(S::F32_LANES) {
                let count = len - e;
                // SAFETY: a pixel's values for this run's images, from `base` on, are `len`, so `count` are left
                // from `e` on; each plane has room for this block's rows, and nobody else writes them.
                unsafe {
                    let read = |offset: Option<usize>| match offset {
                        Some(at) => load_some(simd, source.as_ptr().add(at + base + e), count),
                        None => zero,
                    };
                    let mut half = [[zero; SPAN]; SPAN];
                    for b in 0..span {
                        let column = std::array::from_fn(|a| read(offsets[a][b]));
                        let column = if gradient {
                            output_adjoint(simd, [column[0], column[1], column[2], column[3]])
                        } else {
                            input_transform(simd, column)
                        };
                        for a in 0..SPAN {
                            half[a][b] = column[a];
                        }
                    }
                    for (a, line) in half.into_iter().enumerate() {
                        let line = if gradient {
                            output_adjoint(simd, [line[0], line[1], line[2], line[3]])
                        } else {
                            input_transform(simd, line)
                        };
                        for (b, value) in line.into_iter().enumerate() {
                            let at = (a * SPAN + b) * stride + run.row * channels + e;
                            store_some(simd, planes.add(at), count, value);
                        }
                    }
                }
            }
        }
    }
}

/// Transforms 36 planes back into rows `from..to` of a picture.
struct Gather {
    tiling: Tiling,
    channels: usize,
    planes: *const f32,
    stride: usize,
    rows: (usize, usize),
    result: Shared,
}

impl WithSimd for Gather {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            tiling,
            channels,
            planes,
            stride,
            rows,
            result,
        } = self;
        let zero = simd.splat_f32s(0.0);
        for run in tiling.runs(rows.0, rows.1) {
            let len = run.images * channels;
            for e in (0..len).step_by(S::F32_LANES) {
                let count = len - e;
                // SAFETY: as in `Spread`; the pixels of this run's images belong to this task alone.
                unsafe {
                    let read = |a: usize, b: usize| {
                        let at = (a * SPAN + b) * stride + run.row * channels + e;
                        load_some(simd, planes.add(at), count)
                    };
                    let mut half = [[zero; SPAN]; SIDE];
                    for b in 0..SPAN {
                        let column = output_transform(simd, std::array::from_fn(|a| read(a, b)));
                        for a in 0..SIDE {
                            half[a][b] = column[a];
                        }
                    }
                    for (a, line) in half.into_iter().enumerate() {
                        for (b, value) in output_transform(simd, line).into_iter().enumerate() {
                            if let Some(at) = tiling.offset(run.y + a, run.x + b, channels) {
                                store_some(
                                    simd,
                                    result.at(at + run.image * channels + e),
                                    count,
                                    value,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Transformed kernels, `[place][block][depth][block columns]`.
struct Kernels {
    values: Vec<f32>,
    columns: Columns,
    depth: usize,
    stride: usize,
}

/// Transforms one block of columns of the kernels.
struct TransformKernels<'a> {
    w: &'a [f32],
    input: usize,
    block: Block,
    depth: std::ops::Range<usize>,
    back: bool,
    /// The block's first row in the first place's plane.
    values: *mut f32,
    stride: usize,
}

impl WithSimd for TransformKernels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            w,
            input,
            block,
            depth,
            back,
            values,
            stride,
        } = self;
        let width = block.vectors * S::F32_LANES;
        let zero = simd.splat_f32s(0.0);
        for k in depth {
            let mut kernel = [[0.0f32; VECTORS * 16]; 9];
            for column in 0..block.cols {
                let (o, i) = if back {
                    (k, block.start + column)
                } else {
                    (block.start + column, k)
                };
                let row = &w[(o * input + i) * 9..][..9];
                for (tap, value) in row.iter().enumerate() {
                    // The way back is a convolution with the kernel turned around.
                    kernel[if back { 8 - tap } else { tap }][column] = *value;
                }
            }
            for v in (0..width).step_by(S::F32_LANES) {
                // SAFETY: `kernel`'s rows have two of the widest vectors; row `k` of the block has `width` values in
                // each place's plane, which this task alone writes.
                unsafe {
                    let read = |tap: usize| load(simd, kernel[tap].as_ptr().add(v));
                    let mut half = [[zero; 3]; SPAN];
                    for q in 0..3 {
                        let column = kernel_transform(simd, [read(q), read(3 + q), read(6 + q)]);
                        for a in 0..SPAN {
                            half[a][q] = column[a];
                        }
                    }
                    for (a, line) in half.into_iter().enumerate() {
                        for (b, value) in kernel_transform(simd, line).into_iter().enumerate() {
                            store(
                                simd,
                                values.add((a * SPAN + b) * stride + k * width + v),
                                value,
                            );
                        }
                    }
                }
            }
        }
    }
}

impl Kernels {
    fn new(conv: &Convolution, w: &[f32], back: bool) -> Self {
        let (depth, count) = match back {
            true => (conv.channels, conv.input.channels),
            false => (conv.input.channels, conv.channels),
        };
        let columns = Columns::new(count);
        let stride = depth * columns.padded() + GAP;
        let mut values = uninitialised(PLACES * stride);
        let target = Shared::new(&mut values);
        let input = conv.input.channels;
        const STEP: usize = 16;
        let blocks: Vec<Block> = columns.blocks().collect();
        let steps = depth.div_ceil(STEP);
        (0..blocks.len() * steps).into_par_iter().for_each(|task| {
            let (block, step) = (blocks[task / steps], task % steps);
            dispatch(TransformKernels {
                w,
                input,
                block,
                depth: step * STEP..depth.min((step + 1) * STEP),
                back,
                // SAFETY: the block's part of the first plane begins there.
                values: unsafe { target.at(block.start * depth) },
                stride,
            });
        });
        Self {
            values,
            columns,
            depth,
            stride,
        }
    }
}

/// At one place: `rows` rows of the transformed input times the kernels.
struct Product<'a> {
    kernels: &'a Kernels,
    place: usize,
    a: *const f32,
    rows: usize,
    c: *mut f32,
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            kernels,
            place,
            a,
            rows,
            c,
        } = self;
        let Kernels {
            values,
            columns,
            depth,
            stride,
        } = kernels;
        let tiles = rows.div_ceil(tile_rows(S::F32_LANES));
        for block in columns.blocks() {
            let packed = &values[place * stride + block.start * depth..];
            for tile in 0..tiles {
                let (from, to) = (rows * tile / tiles, rows * (tile + 1) / tiles);
                // SAFETY: `a` has `rows` rows of `depth` values and `c` as many of all columns, the caller's; the
                // block has `depth` packed rows.
                unsafe {
                    sum_of_products(
                        simd,
                        (to - from, block.vectors),
                        &[Term::default()],
                        a.add(from * depth),
                        *depth,
                        packed.as_ptr(),
                        *depth,
                        c.add(from * columns.count + block.start),
                        columns.count,
                        block.cols,
                    );
                }
            }
        }
    }
}

/// Forward, or with `back` the gradient of the input.
pub(crate) fn convolve(conv: &Convolution, source: &[f32], w: &[f32], back: bool) -> Vec<f32> {
    let kernels = Kernels::new(conv, w, back);
    let (depth, count) = (kernels.depth, kernels.columns.count);
    let tiling = Tiling::of(&conv.input);
    let rows = tiling.rows();
    let mut result = uninitialised(conv.input.height * conv.input.width * conv.input.batch * count);
    let target = Shared::new(&mut result);
    let threads = rayon::current_num_threads();
    // Each output row is computed alike whatever block it is in, so the cut may depend on the threads.
    if rows <= 16 * conv.input.batch && depth * count >= 256 * 256 {
        convolve_by_place(&kernels, tiling, source, target, threads);
        return result;
    }
    // A block's planes stay in the second-level cache.
    let bytes = if depth + count <= 128 {
        600_000
    } else {
        2_400_000
    };
    let block = (bytes / (PLACES * (depth + count) * 4))
        .max(8)
        .min(rows.div_ceil(threads))
        .max(1);
    let blocks = rows.div_ceil(block);
    (0..blocks).into_par_iter().for_each(|index| {
        let (from, to) = (rows * index / blocks, rows * (index + 1) / blocks);
        let (v_stride, m_stride) = ((to - from) * depth + GAP, (to - from) * count + GAP);
        with_scratch(PLACES * (v_stride + m_stride), |scratch| {
            let (v, m) = scratch.split_at_mut(PLACES * v_stride);
            let rows = (from, to);
            let planes = v.as_mut_ptr();
            dispatch(Spread {
                tiling,
                channels: depth,
                source,
                rows,
                planes,
                stride: v_stride,
                gradient: false,
            });
            for place in 0..PLACES {
                let a = v[place * v_stride..].as_ptr();
                let c = m[place * m_stride..].as_mut_ptr();
                dispatch(Product {
                    kernels: &kernels,
                    place,
                    a,
                    rows: to - from,
                    c,
                });
            }
            dispatch(Gather {
                tiling,
                channels: count,
                planes: m.as_ptr(),
                stride: m_stride,
                rows,
                result: target,
            });
        });
    });
    result
}

/// For few rows and many channels: the planes are shared, and the threads take places instead of rows.
fn convolve_by_place(
    kernels: &Kernels,
    tiling: Tiling,
    source: &[f32],
    result: Shared,
    threads: usize,
) {
    let (depth, count, rows) = (kernels.depth, kernels.columns.count, tiling.rows());
    let (v_stride, m_stride) = (rows * depth + GAP, rows * count + GAP);
    with_scratch(PLACES * (v_stride + m_stride), |scratch| {
        let (v, m) = scratch.split_at_mut(PLACES * v_stride);
        let (v, m) = (Shared::new(v), Shared::new(m));
        let parts = (threads * 2).min(rows.div_ceil(8)).max(1);
        let part = |index: usize| (rows * index / parts, rows * (index + 1) / parts);
        (0..parts).into_par_iter().for_each(|index| {
            let rows = part(index);
            // SAFETY: this part's rows of each plane, which it alone writes.
            let planes = unsafe { v.at(rows.0 * depth) };
            dispatch(Spread {
                tiling,
                channels: depth,
                source,
                rows,
                planes,
                stride: v_stride,
                gradient: false,
            });
        });
        (0..PLACES).into_par_iter().for_each(|place| {
            // SAFETY: this place's planes; nobody else writes its part of `m`.
            let (a, c) = unsafe { (v.at(place * v_stride), m.at(place * m_stride)) };
            dispatch(Product {
                kernels,
                place,
                a,
                rows,
                c,
            });
        });
        (0..parts).into_par_iter().for_each(|index| {
            let rows = part(index);
            // SAFETY: this part's rows of each plane.
            let planes = unsafe { m.at(rows.0 * count) };
            dispatch(Gather {
                tiling,
                channels: count,
                planes,
                stride: m_stride,
                rows,
                result,
            });
        });
    });
}

/// At one place: adds `Σ over rows of vᵀ · m` to the gradient of the transformed kernels, `[depth][padded columns]`.
struct Outer<'a> {
    columns: Columns,
    depth: usize,
    rows: usize,
    v: *const f32,
    m: *const f32,
    sum: *mut f32,
    /// For [`OUTER_ROWS`] rows of two vectors.
    packed: &'a mut [f32],
}

/// Rows that are summed at a time: their packed columns stay in the first-level cache.
const OUTER_ROWS: usize = 256;

impl WithSimd for Outer<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            columns,
            depth,
            rows,
            v,
            m,
            sum,
            packed,
        } = self;
        let tiles = depth.div_ceil(tile_rows(S::F32_LANES));
        for start in (0..rows).step_by(OUTER_ROWS) {
            let step = OUTER_ROWS.min(rows - start);
            for block in columns.blocks() {
                let width = block.vectors * S::F32_LANES;
                // SAFETY: `m` has `rows` rows of all columns and `v` as many of `depth` values; `sum` has `depth`
                // rows of padded columns, this task's own.
                unsafe {
                    for row in 0..step {
                        let from = m.add((start + row) * columns.count + block.start);
                        for lane in (0..width).step_by(S::F32_LANES) {
                            let left = block.cols.saturating_sub(lane);
                            let value = load_some(simd, from.add(lane), left);
                            store(simd, packed.as_mut_ptr().add(row * width + lane), value);
                        }
                    }
                    for tile in 0..tiles {
                        let (from, to) = (depth * tile / tiles, depth * (tile + 1) / tiles);
                        transposed_product(
                            simd,
                            (to - from, block.vectors),
                            v.add(start * depth + from),
                            depth,
                            packed.as_ptr(),
                            step,
                            sum.add(from * columns.padded() + block.start),
                            columns.padded(),
                        );
                    }
                }
            }
        }
    }
}

/// The gradient of the weight.
pub(crate) fn weight_gradient(conv: &Convolution, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let (depth, columns) = (conv.input.channels, Columns::new(conv.channels));
    let count = columns.count;
    let tiling = Tiling::of(&conv.input);
    let rows = tiling.rows();
    // Fixed by the shape: the sums are made block after block, whatever the threads.
    let block = if depth * count >= 256 * 256 { 512 } else { 160 };
    let block = block.min(rows).max(1);
    let blocks = rows.div_ceil(block);
    let stride = depth * columns.padded() + GAP;
    let mut sums = vec![0.0; PLACES * stride];
    let sum = Shared::new(&mut sums);
    let (v_stride, m_stride) = (block * depth + GAP, block * count + GAP);
    with_scratch(PLACES * (v_stride + m_stride), |scratch| {
        let (v, m) = scratch.split_at_mut(PLACES * v_stride);
        let (v, m) = (Shared::new(v), Shared::new(m));
        for index in 0..blocks {
            let (from, to) = (rows * index / blocks, rows * (index + 1) / blocks);
            let parts = rayon::current_num_threads()
                .min((to - from).div_ceil(8))
                .max(1);
            (0..parts).into_par_iter().for_each(|part| {
                let cut = |part: usize| (to - from) * part / parts;
                let rows = (from + cut(part), from + cut(part + 1));
                // SAFETY: this part's rows of each plane, which it alone writes.
                let (v, m) = unsafe { (v.at(cut(part) * depth), m.at(cut(part) * count)) };
                dispatch(Spread {
                    tiling,
                    channels: depth,
                    source: x,
                    rows,
                    planes: v,
                    stride: v_stride,
                    gradient: false,
                });
                dispatch(Spread {
                    tiling,
                    channels: count,
                    source: dy,
                    rows,
                    planes: m,
                    stride: m_stride,
                    gradient: true,
                });
            });
            (0..PLACES).into_par_iter().for_each(|place| {
                // SAFETY: this place's planes; nobody else writes its part of the sums.
                let (v, m, sum) = unsafe {
                    (
                        v.at(place * v_stride),
                        m.at(place * m_stride),
                        sum.at(place * stride),
                    )
                };
                with_scratch(OUTER_ROWS * VECTORS * columns.lanes, |packed| {
                    dispatch(Outer {
                        columns,
                        depth,
                        rows: to - from,
                        v,
                        m,
                        sum,
                        packed,
                    });
                });
            });
        }
    });
    let mut gradient = uninitialised(conv.weight_len());
    let target = Shared::new(&mut gradient);
    let blocks: Vec<Block> = columns.blocks().collect();
    const STEP: usize = 16;
    let steps = depth.div_ceil(STEP);
    (0..blocks.len() * steps).into_par_iter().for_each(|task| {
        let (block, step) = (blocks[task / steps], task % steps);
        let depth_range = (step * STEP, depth.min((step + 1) * STEP));
        dispatch(KernelGradient {
            sums: &sums,
            columns,
            block,
            depth,
            depth_range,
            stride,
            result: target,
        });
    });
    gradient
}

/// Transforms a block of the sums back into `[out, in, 3, 3]`.
struct KernelGradient<'a> {
    sums: &'a [f32],
    columns: Columns,
    block: Block,
    depth: usize,
    depth_range: (usize, usize),
    stride: usize,
    result: Shared,
}

impl WithSimd for KernelGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            sums,
            columns,
            block,
            depth,
            depth_range,
            stride,
            result,
        } = self;
        let zero = simd.splat_f32s(0.0);
        let mut kernel = [[0.0f32; 16]; 9];
        for lane in (0..block.cols).step_by(S::F32_LANES) {
            for k in depth_range.0..depth_range.1 {
                // SAFETY: each place's plane has `depth` rows of padded columns; `kernel`'s rows have the widest
                // vector's values; the result's kernels of these channels are this task's own.
                unsafe {
                    let at = k * columns.padded() + block.start + lane;
                    let read = |a: usize, b: usize| {
                        load(simd, sums.as_ptr().add((a * SPAN + b) * stride + at))
                    };
                    let mut half = [[zero; SPAN]; 3];
                    for b in 0..SPAN {
                        let column = kernel_adjoint(simd, std::array::from_fn(|a| read(a, b)));
                        for q in 0..3 {
                            half[q][b] = column[q];
                        }
                    }
                    for (q, line) in half.into_iter().enumerate() {
                        for (p, value) in kernel_adjoint(simd, line).into_iter().enumerate() {
                            store(simd, kernel[q * 3 + p].as_mut_ptr(), value);
                        }
                    }
                    for column in 0..S::F32_LANES.min(block.cols - lane) {
                        let o = block.start + lane + column;
                        for (tap, values) in kernel.iter().enumerate() {
                            *result.at((o * depth + k) * 9 + tap) = values[column];
                        }
                    }
                }
            }
        }
    }
}
