//! Seeded randomness without global state.
//!
//! Every use has a generator of its own, derived from the run's seed, a purpose and a counter. So the whole
//! random state of a run is its seed and where it is (epoch, step): a checkpoint stores that, and a resumed run
//! draws the same numbers.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

/// FNV-1a: stable across versions and machines, unlike std's hasher. Tells accidents apart, not attacks.
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

/// `0..len` in random order.
pub fn permutation(len: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(rng);
    order
}
