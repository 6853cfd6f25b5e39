//! L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.4) for smooth convex functions, in f64, with an
//! estimate of the inverse Hessian to begin with.

use std::collections::VecDeque;

/// Pairs of steps and changes of the gradient that are remembered.
const MEMORY: usize = 20;
/// Largest number of iterations.
const ITERATIONS: usize = 1_000;
/// Trials of a line search.
const TRIALS: usize = 40;
/// Constants of the weak Wolfe conditions: decrease and slope.
const DECREASE: f64 = 1e-4;
const SLOPE: f64 = 0.9;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, other: &[f64]) {
    to.iter_mut().zip(other).for_each(|(x, y)| *x += factor * y);
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, value| value.abs().max(most))
}

/// The point that minimizes `function`, which returns value and gradient: searched from `start`, until no component of the
/// gradient exceeds `tolerance`, the value cannot be lowered any more, or `stopped`. `inverse` multiplies by a positive
/// definite estimate of the inverse Hessian.
pub fn minimize(
    mut function: impl FnMut(&[f64]) -> (f64, Vec<f64>),
    inverse: impl Fn(&[f64]) -> Vec<f64>,
    start: Vec<f64>,
    tolerance: f64,
    stopped: impl Fn() -> bool,
) -> Vec<f64> {
    let mut point = start;
    let (mut value, mut gradient) = function(&point);
    let mut pairs: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::new();
    for _ in 0..ITERATIONS {
        if largest(&gradient) <= tolerance || stopped() {
            break;
        }
        let direction = direction(&gradient, &pairs, &inverse);
        let slope = dot(&direction, &gradient);
        let Some((next, next_value, next_gradient)) =
            search(&mut function, &point, value, slope, &direction)
        else {
            break;
        };
        let mut moved = next.clone();
        add(&mut moved, -1.0, &point);
        let mut turned = next_gradient.clone();
        add(&mut turned, -1.0, &gradient);
        let curvature = dot(&moved, &turned);
        if curvature > 0.0 {
            if pairs.len() == MEMORY {
                pairs.pop_front();
            }
            pairs.push_back((moved, turned, curvature));
        }
        (point, value, gradient) = (next, next_value, next_gradient);
    }
    point
}

/// The direction of the two-loop recursion: minus the gradient, times an estimate of the inverse Hessian.
fn direction(
    gradient: &[f64],
    pairs: &VecDeque<(Vec<f64>, Vec<f64>, f64)>,
    inverse: impl Fn(&[f64]) -> Vec<f64>,
) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut factors = Vec::with_capacity(pairs.len());
    for (moved, turned, curvature) in pairs.iter().rev() {
        let factor = dot(moved, &direction) / curvature;
        add(&mut direction, -factor, turned);
        factors.push(factor);
    }
    let mut direction = inverse(&direction);
    if let Some((_, turned, curvature)) = pairs.back() {
        let scale = curvature / dot(turned, &inverse(turned));
        direction.iter_mut().for_each(|d| *d *= scale);
    }
    for ((moved, turned, curvature), factor) in pairs.iter().zip(factors.into_iter().rev()) {
        let correction = factor - dot(turned, &direction) / curvature;
        add(&mut direction, correction, moved);
    }
    direction
}

/// Point on the line that meets the weak Wolfe conditions, by bisection; the best one that lowers the value where none
/// is found in time, and none where rounding hides any decrease.
fn search(
    function: &mut impl FnMut(&[f64]) -> (f64, Vec<f64>),
    point: &[f64],
    value: f64,
    slope: f64,
    direction: &[f64],
) -> Option<(Vec<f64>, f64, Vec<f64>)> {
    let (mut low, mut high, mut step) = (0.0, f64::INFINITY, 1.0);
    let mut best: Option<(Vec<f64>, f64, Vec<f64>)> = None;
    for _ in 0..TRIALS {
        let mut next = point.to_vec();
        add(&mut next, step, direction);
        let (found, gradient) = function(&next);
        let descends = found <= value + DECREASE * step * slope;
        let flat = dot(&gradient, direction) >= SLOPE * slope;
        if descends {
            if best.as_ref().is_none_or(|(_, lowest, _)| found < *lowest) {
                best = Some((next, found, gradient));
            }
            if flat {
                break;
            }
            low = step;
        } else {
            high = step;
        }
        step = match high.is_finite() {
            true => 0.5 * (low + high),
            false => 2.0 * step,
        };
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badly_scaled_bowl_is_minimized_from_anywhere() {
        // Σ c (x - i)², with curvatures from 1 to 1e6.
        let curvature = |i: usize| 10f64.powf(i as f64 / 2.0);
        let bowl = |x: &[f64]| {
            let terms = x.iter().enumerate();
            let value = terms
                .clone()
                .map(|(i, x)| curvature(i) * (x - i as f64).powi(2));
            let slope = terms.map(|(i, x)| 2.0 * curvature(i) * (x - i as f64));
            (value.sum(), slope.collect())
        };
        for start in [0.0, -30.0, 1e4] {
            let found = minimize(bowl, <[f64]>::to_vec, vec![start; 13], 1e-8, || false);
            assert!(largest(&bowl(&found).1) <= 1e-8, "{start}: {found:?}");
            for (i, x) in found.iter().enumerate() {
                assert!((x - i as f64).abs() < 1e-7, "{start}: {found:?}");
            }
        }
        let stopped = minimize(bowl, <[f64]>::to_vec, vec![5.0; 13], 1e-8, || true);
        assert_eq!(stopped, [5.0; 13]);
        let broken = minimize(
            |x| (f64::NAN, vec![f64::NAN; x.len()]),
            <[f64]>::to_vec,
            vec![1.0],
            1e-8,
            || false,
        );
        assert_eq!(broken, [1.0]);
    }
}
