//! How the columns of a matrix product are split into blocks of vectors.

use pulp::Simd;

use crate::simd::{VECTORS, lanes};

/// The columns of a product, split into blocks of one or two vectors.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    /// Number of columns.
    pub count: usize,
    /// Values of a vector.
    pub lanes: usize,
}

/// A block of columns.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// Index of the first column.
    pub start: usize,
    /// Number of columns; the rest of the last vector is padding.
    pub cols: usize,
    /// Number of vectors.
    pub vectors: usize,
    /// Values of a vector.
    pub lanes: usize,
}

impl Block {
    /// Number of columns with padding.
    pub fn width(&self) -> usize {
        self.vectors * self.lanes
    }

    /// Number of columns with padding, for a kernel that was compiled for `S`.
    ///
    /// # Panics
    /// If another instruction set was selected after the buffers were allocated: their lengths
    /// would be wrong.
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
    /// `count` columns, for vectors of the instruction set in use.
    pub fn new(count: usize) -> Self {
        Self {
            count,
            lanes: lanes(),
        }
    }

    /// Number of columns with padding.
    pub fn padded(&self) -> usize {
        self.count.next_multiple_of(self.lanes)
    }

    /// The blocks, in order.
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
