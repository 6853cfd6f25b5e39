//! Peak speed of the machine, and peak memory of the process.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use serde::Serialize;

use crate::tensor::to_vec;

/// Sizes of the square matrices. Which one is faster depends on caches and threads. Larger ones
/// were no faster, and their memory would add to the measured peak.
const SIDES: [usize; 2] = [512, 1024];
/// Number of measurements for each size.
const RUNS: usize = 5;

/// Speed of the fastest f32 matrix product of Burn, measured in this process on the same device and
/// threads. Not a bound of the processor, but what optimized dense code reaches on it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct GemmPeak {
    /// Speed in 10⁹ operations per second.
    pub gflops: f64,
    /// Rows and columns of the square matrices.
    pub side: usize,
}

/// Measures [`GemmPeak`]: the best of all runs, not the median, since it serves as a bound. Takes
/// less than a second on two cores. On the CPU Burn uses the best instructions that it finds,
/// whatever is selected for the kernels.
pub fn gemm_peak(device: &Device) -> GemmPeak {
    let mut best = GemmPeak {
        gflops: 0.0,
        side: 0,
    };
    for side in SIDES {
        let a = Tensor::<2>::full([side, side], 0.5, device);
        let b = Tensor::<2>::full([side, side], 0.25, device);
        let mut multiply = || {
            let product = a.clone().matmul(b.clone());
            // Reading a value waits for the device.
            to_vec(product.slice([0..1, 0..1]));
        };
        multiply();
        for _ in 0..RUNS {
            let gflops = 2.0 * (side as f64).powi(3) / seconds(&mut multiply) / 1e9;
            if gflops > best.gflops {
                best = GemmPeak { gflops, side };
            }
        }
    }
    best
}

/// Peak resident memory of this process in MiB; none on systems other than Linux.
pub fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// Lets [`peak_memory_mib`] count from now on, where the system can.
pub(super) fn reset_peak_memory() {
    // Where it cannot, the peak is that of the process so far.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Measures the duration of `work`.
pub(super) fn seconds(work: &mut impl FnMut()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}
