// An allocator that counts; a file of its own because the test of the corpus includes it too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes in use now, and the most at a time since the last question.
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with a count of all bytes that are in use.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// Safety: every call is passed on as it is.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(now, Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let now = NOW.fetch_add(size, Relaxed) + size;
        NOW.fetch_sub(layout.size(), Relaxed);
        // Where it moves, both are there for a moment.
        MOST.fetch_max(now, Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Most bytes that `work` had in use at a time, beside those that were in use before.
pub fn bytes_of(work: impl FnOnce()) -> usize {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    work();
    MOST.load(Relaxed).saturating_sub(before)
}

/// Most bytes that a parser may have in use for an input: what the largest image of a data set takes, and a
/// multiple of what is there.
pub fn allowed(input: &[u8]) -> usize {
    (256 << 20) + 64 * input.len()
}
