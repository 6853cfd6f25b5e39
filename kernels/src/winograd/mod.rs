//! Winograd's F(4 × 4, 3 × 3) (Lavin and Gray, CVPR 2016) for stride 1: 36 products where the direct sum takes 144.
//!
//! A tile is 4 × 4 output pixels of one image. Its 6 × 6 input pixels are transformed (`Bᵀ d B`), as are the
//! kernels (`G g Gᵀ`); at each of the 36 places the product is then a matrix product over channels, and what comes
//! out is transformed back (`Aᵀ m A`). The transforms are plain vector code over `batch × channels`.

// Both indices of a transform's half-way matrix are used, one of them in its columns: iterators would hide which.
#![allow(clippy::needless_range_loop)]

use pulp::Simd;

use crate::shape::Activation;

/// Output pixels of a tile's side.
const SIDE: usize = 4;
/// Input pixels of a tile's side.
const SPAN: usize = 6;
/// Places.
const PLACES: usize = SPAN * SPAN;
/// Between the planes of two places: without it their addresses would collide in the caches.
const GAP: usize = 80;

/// Bytes of planes that a thread works on at a time.
const CACHED: usize = 300_000;

/// Input times output channels from which the planes of all rows are made at once and the threads take places. Small
/// under Miri, so that what it can finish reaches that code.
const WIDE: usize = if cfg!(miri) { 8 * 16 } else { 256 * 256 };
/// Input times output channels up to which the groups of a weight's gradient are summed apart.
const NARROW: usize = if cfg!(miri) { 8 * 8 } else { 64 * 64 };

/// Bᵀ d
#[inline(always)]
fn input_transform<S: Simd>(s: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
    let k = |value| s.splat_f32s(value);
    let e = s.mul_add_e_f32s(k(-4.0), d[2], d[4]);
    let f = s.mul_add_e_f32s(k(-4.0), d[1], d[3]);
    let g = s.sub_f32s(d[4], d[2]);
    let h = s.sub_f32s(d[3], d[1]);
    [
        s.mul_add_e_f32s(k(4.0), d[0], s.mul_add_e_f32s(k(-5.0), d[2], d[4])),
        s.add_f32s(e, f),
        s.sub_f32s(e, f),
        s.mul_add_e_f32s(k(2.0), h, g),
        s.mul_add_e_f32s(k(-2.0), h, g),
        s.mul_add_e_f32s(k(4.0), d[1], s.mul_add_e_f32s(k(-5.0), d[3], d[5])),
    ]
}

/// Aᵀ m
#[inline(always)]
fn output_transform<S: Simd>(s: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
    let k = |value| s.splat_f32s(value);
    let (sum, difference) = (s.add_f32s(m[1], m[2]), s.sub_f32s(m[1], m[2]));
    let (sum2, difference2) = (s.add_f32s(m[3], m[4]), s.sub_f32s(m[3], m[4]));
    [
        s.add_f32s(m[0], s.add_f32s(sum, sum2)),
        s.mul_add_e_f32s(k(2.0), difference2, difference),
        s.mul_add_e_f32s(k(4.0), sum2, sum),
        s.add_f32s(m[5], s.mul_add_e_f32s(k(8.0), difference2, difference)),
    ]
}

/// A y: the way back of [`output_transform`].
#[inline(always)]
fn output_adjoint<S: Simd>(s: S, y: [S::f32s; 4]) -> [S::f32s; 6] {
    let k = |value| s.splat_f32s(value);
    let (e, f) = (s.add_f32s(y[0], y[2]), s.add_f32s(y[1], y[3]));
    let g = s.mul_add_e_f32s(k(4.0), y[2], y[0]);
    let h = s.mul_add_e_f32s(k(4.0), y[3], y[1]);
    [
        y[0],
        s.add_f32s(e, f),
        s.sub_f32s(e, f),
        s.mul_add_e_f32s(k(2.0), h, g),
        s.mul_add_e_f32s(k(-2.0), h, g),
        y[3],
    ]
}

/// G g
#[inline(always)]
fn kernel_transform<S: Simd>(s: S, g: [S::f32s; 3]) -> [S::f32s; 6] {
    let k = |value: f32| s.splat_f32s(value);
    let sixth = s.mul_f32s(k(-1.0 / 6.0), s.add_f32s(g[0], g[2]));
    let rest = s.mul_add_e_f32s(k(1.0 / 24.0), g[0], s.mul_f32s(k(1.0 / 6.0), g[2]));
    [
        s.mul_f32s(k(0.25), g[0]),
        s.mul_add_e_f32s(k(-1.0 / 6.0), g[1], sixth),
        s.mul_add_e_f32s(k(1.0 / 6.0), g[1], sixth),
        s.mul_add_e_f32s(k(1.0 / 12.0), g[1], rest),
        s.mul_add_e_f32s(k(-1.0 / 12.0), g[1], rest),
        g[2],
    ]
}

/// Gᵀ u: the way back of [`kernel_transform`].
#[inline(always)]
fn kernel_adjoint<S: Simd>(s: S, u: [S::f32s; 6]) -> [S::f32s; 3] {
    let k = |value: f32| s.splat_f32s(value);
    let (sum, difference) = (s.add_f32s(u[1], u[2]), s.sub_f32s(u[2], u[1]));
    let (sum2, difference2) = (s.add_f32s(u[3], u[4]), s.sub_f32s(u[3], u[4]));
    let low = s.mul_add_e_f32s(k(-1.0 / 6.0), sum, s.mul_f32s(k(1.0 / 24.0), sum2));
    let high = s.mul_add_e_f32s(k(-1.0 / 6.0), sum, u[5]);
    [
        s.mul_add_e_f32s(k(0.25), u[0], low),
        s.mul_add_e_f32s(
            k(1.0 / 12.0),
            difference2,
            s.mul_f32s(k(1.0 / 6.0), difference),
        ),
        s.mul_add_e_f32s(k(1.0 / 6.0), sum2, high),
    ]
}

/// Applies a line's transform to every column, then to every row of what comes out. A macro, because closures are
/// not compiled with the instruction set of the function around them, and the half-way matrix does not fit the
/// registers: it goes to the stack value by value, never as a whole.
macro_rules! both_sides {
    ($simd:ident, $line:ident: $from:expr => $to:expr, |$a:ident, $b:ident| $read:expr,
     |$c:ident, $d:ident, $value:ident| $write:expr) => {{
        let mut half = [std::mem::MaybeUninit::<S::f32s>::uninit(); $from * $to];
        for $b in 0..$from {
            let mut column = [$simd.splat_f32s(0.0); $from];
            for $a in 0..$from {
                column[$a] = $read;
            }
            let column = $line($simd, column);
            for a in 0..$to {
                half[a * $from + $b].write(column[a]);
            }
        }
        for $c in 0..$to {
            let mut line = [$simd.splat_f32s(0.0); $from];
            for b in 0..$from {
                line[b] = half[$c * $from + b].assume_init();
            }
            let line = $line($simd, line);
            for $d in 0..$to {
                let $value = line[$d];
                $write;
            }
        }
    }};
}

// After the macro, which they use.
mod convolve;
mod planes;
mod weight;

pub(crate) use convolve::{convolve, kernels};
pub(crate) use weight::weight_gradient;

/// Products of matrices that a picture of this size takes.
pub(crate) fn products(height: usize, width: usize) -> usize {
    height.div_ceil(SIDE) * width.div_ceil(SIDE) * PLACES
}

/// How a picture is cut into tiles. A row is one tile of one image, or of two where a cell holds a value of each; all
/// images of a tile follow each other.
#[derive(Clone, Copy)]
struct Tiling {
    height: usize,
    width: usize,
    batch: usize,
    /// Images a row.
    pack: usize,
}

/// Consecutive images of one tile.
struct Run {
    y: usize,
    x: usize,
    /// The first image.
    image: usize,
    images: usize,
    /// The first row, counted from the block's start.
    row: usize,
}

impl Tiling {
    fn new(shape: &Activation, pack: usize) -> Self {
        Self {
            height: shape.height,
            width: shape.width,
            batch: shape.batch,
            pack,
        }
    }

    fn across(&self) -> usize {
        self.width.div_ceil(SIDE)
    }

    /// Rows of a tile.
    fn height_of_tile(&self) -> usize {
        self.batch / self.pack
    }

    fn rows(&self) -> usize {
        self.height.div_ceil(SIDE) * self.across() * self.height_of_tile()
    }

    /// The runs that make up rows `from..to`.
    #[inline(always)]
    fn runs(self, from: usize, to: usize) -> impl Iterator<Item = Run> {
        let mut row = from;
        std::iter::from_fn(move || {
            if row >= to {
                return None;
            }
            let (tile, within) = (row / self.height_of_tile(), row % self.height_of_tile());
            let rows = (self.height_of_tile() - within).min(to - row);
            let (y, x) = (tile / self.across() * SIDE, tile % self.across() * SIDE);
            let run = Run {
                y,
                x,
                image: within * self.pack,
                images: rows * self.pack,
                row: row - from,
            };
            row += rows;
            Some(run)
        })
    }

    /// Where the pixel at (`y`, `x`) starts, for `channels` values an image; none outside the picture.
    #[inline(always)]
    fn offset(&self, y: usize, x: usize, channels: usize) -> Option<usize> {
        (y < self.height && x < self.width).then(|| (y * self.width + x) * self.batch * channels)
    }
}
