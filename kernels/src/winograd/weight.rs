//! The gradient of a convolution's weight.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::outer::{KernelGradient, OUTER_ROWS, OuterProducts};
use super::planes::{Operand, ToPlanes};
use super::tiling::{CACHED, GAP, NARROW, POSITIONS, Tiling, WIDE};
use crate::columns::{Block, Columns};
use crate::element::Element;
use crate::memory::{Shared, with_scratch};
use crate::shape::Convolution;
use crate::simd::{VECTORS, dispatch};

/// Input channels that a task takes at a time.
const STEP: usize = 32;

/// A weight's gradient as sums over rows, one sum at each position. A row is a tile of `E::PACK`
/// images.
///
/// The planes of the transformed input are called `v`, those of the transformed gradient of the
/// output `m`. There are three ways to sum, for different shapes; all have the same result to
/// rounding.
struct WeightSum<'a, E> {
    tiling: Tiling,
    /// Output channels.
    columns: Columns,
    /// Input channels.
    depth: usize,
    x: &'a [f32],
    dy: &'a [f32],
    /// Pixel outside the image, for [`ToPlanes`].
    zeros: Vec<f32>,
    element: PhantomData<E>,
}

impl<E: Element> WeightSum<'_, E> {
    /// Transforms some rows of input and gradient. The pointers are the first row's start in the
    /// first planes, and each plane has room for the rows, which this task alone writes.
    fn to_planes(
        &self,
        rows: (usize, usize),
        (v, v_stride): (*mut f32, usize),
        (m, m_stride): (*mut f32, usize),
    ) {
        let operands = [
            (self.x, self.depth, v, v_stride, Operand::Input),
            (
                self.dy,
                self.columns.count,
                m,
                m_stride,
                Operand::OutputGradient,
            ),
        ];
        for (source, channels, planes, stride, operand) in operands {
            E::dispatch(ToPlanes::<E> {
                tiling: self.tiling,
                channels,
                source,
                zeros: &self.zeros,
                rows,
                planes,
                stride,
                operand,
                element: PhantomData,
            });
        }
    }

    /// Transforms some rows of input and gradient by all threads, to planes that begin with the
    /// first of them.
    fn to_planes_in_parallel(
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
            self.to_planes(rows, (v, v_stride), (m, m_stride));
        });
    }

    /// Adds the outer products of `rows` rows to one position's sum; see [`OuterProducts`] for the
    /// arguments.
    #[allow(clippy::too_many_arguments)]
    fn add_products(
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
            E::dispatch(OuterProducts::<E> {
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

    /// Parts of the gradient, one for each task: blocks of output channels and steps of input
    /// channels.
    fn parts(&self) -> Vec<(Block, (usize, usize))> {
        let depth = self.depth;
        let steps = |block| {
            (0..depth)
                .step_by(STEP)
                .map(move |k| (block, (k, depth.min(k + STEP))))
        };
        self.columns.blocks().flat_map(steps).collect()
    }

    /// Sums part by part, transforming each part at once: for few rows and many channels, where all
    /// sums would be larger than the planes.
    fn by_parts(&self, result: Shared) {
        let (rows, depth, count) = (self.tiling.rows(), self.depth, self.columns.count);
        let (v_stride, m_stride) = (rows * depth + GAP, rows * count + GAP);
        with_scratch(POSITIONS * (v_stride + m_stride), |scratch| {
            let (v, m) = scratch.split_at_mut(POSITIONS * v_stride);
            let (v, m) = (Shared::uninit(v), Shared::uninit(m));
            self.to_planes_in_parallel((0, rows), (v, v_stride), (m, m_stride));
            self.parts().into_par_iter().for_each(|(block, k)| {
                let width = block.vectors * self.columns.lanes;
                let stride = (k.1 - k.0) * width + GAP;
                with_scratch(POSITIONS * stride, |sums| {
                    sums.fill(MaybeUninit::new(0.0));
                    let sums = Shared::uninit(sums);
                    for position in 0..POSITIONS {
                        // SAFETY: the position's planes, which are all written, and its sums.
                        let (v, m, sum) = unsafe {
                            (
                                v.at(position * v_stride),
                                m.at(position * m_stride),
                                sums.at(position * stride),
                            )
                        };
                        self.add_products(rows, k, block, v, m, sum, width);
                    }
                    dispatch(KernelGradient {
                        // SAFETY: the first position's sums.
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

    /// Sums groups of rows separately, then the groups: for many rows and few channels.
    fn by_groups(&self, groups: usize, result: Shared) {
        let (rows, depth, count) = (self.tiling.rows(), self.depth, self.columns.count);
        let stride = depth * self.columns.padded() + GAP;
        let block = (CACHED / (POSITIONS * (depth + count) * size_of::<f32>())).max(8);
        let sums: Vec<Vec<f32>> = (0..groups)
            .into_par_iter()
            .map(|group| {
                let (first, last) = (rows * group / groups, rows * (group + 1) / groups);
                let mut sums = vec![0.0; POSITIONS * stride];
                let blocks = (last - first).div_ceil(block);
                let cut = |index: usize| first + (last - first) * index / blocks;
                let (v_stride, m_stride) = (block * depth + GAP, block * count + GAP);
                with_scratch(POSITIONS * (v_stride + m_stride), |scratch| {
                    let (v, m) = scratch.split_at_mut(POSITIONS * v_stride);
                    let (v, m) = (v.as_mut_ptr().cast(), m.as_mut_ptr().cast());
                    for index in 0..blocks {
                        let (from, to) = (cut(index), cut(index + 1));
                        self.to_planes((from, to), (v, v_stride), (m, m_stride));
                        for position in 0..POSITIONS {
                            for columns in self.columns.blocks() {
                                // SAFETY: the position's planes, both this group's own.
                                let (v, m) = unsafe {
                                    (v.add(position * v_stride), m.add(position * m_stride))
                                };
                                let sum = sums[position * stride + columns.start..].as_mut_ptr();
                                let apart = self.columns.padded();
                                self.add_products(to - from, (0, depth), columns, v, m, sum, apart);
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

    /// Sums block after block of rows, the threads sharing the positions: for many rows and many
    /// channels.
    fn by_positions(&self, result: Shared) {
        let (rows, depth, count) = (self.tiling.rows(), self.depth, self.columns.count);
        // Fixed by the shape, so that the sums do not depend on the number of threads.
        let block = if depth * count >= WIDE { 512 } else { 160 };
        let block = block.min(rows);
        let blocks = rows.div_ceil(block);
        let stride = depth * self.columns.padded() + GAP;
        let mut sums = vec![0.0; POSITIONS * stride];
        let sum = Shared::new(&mut sums);
        let (v_stride, m_stride) = (block * depth + GAP, block * count + GAP);
        with_scratch(POSITIONS * (v_stride + m_stride), |scratch| {
            let (v, m) = scratch.split_at_mut(POSITIONS * v_stride);
            let (v, m) = (Shared::uninit(v), Shared::uninit(m));
            for index in 0..blocks {
                let (from, to) = (rows * index / blocks, rows * (index + 1) / blocks);
                self.to_planes_in_parallel((from, to), (v, v_stride), (m, m_stride));
                (0..POSITIONS).into_par_iter().for_each(|position| {
                    for columns in self.columns.blocks() {
                        // SAFETY: this position's planes and its part of the sums, which no other
                        // task touches.
                        let (v, m, sum) = unsafe {
                            (
                                v.at(position * v_stride),
                                m.at(position * m_stride),
                                sum.at(position * stride + columns.start),
                            )
                        };
                        let apart = self.columns.padded();
                        self.add_products(to - from, (0, depth), columns, v, m, sum, apart);
                    }
                });
            }
        });
        self.transform(&sums, stride, result);
    }

    /// Transforms the sums, `[position][depth][padded columns]`, to the gradient.
    fn transform(&self, sums: &[f32], stride: usize, result: Shared) {
        let apart = self.columns.padded();
        self.parts().into_par_iter().for_each(|(block, k)| {
            dispatch(KernelGradient {
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

/// The gradient of the weight, `[out, in, 3, 3]`. Its bits do not depend on the number of threads:
/// the shape alone decides how the sums are split.
pub(crate) fn weight_gradient<E: Element>(conv: &Convolution, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let (depth, columns) = (conv.input.channels, Columns::new(conv.channels));
    let tiling = Tiling::new(&conv.input, E::PACK);
    let rows = tiling.rows();
    if rows == 0 {
        return vec![0.0; conv.weight_len()];
    }
    let mut gradient = Box::<[f32]>::new_uninit_slice(conv.weight_len());
    let result = Shared::uninit(&mut gradient);
    let sum = WeightSum::<E> {
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
        // The sums of all groups together stay small compared with the planes.
        sum.by_groups(if products <= NARROW / 4 { 16 } else { 4 }, result);
    } else {
        sum.by_positions(result);
    }
    // SAFETY: in each of the three ways, `KernelGradient` wrote all nine values for each pair of
    // channels of `parts`, and these are all pairs.
    unsafe { gradient.assume_init() }.into_vec()
}
