#!/usr/bin/env bash
# That the book (docs/book/) holds together: its links, the code that it includes, the command lines that it shows, its page of keys.
# Builds it below target/book by mdbook, which is installed below target/. ADVCL names the program; the built one is the default.
set -euo pipefail
cd "$(dirname "$0")/.."
export ADVCL="${ADVCL:-target/release/advcl}"
[ -x "$ADVCL" ] || cargo build --release
python3 scripts/check_book.py
docs/book/make_keys.sh --check

version=0.5.4
mdbook=target/outside/mdbook/bin/mdbook
if [ "$("$mdbook" --version 2>/dev/null)" != "mdbook v$version" ]; then
    # Compiled without optimization: a minute and a half on two cores, and the book is built in a second all the same.
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=target/outside/mdbook/build \
        cargo install -q mdbook --version "=$version" --locked --debug --no-default-features --features search --root target/outside/mdbook
    rm -r target/outside/mdbook/build
fi
# What was left there by an earlier build could satisfy a link.
rm -rf target/book
if ! "$mdbook" build docs/book 2>target/outside/mdbook/log || grep -qE 'WARN|ERROR' target/outside/mdbook/log; then
    cat target/outside/mdbook/log >&2
    exit 1
fi
python3 scripts/check_book.py target/book
