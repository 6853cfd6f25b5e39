#!/usr/bin/env bash
# That the book (docs/book/) holds together: its links, the code that it includes, the command lines that it shows, its page of keys.
# Where mdbook is installed, the book is built too. ADVCL names the program; the built one is the default.
set -euo pipefail
cd "$(dirname "$0")/.."
export ADVCL="${ADVCL:-target/release/advcl}"
[ -x "$ADVCL" ] || cargo build --release
python3 scripts/check_book.py
docs/book/make_keys.sh --check
if command -v mdbook >/dev/null; then
    mdbook build docs/book
else
    echo "not built: mdbook is not installed"
fi
