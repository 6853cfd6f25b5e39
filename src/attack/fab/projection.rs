//! FAB's projection: onto a hyperplane inside the box of all images.

use crate::attack::Norm;

/// Shortest change that brings `point` onto a hyperplane without leaving [0, 1]: FAB's projection (the paper, section 3.1).
/// Where the plane does not meet the box, the change leads into the corner next to it.
///
/// `residual` is ⟨slope, point⟩ less the plane's offset. A value moves against `slope` by λ (L∞) or λ |slope| (L2), and no
/// further than its room; what all of them gain together is a concave, piecewise linear function of λ, so Newton's method
/// from 0 comes up to the residual from below and ends at the exact λ after a few rounds. The released code sorts instead.
pub(crate) fn shift_to_plane(norm: Norm, point: &[f32], slope: &[f32], residual: f64) -> Vec<f32> {
    let side = if residual < 0.0 { -1.0 } else { 1.0 };
    // For one value: how much a step gains by it, its speed, and its room.
    let value = |(x, w): (&f32, &f32)| {
        let (x, w) = (f64::from(*x), f64::from(*w) * side);
        let steepness = w.abs();
        let speed = match norm {
            Norm::Linf => 1.0,
            Norm::L2 => steepness,
        };
        let room = if w > 0.0 { x } else { 1.0 - x };
        (steepness, speed, room)
    };
    let pairs = || point.iter().zip(slope);
    let mut lambda = 0.0;
    loop {
        let (mut rate, mut spent) = (0.0, 0.0);
        for (steepness, speed, room) in pairs().map(value) {
            let going = lambda * speed < room;
            rate += if going { steepness * speed } else { 0.0 };
            spent += if going { 0.0 } else { steepness * room };
        }
        if rate == 0.0 {
            lambda = f64::INFINITY;
            break;
        }
        let next = (residual.abs() - spent) / rate;
        // Also where a gradient is not finite: then there is no plane.
        if next.is_nan() || next <= lambda {
            break;
        }
        lambda = next;
    }
    let shift = |(x, w): (&f32, &f32)| {
        if *w == 0.0 || !w.is_finite() {
            return 0.0;
        }
        let (_, speed, room) = value((x, w));
        (-side * f64::from(w.signum()) * (lambda * speed).min(room)) as f32
    };
    pairs().map(shift).collect()
}
