//! The transform of a weight's kernels, done once for all images.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::tiling::{GAP, POSITIONS, SPAN};
use super::transform::{both_sides, kernel_transform};
use crate::columns::{Block, Columns};
use crate::element::Element;
use crate::memory::Shared;
use crate::shape::{Convolution, Pass};
use crate::simd::VECTORS;
use crate::vector::{load, store};

/// The transform of one block of the kernels' columns.
struct TransformKernels<'a, E> {
    w: &'a [f32],
    /// Input channels of the convolution.
    input: usize,
    block: Block,
    /// Range of the depth, in cells.
    depth: std::ops::Range<usize>,
    pass: Pass,
    /// Start of the block in the first position's plane.
    values: *mut f32,
    /// Distance between the planes of two positions.
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
            pass,
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
                    let (o, i) = pass.channels(block.start + column, k);
                    let row = &w[(o * input + i) * 9..][..9];
                    for (tap, value) in row.iter().enumerate() {
                        // The gradient of the input is a convolution with the kernel rotated by
                        // 180°.
                        let tap = if pass == Pass::Backward { 8 - tap } else { tap };
                        kernel[tap][column] = *value;
                    }
                }
            }
            for v in (0..width).step_by(S::F32_LANES) {
                let mut transformed = [[simd.splat_f32s(0.0); POSITIONS]; 2];
                // SAFETY: the kernels' rows have room for two of the widest vectors; row `cell` of
                // the block has `width` cells in each position's plane, which this task alone
                // writes.
                unsafe {
                    for half in 0..E::PACK {
                        both_sides!(simd, kernel_transform: 3 => SPAN,
                            |a, b| load(simd, kernels[half][a * 3 + b].as_ptr().add(v)),
                            |a, b, value| transformed[half][a * SPAN + b] = value);
                    }
                    let to = values.add(cell * width + v);
                    for position in 0..POSITIONS {
                        let (first, second) = (transformed[0][position], transformed[1][position]);
                        store(
                            simd,
                            to.add(position * stride),
                            E::cells(simd, first, second),
                        );
                    }
                }
            }
        }
    }
}

/// Transforms the kernels of `w`, `[out, in, 3, 3]`. Returns `[position][block][depth][block
/// columns]` of cells, and the distance between two positions.
pub(crate) fn pack<E: Element>(conv: &Convolution, w: &[f32], pass: Pass) -> (Vec<f32>, usize) {
    let input = conv.input.channels;
    let (depth, count) = conv.depth_and_columns(pass);
    let (depth, columns) = (depth / E::PACK, Columns::new(count));
    let stride = depth * columns.padded() + GAP;
    let mut values = Box::<[f32]>::new_uninit_slice(POSITIONS * stride);
    for plane in values.chunks_exact_mut(stride) {
        plane[stride - GAP..].fill(MaybeUninit::new(0.0));
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
            pass,
            // SAFETY: the block's part of the first plane begins there.
            values: unsafe { target.at(block.start * depth) },
            stride,
            element: PhantomData,
        });
    });
    // SAFETY: the blocks cover all columns of a plane, padding included, and the steps the whole
    // depth; each task wrote its cells in the planes of all positions. The gaps behind the planes
    // were filled above.
    (unsafe { values.assume_init() }.into_vec(), stride)
}
