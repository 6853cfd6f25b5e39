//! Whether this process may use tiles.

use std::sync::OnceLock;

/// Whether the processor has tiles of bf16 and the system lets this process use them.
///
/// The first call asks the system. It grants the permission to the whole process: threads need not
/// ask again. Where it refuses (an old kernel, a sandbox), there are no tiles, and that is no error.
pub(crate) fn usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| has_tiles() && permitted())
}

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    if __cpuid(0).eax < 7 {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    features & BF16 != 0 && features & TILES != 0
}

/// Asks Linux for the registers' 8 KiB of state, which it saves and restores for each thread only
/// where they are used.
#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let outcome: i64;
    // SAFETY: this call takes two numbers and changes no memory of ours; a kernel that does not
    // know it returns an error. The instruction overwrites rcx and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => outcome,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    outcome == 0
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
fn has_tiles() -> bool {
    false
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux", not(miri))))]
fn permitted() -> bool {
    false
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn the_system_answers_whether_the_processor_has_tiles_or_not() {
        let (tiles, permitted) = (has_tiles(), permitted());
        assert!(
            !permitted || tiles,
            "permission for registers that are not there"
        );
        assert_eq!(usable(), tiles && permitted);
        let flags =
            std::fs::read_to_string("/proc/cpuinfo").expect("Linux describes its processor");
        if flags.contains("amx_bf16") {
            assert!(tiles, "Linux finds tiles that we do not");
        }
    }
}
