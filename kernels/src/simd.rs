//! Which instructions are used, chosen at run time.

use std::sync::atomic::{AtomicU8, Ordering};

use pulp::{Scalar256b, WithSimd};

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// 16 values at a time.
    Avx512,
    /// 8 values at a time, with fused multiply-add.
    Avx2,
    /// 4 values at a time.
    Neon,
    /// Whatever the compiler makes of plain loops.
    Portable,
}

impl Isa {
    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    fn code(self) -> u8 {
        self as u8 + 1
    }
}

/// What this processor has, best first; under Miri, which does not know most vector instructions, the portable code.
pub fn available() -> Vec<Isa> {
    let mut found = Vec::new();
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        if pulp::x86::V4::try_new().is_some() {
            found.push(Isa::Avx512);
        }
        if pulp::x86::V3::try_new().is_some() {
            found.push(Isa::Avx2);
        }
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    if pulp::aarch64::Neon::try_new().is_some() {
        found.push(Isa::Neon);
    }
    found.push(Isa::Portable);
    found
}

/// 0 while nothing was chosen.
static SELECTED: AtomicU8 = AtomicU8::new(0);

/// The instruction set in use: the one selected, else the best.
pub fn detected() -> Isa {
    let code = SELECTED.load(Ordering::Relaxed);
    let all = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];
    if let Some(isa) = all.into_iter().find(|isa| isa.code() == code) {
        return isa;
    }
    let best = available()[0];
    SELECTED.store(best.code(), Ordering::Relaxed);
    best
}

/// Uses `isa` from now on; `false`, and nothing changed, where this processor does not have it.
pub fn select(isa: Isa) -> bool {
    let there = available().contains(&isa);
    if there {
        SELECTED.store(isa.code(), Ordering::Relaxed);
    }
    there
}

/// Runs `op` with the instruction set in use.
pub(crate) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    use pulp::Simd;
    match detected() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Simd::vectorize(there(pulp::x86::V4::try_new()), op),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Simd::vectorize(there(pulp::x86::V3::try_new()), op),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Simd::vectorize(there(pulp::aarch64::Neon::try_new()), op),
        _ => Simd::vectorize(Scalar256b, op),
    }
}

/// Whether this processor multiplies bf16.
pub fn has_bf16() -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    return pulp::x86::V4::try_new().is_some() && std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    false
}

/// As [`dispatch`], with bf16 products beside AVX-512. The caller has asked [`has_bf16`].
pub(crate) fn dispatch_bf16<Op: WithSimd>(op: Op) -> Op::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(
            enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16,popcnt,bmi1,bmi2,fma,lzcnt"
        )]
        fn run<Op: WithSimd>(simd: pulp::x86::V4, op: Op) -> Op::Output {
            op.with_simd(simd)
        }
        assert!(has_bf16(), "this processor does not multiply bf16");
        // SAFETY: just asked.
        unsafe { run(there(pulp::x86::V4::try_new()), op) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = op;
        unreachable!("the caller has asked whether there is bf16")
    }
}

/// A selected instruction set was found before.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn there<S>(found: Option<S>) -> S {
    found.expect("only what the processor has is selected")
}

/// Vectors a block of output columns; with [`rows`], what fills the registers.
pub(crate) const VECTORS: usize = 2;

/// Rows of a block of accumulators that fit the registers beside two vectors of the other factor.
pub(crate) const fn rows(lanes: usize) -> usize {
    match lanes {
        16 => 13,
        4 => 12,
        _ => 6,
    }
}

/// The width of the instruction set in use, in values.
pub(crate) fn lanes() -> usize {
    match detected() {
        Isa::Avx512 => 16,
        Isa::Avx2 | Isa::Portable => 8,
        Isa::Neon => 4,
    }
}
