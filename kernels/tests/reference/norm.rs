//! BatchNorm in training and evaluation mode, and its gradients.

use advcl_kernels::{
    affine, affine_backward, batch_norm, batch_norm_add_backward, batch_norm_backward,
};

use crate::definition::{error, noise};
use crate::{each_set, state};

#[test]
fn batch_norm_agrees_with_its_definition() {
    let epsilon = 1e-5;
    let shapes: &[(usize, usize)] = if cfg!(miri) {
        &[(1, 1), (3, 17), (515, 1)]
    } else {
        &[
            (1, 1),
            (3, 17),
            (1000, 3),
            (700, 24),
            (513, 16),
            (2, 257),
            (1537, 1),
        ]
    };
    for &(rows, channels) in shapes {
        // Values far from zero, where a plain sum of squares would lose the variance.
        let x: Vec<f32> = noise(rows * channels, 1)
            .iter()
            .map(|v| 100.0 + v)
            .collect();
        let (weight, bias) = (noise(channels, 2), noise(channels, 3));
        let (dy, residual) = (noise(x.len(), 4), noise(x.len(), 5));
        for (relu, with_residual) in [(false, false), (true, false), (true, true)] {
            let mut mean = vec![0.0; channels];
            let mut var = vec![0.0; channels];
            for (i, v) in x.iter().enumerate() {
                mean[i % channels] += f64::from(*v) / rows as f64;
            }
            for (i, v) in x.iter().enumerate() {
                var[i % channels] += (f64::from(*v) - mean[i % channels]).powi(2) / rows as f64;
            }
            let hat = |i: usize| {
                let c = i % channels;
                (f64::from(x[i]) - mean[c]) / (var[c] + epsilon).sqrt()
            };
            let before = |i: usize| {
                let c = i % channels;
                let r = if with_residual {
                    f64::from(residual[i])
                } else {
                    0.0
                };
                hat(i) * f64::from(weight[c]) + f64::from(bias[c]) + r
            };
            let y: Vec<f64> = (0..x.len())
                .map(|i| if relu { before(i).max(0.0) } else { before(i) })
                .collect();
            let masked: Vec<f64> = (0..x.len())
                .map(|i| {
                    if relu && y[i] <= 0.0 {
                        0.0
                    } else {
                        f64::from(dy[i])
                    }
                })
                .collect();
            let (mut db, mut dw) = (vec![0.0; channels], vec![0.0; channels]);
            for i in 0..x.len() {
                db[i % channels] += masked[i];
                dw[i % channels] += masked[i] * hat(i);
            }
            let dx: Vec<f64> = (0..x.len())
                .map(|i| {
                    let c = i % channels;
                    let centred = masked[i] - db[c] / rows as f64 - hat(i) * dw[c] / rows as f64;
                    f64::from(weight[c]) / (var[c] + epsilon).sqrt() * centred
                })
                .collect();
            each_set(|isa| {
                let residual = with_residual.then_some(&residual[..]);
                let ours = batch_norm(&x, &weight, &bias, residual, relu, epsilon);
                let mut gradient = dy.clone();
                let state = state(&weight, &ours);
                // Replaced by the gradient of the residual where there is one, else by that of the
                // input.
                let (back_x, back) = if with_residual {
                    batch_norm_add_backward(&mut gradient, &x, &ours.y, state, epsilon)
                } else {
                    let back = batch_norm_backward(&mut gradient, &x, state, relu, epsilon);
                    (gradient.clone(), back)
                };
                let place = format!("{rows} × {channels}, relu {relu}, {isa:?}");
                assert!(error(&ours.mean, &mean) < 1e-6, "mean, {place}");
                // One row has no variance, and an f32 near 100 is exact to 4e-6 only.
                assert!(rows == 1 || error(&ours.var, &var) < 1e-5, "var, {place}");
                assert!(
                    error(&ours.y, &y) < 1e-4,
                    "y, {place}: {}",
                    error(&ours.y, &y)
                );
                if rows > 3 {
                    for (what, ours, theirs) in [
                        ("dx", &back_x, &dx),
                        ("dw", &back.weight, &dw),
                        ("db", &back.bias, &db),
                    ] {
                        assert!(
                            error(ours, theirs) < 2e-3,
                            "{what}, {place}: {}",
                            error(ours, theirs)
                        );
                    }
                }
                if with_residual {
                    assert!(error(&gradient, &masked) < 1e-6, "residual, {place}");
                }
            });
        }
    }
}

#[test]
fn evaluation_mode_agrees_with_its_definition() {
    let rows = if cfg!(miri) { 40 } else { 600 };
    for (rows, channels) in [(1, 1), (5, 3), (rows / 4, 17), (rows, 16)] {
        let (x, residual, dy) = (
            noise(rows * channels, 1),
            noise(rows * channels, 2),
            noise(rows * channels, 3),
        );
        let (scale, shift) = (noise(channels, 4), noise(channels, 5));
        let y: Vec<f64> = (0..x.len())
            .map(|i| {
                let c = i % channels;
                (f64::from(x[i] * scale[c]) + f64::from(shift[c]) + f64::from(residual[i])).max(0.0)
            })
            .collect();
        each_set(|isa| {
            let ours = affine(&x, &scale, &shift, Some(&residual), true);
            assert!(error(&ours, &y) < 1e-6, "affine, {isa:?}");
            let mut dr = dy.clone();
            let dx = affine_backward(&mut dr, &ours, &scale, true);
            let masked: Vec<f64> = (0..x.len())
                .map(|i| if ours[i] > 0.0 { f64::from(dy[i]) } else { 0.0 })
                .collect();
            let expected: Vec<f64> = masked
                .iter()
                .enumerate()
                .map(|(i, g)| g * f64::from(scale[i % channels]))
                .collect();
            assert!(error(&dx, &expected) < 1e-6, "affine dx, {isa:?}");
            assert!(error(&dr, &masked) < 1e-6, "affine residual, {isa:?}");
        });
    }
}

/// Inputs of BatchNorm or `affine` in f64: `x`, scale and shift of each channel, and a residual or
/// nothing.
type Inputs = [Vec<f64>; 4];

fn as_f64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// Computes `(x − mean) · factor · scale + shift + residual?` by the definition: with the batch's
/// statistics where there is an epsilon, else with mean 0 and factor 1.
fn before_relu([x, scale, shift, residual]: &Inputs, epsilon: Option<f64>) -> Vec<f64> {
    let channels = scale.len();
    let column = |c: usize| x.iter().skip(c).step_by(channels);
    let rows = (x.len() / channels) as f64;
    let statistics: Vec<(f64, f64)> = (0..channels)
        .map(|c| match epsilon {
            None => (0.0, 1.0),
            Some(epsilon) => {
                let mean = column(c).sum::<f64>() / rows;
                let var = column(c).map(|v| (v - mean).powi(2)).sum::<f64>() / rows;
                (mean, 1.0 / (var + epsilon).sqrt())
            }
        })
        .collect();
    let value = |(i, v): (usize, &f64)| {
        let (mean, factor) = statistics[i % channels];
        let rest = residual.get(i).copied().unwrap_or(0.0);
        (v - mean) * factor * scale[i % channels] + shift[i % channels] + rest
    };
    x.iter().enumerate().map(value).collect()
}

/// The derivatives of `Σ dy · y` by each value of input `which`, by central differences.
fn slopes(inputs: &Inputs, which: usize, epsilon: Option<f64>, relu: bool, dy: &[f64]) -> Vec<f64> {
    let loss = |moved: usize, by: f64| -> f64 {
        let mut inputs = inputs.clone();
        inputs[which][moved] += by;
        let y = before_relu(&inputs, epsilon).into_iter();
        let y = y.map(|v| if relu { v.max(0.0) } else { v });
        y.zip(dy).map(|(y, dy)| y * dy).sum()
    };
    let step = 1e-6;
    (0..inputs[which].len())
        .map(|i| (loss(i, step) - loss(i, -step)) / (2.0 * step))
        .collect()
}

/// Unlike in the tests above, no gradient's formula is repeated here, so that a wrong one cannot
/// agree with itself.
#[test]
#[cfg_attr(
    miri,
    ignore = "plain loops over all pairs of values; the kernels run in the other tests"
)]
fn gradients_agree_with_finite_differences() {
    for (case, (rows, channels)) in [(2, 1), (7, 3), (5, 17), (33, 8), (40, 16)]
        .into_iter()
        .enumerate()
    {
        for (epsilon, relu, with_residual) in [None, Some(1e-5)].into_iter().flat_map(|epsilon| {
            let kinds = [(false, false), (true, false), (true, true)];
            kinds.map(|(relu, residual)| (epsilon, relu, residual))
        }) {
            let seed = 10 * case as u64;
            let x = noise(rows * channels, seed + 1);
            let (scale, shift) = (noise(channels, seed + 2), noise(channels, seed + 3));
            let residual = noise(if with_residual { x.len() } else { 0 }, seed + 4);
            let inputs: Inputs = [&x, &scale, &shift, &residual].map(|values| as_f64(values));
            // No gradient where ReLU's input is so near to its kink that a step could cross it.
            let mut dy = noise(x.len(), seed + 5);
            let near = before_relu(&inputs, epsilon).into_iter().zip(&mut dy);
            near.filter(|(v, _)| relu && v.abs() < 1e-3)
                .for_each(|(_, dy)| *dy = 0.0);
            let expected: [Vec<f64>; 4] =
                [0, 1, 2, 3].map(|which| slopes(&inputs, which, epsilon, relu, &as_f64(&dy)));
            // An error is relative to the gradients before the statistics' share cancels most of
            // them.
            let size = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
            let least = size(&as_f64(&dy));
            each_set(|isa| {
                let residual = with_residual.then_some(&residual[..]);
                // Replaced by the gradient of the residual, where there is one.
                let mut gradient = dy.clone();
                let (dx, parameters) = match epsilon {
                    Some(epsilon) => {
                        let out = batch_norm(&x, &scale, &shift, residual, relu, epsilon);
                        let (state, x) = (state(&scale, &out), &x[..]);
                        let (dx, back) = if with_residual {
                            batch_norm_add_backward(&mut gradient, x, &out.y, state, epsilon)
                        } else {
                            let back = batch_norm_backward(&mut gradient, x, state, relu, epsilon);
                            (gradient.clone(), back)
                        };
                        (dx, Some((back.weight, back.bias)))
                    }
                    None => {
                        let y = affine(&x, &scale, &shift, residual, relu);
                        (affine_backward(&mut gradient, &y, &scale, relu), None)
                    }
                };
                let dr = with_residual.then_some(gradient);
                let (dw, db) = parameters.unzip();
                let ours = [Some(dx), dw, db, dr];
                for (what, (ours, expected)) in ["x", "scale", "shift", "residual"]
                    .iter()
                    .zip(ours.iter().zip(&expected))
                {
                    let Some(ours) = ours else { continue };
                    assert_eq!(ours.len(), expected.len());
                    let off = ours.iter().zip(expected).map(|(a, b)| f64::from(*a) - b);
                    let error = size(&off.collect::<Vec<_>>()) / size(expected).max(least);
                    assert!(
                        error < 1e-6,
                        "{what} of {rows} × {channels}, epsilon {epsilon:?}, relu {relu}, \
                         residual {with_residual}, {isa:?}: {error:.1e}"
                    );
                }
            });
        }
    }
}

#[test]
fn nan_is_not_hidden_by_relu() {
    each_set(|isa| {
        for channels in [3, 16] {
            let mut x = noise(40 * channels, 1);
            x[5 * channels] = f32::NAN;
            let (weight, bias) = (noise(channels, 2), noise(channels, 3));
            let out = batch_norm(&x, &weight, &bias, None, true, 1e-5);
            assert!(out.mean[0].is_nan() && out.var[0].is_nan(), "{isa:?}");
            assert!(out.y[0].is_nan() && !out.y[1].is_nan(), "{isa:?}");
            let y = affine(&x, &weight, &bias, None, true);
            assert!(y[5 * channels].is_nan() && !y[0].is_nan(), "{isa:?}");
            let mut gradient = noise(x.len(), 4);
            batch_norm_backward(&mut gradient, &x, state(&weight, &out), true, 1e-5);
            assert!(gradient[0].is_nan() && !gradient[1].is_nan(), "{isa:?}");
        }
    });
}

#[test]
#[should_panic(expected = "the residual does not have the input's length")]
fn a_residual_of_another_length_is_refused() {
    let (x, weight) = (noise(30, 1), noise(3, 2));
    batch_norm(&x, &weight, &weight, Some(&x[..29]), true, 1e-5);
}
