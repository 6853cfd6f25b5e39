//! Pointers that threads share, and scratch buffers.
//!
//! A result whose values are all written before they are read starts as
//! `Box::<[f32]>::new_uninit_slice`: zeroing it first would be one more pass over memory. The
//! kernels write it through [`Shared`], and the function that knows that every value was written
//! calls `assume_init`.

use std::cell::RefCell;
use std::mem::MaybeUninit;

/// A pointer to a buffer in which several threads write, each in its own part.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: only a pointer; every access through it is unsafe, and whoever makes one promises that no
// other thread writes the same values at the same time.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// A pointer to initialised values.
    pub(crate) fn new(buffer: &mut [f32]) -> Self {
        Self(buffer.as_mut_ptr())
    }

    /// A pointer to values that must be written before they are read.
    pub(crate) fn uninit(buffer: &mut [MaybeUninit<f32>]) -> Self {
        Self(buffer.as_mut_ptr().cast())
    }

    /// The address of the value at `offset`. A method, so that closures capture the whole `Shared`.
    ///
    /// # Safety
    /// `offset` is inside the buffer or just behind it, and the buffer still exists.
    pub(crate) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<MaybeUninit<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with this thread's scratch buffer, aligned to a cache line. Its values are not
/// initialised.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [MaybeUninit<f32>]) -> R) -> R {
    // Taken out while it is in use: a task that this thread steals meanwhile gets another one.
    let mut buffer = SCRATCH.with(|scratch| std::mem::take(&mut *scratch.borrow_mut()));
    if buffer.len() < len + 16 {
        buffer = Box::<[f32]>::new_uninit_slice(len + 16).into_vec();
    }
    let skip = buffer.as_ptr().align_offset(64).min(16);
    let result = work(&mut buffer[skip..skip + len]);
    SCRATCH.with(|scratch| *scratch.borrow_mut() = buffer);
    result
}
