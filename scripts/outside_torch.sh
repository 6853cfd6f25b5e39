# To be sourced, at the project's root: the program as `advcl`, built where it is missing, and as `venv` a Python with PyTorch and onnxruntime
# below target/.
advcl=target/release/advcl
[ -x "$advcl" ] || cargo build --release
source scripts/outside_python.sh
"$venv/bin/pip" install -q --disable-pip-version-check torch torchvision onnx onnxruntime safetensors pillow numpy
