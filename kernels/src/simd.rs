//! Instruction sets, selected at run time.

use std::sync::atomic::{AtomicU8, Ordering};

use pulp::{Scalar256b, WithSimd};

#[cfg(all(target_arch = "x86_64", not(miri)))]
use crate::permission;

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AMX: tiles for convolutions in bf16, AVX-512 for everything else.
    Amx,
    /// AVX-512: vectors of 16 values.
    Avx512,
    /// AVX2 with fused multiply-add: vectors of 8 values.
    Avx2,
    /// NEON: vectors of 4 values.
    Neon,
    /// Plain loops over 8 values, which the compiler may vectorise.
    Portable,
}

impl Isa {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amx => "amx",
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Portable => "portable",
        }
    }

    /// Whether convolutions can multiply bf16 with this instruction set on this processor.
    pub fn has_bf16(self) -> bool {
        match self {
            Self::Amx => available().contains(&self),
            Self::Avx512 => has_bf16_vectors(),
            _ => false,
        }
    }

    /// The value in [`SELECTED`].
    fn code(self) -> u8 {
        self as u8 + 1
    }
}

/// The instruction sets of this processor, the fastest first. The first call asks the system whether
/// this process may use AMX's tiles; if not, AMX is not among them. Under Miri, which supports few vector
/// instructions, the portable code alone.
pub fn available() -> Vec<Isa> {
    let mut found = Vec::new();
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        if pulp::x86::V4::try_new().is_some() {
            if permission::usable() {
                found.push(Isa::Amx);
            }
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

/// Code of the instruction set in use; 0 before the first use.
static SELECTED: AtomicU8 = AtomicU8::new(0);

/// The instruction set in use: the one selected, else the fastest.
pub fn detected() -> Isa {
    let of_code = |code: u8| {
        let all = [Isa::Amx, Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];
        all.into_iter().find(|isa| isa.code() == code)
    };
    if let Some(isa) = of_code(SELECTED.load(Ordering::Relaxed)) {
        return isa;
    }
    let best = available()[0];
    // What another thread selected meanwhile stays selected.
    let now = SELECTED.compare_exchange(0, best.code(), Ordering::Relaxed, Ordering::Relaxed);
    now.err().and_then(of_code).unwrap_or(best)
}

/// Selects an instruction set for the whole process. Returns whether this processor has it; where
/// it does not, nothing changes.
pub fn select(isa: Isa) -> bool {
    let found = available().contains(&isa);
    if found {
        SELECTED.store(isa.code(), Ordering::Relaxed);
    }
    found
}

/// Runs `op` with the instruction set in use.
pub(crate) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    use pulp::Simd;
    match detected() {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx | Isa::Avx512 => Simd::vectorize(present(pulp::x86::V4::try_new()), op),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Simd::vectorize(present(pulp::x86::V3::try_new()), op),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Simd::vectorize(present(pulp::aarch64::Neon::try_new()), op),
        _ => Simd::vectorize(Scalar256b, op),
    }
}

/// Whether this processor has bf16 products, in vectors or in tiles that this process may use.
pub fn has_bf16() -> bool {
    available().into_iter().any(Isa::has_bf16)
}

/// Whether this processor has bf16 products in vectors.
pub(crate) fn has_bf16_vectors() -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    return pulp::x86::V4::try_new().is_some() && std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    false
}

/// Runs `op` with AVX-512 and bf16 products. The caller has checked
/// [`has_bf16_vectors`].
pub(crate) fn dispatch_bf16<Op: WithSimd>(op: Op) -> Op::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(
            enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16,popcnt,bmi1,bmi2,fma,lzcnt"
        )]
        fn run<Op: WithSimd>(simd: pulp::x86::V4, op: Op) -> Op::Output {
            op.with_simd(simd)
        }
        assert!(has_bf16_vectors(), "this processor has no bf16 products");
        // SAFETY: `has_bf16_vectors` checked for bf16 and AVX-512, which includes the other features.
        unsafe { run(present(pulp::x86::V4::try_new()), op) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = op;
        unreachable!("the caller has checked `has_bf16_vectors`")
    }
}

/// Unwraps an instruction set that is selected, so that the processor has it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn present<S>(found: Option<S>) -> S {
    found.expect("only instruction sets that the processor has are selected")
}

/// Vectors in a block of output columns; together with [`rows`] they fill the registers.
pub(crate) const VECTORS: usize = 2;

/// Rows of a block of accumulators that fit into the registers together with two vectors of the
/// other factor.
pub(crate) const fn rows(lanes: usize) -> usize {
    match lanes {
        16 => 13,
        4 => 12,
        _ => 6,
    }
}

/// Values in a vector of the instruction set in use.
pub(crate) fn lanes() -> usize {
    match detected() {
        Isa::Amx | Isa::Avx512 => 16,
        Isa::Avx2 | Isa::Portable => 8,
        Isa::Neon => 4,
    }
}
