//! Every operation against plain loops in f64, over odd shapes, all instruction sets, both algorithms and several
//! numbers of threads.

use advcl_kernels::{
    Activation, Algorithm, BatchNormOutput, BatchNormState, Convolution, Epilogue, Isa, Packed,
    Precision, Way, affine, affine_backward, available, backward_data, backward_weight, batch_norm,
    batch_norm_add_backward, batch_norm_backward, convolve, convolve_and, forward, mean_pool,
    mean_pool_backward, select, set_algorithm, set_precision,
};
use std::sync::Mutex;

/// The choice of instruction set is the process's: tests that make one take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Numbers in [-1, 1) that depend on `seed` alone.
fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn conv(
    height: usize,
    width: usize,
    batch: usize,
    [input, output, kernel, stride]: [usize; 4],
) -> Convolution {
    let input = Activation {
        height,
        width,
        batch,
        channels: input,
    };
    Convolution {
        input,
        channels: output,
        kernel,
        stride,
    }
}

fn cases() -> Vec<Convolution> {
    if cfg!(miri) {
        // The same ways through the kernels at sizes that an interpreter finishes.
        return vec![
            conv(3, 3, 2, [3, 9, 3, 2]),
            conv(3, 2, 3, [8, 13, 1, 2]),
            conv(4, 4, 1, [8, 17, 3, 1]),
            conv(4, 4, 5, [8, 8, 3, 1]),
            conv(4, 4, 5, [8, 9, 3, 1]),
        ];
    }
    vec![
        conv(1, 1, 1, [1, 1, 3, 1]),
        conv(1, 1, 1, [3, 17, 1, 1]),
        conv(4, 4, 2, [16, 16, 3, 1]),
        conv(5, 7, 3, [3, 17, 3, 1]),
        conv(7, 5, 3, [17, 24, 3, 2]),
        conv(6, 6, 33, [24, 8, 3, 1]),
        conv(9, 3, 14, [8, 33, 3, 1]),
        conv(8, 8, 1, [40, 13, 1, 2]),
        conv(3, 2, 5, [1, 24, 3, 2]),
        conv(4, 4, 7, [256, 257, 3, 1]),
        conv(28, 28, 2, [1, 4, 3, 2]),
        // Each way to sum a weight's gradient, and what bf16 needs.
        conv(4, 6, 6, [96, 160, 3, 1]),
        conv(12, 12, 4, [32, 16, 3, 1]),
        conv(13, 9, 26, [96, 64, 3, 1]),
        conv(6, 5, 4, [32, 48, 3, 2]),
        conv(5, 5, 34, [64, 32, 1, 1]),
    ]
}

/// `w` between `x` and `y`, by the definition: calls `each(x index, w index, y index)` for every product.
fn products(conv: &Convolution, mut each: impl FnMut(usize, usize, usize)) {
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

/// ‖a − b‖ / ‖b‖; ‖a − b‖ where b is zero.
fn error(ours: &[f32], reference: &[f64]) -> f64 {
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

fn state<'a>(weight: &'a [f32], norm: &'a BatchNormOutput) -> BatchNormState<'a> {
    BatchNormState {
        weight,
        mean: &norm.mean,
        var: &norm.var,
        shift: &norm.shift,
    }
}

fn each_set(mut check: impl FnMut(Isa)) {
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for isa in available() {
        assert!(select(isa));
        check(isa);
    }
    set_precision(Precision::F32);
    drop(turn);
}

#[test]
fn convolutions_agree_with_their_definition() {
    for conv in cases() {
        let (x, w) = (noise(conv.input.len(), 1), noise(conv.weight_len(), 2));
        let dy = noise(conv.output().len(), 3);
        let mut y = vec![0.0; dy.len()];
        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        products(&conv, |i, k, o| {
            y[o] += f64::from(x[i]) * f64::from(w[k]);
            dx[i] += f64::from(dy[o]) * f64::from(w[k]);
            dw[k] += f64::from(dy[o]) * f64::from(x[i]);
        });
        each_set(|isa| {
            use Algorithm::{Direct, Winograd};
            use Precision::{Bf16, F32};
            for (algorithm, precision, tolerance) in [
                (Direct, F32, 1e-6),
                (Winograd, F32, 2e-5),
                (Direct, Bf16, 4e-3),
                (Winograd, Bf16, 4e-2),
            ] {
                set_algorithm(algorithm);
                set_precision(precision);
                if advcl_kernels::precision() != precision {
                    continue; // bf16 is not everywhere
                }
                let errors = [
                    error(&forward(&conv, &x, &w), &y),
                    error(&backward_data(&conv, &dy, &w), &dx),
                    error(&backward_weight(&conv, &x, &dy), &dw),
                ];
                for (what, error) in ["forward", "data", "weight"].into_iter().zip(errors) {
                    assert!(
                        error < tolerance,
                        "{what} of {conv:?}, {isa:?}, {algorithm:?}, {precision:?}: {error:.1e}"
                    );
                }
            }
        });
    }
}

#[test]
#[cfg_attr(miri, ignore = "threads race in the other tests as well")]
fn results_do_not_depend_on_the_number_of_threads() {
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for conv in cases() {
        let (x, w) = (noise(conv.input.len(), 1), noise(conv.weight_len(), 2));
        let dy = noise(conv.output().len(), 3);
        let c = conv.channels;
        let (weight, bias) = (noise(c, 4), noise(c, 5));
        let settings = [Algorithm::Direct, Algorithm::Winograd]
            .map(|a| [Precision::F32, Precision::Bf16].map(|p| (a, p)));
        for (algorithm, precision) in settings.into_iter().flatten() {
            set_algorithm(algorithm);
            set_precision(precision);
            let all = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .expect("a pool");
                pool.install(|| {
                    let norm = batch_norm(&dy, &weight, &bias, None, true, 1e-5);
                    let (mut gradient, mut residual) = (dy.clone(), dy.clone());
                    let state = state(&weight, &norm);
                    let back = batch_norm_backward(&mut gradient, &dy, state, true, 1e-5);
                    let (dx, _) = batch_norm_add_backward(&mut residual, &dy, &norm.y, state, 1e-5);
                    [
                        forward(&conv, &x, &w),
                        backward_data(&conv, &dy, &w),
                        backward_weight(&conv, &x, &dy),
                        norm.y,
                        gradient,
                        back.weight,
                        dx,
                        residual,
                    ]
                })
            };
            let one = all(1);
            for threads in [2, 4] {
                assert_eq!(
                    one,
                    all(threads),
                    "{conv:?}, {algorithm:?}, {precision:?}, {threads} threads"
                );
            }
        }
    }
    set_precision(Precision::F32);
    drop(turn);
}

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
        // Far from zero, where a plain sum of squares would lose the variance.
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
                // With a residual the gradient becomes the residual's, else the input's.
                let (back_x, back) = match with_residual {
                    true => batch_norm_add_backward(&mut gradient, &x, &ours.y, state, epsilon),
                    false => {
                        let back = batch_norm_backward(&mut gradient, &x, state, relu, epsilon);
                        (gradient.clone(), back)
                    }
                };
                let place = format!("{rows} × {channels}, relu {relu}, {isa:?}");
                assert!(error(&ours.mean, &mean) < 1e-6, "mean, {place}");
                // One row has no variance, and f32 input 100 ± 1 is known to 4e-6 only.
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
fn evaluation_mode_and_pooling_agree_with_their_definitions() {
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
    let shape = Activation {
        height: 3,
        width: 2,
        batch: 2,
        channels: 5,
    };
    let x = noise(shape.len(), 6);
    let mean: Vec<f64> = (0..10)
        .map(|i| (0..6).map(|p| f64::from(x[p * 10 + i])).sum::<f64>() / 6.0)
        .collect();
    assert!(error(&mean_pool(&shape, &x), &mean) < 1e-6);
    // Its transpose: <pool(x), dy> = <x, back(dy)>.
    let (dy, sum) = (noise(10, 7), |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(a * b));
        products.sum()
    });
    let back = mean_pool_backward(&shape, &dy);
    assert!((sum(&mean_pool(&shape, &x), &dy) - sum(&x, &back)).abs() < 1e-6);
}

#[test]
fn what_follows_a_convolution_is_what_follows_it() {
    for conv in cases() {
        let (x, w) = (noise(conv.input.len(), 1), noise(conv.weight_len(), 2));
        let (shift, residual) = (noise(conv.channels, 3), noise(conv.output().len(), 4));
        each_set(|isa| {
            for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
                set_algorithm(algorithm);
                let packed = Packed::new(&conv, &w, Way::Forward);
                let plain = convolve(&conv, &x, &packed);
                for (residual, relu) in [(None, false), (None, true), (Some(&residual[..]), true)] {
                    let expected = plain.iter().enumerate().map(|(i, y)| {
                        let y = y + shift[i % conv.channels] + residual.map_or(0.0, |r| r[i]);
                        if relu { y.max(0.0) } else { y }
                    });
                    let expected: Vec<f32> = expected.collect();
                    let epilogue = Epilogue {
                        shift: &shift,
                        residual,
                        relu,
                    };
                    let found = convolve_and(&conv, &x, &packed, &epilogue);
                    assert_eq!(found, expected, "{conv:?}, {isa:?}, {algorithm:?}");
                }
            }
        });
    }
}

/// BatchNorm's or an affine's inputs in f64: `x`, two parameters of each channel, and a residual or nothing.
type Inputs = [Vec<f64>; 4];

fn as_f64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// `(x − mean) · factor · scale + shift + residual?` by the definition: with the batch's statistics where there is an
/// epsilon, else with mean 0 and factor 1.
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

/// The slopes of `Σ dy · y` along each value of input `which`, by central differences.
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

/// Unlike the tests above, nothing here was derived by hand: whoever errs in a formula errs alone.
#[test]
#[cfg_attr(
    miri,
    ignore = "squares of many values in plain loops; the kernels run in the other tests"
)]
fn gradients_are_slopes_of_the_definition() {
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
            // No slope at ReLU's kink, and none that a step could carry over it.
            let mut dy = noise(x.len(), seed + 5);
            let near = before_relu(&inputs, epsilon).into_iter().zip(&mut dy);
            near.filter(|(v, _)| relu && v.abs() < 1e-3)
                .for_each(|(_, dy)| *dy = 0.0);
            let expected: [Vec<f64>; 4] =
                [0, 1, 2, 3].map(|which| slopes(&inputs, which, epsilon, relu, &as_f64(&dy)));
            // What the statistics take away again belongs to the size that an error is held against.
            let size = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>().sqrt();
            let least = size(&as_f64(&dy));
            each_set(|isa| {
                let residual = with_residual.then_some(&residual[..]);
                // In place: with a residual it becomes the residual's.
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
fn what_is_not_a_number_stays_seen() {
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
#[should_panic(expected = "the residual is not of the input's length")]
fn a_residual_of_another_length_is_refused() {
    let (x, weight) = (noise(30, 1), noise(3, 2));
    batch_norm(&x, &weight, &weight, Some(&x[..29]), true, 1e-5);
}

#[test]
#[should_panic(expected = "the weight is not of its shape")]
fn a_weight_of_another_shape_is_refused() {
    let conv = conv(4, 4, 1, [3, 5, 3, 1]);
    forward(&conv, &noise(conv.input.len(), 1), &noise(7, 2));
}
