//! Seeded randomness without global state.
//!
//! Every use has a generator of its own, derived from the run's seed, a purpose and a counter. So
//! the whole random state of a run is its seed and its position (epoch, step): a checkpoint stores
//! these, and a resumed run draws the same numbers.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

/// FNV-1a hash: stable across versions and machines, unlike std's. It detects accidental changes,
/// not deliberate ones.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The generator for the `index`-th use of `purpose` ("simclr/step", …) under `seed`.
pub fn generator(seed: u64, purpose: &str, index: u64) -> ChaCha8Rng {
    let hash = fingerprint(purpose.as_bytes());
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    key[16..24].copy_from_slice(&index.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// `0..len` in random order: of the images in an epoch, among others.
pub fn permutation(len: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    shuffle(&mut order, rng);
    order
}

/// Shuffles `items` in place (Fisher–Yates, from the front).
///
/// The algorithm of rand 0.10.4, written out: another version of rand may shuffle otherwise, and
/// every published figure depends on the order of the images. One random number serves several
/// positions: it is drawn below the product of their bounds, and taken apart digit by digit.
///
/// Limits and splits of data sets have a shuffle of their own (`data::sample`), written out too;
/// its draws differ from these.
///
/// # Panics
/// For 2^32 - 1 items or more.
pub fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    let len = u32::try_from(items.len()).unwrap_or(u32::MAX);
    assert!(len < u32::MAX, "positions and their bounds are u32");
    let (mut number, mut digits) = (0, 0);
    // The first position has one item to choose from.
    for position in 1..len {
        let bound = position + 1;
        if digits == 0 {
            let product;
            (product, digits) = product_from(bound);
            number = below(product, rng);
        }
        digits -= 1;
        let chosen = if digits == 0 { number } else { number % bound };
        number /= bound;
        items.swap(position as usize, chosen as usize);
    }
}

/// The product `first × (first + 1) × …` of as many factors as a u32 holds, and how many these are.
fn product_from(first: u32) -> (u32, u32) {
    let (mut product, mut factors) = (first, 1);
    while let Some(larger) = product.checked_mul(first + factors) {
        (product, factors) = (larger, factors + 1);
    }
    (product, factors)
}

/// A number below `bound`, which is not zero; its bias is at most 2^-32 (Canon's method).
fn below(bound: u32, rng: &mut ChaCha8Rng) -> u32 {
    let mut wide = || u64::from(rng.next_u32()) * u64::from(bound);
    let first = wide();
    let (high, low) = ((first >> 32) as u32, first as u32);
    if low <= bound.wrapping_neg() {
        return high;
    }
    // The digits after the first 32 may carry into them.
    let carries = low.checked_add((wide() >> 32) as u32).is_none();
    high + u32::from(carries)
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use rand_distr::StandardNormal;

    use super::*;

    #[test]
    fn shuffles_never_change() {
        // Recorded once: other numbers mean that published figures can no longer be reproduced.
        let mut rng = generator(3, "simclr/order", 1);
        assert!(permutation(0, &mut rng).is_empty());
        assert_eq!(permutation(1, &mut rng), [0]);
        assert_eq!(permutation(10, &mut rng), [2, 6, 9, 8, 7, 0, 3, 4, 5, 1]);
        let long = |len: usize| {
            let order = permutation(len, &mut generator(0, "order", 0));
            let bytes: Vec<u8> = order
                .iter()
                .flat_map(|&i| (i as u64).to_le_bytes())
                .collect();
            fingerprint(&bytes)
        };
        let expected = [
            0x2f23_7d4d_2d94_461d,
            0x0713_0f94_22ff_698d,
            0x102e_5c26_b6be_9ad5,
        ];
        assert_eq!([1_000, 70_000, 300_000].map(long), expected);
    }

    #[test]
    fn numbers_drawn_by_rand_never_change() {
        // These are rand's own: should another version draw otherwise, write the algorithm out as
        // above.
        let mut rng = generator(3, "step", 7);
        let range: [usize; 6] = std::array::from_fn(|_| rng.random_range(0..1000));
        assert_eq!(range, [558, 652, 85, 707, 460, 343]);
        let signed: [f32; 3] = std::array::from_fn(|_| rng.random_range(-1.0..=1.0));
        assert_eq!(signed, [-0.908_394_34, 0.317_780_26, -0.546_255_8]);
        let unit: [f32; 3] = std::array::from_fn(|_| rng.random());
        assert_eq!(unit, [0.023_487_031, 0.907_002_03, 0.820_072_53]);
        let double: [f64; 2] = std::array::from_fn(|_| rng.random());
        assert_eq!(double, [0.827_774_497_284_434_1, 0.700_147_872_148_004_9]);
        let normal: [f32; 3] = std::array::from_fn(|_| rng.sample(StandardNormal));
        assert_eq!(normal, [0.803_373_4, -0.648_383_2, 0.080_450_58]);
    }
}
