//! A convolution by its definition, and what tests compare with it. The unit tests of the AMX tiles
//! include this file, too.

use super::Convolution;

/// Pseudo-random numbers in [-1, 1) that depend on `seed` alone.
pub fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// The relative error ‖a − b‖ / ‖b‖, or ‖a − b‖ where b is zero.
pub fn error(ours: &[f32], reference: &[f64]) -> f64 {
    assert_eq!(ours.len(), reference.len());
    let difference: f64 = ours
        .iter()
        .zip(reference)
        .map(|(a, b)| (f64::from(*a) - b).powi(2))
        .sum();
    let size: f64 = reference.iter().map(|b| b * b).sum();
    if size > 0.0 {
        (difference / size).sqrt()
    } else {
        difference.sqrt()
    }
}

/// The products of a convolution by its definition: calls `each(x index, w index, y index)` for
/// each.
pub fn products(conv: &Convolution, mut each: impl FnMut(usize, usize, usize)) {
    let (i, o) = (conv.input, conv.output());
    let (k, pad) = (conv.kernel, conv.kernel / 2);
    for (oy, ox, ky, kx) in (0..o.height)
        .flat_map(|y| (0..o.width).flat_map(move |x| (0..k * k).map(move |t| (y, x, t / k, t % k))))
    {
        let (Some(iy), Some(ix)) = (
            (oy * conv.stride + ky).checked_sub(pad),
            (ox * conv.stride + kx).checked_sub(pad),
        ) else {
            continue;
        };
        if iy >= i.height || ix >= i.width {
            continue;
        }
        for n in 0..i.batch {
            for ic in 0..i.channels {
                for oc in 0..o.channels {
                    each(
                        ((iy * i.width + ix) * i.batch + n) * i.channels + ic,
                        ((oc * i.channels + ic) * k + ky) * k + kx,
                        ((oy * o.width + ox) * o.batch + n) * o.channels + oc,
                    );
                }
            }
        }
    }
}
