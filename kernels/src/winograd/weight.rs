//! The gradient of the weight.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::planes::{Kind, Spread};
use super::*;
use crate::element::Element;
use crate::memory::{Shared, with_scratch};
use crate::pack::{Block, Columns};
use crate::shape::Convolution;
use crate::simd::{VECTORS, rows as tile_rows};
use crate::tile::{load, load_some, store, transposed_product};

/// Rows that are summed at a time: their packed columns stay in the first-level cache.
const OUTER_ROWS: usize = 256;
/// Input channels that a task takes at a time.
const STEP: usize = 32;

/// At one place: adds `Σ over rows of vᵀ · m` to a part of the gradient of the transformed kernels.
struct Outer<'a, E> {
    rows: usize,
    depth: usize,
    count: usize,
    /// Which of `v`'s columns.
    k: (usize, usize),
    /// Which of `m`'s columns.
    block: Block,
    v: *const f32,
    m: *const f32,
    /// `[k][block columns]`, `apart` from row to row.
    sum: *mut f32,
    apart: usize,
    /// For [`OUTER_ROWS`] rows of two vectors.
    packed: &'a mut [MaybeUninit<f32>],
    element: PhantomData<E>,
}

impl<E: Element> WithSimd for Outer<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            rows,
            depth,
            count,
            k,
            block,
            v,
            m,
            sum,
            apart,
            packed,
            ..
        } = self;
        let width = block.width_in::<S>();
        let len = k.1 - k.0;
        let tiles = len.div_ceil(tile_rows(S::F32_LANES));
        let packed = packed.as_mut_ptr().cast::<f32>();
        for start in (0..rows).step_by(OUTER_ROWS) {
            let step = OUTER_ROWS.min(rows - start);
            // SAFETY: `m` has `rows` rows of `count` cells and `v` as many of `depth`; `sum` has a row of whole vectors
            // for each `k`, initialised and this task's own; `packed` has room for `step` rows of `width`, which are
            // written before they are read.
            unsafe {
                // Columns that are whole vectors are read where they lie.
                let mut columns = m.add(start * count + block.start);
                let mut columns_apart = count;
                if block.cols < width {
                    for row in 0..step {
                        for lane in (0..width).step_by(S::F32_LANES) {
                            let left = block.cols.saturating_sub(lane);
                            let from = columns.add(row * count + lane.min(block.cols));
                            let to = packed.add(row * width + lane);
                            store(simd, to, load_some(simd, from, left));
                        }
                    }
                    (columns, columns_apart) = (packed.cast_const(), width);
                }
                for tile in 0..tiles {
                    let (from, to) = (len * tile / tiles, len * (tile + 1) / tiles);
                    transposed_product::<E, S>(
                        simd,
                        (to - from, block.vectors),
                        v.add(start * depth + k.0 + from),
                        depth,
                        columns,
                        columns_apart,
                        step,
                        sum.add(from * apart),
                        apart,
                    );
                }
            }
        }
    }
}

/// Transforms a part of the sums back into `[out, in, 3, 3]`.
struct KernelGradient {
    /// Where the part's first row and column are in the first place's sums.
    sums: *const f32,
    /// From place to place.
    stride: usize,
    /// From row to row.
    apart: usize,
    block: Block,
    k: (usize, usize),
    depth: usize,
    result: Shared,
}

impl WithSimd for KernelGradient {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            sums,
            stride,
            apart,
            block,
            k,
            depth,
            result,
        } = self;
        let mut kernel = [[0.0f32; 16]; 9];
        for lane in (0..block.width_in::<S>()).step_by(S::F32_LANES) {
            for row in k.0..k.1 {
                // SAFETY: each place's sums have a row of whole vectors for each `k`; `kernel`'s rows have the widest
                // vector's values; the result's kernels of these channels are this task's own.
                unsafe {
                    let from = sums.add((row - k.0) * apart + lane);
                    both_sides!(simd, kernel_adjoint: SPAN => 3,
                        |a, b| load(simd, from.add((a * SPAN + b) * stride)),
                        |a, b, value| store(simd, kernel[a * 3 + b].as_mut_ptr(), value));
                    for column in 0..S::F32_LANES.min(block.cols - lane) {
                        let o = block.start + lane + column;
                        for (tap, values) in kernel.iter().enumerate() {
                            *result.at((o * depth + row) * 9 + tap) = values[column];
                        }
                    }
                }
            }
        }
    }
}

/// What the three ways to sum have in common. Rows are of one image each, or of `E::PACK`.
struct Sum<'a, E> {
    tiling: Tiling,
    columns: Columns,
    depth: usize,
    x: &'a [f32],
    dy: &'a [f32],
    zeros: Vec<f32>,
    element: PhantomData<E>,
}

impl<E: Element> Sum<'_, E> {
    /// Transforms rows of both pictures, to where their first row is in the planes.
    fn spread(
        &self,
        rows: (usize, usize),
        (v, v_stride): (*mut f32, usize),
        (m, m_stride): (*mut f32, usize),
    ) {
        let sides = [
            (self.x, self.depth, v, v_stride, Kind::Input),
            (self.dy, self.columns.count, m, m_stride, Kind::Gradient),
        ];
        for (source, channels, planes, stride, kind) in sides {
            E::dispatch(Spread::<E> {
                tiling: self.tiling,
                channels,
                source,
                zeros: &self.zeros,
                rows,
                planes,
                stride,
                kind,
                element: PhantomData,
            });
        }
    }

    /// [`Sum::spread`] by all threads, into planes that begin with the first of these rows.
    fn spread_in_pieces(
        &self,
        (from, to): (usize, usize),
        (v, v_stride): (Shared, usize),
        (m, m_stride): (Shared, usize),
    ) {
        let pieces = (to - from).div_ceil(8);
        (0..pieces).into_par_iter().for_each(|piece| {
            let cut = |piece: usize| (to - from) * piece / pieces;
            let rows = (from + cut(piece), from + cut(piece + 1));
            // SAFETY: this piece's rows of each plane, which it alone writes.
            let (v, m) = unsafe {
                (
                    v.at(cut(piece) * self.depth),
                    m.at(cut(piece) * self.columns.count),
                )
            };
            self.spread(rows, (v, v_stride), (m, m_stride));
        });
    }

    /// Adds one place's sum over `rows` rows, for all columns or some.
    #[allow(clippy::too_many_arguments)]
    fn outer(
        &self,
        rows: usize,
        k: (usize, usize),
        block: Block,
        v: *const f32,
        m: *const f32,
        sum: *mut f32,
        apart: usize,
    ) {
        with_scratch(OUTER_ROWS * VECTORS * self.columns.lanes, |packed| {
            E::dispatch(Outer::<E> {
                rows,
                depth: self.depth,
                count: self.columns.count,
                k,
                block,
                v,
                m,
                sum,
                apart,
                packed,
                element: PhantomData,
            });
        });
    }

    /// Blocks of columns and steps of the depth: what tasks share.
    fn parts(&self) -> Vec<(Block, (usize, usize))> {
        let depth = self.depth;
        let steps = |block| {
            (0..depth)
                .step_by(STEP)
                .map(move |k| (block, (k, depth.min(k + STEP))))
        };
        self.columns.blocks().flat_map(steps).collect()
    }

    /// Few rows and many channels: the sums are larger than the planes, so they are made part by part, transformed at
    /// once and never stored.
    fn by_parts(&self, result: Shared) {
        let (rows, depth, count) = (self.tiling.rows(), self.depth, self.columns.count);
        let (v_stride, m_stride) = (rows * depth + GAP, rows * count + GAP);
        with_scratch(PLACES * (v_stride + m_stride), |scratch| {
            let (v, m) = scratch.split_at_mut(PLACES * v_stride);
            let (v, m) = (Shared::uninit(v), Shared::uninit(m));
            self.spread_in_pieces((0, rows), (v, v_stride), (m, m_stride));
            self.parts().into_par_iter().for_each(|(block, k)| {
                let width = block.vectors * self.columns.lanes;
                let stride = (k.1 - k.0) * width + GAP;
                with_scratch(PLACES * stride, |sums| {
                    sums.fill(MaybeUninit::new(0.0));
                    let sums = Shared::uninit(sums);
                    for place in 0..PLACES {
                        // SAFETY: the place's planes, which nobody writes any more, and its sums.
                        let (v, m, sum) = unsafe {
                            (
                                v.at(place * v_stride),
                                m.at(place * m_stride),
                                sums.at(place * stride),
                            )
                        };
                        self.outer(rows, k, block, v, m, sum, width);
                    }
                    crate::simd::dispatch(KernelGradient {
                        // SAFETY: the first place's sums.
                        sums: unsafe { sums.at(0) },
                        stride,
                        apart: width,
                        block,
                        k,
                        depth,
                        result,
                    });
                });
            });
        });
    }

    /// Many rows and few channels: groups of rows are summed on their own, then the groups.
    fn by_groups(&self, groups: usize, result: Shared) {
        let (rows, depth, count) = (self.tiling.rows(), self.depth, self.columns.count);
        let stride = depth * self.columns.padded() + GAP;
        let block = (CACHED / (PLACES * (depth + count) * size_of::<f32>())).max(8);
        let sums: Vec<Vec<f32>> = (0..groups)
            .into_par_iter()
            .map(|group| {
                let (first, last) = (rows * group / groups, rows * (group + 1) / groups);
                let mut sums = vec![0.0; PLACES * stride];
                let blocks = (last - first).div_ceil(block);
                let cut = |index: usize| first + (last - first) * index / blocks;
                let (v_stride, m_stride) = (block * depth + GAP, block * count + GAP);
                with_scratch(PLACES * (v_stride + m_stride), |scratch| {
                    let (v, m) = scratch.split_at_mut(PLACES * v_stride);
                    let (v, m) = (v.as_mut_ptr().cast(), m.as_mut_ptr().cast());
                    for index in 0..blocks {
                        let (from, to) = (cut(index), cut(index + 1));
                        self.spread((from, to), (v, v_stride), (m, m_stride));
                        for place in 0..PLACES {
                            for columns in self.columns.blocks() {
                                // SAFETY: the place's planes and its sums, all our own.
                                let (v, m) =
                                    unsafe { (v.add(place * v_stride), m.add(place * m_stride)) };
                                let sum = sums[place * stride + columns.start..].as_mut_ptr();
                                let apart = self.columns.padded();
                                self.outer(to - from, (0, depth), columns, v, m, sum, apart);
                            }
                        }
                    }
                });
                sums
            })
            .collect();
        let mut sums = sums.into_iter();
        let mut total = sums.next().expect("at least one group");
        for group in sums {
            total.iter_mut().zip(group).for_each(|(a, b)| *a += b);
        }
        self.transform(&total, stride, result);
    }

    /// Many rows and many channels: block after block of rows, the threads taking places.
    fn by_places(&self, result: Shared) {
        let (rows, depth, count) = (self.tiling.rows(), self.depth, self.columns.count);
        // Fixed by the shape: the sums are made block after block, whatever the threads.
        let block = if depth * count >= WIDE { 512 } else { 160 };
        let block = block.min(rows);
        let blocks = rows.div_ceil(block);
        let stride = depth * self.columns.padded() + GAP;
        let mut sums = vec![0.0; PLACES * stride];
        let sum = Shared::new(&mut sums);
        let (v_stride, m_stride) = (block * depth + GAP, block * count + GAP);
        with_scratch(PLACES * (v_stride + m_stride), |scratch| {
            let (v, m) = scratch.split_at_mut(PLACES * v_stride);
            let (v, m) = (Shared::uninit(v), Shared::uninit(m));
            for index in 0..blocks {
                let (from, to) = (rows * index / blocks, rows * (index + 1) / blocks);
                self.spread_in_pieces((from, to), (v, v_stride), (m, m_stride));
                (0..PLACES).into_par_iter().for_each(|place| {
                    for columns in self.columns.blocks() {
                        // SAFETY: this place's planes; nobody else writes its part of the sums.
                        let (v, m, sum) = unsafe {
                            (
                                v.at(place * v_stride),
                                m.at(place * m_stride),
                                sum.at(place * stride + columns.start),
                            )
                        };
                        let apart = self.columns.padded();
                        self.outer(to - from, (0, depth), columns, v, m, sum, apart);
                    }
                });
            }
        });
        self.transform(&sums, stride, result);
    }

    /// The sums, `[place][depth][padded columns]`, transformed back.
    fn transform(&self, sums: &[f32], stride: usize, result: Shared) {
        let apart = self.columns.padded();
        self.parts().into_par_iter().for_each(|(block, k)| {
            crate::simd::dispatch(KernelGradient {
                sums: sums[k.0 * apart + block.start..].as_ptr(),
                stride,
                apart,
                block,
                k,
                depth: self.depth,
                result,
            });
        });
    }
}

/// The gradient of the weight, `[out, in, 3, 3]`. Bits do not depend on the number of threads: how the sums are cut is
/// fixed by the shape.
pub(crate) fn weight_gradient<E: Element>(conv: &Convolution, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let (depth, columns) = (conv.input.channels, Columns::new(conv.channels));
    let tiling = Tiling::new(&conv.input, E::PACK);
    let rows = tiling.rows();
    if rows == 0 {
        return vec![0.0; conv.weight_len()];
    }
    let mut gradient = Box::<[f32]>::new_uninit_slice(conv.weight_len());
    let result = Shared::uninit(&mut gradient);
    let sum = Sum::<E> {
        tiling,
        columns,
        depth,
        x,
        dy,
        zeros: vec![0.0; tiling.batch * depth.max(columns.count)],
        element: PhantomData,
    };
    let products = depth * columns.count;
    if rows * (depth + columns.count) <= products {
        sum.by_parts(result);
    } else if products <= NARROW {
        // The sums of all groups together stay small beside the planes.
        sum.by_groups(if products <= NARROW / 4 { 16 } else { 4 }, result);
    } else {
        sum.by_places(result);
    }
    // SAFETY: whichever way, `KernelGradient` wrote all nine values for each pair of channels of `parts`, which are all.
    unsafe { gradient.assume_init() }.into_vec()
}
