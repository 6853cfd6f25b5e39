//! Buffers without needless zeroing, and pointers that threads share.

use std::cell::RefCell;

/// A pointer to a buffer that several threads write, each its own part.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: only a pointer; whoever writes through it promises that no two threads touch the same values.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(buffer: &mut [f32]) -> Self {
        Self(buffer.as_mut_ptr())
    }

    /// The pointer, `offset` values on. A method, so that closures capture the whole `Shared`.
    ///
    /// # Safety
    /// `offset` is inside the buffer, or just past it.
    pub(crate) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// A buffer whose values are undefined: every one must be written before it is read.
pub(crate) fn uninitialised(len: usize) -> Vec<f32> {
    let mut buffer = Vec::with_capacity(len);
    // SAFETY: the capacity is there; a float has no invalid bits, and each caller writes all values before
    // reading any.
    #[allow(clippy::uninit_vec)]
    unsafe {
        buffer.set_len(len);
    }
    buffer
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends a buffer of this thread, aligned to a cache line, with undefined values.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken out while it is lent: a task stolen by this thread meanwhile gets another one.
    let mut buffer = SCRATCH.with(|scratch| std::mem::take(&mut *scratch.borrow_mut()));
    if buffer.len() < len + 16 {
        buffer = uninitialised(len + 16);
    }
    let skip = buffer.as_ptr().align_offset(64).min(16);
    let result = work(&mut buffer[skip..skip + len]);
    SCRATCH.with(|scratch| *scratch.borrow_mut() = buffer);
    result
}
