//! Settings of the whole process: algorithm and precision of convolutions.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::simd::detected;

/// The algorithm for 3 × 3 convolutions of stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Sums of products, exact to rounding.
    Direct,
    /// Winograd's F(4 × 4, 3 × 3): a quarter of the multiplications, with an error of about 1e-5.
    Winograd,
}

static ALGORITHM: AtomicU8 = AtomicU8::new(1);

/// Sets the algorithm for all convolutions after this call.
pub fn set_algorithm(algorithm: Algorithm) {
    ALGORITHM.store(
        u8::from(algorithm == Algorithm::Winograd),
        Ordering::Relaxed,
    );
}

/// The algorithm in use.
pub fn algorithm() -> Algorithm {
    match ALGORITHM.load(Ordering::Relaxed) {
        0 => Algorithm::Direct,
        _ => Algorithm::Winograd,
    }
}

/// The precision of the factors of convolutions' products. Sums are always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Single precision.
    F32,
    /// bf16, where the processor has bf16 products and the shape allows.
    ///
    /// With AVX-512: an even number of summed channels for the output and the gradient of the
    /// input; multiples of 16 channels and an even batch for the gradient of the weight. With AMX:
    /// at least 16 summed channels, or 16 on both sides for the gradient of the weight; with fewer
    /// as AVX-512. Subnormal numbers count as zero in such products.
    Bf16,
}

static PRECISION: AtomicU8 = AtomicU8::new(0);

/// Sets the precision for all convolutions after this call.
pub fn set_precision(precision: Precision) {
    PRECISION.store(u8::from(precision == Precision::Bf16), Ordering::Relaxed);
}

/// The precision in use: bf16 where it was set and the instruction set in use, AMX or AVX-512, has
/// it on this processor.
pub fn precision() -> Precision {
    let chosen = PRECISION.load(Ordering::Relaxed) == 1;
    if chosen && detected().has_bf16() {
        Precision::Bf16
    } else {
        Precision::F32
    }
}
