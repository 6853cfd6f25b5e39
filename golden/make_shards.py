"""Writes the golden vectors of batches that are cut into shards, for several processes: AdvCL, ACL and TRADES, computed in one process
on the joined batch by PyTorch in float64, stored as float32. README.md in this folder describes each tensor.

    pip install torch torchvision safetensors
    python make_shards.py OUT_DIR [--seed 0] [--width 2] [--batch 8] [--size 16] [--channels 3]
"""
import functools
import torch, torch.nn as nn, torch.nn.functional as F
import network
from network import EPS, KS, Encoder, contrastive, freeze_stats, randomise, weights

A = network.arguments()
torch.manual_seed(A.seed); torch.set_num_threads(1); torch.set_default_dtype(torch.float64)
write = functools.partial(network.write, A.out)
img = lambda: network.images(A.batch, A.channels, A.size)
TEMPERATURE, WEIGHT, BETA, CLASSES = .5, .2, 6., 10

net = Encoder(A.width, A.channels); randomise(net); net.train(); freeze_stats(net, 0.)
lin = nn.Linear(8 * A.width, CLASSES)
near = lambda x: (x + (torch.rand_like(x) * 2 - 1) * EPS).clamp(0, 1)
x1, x2, x3, xo = img(), img(), img() - .5, img(); xa, xc = near(xo), near(xo); a1, a2 = near(x1), near(x2)
ys = [torch.randint(0, k, (A.batch,)) for k in KS]; y = torch.randint(0, CLASSES, (A.batch,))
t = {"view1": x1, "view2": x2, "view3": x3, "attacked_cl": xa, "attacked_ce": xc, "attacked1": a1, "attacked2": a2, "labels": y,
     "linear.weight": lin.weight, "linear.bias": lin.bias, **weights(net), **{f"labels.{k}": v for k, v in zip(KS, ys)}}


def features(shards, r, *views):
    """Every shard passes the encoder by itself, with all of its images' views as one batch; the rows are those of the whole batch."""
    parts = [net.features(torch.cat([v.chunk(shards)[s] for v in views]), r).chunk(len(views)) for s in range(shards)]
    return [torch.cat(view) for view in zip(*parts)]


def advcl(shards):
    """Equation 5 of AdvCL on given views. The projection head sees the joined batch."""
    clean = [net.project(features(shards, "normal", v)[0]) for v in (x1, x2, x3)]
    loss = contrastive(clean + [net.project(features(shards, "pgd", xa)[0])], TEMPERATURE)
    logits = net.cluster_logits(features(shards, "pgd_ce", xc)[0])
    return loss + WEIGHT * sum(F.cross_entropy(a, b) for a, b in zip(logits, ys)) / len(KS)


def acl(shards):
    """ACL's dual stream: both views of a stream are one batch."""
    stream = lambda r, *views: contrastive(list(net.project(torch.cat(features(shards, r, *views))).chunk(2)), TEMPERATURE)
    return (stream("normal", x1, x2) + stream("pgd", a1, a2)) / 2


def trades(shards):
    """TRADES' loss, equation 5, on given adversarial images."""
    clean, adversarial = [lin(features(shards, "pgd", v)[0]) for v in (x1, a1)]
    return F.cross_entropy(clean, y) + BETA * F.kl_div(F.log_softmax(adversarial, 1), F.softmax(clean, 1), reduction="batchmean")


for shards in (1, 2, 4):
    for method in (advcl, acl, trades):
        net.zero_grad(); lin.zero_grad(); loss = method(shards); loss.backward(); name = f"{method.__name__}.{shards}"
        t[f"{name}.loss"] = loss.reshape(1)
        named = list(net.named_parameters()) + [("linear." + k, p) for k, p in lin.named_parameters()]
        t.update({f"{name}.grad.{k}": p.grad.clone() for k, p in named if p.grad is not None and p.grad.abs().sum() > 0})
    # The attack of AdvCL through the contrastive loss: its gradient where it stands, in training mode.
    with torch.no_grad(): fixed = [net.project(features(shards, "normal", v)[0]) for v in (x1, x2, x3)]
    xi = xa.detach().requires_grad_()
    t[f"attack.{shards}.grad"], = torch.autograd.grad(contrastive([net.project(features(shards, "pgd", xi)[0])] + fixed, TEMPERATURE), xi)
write("shards", t, width=A.width, clusters=KS, temperature=TEMPERATURE, base_temperature=.07, cluster_weight=WEIGHT, beta=BETA, shards=[1, 2, 4])
