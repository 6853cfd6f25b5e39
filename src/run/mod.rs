//! The run folder: models, checkpoints, results and the log. Running again goes on where it was.

mod about;
pub mod layout;
mod model;
mod results;

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::session::Event;
use crate::{files, ranks};

pub use about::{About, FORMAT, FolderKind, Place};
pub use layout::Layout;
pub use model::{IMPORTED, MODEL_FORMAT, Model, ModelInfo, model_file};
pub(crate) use model::{is_side, require_usable, require_values};
pub use results::{Bound, Results};

/// A run folder, held by this process.
pub struct Run {
    layout: Layout,
    /// The log; none where nothing is to be written.
    metrics: Option<File>,
    /// Lines of the log that could not be written yet.
    unwritten: RefCell<Vec<u8>>,
    // Unlocked when dropped.
    _lock: Option<File>,
}

impl Run {
    /// Opens the folder, making it where it is missing, and locks it. Removes what processes left there
    /// that were killed while they wrote.
    ///
    /// # Errors
    /// [`Error::Run`] where another process works in it; [`Error::Io`]; [`Error::Format`] where something
    /// else stands in the place of the lock or the log.
    pub fn open(path: &Path) -> Result<Self> {
        let mut opened = None;
        ranks::first("run folder", || {
            opened = Some(Self::open_here(path)?);
            Ok(())
        })?;
        require_shared(path)?;
        Ok(opened.unwrap_or_else(|| Self::read_only(path)))
    }

    fn open_here(path: &Path) -> Result<Self> {
        let layout = Layout::new(path);
        fs::create_dir_all(path).map_err(Error::io("create", path))?;
        let lock = files::open_own(&layout.lock())?;
        let hint = "wait for it, or name another folder with --run";
        require_free(path, lock.try_lock(), hint)?;
        remove_parts_below(path, STAGES)?;
        let metrics_path = layout.metrics();
        let mut metrics = files::open_own(&metrics_path)?;
        cut_to_whole_lines(&mut metrics).map_err(Error::io("write", &metrics_path))?;
        Ok(Self {
            layout,
            metrics: Some(metrics),
            unwritten: RefCell::default(),
            _lock: Some(lock),
        })
    }

    /// Opens the folder to read what is there: nothing in it is changed, and no process works in it meanwhile as far as its lock is
    /// there and can be had.
    ///
    /// # Errors
    /// [`Error::Run`] where another process works in it.
    pub fn open_to_read(path: &Path) -> Result<Self> {
        let mut lock = None;
        ranks::first("run folder", || {
            lock = files::open(&Layout::new(path).lock()).ok();
            match &lock {
                Some(lock) => require_free(path, lock.try_lock_shared(), "wait for it"),
                None => Ok(()),
            }
        })?;
        Ok(Self {
            _lock: lock,
            ..Self::read_only(path)
        })
    }

    /// A folder that is looked at: nothing is written, and other processes may be at work in it.
    pub fn read_only(path: &Path) -> Self {
        Self {
            layout: Layout::new(path),
            metrics: None,
            unwritten: RefCell::default(),
            _lock: None,
        }
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
    /// [`Error::Io`]; [`Error::Run`] for a link to a folder outside of the run's, in which nothing is written.
    pub fn stage(&self, name: &str) -> Result<PathBuf> {
        let path = self.layout.stage(name);
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        require_inside(self.path(), &path)?;
        Ok(path)
    }

    /// Removes a folder of a stage with what is in it, as far as it is there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(path: &Path) -> Result<()> {
        files::changing(path, || match fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", path)(error))
            }
            _ => Ok(()),
        })
    }

    /// Appends an event to the log; steps and progress within a stage are for people, not for the log. A line
    /// that cannot be written is kept for the next time, and for [`Run::finish_log`].
    pub fn log(&self, event: &Event) {
        if matches!(event, Event::Step { .. } | Event::Progress { .. }) {
            return;
        }
        let line = serde_json::to_string(event).expect("plain values");
        let mut unwritten = self.unwritten.borrow_mut();
        unwritten.extend(line.as_bytes());
        unwritten.push(b'\n');
        let _ = self.write_log(&mut unwritten);
    }

    /// Writes the lines of the log that could not be written before.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish_log(&self) -> Result<()> {
        let path = self.layout.metrics();
        self.write_log(&mut self.unwritten.borrow_mut())
            .map_err(Error::io("write", path))
    }

    /// Writes lines whole or not at all, as far as the file can be shortened again.
    fn write_log(&self, lines: &mut Vec<u8>) -> std::io::Result<()> {
        let Some(mut metrics) = self.metrics.as_ref() else {
            return Ok(());
        };
        let before = metrics.metadata()?.len();
        match metrics.write_all(lines) {
            Ok(()) => {
                lines.clear();
                Ok(())
            }
            Err(error) => {
                metrics.set_len(before)?;
                Err(error)
            }
        }
    }

    /// Whether the log's last line about an epoch of a stage is of this epoch, with these losses.
    pub fn has_logged(&self, stage: &str, epoch: usize, losses: &[(String, f32)]) -> bool {
        #[derive(Deserialize)]
        struct Line {
            event: String,
            stage: String,
            epoch: usize,
            losses: Vec<(String, Option<f32>)>,
        }
        let Ok(text) = files::read(&self.layout.metrics()) else {
            return true;
        };
        let lines = text.rsplit(|byte| *byte == b'\n');
        let mut epochs = lines
            .filter_map(|line| serde_json::from_slice::<Line>(line).ok())
            .filter(|line| line.event == "epoch" && line.stage == stage);
        epochs.next().is_some_and(|line| {
            let logged = line.losses.iter().map(|(name, loss)| (name, *loss));
            let asked = losses.iter().map(|(name, loss)| (name, Some(*loss)));
            line.epoch == epoch && logged.eq(asked)
        })
    }
}

/// Refuses a folder whose lock another process holds.
fn require_free(path: &Path, locked: Result<(), fs::TryLockError>, hint: &str) -> Result<()> {
    match locked {
        Err(fs::TryLockError::WouldBlock) => {
            let problem = "another advcl is at work in this folder";
            Err(Error::run(path, problem, hint))
        }
        // Some file systems have no locks.
        _ => Ok(()),
    }
}

/// Refuses a run folder that is not the same one for all ranks.
fn require_shared(path: &Path) -> Result<()> {
    if ranks::count() == 1 {
        return Ok(());
    }
    // A name that no folder of an earlier run has.
    let mark = ranks::told("mark", || format!(".ranks-{}", std::process::id()));
    let mark = path.join(mark);
    files::changing(&mark, || {
        fs::write(&mark, "").map_err(Error::io("write", &mark))
    })?;
    let seen = ranks::gather_each("mark seen", mark.exists());
    files::changing(&mark, || {
        fs::remove_file(&mark).map_err(Error::io("remove", &mark))
    })?;
    match seen.iter().position(|seen| !seen) {
        None => Ok(()),
        Some(rank) => Err(Error::Ranks {
            problem: format!(
                "rank {rank} does not see what rank 0 writes to {}",
                path.display()
            ),
            hint: "name a folder with --run that all machines share".to_owned(),
        }),
    }
}

/// Levels of folders in a run folder: METHOD/MODE/attack/SUITE.
const STAGES: usize = 4;

/// Refuses a folder of a run that is a link to somewhere else: nothing is written outside of the run's own.
///
/// # Errors
/// [`Error::Run`]; [`Error::Io`].
pub fn require_inside(run: &Path, folder: &Path) -> Result<()> {
    let real = |path: &Path| fs::canonicalize(path).map_err(Error::io("read", path));
    let inside = real(folder)?;
    if inside.starts_with(real(run)?) {
        return Ok(());
    }
    let problem = format!(
        "{} is a link to {}, outside of the run folder",
        folder.display(),
        inside.display()
    );
    let hint = "put the folder itself there, or remove the link";
    Err(Error::run(run, problem, hint))
}

fn remove_parts_below(folder: &Path, levels: usize) -> Result<()> {
    files::remove_parts(folder)?;
    if levels == 0 {
        return Ok(());
    }
    let entries = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("read", folder))?;
        let (path, kind) = (entry.path(), entry.file_type());
        let kind = kind.map_err(Error::io("read", &path))?;
        // Of the entry itself: links are not followed.
        if kind.is_dir() {
            remove_parts_below(&path, levels - 1)?;
        }
    }
    Ok(())
}

/// Removes a line at the end of a log that a killed process did not finish.
fn cut_to_whole_lines(log: &mut File) -> std::io::Result<()> {
    const BLOCK: u64 = 1 << 12;
    let mut end = log.metadata()?.len();
    let whole = end;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        log.seek(SeekFrom::Start(start))?;
        let mut block = Vec::new();
        log.take(end - start).read_to_end(&mut block)?;
        match block.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => {
                end = start + at as u64 + 1;
                break;
            }
            None => end = start,
        }
    }
    if end < whole {
        log.set_len(end)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_a_killed_process_began_is_removed_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        let long = "x".repeat(10_000);
        for (before, after) in [
            ("", ""),
            ("one\n", "one\n"),
            ("one\ntw", "one\n"),
            ("half", ""),
            (&format!("one\n{long}"), "one\n"),
            (&format!("one\n{long}\n"), &format!("one\n{long}\n")),
            (&format!("{long}\ntw"), &format!("{long}\n")),
        ] {
            fs::write(&path, before).expect("a file");
            drop(Run::open(folder.path()).expect("a run folder"));
            assert_eq!(fs::read_to_string(&path).expect("a file"), after);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_out_of_the_folder_is_refused_and_one_inside_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (run, elsewhere) = (folder.path().join("run"), folder.path().join("elsewhere"));
        fs::create_dir_all(run.join("advcl")).expect("a folder");
        fs::create_dir(&elsewhere).expect("a folder");
        let link = |to: &Path, name: &str| {
            std::os::unix::fs::symlink(to, run.join(name)).expect("a link");
        };
        link(Path::new("advcl"), "same");
        link(&elsewhere, "simclr");
        let run = Run::open(&run).expect("a run folder");
        run.stage("same").expect("a folder inside");
        let error = run.stage("simclr").expect_err("it leads out").to_string();
        assert!(error.contains("outside of the run folder"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_or_a_log_that_is_a_link_is_refused_and_its_target_untouched() {
        for name in [".lock", "metrics.jsonl"] {
            let folder = tempfile::tempdir().expect("a folder");
            let (run, victim) = (folder.path().join("run"), folder.path().join("victim"));
            fs::create_dir(&run).expect("a folder");
            fs::write(&victim, "precious, and not a whole line").expect("a file");
            std::os::unix::fs::symlink(&victim, run.join(name)).expect("a link");
            let error = Run::open(&run).map(drop).expect_err("a link");
            assert!(
                error.to_string().contains("found a symbolic link"),
                "{error}"
            );
            let kept = fs::read_to_string(&victim).expect("a file");
            assert_eq!(kept, "precious, and not a whole line");
        }
    }

    #[test]
    fn only_our_own_temporary_files_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let stage = folder.path().join("advcl/slf");
        fs::create_dir_all(&stage).expect("a folder");
        let ours = [
            folder.path().join(".aB3dEf.part"),
            stage.join(".000000.part"),
        ];
        let others = [".part", ".movie.mkv.part", "aB3dEf.part", ".aB3dEfg.part"];
        let others = others.map(|name| stage.join(name));
        for path in ours.iter().chain(&others) {
            fs::write(path, "x").expect("a file");
        }
        drop(Run::open(folder.path()).expect("a run folder"));
        assert!(ours.iter().all(|path| !path.exists()));
        assert!(others.iter().all(|path| path.exists()));
    }
}
