//! What the kernels need of tiles, and how their operands lie in memory.

/// Rows of a tile, and columns of a tile of sums.
pub(super) const SIDE: usize = 16;
/// Rows and columns of a block of two by two tiles of sums.
pub(super) const BLOCK: usize = 2 * SIDE;
/// Values of a tile's row of bf16: the length of the sums of one product.
pub(super) const DEPTH: usize = 32;
/// Values of a tile of sums, and cells (pairs of bf16) of a tile of factors.
pub(super) const TILE: usize = SIDE * SIDE;
/// Sums of a block, tile after tile, and cells of the columns that a step of a product takes.
pub(super) const CELLS: usize = 4 * TILE;
/// Cells of the columns' two tiles that a step takes.
pub(super) const STEP: usize = 2 * TILE;

/// One product of a block's sum, by where its factors begin. The values are bf16.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Term {
    /// The first row.
    pub a: *const u16,
    /// The first tile of columns: for each step two tiles, each with 16 rows of 16 pairs of values
    /// that follow each other in the sum.
    pub b: *const u16,
}

/// A sum of products: `c[m][n] = Σ over terms, k of a[m][k] · b[k][n]`.
#[derive(Clone, Copy)]
pub(super) struct Sum<'a> {
    pub terms: &'a [Term],
    /// Distance from each term's `a` to the first row, in values.
    pub offset: usize,
    /// Distance between two rows of `a`, in values.
    pub apart: usize,
    /// Length of each product, in steps of [`DEPTH`] values. At least 1.
    pub steps: usize,
    /// Tiles of rows and of columns, 1 or 2 each.
    pub tiles: (usize, usize),
    /// Whether `c` is added to.
    pub adds: bool,
}

/// The tiles of a thread: the processor's, or in tests what they do in plain Rust.
pub(super) trait Tiles: Sized {
    /// Takes this thread's tiles.
    ///
    /// # Panics
    /// If the processor has none, or this process may not use them.
    fn begin() -> Self;

    /// Computes a block of sums, and stores them as tiles of 16 × 16 values: row after row, the
    /// tile of rows `i` and columns `j` at `(2 · i + j) · 256`. The tiles that `sum` does not have
    /// are left as they are.
    ///
    /// The sum over a term's step is made of two, over the first and over the second values of
    /// pairs, and added to the rest: all rounded to f32.
    ///
    /// # Safety
    /// Each term has `16 · tiles.0` initialised rows of `32 · steps` values from `a + offset` on,
    /// `apart` apart, and from `b` on `steps` times two tiles of columns, of which the first
    /// `tiles.1` are initialised. `c` has room for 1024 values, initialised where they are added
    /// to, and no other thread touches them.
    unsafe fn sum(&mut self, sum: &Sum, c: *mut f32);
}
