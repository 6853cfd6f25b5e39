//! The transforms from activations to planes and back, over `batch × channels`.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};

use super::tiling::{POSITIONS, SIDE, SPAN, Tiling};
use super::transform::{both_sides, input_transform, output_adjoint, output_transform};
use crate::element::Element;
use crate::epilogue::PreparedEpilogue;
use crate::memory::Shared;
use crate::vector::{load, load_some, store, store_some};

/// Which tensor is transformed to planes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operand {
    /// The input; for the gradient of the input, the output's gradient, which takes its place.
    Input,
    /// The output's gradient for the gradient of the weight, by the transpose of the output's
    /// transform.
    OutputGradient,
}

/// Applies an operand's transform to a tile: `$read` gets the pixel's index in the tile, `$write`
/// the position's. See [`both_sides`].
macro_rules! transformed {
    ($simd:ident, $operand:expr, |$pixel:ident| $read:expr, |$position:ident, $value:ident| $write:expr) => {
        match $operand {
            Operand::Input => both_sides!($simd, input_transform: SPAN => SPAN,
                |a, b| { let $pixel = a * SPAN + b; $read },
                |a, b, $value| { let $position = a * SPAN + b; $write }),
            Operand::OutputGradient => both_sides!($simd, output_adjoint: SIDE => SPAN,
                |a, b| { let $pixel = a * SIDE + b; $read },
                |a, b, $value| { let $position = a * SPAN + b; $write }),
        }
    };
}

/// The transform of some rows of an activation to 36 planes of cells.
pub(super) struct ToPlanes<'a, E> {
    pub tiling: Tiling,
    /// Values per pixel and image. Where a row holds two images, a multiple of the vector's lanes.
    pub channels: usize,
    pub source: &'a [f32],
    /// Values of a pixel outside the image: zeros, as many as a pixel of all images has.
    pub zeros: &'a [f32],
    /// First row, and the one behind the last.
    pub rows: (usize, usize),
    /// Start of the first row in the first plane.
    pub planes: *mut f32,
    /// Distance between two planes, in cells.
    pub stride: usize,
    pub operand: Operand,
    pub element: PhantomData<E>,
}

impl<E: Element> WithSimd for ToPlanes<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            tiling,
            channels,
            source,
            zeros,
            rows,
            planes,
            stride,
            operand,
            ..
        } = self;
        // The input's tile begins one pixel before the output's.
        let (span, skip) = match operand {
            Operand::Input => (SPAN, 1),
            Operand::OutputGradient => (SIDE, 0),
        };
        for run in tiling.runs(rows.0, rows.1) {
            let mut pixels = [zeros.as_ptr(); POSITIONS];
            for a in 0..span {
                for b in 0..span {
                    let at = (run.y + a)
                        .checked_sub(skip)
                        .zip((run.x + b).checked_sub(skip));
                    let offset = at.and_then(|(y, x)| tiling.offset(y, x, channels));
                    if let Some(offset) = offset {
                        pixels[a * span + b] = source[offset + run.image * channels..].as_ptr();
                    }
                }
            }
            let len = run.images * channels;
            let whole = len - len % S::F32_LANES;
            // SAFETY: each pixel has `len` values for this run's images, and there are at least as
            // many zeros; each plane has room for this block's rows, which this task alone writes.
            unsafe {
                if tiling.is_paired() {
                    let to = planes.add(run.row * channels);
                    for pair in 0..run.images / 2 {
                        for c in (0..channels).step_by(S::F32_LANES) {
                            let first = 2 * pair * channels + c;
                            let to = to.add(pair * channels + c);
                            transform_pair::<E, S>(
                                simd, &pixels, first, channels, to, stride, operand,
                            );
                        }
                    }
                    continue;
                }
                let to = planes.add(run.row * channels / E::PACK);
                for e in (0..whole).step_by(S::F32_LANES) {
                    transform::<E, S, true>(simd, &pixels, e, S::F32_LANES, to, stride, operand);
                }
                if whole < len {
                    transform::<E, S, false>(
                        simd,
                        &pixels,
                        whole,
                        len - whole,
                        to,
                        stride,
                        operand,
                    );
                }
            }
        }
    }
}

/// Transforms one vector of a tile's values from value `e` on; the first `count` where it is not
/// `WHOLE`.
///
/// # Safety
/// Inside `E`'s dispatch. Each of the pixels has `count` values from `e` on; each plane has room
/// for them from value `e` behind `to` on, and no other thread touches it.
#[inline(always)]
unsafe fn transform<E: Element, S: Simd, const WHOLE: bool>(
    simd: S,
    pixels: &[*const f32; POSITIONS],
    e: usize,
    count: usize,
    to: *mut f32,
    stride: usize,
    operand: Operand,
) {
    // SAFETY: the caller's promise.
    unsafe {
        transformed!(
            simd,
            operand,
            |pixel| get::<S, WHOLE>(simd, pixels[pixel].add(e), count),
            |position, value| E::store::<S, WHOLE>(
                simd,
                to.add(position * stride),
                e,
                count,
                value
            )
        );
    }
}

/// Transforms one vector of a tile's values for each of two images, `apart` from each other, to
/// cells of both.
///
/// # Safety
/// Inside `E`'s dispatch. Each of the pixels has a vector at `first` and at `first + apart`; each
/// plane has room for one at `to`, and no other thread touches it.
#[inline(always)]
unsafe fn transform_pair<E: Element, S: Simd>(
    simd: S,
    pixels: &[*const f32; POSITIONS],
    first: usize,
    apart: usize,
    to: *mut f32,
    stride: usize,
    operand: Operand,
) {
    let mut of_first = [MaybeUninit::<S::f32s>::uninit(); POSITIONS];
    // SAFETY: the caller's promise; the first transform writes all of `of_first`, the second reads
    // it.
    unsafe {
        transformed!(
            simd,
            operand,
            |pixel| load(simd, pixels[pixel].add(first)),
            |position, value| {
                of_first[position].write(value);
            }
        );
        transformed!(
            simd,
            operand,
            |pixel| load(simd, pixels[pixel].add(first + apart)),
            |position, value| {
                let cells = E::cells(simd, of_first[position].assume_init(), value);
                store(simd, to.add(position * stride), cells);
            }
        );
    }
}

/// Loads a vector where it is `WHOLE`, else its first `count` values and zeros.
///
/// # Safety
/// As for [`load`] or [`load_some`].
#[inline(always)]
unsafe fn get<S: Simd, const WHOLE: bool>(simd: S, at: *const f32, count: usize) -> S::f32s {
    // SAFETY: the caller's promise.
    unsafe {
        if WHOLE {
            load(simd, at)
        } else {
            load_some(simd, at, count)
        }
    }
}

/// Stores a vector where it is `WHOLE`, else its first `count` values.
///
/// # Safety
/// As for [`store`] or [`store_some`].
#[inline(always)]
unsafe fn put<S: Simd, const WHOLE: bool>(simd: S, at: *mut f32, count: usize, value: S::f32s) {
    // SAFETY: the caller's promise.
    unsafe {
        if WHOLE {
            store(simd, at, value);
        } else {
            store_some(simd, at, count, value);
        }
    }
}

/// The transform of 36 planes back to some rows of an activation, and the epilogue.
pub(super) struct FromPlanes<'a> {
    pub tiling: Tiling,
    /// Values per pixel and image of the result.
    pub channels: usize,
    /// Start of the first row in the first plane.
    pub planes: *const f32,
    /// Distance between two planes.
    pub stride: usize,
    /// First row, and the one behind the last.
    pub rows: (usize, usize),
    /// The whole result.
    pub result: Shared,
    pub epilogue: Option<&'a PreparedEpilogue<'a>>,
}

impl WithSimd for FromPlanes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            tiling,
            channels,
            planes,
            stride,
            rows,
            result,
            epilogue,
        } = self;
        for run in tiling.runs(rows.0, rows.1) {
            let len = run.images * channels;
            // Tiles at the border reach beyond the image.
            let mut pixels = [OUTSIDE; SIDE * SIDE];
            for a in 0..SIDE.min(tiling.height - run.y) {
                for b in 0..SIDE.min(tiling.width - run.x) {
                    let pixel = (run.y + a) * tiling.width + run.x + b;
                    pixels[a * SIDE + b] = (pixel * tiling.batch + run.image) * channels;
                }
            }
            let whole = len - len % S::F32_LANES;
            // SAFETY: each plane has this block's rows, all written; this task alone touches this
            // run's images at the tile's pixels, and those that are not `OUTSIDE` are pixels of the
            // result, and so of the residual.
            unsafe {
                let from = planes.add(run.row * channels);
                // A run begins with an image, so with the first channel.
                let mut p = 0;
                for e in (0..whole).step_by(S::F32_LANES) {
                    let last = epilogue.map(|epilogue| (epilogue, p));
                    transform_back::<S, true>(
                        simd,
                        from.add(e),
                        stride,
                        &pixels,
                        e,
                        len,
                        result,
                        last,
                    );
                    p = match epilogue {
                        Some(epilogue) if p + S::F32_LANES < epilogue.shift.len() => {
                            p + S::F32_LANES
                        }
                        _ => 0,
                    };
                }
                if whole < len {
                    let last = epilogue.map(|epilogue| (epilogue, p));
                    transform_back::<S, false>(
                        simd,
                        from.add(whole),
                        stride,
                        &pixels,
                        whole,
                        len,
                        result,
                        last,
                    );
                }
            }
        }
    }
}

/// Marks a pixel outside the image, in place of an offset.
const OUTSIDE: usize = usize::MAX;

/// Transforms a tile's values from value `e` on, a vector or the rest of `len`, back to the pixels
/// that are not [`OUTSIDE`].
///
/// # Safety
/// Each plane has these values at `from`. Each of the pixels has them in the result, where no other
/// thread touches them, and in a residual.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn transform_back<S: Simd, const WHOLE: bool>(
    simd: S,
    from: *const f32,
    stride: usize,
    pixels: &[usize; SIDE * SIDE],
    e: usize,
    len: usize,
    result: Shared,
    epilogue: Option<(&PreparedEpilogue, usize)>,
) {
    let count = len - e;
    // SAFETY: the caller's promise.
    unsafe {
        both_sides!(simd, output_transform: SPAN => SIDE,
        |a, b| get::<S, WHOLE>(simd, from.add((a * SPAN + b) * stride), count),
        |a, b, value| {
            let pixel = pixels[a * SIDE + b];
            if pixel != OUTSIDE {
                let value = match epilogue {
                    Some((epilogue, p)) => epilogue.apply(simd, value, p, pixel + e, count),
                    None => value,
                };
                put::<S, WHOLE>(simd, result.at(pixel + e), count, value);
            }
        });
    }
}
