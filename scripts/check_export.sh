#!/usr/bin/env bash
# That exported models are what they say: by onnxruntime, by torchvision's ResNets and by advcl.load (python/advcl/), against `advcl predict`.
# Installs what it needs below target/.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/outside_torch.sh
run=target/outside/export-run
rm -rf "$run"
"$advcl" run smoke --run "$run" --quiet >/dev/null
# SimCLR's has one BatchNorm branch, AdvCL's three.
"$venv/bin/python" scripts/check_export.py "$advcl" target/outside/export "$run/simclr/slf" "$run/advcl/slf"
