"""Holds exported models against `advcl predict`: by onnxruntime, by torchvision's ResNets and by advcl.load (python/advcl/).

    python scripts/check_export.py ADVCL WORK RUN/METHOD/MODE…

For each model, and for one that torchvision made and `advcl import` took: all formats, to 1e-4 of the largest output. The files
go to the folder WORK. Called by scripts/check_export.sh, which installs what this needs.
"""
import functools
import json
import pathlib
import re
import sys

import numpy as np
import onnx
import onnxruntime
import safetensors.torch
import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

root = pathlib.Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(root / "python"))
import advcl as ours  # noqa: E402
from pretrained import BLOCKS, Narrow, advcl  # noqa: E402

program, work = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
failed = []
run = functools.partial(advcl, program)


def export(model, form, name, *options):
    file = work / name
    said = json.loads(run("export", model, "--format", form, "-o", file, "--replace", "--json", *options))
    assert said["verified"]["random"] > 0, said
    return file, said


def compare(what, expected, found):
    expected, found = np.asarray(expected), np.asarray(found)
    same = expected.shape == found.shape
    gap = np.abs(expected - found).max() / np.abs(expected).max() if same else np.inf
    print(f"{'ok  ' if gap <= 1e-4 else 'FAIL'} {what}: {gap:.1e}")
    if not gap <= 1e-4:
        failed.append(what)


def onnx_outputs(file, pixels, dtype):
    """Outputs for all images at once, and for one; the file's metadata."""
    onnx.checker.check_model(onnx.load(str(file)), full_check=True)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    images = pixels if dtype == "uint8" else pixels.astype(np.float32) / np.float32(255)
    outputs = [session.run(None, {name: some})[0] for some in (images, images[:1])]
    return outputs, session.get_modelmeta().custom_metadata_map


def check(model, name, pixels, logits, features, figures):
    """`logits` (None for an encoder alone) and `features` (None where only the files tell them) are what to agree with."""
    images = torch.from_numpy(pixels).float() / 255
    net = ours.load(model)
    with torch.no_grad():
        own_features = net.features(images).numpy()
        own_logits = None if logits is None else net(images).numpy()
    if features is None:
        features = own_features
    compare(f"{name}: features by advcl.load", features, own_features)
    if logits is not None:
        compare(f"{name}: logits by advcl.load", logits, own_logits)
    outputs = [(["--features"], "features", features)] + ([([], "logits", logits)] if logits is not None else [])
    for options, output, expected in outputs:
        stem = f"{name}-{output}"
        for dtype in ("float", "uint8"):
            file, said = export(model, "onnx", f"{stem}-{dtype}.onnx", "--input", dtype, *options)
            (many, one), metadata = onnx_outputs(file, pixels, dtype)
            compare(f"{stem}: onnxruntime, {dtype}, batch {len(pixels)}", expected, many)
            compare(f"{stem}: onnxruntime, {dtype}, batch 1", expected[:1], one)
            assert metadata == said["metadata"], (metadata, said)
            if output == "logits":
                assert json.loads(metadata["classes"]) == net.classes, metadata
                assert len(json.loads(metadata.get("figures", "[]"))) == figures, metadata
            if net.radius is not None:
                assert (metadata["threat_norm"], metadata["threat_radius"]) == (net.norm, net.radius), metadata
        file, _ = export(model, "torchvision", f"{stem}-torchvision.safetensors", *options)
        with safe_open(str(file), "pt") as opened:
            about = opened.metadata()
        classes = len(json.loads(about["classes"])) if output == "logits" else 0
        shape = int(about["depth"]), int(about["width"]), about["stem"], int(about["channels"])
        theirs = Narrow(*shape, classes).eval()
        theirs.load_state_dict(load_file(file), strict=True)
        normalize = json.loads(about.get("normalize", '{"mean": 0, "std": 1}'))
        mean, std = (torch.tensor(normalize[key], dtype=torch.float32).reshape(-1, 1, 1) for key in ("mean", "std"))
        with torch.no_grad():
            compare(f"{stem}: torchvision", expected, theirs((images - mean) / std).numpy())
        if output == "logits":
            with torch.no_grad():
                found = in_readme(file, classes, *shape)(images)
            compare(f"{stem}: torchvision, by README's lines", expected, found.numpy())
        file, _ = export(model, "safetensors", f"{stem}-exported.safetensors", *options)
        again = ours.load(file)
        with torch.no_grad():
            found = again(images) if output == "logits" else again.features(images)
        compare(f"{stem}: one branch, by advcl.load", expected, found.numpy())
        if output == "logits":
            compare(f"{stem}: one branch, by advcl predict", expected, predict(file, pixels, net.classes))


def in_readme(file, classes, depth, width, stem, channels):
    """What the lines in README.md make of a state dict."""
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.S)
    (code,) = [block for block in blocks if "torchvision.models.ResNet" in block]
    if stem == "imagenet":
        # As the text around them says.
        code = code.replace("3, stride, 1, bias", "7, 2, 3, bias").replace("net.maxpool, net.fc = nn.Identity(), ", "net.fc = ")
    code = code.replace("[2, 2, 2, 2]", str(list(BLOCKS[depth]))).replace("advcl-slf-torchvision.safetensors", str(file))
    scope = {"width": width, "channels": channels, "classes": classes, "stride": 1 if stem == "cifar" else 2}
    scope |= {"torchvision": torchvision, "nn": nn, "safetensors": safetensors}
    exec(code, scope)
    return scope["net"].eval()


def predict(model, pixels, classes):
    folder = work / "images"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, image in enumerate(pixels):
        image = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(image).save(folder / f"{number:02}.png")
    logits = np.zeros((len(pixels), len(classes)), np.float32)
    for row, answer in zip(logits, json.loads(run("predict", model, folder, "--json"))):
        for entry in answer["classes"]:
            row[classes.index(entry["class"])] = entry["logit"]
    return logits


def check_model(folder, name):
    net = ours.load(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (7, net.channels, *net.image_size), dtype=np.uint8)
    check(folder, name, pixels, predict(folder, pixels, net.classes), None, 2)
    # Learning goes on from here.
    loss = net.train()(torch.from_numpy(pixels).float() / 255).square().mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def check_imported(depth, width, stem):
    """A network that torchvision made, with statistics that are not those of a fresh one, and a normalisation."""
    torch.manual_seed(depth)
    theirs = Narrow(depth, width, stem, 3, 0).train()
    theirs(torch.randn(16, 3, 40, 40))
    theirs.eval()
    name = f"imported-{depth}-{stem}"
    weights, model = work / f"{name}.safetensors", work / f"{name}-model.safetensors"
    save_file(theirs.state_dict(), weights)
    mean, std = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
    numbers = "--mean", ",".join(map(str, mean)), "--std", ",".join(map(str, std))
    # A first layer of 7 x 7 is known by its shape.
    first = () if stem == "imagenet" else ("--stem", stem)
    run("import", weights, "-o", model, "--replace", *first, "--image-size", 40, 36, *numbers)
    pixels = np.random.default_rng(1).integers(0, 256, (7, 3, 40, 36), dtype=np.uint8)
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (mean, std))
    with torch.no_grad():
        expected = theirs((torch.from_numpy(pixels).float() / 255 - mean) / std).numpy()
    check(model, name, pixels, None, expected, 0)


work.mkdir(parents=True, exist_ok=True)
for argument in sys.argv[3:]:
    folder = pathlib.Path(argument)
    check_model(folder, f"{folder.parent.name}-{folder.name}")
check_imported(18, 16, "cifar")
check_imported(50, 4, "strided")
check_imported(18, 16, "imagenet")
if failed:
    sys.exit(f"{len(failed)} of the outputs differ: {'; '.join(failed)}")
