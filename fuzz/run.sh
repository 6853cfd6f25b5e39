#!/usr/bin/env bash
# Runs fuzz targets with libFuzzer, one after another, with the stable toolchain. New inputs go to fuzz/target/inputs/TARGET; the
# corpus that the tests replay, fuzz/corpus, is read and never written. What is found is left in fuzz/artifacts/TARGET: mend it,
# and put the input into fuzz/corpus/TARGET.
#
#   fuzz/run.sh [--runs N] [--seconds S] [TARGET…]      default: all targets, 100,000 inputs each
#
# `cargo +nightly fuzz run TARGET` does the same with AddressSanitizer.
set -euo pipefail
cd "$(dirname "$0")"
runs=100000 seconds=0
while [ $# -gt 0 ]; do
    case "$1" in
        --runs) runs="$2"; shift 2 ;;
        --seconds) seconds="$2"; shift 2 ;;
        --*) echo "error: unknown option $1" >&2; exit 2 ;;
        *) break ;;
    esac
done
# shellcheck disable=SC2046 # names of targets, without blanks
[ $# -gt 0 ] || set -- $(ls corpus)
host="$(rustc -vV | sed -n 's/^host: //p')"

# Coverage of the parsers for libFuzzer (rustc.sh); no sanitizer, which makes it three times as fast. Memory is counted by an allocator
# of the targets' own (src/memory.rs).
# --cfg fuzzing: checksums inside PNG and zlib are passed over by their crates.
# Cargo does not know what the wrapper does: a changed one compiles everything anew.
made_by="$(cksum <rustc.sh | cut -d ' ' -f 1)"
RUSTC_WRAPPER="$PWD/rustc.sh" RUSTFLAGS="--cfg fuzzing --cfg made_by_$made_by" \
    cargo build --quiet --release --target "$host" --bins --target-dir target

for target in "$@"; do
    mkdir -p "target/inputs/$target" "artifacts/$target"
    log="target/$target.log"
    echo "$(date +%T) $target: $runs inputs"
    "target/$host/release/$target" "target/inputs/$target" "corpus/$target" \
        -runs="$runs" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="artifacts/$target/" >"$log" 2>&1 || {
        echo "found: see $PWD/$log"
        grep -m 3 -E 'panicked|ERROR|Test unit' -A 1 "$log" || true
        exit 1
    }
    awk -F: '/stat::/ {gsub(/ /, "", $4); printf "  %s %s", substr($3, 1), $4} END {print ""}' "$log"
done
