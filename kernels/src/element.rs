//! The factors of products: single f32 values, or pairs of bf16 whose products are summed in f32.
//!
//! Buffers consist of 32-bit cells in both cases: a cell holds one f32, or two bf16 (the first in
//! the lower half). So a sum over `depth` values runs over `depth / PACK` cells, and the same loops
//! serve both.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::memory::Shared;
use crate::simd;
use crate::vector::{self, load_some, store_some};

/// A kind of factor: how its cells are filled and multiplied.
pub(crate) trait Element: Send + Sync + 'static {
    /// Values in a cell.
    const PACK: usize;

    /// Runs `op` with the instruction set that this element needs.
    fn dispatch<Op: WithSimd>(op: Op) -> Op::Output;

    /// Computes `sum + a · b` over the cells of a vector.
    ///
    /// # Safety
    /// Inside [`Element::dispatch`].
    unsafe fn multiply_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s;

    /// Makes cells of the values of two vectors, lane by lane; ignores `second` where a cell holds
    /// one value.
    ///
    /// # Safety
    /// Inside [`Element::dispatch`].
    unsafe fn cells<S: Simd>(simd: S, first: S::f32s, second: S::f32s) -> S::f32s;

    /// Stores a vector's values in consecutive cells from value `e` on; the first `count` where it
    /// is not `WHOLE`.
    ///
    /// # Safety
    /// Inside [`Element::dispatch`]. `to` has room for these cells, and no other thread touches
    /// them. `e` and `count` are multiples of `PACK`.
    unsafe fn store<S: Simd, const WHOLE: bool>(
        simd: S,
        to: *mut f32,
        e: usize,
        count: usize,
        value: S::f32s,
    );

    /// Makes one cell, outside of any dispatch.
    fn cell(first: f32, second: f32) -> f32;

    /// Makes cells of consecutive values.
    fn flat(values: &[f32]) -> Cow<'_, [f32]>;

    /// Makes cells of the values of `PACK` images: `[pixels, images, channels]` to
    /// `[pixels, images / PACK, channels]`.
    fn paired(values: &[f32], images: usize, channels: usize) -> Cow<'_, [f32]>;
}

/// One f32 in each cell.
pub(crate) struct Single;

impl Element for Single {
    const PACK: usize = 1;

    fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
        simd::dispatch(op)
    }

    #[inline(always)]
    unsafe fn multiply_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s {
        simd.mul_add_e_f32s(a, b, sum)
    }

    #[inline(always)]
    unsafe fn cells<S: Simd>(_: S, first: S::f32s, _: S::f32s) -> S::f32s {
        first
    }

    #[inline(always)]
    unsafe fn store<S: Simd, const WHOLE: bool>(
        simd: S,
        to: *mut f32,
        e: usize,
        count: usize,
        value: S::f32s,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            if WHOLE {
                vector::store(simd, to.add(e), value);
            } else {
                store_some(simd, to.add(e), count, value);
            }
        }
    }

    fn cell(first: f32, _: f32) -> f32 {
        first
    }

    fn flat(values: &[f32]) -> Cow<'_, [f32]> {
        Cow::Borrowed(values)
    }

    fn paired(values: &[f32], _: usize, _: usize) -> Cow<'_, [f32]> {
        Cow::Borrowed(values)
    }
}

/// Two bf16 in each cell, multiplied and summed by the instruction vdpbf16ps.
pub(crate) struct Half;

/// The bits of the nearest bf16, ties to even. NaN stays NaN.
#[inline(always)]
fn bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) | 0x40;
    }
    (bits + 0x7fff + ((bits >> 16) & 1)) >> 16
}

impl Element for Half {
    const PACK: usize = 2;

    fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
        simd::dispatch_bf16(op)
    }

    #[inline(always)]
    unsafe fn multiply_add<S: Simd>(_: S, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s {
        #[cfg(target_arch = "x86_64")]
        if S::F32_LANES == 16 {
            use std::arch::x86_64::_mm512_dpbf16_ps;
            use std::mem::transmute_copy;
            // SAFETY: inside the dispatch, so the processor has these instructions; all three types
            // are vectors of 64 bytes without invalid bits.
            return unsafe {
                transmute_copy(&_mm512_dpbf16_ps(
                    transmute_copy(&sum),
                    transmute_copy(&a),
                    transmute_copy(&b),
                ))
            };
        }
        let _ = (a, b, sum);
        unreachable!("bf16 is only used where the processor has bf16 products");
    }

    #[inline(always)]
    unsafe fn cells<S: Simd>(_: S, first: S::f32s, second: S::f32s) -> S::f32s {
        #[cfg(target_arch = "x86_64")]
        if S::F32_LANES == 16 {
            use std::arch::x86_64::{
                __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_si512, _mm512_permutexvar_epi16,
            };
            use std::mem::transmute_copy;
            const ORDER: [u16; 32] = {
                let mut order = [0; 32];
                let mut i = 0;
                while i < 32 {
                    order[i] = (i / 2 + i % 2 * 16) as u16;
                    i += 1;
                }
                order
            };
            // SAFETY: as in `multiply_add`; the order is 64 bytes.
            return unsafe {
                let both = _mm512_cvtne2ps_pbh(transmute_copy(&second), transmute_copy(&first));
                let both: __m512i = transmute_copy(&both);
                let order = _mm512_loadu_si512(ORDER.as_ptr().cast());
                transmute_copy(&_mm512_permutexvar_epi16(order, both))
            };
        }
        let _ = (first, second);
        unreachable!("bf16 is only used where the processor has bf16 products");
    }

    #[inline(always)]
    unsafe fn store<S: Simd, const WHOLE: bool>(
        _: S,
        to: *mut f32,
        e: usize,
        count: usize,
        value: S::f32s,
    ) {
        #[cfg(target_arch = "x86_64")]
        if S::F32_LANES == 16 {
            use std::arch::x86_64::_mm512_cvtneps_pbh;
            use std::mem::transmute_copy;
            // SAFETY: as in `multiply_add`; the caller promises room for 16 values, or `count`,
            // from value `e` on.
            unsafe {
                let halves: [u16; 16] = transmute_copy(&_mm512_cvtneps_pbh(transmute_copy(&value)));
                let to = to.cast::<u16>().add(e);
                if WHOLE {
                    to.cast::<[u16; 16]>().write_unaligned(halves);
                } else {
                    std::ptr::copy_nonoverlapping(halves.as_ptr(), to, count.min(16));
                }
            }
            return;
        }
        let _ = (to, e, count, value);
        unreachable!("bf16 is only used where the processor has bf16 products");
    }

    #[inline(always)]
    fn cell(first: f32, second: f32) -> f32 {
        f32::from_bits(bf16(first) | bf16(second) << 16)
    }

    fn flat(values: &[f32]) -> Cow<'_, [f32]> {
        assert!(
            values.len().is_multiple_of(2),
            "expected an even number of values, two for each cell, found {}",
            values.len()
        );
        let mut cells = Box::<[f32]>::new_uninit_slice(values.len() / 2);
        const CHUNK: usize = 1 << 14;
        cells
            .par_chunks_mut(CHUNK / 2)
            .zip(values.par_chunks(CHUNK))
            .for_each(|(cells, values)| Self::dispatch(Flat { cells, values }));
        // SAFETY: each chunk of values filled as many cells as half of its own, so all are written.
        Cow::Owned(unsafe { cells.assume_init() }.into_vec())
    }

    fn paired(values: &[f32], images: usize, channels: usize) -> Cow<'_, [f32]> {
        assert!(
            images.is_multiple_of(2) && values.len().is_multiple_of(images * channels),
            "expected an even number of images, two for each cell, found {images}"
        );
        let pixel = images * channels;
        if pixel == 0 {
            return Cow::Owned(Vec::new());
        }
        let mut cells = Box::<[f32]>::new_uninit_slice(values.len() / 2);
        let result = Shared::uninit(&mut cells);
        values
            .par_chunks(pixel)
            .enumerate()
            .for_each(|(index, values)| {
                // SAFETY: this pixel's cells begin there; half of its values fit.
                let cells = unsafe { result.at(index * pixel / 2) };
                Self::dispatch(Paired {
                    cells,
                    values,
                    channels,
                });
            });
        // SAFETY: whole pixels of whole pairs of images (asserted above): each pair filled its
        // cells.
        Cow::Owned(unsafe { cells.assume_init() }.into_vec())
    }
}

/// The task of [`Element::flat`].
struct Flat<'a> {
    cells: &'a mut [MaybeUninit<f32>],
    values: &'a [f32],
}

impl WithSimd for Flat<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { cells, values } = self;
        for e in (0..values.len()).step_by(S::F32_LANES) {
            let count = values.len() - e;
            let cells = cells.as_mut_ptr().cast::<f32>();
            // SAFETY: `count` values are left, an even number, and half as many cells (checked by
            // the chunks' lengths), which are only written.
            unsafe {
                let value = load_some(simd, values.as_ptr().add(e), count);
                if count >= S::F32_LANES {
                    Half::store::<S, true>(simd, cells, e, count, value);
                } else {
                    Half::store::<S, false>(simd, cells, e, count, value);
                }
            }
        }
    }
}

/// The task of [`Element::paired`] for one pixel.
struct Paired<'a> {
    /// Room for half as many cells as there are values.
    cells: *mut f32,
    values: &'a [f32],
    channels: usize,
}

impl WithSimd for Paired<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            cells,
            values,
            channels,
        } = self;
        for (pair, rows) in values.chunks_exact(2 * channels).enumerate() {
            for c in (0..channels).step_by(S::F32_LANES) {
                let count = channels - c;
                // SAFETY: both rows have `count` values from `c` on, and the pair has room for as
                // many cells.
                unsafe {
                    let first = load_some(simd, rows.as_ptr().add(c), count);
                    let second = load_some(simd, rows.as_ptr().add(channels + c), count);
                    let both = Half::cells(simd, first, second);
                    store_some(simd, cells.add(pair * channels + c), count, both);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_the_nearest_bf16() {
        let step = 1.0 / 128.0;
        let halves = [
            (1.0, 1.0),
            (1.0 + 0.5 * step, 1.0),
            (1.0 + 1.5 * step, 1.0 + 2.0 * step),
            (-1.0 - 0.51 * step, -1.0 - step),
        ];
        for (value, expected) in halves {
            assert_eq!(f32::from_bits(bf16(value) << 16), expected);
        }
        assert!(f32::from_bits(bf16(f32::NAN) << 16).is_nan());
        assert_eq!(f32::from_bits(bf16(f32::INFINITY) << 16), f32::INFINITY);
    }

    #[test]
    fn vectors_are_rounded_like_single_values() {
        if !simd::has_bf16_vectors() {
            eprintln!("skipped: this processor has no bf16 products");
            return;
        }
        let values: Vec<f32> = (0..6 * 34).map(|i| (i as f32 * 0.7).sin() * 1e3).collect();
        for (i, cell) in Half::flat(&values).iter().enumerate() {
            let expected = Half::cell(values[2 * i], values[2 * i + 1]);
            assert_eq!(cell.to_bits(), expected.to_bits());
        }
        // Two images of three pixels, 34 channels.
        for (i, cell) in Half::paired(&values, 2, 34).iter().enumerate() {
            let at = i / 34 * 68 + i % 34;
            let expected = Half::cell(values[at], values[at + 34]);
            assert_eq!(cell.to_bits(), expected.to_bits());
        }
    }
}
