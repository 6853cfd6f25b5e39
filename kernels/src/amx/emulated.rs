//! Tiles in plain Rust, for tests on any machine.

use super::tiles::{DEPTH, SIDE, STEP, Sum, TILE, Tiles};

/// Tiles as Intel's manual describes them, but for one thing: it takes subnormal numbers for zero,
/// and these do not. A processor's results may differ in the last bit.
pub(super) struct Emulated;

impl Tiles for Emulated {
    fn begin() -> Self {
        Self
    }

    #[inline(always)]
    unsafe fn sum(&mut self, sum: &Sum, c: *mut f32) {
        let (rows, columns) = sum.tiles;
        assert!((1..=2).contains(&rows) && (1..=2).contains(&columns) && sum.steps > 0);
        for (row, tile) in
            (0..rows * SIDE).flat_map(|row| (0..columns).map(move |tile| (row, tile)))
        {
            // SAFETY: the block has room for 1024 values.
            let to = unsafe {
                c.add((row / SIDE * 2 + tile) * TILE + row % SIDE * SIDE)
                    .cast::<[f32; SIDE]>()
            };
            // SAFETY: initialised by the caller where they are added to.
            let mut total = if sum.adds {
                unsafe { to.read() }
            } else {
                [0.0; SIDE]
            };
            for term in sum.terms {
                for step in 0..sum.steps {
                    // SAFETY: the caller's promise, for this row and this step.
                    let part = unsafe {
                        let a = term.a.add(sum.offset + row * sum.apart + step * DEPTH);
                        product(a, term.b.add((step * STEP + tile * TILE) * 2))
                    };
                    total.iter_mut().zip(part).for_each(|(t, p)| *t += p);
                }
            }
            // SAFETY: as above.
            unsafe { to.write(total) }
        }
    }
}

/// The sums of one row of `a` by one tile of columns.
///
/// # Safety
/// `a` has 32 initialised values, `b` a tile.
#[inline(always)]
pub(super) unsafe fn product(a: *const u16, b: *const u16) -> [f32; SIDE] {
    let value = |half: u16| f32::from_bits(u32::from(half) << 16);
    let (mut first, mut second) = ([0.0; SIDE], [0.0; SIDE]);
    for pair in 0..SIDE {
        // SAFETY: the caller's promise; arrays of numbers have no invalid bits.
        let (a, b) = unsafe {
            (
                a.add(2 * pair).cast::<[u16; 2]>().read(),
                b.add(pair * DEPTH).cast::<[[u16; 2]; SIDE]>().read(),
            )
        };
        if cfg!(miri) && a == [0; 2] {
            continue; // most of an interpreter's time would go into padding
        }
        // A product of two bf16 is exact in f32, so the additions alone round, as in the
        // instruction's fused operations.
        for ((first, second), b) in first.iter_mut().zip(&mut second).zip(b) {
            *first += value(a[0]) * value(b[0]);
            *second += value(a[1]) * value(b[1]);
        }
    }
    std::array::from_fn(|n| first[n] + second[n])
}
