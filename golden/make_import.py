"""Writes state dicts in the forms of other programs, and the features of some images by their encoder, for tests of `advcl import`.

    pip install torch safetensors
    python make_import.py import

A ResNet-10 of width 2 with torchvision's names and one BatchNorm, below the prefix `state_dict.module.backbone.` of a training
checkpoint (`checkpoint.pth`, with a head, an optimizer and an epoch) and bare (`bare.pt`, PyTorch's format before 1.6); the same
network with normalised images, as a whole module with channels last (`whole.pt`); as MoCo's query beside another network, its key
(`moco.pth`, half precision); as an `nn.Sequential` whose tensors are views of one storage (`sequence.pt`, also before 1.6).
`expected.safetensors`: images, their features, and those of normalised images.
"""
import os, sys
import torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import save_file
import network

OUT = sys.argv[1]
os.makedirs(OUT, exist_ok=True)
torch.manual_seed(11)
MEAN, STD = [.49, .48, .45], [.25, .24, .26]


class Block(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, s, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.downsample = None if s == 1 and i == o else nn.Sequential(nn.Conv2d(i, o, 1, s, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (self.downsample(x) if self.downsample else x))


class ResNet(nn.Module):
    def __init__(self, w, classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, w, 3, 1, 1, bias=False), nn.BatchNorm2d(w)
        for k in range(4):
            setattr(self, f"layer{k + 1}", nn.Sequential(Block(w << max(k - 1, 0), w << k, 2 if k else 1)))
        self.fc = nn.Linear(8 * w, classes)

    def features(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for k in range(4): x = getattr(self, f"layer{k + 1}")(x)
        return x.mean((2, 3))


net = ResNet(2, 4)
network.randomise(net)
net.eval()
images = network.images(5, 3, 16)
channel = lambda v: torch.tensor(v).reshape(1, 3, 1, 1)
with torch.no_grad():
    save_file({"images": images, "features": net.features(images).contiguous(),
               "normalised": net.features((images - channel(MEAN)) / channel(STD)).contiguous()}, os.path.join(OUT, "expected.safetensors"))
state = net.state_dict()
torch.save(state, os.path.join(OUT, "bare.pt"), _use_new_zipfile_serialization=False)
optimizer = torch.optim.SGD(net.parameters(), lr=.1, momentum=.9)
nested = {"module.backbone." + name: value for name, value in state.items()}
nested["module.projector.0.weight"] = torch.zeros(3, 16)
torch.save({"epoch": 7, "arch": "resnet10", "state_dict": nested, "optimizer": optimizer.state_dict()}, os.path.join(OUT, "checkpoint.pth"))


# What people have: other forms of the same network.
class Normalise(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", channel(MEAN))
        self.register_buffer("std", channel(STD))

    def forward(self, x): return (x - self.mean) / self.std


torch.save(nn.Sequential(Normalise(), net).to(memory_format=torch.channels_last), os.path.join(OUT, "whole.pt"))
torch.manual_seed(12)
other = ResNet(2, 4)
pair = {"module.encoder_q." + name: value.half() if value.is_floating_point() else value for name, value in state.items()}
pair |= {"module.encoder_k." + name: value for name, value in other.state_dict().items()}
pair |= {"module.queue": torch.zeros(4, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.long), "module.seen": torch.ones(3, dtype=torch.bool)}
torch.save({"epoch": 7, "state_dict": pair}, os.path.join(OUT, "moco.pth"), _use_new_zipfile_serialization=False)
places = {"conv1": "0", "bn1": "1"} | {f"layer{k}": str(k + 2) for k in (1, 2, 3, 4)}
parts = {name: value for name, value in state.items() if name.split(".")[0] in places and value.is_floating_point()}
flat, at, views = torch.cat([value.flatten() for value in parts.values()]), 0, {}
for name, value in parts.items():
    first, rest = name.split(".", 1)
    views[f"f.{places[first]}.{rest}"] = flat[at:at + value.numel()].view(value.shape)
    at += value.numel()
torch.save(views, os.path.join(OUT, "sequence.pt"), _use_new_zipfile_serialization=False)
