#!/usr/bin/env bash
# That the book (docs/book/) holds together: its links, the code that it includes, the command lines that it shows. A test holds its page of
# keys against the program. Builds it below target/book by mdbook, which is installed below target/. ADVCL names the program; the built one is
# the default.
set -euo pipefail
cd "$(dirname "$0")/.."
export ADVCL="${ADVCL:-target/release/advcl}"
[ -x "$ADVCL" ] || cargo build --release
python3 scripts/check_book.py

# A minute and a half on two cores.
source scripts/outside_cargo.sh
outside_cargo mdbook 0.5.4 --features search
# What was left there by an earlier build could satisfy a link.
rm -rf target/book
if ! "$installed" build docs/book 2>target/outside/mdbook/log || grep -qE 'WARN|ERROR' target/outside/mdbook/log; then
    cat target/outside/mdbook/log >&2
    exit 1
fi
python3 scripts/check_book.py target/book
