//! Files of decoded images: where they are, how far they have come, and `advcl cache`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use advcl::data::{self, CachedFile, Decoded, Loading, cached_files, remove_cached};
use advcl::session::Event;
use anyhow::Result;
use indicatif::{HumanBytes, HumanDuration};

use crate::args::{CacheCommand, CacheName, Shared};
use crate::format::Table;
use crate::output::{print, print_json, printable};
use crate::progress::{Progress, print_status};

/// Time between two lines about one data set where there is no terminal.
const SAID: Duration = Duration::from_secs(30);

/// The folder of the files: the user's choice, or where the system keeps what can be made again.
pub fn folder() -> Option<PathBuf> {
    match std::env::var_os("ADVCL_CACHE") {
        Some(folder) if !folder.is_empty() => Some(folder.into()),
        _ => dirs::cache_dir().map(|folder| folder.join("advcl")),
    }
}

/// Chooses how this process loads data sets.
pub fn choose(shared: &Shared) {
    data::choose_loading(Loading {
        cache: match shared.cache {
            CacheName::Auto => data::Cache::Auto,
            CacheName::Always => data::Cache::Always,
            CacheName::Never => data::Cache::Never,
        },
        folder: folder(),
        progress: match shared.quiet {
            true => |_| (),
            false => show,
        },
    });
}

/// A data set that is being decoded.
struct Decoding {
    name: String,
    progress: Progress,
    since: Instant,
    /// Images that were done by then: those of an earlier process took none of this one's time.
    before: usize,
    said: Instant,
}

static DECODING: Mutex<Option<Decoding>> = Mutex::new(None);

/// Shows how far a data set has come: a bar on a terminal, a line now and then elsewhere.
fn show(decoded: &Decoded) {
    let Ok(mut decoding) = DECODING.lock() else {
        return;
    };
    if decoding.as_ref().is_none_or(|now| now.name != decoded.name) {
        *decoding = Some(Decoding {
            name: decoded.name.to_owned(),
            progress: Progress::new(false),
            since: Instant::now(),
            before: decoded.done,
            said: Instant::now(),
        });
    }
    let now = decoding.as_mut().expect("just set");
    if std::io::stderr().is_terminal() {
        now.progress.on_event(&Event::Progress {
            stage: printable(decoded.name).into_owned(),
            done: decoded.done,
            total: decoded.total,
            unit: "images",
        });
    } else if now.said.elapsed() >= SAID {
        now.said = Instant::now();
        let rate = (decoded.done - now.before) as f64 / now.since.elapsed().as_secs_f64();
        let left = (decoded.total - decoded.done) as f64 / rate;
        let left = Duration::try_from_secs_f64(left).unwrap_or_default();
        print_status(&format!(
            "data: {} of {} images of {} are decoded, {rate:.0} images/s, {} left",
            decoded.done,
            decoded.total,
            printable(decoded.name),
            HumanDuration(left)
        ));
    }
    if decoded.done == decoded.total
        && let Some(mut done) = decoding.take()
    {
        done.progress.finish();
    }
}

/// Lists the files of decoded images, or removes them.
pub fn cache(what: &CacheCommand, shared: &Shared) -> Result<()> {
    let Some(folder) = folder() else {
        if shared.json {
            return print_json(&Vec::<CachedFile>::new());
        }
        print_status("no folder for decoded images: HOME is not set, nor ADVCL_CACHE");
        return Ok(());
    };
    let files = cached_files(&folder)?;
    match what {
        CacheCommand::List => list(&files, &folder, shared),
        CacheCommand::Clear { source } => clear(&files, source.as_deref(), shared),
    }
}

fn list(files: &[CachedFile], folder: &Path, shared: &Shared) -> Result<()> {
    if shared.json {
        return print_json(&files);
    }
    if files.is_empty() {
        print_status(&format!("no decoded images in {}", folder.display()));
        return Ok(());
    }
    let mut table = Table::new().left("file").right("size").left("of");
    for file in files {
        table.row([
            file.path.display().to_string(),
            HumanBytes(file.bytes).to_string(),
            file.source.clone().unwrap_or("not whole yet".to_owned()),
        ]);
    }
    print(&table.text())
}

/// Removes files: all of them, or those of one source.
fn clear(files: &[CachedFile], source: Option<&Path>, shared: &Shared) -> Result<()> {
    let wanted = source.map(|source| source.canonicalize().unwrap_or(source.to_path_buf()));
    let is_meant = |file: &&CachedFile| match &wanted {
        Some(wanted) => file
            .source
            .as_ref()
            .is_some_and(|source| Path::new(source) == wanted),
        None => true,
    };
    let mut removed = Vec::new();
    for file in files.iter().filter(is_meant) {
        match remove_cached(file)? {
            true => removed.push(file.clone()),
            false => print_status(&format!(
                "left: {}, which another advcl is making",
                printable(&file.path.display().to_string())
            )),
        }
    }
    if shared.json {
        return print_json(&removed);
    }
    let bytes = removed.iter().map(|file| file.bytes).sum();
    let files = match removed.len() {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    print(&format!("removed {files}, {}\n", HumanBytes(bytes)))
}
