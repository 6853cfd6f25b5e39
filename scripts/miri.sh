#!/usr/bin/env bash
# The kernels' tests in Miri, an interpreter that reports undefined behaviour: uninitialised values that are read,
# pointers outside their buffers, data races. It runs the portable code; the tests use small shapes there.
# Miri is a component of the nightly toolchain (`rustup component add --toolchain nightly miri rust-src`); where it is
# not installed, nothing is checked.
#
#   scripts/miri.sh [ARGUMENTS OF THE TEST PROGRAMS]
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "skipped: Miri is not installed"
    exit 0
fi

# Tree Borrows, because Rayon's crossbeam-epoch breaks the older Stacked Borrows and casts integers to pointers; Rayon's
# threads do not end before the program, so leaks are ignored. Two processors, so that two threads run.
export MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks -Zmiri-num-cpus=2"

start=$SECONDS
cargo +nightly miri test --package advcl-kernels --lib --tests --target-dir target/miri -- "$@"
echo "Miri found nothing: advcl-kernels, portable code, $((SECONDS - start)) s with the build"
