//! The innermost loops: small blocks of matrix products whose sums stay in registers.

use pulp::Simd;

use crate::element::Element;
use crate::simd::VECTORS;
use crate::vector::{load, store, store_some};

/// One product of a sum, by the start of its rows and of its columns.
#[derive(Clone, Copy, Default)]
pub(crate) struct Term {
    /// Offset in the buffer of the rows.
    pub a: usize,
    /// Offset in the packed columns.
    pub b: usize,
}

/// Computes `c[m][..cols] = Σ over terms, k of a[m][k] · b[k][..]` for `rows` rows.
///
/// # Safety
/// Inside `E`'s dispatch. For each term, `a + term.a` has `rows` initialised rows of `depth` cells,
/// `lda` apart, and `b + term.b` has `depth` initialised rows of `vectors · LANES` cells,
/// contiguous. `c` has room for `rows` rows of `cols` values, `ldc` apart, and no other thread
/// touches them. `vectors` is 1 or 2, the number of vectors that `cols` values take.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn sum_of_products<E: Element, S: Simd>(
    simd: S,
    (rows, vectors): (usize, usize),
    terms: &[Term],
    a: *const f32,
    lda: usize,
    b: *const f32,
    depth: usize,
    c: *mut f32,
    ldc: usize,
    cols: usize,
) {
    macro_rules! by_rows {
        ($($m:literal)*) => {
            match (rows, vectors) {
                // SAFETY: the caller's promise, with `rows` and `vectors` as constants.
                $(($m, 1) => unsafe { block::<E, S, $m, 1>(simd, terms, a, lda, b, depth, c, ldc, cols) },
                  ($m, _) => unsafe { block::<E, S, $m, VECTORS>(simd, terms, a, lda, b, depth, c, ldc, cols) },)*
                _ => unreachable!("blocks have 1 to 13 rows"),
            }
        };
    }
    if S::F32_LANES == 8 {
        // More rows would not stay in 16 registers.
        match rows {
            1..=6 => by_rows!(1 2 3 4 5 6),
            _ => unreachable!("blocks have 1 to 6 rows"),
        }
    } else {
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13);
    }
}

/// [`sum_of_products`] with the block's size as constants.
///
/// # Safety
/// As there.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn block<E: Element, S: Simd, const ROWS: usize, const NV: usize>(
    simd: S,
    terms: &[Term],
    a: *const f32,
    lda: usize,
    b: *const f32,
    depth: usize,
    c: *mut f32,
    ldc: usize,
    cols: usize,
) {
    let mut sums = [[simd.splat_f32s(0.0); NV]; ROWS];
    for term in terms {
        // SAFETY: inside the buffers by the contract of `sum_of_products`.
        unsafe {
            let (mut a, mut b) = (a.add(term.a), b.add(term.b));
            for _ in 0..depth {
                let mut columns = [simd.splat_f32s(0.0); NV];
                for (v, column) in columns.iter_mut().enumerate() {
                    *column = load(simd, b.add(v * S::F32_LANES));
                }
                for (m, sums) in sums.iter_mut().enumerate() {
                    let value = simd.splat_f32s(*a.add(m * lda));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = E::multiply_add(simd, value, column, *sum);
                    }
                }
                a = a.add(1);
                b = b.add(NV * S::F32_LANES);
            }
        }
    }
    for (m, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            let done = v * S::F32_LANES;
            // SAFETY: row `m` of `c` has room for `cols` values, of which each vector has at least
            // one.
            unsafe { store_some(simd, c.add(m * ldc + done), cols.saturating_sub(done), sum) }
        }
    }
}

/// Computes `c[m][..] += Σ over k of a[k][m] · b[k][..]` for `rows` columns of `a`: the transposed
/// product of weight gradients.
///
/// # Safety
/// Inside `E`'s dispatch. `a` has `depth` initialised rows of at least `rows` cells, `lda` apart,
/// and `b` has `depth` initialised rows of `vectors · LANES` cells, `ldb` apart. `c` has `rows`
/// initialised rows of `vectors · LANES` values, `ldc` apart, and no other thread touches them.
/// `vectors` is 1 or 2.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn transposed_product<E: Element, S: Simd>(
    simd: S,
    (rows, vectors): (usize, usize),
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    depth: usize,
    c: *mut f32,
    ldc: usize,
) {
    macro_rules! by_rows {
        ($($m:literal)*) => {
            match (rows, vectors) {
                // SAFETY: the caller's promise, with `rows` and `vectors` as constants.
                $(($m, 1) => unsafe { block_transposed::<E, S, $m, 1>(simd, a, lda, b, ldb, depth, c, ldc) },
                  ($m, _) => unsafe { block_transposed::<E, S, $m, VECTORS>(simd, a, lda, b, ldb, depth, c, ldc) },)*
                _ => unreachable!("blocks have 1 to 13 rows"),
            }
        };
    }
    if S::F32_LANES == 8 {
        match rows {
            1..=6 => by_rows!(1 2 3 4 5 6),
            _ => unreachable!("blocks have 1 to 6 rows"),
        }
    } else {
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13);
    }
}

/// [`transposed_product`] with the block's size as constants.
///
/// # Safety
/// As there.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn block_transposed<E: Element, S: Simd, const ROWS: usize, const NV: usize>(
    simd: S,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    depth: usize,
    c: *mut f32,
    ldc: usize,
) {
    let mut sums = [[simd.splat_f32s(0.0); NV]; ROWS];
    let (mut a, mut b) = (a, b);
    for _ in 0..depth {
        // SAFETY: inside the buffers by the contract of `transposed_product`.
        unsafe {
            let mut columns = [simd.splat_f32s(0.0); NV];
            for (v, column) in columns.iter_mut().enumerate() {
                *column = load(simd, b.add(v * S::F32_LANES));
            }
            for (m, sums) in sums.iter_mut().enumerate() {
                let value = simd.splat_f32s(*a.add(m));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = E::multiply_add(simd, value, column, *sum);
                }
            }
        }
        // Not by `add`: behind the last row, the addresses are outside the buffers.
        (a, b) = (a.wrapping_add(lda), b.wrapping_add(ldb));
    }
    for (m, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            // SAFETY: row `m` of `c` has whole vectors.
            unsafe {
                let at = c.add(m * ldc + v * S::F32_LANES);
                store(simd, at, simd.add_f32s(load(simd, at), sum));
            }
        }
    }
}
