"""Times clean and PGD-20 predictions in PyTorch, the peer of `advcl bench evaluate`.

    pip install torch
    python peer_evaluate.py --width 64 --batch 64 [--size 32] [--channels 3] [--threads 2] [--fold] [--bf16] [--compile] [--device cpu|cuda]

A frozen ResNet-18 with a linear head in evaluation mode, random weights and images: what a careful PyTorch user would
write. Weights need no gradient, channels_last memory format; a batch is predicted as it is, attacked by PGD-20 on the
cross-entropy, and predicted again. --fold puts each BatchNorm into its convolution, which evaluation mode allows.
Prints: images/s, median over --runs.
"""
import argparse
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

parser = argparse.ArgumentParser()
for name, value in dict(width=64, batch=64, size=32, channels=3, steps=20, threads=2, runs=5).items():
    parser.add_argument("--" + name, type=int, default=value)
parser.add_argument("--fold", action="store_true")
parser.add_argument("--bf16", action="store_true")
parser.add_argument("--compile", action="store_true", help="torch.compile the network")
parser.add_argument("--device", default="cpu")
args = parser.parse_args()
torch.set_num_threads(args.threads)
torch.manual_seed(0)
EPSILON, STEP, CLASSES = 8 / 255, 2 / 255, 10


def layer(inputs, outputs, kernel, stride):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False).eval()
    norm = nn.BatchNorm2d(outputs).eval()
    return fuse_conv_bn_eval(conv, norm) if args.fold else nn.Sequential(conv, norm)


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first, self.second = layer(inputs, outputs, 3, stride), layer(outputs, outputs, 3, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else layer(inputs, outputs, 1, stride)

    def forward(self, x):
        y = self.second(F.relu(self.first(x), inplace=True))
        return F.relu(y + self.shortcut(x), inplace=True)


class Classifier(nn.Module):
    def __init__(self, width, channels):
        super().__init__()
        self.stem = layer(channels, width, 3, 1)
        blocks, inputs = [], width
        for stage in range(4):
            outputs = width << stage
            blocks += [Block(inputs, outputs, 2 if stage else 1), Block(outputs, outputs, 1)]
            inputs = outputs
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(inputs, CLASSES)

    def forward(self, x):
        x = F.relu(self.stem(x), inplace=True)
        return self.head(self.blocks(x).mean((2, 3))).float()


net = Classifier(args.width, args.channels).to(args.device, memory_format=torch.channels_last)
net = net.eval().requires_grad_(False)
logits = torch.compile(net) if args.compile else net
shape = (args.batch, args.channels, args.size, args.size)
images = torch.rand(shape, device=args.device).contiguous(memory_format=torch.channels_last)
labels = torch.arange(args.batch, device=args.device) % CLASSES


def predictions(x):
    with torch.no_grad():
        return logits(x).argmax(1).tolist()


def attack():
    x = (images + torch.empty_like(images).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
    for _ in range(args.steps):
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits(x), labels, reduction="sum"), x)
        x = x.detach() + STEP * gradient.sign()
        x = torch.min(torch.max(x, images - EPSILON), images + EPSILON).clamp(0, 1)
    return x


def evaluate():
    with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
        return predictions(images), predictions(attack())


times, warm = [], 2 if args.compile else 1
for _ in range(args.runs + warm):
    started = time.perf_counter()
    try:
        evaluate()
    except Exception as error:  # torch.compile wants a C++ compiler, and has limits of its own
        if not args.compile:
            raise
        sys.exit(f"did not run: {' '.join(str(error).split())[:200]}")
    times.append(time.perf_counter() - started)
median = sorted(times[warm:])[args.runs // 2]
form = "".join(f" {name}" for name in ("fold", "bf16", "compile") if getattr(args, name))
print(
    f"torch {torch.__version__} {args.device}{form} width {args.width} batch {args.batch} size {args.size}: "
    f"{median:.3f} s  {args.batch / median:.2f} images/s"
)
