"""Checks that the PyTorch lines in README.md compute the same logits as advcl does.

    pip install torch safetensors pillow numpy
    cargo build --release
    python scripts/check_pytorch.py runs/quickstart/advcl/slf

Runs the README's code as it stands there, on random images, beside `advcl predict --json`.
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import torch
from PIL import Image

root = pathlib.Path(__file__).resolve().parent.parent
folder = pathlib.Path(sys.argv[1])
readme = (root / "README.md").read_text()
code = re.search(r"```python\n(.*?)```", readme, re.S).group(1)
scope = {}
exec(code.replace("runs/quickstart/advcl/slf", str(folder)), scope)
info, logits = scope["info"], scope["logits"]

rng = np.random.default_rng(0)
height, width = info["image_size"]
shape = (16, height, width) if info["channels"] == 1 else (16, height, width, 3)
images = rng.integers(0, 256, shape, dtype=np.uint8)
with tempfile.TemporaryDirectory() as images_folder:
    for i, image in enumerate(images):
        Image.fromarray(image).save(f"{images_folder}/{i:02}.png")
    command = [root / "target/release/advcl", "predict", folder, images_folder, "--json"]
    said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
ours = np.zeros((len(images), len(info["classes"])), np.float32)
for row, prediction in zip(ours, said):
    for entry in prediction["classes"]:
        row[info["classes"].index(entry["class"])] = entry["logit"]

batch = torch.from_numpy(images).float() / 255
batch = batch[:, None] if info["channels"] == 1 else batch.permute(0, 3, 1, 2)
theirs = logits(batch).numpy()
error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
print(f"{len(images)} images, relative difference of the logits: {error:.1e}")
sys.exit(int(error > 1e-4))
