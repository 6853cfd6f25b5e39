//! Results on standard output: text, or JSON for programs.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::args::Shared;

/// Writes text to standard output; a closed pipe is no error.
pub fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// Writes a value as JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Writes the files that a command made, a line each.
pub fn print_paths(paths: &[PathBuf], shared: &Shared) -> Result<()> {
    if shared.json {
        return print_json(&paths);
    }
    let line = |path: &PathBuf| format!("{}\n", path.display());
    print(&paths.iter().map(line).collect::<String>())
}
