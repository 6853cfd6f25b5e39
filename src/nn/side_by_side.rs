//! Shards that pass a network side by side, each on a thread of its own, and wait for each other at every BatchNorm: its statistics
//! are those of the whole batch, of which other ranks may have more shards. What the shards bring is put together in their order,
//! so that results do not depend on where they are.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};

use crate::ranks;

/// Numbers that every shard brought, in the order of the shards.
type Brought = Arc<Vec<Vec<f64>>>;

/// What the threads of a rank meet at.
#[derive(Default)]
struct Table {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// What the threads brought to this meeting, in the order of their shards.
    brought: Vec<Option<Vec<f64>>>,
    /// What all shards of all ranks brought to the last one.
    last: Brought,
    /// Number of meetings that are over.
    over: usize,
    /// Whether a thread panicked, so that nobody need wait for it.
    is_broken: bool,
}

/// The place of a thread's shard among those of its rank.
#[derive(Clone)]
pub(super) struct Meeting {
    table: Arc<Table>,
    place: usize,
    /// Images of the whole batch, over those of the shard.
    share: f64,
}

thread_local! {
    static MEETING: RefCell<Option<Meeting>> = const { RefCell::new(None) };
}

/// Where this thread meets those of the other shards; none where it goes alone.
pub(super) fn meeting() -> Option<Meeting> {
    MEETING.with_borrow(Clone::clone)
}

/// Number of rows in the whole batch, where this thread has so many.
pub(super) fn rows_of_all(own: usize) -> f64 {
    own as f64 * meeting().map_or(1.0, |meeting| meeting.share)
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meeting {
    /// What all shards bring, each so many numbers. Waits for them.
    ///
    /// # Panics
    /// Where another thread panicked.
    pub(super) fn all(&self, own: Vec<f64>) -> Brought {
        let mut state = self.table.lock();
        let (length, before) = (own.len(), state.over);
        state.brought[self.place] = Some(own);
        if state.brought.iter().all(Option::is_some) {
            let own: Vec<f64> = (state.brought.iter_mut())
                .flat_map(|brought| brought.take().unwrap_or_default())
                .collect();
            let all = ranks::gather_f64("BatchNorm", &own);
            state.last = Arc::new(all.chunks(length).map(<[f64]>::to_vec).collect());
            state.over += 1;
            self.table.changed.notify_all();
        }
        while state.over == before {
            assert!(!state.is_broken, "the thread of another shard panicked");
            let waited = self.table.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.last.clone()
    }
}

/// A thread at work on a shard.
struct AtWork(Arc<Table>);

impl Drop for AtWork {
    fn drop(&mut self) {
        MEETING.set(None);
        if std::thread::panicking() {
            self.0.lock().is_broken = true;
            self.0.changed.notify_all();
        }
    }
}

/// Does `work` for every shard of this rank, side by side; `images` are the numbers of images of these shards, out of `all`. Threads
/// are compiled once for each kind of result, and not for each of the many kinds of work.
pub(super) fn each<T: Send>(
    images: &[usize],
    all: usize,
    work: &(dyn Fn(usize) -> T + Sync),
) -> Vec<T> {
    let table = Arc::new(Table::default());
    table.lock().brought = vec![None; images.len()];
    let at_work = |place: usize| {
        MEETING.set(Some(Meeting {
            table: table.clone(),
            place,
            share: all as f64 / images[place] as f64,
        }));
        let _then = AtWork(table.clone());
        work(place)
    };
    if images.len() == 1 {
        return vec![at_work(0)];
    }
    use_as_many_threads();
    std::thread::scope(|scope| {
        let at_work = &at_work;
        let threads: Vec<_> = (0..images.len())
            .map(|place| scope.spawn(move || at_work(place)))
            .collect();
        let results = threads.into_iter().map(|thread| thread.join());
        let results: Result<Vec<T>, _> = results.collect();
        results.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Lets the threads outside of the program's pool, who compute in one for all, have as many to help them as it has.
fn use_as_many_threads() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let threads = rayon::current_num_threads();
        // Where there is such a pool already, its number is its maker's.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_gets_what_all_brought_in_the_order_of_the_shards() {
        let found = each(&[2, 3, 3], 8, &|place| {
            let meeting = meeting().expect("threads meet");
            let first = meeting.all(vec![place as f64]);
            let second = meeting.all(vec![10.0 * place as f64, 1.0]);
            (first, second, rows_of_all(6))
        });
        for (place, (first, second, rows)) in found.into_iter().enumerate() {
            assert_eq!(*first, [[0.0], [1.0], [2.0]]);
            assert_eq!(*second, [[0.0, 1.0], [10.0, 1.0], [20.0, 1.0]]);
            assert_eq!(rows, [24.0, 16.0, 16.0][place]);
        }
        assert!(meeting().is_none());
    }

    #[test]
    fn nobody_waits_for_a_thread_that_panicked() {
        let found = std::panic::catch_unwind(|| {
            each(&[1, 1], 2, &|place| {
                assert_eq!(place, 0, "the second one fails");
                meeting().expect("threads meet").all(vec![0.0]);
            })
        });
        assert!(found.is_err());
    }
}
