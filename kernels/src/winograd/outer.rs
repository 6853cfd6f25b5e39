//! The two vector tasks of a weight's gradient: products of planes, and the transform of their
//! sums.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};

use super::tiling::SPAN;
use super::transform::{both_sides, kernel_adjoint};
use crate::columns::Block;
use crate::element::Element;
use crate::memory::Shared;
use crate::simd::rows as tile_rows;
use crate::tile::transposed_product;
use crate::vector::{load, load_some, store};

/// Rows that are summed at a time: their packed columns stay in the first-level cache.
pub(super) const OUTER_ROWS: usize = 256;

/// The sum of outer products over rows, `vᵀ · m`, at one position: added to a part of the gradient
/// of the transformed kernels.
pub(super) struct OuterProducts<'a, E> {
    pub rows: usize,
    /// Cells in a row of `v`.
    pub depth: usize,
    /// Cells in a row of `m`.
    pub count: usize,
    /// Columns of `v` to use: the first, and the one behind the last.
    pub k: (usize, usize),
    /// Columns of `m` to use.
    pub block: Block,
    /// Plane of the transformed input.
    pub v: *const f32,
    /// Plane of the transformed gradient of the output.
    pub m: *const f32,
    /// The sums, `[k][block columns]`.
    pub sum: *mut f32,
    /// Distance between two rows of `sum`.
    pub apart: usize,
    /// Room for [`OUTER_ROWS`] rows of two vectors.
    pub packed: &'a mut [MaybeUninit<f32>],
    pub element: PhantomData<E>,
}

impl<E: Element> WithSimd for OuterProducts<'_, E> {
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
            // SAFETY: `m` has `rows` initialised rows of `count` cells and `v` as many of `depth`;
            // `sum` has an initialised row of whole vectors for each `k`, which this task alone
            // touches; `packed` has room for `step` rows of `width`, which are written before they
            // are read.
            unsafe {
                // Columns that are whole vectors need no copy.
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

/// The transform of a part of the sums to the gradient, `[out, in, 3, 3]`.
pub(super) struct KernelGradient {
    /// Start of the part in the first position's sums.
    pub sums: *const f32,
    /// Distance between the sums of two positions.
    pub stride: usize,
    /// Distance between two rows of the sums.
    pub apart: usize,
    /// Output channels of the part.
    pub block: Block,
    /// Input channels of the part: the first, and the one behind the last.
    pub k: (usize, usize),
    /// Input channels of the convolution.
    pub depth: usize,
    /// The whole gradient.
    pub result: Shared,
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
                // SAFETY: each position's sums have an initialised row of whole vectors for each
                // `k`; `kernel`'s rows have room for the widest vector; no other task touches the
                // result's kernels of these channels.
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
