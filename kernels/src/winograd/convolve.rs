//! The output, and the gradient of the input.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::planes::{Gather, Kind, Spread};
use super::*;
use crate::element::Element;
use crate::memory::{Shared, with_scratch};
use crate::pack::{Block, Columns, Packed, Way};
use crate::shape::Convolution;
use crate::simd::{VECTORS, rows as tile_rows};
use crate::then::Then;
use crate::tile::{Term, load, store, sum_of_products};

/// Transforms one block of columns of the kernels.
struct TransformKernels<'a, E> {
    w: &'a [f32],
    input: usize,
    block: Block,
    /// Of cells.
    depth: std::ops::Range<usize>,
    way: Way,
    /// The block's first row in the first place's plane.
    values: *mut f32,
    stride: usize,
    element: PhantomData<E>,
}

impl<E: Element> WithSimd for TransformKernels<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            w,
            input,
            block,
            depth,
            way,
            values,
            stride,
            ..
        } = self;
        let width = block.width_in::<S>();
        for cell in depth {
            // The kernels of the cell's one or two values of the depth.
            let mut kernels = [[[0.0f32; VECTORS * 16]; 9]; 2];
            for (half, kernel) in kernels.iter_mut().enumerate().take(E::PACK) {
                let k = cell * E::PACK + half;
                for column in 0..block.cols {
                    let (o, i) = way.channels(block.start + column, k);
                    let row = &w[(o * input + i) * 9..][..9];
                    for (tap, value) in row.iter().enumerate() {
                        // The way back is a convolution with the kernel turned around.
                        let tap = if way == Way::Back { 8 - tap } else { tap };
                        kernel[tap][column] = *value;
                    }
                }
            }
            for v in (0..width).step_by(S::F32_LANES) {
                let mut transformed = [[simd.splat_f32s(0.0); PLACES]; 2];
                // SAFETY: the kernels' rows have two of the widest vectors; row `cell` of the block has `width` cells
                // in each place's plane, which this task alone writes.
                unsafe {
                    for half in 0..E::PACK {
                        both_sides!(simd, kernel_transform: 3 => SPAN,
                            |a, b| load(simd, kernels[half][a * 3 + b].as_ptr().add(v)),
                            |a, b, value| transformed[half][a * SPAN + b] = value);
                    }
                    let to = values.add(cell * width + v);
                    for place in 0..PLACES {
                        let cells = E::cells(simd, transformed[0][place], transformed[1][place]);
                        store(simd, to.add(place * stride), cells);
                    }
                }
            }
        }
    }
}

/// Transformed kernels, `[place][block][depth][block columns]` of cells, and what lies between two places.
pub(crate) fn kernels<E: Element>(conv: &Convolution, w: &[f32], way: Way) -> (Vec<f32>, usize) {
    let input = conv.input.channels;
    let (depth, count) = conv.depth_and_columns(way);
    let (depth, columns) = (depth / E::PACK, Columns::new(count));
    let stride = depth * columns.padded() + GAP;
    let mut values = Box::<[f32]>::new_uninit_slice(PLACES * stride);
    for place in values.chunks_exact_mut(stride) {
        place[stride - GAP..].fill(MaybeUninit::new(0.0));
    }
    let target = Shared::uninit(&mut values);
    const STEP: usize = 16;
    let blocks: Vec<Block> = columns.blocks().collect();
    let steps = depth.div_ceil(STEP);
    (0..blocks.len() * steps).into_par_iter().for_each(|task| {
        let (block, step) = (blocks[task / steps], task % steps);
        E::dispatch(TransformKernels::<E> {
            w,
            input,
            block,
            depth: step * STEP..depth.min((step + 1) * STEP),
            way,
            // SAFETY: the block's part of the first plane begins there.
            values: unsafe { target.at(block.start * depth) },
            stride,
            element: PhantomData,
        });
    });
    // SAFETY: the blocks' columns with padding are all of a plane's columns, the steps all of the depth, and a task
    // writes its cells in the planes of all places; the gaps behind the planes are zeros.
    (unsafe { values.assume_init() }.into_vec(), stride)
}

/// At places `from..to`: `rows` rows of the transformed input times the kernels.
struct Product<'a, E> {
    packed: &'a Packed,
    places: (usize, usize),
    rows: usize,
    /// The first place's planes.
    v: *const f32,
    v_stride: usize,
    m: *mut f32,
    m_stride: usize,
    element: PhantomData<E>,
}

impl<E: Element> WithSimd for Product<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            packed,
            places,
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
        for place in places.0..places.1 {
            for block in columns.blocks() {
                let kernels = &values[place * stride + block.start * depth..];
                let kernels = &kernels[..depth * block.width_in::<S>()];
                for tile in 0..tiles {
                    let (from, to) = (rows * tile / tiles, rows * (tile + 1) / tiles);
                    // SAFETY: a place's plane of `v` has `rows` rows of `depth` cells and that of `m` as many of all
                    // columns, the caller's; the block has `depth` packed rows.
                    unsafe {
                        sum_of_products::<E, S>(
                            simd,
                            (to - from, block.vectors),
                            &[Term::default()],
                            v.add(place * v_stride + from * depth),
                            depth,
                            kernels.as_ptr(),
                            depth,
                            m.add(place * m_stride + from * columns.count + block.start),
                            columns.count,
                            block.cols,
                        );
                    }
                }
            }
        }
    }
}

/// Rows whose planes stay in the second-level cache beside what is read and written, measured at 100 kB to 2.4 MB; but
/// no fewer than leave each thread something to do.
fn rows_at_a_time(depth: usize, count: usize, rows: usize, threads: usize) -> usize {
    (CACHED / (PLACES * (depth + count) * size_of::<f32>()))
        .max(8)
        .min(rows.div_ceil(threads))
        .max(1)
}

/// The output, or the gradient of the input, as `packed` was made for.
pub(crate) fn convolve<E: Element>(
    conv: &Convolution,
    source: &[f32],
    packed: &Packed,
    then: Option<&Then>,
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
    let spread = |rows: (usize, usize), planes: *mut f32, stride: usize| {
        E::dispatch(Spread::<E> {
            tiling,
            channels,
            source,
            zeros: &zeros,
            rows,
            planes,
            stride,
            kind: Kind::Input,
            element: PhantomData,
        });
    };
    let gather = |rows: (usize, usize), planes: *const f32, stride: usize| {
        E::dispatch(Gather {
            tiling,
            channels: count,
            planes,
            stride,
            rows,
            result: target,
            then,
        });
    };
    // Each output row is computed alike whatever block it is in, so the cut may depend on the threads.
    if rows <= 16 * conv.input.batch && depth * count >= WIDE / E::PACK {
        // Few rows and many channels: the planes are shared, and the threads take places instead of rows.
        let (v_stride, m_stride) = (rows * depth + GAP, rows * count + GAP);
        let parts = (threads * 2).min(rows.div_ceil(8)).max(1);
        let part = |index: usize| (rows * index / parts, rows * (index + 1) / parts);
        with_scratch(PLACES * (v_stride + m_stride), |scratch| {
            let (v, m) = scratch.split_at_mut(PLACES * v_stride);
            let (v, m) = (Shared::uninit(v), Shared::uninit(m));
            (0..parts).into_par_iter().for_each(|index| {
                let rows = part(index);
                // SAFETY: this part's rows of each plane, which it alone writes.
                spread(rows, unsafe { v.at(rows.0 * depth) }, v_stride);
            });
            (0..PLACES).into_par_iter().for_each(|place| {
                // SAFETY: the planes' starts; nobody else writes this place's part of `m`.
                let (v, m) = unsafe { (v.at(0), m.at(0)) };
                E::dispatch(Product::<E> {
                    packed,
                    places: (place, place + 1),
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
                gather(rows, unsafe { m.at(rows.0 * count) }, m_stride);
            });
        });
        // SAFETY: the parts are all rows, so all images of all tiles, which cover all pixels.
        return unsafe { result.assume_init() }.into_vec();
    }
    let blocks = rows.div_ceil(rows_at_a_time(depth, count, rows, threads));
    (0..blocks).into_par_iter().for_each(|index| {
        let (from, to) = (rows * index / blocks, rows * (index + 1) / blocks);
        let (v_stride, m_stride) = ((to - from) * depth + GAP, (to - from) * count + GAP);
        with_scratch(PLACES * (v_stride + m_stride), |scratch| {
            let (v, m) = scratch.split_at_mut(PLACES * v_stride);
            let (v, m) = (v.as_mut_ptr().cast(), m.as_mut_ptr().cast());
            spread((from, to), v, v_stride);
            E::dispatch(Product::<E> {
                packed,
                places: (0, PLACES),
                rows: to - from,
                v,
                v_stride,
                m,
                m_stride,
                element: PhantomData,
            });
            gather((from, to), m, m_stride);
        });
    });
    // SAFETY: as above, the blocks being all rows.
    unsafe { result.assume_init() }.into_vec()
}
