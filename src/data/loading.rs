//! How data sets are loaded: where decoded images are kept, and who hears how far it has come.

use std::path::PathBuf;
use std::sync::OnceLock;

/// Whether decoded images are kept in files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// Sets of more than [`LARGE`] bytes.
    #[default]
    Auto,
    /// Every set of image files.
    Always,
    /// No set: images are held in memory.
    Never,
}

/// Bytes of decoded images from which on they are kept in a file.
pub const LARGE: usize = 256 << 20;

/// Progress of a data set that is being read, for people.
#[derive(Clone, Debug)]
pub struct Decoded<'a> {
    /// Name of the data set.
    pub name: &'a str,
    /// Images that are decoded.
    pub done: usize,
    /// Images in all.
    pub total: usize,
}

/// How this process loads data sets. What is loaded does not depend on it.
pub struct Loading {
    /// Whether decoded images are kept in files.
    pub cache: Cache,
    /// Folder of those files; none where there is no place for them.
    pub folder: Option<PathBuf>,
    /// Hears how far a set of image files has come, some times a second.
    pub progress: fn(&Decoded),
}

impl Default for Loading {
    /// Images in memory, and nobody who hears of it.
    fn default() -> Self {
        Self {
            cache: Cache::Never,
            folder: None,
            progress: |_| (),
        }
    }
}

static CHOSEN: OnceLock<Loading> = OnceLock::new();

/// Chooses how this process loads data sets, before the first one is loaded; false where that was chosen
/// before.
pub fn choose_loading(loading: Loading) -> bool {
    CHOSEN.set(loading).is_ok()
}

/// What was chosen.
pub(super) fn loading() -> &'static Loading {
    CHOSEN.get_or_init(Loading::default)
}
