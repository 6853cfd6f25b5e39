"""A torchvision ResNet that is trained in PyTorch on the embedded images, and these images as files. Shared by walk.py,
check_imported.py and check_export.py; needs torch, torchvision, pillow and numpy.
"""
import gzip
import json
import pathlib
import subprocess
import sys

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, Bottleneck

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
# Not in the order of the alphabet, in which folders are read.
CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]
MEAN, STD = [0.286] * 3, [0.353] * 3
DATA = pathlib.Path(__file__).resolve().parent.parent / "data" / "fashion-mnist-12k"


class Narrow(torchvision.models.ResNet):
    """torchvision's ResNet of any width, with the stems of advcl."""

    def __init__(self, depth, width, stem, channels, classes):
        self.width = width
        super().__init__(Bottleneck if depth == 50 else BasicBlock, BLOCKS[depth], num_classes=max(classes, 1))
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        else:
            self.conv1 = nn.Conv2d(channels, width, 3, 1 if stem == "cifar" else 2, 1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(width)
        features = 8 * width * (4 if depth == 50 else 1)
        self.fc = nn.Linear(features, classes) if classes else nn.Identity()

    def _make_layer(self, block, planes, *args, **kwargs):
        if planes == 64:
            self.inplanes = self.width
        return super()._make_layer(block, planes * self.width // 64, *args, **kwargs)


def embedded(part, count, side=28):
    """As many of the images inside advcl of each class: [count, 3, side, side] in 8 bits, and labels. `part`: train, t10k."""
    read = lambda name: gzip.decompress((DATA / f"{part}-{name}-ubyte.gz").read_bytes())
    labels = np.frombuffer(read("labels-idx1")[8:], np.uint8).astype(np.int64)
    pixels = np.frombuffer(read("images-idx3")[16:], np.uint8).reshape(-1, 28, 28)
    chosen = np.concatenate([np.flatnonzero(labels == label)[:count // len(CLASSES)] for label in range(len(CLASSES))])
    pixels, labels = pixels[chosen], labels[chosen]
    if side != 28:
        by = 28 // side
        pixels = pixels.reshape(-1, side, by, side, by).mean((2, 4)).round().astype(np.uint8)
    return np.repeat(pixels[:, None], 3, 1), labels


def write_images(folder, pixels, labels):
    """Writes a PNG of each image, FOLDER/CLASS/NUMBER.png, and returns their paths."""
    paths = [folder / CLASSES[label] / f"{number:05}.png" for number, label in enumerate(labels)]
    for path, image in zip(paths, pixels):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    return paths


class Normalized(nn.Module):
    """A network on images in [0, 1] that was trained on normalized ones."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.mean, self.std = (torch.tensor(numbers).reshape(-1, 1, 1) for numbers in (MEAN, STD))

    def forward(self, images):
        return self.net((images - self.mean) / self.std)


def train(net, pixels, labels, epochs, radius=0.0, batch=64):
    """Trains by cross-entropy; with a radius, on images attacked in one step from a random start."""
    images, labels = torch.from_numpy(pixels).float() / 255, torch.from_numpy(labels)
    model = Normalized(net.to(memory_format=torch.channels_last))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps, pct_start=0.3)
    for _ in range(epochs):
        net.train()
        losses = []
        for chosen in torch.randperm(len(images)).split(batch)[:len(images) // batch]:
            x, y = images[chosen].contiguous(memory_format=torch.channels_last), labels[chosen]
            flipped = torch.rand(len(x)) < 0.5
            x[flipped] = x[flipped].flip(3)
            if radius:
                start = (x + torch.empty_like(x).uniform_(-radius, radius)).clamp(0, 1).requires_grad_()
                (gradient,) = torch.autograd.grad(functional.cross_entropy(model(start), y), start)
                moved = start.detach() + 1.25 * radius * gradient.sign()
                x = torch.min(torch.max(moved, x - radius), x + radius).clamp(0, 1)
            loss = functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"loss {np.mean(losses):.3f}", flush=True)
    return net.eval()


def advcl(program, *args):
    """What advcl prints; ends the script where it fails."""
    command = [str(arg) for arg in (program, *args)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr}")
    return done.stdout


def predicted(program, model, folder, paths):
    """Which class `advcl predict` sees in each image of a folder, by its number in CLASSES."""
    answers = json.loads(advcl(program, "predict", model, folder, "--json"))
    first = {pathlib.Path(answer["image"]): CLASSES.index(answer["classes"][0]["class"]) for answer in answers}
    return [first[path] for path in paths]
