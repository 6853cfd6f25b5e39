#!/usr/bin/env bash
# The Python package as a user gets it: built, its metadata checked, installed into a fresh virtual environment, its program and module used.
#
#   scripts/check_wheel.sh [OPTION…]    # options for `maturin build`, such as --strip false
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/outside_torch.sh
"$venv/bin/pip" install -q --disable-pip-version-check maturin==1.16.0 twine==7.0.0 pytest
out=target/wheel
rm -rf "$out"
"$venv/bin/maturin" build --release --locked --out "$out" "$@"
"$venv/bin/twine" check --strict "$out"/*.whl
wheel=$(echo "$out"/advcl-*.whl)
size=$(stat -c %s "$wheel")
# The registry's limit is 100 MB.
[ "$size" -lt 50000000 ] || { echo "$wheel: $size bytes" >&2; exit 1; }
files=$("$venv/bin/python" -m zipfile -l "$wheel")
for needed in /METADATA /licenses/LICENSE-MIT /licenses/LICENSE-APACHE /licenses/data/fashion-mnist-12k/LICENSE /scripts/advcl advcl/py.typed; do
    grep -q "$needed " <<<"$files" || { echo "$wheel: no $needed" >&2; exit 1; }
done

# Without a network: the program needs no other package.
"$venv/bin/python" -m venv "$out/fresh"
fresh=$PWD/$out/fresh
"$fresh/bin/pip" install -q --disable-pip-version-check --no-index "$wheel"
version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
installed=$("$fresh/bin/advcl" --version)
[ "$installed" = "advcl $version" ] || { echo "version $installed, Cargo.toml says $version" >&2; exit 1; }
"$fresh/bin/advcl" info
"$fresh/bin/advcl" run smoke --run "$out/smoke" --quiet >/dev/null
if "$fresh/bin/python" -c 'import advcl' 2>"$out/import"; then
    echo "imported without PyTorch" >&2
    exit 1
fi
grep -q 'pip install advcl\[torch\]' "$out/import" || { cat "$out/import" >&2; exit 1; }

# With PyTorch, which is not installed a second time. Tests are copied away from the sources and from their settings, so that what is
# tested is what was installed; scripts/check_python.sh runs all of them.
packages='import sysconfig; print(sysconfig.get_path("purelib"))'
"$venv/bin/python" -c "$packages" >"$("$fresh/bin/python" -c "$packages")/torch.pth"
mkdir "$out/tests"
cp python/tests/{conftest,test_load}.py "$out/tests"
env -u ADVCL "$fresh/bin/python" -m pytest -q -c /dev/null -p no:cacheprovider --rootdir "$out/tests" "$out/tests"
echo "ok: $wheel, $size bytes"
