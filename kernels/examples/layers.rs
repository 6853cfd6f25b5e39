//! GFLOP/s of each layer of a ResNet-18: `cargo run --release --example layers -- WIDTH BATCH`.

use advcl_kernels::{
    Activation, Algorithm, Convolution, backward_data, backward_weight, forward, set_algorithm,
};
use std::time::Instant;

fn best(runs: usize, mut work: impl FnMut()) -> f64 {
    work();
    let time = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(time).fold(f64::INFINITY, f64::min)
}

fn main() {
    let args: Vec<usize> = std::env::args()
        .skip(1)
        .filter_map(|a| a.parse().ok())
        .collect();
    let (w, batch) = (
        args.first().copied().unwrap_or(64),
        args.get(1).copied().unwrap_or(64),
    );
    let layers = [
        (3, w, 32, 3, 1),
        (w, w, 32, 3, 1),
        (w, 2 * w, 32, 3, 2),
        (w, 2 * w, 32, 1, 2),
        (2 * w, 2 * w, 16, 3, 1),
        (2 * w, 4 * w, 16, 3, 2),
        (4 * w, 4 * w, 8, 3, 1),
        (4 * w, 8 * w, 8, 3, 2),
        (8 * w, 8 * w, 4, 3, 1),
    ];
    for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
        set_algorithm(algorithm);
        for (input, channels, size, kernel, stride) in layers {
            let input = Activation {
                height: size,
                width: size,
                batch,
                channels: input,
            };
            let conv = Convolution {
                input,
                channels,
                kernel,
                stride,
            };
            let value = |i: usize| (i % 97) as f32 / 97.0 - 0.5;
            let x: Vec<f32> = (0..input.len()).map(value).collect();
            let weight: Vec<f32> = (0..conv.weight_len()).map(value).collect();
            let dy: Vec<f32> = (0..conv.output().len()).map(value).collect();
            let flop = 2.0 * (conv.output().len() * input.channels * kernel * kernel) as f64;
            let speeds = [
                best(6, || drop(forward(&conv, &x, &weight))),
                best(6, || drop(backward_data(&conv, &dy, &weight))),
                best(6, || drop(backward_weight(&conv, &x, &dy))),
            ]
            .map(|seconds| flop / seconds / 1e9);
            println!(
                "{algorithm:?} {:>3} → {channels:>3} at {size:>2}, kernel {kernel}, stride {stride}: forward {:4.0}, data {:4.0}, weight {:4.0} GFLOP/s",
                input.channels, speeds[0], speeds[1], speeds[2]
            );
        }
    }
}
