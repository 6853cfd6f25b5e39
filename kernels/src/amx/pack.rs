//! Weights as tiles of columns.

use rayon::prelude::*;

use super::tiles::{BLOCK, DEPTH, SIDE, STEP, TILE};
use crate::element::{Element, Half};
use crate::shape::{Convolution, Pass};

/// Steps of a sum over `channels` channels.
pub(super) fn steps(channels: usize) -> usize {
    channels.div_ceil(DEPTH)
}

/// The length of a sum over `channels` channels, in cells, with its padding.
pub(crate) fn depth(channels: usize) -> usize {
    steps(channels) * DEPTH / 2
}

/// Packs `w`, `[out, in, kernel²]`, as `[block of 32 columns][kernel²][step][two tiles]`, padded
/// with zeros. A tile is 16 pairs of summed channels by 16 columns.
pub(crate) fn pack(conv: &Convolution, w: &[f32], pass: Pass) -> Vec<f32> {
    let (input, taps) = (conv.input.channels, conv.kernel * conv.kernel);
    let (depth, count) = conv.depth_and_columns(pass);
    let steps = steps(depth);
    let mut packed = vec![0.0; count.div_ceil(BLOCK) * taps * steps * STEP];
    if packed.is_empty() {
        return packed;
    }
    let weight = |column: usize, k: usize, tap: usize| {
        let (o, i) = pass.channels(column, k);
        w[(o * input + i) * taps + tap]
    };
    packed
        .par_chunks_mut(taps * steps * STEP)
        .enumerate()
        .for_each(|(block, part)| {
            let start = block * BLOCK;
            for column in 0..BLOCK.min(count - start) {
                let place = column / SIDE * TILE + column % SIDE;
                for k in (0..depth).step_by(2) {
                    let pair = k / DEPTH * STEP + k % DEPTH / 2 * SIDE + place;
                    for tap in 0..taps {
                        let value = |k| weight(start + column, k, tap);
                        let second = if k + 1 < depth { value(k + 1) } else { 0.0 };
                        part[tap * steps * STEP + pair] = Half::cell(value(k), second);
                    }
                }
            }
        });
    packed
}
