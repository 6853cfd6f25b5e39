//! Signals that ask the program to stop.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};

use crate::progress::print_status;

/// Set by the first Ctrl-C; the second ends the process at once.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C ask to stop, as SIGTERM and SIGHUP do; a second one ends the process. Signals that were ignored when the
/// program started stay ignored, which is how `nohup` and background jobs keep it running.
pub fn listen() -> Result<()> {
    let ignored = ignored();
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        print_status("\nstopping after this step; press Ctrl-C again to stop at once");
    })
    .context("cannot listen for Ctrl-C")?;
    ignore(&ignored);
    Ok(())
}

/// Signals that stop the program and are ignored now.
#[cfg(unix)]
#[allow(unsafe_code)]
fn ignored() -> Vec<libc::c_int> {
    let is_ignored = |signal: &libc::c_int| {
        // SAFETY: a structure of plain numbers, which the call fills; the disposition is read and not changed.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(*signal, std::ptr::null(), &mut now) == 0
                && now.sa_sigaction == libc::SIG_IGN
        }
    };
    let stopping = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
    stopping.into_iter().filter(is_ignored).collect()
}

#[cfg(unix)]
#[allow(unsafe_code)]
fn ignore(signals: &[libc::c_int]) {
    for signal in signals {
        // SAFETY: sets a disposition without a handler.
        unsafe {
            libc::signal(*signal, libc::SIG_IGN);
        }
    }
}

#[cfg(not(unix))]
fn ignored() {}

#[cfg(not(unix))]
fn ignore(_: &()) {}
