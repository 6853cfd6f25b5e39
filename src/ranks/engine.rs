//! The ranks' messages, by MPI. Calls come from one thread at a time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use mpi::Threading;
use mpi::datatype::{Partition, PartitionMut};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};

/// Rank and size; none before [`Universe::open`].
static WORLD: OnceLock<(usize, usize)> = OnceLock::new();

/// MPI, from its beginning to its end.
pub(super) struct Universe {
    _universe: mpi::environment::Universe,
}

impl Universe {
    pub(super) fn open() -> Self {
        let (universe, _) = mpi::initialize_with_threading(Threading::Serialized)
            .expect("the program connects once");
        let world = universe.world();
        WORLD.get_or_init(|| (world.rank() as usize, world.size() as usize));
        Self {
            _universe: universe,
        }
    }
}

pub(super) fn size() -> usize {
    WORLD.get().map_or(1, |world| world.1)
}

pub(super) fn rank() -> usize {
    WORLD.get().map_or(0, |world| world.0)
}

pub(super) fn abort(code: u8) {
    if WORLD.get().is_some() {
        SimpleCommunicator::world().abort(i32::from(code));
    }
}

/// Bytes that this rank has sent to others, for measurements.
static SENT: AtomicU64 = AtomicU64::new(0);

/// Exchanges what each rank is at, and so many numbers; panics where they are at different work.
fn agree(what: &str, tag: u64, counts: &[u64]) -> Vec<Vec<u64>> {
    let (world, ranks) = (SimpleCommunicator::world(), size());
    let mut own = vec![tag];
    own.extend(counts);
    let mut all = vec![0; own.len() * ranks];
    world.all_gather_into(&own[..], &mut all[..]);
    let each: Vec<Vec<u64>> = all.chunks(own.len()).map(<[u64]>::to_vec).collect();
    if let Some(other) = each.iter().position(|numbers| numbers[0] != tag) {
        panic!(
            "rank {} is at {what:?}, and rank {other} at something else: they took different decisions",
            rank()
        );
    }
    each
}

/// Starts of parts of these lengths.
fn starts(lengths: &[i32]) -> Vec<i32> {
    let mut next = 0;
    let start = |length: &i32| {
        next += length;
        next - length
    };
    lengths.iter().map(start).collect()
}

fn cut(words: &[u32], lengths: &[i32]) -> Vec<Vec<u32>> {
    let places = starts(lengths).into_iter().zip(lengths);
    places
        .map(|(start, length)| words[start as usize..][..*length as usize].to_vec())
        .collect()
}

pub(super) fn gather(what: &str, tag: u64, own: &[u32]) -> Vec<Vec<u32>> {
    let lengths = agree(what, tag, &[own.len() as u64]);
    let lengths: Vec<i32> = lengths.iter().map(|numbers| length(numbers[1])).collect();
    let total: usize = lengths.iter().map(|length| *length as usize).sum();
    if total == 0 {
        return vec![Vec::new(); lengths.len()];
    }
    let mut all = vec![0; total];
    let mut parts = PartitionMut::new(&mut all[..], &lengths[..], starts(&lengths));
    SimpleCommunicator::world().all_gather_varcount_into(own, &mut parts);
    count_sent(own.len() * (size() - 1));
    cut(&all, &lengths)
}

pub(super) fn exchange(what: &str, tag: u64, to_each: Vec<Vec<u32>>) -> Vec<Vec<u32>> {
    let own: Vec<u64> = to_each.iter().map(|words| words.len() as u64).collect();
    let all = agree(what, tag, &own);
    let lengths =
        |numbers: &mut dyn Iterator<Item = u64>| numbers.map(length).collect::<Vec<i32>>();
    let sent = lengths(&mut own.into_iter());
    let got = lengths(&mut all.iter().map(|numbers| numbers[1 + rank()]));
    let own = to_each.concat();
    let mut received = vec![0; got.iter().map(|length| *length as usize).sum()];
    let from = Partition::new(&own[..], &sent[..], starts(&sent));
    let mut to = PartitionMut::new(&mut received[..], &got[..], starts(&got));
    SimpleCommunicator::world().all_to_all_varcount_into(&from, &mut to);
    count_sent(own.len() - to_each[rank()].len());
    cut(&received, &got)
}

/// MPI counts by 32 bits.
fn length(words: u64) -> i32 {
    i32::try_from(words).expect("a message of less than 8 GiB")
}

fn count_sent(words: usize) {
    SENT.fetch_add(4 * words as u64, Ordering::Relaxed);
}

/// Bytes that this rank has sent to others so far.
pub(super) fn sent() -> u64 {
    SENT.load(Ordering::Relaxed)
}
