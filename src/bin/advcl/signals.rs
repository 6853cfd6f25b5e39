//! Signals that ask the program to stop.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use advcl::ranks;
use anyhow::{Context as _, Result};

use crate::progress::print_status;

/// Set by the first Ctrl-C; the second ends the process at once.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C ask to stop, as SIGTERM and SIGHUP do; a second one ends the process.
pub fn listen() -> Result<()> {
    on_signal(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            ending();
            std::process::exit(130);
        }
        print_status("\nstopping after this step; press Ctrl-C again to stop at once");
    })?;
    if ranks::all() > 1 {
        listen_to_launcher();
    }
    Ok(())
}

/// Makes the same signals end the program at once and in good order, where nothing is to be saved.
pub fn end_at_once() -> Result<()> {
    on_signal(|| {
        ending();
        std::process::exit(0);
    })
}

/// Calls `heard` for each signal that asks to stop. Those that were ignored when the program started stay ignored, which is how
/// `nohup` and background jobs keep it running.
fn on_signal(heard: impl FnMut() + Send + 'static) -> Result<()> {
    let ignored = ignored();
    ctrlc::set_handler(heard).context("cannot listen for Ctrl-C")?;
    ignore(&ignored);
    Ok(())
}

/// Makes SIGUSR1 ask to stop too: launchers pass it on and wait, whereas they kill a second after every other signal.
#[cfg(unix)]
#[allow(unsafe_code)]
fn listen_to_launcher() {
    extern "C" fn on_signal(_signal: libc::c_int) {
        STOP.store(true, Ordering::Relaxed);
    }
    // SAFETY: the handler sets a flag; the structure is of plain numbers.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
    }
}

#[cfg(not(unix))]
fn listen_to_launcher() {}

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

/// What to say when the driver of a GPU ends the program, and whether the program ends by itself.
#[cfg(unix)]
static DRIVER: std::sync::OnceLock<String> = std::sync::OnceLock::new();
#[cfg(unix)]
static ENDS: AtomicBool = AtomicBool::new(false);

/// Ends the program at once, with all that it printed: drivers have crashed while they were taken down, when all work was done.
#[allow(unsafe_code)]
pub fn leave(code: u8) -> ! {
    let _ = std::io::stdout().flush();
    ending();
    #[cfg(unix)]
    // SAFETY: ends the process; nothing that is left is to be written.
    unsafe {
        libc::_exit(i32::from(code))
    }
    #[cfg(not(unix))]
    std::process::exit(i32::from(code))
}

/// To be called when the program ends by itself.
pub fn ending() {
    #[cfg(unix)]
    ENDS.store(true, Ordering::Relaxed);
}

/// From here on, a driver that faults or leaves the program is named, and the exit code is that of the machine's errors: drivers
/// have ended the process without a word.
#[cfg(unix)]
#[allow(unsafe_code)]
pub fn watch_driver(device: &str) {
    extern "C" fn on_fault(_signal: libc::c_int) {
        say_and_leave();
    }
    extern "C" fn on_exit() {
        if !ENDS.load(Ordering::Relaxed) {
            say_and_leave();
        }
    }
    let text = format!(
        "error: device {device:?}: its driver ended the program\n\
         hint: a newer driver may help; --device cpu computes without it. What was saved is kept: run again to go on\n"
    );
    if DRIVER.set(text).is_err() {
        return;
    }
    // SAFETY: the handlers call what may be called in one: `write` and `_exit`. The structure is of plain numbers.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_RESETHAND;
        for fault in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGABRT,
        ] {
            libc::sigaction(fault, &action, std::ptr::null_mut());
        }
        libc::atexit(on_exit);
    }
}

#[cfg(unix)]
#[allow(unsafe_code)]
fn say_and_leave() -> ! {
    let text = DRIVER.get().map_or("", String::as_str);
    // SAFETY: a buffer that is never freed; both calls are allowed in a handler.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::_exit(3);
    }
}

#[cfg(not(unix))]
pub fn watch_driver(_device: &str) {}
