//! The output of a convolution, and the gradient of its input.

use std::marker::PhantomData;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::planes::{FromPlanes, Operand, ToPlanes};
use super::tiling::{CACHED, GAP, POSITIONS, Tiling, WIDE};
use crate::element::Element;
use crate::epilogue::PreparedEpilogue;
use crate::memory::{Shared, with_scratch};
use crate::packed::Packed;
use crate::shape::Convolution;
use crate::simd::rows as tile_rows;
use crate::tile::{Term, sum_of_products};

/// The product of `rows` rows of the transformed input and the kernels, at some positions.
struct Product<'a, E> {
    packed: &'a Packed,
    /// First position, and the one behind the last.
    positions: (usize, usize),
    rows: usize,
    /// Planes of the transformed input; start of the first position's.
    v: *const f32,
    /// Distance between two planes of `v`.
    v_stride: usize,
    /// Planes of the products; start of the first position's.
    m: *mut f32,
    /// Distance between two planes of `m`.
    m_stride: usize,
    element: PhantomData<E>,
}

impl<E: Element> WithSimd for Product<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            packed,
            positions,
            rows,
            v,
            v_stride,
            m,
            m_stride,
            ..
        } = self;
        let Packed {
            columns,
            depth,
            stride,
            ref values,
            ..
        } = *packed;
        let tiles = rows.div_ceil(tile_rows(S::F32_LANES));
        for position in positions.0..positions.1 {
            for block in columns.blocks() {
                let kernels = &values[position * stride + block.start * depth..];
                let kernels = &kernels[..depth * block.width_in::<S>()];
                for tile in 0..tiles {
                    let (from, to) = (rows * tile / tiles, rows * (tile + 1) / tiles);
                    // SAFETY: a position's plane of `v` has `rows` initialised rows of `depth`
                    // cells, its plane of `m` as many rows of all columns, which this task alone
                    // writes; the block has `depth` packed rows.
                    unsafe {
                        sum_of_products::<E, S>(
                            simd,
                            (to - from, block.vectors),
                            &[Term::default()],
                            v.add(position * v_stride + from * depth),
                            depth,
                            kernels.as_ptr(),
                            depth,
                            m.add(position * m_stride + from * columns.count + block.start),
                            columns.count,
                            block.cols,
                        );
                    }
                }
            }
        }
    }
}

/// Number of rows whose planes stay in the second-level cache beside what is read and written
/// (planes of 100 kB to 2.4 MB were measured); fewer where some threads would have nothing to do.
fn rows_at_a_time(depth: usize, count: usize, rows: usize, threads: usize) -> usize {
    (CACHED / (POSITIONS * (depth + count) * size_of::<f32>()))
        .max(8)
        .min(rows.div_ceil(threads))
        .max(1)
}

/// The output of a convolution, or the gradient of its input, depending on `packed`.
pub(crate) fn convolve<E: Element>(
    conv: &Convolution,
    source: &[f32],
    packed: &Packed,
    epilogue: Option<&PreparedEpilogue>,
) -> Vec<f32> {
    let (depth, count) = (packed.depth, packed.columns.count);
    let channels = depth * E::PACK;
    let tiling = Tiling::new(&conv.input, 1);
    let zeros = vec![0.0; tiling.batch * channels];
    let rows = tiling.rows();
    let len = tiling.height * tiling.width * tiling.batch * count;
    let mut result = Box::<[f32]>::new_uninit_slice(len);
    let target = Shared::uninit(&mut result);
    let threads = rayon::current_num_threads();
    let to_planes = |rows: (usize, usize), planes: *mut f32, stride: usize| {
        E::dispatch(ToPlanes::<E> {
            tiling,
            channels,
            source,
            zeros: &zeros,
            rows,
            planes,
            stride,
            operand: Operand::Input,
            element: PhantomData,
        });
    };
    let from_planes = |rows: (usize, usize), planes: *const f32, stride: usize| {
        E::dispatch(FromPlanes {
            tiling,
            channels: count,
            planes,
            stride,
            rows,
            result: target,
            epilogue,
        });
    };
    // An output row is computed in the same way in every block, so the blocks may depend on the
    // threads.
    if rows <= 16 * conv.input.batch && depth * count >= WIDE / E::PACK {
        // Few rows and many channels: all rows are transformed first, then the threads share the
        // positions.
        let (v_stride, m_stride) = (rows * depth + GAP, rows * count + GAP);
        let parts = (threads * 2).min(rows.div_ceil(8)).max(1);
        let part = |index: usize| (rows * index / parts, rows * (index + 1) / parts);
        with_scratch(POSITIONS * (v_stride + m_stride), |scratch| {
            let (v, m) = scratch.split_at_mut(POSITIONS * v_stride);
            let (v, m) = (Shared::uninit(v), Shared::uninit(m));
            (0..parts).into_par_iter().for_each(|index| {
                let rows = part(index);
                // SAFETY: this part's rows of each plane, which it alone writes.
                to_planes(rows, unsafe { v.at(rows.0 * depth) }, v_stride);
            });
            (0..POSITIONS).into_par_iter().for_each(|position| {
                // SAFETY: the planes' starts; no other task writes this position's part of `m`.
                let (v, m) = unsafe { (v.at(0), m.at(0)) };
                E::dispatch(Product::<E> {
                    packed,
                    positions: (position, position + 1),
                    rows,
                    v,
                    v_stride,
                    m,
                    m_stride,
                    element: PhantomData,
                });
            });
            (0..parts).into_par_iter().for_each(|index| {
                let rows = part(index);
                // SAFETY: this part's rows of each plane.
                from_planes(rows, unsafe { m.at(rows.0 * count) }, m_stride);
            });
        });
        // SAFETY: the parts cover all rows, that is all images of all tiles, which cover all
        // pixels.
        return unsafe { result.assume_init() }.into_vec();
    }
    let blocks = rows.div_ceil(rows_at_a_time(depth, count, rows, threads));
    (0..blocks).into_par_iter().for_each(|index| {
        let (from, to) = (rows * index / blocks, rows * (index + 1) / blocks);
        let (v_stride, m_stride) = ((to - from) * depth + GAP, (to - from) * count + GAP);
        with_scratch(POSITIONS * (v_stride + m_stride), |scratch| {
            let (v, m) = scratch.split_at_mut(POSITIONS * v_stride);
            let (v, m) = (v.as_mut_ptr().cast(), m.as_mut_ptr().cast());
            to_planes((from, to), v, v_stride);
            E::dispatch(Product::<E> {
                packed,
                positions: (0, POSITIONS),
                rows: to - from,
                v,
                v_stride,
                m,
                m_stride,
                element: PhantomData,
            });
            from_planes((from, to), m, m_stride);
        });
    });
    // SAFETY: as above; the blocks cover all rows.
    unsafe { result.assume_init() }.into_vec()
}
