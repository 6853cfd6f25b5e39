//! Weights in the order in which the kernels read them.

use pulp::Simd;
use rayon::prelude::*;

use crate::element::{Element, Half, Single};
use crate::shape::Convolution;
use crate::simd::{VECTORS, lanes};
use crate::winograd;
use crate::{Algorithm, Precision};

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
    /// Values of a vector.
    pub lanes: usize,
}

impl Block {
    /// Columns with padding.
    pub fn width(&self) -> usize {
        self.vectors * self.lanes
    }

    /// Columns with padding, for a kernel that was compiled for `S`.
    ///
    /// # Panics
    /// When another instruction set was selected after the buffers were laid out: their ends are then elsewhere.
    #[inline(always)]
    pub fn width_in<S: Simd>(&self) -> usize {
        assert_eq!(
            S::F32_LANES,
            self.lanes,
            "another instruction set was selected during a computation"
        );
        self.width()
    }
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
                lanes: self.lanes,
            }
        })
    }
}

/// A convolution's weight in the order in which the kernels read it: made once, used for as many images as come.
///
/// Algorithm and precision are those that were chosen when it was made, whatever is chosen later; the instruction set
/// must still have vectors of the same length.
pub struct Packed {
    pub(crate) way: Way,
    pub(crate) algorithm: Algorithm,
    pub(crate) precision: Precision,
    /// `[out, in, kernel, stride]` of the convolution.
    pub(crate) shape: [usize; 4],
    pub(crate) columns: Columns,
    /// Cells of the depth.
    pub(crate) depth: usize,
    /// Direct: `[block][kernel²][depth][block columns]`; Winograd: `[place][block][depth][block columns]`, the places
    /// `stride` apart.
    pub(crate) values: Vec<f32>,
    pub(crate) stride: usize,
}

/// What a weight is packed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// The output.
    Forward,
    /// The gradient of the input.
    Back,
}

impl Way {
    /// The output and input channel of a weight in this column, at this depth.
    pub(crate) fn channels(self, column: usize, k: usize) -> (usize, usize) {
        match self {
            Self::Forward => (column, k),
            Self::Back => (k, column),
        }
    }
}

impl Packed {
    /// Packs `w`, `[out, in, kernel, kernel]`.
    ///
    /// # Panics
    /// When `w` is not of its shape's length.
    pub fn new(conv: &Convolution, w: &[f32], way: Way) -> Self {
        conv.check_weight_values(w);
        let (depth, count) = conv.depth_and_columns(way);
        let precision = precision_of(depth);
        let algorithm = crate::algorithm_of(conv, depth);
        let columns = Columns::new(count);
        let (values, stride) = match (algorithm, precision) {
            (Algorithm::Direct, Precision::F32) => (direct::<Single>(conv, w, way), 0),
            (Algorithm::Direct, Precision::Bf16) => (direct::<Half>(conv, w, way), 0),
            (Algorithm::Winograd, Precision::F32) => winograd::kernels::<Single>(conv, w, way),
            (Algorithm::Winograd, Precision::Bf16) => winograd::kernels::<Half>(conv, w, way),
        };
        Self {
            way,
            algorithm,
            precision,
            shape: conv.weight_shape(),
            columns,
            depth: match precision {
                Precision::F32 => depth,
                Precision::Bf16 => depth / 2,
            },
            values,
            stride,
        }
    }

    /// Whether it is what [`Packed::new`] would make now, for a weight of the same values.
    pub fn fits(&self, conv: &Convolution, way: Way) -> bool {
        let (depth, _) = conv.depth_and_columns(way);
        self.way == way
            && self.shape == conv.weight_shape()
            && self.algorithm == crate::algorithm_of(conv, depth)
            && self.precision == precision_of(depth)
            && self.columns.lanes == lanes()
    }
}

/// bf16 where it was asked for, and a cell of two does not reach into the next image.
fn precision_of(depth: usize) -> Precision {
    match crate::precision() {
        Precision::Bf16 if depth.is_multiple_of(2) => Precision::Bf16,
        _ => Precision::F32,
    }
}

/// `[out, in, kernel²]` as `[block][kernel²][depth][block columns]`, padded with zeros.
///
/// Forward, the depth is the input channels and the columns are the output's; back, the other way round.
fn direct<E: Element>(conv: &Convolution, w: &[f32], way: Way) -> Vec<f32> {
    let (input, taps) = (conv.input.channels, conv.kernel * conv.kernel);
    let (depth, count) = conv.depth_and_columns(way);
    let cells = depth / E::PACK;
    let columns = Columns::new(count);
    let mut packed = vec![0.0; columns.padded() * taps * cells];
    let blocks: Vec<Block> = columns.blocks().collect();
    let mut rest = &mut packed[..];
    let mut parts = Vec::with_capacity(blocks.len());
    for block in blocks {
        let (part, after) = rest.split_at_mut(block.width() * taps * cells);
        parts.push((block, part));
        rest = after;
    }
    let weight = |column: usize, k: usize, tap: usize| {
        let (o, i) = way.channels(column, k);
        w[(o * input + i) * taps + tap]
    };
    parts.into_par_iter().for_each(|(block, part)| {
        let width = block.width();
        for column in 0..block.cols {
            for cell in 0..cells {
                for tap in 0..taps {
                    let value = |k: usize| weight(block.start + column, k, tap);
                    let (first, last) = (cell * E::PACK, (cell + 1) * E::PACK - 1);
                    part[(tap * cells + cell) * width + column] =
                        E::cell(value(first), value(last));
                }
            }
        }
    });
    packed
}
