"""Robust accuracy of a PyTorch network, by the program's attacks.

The network's weights and the images go to files; `advcl import` and `advcl evaluate` do the rest. Afterwards the network itself
classifies the images and the adversarial examples, and its predictions are what counts: the program's figures are refused where they are
those of another network.
"""
from __future__ import annotations

import json
import os
import pathlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .network import Network
from .program import run

# Images whose prediction the program and PyTorch may disagree on, as a share: where two logits are equal to rounding.
DISAGREE = 0.01
BATCH = 100


@dataclass(frozen=True)
class Evaluation:
    """What came out of `evaluate`, image by image."""

    clean: Tensor
    """Whether the network classifies each image correctly, `[images]`."""
    robust: Tensor
    """Whether it still does after the attack, `[images]`: never where it does not classify the clean image correctly."""
    indices: Tensor
    """Index of the original of each adversarial example; none without `attack`."""
    adversarial: Tensor
    """Adversarial examples, float32 in [0, 1], `[examples, channels, height, width]`."""
    warnings: list[str]
    """What the program's soundness checks warn of; empty where nothing speaks against the figures."""
    report: dict[str, Any]
    """All that `advcl evaluate --json` says."""

    @property
    def clean_accuracy(self) -> float:
        """Share of the images that are classified correctly."""
        return self.clean.float().mean().item()

    @property
    def robust_accuracy(self) -> float:
        """Share of the images that are classified correctly after the attack: an upper bound of what is robust."""
        return self.robust.float().mean().item()


def evaluate(
    module: nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    radius: str | float,
    attack: str | None = "autoattack",
    norm: str = "linf",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    stem: str | None = None,
    device: str = "cpu",
    quiet: bool = True,
) -> Evaluation:
    """Attacks the network on these images within the radius.

    - `module`: a ResNet-10, 18, 34 or 50 with a linear classifier `fc` whose weights have names that `advcl import` knows, such as those
      of `advcl.load` and of torchvision. It takes pixels in [0, 1], or normalised ones if `mean` and `std` are given.
    - `images`: `[images, channels, height, width]` with 1 or 3 channels, in uint8, or in float as whole multiples of 1/255. Not normalised.
    - `labels`: whole numbers, indices of the network's outputs; of two classes or more.
    - `radius`: of the ball, in pixels of [0, 1]: a number, or text such as `"8/255"`. `norm`: `"linf"` or `"l2"`.
    - `attack`: `"autoattack"`, `"rand"`, attacks by name, separated by commas (`"apgd-ce,square"`); None for PGD-20 alone, which leaves no
      examples.
    - `mean`, `std`: by which images are normalised before `module`, a number for each channel.
    - `stem`: `"strided"` for a first layer of 3 × 3 at stride 2; found by itself where `module` has a convolution `conv1`.
    - `device`: the program's. The network's own predictions are made where its weights are.

    Raises `ValueError` for input that does not fit, `ProgramError` where the program refuses or fails, and `RuntimeError` where its network and
    `module` are not the same, as for one that computes otherwise than a ResNet with its weights.
    """
    pixels, wanted = _pixels(images), _labels(labels, len(images))
    if (mean is None) != (std is None):
        raise ValueError("expected both mean and std, or none of them")
    if isinstance(module, Network) and mean is not None:
        raise ValueError("expected no mean and std: a network of advcl.load normalises by itself")
    judge = _Judge(module, mean, std)
    if isinstance(module, Network):
        mean, std = module.mean.flatten().tolist(), module.std.flatten().tolist()
    with tempfile.TemporaryDirectory(prefix="advcl-") as name:
        folder = pathlib.Path(name)
        model = _model_file(folder, module, pixels, mean, std, stem)
        _data_file(folder / "images.npz", pixels, wanted, _classes(module))
        found = folder / "found.safetensors"
        options = ["--radius", str(radius), "--norm", norm, "--device", device, "--json"]
        options += ["--quiet"] if quiet else []
        options += ["--attack", attack, "--save-adversarial", str(found)] if attack is not None else []
        report: dict[str, Any] = json.loads(run("evaluate", model, "--data", folder / "images.npz", *options, quiet=quiet))
        examples = load_file(str(found)) if found.exists() else {}
    empty = torch.zeros((0, *pixels.shape[1:]))
    indices = examples.get("indices", torch.zeros(0)).long()
    adversarial = examples.get("images", empty).float()
    clean = judge.predict(pixels.float() / 255) == wanted
    outcome = report["attacked" if attack is not None else "accuracy"]["per_image"]
    _require_same("clean images", clean, torch.tensor([one != "w" for one in outcome]))
    robust = clean & torch.tensor([one == "r" for one in outcome])
    if attack is not None:
        still = judge.predict(adversarial) == wanted[indices]
        _require_same("adversarial examples", still, torch.zeros_like(still))
        # One that does not fool the network is no evidence against it.
        robust[indices[still]] = clean[indices[still]]
    findings = report.get("soundness", {}).get("findings", [])
    warnings = [f"{one['check']}: {one['found']}; {one['meaning']}" for one in findings if one["verdict"] == "warns"]
    return Evaluation(clean, robust, indices, adversarial, warnings, report)


class _Judge:
    """The network's own predictions, in evaluation mode."""

    def __init__(self, module: nn.Module, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        self.module = module
        self.weight = next(module.parameters())
        self.normalize: tuple[Tensor, Tensor] | None = None
        if mean is not None and std is not None:
            self.normalize = (self._as_pixels(mean), self._as_pixels(std))

    def _as_pixels(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(list(values)).reshape(1, -1, 1, 1).to(self.weight)

    def predict(self, images: Tensor) -> Tensor:
        modes = {module: module.training for module in self.module.modules()}
        self.module.eval()
        predicted = []
        try:
            with torch.no_grad():
                for start in range(0, len(images), BATCH):
                    batch = images[start:start + BATCH].to(self.weight)
                    if self.normalize is not None:
                        batch = (batch - self.normalize[0]) / self.normalize[1]
                    predicted.append(self.module(batch).argmax(1).cpu())
        finally:
            for module, training in modes.items():
                module.training = training
        return torch.cat(predicted) if predicted else torch.zeros(0, dtype=torch.long)


def _pixels(images: Tensor) -> Tensor:
    """The images in uint8."""
    if images.dim() != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(f"expected images [images, 1 or 3, height, width], found {list(images.shape)}")
    images = images.detach().cpu()
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ValueError(f"expected images in uint8 or float, found {images.dtype}")
    levels = images.double() * 255
    whole = levels.round()
    if not bool(((levels - whole).abs() < 1e-3).all()) or whole.min() < 0 or whole.max() > 255:
        raise ValueError("expected images in [0, 1] with whole multiples of 1/255, as files of images have them; not normalised")
    return whole.to(torch.uint8)


def _labels(labels: Tensor | Sequence[int], count: int) -> Tensor:
    wanted = torch.as_tensor(labels).detach().cpu()
    if wanted.dim() != 1 or len(wanted) != count or wanted.is_floating_point():
        raise ValueError(f"expected {count} labels in whole numbers, found {wanted.dtype} of shape {list(wanted.shape)}")
    if bool((wanted == wanted[0]).all()):
        raise ValueError(f"expected labels of two classes or more, found {int(wanted[0])} alone")
    return wanted.long()


def _outputs(module: nn.Module) -> int:
    linear = [one for one in module.modules() if isinstance(one, nn.Linear)]
    if not linear:
        raise ValueError("expected a network with a linear classifier, found no linear layer")
    return linear[-1].out_features


def _classes(module: nn.Module) -> list[str]:
    """Names of the outputs, or their numbers."""
    names = getattr(module, "classes", None)
    if isinstance(names, list) and len(names) == _outputs(module):
        return [str(name) for name in names]
    return [str(number) for number in range(_outputs(module))]


def _numbers(values: Sequence[float]) -> str:
    """Numbers as the program reads them, also those of NumPy and PyTorch, which have representations of their own."""
    return ",".join(repr(float(value)) for value in values)


def _model_file(
    folder: pathlib.Path,
    module: nn.Module,
    pixels: Tensor,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    stem: str | None,
) -> pathlib.Path:
    """A model file with the network's weights as they are now."""
    state = {name: tensor.detach().cpu().float().contiguous() for name, tensor in module.state_dict().items()
             if tensor.is_floating_point()}
    weights, names, model = folder / "weights.safetensors", folder / "names.txt", folder / "model.safetensors"
    save_file(state, str(weights))
    names.write_text("\n".join(_classes(module)) + "\n", encoding="utf-8")
    height, width = pixels.shape[2:]
    options = ["--classes", str(names), "--image-size", f"{height}x{width}"]
    first = getattr(module, "conv1", None)
    if stem is None and isinstance(first, nn.Conv2d) and first.kernel_size == (3, 3):
        stem = "strided" if first.stride == (2, 2) else "cifar"
    options += ["--stem", stem] if stem is not None else []
    if mean is not None and std is not None:
        options += ["--mean", _numbers(mean), "--std", _numbers(std)]
    run("import", weights, "--output", model, *options)
    return model


def _data_file(path: str | os.PathLike[str], pixels: Tensor, labels: Tensor, classes: list[str]) -> None:
    """The images as a NumPy archive, and the names of their classes beside it: of those that they have, since a class without images is
    refused."""
    if int(labels.min()) < 0 or int(labels.max()) >= len(classes):
        raise ValueError(f"expected labels from 0 to {len(classes) - 1}, found {int(labels.min())} to {int(labels.max())}")
    arrays = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    arrays = arrays[..., 0] if arrays.shape[3] == 1 else arrays
    used, numbers = np.unique(labels.numpy(), return_inverse=True)
    np.savez(os.fspath(path), images=arrays, labels=numbers)
    names = [classes[label] for label in used.tolist()]
    pathlib.Path(path).with_name("classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def _require_same(what: str, own: Tensor, theirs: Tensor) -> None:
    """Refuses figures of another network: the program's predictions and the module's must agree."""
    count = len(own)
    if count == 0:
        return
    differ = int((own != theirs).sum())
    if differ > max(1, int(DISAGREE * count)):
        raise RuntimeError(
            f"the program and the module disagree on {differ} of {count} {what}: the module computes otherwise than a ResNet with its weights"
            " (another first layer or pooling, normalisation that is not said, …)"
        )
