#!/usr/bin/env bash
# What only other people's programs can check: that TensorBoard reads our event files. Installs what it needs below target/.
set -euo pipefail
cd "$(dirname "$0")/.."
advcl=target/release/advcl
[ -x "$advcl" ] || cargo build --release
venv=target/outside/venv
if [ ! -x "$venv/bin/python" ]; then
    if ! python3 -m venv "$venv" 2>/dev/null; then
        # Debian has Python and its venv in packages of their own.
        apt-get update -q && apt-get install -qy --no-install-recommends python3 python3-venv
        python3 -m venv "$venv"
    fi
fi
"$venv/bin/pip" install -q --disable-pip-version-check tensorboard==2.21.0
run=target/outside/run
rm -rf "$run"
"$advcl" run smoke --run "$run" --tensorboard --quiet
"$venv/bin/python" scripts/check_tensorboard.py "$run"
