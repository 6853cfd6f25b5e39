//! What the machine can do, and what the process took of it.

use burn::tensor::{Device, Tensor};
use serde::Serialize;

use crate::tensor::to_vec;

/// Sides of the square products: which is faster depends on caches and threads. Larger ones were no
/// faster, and their memory would show beside what is measured.
const SIDES: [usize; 2] = [512, 1024];
const RUNS: usize = 5;

/// The fastest f32 matrix product that was seen in this process: Burn's, on the same device and
/// threads. No bound of the processor, but what well-made dense code reaches on it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct GemmPeak {
    /// 10⁹ operations a second.
    pub gflops: f64,
    /// Rows and columns of the square matrices.
    pub side: usize,
}

/// Measures [`GemmPeak`]: the best of all runs, not a median, since it is a bound. Under a second
/// on two cores. On the CPU it takes the best instructions that Burn finds, whatever was chosen for
/// our kernels.
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
            let gflops = 2.0 * (side as f64).powi(3) / super::seconds(&mut multiply) / 1e9;
            if gflops > best.gflops {
                best = GemmPeak { gflops, side };
            }
        }
    }
    best
}

/// The largest resident memory that this process has had, in MiB; none where the system is not
/// Linux.
pub fn peak_memory_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
