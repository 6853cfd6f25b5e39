//! The tile instructions, carried out for a processor that lacks them: it refuses each with a
//! signal, whose handler does what the instruction would have done. So the assembly of [`Hardware`]
//! is tested, its addresses, counters and encodings, if not the processor's own arithmetic.
//!
//! Nothing in the handler allocates, locks or panics: it aborts instead.

use std::cell::UnsafeCell;
use std::sync::Once;

use super::emulated::product;
use super::hardware::Hardware;
use super::tiles::{SIDE, Sum, TILE, Tiles};

/// [`Hardware`] on a processor without tiles.
pub(super) struct Trapped(Hardware);

impl Tiles for Trapped {
    fn begin() -> Self {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            // SAFETY: a zeroed action is a valid one, and the handler has the form that the flag
            // asks for.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = refused as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO;
                let outcome = libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut());
                assert_eq!(outcome, 0, "no handler for refused instructions");
            }
        });
        // SAFETY: the handler carries the instructions out.
        Self(unsafe { Hardware::configure() })
    }

    unsafe fn sum(&mut self, sum: &Sum, c: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { self.0.sum(sum, c) }
    }
}

/// A thread's tiles, 16 rows of 64 bytes each, and whether they are configured.
struct State {
    tiles: [[f32; TILE]; 8],
    configured: bool,
}

thread_local! {
    static STATE: UnsafeCell<State> = const {
        UnsafeCell::new(State {
            tiles: [[0.0; TILE]; 8],
            configured: false,
        })
    };
}

/// Ends the process if the test's assumptions do not hold.
fn demand(holds: bool) {
    if !holds {
        std::process::abort();
    }
}

/// The numbers of general registers in instructions, as Linux orders them.
const REGISTERS: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

extern "C" fn refused(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system passes the registers of the refused instruction, which it reads again
    // afterwards, and they point at its code.
    let (registers, code) = unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let code = registers[libc::REG_RIP as usize] as *const u8;
        (registers, code.cast::<[u8; 5]>().read_unaligned())
    };
    // All of them begin with three bytes of prefix, of which these bits are the same for all.
    let [0xc4, extensions, more, operation, form] = code else {
        std::process::abort()
    };
    demand(extensions & 0x1f == 2 && more & 0x84 == 0 && extensions & 0x80 != 0);
    let (reg, rm) = (usize::from(form >> 3 & 7), usize::from(form & 7));
    let in_register = form >> 6 == 3;
    let operand = if in_register {
        Operand::default()
    } else {
        Operand::decode(registers, extensions, form)
    };
    let state = STATE.with(UnsafeCell::get);
    // SAFETY: the state is this thread's, and no other reference to it is alive: this handler does
    // not interrupt itself. The operands are what the assembly passes.
    let State { tiles, configured } = unsafe { &mut *state };
    if operation != 0x49 {
        demand(*configured);
    }
    match (operation, more & 3, in_register) {
        // ldtilecfg; tilerelease
        (0x49, 0, false) => {
            // SAFETY: 64 bytes, as the instruction reads.
            let bytes = unsafe { (operand.address as *const [u8; 64]).read() };
            let whole = (0..64).all(|at| match at {
                0 => bytes[at] == 1,
                16..32 => bytes[at] == if at % 2 == 0 { 64 } else { 0 },
                48..56 => bytes[at] == 16,
                _ => bytes[at] == 0,
            });
            demand(whole);
            (*tiles, *configured) = ([[0.0; TILE]; 8], true);
        }
        (0x49, 0, true) => *configured = false,
        // tilezero
        (0x49, 3, true) => tiles[reg] = [0.0; TILE],
        // tileloadd; tilestored
        (0x4b, direction @ (2 | 3), false) => {
            demand(operand.has_index);
            for (row, values) in tiles[reg].as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
                let at = operand
                    .address
                    .wrapping_add(operand.stride.wrapping_mul(row));
                // SAFETY: the assembly's caller promises rows of 64 bytes there.
                unsafe {
                    match direction {
                        3 => *values = (at as *const [f32; SIDE]).read_unaligned(),
                        _ => (at as *mut [f32; SIDE]).write_unaligned(*values),
                    }
                }
            }
        }
        // tdpbf16ps
        (0x5c, 2, true) => {
            let (a, b) = (tiles[rm], tiles[usize::from(!(more >> 3) & 7)]);
            for (row, sums) in tiles[reg].as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
                // SAFETY: a row of the one tile, and the other.
                let part = unsafe { product(a[row * SIDE..].as_ptr().cast(), b.as_ptr().cast()) };
                sums.iter_mut()
                    .zip(part)
                    .for_each(|(sum, part)| *sum += part);
            }
        }
        _ => std::process::abort(),
    }
    registers[libc::REG_RIP as usize] += 5 + operand.bytes as i64;
}

/// An operand in memory.
#[derive(Default)]
struct Operand {
    /// Without the index.
    address: usize,
    has_index: bool,
    /// The index times its scale: for tiles, the distance between rows.
    stride: usize,
    /// Bytes of the instruction behind its form.
    bytes: usize,
}

impl Operand {
    fn decode(registers: &[i64; 23], extensions: u8, form: u8) -> Self {
        let value = |number: u8| registers[REGISTERS[usize::from(number)] as usize] as usize;
        let rip = registers[libc::REG_RIP as usize] as usize;
        // The extensions are inverted.
        let (high_index, high_base) = (!extensions >> 3 & 8, !extensions >> 2 & 8);
        let (mode, rm) = (form >> 6, form & 7);
        let mut operand = Self::default();
        let mut base = rm;
        if rm == 4 {
            // SAFETY: the instruction goes on.
            let sib = unsafe { ((rip + 5) as *const u8).read() };
            operand.bytes = 1;
            base = sib & 7;
            let index = sib >> 3 & 7 | high_index;
            operand.has_index = index != 4;
            if operand.has_index {
                operand.stride = value(index) << (sib >> 6);
            }
        }
        // Without a base, a displacement alone, or one from the next instruction.
        demand(mode != 0 || base != 5 || rm == 5);
        let at = (rip + 5 + operand.bytes) as *const u8;
        // SAFETY: as above.
        let (displacement, length) = unsafe {
            match (mode, base) {
                (0, 5) | (2, _) => (at.cast::<i32>().read_unaligned() as isize, 4),
                (1, _) => (isize::from(at.cast::<i8>().read()), 1),
                _ => (0, 0),
            }
        };
        operand.bytes += length;
        let start = match (mode, base) {
            (0, 5) => rip + 5 + operand.bytes,
            _ => value(base | high_base),
        };
        operand.address = start.wrapping_add_signed(displacement);
        operand
    }
}
