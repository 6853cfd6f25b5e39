//! Convolutions, their gradients, epilogues, and pooling.

use advcl_kernels::{
    Activation, Algorithm, Convolution, Epilogue, Packed, Pass, Precision, backward_data,
    backward_weight, batch_norm, batch_norm_add_backward, batch_norm_backward, convolve,
    convolve_with_epilogue, forward, max_pool, max_pool_backward, mean_pool, mean_pool_backward,
    set_algorithm, set_precision,
};

use crate::definition::{error, noise, products};
use crate::{each_set, state, take_turn};

/// A convolution's shape from its input and `[in, out, kernel, stride]`.
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

/// The shapes of all tests.
fn cases() -> Vec<Convolution> {
    if cfg!(miri) {
        // The same code paths as below, at sizes that an interpreter finishes.
        return vec![
            conv(3, 3, 2, [3, 9, 3, 2]),
            conv(3, 2, 3, [8, 13, 1, 2]),
            conv(4, 4, 1, [8, 17, 3, 1]),
            conv(5, 4, 2, [1, 9, 7, 2]),
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
        conv(23, 18, 3, [3, 17, 7, 2]),
        conv(2, 3, 4, [1, 8, 7, 2]),
        conv(9, 8, 2, [16, 33, 7, 1]),
        // Each way to sum a weight's gradient, and shapes that bf16 supports.
        conv(4, 6, 6, [96, 160, 3, 1]),
        conv(12, 12, 4, [32, 16, 3, 1]),
        conv(13, 9, 26, [96, 64, 3, 1]),
        conv(6, 5, 4, [32, 48, 3, 2]),
        conv(5, 5, 34, [64, 32, 1, 1]),
    ]
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
                    continue; // no bf16 on this processor
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
#[cfg_attr(miri, ignore = "the other tests run several threads, too")]
fn results_do_not_depend_on_the_number_of_threads() {
    let _turn = take_turn();
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
}

#[test]
fn an_epilogue_equals_the_same_operations_after_the_convolution() {
    for conv in cases() {
        let (x, w) = (noise(conv.input.len(), 1), noise(conv.weight_len(), 2));
        let (shift, residual) = (noise(conv.channels, 3), noise(conv.output().len(), 4));
        each_set(|isa| {
            for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
                set_algorithm(algorithm);
                let packed = Packed::new(&conv, &w, Pass::Forward);
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
                    let found = convolve_with_epilogue(&conv, &x, &packed, &epilogue);
                    assert_eq!(found, expected, "{conv:?}, {isa:?}, {algorithm:?}");
                }
            }
        });
    }
}

#[test]
fn pooling_agrees_with_its_definition() {
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
fn maxima_agree_with_their_definition() {
    let sizes = [(1, 1), (2, 3), (7, 4), (8, 9)];
    for ((height, width), (batch, channels)) in
        sizes.into_iter().zip([(1, 1), (3, 5), (2, 17), (1, 8)])
    {
        let shape = Activation {
            height,
            width,
            batch,
            channels,
        };
        // Few different values, so that windows have several largest ones.
        let x: Vec<f32> = noise(shape.len(), 8)
            .iter()
            .map(|value| (value * 2.0).round())
            .collect();
        let (out_height, out_width, row) =
            (height.div_ceil(2), width.div_ceil(2), batch * channels);
        let y = max_pool(&shape, &x);
        let dy = noise(out_height * out_width * row, 9);
        let dx = max_pool_backward(&shape, &x, &y, &dy);
        let mut gradient = vec![0.0; x.len()];
        for (at, y) in y.iter().enumerate() {
            let (window, rest) = (at / row, at % row);
            let (top, left) = (window / out_width * 2, window % out_width * 2);
            let pixels = (0..9).filter_map(|place| {
                let (down, across) = (
                    (top + place / 3).checked_sub(1)?,
                    (left + place % 3).checked_sub(1)?,
                );
                (down < height && across < width).then_some((down * width + across) * row + rest)
            });
            // The first of the largest.
            let first = pixels.reduce(|best, other| if x[other] > x[best] { other } else { best });
            let first = first.expect("a window has a pixel");
            assert_eq!(*y, x[first], "{shape:?}, {at}");
            gradient[first] += dy[at];
        }
        let reference: Vec<f64> = gradient.iter().copied().map(f64::from).collect();
        assert!(error(&dx, &reference) < 1e-6, "{shape:?}");
    }
    let shape = Activation {
        height: 2,
        width: 2,
        batch: 1,
        channels: 1,
    };
    for place in 0..4 {
        let mut x = [0.5, 2.0, -1.0, 3.0];
        x[place] = f32::NAN;
        assert!(max_pool(&shape, &x)[0].is_nan(), "{place}");
    }
}

#[test]
#[should_panic(expected = "the weight does not have the length of its shape")]
fn a_weight_of_another_shape_is_refused() {
    let conv = conv(4, 4, 1, [3, 5, 3, 1]);
    forward(&conv, &noise(conv.input.len(), 1), &noise(7, 2));
}
