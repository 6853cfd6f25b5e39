#!/usr/bin/env bash
# That both crates can be published: no warning of cargo, below the registry's 10 MB, with licences, and a page of text that shows there.
#
#   scripts/check_package.sh [--build]
#
# With --build they are compiled from what is packaged too, which takes as long as the program. Nothing is published.
set -euo pipefail
cd "$(dirname "$0")/.."
build=--no-verify
[ "${1:-}" = --build ] && build=
# `cargo package` takes both at once: advcl depends on a version of advcl-kernels that may not be on the registry yet.
packaged="${CARGO_TARGET_DIR:-target}/package"
rm -f "$packaged"/*.crate
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # an empty $build is no argument
cargo package --workspace --locked --allow-dirty $build 2>&1 | tee "$log"
# Known: integration tests stay in the repository with the golden vectors that they need, and the repository has no public address yet.
known='^warning: (ignoring test `(fuzz|it)` as|manifest has no documentation, homepage or repository$)'
if grep '^warning' "$log" | grep -vE "$known"; then
    echo "cargo warns" >&2
    exit 1
fi
# The kernels have copies: a package has only what is in its folder.
for licence in LICENSE-MIT LICENSE-APACHE; do
    cmp "$licence" "kernels/$licence"
done
for package in "$packaged"/advcl-[0-9]*.crate "$packaged"/advcl-kernels-[0-9]*.crate; do
    size=$(stat -c %s "$package")
    [ "$size" -lt 10000000 ] || { echo "$package: $size bytes" >&2; exit 1; }
    name=$(basename "$package" .crate)
    files=$(tar -tzf "$package")
    for needed in Cargo.toml README.md LICENSE-MIT LICENSE-APACHE src/lib.rs; do
        grep -qxF "$name/$needed" <<<"$files" || { echo "$package: no $needed" >&2; exit 1; }
    done
    # Beside sources: the data set and the golden vectors inside the program.
    if grep -vE '\.(rs|toml|toml\.orig|lock|md|cff|json|css)$|/(LICENSE|LICENSE-[A-Z]+|\.gitignore)$' <<<"$files" |
        grep -vE '^[^/]*/(data/fashion-mnist-12k|golden/rgb20|golden/logistic|tests/data)/'; then
        echo "$package: not to be packaged" >&2
        exit 1
    fi
    echo "ok: $name, $size bytes, $(wc -l <<<"$files") files"
done
