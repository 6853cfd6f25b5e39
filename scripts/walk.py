"""The way from a torchvision ResNet to a robust ONNX graph, and onnxruntime held against advcl at its end, image by image.

    python scripts/walk.py ADVCL WORK

Trains a ResNet-18 by torchvision's names on the embedded images, imports it with its classes, makes it robust by adversarial training
that begins from it (`init`), exports it as ONNX, and attacks both models. Everything is below the folder WORK, which is made anew. Ends
with 1 where a class is another one: PyTorch's against the imported model's on clean images, onnxruntime's against ours on clean and on
stored adversarial images. Called by scripts/walk.sh, which installs what this needs.
"""
import json
import pathlib
import shutil
import sys

import numpy as np
import onnxruntime
import torch
from safetensors import safe_open

sys.dont_write_bytecode = True
from pretrained import CLASSES, MEAN, STD, Narrow, Normalized, advcl, embedded, predicted, train, write_images  # noqa: E402

program, work = (pathlib.Path(path).resolve() for path in sys.argv[1:3])
# First layer and width: "imagenet" is torchvision's own, with 64 channels there; "cifar" has 3 x 3 with stride 1.
STEM, WIDTH, SIDE = "imagenet", 8, 28
TRAIN, TEST, RADIUS = 1000, 100, "0.05"
RECIPE = f"""
seed = 0
[data]
source = "{work}/images"
[encoder]
depth = 18
width = {WIDTH}
stem = "{STEM}"
[threat]
norm = "linf"
radius = "{RADIUS}"
[pretrain.adversarial-training]
init = "{work}/theirs.safetensors"
attack_steps = 3
plan = {{ epochs = 2, batch_size = 64, lr = 0.02, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {{}} }}
[finetune.slf]
plan = {{ epochs = 5, batch_size = 64, lr = 0.1, momentum = 0.9, weight_decay = 2e-4, schedule.cosine = {{}} }}
[evaluate]
split = "test"
batch_size = 100
steps = 10
"""

shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
torch.manual_seed(0)
failed = []


def require_same(what, paths, expected, found):
    """Notes the images that are of another class by `found`."""
    differ = [f"{path.relative_to(work)}: {CLASSES[one]}, and {CLASSES[other]}"
              for path, one, other in zip(paths, expected, found, strict=True) if one != other]
    print(f"{'FAIL' if differ else 'ok  '} {what}: the same classes for {len(paths) - len(differ)} of {len(paths)} images")
    if differ:
        failed.append("\n    ".join([what, *differ]))


def hold_against_onnx(name, model):
    """Attacks a model, and holds onnxruntime's classes of clean and of adversarial images against ours."""
    graph, found = work / f"{name}.onnx", work / f"{name}-found.safetensors"
    advcl(program, "export", model, "--format", "onnx", "-o", graph)
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0].name
    seen = lambda images: session.run(None, {source: images})[0].argmax(1).tolist()
    names = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    numbered = lambda classes: [CLASSES.index(names[label]) for label in classes]
    said = json.loads(advcl(program, "evaluate", model, "--data", work / "images", "--radius", RADIUS, "--attack", "apgd-ce",
                            "--save-adversarial", found, "--json"))
    clean = numbered(seen(test_images))
    require_same(f"{name}, clean", paths, predicted(program, model, work / "images" / "test", paths), clean)
    # Examples are numbered in the order of the paths.
    order = sorted(range(len(paths)), key=lambda number: paths[number])
    with safe_open(str(found), "np") as file:
        numbers, examples = [order[index] for index in file.get_tensor("indices")], file.get_tensor("images")
    change = np.abs(examples - test_images[numbers]).max(initial=0)
    assert change <= float(RADIUS) * (1 + 1e-5), f"{found}: a change of {change}, expected at most {RADIUS}"
    shown = json.loads(advcl(program, "adversarial", "show", found, "--model", model, "--data", work / "images", "--json"))["each"]
    ours = [CLASSES.index(example["predicted"]) for example in shown]
    theirs = numbered(seen(examples)) if numbers else []
    require_same(f"{name}, adversarial", [paths[number] for number in numbers], ours, theirs)
    attacked = dict(zip(numbers, theirs))
    counts = sum(one == label for one, label in zip(clean, labels)), sum(
        attacked.get(number, one) == label for number, (one, label) in enumerate(zip(clean, labels)))
    expected = said["attacked"]["clean"], said["attacked"]["robust"]
    same = counts == expected
    print(f"{'ok  ' if same else 'FAIL'} {name}: onnxruntime has {counts[0]} of {len(paths)} right, and {counts[1]} under attack within {RADIUS};"
          f" advcl {expected[0]} and {expected[1]}")
    if not same:
        failed.append(f"{name}: accuracy {counts} by onnxruntime, {expected} by advcl evaluate")
    return counts


# Images, and weights from elsewhere.
test_pixels, labels = embedded("t10k", TEST, SIDE)
train_pixels, train_labels = embedded("train", TRAIN, SIDE)
write_images(work / "images" / "train", train_pixels, train_labels)
paths = write_images(work / "images" / "test", test_pixels, labels)
test_images = test_pixels.astype(np.float32) / np.float32(255)
net = train(Narrow(18, WIDTH, STEM, 3, len(CLASSES)), train_pixels, train_labels, epochs=4)
torch.save(net.state_dict(), work / "resnet18.pth")
(work / "names.txt").write_text("\n".join(CLASSES) + "\n")

# Weights in.
theirs = work / "theirs.safetensors"
mean, std = (",".join(map(str, numbers)) for numbers in (MEAN, STD))
advcl(program, "import", work / "resnet18.pth", "-o", theirs, "--classes", work / "names.txt", "--image-size", SIDE,
      *([] if STEM == "imagenet" else ["--stem", STEM]), "--mean", mean, "--std", std)
with torch.no_grad():
    expected = Normalized(net)(torch.from_numpy(test_images)).argmax(1).tolist()
require_same("imported, PyTorch's own network", paths, expected, predicted(program, theirs, work / "images" / "test", paths))
_, before = hold_against_onnx("imported", theirs)

# Robust finetuning, and a model for other programs out.
(work / "recipe.toml").write_text(RECIPE)
advcl(program, "run", work / "recipe.toml", "--run", work / "run", "--quiet")
_, after = hold_against_onnx("finetuned", work / "run" / "adversarial-training" / "model.safetensors")
if after <= before:
    failed.append(f"finetuning made nothing robust: {before} of {TEST} right under attack before, {after} after")
if failed:
    sys.exit("\n".join(failed))
