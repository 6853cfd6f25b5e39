//! Values of images, in memory or in a file.

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::Mmap;

/// Values of images of one size, one image after the other.
pub(super) enum Block {
    /// Values in memory.
    Memory(Vec<u8>),
    /// Values in a file: the system reads what is asked for, and forgets it where memory is short.
    Mapped(Mmap),
}

impl Block {
    /// The content of a file that is the program's own.
    ///
    /// # Errors
    /// Where the system cannot map it.
    #[allow(unsafe_code)]
    pub(super) fn map(file: &File) -> io::Result<Self> {
        // Safety: the file lies in the cache, under a name that appears when it is whole; nobody writes to it
        // after that, and it is removed by its name alone, which leaves the mapped content as it is. One that is not
        // whole is held by this process, which only adds to it while it is mapped.
        let map = unsafe { Mmap::map(file)? };
        Ok(Self::Mapped(map))
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Memory(values) => values,
            Self::Mapped(map) => map,
        }
    }
}
