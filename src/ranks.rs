//! Processes that share one piece of work: the ranks of MPI. Without the feature `mpi`, or without its launcher, there is one.
//!
//! All ranks carry out the same program on the same input, and take the same decisions. What they share is cut by
//! [`own_part`], and brought together again by [`gather`] and its like, in which every rank takes part. Files are written by
//! the first rank alone ([`first`]). Whatever a rank sees for itself, the time, a signal, a file that another one appends to,
//! is asked of the first rank ([`told`]) or of all ([`any`]) before it decides anything.
//!
//! A rank that is at other work than the others panics with what each is at, instead of waiting for ever.

#[cfg(feature = "mpi")]
mod engine;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::random;

/// How deep this process is in work that it does alone.
static ALONE: AtomicUsize = AtomicUsize::new(0);

/// Number of ranks that share the work at hand; 1 inside of [`alone`].
pub fn count() -> usize {
    if ALONE.load(Ordering::Relaxed) > 0 {
        return 1;
    }
    all()
}

/// Number of this rank among those that share the work at hand, from 0.
pub fn own() -> usize {
    if count() == 1 { 0 } else { place() }
}

/// Number of ranks that were started together.
pub fn all() -> usize {
    #[cfg(feature = "mpi")]
    return engine::size();
    #[cfg(not(feature = "mpi"))]
    1
}

/// Number of this rank among those that were started together, from 0.
pub fn place() -> usize {
    #[cfg(feature = "mpi")]
    return engine::rank();
    #[cfg(not(feature = "mpi"))]
    0
}

/// Whether this rank speaks and writes for all of those that were started together.
pub fn speaks() -> bool {
    place() == 0
}

/// The own part of so many things: a range of their numbers, as equal as it can be.
pub fn own_part(things: usize) -> Range<usize> {
    part(things, own(), count())
}

fn part(things: usize, rank: usize, ranks: usize) -> Range<usize> {
    rank * things / ranks..(rank + 1) * things / ranks
}

/// The own part of so many things that are worked on in batches: a range of their numbers.
pub fn own_batches(things: usize, batch_size: usize) -> Range<usize> {
    let batches = own_part(things.div_ceil(batch_size));
    let start = |batch: usize| (batch * batch_size).min(things);
    start(batches.start)..start(batches.end)
}

/// Does `work` as if there were no other ranks: what each does for itself, or one for all.
pub fn alone<T>(work: impl FnOnce() -> T) -> T {
    struct Together;
    impl Drop for Together {
        fn drop(&mut self) {
            ALONE.fetch_sub(1, Ordering::Relaxed);
        }
    }
    ALONE.fetch_add(1, Ordering::Relaxed);
    let _then = Together;
    work()
}

/// Words of all ranks, in their order. `what` names the work.
fn gather_words(what: &str, own: &[u32]) -> Vec<Vec<u32>> {
    if count() == 1 {
        return vec![own.to_vec()];
    }
    let tag = random::fingerprint(what.as_bytes());
    #[cfg(feature = "mpi")]
    return engine::gather(what, tag, own);
    #[cfg(not(feature = "mpi"))]
    unreachable!("one rank, {tag}")
}

/// Values of all ranks, one rank's after the other's.
pub fn gather(what: &str, own: &[f32]) -> Vec<f32> {
    if count() == 1 {
        return own.to_vec();
    }
    let words: Vec<u32> = own.iter().map(|value| value.to_bits()).collect();
    let all = gather_words(what, &words).into_iter().flatten();
    all.map(f32::from_bits).collect()
}

/// Rows of all ranks, one rank's after the other's, and their width, which a rank without rows cannot tell.
pub fn gather_rows(what: &str, own: &[f32], width: usize) -> (Vec<f32>, usize) {
    let widths = gather_each("width", width);
    (gather(what, own), widths.into_iter().max().unwrap_or(0))
}

/// Counts of all ranks added up, one by one; every rank has as many.
pub fn sum_counts(what: &str, own: Vec<usize>) -> Vec<usize> {
    let add = |sums: Vec<usize>, more: Vec<usize>| {
        let pairs = sums.into_iter().zip(more);
        pairs.map(|(sum, more)| sum + more).collect()
    };
    let all = gather_each(what, own).into_iter();
    all.reduce(add).unwrap_or_default()
}

/// Gathers values in double precision, like [`gather`].
pub fn gather_f64(what: &str, own: &[f64]) -> Vec<f64> {
    if count() == 1 {
        return own.to_vec();
    }
    let halves = |value: &f64| {
        let bits = value.to_bits();
        [bits as u32, (bits >> 32) as u32]
    };
    let words: Vec<u32> = own.iter().flat_map(halves).collect();
    let all: Vec<u32> = gather_words(what, &words).concat();
    let value = |words: &[u32]| f64::from_bits(u64::from(words[0]) | u64::from(words[1]) << 32);
    all.chunks(2).map(value).collect()
}

/// A value of each rank, in their order.
pub fn gather_each<T: Serialize + DeserializeOwned>(what: &str, own: T) -> Vec<T> {
    if count() == 1 {
        return vec![own];
    }
    let text = serde_json::to_vec(&own).expect("plain values");
    let mut words = vec![text.len() as u32];
    words.extend(text.chunks(4).map(|bytes| {
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        u32::from_le_bytes(word)
    }));
    let value = |words: Vec<u32>| {
        let bytes: Vec<u8> = words[1..]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        serde_json::from_slice(&bytes[..words[0] as usize]).expect("the same program wrote it")
    };
    gather_words(what, &words).into_iter().map(value).collect()
}

/// The values that ranks have, each once, in the order of the ranks.
pub fn different<T: Serialize + DeserializeOwned + PartialEq>(what: &str, own: T) -> Vec<T> {
    distinct(gather_each(what, own))
}

fn distinct<T: PartialEq>(all: Vec<T>) -> Vec<T> {
    let mut found = Vec::new();
    for value in all {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

/// Sum over all shards of all ranks, in the order of the shards, whatever the number of ranks: as if one process had added
/// the second shard's values to the first one's, then the third one's. Every rank gives its own shards' values, all of one
/// length; none are given where there are none.
pub fn sum_in_order(what: &str, shards: Vec<Vec<f32>>) -> Vec<f32> {
    let add = |mut sum: Vec<f32>, more: &[f32]| {
        sum.iter_mut()
            .zip(more)
            .for_each(|(sum, more)| *sum += more);
        sum
    };
    if count() == 1 {
        let mut shards = shards.into_iter();
        let first = shards.next().unwrap_or_default();
        return shards.fold(first, |sum, more| add(sum, &more));
    }
    // Each rank adds up a part of the values: of every shard it gets those alone.
    let (ranks, length) = (count(), shards.first().map_or(0, Vec::len));
    let parts: Vec<Range<usize>> = (0..ranks).map(|rank| part(length, rank, ranks)).collect();
    let to_each = parts.iter().map(|part| {
        let of_shards = shards.iter().flat_map(|values| &values[part.clone()]);
        of_shards.map(|value| value.to_bits()).collect()
    });
    let from_each = exchange(what, to_each.collect());
    let width = parts[own()].len();
    let of_shards = from_each
        .iter()
        .flat_map(|words| words.chunks(width.max(1)));
    let sum = of_shards.fold(None, |sum: Option<Vec<f32>>, words| {
        let values: Vec<f32> = words.iter().copied().map(f32::from_bits).collect();
        Some(match sum {
            None => values,
            Some(sum) => add(sum, &values),
        })
    });
    gather(what, &sum.unwrap_or_default())
}

/// Gives each rank its words, and gets those of each for this one.
fn exchange(what: &str, to_each: Vec<Vec<u32>>) -> Vec<Vec<u32>> {
    let tag = random::fingerprint(what.as_bytes());
    #[cfg(feature = "mpi")]
    return engine::exchange(what, tag, to_each);
    #[cfg(not(feature = "mpi"))]
    unreachable!("one rank, {tag} {}", to_each.len())
}

/// The first rank's answer; the others do not ask.
pub fn told<T: Serialize + DeserializeOwned>(what: &str, ask: impl FnOnce() -> T) -> T {
    if count() == 1 {
        return ask();
    }
    let own = (own() == 0).then(ask);
    let mut all = gather_each(what, own);
    all.swap_remove(0).expect("the first rank has asked")
}

/// Whether it is so for any of the ranks.
pub fn any(what: &str, own: bool) -> bool {
    gather_each(what, own).contains(&true)
}

/// Waits for all ranks.
pub fn meet(what: &str) {
    gather_words(what, &[]);
}

/// Does `work` on the first rank alone, when all ranks have come here; the others go on when it is done. For whatever
/// changes files: what all read before is the same for all, and so is what they read after.
///
/// # Errors
/// That of `work` on the first rank; [`Error::OtherRank`] on the others.
pub fn first(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    if count() == 1 {
        return work();
    }
    meet(what);
    let done = (own() == 0).then(|| alone(work));
    let failed = matches!(done, Some(Err(_)));
    let failed = gather_each(what, failed)[0];
    match done {
        Some(done) => done,
        None if failed => Err(Error::OtherRank { rank: 0 }),
        None => Ok(()),
    }
}

/// Refuses ranks that were given something else than the first one.
///
/// # Errors
/// [`Error::Ranks`] on every rank.
pub fn require_same(what: &str, own: &str) -> Result<()> {
    let all = gather_each(what, own.to_owned());
    let Some(other) = all.iter().position(|text| *text != all[0]) else {
        return Ok(());
    };
    let difference = crate::error::first_difference(&all[0], &all[other]);
    Err(Error::Ranks {
        problem: format!("rank {other} has another {what} than rank 0: {difference}"),
        hint: "give all machines the same program, recipe and images".to_owned(),
    })
}

/// What a launcher of MPI says about this process; none where none started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Number of this process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub ranks: usize,
    /// Number of this process among those of its machine.
    pub local_rank: usize,
    /// Number of processes on its machine.
    pub local_ranks: usize,
}

impl Launched {
    /// Finds the launch in the environment: of Open MPI, MPICH and its kin, or SLURM with one of the two.
    pub fn found() -> Option<Self> {
        Self::told_by(|name| std::env::var(name).ok()?.parse().ok())
    }

    fn told_by(number: impl Fn(&str) -> Option<usize>) -> Option<Self> {
        let any = |names: &[&str]| names.iter().find_map(|name| number(name));
        let rank = any(&["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"])?;
        let ranks = any(&["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS"])?;
        let local_rank = any(&[
            "OMPI_COMM_WORLD_LOCAL_RANK",
            "MPI_LOCALRANKID",
            "SLURM_LOCALID",
        ]);
        let local_ranks = any(&[
            "OMPI_COMM_WORLD_LOCAL_SIZE",
            "MPI_LOCALNRANKS",
            "SLURM_NTASKS_PER_NODE",
        ]);
        Some(Self {
            rank,
            ranks,
            local_rank: local_rank.unwrap_or(rank),
            local_ranks: local_ranks.unwrap_or(ranks),
        })
    }
}

/// The ranks' connection, to be kept until the end of the program.
pub struct Connection {
    #[cfg(feature = "mpi")]
    _universe: Option<engine::Universe>,
}

impl Connection {
    /// Connects this process with the others that the launcher started; without one there is nothing to connect with.
    ///
    /// # Errors
    /// [`Error::Ranks`] where this build has no feature `mpi` and there are others.
    pub fn open(launched: Option<Launched>) -> Result<Self> {
        #[cfg(feature = "mpi")]
        return Ok(Self {
            _universe: launched.map(|_| engine::Universe::open()),
        });
        #[cfg(not(feature = "mpi"))]
        match launched {
            Some(Launched { ranks: 2.., .. }) => Err(Error::Ranks {
                problem: "started by a launcher of MPI, and built without it: every process would do the whole work, in the same folder".to_owned(),
                hint: "build with --features mpi, or start one process".to_owned(),
            }),
            _ => Ok(Self {}),
        }
    }
}

/// Bytes that this rank has given to others so far, each counted once for every rank that gets it.
pub fn sent() -> u64 {
    #[cfg(feature = "mpi")]
    return engine::sent();
    #[cfg(not(feature = "mpi"))]
    0
}

/// Ends all ranks now, with this exit code.
pub fn end_all(code: u8) {
    let _ = code;
    #[cfg(feature = "mpi")]
    engine::abort(code);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_has_all_of_it() {
        assert_eq!((count(), own(), own_part(5)), (1, 0, 0..5));
        assert_eq!(gather("values", &[1.0, 2.0]), [1.0, 2.0]);
        assert_eq!(gather_each("texts", "a".to_owned()), ["a"]);
        assert_eq!(different("texts", "a".to_owned()), ["a"]);
        assert_eq!(distinct(vec!["b", "a", "b", "a"]), ["b", "a"]);
        assert_eq!(gather_rows("rows", &[1.0, 2.0], 2), (vec![1.0, 2.0], 2));
        assert_eq!(sum_counts("counts", vec![1, 2]), [1, 2]);
        assert_eq!(told("a number", || 3), 3);
        assert!(any("flags", true) && !any("flags", false));
        assert!(require_same("recipe", "a").is_ok());
        let failed = first("files", || Err(Error::Rows { failed: 1 }));
        assert!(matches!(failed, Err(Error::Rows { failed: 1 })));
    }

    #[test]
    fn parts_are_nearly_equal_and_have_everything_once() {
        for (things, ranks) in [(8, 4), (7, 3), (2, 4), (0, 2), (5, 1)] {
            let parts: Vec<_> = (0..ranks).map(|rank| part(things, rank, ranks)).collect();
            let all: Vec<usize> = parts.iter().cloned().flatten().collect();
            assert_eq!(all, (0..things).collect::<Vec<_>>());
            let sizes = parts.iter().map(ExactSizeIterator::len);
            assert!(sizes.clone().max() <= sizes.min().map(|least| least + 1));
        }
    }

    #[test]
    fn a_sum_goes_from_the_first_shard_to_the_last() {
        // In another order the small value would not be lost.
        let shards = vec![vec![1e8, 1.0], vec![1.0, 2.0], vec![-1e8, 3.0]];
        assert_eq!(sum_in_order("values", shards), [0.0, 6.0]);
        assert!(sum_in_order("nothing", Vec::new()).is_empty());
    }

    #[test]
    fn launchers_are_known_by_what_they_say() {
        let found = |names: &[(&str, usize)]| {
            Launched::told_by(|name| {
                names
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, value)| *value)
            })
        };
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[("SLURM_NTASKS", 4)]), None, "srun without MPI");
        let open_mpi = found(&[
            ("OMPI_COMM_WORLD_RANK", 3),
            ("OMPI_COMM_WORLD_SIZE", 4),
            ("OMPI_COMM_WORLD_LOCAL_RANK", 1),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", 2),
        ]);
        let expected = Launched {
            rank: 3,
            ranks: 4,
            local_rank: 1,
            local_ranks: 2,
        };
        assert_eq!(open_mpi, Some(expected));
        let mpich = found(&[("PMI_RANK", 0), ("PMI_SIZE", 2)]).expect("MPICH");
        assert_eq!((mpich.ranks, mpich.local_ranks), (2, 2));
    }
}
