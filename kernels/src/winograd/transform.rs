//! The transforms of one line of a tile, and the macro that applies one of them to both dimensions.

use pulp::Simd;

/// Computes `Bᵀ d`.
#[inline(always)]
pub(super) fn input_transform<S: Simd>(s: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
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

/// Computes `Aᵀ m`.
#[inline(always)]
pub(super) fn output_transform<S: Simd>(s: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
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

/// Computes `A y`, the transpose of [`output_transform`].
#[inline(always)]
pub(super) fn output_adjoint<S: Simd>(s: S, y: [S::f32s; 4]) -> [S::f32s; 6] {
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

/// Computes `G g`.
#[inline(always)]
pub(super) fn kernel_transform<S: Simd>(s: S, g: [S::f32s; 3]) -> [S::f32s; 6] {
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

/// Computes `Gᵀ u`, the transpose of [`kernel_transform`].
#[inline(always)]
pub(super) fn kernel_adjoint<S: Simd>(s: S, u: [S::f32s; 6]) -> [S::f32s; 3] {
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

/// Applies a line's transform to every column of a tile, then to every row of the result.
///
/// A macro, because closures are not compiled with the instruction set of the function around them.
/// The intermediate matrix does not fit into the registers: it goes to the stack value by value,
/// never as a whole.
///
/// Used in an unsafe block, whose reason covers `$read` and `$write`. The macro's own unsafe code
/// reads only values of the intermediate matrix that it wrote before: all of them, column by
/// column.
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

pub(super) use both_sides;
