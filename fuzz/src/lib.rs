//! What every fuzz target does; the parsers are listed in the library, in `advcl::fuzz`.

mod memory;

use std::sync::Once;

pub use libfuzzer_sys::fuzz_target;

/// Calls a target's parser with an input, and fails where it takes too much memory.
pub fn run(target: &str, input: &[u8]) {
    static ONE_THREAD: Once = Once::new();
    ONE_THREAD.call_once(|| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
        pool.use_current_thread()
            .build_global()
            .expect("no pool yet");
    });
    let body = advcl::fuzz::body(target);
    let (most, allowed) = (memory::bytes_of(|| body(input)), memory::allowed(input));
    assert!(
        most <= allowed,
        "{most} bytes in use at a time, more than {allowed}"
    );
}

/// Defines the target of this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::fuzz_target!(|input: &[u8]| $crate::run($name, input));
    };
}
