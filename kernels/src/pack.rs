//! Weights in the order in which the kernels read them.

use rayon::prelude::*;

use crate::simd::{VECTORS, lanes};

/// How output columns are cut into blocks of one or two vectors.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    pub count: usize,
    pub lanes: usize,
}

/// A block of columns.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// The first column.
    pub start: usize,
    /// Columns that are there; the rest of the last vector is padding.
    pub cols: usize,
    /// Vectors.
    pub vectors: usize,
}

impl Columns {
    pub fn new(count: usize) -> Self {
        Self {
            count,
            lanes: lanes(),
        }
    }

    /// Columns with padding.
    pub fn padded(&self) -> usize {
        self.count.next_multiple_of(self.lanes)
    }

    pub fn blocks(self) -> impl Iterator<Item = Block> {
        let width = VECTORS * self.lanes;
        (0..self.count.div_ceil(width)).map(move |index| {
            let start = index * width;
            let cols = width.min(self.count - start);
            Block {
                start,
                cols,
                vectors: cols.div_ceil(self.lanes),
            }
        })
    }
}

/// `[out, in, kernel²]` weights as `[block][kernel²][depth][block columns]`, padded with zeros.
///
/// Forward, the depth is the input channels and the columns are the output's; `back`, the other way round.
pub(crate) fn pack(w: &[f32], [output, input, taps]: [usize; 3], back: bool) -> Vec<f32> {
    let (depth, count) = if back {
        (output, input)
    } else {
        (input, output)
    };
    let columns = Columns::new(count);
    let mut packed = vec![0.0; columns.padded() * taps * depth];
    let blocks: Vec<Block> = columns.blocks().collect();
    let mut rest = &mut packed[..];
    let mut parts = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (part, after) = rest.split_at_mut(block.vectors * columns.lanes * taps * depth);
        parts.push((block, part));
        rest = after;
    }
    parts.into_par_iter().for_each(|(block, part)| {
        let width = block.vectors * columns.lanes;
        for column in 0..block.cols {
            for k in 0..depth {
                let (o, i) = if back {
                    (k, block.start + column)
                } else {
                    (block.start + column, k)
                };
                let row = &w[(o * input + i) * taps..][..taps];
                for (tap, value) in row.iter().enumerate() {
                    part[(tap * depth + k) * width + column] = *value;
                }
            }
        }
    });
    packed
}
