#!/usr/bin/env bash
# The way of README.md's "From pretrained weights to production", and that onnxruntime sees at its end what we see: every image, clean
# and attacked. Installs what it needs below target/.
set -euo pipefail
cd "$(dirname "$0")/.."
advcl=target/release/advcl
[ -x "$advcl" ] || cargo build --release
source scripts/outside_python.sh
"$venv/bin/pip" install -q --disable-pip-version-check torch torchvision onnx onnxruntime safetensors pillow numpy
"$venv/bin/python" scripts/walk.py "$advcl" target/outside/walk
