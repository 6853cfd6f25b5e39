"""Writes the golden vectors of the FAB and Square attacks, like make_golden.py: computed by PyTorch in float64, stored as
float32. README.md in this folder describes each tensor. Inputs are rounded to float32 first, so that both programs start
from the same numbers.

    pip install torch torchvision safetensors
    python make_boxes.py OUT_DIR [--seed 0] [--size 32] [--channels 3]
"""
import functools, math
import torch
import network

A = network.arguments()
torch.manual_seed(A.seed); torch.set_num_threads(1); torch.set_default_dtype(torch.float64)
write = functools.partial(network.write, A.out)
single = lambda x: x.float().double()


# 1. FAB's projection (Croce and Hein 2020, section 3.1): the shortest change d with <w, t + d> = b and t + d in [0, 1]. Every
# value moves against w by lambda (Linf) or lambda |w| (L2), at most to the edge of the box; lambda is found by bisection. If
# there is no such d, the corner next to the plane.
def shift(t, w, b, norm):
    residual = (w * t).sum() - b
    w = w * (1. if residual >= 0 else -1.)
    room, speed = torch.where(w > 0, t, 1 - t), torch.ones_like(w) if norm == "linf" else w.abs()
    by = lambda l: torch.minimum(l * speed, room) * (w != 0)
    moving = w != 0
    low, high = 0., float((room / speed)[moving].max()) if moving.any() else 0.
    for _ in range(300):
        middle = (low + high) / 2
        if (w.abs() * by(middle)).sum() < residual.abs(): low = middle
        else: high = middle
    return -w.sign() * by(high)


def cases(d=37):
    """A point, weights, and the plane's place: a share of the way to the box's lowest corner, or (below 0) to its highest."""
    for share in [.02, .3, .7, .97, -.02, -.3, -.7, -.97, 1.5, -1.5, 0.]:
        yield torch.rand(d), torch.randn(d), share
    edges = torch.rand(d); edges[::3] = 0; edges[1::3] = 1
    yield edges, torch.randn(d), .5
    sparse = torch.randn(d); sparse[::2] = 0
    yield torch.rand(d), sparse, -.4
    yield torch.rand(d), torch.randn(d) * 1e-6, .2
    yield torch.rand(d), torch.randn(d) * 1e6, .2
    yield torch.rand(d), torch.randn(d) * torch.logspace(-6, 0, d), -.6
    one = torch.zeros(d); one[5] = -2.
    yield torch.rand(d), one, .5
    yield torch.rand(d), torch.zeros(d), None  # no plane: the change is zero


points, weights, offsets = [], [], []
for t, w, share in cases():
    t, w = single(t), single(w)
    here = (w * t).sum()
    if share is None: b = torch.tensor(.3)
    else:
        lowest, highest = w.clamp(max=0).sum(), w.clamp(min=0).sum()
        b = here + (lowest - here) * share if share >= 0 else here + (highest - here) * -share
    points.append(t); weights.append(w); offsets.append(b)
t, w, b = torch.stack(points), torch.stack(weights), torch.stack(offsets)
residual = single((w * t).sum(1) - b)
b = (w * t).sum(1) - residual
each = lambda norm: torch.stack([shift(*case, norm) for case in zip(t, w, b)])
write("fab_projection", {"points": t, "weights": w, "offsets": b, "residuals": residual, "linf": each("linf"), "l2": each("l2")})


# 2. Square (Andriushchenko et al. 2020, section 3; AutoAttack's square.py). A shape with different sides, so that mixed-up axes are detected.
C, H, W, EPS = A.channels, A.size, A.size - 3, {"linf": .05, "l2": .5}
N, QUERIES, P_INIT = 2, 5000, .8
x = single(network.images(N, C, A.size)[..., :W])
sign = lambda *shape: torch.randint(0, 2, shape).double() * 2 - 1


def share(query):
    """Share of the image in a window. AutoAttack does not rescale the schedule of 10,000 queries; 5,000 queries end within it."""
    return P_INIT / 2 ** sum(query > after for after in (10, 50, 200, 500, 1000, 2000, 4000))


def mound(rows, columns):
    """Sum of concentric squares of height 1 / k ** 2, each larger than the one before."""
    m = torch.zeros(rows, columns)
    for k in range(max(rows // 2, columns // 2) + 1):
        top, left = rows // 2 - k, columns // 2 - k
        m[max(top, 0):top + 2 * k + 1, max(left, 0):left + 2 * k + 1] += 1 / (k + 1) ** 2
    return m / m.norm()


def pattern(s):
    p = torch.cat([mound(s // 2, s), -mound(s - s // 2, s)]) if s > 1 else -torch.ones(1, 1)
    return p / p.norm()


def stretch(delta):
    length = delta.flatten(1).norm(dim=1)[:, None, None, None]
    return (x + delta / (length + 1e-12) * EPS["l2"]).clamp(0, 1)


t = {"images": x, "queries": torch.tensor([0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001, 4000, 4001, QUERIES - 1])}
t["shares"] = torch.tensor([share(q) for q in t["queries"].tolist()])
for s in (1, 2, 3, 5, 8): t[f"pattern.{s}"] = pattern(s)

# Linf: stripes, then +-2 eps in a window, clipped into ball and box.
e = EPS["linf"]; t["linf.start_signs"] = sign(N, C, W)
best = (x + e * t["linf.start_signs"][:, :, None]).clamp(0, 1); t["linf.start"] = best
t["linf.windows"] = torch.tensor([[2, 5, 7], [H - 4, W - 4, 4]])[:N]  # top, left, side
t["linf.signs"] = sign(N, C); moved = best.clone()
for i, (top, left, side) in enumerate(t["linf.windows"].tolist()):
    moved[i, :, top:top + side, left:left + side] += 2 * e * t["linf.signs"][i][:, None, None]
t["linf.next"] = torch.minimum(torch.maximum(moved, x - e), x + e).clamp(0, 1)

# L2: a pattern in each tile, then the update of two windows: apart, overlapping.
e, side = EPS["l2"], min(H, W) // 5
down, across = H // side, W // side
top, left = (H - down * side) // 2, (W - across * side) // 2
t["l2.start_turned"], t["l2.start_signs"] = torch.randint(0, 2, (N, down * across)), sign(N, down * across, C)
delta = torch.zeros_like(x)
for i in range(N):
    for k in range(down * across):
        p = pattern(side); p = p.T if t["l2.start_turned"][i, k] else p
        a, b = top + k // across * side, left + k % across * side
        delta[i, :, a:a + side, b:b + side] += p * t["l2.start_signs"][i, k][:, None, None]
best = stretch(delta); t["l2.start"] = best
t["l2.windows"] = torch.tensor([[[1, 2], [H - 7, W - 6]], [[3, 4], [5, 6]]])  # top and left of the first and the second
t["l2.side"], t["l2.signs"], t["l2.turned"] = torch.tensor([5]), sign(N, C), torch.tensor([0, 1])
delta, s = best - x, 5
for i, ((a, b), (a2, b2)) in enumerate(t["l2.windows"].tolist()):
    d = delta[i]; mask = torch.zeros(1, H, W); mask[:, a:a + s, b:b + s] = 1; mask[:, a2:a2 + s, b2:b2 + s] = 1
    whole, windows = d.norm(), (d * mask).flatten(1).norm(dim=1)[:, None, None]
    old = d[:, a:a + s, b:b + s]; old = old / (1e-12 + old.flatten(1).norm(dim=1)[:, None, None])
    p = pattern(s); p = p.T if t["l2.turned"][i] else p
    new = p * t["l2.signs"][i][:, None, None] + old
    new = new / (1e-12 + new.flatten(1).norm(dim=1)[:, None, None]) * ((e ** 2 - whole ** 2).clamp(min=0) / C + windows ** 2).sqrt()
    d[:, a2:a2 + s, b2:b2 + s] = 0; d[:, a:a + s, b:b + s] = new
t["l2.next"] = stretch(delta)
write("square_step", t, epsilon_linf=EPS["linf"], epsilon_l2=EPS["l2"], queries=QUERIES, p_init=P_INIT)
