#!/usr/bin/env bash
# The way of the book's "From pretrained weights to production", and that onnxruntime sees at its end what we see: every image, clean
# and attacked. Installs what it needs below target/.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/outside_torch.sh
"$venv/bin/python" scripts/walk.py "$advcl" target/outside/walk
