//! The processor's tiles, by inline assembly: Rust's functions for them are unstable.

use std::marker::PhantomData;

use super::tiles::{Sum, Tiles};
use crate::permission::usable;

/// The processor's tiles, configured for this thread until it is dropped.
pub(super) struct Hardware {
    /// Belongs to the thread that configured them.
    _thread: PhantomData<*const ()>,
}

/// What the instruction ldtilecfg reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    first_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Eight whole tiles: 16 rows of 64 bytes.
static WHOLE: Configuration = Configuration {
    palette: 1,
    first_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

#[cfg(target_arch = "x86_64")]
impl Hardware {
    /// Configures this thread's tiles.
    ///
    /// # Safety
    /// The processor has tiles and this process may use them.
    pub(super) unsafe fn configure() -> Self {
        // SAFETY: the caller's promise. The instruction reads 64 bytes of this form, and changes the
        // tiles alone, which Rust itself never uses.
        unsafe {
            std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, readonly));
        }
        Self {
            _thread: PhantomData,
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Tiles for Hardware {
    fn begin() -> Self {
        assert!(usable(), "this process may not use tiles");
        // SAFETY: just asserted.
        unsafe { Self::configure() }
    }

    #[inline(always)]
    unsafe fn sum(&mut self, sum: &Sum, c: *mut f32) {
        assert!(sum.steps > 0, "products of no length");
        let terms = sum.terms.as_ptr_range();
        // Tiles 0 to 3 are the sums, `2 · row + column`; 4 and 5 hold rows, 6 and 7 columns. They
        // are loaded, used and stored in one piece of assembly: nothing of them has to outlive it
        // but the configuration. Distances in memory are in bytes.
        macro_rules! product {
            ([$($sum:literal)*] $($step:literal)*) => {
                if sum.adds {
                    product!(@ [$(concat!(
                        "tileloadd tmm", $sum, ", [{c} + {line}*1 + 1024*", $sum, "]"
                    ))*] [$($sum)*] $($step)*)
                } else {
                    product!(@ [$(concat!("tilezero tmm", $sum))*] [$($sum)*] $($step)*)
                }
            };
            (@ [$($start:expr)*] [$($sum:literal)*] $($step:literal)*) => {
                // SAFETY: the tiles are configured and belong to this thread, as long as `self` is
                // there. The caller promises whole rows of `32 · steps` values (64 bytes a step)
                // for each tile of rows that is loaded, 2048 bytes of columns for each step, and
                // 4096 bytes of sums. Terms are two pointers each; only the counters and addresses
                // declared here change, and all eight tiles.
                unsafe {
                    std::arch::asm!(
                        $($start,)*
                        "2:",
                        "cmp {term}, {last}",
                        "je 4f",
                        "mov {a}, [{term}]",
                        "mov {b}, [{term} + 8]",
                        "add {term}, 16",
                        "add {a}, {offset}",
                        "lea {second}, [{a} + {apart}*8]",
                        "lea {second}, [{second} + {apart}*8]",
                        "mov {left}, {steps}",
                        "3:",
                        $($step,)*
                        "add {a}, 64",
                        "add {second}, 64",
                        "add {b}, 2048",
                        "dec {left}",
                        "jnz 3b",
                        "jmp 2b",
                        "4:",
                        $(concat!("tilestored [{c} + {line}*1 + 1024*", $sum, "], tmm", $sum),)*
                        term = inout(reg) terms.start => _,
                        last = in(reg) terms.end,
                        offset = in(reg) sum.offset * 2,
                        apart = in(reg) sum.apart * 2,
                        steps = in(reg) sum.steps,
                        c = in(reg) c,
                        line = in(reg) 64usize,
                        a = out(reg) _,
                        second = out(reg) _,
                        b = out(reg) _,
                        left = out(reg) _,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack)
                    );
                }
            };
        }
        match sum.tiles {
            (2, 2) => product!([0 1 2 3]
                "tileloadd tmm4, [{a} + {apart}*1]"
                "tileloadd tmm6, [{b} + {line}*1]"
                "tdpbf16ps tmm0, tmm4, tmm6"
                "tileloadd tmm7, [{b} + {line}*1 + 1024]"
                "tdpbf16ps tmm1, tmm4, tmm7"
                "tileloadd tmm5, [{second} + {apart}*1]"
                "tdpbf16ps tmm2, tmm5, tmm6"
                "tdpbf16ps tmm3, tmm5, tmm7"),
            (2, 1) => product!([0 2]
                "tileloadd tmm4, [{a} + {apart}*1]"
                "tileloadd tmm6, [{b} + {line}*1]"
                "tdpbf16ps tmm0, tmm4, tmm6"
                "tileloadd tmm5, [{second} + {apart}*1]"
                "tdpbf16ps tmm2, tmm5, tmm6"),
            (1, 2) => product!([0 1]
                "tileloadd tmm4, [{a} + {apart}*1]"
                "tileloadd tmm6, [{b} + {line}*1]"
                "tdpbf16ps tmm0, tmm4, tmm6"
                "tileloadd tmm7, [{b} + {line}*1 + 1024]"
                "tdpbf16ps tmm1, tmm4, tmm7"),
            (1, 1) => product!([0]
                "tileloadd tmm4, [{a} + {apart}*1]"
                "tileloadd tmm6, [{b} + {line}*1]"
                "tdpbf16ps tmm0, tmm4, tmm6"),
            tiles => unreachable!("a block has 1 or 2 tiles each way, not {tiles:?}"),
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for Hardware {
    fn drop(&mut self) {
        // SAFETY: whoever has a `Hardware` may use tiles. Afterwards they are as before `begin`:
        // the system has nothing of them to save.
        unsafe { std::arch::asm!("tilerelease", options(nostack, nomem)) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Tiles for Hardware {
    fn begin() -> Self {
        unreachable!("tiles are never usable here: {}", usable())
    }

    unsafe fn sum(&mut self, _: &Sum, _: *mut f32) {
        unreachable!("nobody has these tiles")
    }
}
