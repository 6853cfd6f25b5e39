"""Models of advcl in PyTorch: this file alone, copied beside your code as advcl.py, or the package (`pip install advcl[torch]`). It needs
torch and safetensors, nothing else.

    import advcl
    net = advcl.load("runs/quickstart/advcl/slf")   # a folder of a run, or a model file
    logits, features = net(images), net.features(images)   # [batch, channels, height, width] in [0, 1]
"""
from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Block(nn.Module):
    """A residual block: two 3 × 3 convolutions, or the 1-3-1 bottleneck of ResNet-50."""

    def __init__(self, inputs: int, inner: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * inner if bottleneck else inner
        if bottleneck:
            self.conv1, self.bn1 = _conv(inputs, inner, 1), nn.BatchNorm2d(inner)
            self.conv2, self.bn2 = _conv(inner, inner, 3, stride), nn.BatchNorm2d(inner)
            self.conv3, self.bn3 = _conv(inner, outputs, 1), nn.BatchNorm2d(outputs)
        else:
            self.conv1, self.bn1 = _conv(inputs, inner, 3, stride), nn.BatchNorm2d(inner)
            self.conv2, self.bn2 = _conv(inner, inner, 3), nn.BatchNorm2d(inner)
        self.bottleneck = bottleneck
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y: Tensor = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(torch.relu(y)))
        return torch.relu(y + shortcut)


class Network(nn.Module):
    """A ResNet of advcl on one BatchNorm branch. Images are pixels in [0, 1]: normalisation, where there is one, is inside.

    `classes`: names in the order of the logits; empty for an encoder alone. `image_size`: height and width. `channels`: 1 or 3.
    `radius`, `norm`: the threat model that it was trained against ("8/255", "linf"), None where it is not known.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential
    mean: Tensor
    std: Tensor

    def __init__(self, info: dict[str, Any]) -> None:
        super().__init__()
        depth, width, stem = info["depth"], info["width"], info["stem"]
        self.info, self.classes = info, list(info["classes"])
        height, wide = info["image_size"]
        self.image_size: tuple[int, int] = (height, wide)
        self.channels: int = info["channels"]
        self.norm, self.radius = _threat(info)
        kernel = 7 if stem == "imagenet" else 3
        self.conv1 = _conv(self.channels, width, kernel, 1 if stem == "cifar" else 2)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        inputs, bottleneck = width, depth == 50
        for index, blocks in enumerate(BLOCKS[depth]):
            stage: list[nn.Module] = []
            for block in range(blocks):
                stride = 2 if index and not block else 1
                stage.append(Block(inputs, width << index, stride, bottleneck))
                inputs = (width << index) * (4 if bottleneck else 1)
            setattr(self, f"layer{index + 1}", nn.Sequential(*stage))
        self.fc = nn.Linear(inputs, len(self.classes)) if self.classes else None
        normalize = info.get("normalize") or {"mean": [0.0] * self.channels, "std": [1.0] * self.channels}
        for name in ("mean", "std"):
            values = torch.tensor(normalize[name], dtype=torch.float32).reshape(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """[batch, channels, height, width] in [0, 1] to [batch, features]."""
        x: Tensor = self.maxpool(torch.relu(self.bn1(self.conv1((images - self.mean) / self.std))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """[batch, channels, height, width] in [0, 1] to logits [batch, classes]."""
        if self.fc is None:
            raise ValueError("an encoder alone: it has features(images), and no classifier")
        logits: Tensor = self.fc(self.features(images))
        return logits


def _threat(info: dict[str, Any]) -> tuple[str | None, str | None]:
    """Norm and radius that the classifier, or else the encoder, was trained against."""
    try:
        import tomllib  # Python 3.11

        table = tomllib.loads(info["recipe"])
    except (ImportError, KeyError, ValueError):
        return None, None
    threat = table.get("threat") or table.get("pretrained", {}).get("threat") or {}
    return threat.get("norm"), threat.get("radius")


def _name(name: str, branch: int) -> str | None:
    """The name in this file of a tensor in a model file; None for those of other BatchNorm branches and other heads."""
    if name.startswith(("head_proj.", "fc_")):
        return None
    if ".bn_list." in name:
        if f".bn_list.{branch}." not in name:
            return None
        name = name.replace(f".bn_list.{branch}.", ".")
    name = name.replace("downsample.conv.", "downsample.0.").replace("downsample.bn.", "downsample.1.")
    return "fc." + name[len("linear."):] if name.startswith("linear.") else name


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Network:
    """The model in a folder of a run, or in a model file, in evaluation mode; trainable after `.train()`."""
    path = pathlib.Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata() or {}
        if "advcl" not in metadata:
            raise ValueError(f"{path}: no model file of advcl (this reads those, not exported state dicts)")
        info = json.loads(metadata["advcl"])
        branch = info["routes"].index(info["route"])
        named = {name: _name(name, branch) for name in file.keys()}
        tensors = {own: file.get_tensor(name) for name, own in named.items() if own}
    net = Network(info)
    counters = [name for name in net.state_dict() if name.endswith("num_batches_tracked")]
    tensors.update((name, torch.tensor(0)) for name in counters)
    net.load_state_dict(tensors, strict=True)
    return net.eval().to(device)
