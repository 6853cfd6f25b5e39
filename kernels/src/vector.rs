//! Loads and stores of vectors, whole or in part, and ReLU.

use pulp::Simd;

/// Loads a vector, at any alignment.
///
/// # Safety
/// `at` has `LANES` initialised values.
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(_: S, at: *const f32) -> S::f32s {
    // SAFETY: vectors of floats have no invalid bits, and the caller promises the values.
    unsafe { at.cast::<S::f32s>().read_unaligned() }
}

/// Stores a vector, at any alignment.
///
/// # Safety
/// `at` has room for `LANES` values, and no other thread touches them.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd>(_: S, at: *mut f32, value: S::f32s) {
    // SAFETY: the caller's promise.
    unsafe { at.cast::<S::f32s>().write_unaligned(value) }
}

/// Loads the first `count` values, and zeros for the rest of the vector. Loads a whole vector where
/// `count` is at least `LANES`.
///
/// # Safety
/// `at` has `count` initialised values, or `LANES` where that is less.
#[inline(always)]
pub(crate) unsafe fn load_some<S: Simd>(simd: S, at: *const f32, count: usize) -> S::f32s {
    // SAFETY: the caller's promise.
    unsafe {
        if count >= S::F32_LANES {
            load(simd, at)
        } else {
            simd.partial_load_f32s(std::slice::from_raw_parts(at, count))
        }
    }
}

/// Stores the first `count` values of a vector, or all where `count` is at least `LANES`.
///
/// # Safety
/// `at` has room for `count` values, or `LANES` where that is less, and no other thread touches
/// them.
#[inline(always)]
pub(crate) unsafe fn store_some<S: Simd>(simd: S, at: *mut f32, count: usize, value: S::f32s) {
    // SAFETY: the caller's promise; the mask has the lanes of these values.
    unsafe {
        if count >= S::F32_LANES {
            store(simd, at, value);
        } else {
            // Not through a slice of `f32`: the values there may be uninitialised.
            let first = simd.mask_between_m32s(0, count as u32);
            simd.mask_store_ptr_f32s(first, at, value);
        }
    }
}

/// Selects `value` where `y` is positive, and zero elsewhere: ReLU where `value` is `y`, its
/// gradient where `value` is the output's. Also selects `value` where `y` is NaN, so that a
/// diverged network shows.
#[inline(always)]
pub(crate) fn relu_gate<S: Simd>(simd: S, y: S::f32s, value: S::f32s) -> S::f32s {
    let zero = simd.splat_f32s(0.0);
    simd.select_f32s(simd.less_than_or_equal_f32s(y, zero), zero, value)
}
