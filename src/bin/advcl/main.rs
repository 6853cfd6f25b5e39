//! The command line.

mod adversarial;
mod args;
mod attack;
mod bench;
mod cache;
mod check;
mod command_line;
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
mod sides;
mod signals;
mod table;
mod tensorboard;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use advcl::device;
use advcl::ranks::{self, Connection, Launched};
use output::{Colour, printable};
use progress::{print_for_all, print_headed, print_status};

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

/// Number of threads that compute; none for as many as there are cores. Processes of one machine share its cores.
fn threads(launched: Option<Launched>) -> Option<usize> {
    let launched = launched.filter(|launched| launched.local_ranks > 1)?;
    if std::env::var_os("RAYON_NUM_THREADS").is_some() {
        return None;
    }
    Some((release_cores() / launched.local_ranks).max(1))
}

/// Number of the machine's cores. A launcher that bound this process to a single one, as Open MPI does to two processes unasked, is
/// overruled: it leaves the others idle.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn release_cores() -> usize {
    let may_use = std::thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: asks for a number.
    let all = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    let all = usize::try_from(all).unwrap_or(1).max(may_use);
    if may_use > 2 {
        return may_use;
    }
    // SAFETY: a set of bits, filled by the calls; where they fail nothing is changed.
    unsafe {
        let mut every: libc::cpu_set_t = std::mem::zeroed();
        for core in 0..all.min(libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(core, &mut every);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const every);
    }
    std::thread::available_parallelism().map_or(may_use, usize::from)
}

#[cfg(not(target_os = "linux"))]
fn release_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `work` on one of the threads that compute. A thread outside would go to sleep and be woken at each of the some
/// hundred parallel loops of a training step; inside, it takes its share of the loop and goes on.
fn inside_the_pool<R: Send>(threads: Option<usize>, work: impl FnOnce() -> R + Send) -> R {
    // The main thread's usual stack, which everything was written for. A pool of our own: one that Rayon failed to start for
    // all could not be started again.
    let pool = rayon::ThreadPoolBuilder::new().stack_size(8 << 20);
    let pool = pool.num_threads(threads.unwrap_or(0)).build();
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
    let launched = Launched::found();
    let connection = match Connection::open(launched) {
        Ok(connection) => connection,
        Err(error) => {
            if launched.is_none_or(|launched| launched.rank == 0) {
                tell(&error.into());
            }
            return ExitCode::from(2);
        }
    };
    let cli = match command_line::parse() {
        Ok(cli) => cli,
        Err(said) => {
            let printed = match ranks::speaks() {
                true => command_line::print_said(&said),
                false => Ok(()),
            };
            let code = match told(&printed) {
                0 => said.exit_code() as u8,
                failed => failed,
            };
            return ExitCode::from(code);
        }
    };
    let (alone, has_drivers) = (ranks::all() == 1, device::gpu_build().is_some());
    let work = || {
        inside_the_pool(threads(launched), || {
            let done = outcome(&cli);
            if alone && has_drivers {
                // Before anything of the driver's is taken down.
                signals::leave(told(&done));
            }
            done
        })
    };
    let code = {
        // Closed before the end of the program.
        let _connection = connection;
        told(&match alone {
            true => work(),
            false => together(work),
        })
    };
    if has_drivers {
        signals::leave(code);
    }
    signals::ending();
    ExitCode::from(code)
}

/// Tells the error, where there is one; the exit code.
fn told(done: &anyhow::Result<()>) -> u8 {
    let Err(error) = done else {
        return 0;
    };
    tell(error);
    exit_code(error)
}

/// Does this rank's part of the work of several. Whoever fails ends all of them; the first one tells it where all fail alike.
fn together(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    /// Time that the first rank has to tell an error that all have.
    const FIRST: Duration = Duration::from_secs(2);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !ranks::speaks() {
            std::thread::sleep(FIRST);
        }
        usual(panic);
    }));
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    let code = match &done {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => {
            if !ranks::speaks() {
                std::thread::sleep(FIRST);
            }
            // Another one tells it, and ends this one before it comes here.
            if matches!(error.downcast_ref(), Some(advcl::Error::OtherRank { .. })) {
                std::thread::sleep(5 * FIRST);
            }
            if !ranks::speaks() {
                print_for_all(&format!("rank {}:", ranks::place()));
            }
            tell(error);
            exit_code(error)
        }
        Err(_) => 101,
    };
    signals::ending();
    ranks::end_all(code);
    // Where nothing ends it.
    std::process::exit(i32::from(code))
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
    print_headed("error", Colour::Red, &printable(&error.to_string()));
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        // Some of our messages end with their cause's already.
        let cause = cause.to_string();
        if !said.contains(&cause) {
            print_for_all(&format!("caused by: {}", printable(&cause)));
            said = cause;
        }
    }
    if let Some(hint) = error
        .downcast_ref::<advcl::Error>()
        .and_then(advcl::Error::hint)
    {
        print_headed("hint", Colour::Green, &printable(hint));
    }
}
