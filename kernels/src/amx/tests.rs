//! Tests of everything but the instructions themselves, with tiles in plain Rust; and of the
//! instructions where the processor has them.

#[path = "../../tests/reference/definition.rs"]
mod definition;

use super::emulated::Emulated;
use super::hardware::Hardware;
use super::plan::Plan;
use super::tiles::Tiles;
use super::{convolve, weight};
use crate::element::{Element, Half};
use crate::epilogue::{Epilogue, PreparedEpilogue};
use crate::packed::{Method, Packed};
use crate::permission::usable;
use crate::shape::{Activation, Convolution, Pass};
use definition::{error, noise, products};

/// Shapes of all kernels and strides, with numbers of channels and images around those of a tile.
fn cases() -> Vec<Convolution> {
    const CHANNELS: [usize; 9] = [1, 3, 16, 17, 31, 32, 33, 64, 70];
    const BATCHES: [usize; 6] = [1, 2, 15, 16, 17, 33];
    const SIDES: [usize; 7] = [1, 2, 3, 4, 5, 7, 8];
    if cfg!(miri) {
        return vec![
            // The same code paths as below, at sizes that an interpreter finishes.
            conv([1, 2, 2], [3, 17], 3, 1),
            conv([2, 3, 3], [1, 2], 3, 2),
            conv([1, 1, 17], [33, 1], 1, 1),
            conv([3, 2, 5], [2, 3], 1, 2),
            conv([1, 2, 1], [1, 2], 7, 2),
        ];
    }
    let mut cases = Vec::new();
    for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2), (7, 1), (7, 2)] {
        for (b, batch) in BATCHES.into_iter().enumerate() {
            for (i, input) in CHANNELS.into_iter().enumerate() {
                // Each number of output channels meets each of the others somewhere.
                let output = CHANNELS[(i + 2 * b + kernel + stride) % CHANNELS.len()];
                let height = SIDES[(cases.len() * 3 + i) % SIDES.len()];
                let width = SIDES[(cases.len() * 5 + b) % SIDES.len()];
                cases.push(conv(
                    [height, width, batch],
                    [input, output],
                    kernel,
                    stride,
                ));
            }
        }
    }
    cases
}

fn conv(
    [height, width, batch]: [usize; 3],
    [input, output]: [usize; 2],
    kernel: usize,
    stride: usize,
) -> Convolution {
    Convolution {
        input: Activation {
            height,
            width,
            batch,
            channels: input,
        },
        channels: output,
        kernel,
        stride,
    }
}

/// Noise that bf16 represents: the tiles' error is then that of sums in f32.
fn exact(len: usize, seed: u64) -> Vec<f32> {
    let round = |value| f32::from_bits(Half::cell(value, 0.0).to_bits() << 16);
    noise(len, seed).into_iter().map(round).collect()
}

/// A convolution's operands: input, weight, gradient of the output.
fn operands(conv: &Convolution) -> [Vec<f32>; 3] {
    [
        exact(conv.input.len(), 1),
        exact(conv.weight_len(), 2),
        exact(conv.output().len(), 3),
    ]
}

/// Output, gradient of the input, gradient of the weight.
fn results<T: Tiles>(
    conv: &Convolution,
    [x, w, dy]: &[Vec<f32>; 3],
    images: Option<usize>,
) -> [Vec<f32>; 3] {
    let pack = |pass| Packed::for_method(conv, w, pass, Method::Tiles);
    [
        convolve::convolve::<T>(conv, x, &pack(Pass::Forward), None, images),
        convolve::convolve::<T>(conv, dy, &pack(Pass::Backward), None, images),
        weight::weight_gradient::<T>(conv, x, dy, images),
    ]
}

/// The same by definition.
fn reference(conv: &Convolution, [x, w, dy]: &[Vec<f32>; 3]) -> [Vec<f64>; 3] {
    let mut sums = [dy, x, w].map(|like| vec![0.0; like.len()]);
    let [y, dx, dw] = &mut sums;
    products(conv, |i, k, o| {
        y[o] += f64::from(x[i]) * f64::from(w[k]);
        dx[i] += f64::from(dy[o]) * f64::from(w[k]);
        dw[k] += f64::from(dy[o]) * f64::from(x[i]);
    });
    sums
}

fn check<T: Tiles>(conv: &Convolution) {
    let operands = operands(conv);
    let found = results::<T>(conv, &operands, None);
    let expected = reference(conv, &operands);
    for ((what, found), expected) in ["output", "input", "weight"]
        .iter()
        .zip(&found)
        .zip(&expected)
    {
        let error = error(found, expected);
        assert!(error < 1e-6, "{what} of {conv:?}: {error:.1e}");
    }
}

#[test]
fn tiles_agree_with_the_definition() {
    cases().iter().for_each(check::<Emulated>);
}

#[test]
fn the_processors_tiles_agree_with_the_definition_and_with_the_emulated_ones() {
    if !usable() {
        eprintln!("skipped: this processor has no AMX, or this process may not use it");
        return;
    }
    for conv in cases() {
        check::<Hardware>(&conv);
        let operands = operands(&conv);
        let emulated = results::<Emulated>(&conv, &operands, None);
        for (ours, theirs) in results::<Hardware>(&conv, &operands, None)
            .iter()
            .zip(emulated)
        {
            let theirs: Vec<f64> = theirs.into_iter().map(f64::from).collect();
            let error = error(ours, &theirs);
            assert!(error < 1e-6, "{conv:?}: {error:.1e}");
        }
    }
}

#[test]
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
fn the_assembly_computes_the_same_bits_where_its_instructions_are_carried_out() {
    if usable() {
        return; // the test above is the better one
    }
    for conv in cases()
        .iter()
        .filter(|conv| conv.input.batch <= 16)
        .step_by(5)
    {
        let operands = operands(conv);
        let expected = results::<Emulated>(conv, &operands, None);
        assert_eq!(
            results::<super::trap::Trapped>(conv, &operands, None),
            expected,
            "{conv:?}"
        );
    }
}

#[test]
fn a_plan_has_the_products_of_the_convolution() {
    for conv in cases() {
        for (pass, taps) in [
            (Pass::Forward, conv.taps()),
            (Pass::Backward, conv.taps_backward()),
        ] {
            let mut expected: Vec<_> = taps
                .iter()
                .map(|taps| {
                    taps.iter()
                        .map(|tap| (tap.weight, tap.pixel))
                        .collect::<Vec<_>>()
                })
                .collect();
            expected.iter_mut().for_each(|taps| taps.sort_unstable());
            let plan = Plan::new(&conv, pass);
            let mut found = vec![None; taps.len()];
            for run in &plan.runs {
                for index in 0..run.pixels {
                    let taps = run.taps.iter().filter_map(|tap| {
                        assert!(tap.strip < plan.strips.count, "{conv:?}, {pass:?}");
                        let pixel = plan.strips.pixel(tap.strip, tap.column + index);
                        Some((tap.weight, pixel?))
                    });
                    let mut taps: Vec<_> = taps.collect();
                    taps.sort_unstable();
                    let pixel = run.first + run.step * index;
                    assert_eq!(found[pixel].replace(taps), None, "{conv:?}, {pass:?}");
                }
            }
            let found: Option<Vec<_>> = found.into_iter().collect();
            assert_eq!(found, Some(expected), "{conv:?}, {pass:?}");
        }
    }
}

#[test]
fn results_depend_neither_on_the_number_of_threads_nor_on_the_images_at_a_time() {
    for conv in cases().iter().step_by(if cfg!(miri) { 5 } else { 3 }) {
        let operands = operands(conv);
        let run = |threads: usize, images| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().expect("a pool");
            pool.install(|| results::<Emulated>(conv, &operands, images))
        };
        let one = run(1, None);
        for threads in if cfg!(miri) { 2..=2 } else { 2..=3 } {
            assert_eq!(one, run(threads, None), "{conv:?}, {threads} threads");
        }
        let [y, dx, dw] = run(2, Some(2));
        assert_eq!([&one[0], &one[1]], [&y, &dx], "{conv:?}");
        // Sums over images are cut elsewhere.
        let whole: Vec<f64> = one[2].iter().copied().map(f64::from).collect();
        assert!(error(&dw, &whole) < 1e-6, "{conv:?}");
    }
}

#[test]
fn an_epilogue_equals_the_same_operations_afterwards() {
    for conv in cases().into_iter().step_by(if cfg!(miri) { 2 } else { 1 }) {
        let [x, w, _] = operands(&conv);
        let (shift, residual) = (noise(conv.channels, 4), noise(conv.output().len(), 5));
        let packed = Packed::for_method(&conv, &w, Pass::Forward, Method::Tiles);
        let run = |epilogue: Option<&PreparedEpilogue>| {
            convolve::convolve::<Emulated>(&conv, &x, &packed, epilogue, None)
        };
        let plain = run(None);
        for (residual, relu) in [(None, false), (None, true), (Some(&residual[..]), true)] {
            let expected = plain.iter().enumerate().map(|(i, y)| {
                let y = y + shift[i % conv.channels] + residual.map_or(0.0, |r| r[i]);
                if relu { y.max(0.0) } else { y }
            });
            let epilogue = Epilogue {
                shift: &shift,
                residual,
                relu,
            };
            let epilogue = PreparedEpilogue::new(&epilogue, conv.channels, plain.len());
            assert_eq!(
                run(Some(&epilogue)),
                expected.collect::<Vec<_>>(),
                "{conv:?}"
            );
        }
    }
}

#[test]
fn the_public_way_leads_here() {
    let conv = conv([2, 3, 2], [17, 3], 3, 1);
    let [x, w, dy] = operands(&conv);
    let expected = reference(&conv, &[x.clone(), w.clone(), dy.clone()]);
    let pack = |pass| Packed::for_method(&conv, &w, pass, Method::Tiles);
    let found = [
        crate::convolve(&conv, &x, &pack(Pass::Forward)),
        crate::convolve(&conv, &dy, &pack(Pass::Backward)),
        super::weight_gradient(&conv, &x, &dy),
    ];
    for (found, expected) in found.iter().zip(&expected) {
        assert!(error(found, expected) < 1e-6);
    }
}

#[test]
fn a_value_that_is_no_number_stays_in_its_image() {
    let conv = conv([3, 3, 5], [3, 4], 3, 2);
    let [mut x, w, _] = operands(&conv);
    let packed = Packed::for_method(&conv, &w, Pass::Forward, Method::Tiles);
    let clean = convolve::convolve::<Emulated>(&conv, &x, &packed, None, None);
    // The middle pixel, which every kernel meets, in image 2.
    x[(4 * 5 + 2) * 3 + 1] = f32::NAN;
    let found = convolve::convolve::<Emulated>(&conv, &x, &packed, None, None);
    for (index, (found, clean)) in found.iter().zip(clean).enumerate() {
        if index / 4 % 5 == 2 {
            assert!(found.is_nan(), "{index}");
        } else {
            assert_eq!(*found, clean, "{index}");
        }
    }
}

#[test]
fn images_at_a_time_fit_the_caches() {
    let mebi = (1 << 20) / size_of::<f32>();
    for (batch, cells, expected) in [
        (32, 8 * mebi, 32),
        (32, 9 * mebi, 16),
        (512, 71 * mebi, 48),
        (20, 16 * mebi, 10),
        (2, 100 * mebi, 1),
    ] {
        assert_eq!(
            super::images_at_once(batch, cells),
            expected,
            "{batch} in {cells} cells"
        );
    }
}

#[test]
fn nothing_comes_of_nothing() {
    for conv in [
        conv([3, 3, 0], [16, 16], 3, 1),
        conv([0, 3, 2], [16, 16], 3, 2),
    ] {
        let operands = operands(&conv);
        let [y, dx, dw] = results::<Emulated>(&conv, &operands, None);
        assert!(y.is_empty() && dx.is_empty());
        assert!(dw.iter().all(|value| *value == 0.0));
    }
}
