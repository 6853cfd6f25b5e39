//! The run folder: models, checkpoints, results and the log. Running again goes on where it was.

mod about;
pub mod layout;
mod model;
mod results;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::session::Event;

pub use about::{About, FORMAT, FolderKind, Place};
pub use layout::Layout;
pub use model::{IMPORTED, MODEL_FORMAT, Model, ModelInfo, models_below};
pub use results::{Bound, Results};

/// A run folder, held by this process.
pub struct Run {
    layout: Layout,
    metrics: File,
    // Unlocked when dropped.
    _lock: File,
}

impl Run {
    /// Opens the folder, making it where it is missing, and locks it.
    ///
    /// # Errors
    /// [`Error::Run`] where another process works in it; [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let layout = Layout::new(path);
        fs::create_dir_all(path).map_err(Error::io("create", path))?;
        let lock_path = layout.lock();
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&lock_path)
            .map_err(Error::io("create", &lock_path))?;
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            let hint = "wait for it, or name another folder with --run";
            let problem = "another advcl is at work in this folder";
            return Err(Error::run(path, problem, hint));
        }
        let metrics_path = layout.metrics();
        let metrics = File::options()
            .create(true)
            .append(true)
            .open(&metrics_path)
            .map_err(Error::io("write", &metrics_path))?;
        Ok(Self {
            layout,
            metrics,
            _lock: lock,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.layout.root()
    }

    /// Places of its files.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Folder of one stage, made where it is missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn stage(&self, name: &str) -> Result<PathBuf> {
        let path = self.layout.stage(name);
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        Ok(path)
    }

    /// Appends an event to the log; steps and progress within a stage are for people, not for the log.
    pub fn log(&self, event: &Event) {
        if matches!(event, Event::Step { .. } | Event::Progress { .. }) {
            return;
        }
        let line = serde_json::to_string(event).expect("plain values");
        // The log is for reading along; a full disk stops the run at the next checkpoint.
        let _ = writeln!(&self.metrics, "{line}");
    }
}
