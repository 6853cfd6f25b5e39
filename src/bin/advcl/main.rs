//! The command line.

mod adversarial;
mod args;
mod attack;
mod bench;
mod cache;
mod check;
mod commands;
mod compare;
mod duration;
mod embed;
mod evaluate;
mod examples;
mod export;
mod format;
mod import;
mod init;
mod inspect;
mod label_next;
mod list;
mod measures;
mod output;
mod predict;
mod progress;
mod recipe;
mod recipe_text;
mod report;
mod session;
mod signals;
mod table;
mod tensorboard;

use std::process::ExitCode;

use clap::Parser;
use output::printable;
use progress::print_status;

/// Keeps large buffers in the heap. glibc maps and unmaps each of them otherwise, and a training step spends a fifth
/// of its time in page faults. Measured against mimalloc, which is between the two.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn tune_allocator() {
    // SAFETY: three integers, set before any other thread is there.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn tune_allocator() {}

/// Gives back to the system what the allocator keeps for later, so that it does not count as memory of what follows.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn release_memory() {
    // SAFETY: returns pages that nobody uses; no memory in use is touched.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn release_memory() {}

/// Runs `work` on one of the threads that compute. A thread outside would go to sleep and be woken at each of the some
/// hundred parallel loops of a training step; inside, it takes its share of the loop and goes on.
fn inside_the_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    // The main thread's usual stack, which everything was written for. A pool of our own: one that Rayon failed to start for
    // all could not be started again.
    let pool = rayon::ThreadPoolBuilder::new().stack_size(8 << 20).build();
    let pool = pool.or_else(|error| {
        // A limit of the machine. One thread, this one, is there in any case.
        print_status(&format!("computing with one thread: {error}"));
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1);
        alone.use_current_thread().build()
    });
    match pool {
        Ok(pool) => pool.install(work),
        Err(_) => work(),
    }
}

fn main() -> ExitCode {
    tune_allocator();
    let cli = args::Cli::parse();
    let code = match inside_the_pool(|| outcome(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::from(exit_code(&error))
        }
    };
    signals::ending();
    code
}

/// Carries out the command. What a GPU's runtime cannot do, for want of memory for example, comes as a panic of the operation
/// that reads its result: an error of the machine, told as one.
fn outcome(cli: &args::Cli) -> anyhow::Result<()> {
    if cli.shared.on_cpu() {
        return commands::dispatch(cli);
    }
    // Told below, with the place.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        PLACE.set(place.unwrap_or_default());
    }));
    let run = std::panic::AssertUnwindSafe(|| commands::dispatch(cli));
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        let said = said.unwrap_or("no message");
        let lower = said.to_lowercase();
        let is_memory = ["out of memory", "alloc", "buffer size", "too large"]
            .iter()
            .any(|word| lower.contains(word));
        let hint = match is_memory {
            true => "--micro-batch takes less memory, and so does a smaller plan.batch_size, data.size or encoder.width; what was saved is kept",
            false => "advcl selftest with the same --device tells what works there; --device cpu computes without it",
        };
        Err(advcl::Error::DeviceFailed {
            device: cli.shared.device.clone(),
            problem: format!("{said} ({})", PLACE.take()),
            hint: hint.to_owned(),
        }
        .into())
    })
}

thread_local! {
    /// Where this thread panicked last.
    static PLACE: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

/// Exit code of a failed command; see [`advcl::Error::exit_code`].
fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(ours) = error.downcast_ref::<advcl::Error>() {
        return ours.exit_code();
    }
    // What the binary itself writes and waits for.
    let of_machine = error
        .chain()
        .any(|cause| cause.is::<std::io::Error>() || cause.is::<ctrlc::Error>());
    if of_machine { 3 } else { 2 }
}

/// The headline, its causes, and what to do about it.
fn tell(error: &anyhow::Error) {
    print_status(&format!("error: {}", printable(&error.to_string())));
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        // Some of our messages end with their cause's already.
        let cause = cause.to_string();
        if !said.contains(&cause) {
            print_status(&format!("caused by: {}", printable(&cause)));
            said = cause;
        }
    }
    if let Some(hint) = error
        .downcast_ref::<advcl::Error>()
        .and_then(advcl::Error::hint)
    {
        print_status(&format!("hint: {}", printable(hint)));
    }
}
