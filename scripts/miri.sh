#!/usr/bin/env bash
# The kernels' tests in Miri, an interpreter that reports undefined behaviour: uninitialised values that are read,
# pointers outside their buffers, data races. It runs the portable code; the tests use small shapes there.
# Miri is a component of the nightly toolchain (`rustup component add --toolchain nightly miri rust-src`); where it is
# not installed, nothing is checked.
#
#   scripts/miri.sh [--minutes N] [ARGUMENTS OF THE TEST PROGRAMS]
#
# All tests take the better part of an hour on a slow machine. With --minutes it stops then: what it has found fails the script,
# what it has not reached does not.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=0
if [ "${1:-}" = --minutes ]; then
    minutes="$2"
    shift 2
fi

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "skipped: Miri is not installed"
    exit 0
fi

# Tree Borrows, because Rayon's crossbeam-epoch breaks the older Stacked Borrows and casts integers to pointers; Rayon's
# threads do not end before the program, so leaks are ignored. Two processors, so that two threads run.
export MIRIFLAGS="-Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks -Zmiri-num-cpus=2"

start=$SECONDS
code=0
# 0 minutes are no limit.
timeout "${minutes}m" cargo +nightly miri test --package advcl-kernels --lib --tests --target-dir target/miri -- "$@" || code=$?
if [ "$code" = 124 ]; then
    echo "Miri found nothing in $minutes minutes: advcl-kernels, portable code, the tests above"
    exit 0
fi
[ "$code" = 0 ] || exit "$code"
echo "Miri found nothing: advcl-kernels, portable code, $((SECONDS - start)) s with the build"
