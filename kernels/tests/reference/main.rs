//! Tests of every operation against plain loops in f64: odd shapes, all instruction sets, both
//! algorithms, and several numbers of threads. Under Miri, the shapes are small.

mod convolution;
mod definition;
mod norm;

use advcl_kernels::{
    BatchNormOutput, BatchNormState, Convolution, Isa, Precision, available, select, set_precision,
};
use std::sync::{Mutex, MutexGuard};

/// Taken by tests that select an instruction set or an algorithm, which are settings of the whole
/// process: one such test runs at a time.
fn take_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
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
