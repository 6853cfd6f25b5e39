//! Pictures into planes and back: the transforms over `batch × channels`.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};

use super::*;
use crate::element::Element;
use crate::memory::Shared;
use crate::then::Then;
use crate::tile::{load, load_some, store, store_some};

/// What is spread.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The input, or on the way back what plays its part.
    Input,
    /// The gradient of the output, by the way back of the output's transform.
    Gradient,
}

/// The transform of a kind: reads by the pixel's number in the tile, writes by the place's. See [`both_sides`].
macro_rules! transformed {
    ($simd:ident, $kind:expr, |$pixel:ident| $read:expr, |$place:ident, $value:ident| $write:expr) => {
        match $kind {
            Kind::Input => both_sides!($simd, input_transform: SPAN => SPAN,
                |a, b| { let $pixel = a * SPAN + b; $read },
                |a, b, $value| { let $place = a * SPAN + b; $write }),
            Kind::Gradient => both_sides!($simd, output_adjoint: SIDE => SPAN,
                |a, b| { let $pixel = a * SIDE + b; $read },
                |a, b, $value| { let $place = a * SPAN + b; $write }),
        }
    };
}

/// Transforms rows `from..to` of a picture into 36 planes of cells.
pub(super) struct Spread<'a, E> {
    pub tiling: Tiling,
    /// Of a picture of two images a row, a multiple of the vector's lanes.
    pub channels: usize,
    pub source: &'a [f32],
    /// What lies outside the picture: as many zeros as a pixel has values.
    pub zeros: &'a [f32],
    pub rows: (usize, usize),
    /// Where the first row goes in the first plane.
    pub planes: *mut f32,
    /// From plane to plane, in cells.
    pub stride: usize,
    pub kind: Kind,
    pub element: PhantomData<E>,
}

impl<E: Element> WithSimd for Spread<'_, E> {
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
            kind,
            ..
        } = self;
        // The input's tile begins one pixel before the output's.
        let (span, skip) = match kind {
            Kind::Input => (SPAN, 1),
            Kind::Gradient => (SIDE, 0),
        };
        for run in tiling.runs(rows.0, rows.1) {
            let mut pixels = [zeros.as_ptr(); PLACES];
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
            // SAFETY: each pixel has `len` values for this run's images, and there are as many zeros; each plane has
            // room for this block's rows, and nobody else writes them.
            unsafe {
                if tiling.pack > 1 {
                    let to = planes.add(run.row * channels);
                    for pair in 0..run.images / 2 {
                        for c in (0..channels).step_by(S::F32_LANES) {
                            let first = 2 * pair * channels + c;
                            let to = to.add(pair * channels + c);
                            spread_pair::<E, S>(simd, &pixels, first, channels, to, stride, kind);
                        }
                    }
                    continue;
                }
                let to = planes.add(run.row * channels / E::PACK);
                for e in (0..whole).step_by(S::F32_LANES) {
                    spread::<E, S, true>(simd, &pixels, e, S::F32_LANES, to, stride, kind);
                }
                if whole < len {
                    spread::<E, S, false>(simd, &pixels, whole, len - whole, to, stride, kind);
                }
            }
        }
    }
}

/// One vector's values of a tile, `count` of them where it is not `WHOLE`, from `e` on.
///
/// # Safety
/// Each of the pixels has `count` values from `e` on, and each plane as many at `to`, for us alone.
#[inline(always)]
unsafe fn spread<E: Element, S: Simd, const WHOLE: bool>(
    simd: S,
    pixels: &[*const f32; PLACES],
    e: usize,
    count: usize,
    to: *mut f32,
    stride: usize,
    kind: Kind,
) {
    // SAFETY: the caller's promise.
    unsafe {
        transformed!(
            simd,
            kind,
            |pixel| get::<S, WHOLE>(simd, pixels[pixel].add(e), count),
            |place, value| E::put::<S, WHOLE>(simd, to.add(place * stride), e, count, value)
        );
    }
}

/// A vector's values of two images, `apart` from each other, into cells of both.
///
/// # Safety
/// Each of the pixels has a vector at `first` and at `first + apart`, and each plane one at `to`, for us alone.
#[inline(always)]
unsafe fn spread_pair<E: Element, S: Simd>(
    simd: S,
    pixels: &[*const f32; PLACES],
    first: usize,
    apart: usize,
    to: *mut f32,
    stride: usize,
    kind: Kind,
) {
    let mut kept = [MaybeUninit::<S::f32s>::uninit(); PLACES];
    // SAFETY: the caller's promise; `kept` is written as a whole before it is read.
    unsafe {
        transformed!(
            simd,
            kind,
            |pixel| load(simd, pixels[pixel].add(first)),
            |place, value| {
                kept[place].write(value);
            }
        );
        transformed!(
            simd,
            kind,
            |pixel| load(simd, pixels[pixel].add(first + apart)),
            |place, value| {
                let cells = E::cells(simd, kept[place].assume_init(), value);
                store(simd, to.add(place * stride), cells);
            }
        );
    }
}

/// A vector, or its first `count` values and zeros.
///
/// # Safety
/// The values are there.
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

/// Writes a vector, or its first `count` values.
///
/// # Safety
/// The values are there, for us alone.
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

/// Transforms 36 planes back into rows `from..to` of a picture, and does what follows the convolution.
pub(super) struct Gather<'a> {
    pub tiling: Tiling,
    pub channels: usize,
    pub planes: *const f32,
    pub stride: usize,
    pub rows: (usize, usize),
    pub result: Shared,
    pub then: Option<&'a Then<'a>>,
}

impl WithSimd for Gather<'_> {
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
            then,
        } = self;
        for run in tiling.runs(rows.0, rows.1) {
            let len = run.images * channels;
            // Tiles at the border reach over it.
            let mut pixels = [OUTSIDE; SIDE * SIDE];
            for a in 0..SIDE.min(tiling.height - run.y) {
                for b in 0..SIDE.min(tiling.width - run.x) {
                    let pixel = (run.y + a) * tiling.width + run.x + b;
                    pixels[a * SIDE + b] = (pixel * tiling.batch + run.image) * channels;
                }
            }
            let whole = len - len % S::F32_LANES;
            // SAFETY: as in `Spread`; the pixels of this run's images belong to this task alone, and those that are not
            // outside are inside the picture, and so inside the residual.
            unsafe {
                let from = planes.add(run.row * channels);
                // The run begins with an image, so with the period.
                let mut p = 0;
                for e in (0..whole).step_by(S::F32_LANES) {
                    let last = then.map(|then| (then, p));
                    gather::<S, true>(simd, from.add(e), stride, &pixels, e, len, result, last);
                    p = match then {
                        Some(then) if p + S::F32_LANES < then.shift.len() => p + S::F32_LANES,
                        _ => 0,
                    };
                }
                if whole < len {
                    let (from, last) = (from.add(whole), then.map(|then| (then, p)));
                    gather::<S, false>(simd, from, stride, &pixels, whole, len, result, last);
                }
            }
        }
    }
}

/// In place of an offset.
const OUTSIDE: usize = usize::MAX;

/// The values of a tile from `e` on, a vector or what is left of `len`, to the pixels that are not outside.
///
/// # Safety
/// Each plane has these values at `from`, and so has each pixel of the result, for us alone, and of a residual.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn gather<S: Simd, const WHOLE: bool>(
    simd: S,
    from: *const f32,
    stride: usize,
    pixels: &[usize; SIDE * SIDE],
    e: usize,
    len: usize,
    result: Shared,
    then: Option<(&Then, usize)>,
) {
    let count = len - e;
    // SAFETY: the caller's promise.
    unsafe {
        both_sides!(simd, output_transform: SPAN => SIDE,
        |a, b| get::<S, WHOLE>(simd, from.add((a * SPAN + b) * stride), count),
        |a, b, value| {
            let pixel = pixels[a * SIDE + b];
            if pixel != OUTSIDE {
                let value = match then {
                    Some((then, p)) => then.apply(simd, value, p, pixel + e, count),
                    None => value,
                };
                put::<S, WHOLE>(simd, result.at(pixel + e), count, value);
            }
        });
    }
}
