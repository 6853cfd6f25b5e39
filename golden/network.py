"""Shared parts of the golden scripts: the encoder with one BatchNorm per route, its weights, the contrastive loss, the ball."""
import argparse, copy, json, math, os
import torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import save_file

EPS, ALPHA = 8 / 255, 2 / 255
ROUTES = ["normal", "pgd", "pgd_ce"]
KS = [2, 10, 50]


def arguments():
    ap = argparse.ArgumentParser()
    ap.add_argument("out"); ap.add_argument("--seed", type=int, default=0); ap.add_argument("--width", type=int, default=8)
    ap.add_argument("--batch", type=int, default=16); ap.add_argument("--size", type=int, default=32)
    ap.add_argument("--channels", type=int, default=3)
    a = ap.parse_args(); os.makedirs(a.out, exist_ok=True)
    return a


def write(out, name, tensors, **params):
    t = {k: (v.detach().to(torch.float32) if v.is_floating_point() else v.to(torch.int64)).contiguous().clone() for k, v in tensors.items()}
    save_file(t, os.path.join(out, name + ".safetensors"), metadata={"check": name, "params": json.dumps(params)})


def images(n, c, s): return F.interpolate(torch.rand(n, c, s // 4, s // 4), size=(s, s), mode="bicubic").clamp(0, 1)


# ---------------------------------------------------------------- model: ResNet-18 with one BatchNorm per route
class RouteNorm(nn.Module):
    def __init__(self, c):
        super().__init__(); self.bn_list = nn.ModuleList(nn.BatchNorm2d(c) for _ in ROUTES)

    def forward(self, x, r): return self.bn_list[ROUTES.index(r)](x)


class Downsample(nn.Module):
    def __init__(self, i, o, s):
        super().__init__(); self.conv = nn.Conv2d(i, o, 1, s, bias=False); self.bn = RouteNorm(o)

    def forward(self, x, r): return self.bn(self.conv(x), r)


class BasicBlock(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, s, 1, bias=False); self.bn1 = RouteNorm(o)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False); self.bn2 = RouteNorm(o)
        self.downsample = Downsample(i, o, s) if s != 1 or i != o else None

    def forward(self, x, r):
        y = F.relu(self.bn1(self.conv1(x), r)); y = self.bn2(self.conv2(y), r)
        return F.relu(y + (self.downsample(x, r) if self.downsample else x))


class Encoder(nn.Module):
    def __init__(self, w, c, imagenet=False):
        super().__init__()
        self.conv1 = nn.Conv2d(c, w, 7, 2, 3, bias=False) if imagenet else nn.Conv2d(c, w, 3, 1, 1, bias=False)
        self.bn1, self.maxpool = RouteNorm(w), nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
        for k, (i, o, s) in enumerate([(w, w, 1), (w, 2 * w, 2), (2 * w, 4 * w, 2), (4 * w, 8 * w, 2)]):
            setattr(self, f"layer{k+1}", nn.ModuleList([BasicBlock(i, o, s), BasicBlock(o, o, 1)]))
        d = 8 * w
        self.head_proj = nn.Sequential(nn.Linear(d, d), nn.BatchNorm1d(d), nn.ReLU(), nn.Linear(d, 128))
        for k in KS: setattr(self, f"fc_{k:03d}", nn.Linear(d, k))

    def features(self, x, r):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x), r)))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in layer: x = block(x, r)
        return x.mean((2, 3))

    def project(self, f): return F.normalize(self.head_proj(f), dim=1)
    def cluster_logits(self, f): return [getattr(self, f"fc_{k:03d}")(f) for k in KS]


def randomise(m):  # non-trivial affine parameters and statistics, so that a swapped route or a missing epsilon is detected
    for mod in m.modules():
        if isinstance(mod, (nn.BatchNorm2d, nn.BatchNorm1d)):
            nn.init.uniform_(mod.weight, .5, 1.5); nn.init.normal_(mod.bias, 0, .2)
            nn.init.normal_(mod.running_mean, 0, .2); nn.init.uniform_(mod.running_var, .5, 1.5)
        elif isinstance(mod, nn.Conv2d):
            nn.init.kaiming_normal_(mod.weight, mode="fan_out", nonlinearity="relu")


def weights(m): return {"weight." + k: v.clone() for k, v in m.state_dict().items() if "num_batches" not in k}
def freeze_stats(m, momentum):
    for mod in m.modules():
        if isinstance(mod, (nn.BatchNorm2d, nn.BatchNorm1d)): mod.momentum = momentum


def encoder_check(net, x):
    """Features of every route in evaluation and training mode, running statistics, gradients."""
    t = {"input": x, **weights(net)}
    net.eval()
    for r in ROUTES:
        with torch.no_grad(): t[f"eval.{r}.features"] = net.features(x, r)
    with torch.no_grad(): t["eval.pgd.projection"] = net.project(net.features(x, "pgd"))
    for r in ROUTES:
        m = copy.deepcopy(net).train(); xi = x.clone().requires_grad_(); fe = m.features(xi, r); probe = torch.linspace(-1, 1, fe.numel()).reshape(fe.shape)
        (fe * probe).sum().backward()
        t[f"train.{r}.features"] = fe; t[f"train.{r}.grad.input"] = xi.grad
        t[f"train.{r}.running_mean.bn1"] = m.bn1.bn_list[ROUTES.index(r)].running_mean; t[f"train.{r}.running_var.bn1"] = m.bn1.bn_list[ROUTES.index(r)].running_var
        if r == "pgd":
            for k, p in m.named_parameters():
                if p.grad is not None: t["train.pgd.grad." + k] = p.grad
    return t


# ---------------------------------------------------------------- loss and ball
def contrastive(views, t, base=0.07):
    """views: [V][n, d] unit vectors. Every view of every image is an anchor; its positives are the image's other views."""
    V, n = len(views), views[0].shape[0]
    z = torch.cat(views); s = z @ z.T / t
    self_ = torch.eye(V * n, dtype=torch.bool); s = s.masked_fill(self_, -math.inf)
    logp = s - torch.logsumexp(s, 1, keepdim=True)
    pos = torch.eye(n, dtype=torch.bool).repeat(V, V) & ~self_
    return -(logp.masked_fill(~pos, 0).sum(1) / (V - 1)).mean() * (t / base)


def project(x, x0, eps=EPS): return torch.min(torch.max(x, x0 - eps), x0 + eps).clamp(0, 1)
