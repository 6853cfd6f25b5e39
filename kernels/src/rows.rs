//! Rows of channels, `[rows, channels]`: how BatchNorm and epilogues process them in whole vectors,
//! and how they are cut into tasks.
//!
//! Whatever the number of channels, whole vectors are used: the channels of a vector's lanes repeat
//! after `period = lcm(channels, 16)` values. So the constants of the channels are repeated to fill
//! one period, and the data is processed period by period.

use rayon::prelude::*;

/// Rows of a task. A multiple of every vector's lanes, so that a task starts at a period's start.
pub(crate) const ROWS: usize = 512;

/// The shortest run of whole rows that is whole vectors, for every instruction set.
fn period(channels: usize) -> usize {
    const WIDEST: usize = 16;
    let (mut a, mut b) = (channels, WIDEST);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    channels / a * WIDEST
}

/// One value for each channel, repeated to fill a period.
pub(crate) fn repeat_to_period(values: &[f32]) -> Vec<f32> {
    values
        .iter()
        .copied()
        .cycle()
        .take(period(values.len()))
        .collect()
}

/// Calls `work(start, end)` for each [`ROWS`] rows, in parallel, the last first: what an earlier
/// pass over the same values read last is still in the cache.
pub(crate) fn for_each_from_last(len: usize, channels: usize, work: impl Fn(usize, usize) + Sync) {
    let chunk = ROWS * channels;
    (0..len.div_ceil(chunk))
        .into_par_iter()
        .rev()
        .for_each(|task| work(task * chunk, len.min((task + 1) * chunk)));
}
