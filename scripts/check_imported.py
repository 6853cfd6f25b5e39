"""Holds an imported torchvision ResNet-18 against the network that it was: predictions, and AutoAttack against the published one.

    pip install torch torchvision numpy pillow safetensors pyautoattack
    cargo build --release      # or ADVCL=PROGRAM
    python scripts/check_imported.py [--width 64] [--side 14] [--images 200] [--norm linf] [--radius 0.22]

A ResNet-18 by torchvision's names, with CIFAR's first layer, is trained in PyTorch on the embedded images, attacked in one step within
0.1 (L∞), and imported by `advcl import`. Its predictions for 2,000 test images are held against those of `advcl predict`. Then
`advcl evaluate MODEL --data DIR --attack autoattack` judges some of the images, and pyautoattack (the AutoAttack authors' code as a package,
its constants left as they are) attacks the PyTorch network on the same. Weights and images stay in target/imported-WIDTH-SIDE.

Ends with 1 where a prediction differs, or where the robust accuracies are further apart than half a point.
"""
import argparse
import json
import os
import pathlib
import sys
import time

import numpy as np
import torch
from pyautoattack import AutoAttack
from safetensors import safe_open

sys.dont_write_bytecode = True
from pretrained import CLASSES, MEAN, STD, Narrow, Normalized, advcl, embedded, predicted, train, write_images  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--side", type=int, default=14, help="of the images: 28, or 14 for means of 2 x 2 pixels")
parser.add_argument("--images", type=int, default=200)
parser.add_argument("--norm", choices=["linf", "l2"], default="linf")
parser.add_argument("--radius", type=float, default=0.22)
parser.add_argument("--train", type=int, default=4000, help="images to train on")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--batch", type=int, default=100, help="of theirs")
asked = parser.parse_args()
torch.set_num_threads(asked.threads)
torch.manual_seed(0)
root = pathlib.Path(__file__).resolve().parent.parent
program = pathlib.Path(os.environ.get("ADVCL", root / "target" / "release" / "advcl"))
work = root / "target" / f"imported-{asked.width}-{asked.side}"
work.mkdir(parents=True, exist_ok=True)

# The network, and a model file of it.
weights, model, names = work / "resnet18.pth", work / "resnet18.safetensors", work / "names.txt"
net = Narrow(18, asked.width, "cifar", 3, len(CLASSES))
if weights.exists():
    net.load_state_dict(torch.load(weights))
else:
    started = time.monotonic()
    train(net, *embedded("train", asked.train, asked.side), asked.epochs, radius=0.1)
    print(f"{asked.epochs} epochs of {asked.train} images: {time.monotonic() - started:.0f} s")
    torch.save(net.state_dict(), weights)
names.write_text("\n".join(CLASSES) + "\n")
numbers = [",".join(map(str, values)) for values in (MEAN, STD)]
advcl(program, "import", weights, "-o", model, "--replace", "--classes", names, "--stem", "cifar", "--image-size", asked.side,
      "--mean", numbers[0], "--std", numbers[1])
theirs = Normalized(net.eval().to(memory_format=torch.channels_last))
for parameter in theirs.parameters():
    parameter.requires_grad_(False)


def classes_of(images):
    with torch.no_grad():
        return torch.cat([theirs(part).argmax(1) for part in images.split(250)])


# The same predictions, on all test images.
pixels, labels = embedded("t10k", 2000, asked.side)
paths = write_images(work / "images", pixels, labels)
images, labels = torch.from_numpy(pixels).float() / 255, torch.from_numpy(labels)
own, expected = predicted(program, model, work / "images", paths), classes_of(images)
differ = [str(path.relative_to(work)) for path, one, other in zip(paths, own, expected.tolist()) if one != other]
right = (expected == labels).float().mean()
print(f"clean: {right:.1%} of {len(paths)} images right by PyTorch; predictions that differ: {len(differ)}")
if differ:
    sys.exit(f"advcl predict and PyTorch see other classes in: {', '.join(differ)}")

# Ours. Images are numbered in the order of their paths.
found = work / "found.safetensors"
said = json.loads(advcl(program, "evaluate", model, "--data", work / "images", "--limit", asked.images, "--norm", asked.norm,
                        "--radius", asked.radius, "--attack", "autoattack", "--save-adversarial", found, "--json"))
order = sorted(range(len(paths)), key=lambda number: paths[number])
with safe_open(str(found), "pt") as file:
    among = json.loads(file.metadata()["advcl_adversarial"])["among"]
    indices, examples = file.get_tensor("indices").tolist(), file.get_tensor("images")
judged = [order[index] for index in among]
broken = {order[index] for index in indices}
change = (examples - images[[order[index] for index in indices]]).flatten(1)
change = change.abs().amax(1) if asked.norm == "linf" else change.norm(dim=1)
assert (change <= asked.radius * (1 + 1e-5)).all(), "an example of ours is outside of the ball around the image of its index"
fooled = classes_of(examples) != labels[[order[index] for index in indices]]
attacked = said["attacked"]
seconds = sum(part["seconds"] for part in attacked["attacks"])
print(f"ours: {attacked['clean']} of {len(judged)} right, {attacked['robust']} under AutoAttack, {seconds:.0f} s; of {len(indices)} examples"
      f" {int(fooled.sum())} fool PyTorch's network too", flush=True)

# Theirs.
norm = {"linf": "Linf", "l2": "L2"}[asked.norm]
started = time.monotonic()
attack = AutoAttack(theirs, norm=norm, eps=asked.radius, seed=0, version="standard", device="cpu")
adversarial = attack.run_standard_evaluation(images[judged], labels[judged], batch_size=asked.batch)[0]
their_seconds = time.monotonic() - started
robust = (classes_of(adversarial) == labels[judged]).tolist()
their_broken = {number for number, holds in zip(judged, robust) if not holds and expected[number] == labels[number]}
clean = sum(bool(expected[number] == labels[number]) for number in judged)
assert clean == attacked["clean"], f"PyTorch gets {clean} right, advcl {attacked['clean']}"
share, their_share = attacked["robust"] / len(judged), sum(robust) / len(judged)
print(f"width {asked.width}, {asked.side} x {asked.side}, {norm} {asked.radius}: clean {clean / len(judged):.1%}, ours {share:.1%}, theirs"
      f" {their_share:.1%}; broken by ours alone {len(broken - their_broken)}, by theirs alone {len(their_broken - broken)}; {seconds:.0f}"
      f" and {their_seconds:.0f} s; torch {torch.__version__}, {asked.threads} threads")
sys.exit(int(abs(share - their_share) > .005))
