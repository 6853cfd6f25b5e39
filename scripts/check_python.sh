#!/usr/bin/env bash
# The Python module (python/advcl): its types, and its tests with PyTorch and the built program. Installs what it needs below target/.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/outside_torch.sh
"$venv/bin/pip" install -q --disable-pip-version-check pytest mypy
"$venv/bin/mypy" --cache-dir target/outside/mypy python/advcl
ADVCL="$PWD/$advcl" PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m pytest -q -p no:cacheprovider python/tests
