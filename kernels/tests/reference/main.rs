//! Tests of every operation against plain loops in f64: odd shapes, all instruction sets, both
//! algorithms, and several numbers of threads. Under Miri, the shapes are small.

mod convolution;
mod norm;

use advcl_kernels::{
    BatchNormOutput, BatchNormState, Isa, Precision, available, select, set_precision,
};
use std::sync::{Mutex, MutexGuard};

/// Taken by tests that select an instruction set or an algorithm, which are settings of the whole
/// process: one such test runs at a time.
fn take_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Pseudo-random numbers in [-1, 1) that depend on `seed` alone.
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

/// The relative error ‖a − b‖ / ‖b‖, or ‖a − b‖ where b is zero.
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

/// The state of a BatchNorm's forward pass.
fn state<'a>(weight: &'a [f32], norm: &'a BatchNormOutput) -> BatchNormState<'a> {
    BatchNormState {
        weight,
        mean: &norm.mean,
        var: &norm.var,
        shift: &norm.shift,
    }
}

/// Calls `check` with each instruction set of this processor selected.
fn each_set(mut check: impl FnMut(Isa)) {
    let _turn = take_turn();
    for isa in available() {
        assert!(select(isa));
        check(isa);
    }
    set_precision(Precision::F32);
}
