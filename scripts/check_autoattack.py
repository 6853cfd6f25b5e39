"""Holds our attacks against the published AutoAttack: same weights, same images, same processor cores.

    pip install torch numpy safetensors pyautoattack
    cargo build --release
    python scripts/check_autoattack.py RUN METHOD MODE [--images 500] [--attacks apgd-ce apgd-t fab-t square autoattack]

pyautoattack is the AutoAttack authors' code as a package; its constants are left as they are, but for targets: C - 1 where there are
fewer than ten classes, as its own checks ask for. The network is README.md's PyTorch lines. Our side is `advcl evaluate`, on a copy
of the run folder. Each attack is tried alone on every image that is classified correctly; `autoattack` is the composition, each
attack on what the ones before it left. Images are read from the recipe's IDX files (or the embedded set's), or CIFAR-10's
binary test batch: the whole test split must be judged, so that an index means the same image to both.

For each attack: robust accuracy of both, the images that one breaks and the other does not, and images per second (judged images
over seconds of attacking). Ends with 1 where the robust accuracies of `autoattack` are further apart than half a point, or
where theirs breaks more than 0.5 % of the images by a white-box attack that ours leaves.
"""
import argparse
import gzip
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

import numpy as np
import torch
from pyautoattack import AutoAttack
from safetensors import safe_open

STANDARD = ["apgd-ce", "apgd-t", "fab-t", "square"]
WHITE_BOX = {"apgd-ce", "apgd-t", "fab-t"}

parser = argparse.ArgumentParser()
parser.add_argument("run", type=pathlib.Path)
parser.add_argument("method")
parser.add_argument("mode")
parser.add_argument("--images", type=int, default=500)
parser.add_argument("--attacks", nargs="+", default=[*STANDARD, "autoattack"])
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--batch", type=int, default=250, help="of theirs; ours is the recipe's")
parser.add_argument("--json", type=pathlib.Path, help="write the figures here too")
asked = parser.parse_args()
root = pathlib.Path(__file__).resolve().parent.parent
whole = asked.mode == "end-to-end"  # a supervised method's model is whole: it has no mode to ask for
torch.set_num_threads(asked.threads)


def judged_images(recipe):
    """Pixels and labels of the whole test split, in its order."""
    data = recipe["data"]
    if recipe["evaluate"]["split"] != "test" or "downstream" in recipe:
        sys.exit("only runs that are judged by the test split of their own data can be held against PyTorch here")
    source = data["source"]
    folder = root / "data" / source if source == "fashion-mnist-12k" else pathlib.Path(source)
    batch = next(folder.rglob("test_batch.bin"), None)
    if batch is not None:
        raw = np.frombuffer(batch.read_bytes(), np.uint8).reshape(-1, 3073)
        images, labels = raw[:, 1:].reshape(-1, 3, 32, 32), raw[:, 0]
    else:
        read = lambda name: next(
            (gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes()) for p in sorted(folder.glob(f"t10k-{name}*")))
        pixels, labels = read("images"), np.frombuffer(read("labels")[8:], np.uint8)
        height, width = np.frombuffer(pixels[8:16], ">u4")
        images = np.frombuffer(pixels[16:], np.uint8).reshape(-1, 1, height, width)
    if data.get("test_limit", len(labels)) != len(labels):
        sys.exit(f"data.test_limit must be left out, or {len(labels)}: an index must mean the same image to both")
    return torch.from_numpy(images.copy()).float() / 255, torch.from_numpy(labels.astype(np.int64))


def network(model):
    """README.md's lines, as they stand there."""
    code = re.search(r"```python\n(.*?)```", (root / "README.md").read_text(), re.S).group(1)
    scope = {}
    exec(code.replace("runs/quickstart/advcl/slf/model.safetensors", str(model)), scope)
    return scope["logits"], scope["info"]


def ours(attack, folder):
    """Which of the images `advcl evaluate` broke, which images were judged, and what it says of it."""
    command = [root / "target/release/advcl", "evaluate", folder, "--method", asked.method, "--json", "--attack", attack,
               "--set", f"evaluate.attack_limit = {asked.images}"]
    command += [] if whole else ["--mode", asked.mode]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    outcome = json.loads(done.stdout)["outcomes"][0]
    with safe_open(folder / asked.method / asked.mode / "adversarial.safetensors", "pt") as file:
        about = json.loads(file.metadata()["advcl_adversarial"])
        return set(file.get_tensor("indices").tolist()), about, outcome["attacked"]


class Theirs:
    """The published attacks, one at a time."""

    def __init__(self, logits, norm, radius, classes):
        self.logits = logits
        norm = {"linf": "Linf", "l2": "L2"}[norm]
        self.all = AutoAttack(logits, norm=norm, eps=radius, seed=0, version="standard", device="cpu")
        self.all.apgd_targeted.n_target_classes = self.all.fab.n_target_classes = min(9, classes - 1)

    def run(self, attack, images, labels, indices):
        """Which of `indices`, all classified correctly, it breaks; seconds, attack by attack."""
        left, seconds = list(indices), {}
        for name in STANDARD if attack == "autoattack" else [attack]:
            if not left:
                break
            self.all.attacks_to_run = [name]
            started = time.monotonic()
            x, y = images[left], labels[left]
            found, _ = self.all.run_standard_evaluation(x, y, batch_size=asked.batch)
            seconds[name] = time.monotonic() - started
            with torch.no_grad():
                right = torch.cat([self.logits(part).argmax(1) for part in found.split(250)]) == y
            left = [index for index, robust in zip(left, right.tolist()) if robust]
        return set(indices) - set(left), seconds


recipe = tomllib.loads((asked.run / "recipe.toml").read_text())
images, labels = judged_images(recipe)
figures, failed = [], False
with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / "run"
    shutil.copytree(asked.run, copy)
    row = copy / asked.method if whole else copy / asked.method / asked.mode
    logits, info = network(row / "model.safetensors")
    print(f"{asked.run}, {asked.method}/{asked.mode}: torch {torch.__version__}, {asked.threads} threads")
    print(f"{'attack':>12} {'clean':>7} {'ours':>7} {'theirs':>7}  only theirs  only ours  {'images/s: ours':>14} {'theirs':>7}")
    for attack in asked.attacks:
        broken, about, said = ours(attack, copy)
        judged = about["among"]
        with torch.no_grad():
            right = logits(images[judged]).argmax(1) == labels[judged]
        clean = [index for index, correct in zip(judged, right.tolist()) if correct]
        if len(clean) != said["clean"]:
            sys.exit(f"not the same images or weights: PyTorch gets {len(clean)} right, advcl {said['clean']}")
        theirs, their_seconds = Theirs(logits, about["norm"], about["radius"], len(info["classes"])).run(attack, images, labels, clean)
        seconds = {part["attack"]: part["seconds"] for part in said["attacks"]}
        count = len(judged)
        robust, their_robust = said["robust"] / count, (len(clean) - len(theirs)) / count
        only_theirs, only_ours = len(theirs - broken), len(broken - theirs)
        figures.append({"attack": attack, "images": count, "clean": len(clean) / count, "robust": robust, "their_robust": their_robust,
                        "only_theirs": sorted(theirs - broken), "only_ours": sorted(broken - theirs), "norm": about["norm"],
                        "radius": about["radius"], "seconds": seconds, "their_seconds": their_seconds})
        print(f"{attack:>12} {len(clean) / count:7.1%} {robust:7.1%} {their_robust:7.1%} {only_theirs:12} {only_ours:10}"
              f" {count / max(sum(seconds.values()), 1e-9):15.1f} {count / max(sum(their_seconds.values()), 1e-9):7.1f}", flush=True)
        failed |= attack == "autoattack" and abs(robust - their_robust) > .005
        failed |= attack in WHITE_BOX and only_theirs > .005 * count
        if attack == "autoattack":
            print("              seconds, ours:", {k: round(v, 1) for k, v in seconds.items()},
                  "theirs:", {k: round(v, 1) for k, v in their_seconds.items()}, flush=True)
if asked.json:
    asked.json.write_text(json.dumps(figures, indent=1))
sys.exit(int(failed))
