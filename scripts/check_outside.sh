#!/usr/bin/env bash
# What only other people's programs can check: that TensorBoard reads our event files. Installs what it needs below target/.
set -euo pipefail
cd "$(dirname "$0")/.."
advcl=target/release/advcl
[ -x "$advcl" ] || cargo build --release
source scripts/outside_python.sh
"$venv/bin/pip" install -q --disable-pip-version-check tensorboard==2.21.0
run=target/outside/run
rm -rf "$run"
"$advcl" run smoke --run "$run" --tensorboard --quiet
"$venv/bin/python" scripts/check_tensorboard.py "$run"
