#!/usr/bin/env bash
# The kernels' tests under AddressSanitizer: reads and writes outside buffers, use after free, leaks. The kernels work
# with raw pointers, so a wrong offset could go unnoticed where it points into another buffer.
# With the stable toolchain: RUSTC_BOOTSTRAP lets it take the -Z flag. Where it has no runtime for the sanitizer, nothing
# is checked.
#
#   scripts/sanitize.sh [ARGUMENTS OF THE TEST PROGRAMS]
set -euo pipefail
cd "$(dirname "$0")/.."
host="$(rustc -vV | sed -n 's/^host: //p')"

if ! compgen -G "$(rustc --print target-libdir)/librustc-*_rt.asan.*" >/dev/null; then
    echo "skipped: this toolchain has no runtime of AddressSanitizer for $host"
    exit 0
fi

# With --target, so that build scripts and macros, which run in the compiler's process, are built without it.
# The compiler's own checks stay on: overflowing indices and pointers that are not aligned.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address -Cdebug-assertions=on -Coverflow-checks=on"
export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1"

echo "AddressSanitizer, $(rustc --version), $host: the tests of advcl-kernels"
start=$SECONDS
# Documentation tests have flags of their own; the kernels have none.
cargo test --release --package advcl-kernels --lib --tests --target "$host" --target-dir target/sanitize -- "$@"
echo "AddressSanitizer found nothing: advcl-kernels, all its tests, $((SECONDS - start)) s with the build"
