"""Writes the golden vectors of Auto-PGD's deterministic parts (Croce and Hein, ICML 2020), like make_golden.py: computed by
PyTorch in float64, stored as float32. README.md in this folder describes each tensor.

    pip install torch safetensors
    python make_attacks.py OUT_DIR [--seed 0] [--check]

--check compares the loop below with the released code (pip install pyautoattack): the same start must give the same iterates.
"""
import functools, math, sys
import torch, torch.nn.functional as F
import network

CHECK = "--check" in sys.argv and not sys.argv.remove("--check")
A = network.arguments(); torch.manual_seed(A.seed); torch.set_num_threads(1)
ITERATIONS, RHO, CLASSES, SHAPE, IMAGES = 100, .75, 5, (1, 2, 4), 4
RADII = {"linf": .15, "l2": .5}


def checkpoints(n):
    """Iterations after which the step sizes are checked: p_1 = .22, p_{j+1} = p_j + max(p_j - p_{j-1} - .03, .06), in whole iterations."""
    wait, least, less = (max(int(share * n), 1) for share in (.22, .06, .03))
    found, at = [], wait
    while at <= n: found.append(at); wait = max(wait - less, least); at += wait
    return found


# ---------------------------------------------------------------- a smooth classifier: linear plus a paraboloid for each class
def model_of(dtype):
    g = torch.Generator().manual_seed(A.seed + 1); d = math.prod(SHAPE)
    draw = lambda *s: torch.randn(*s, generator=g, dtype=torch.float64)
    p = {"weight": draw(CLASSES, d), "bias": draw(CLASSES) * .3, "bowl": draw(CLASSES, d) * 2, "centre": .5 + draw(CLASSES, d) * .1}
    p = {k: v.float().to(dtype) for k, v in p.items()}  # the stored values are used
    def logits(x):
        x = x.flatten(1); away = x[:, None] - p["centre"]
        return x @ p["weight"].T + p["bias"] + (p["bowl"] * away ** 2).sum(2)
    return p, logits


# ---------------------------------------------------------------- losses, one value for each image
def dlr(z, y):
    s = z.sort(1)[0]; own = z.gather(1, y[:, None])[:, 0]; first = z.argmax(1) == y
    return -(own - torch.where(first, s[:, -2], s[:, -1])) / (s[:, -1] - s[:, -3] + 1e-12)


def dlr_targeted(z, y, t):
    s = z.sort(1)[0]; own, other = (z.gather(1, c[:, None])[:, 0] for c in (y, t))
    return -(own - other) / (s[:, -1] - (s[:, -3] + s[:, -4]) / 2 + 1e-12)


ce = functools.partial(F.cross_entropy, reduction="none")


# ---------------------------------------------------------------- Auto-PGD
col = lambda v: v[:, None, None, None]
length = lambda v: col((v ** 2).flatten(1).sum(1).sqrt())
unit = lambda v: v / (length(v) + 1e-12)


def project(x, x0, eps, norm):
    if norm == "linf": return torch.min(torch.max(x, x0 - eps), x0 + eps).clamp(0, 1)
    return (x0 + unit(x - x0) * length(x - x0).clamp_max(eps)).clamp(0, 1)


def apgd(loss, x0, start, eps, norm, exact=False):
    """Every iterate with its gradient and loss, every step size, and the best points; misclassified images are attacked further.
    The stored values are used: unless `exact`, points and losses are rounded to float32 before any decision that depends on them."""
    kept = (lambda v: v) if exact else (lambda v: v.float().double())
    def look(x):
        x = x.detach().requires_grad_(); each = loss(x)
        value, g = kept(each.detach()), torch.autograd.grad(each.sum(), x)[0]
        return value, g if exact else g * (length(g) > 1e-10)  # DLR is constant where the label is third: the gradient is a rounding error
    x = old = best = kept(start); value, g = look(x); top, g_best = value, g
    step = torch.full_like(value, 2 * eps); halved = torch.ones_like(value, dtype=torch.bool); top_then = top
    last, rises, since = torch.zeros_like(value), torch.zeros_like(value), 0  # the released code compares the first step with 0
    trace = {"iterate": [x], "gradient": [g], "loss": [value], "best_loss": [top], "step": [step]}
    for i in range(ITERATIONS):
        to = g.sign() if norm == "linf" else unit(g)
        ahead = project(x + col(step) * to, x0, eps, norm)
        a = .75 if i else 1.
        old, x = x, kept(project(x + (ahead - x) * a + (x - old) * (1 - a), x0, eps, norm)); value, g = look(x)
        trace["iterate"].append(x); trace["gradient"].append(g)
        rises, last, since = rises + (value > last), value, since + 1
        higher = value > top
        best, g_best, top = torch.where(col(higher), x, best), torch.where(col(higher), g, g_best), torch.where(higher, value, top)
        if i + 1 in checkpoints(ITERATIONS):
            halved = (rises <= RHO * since) | ~halved & (top_then >= top)
            top_then, rises, since = top, torch.zeros_like(value), 0
            step = torch.where(halved, step / 2, step)
            x, g = torch.where(col(halved), best, x), torch.where(col(halved), g_best, g)
        for k, v in [("loss", value), ("best_loss", top), ("step", step)]: trace[k].append(v)
    return {**{k: torch.stack(v) for k, v in trace.items()}, "best": best}


# ---------------------------------------------------------------- the file
x0 = torch.rand(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(A.seed)).double()
x0[0] *= .1; x0[1] = 1 - x0[1] * .1  # two images at the edge of the box
x0 = x0.float().double()
noise = {"linf": torch.rand(IMAGES, *SHAPE) * 2 - 1, "l2": torch.randn(IMAGES, *SHAPE)}
noise = {k: (v / v.abs().amax((1, 2, 3), keepdim=True) if k == "linf" else v / length(v)).double() for k, v in noise.items()}
start = {k: (x0 + eps * noise[k]).clamp(0, 1) for k, eps in RADII.items()}
p, logits = model_of(torch.float64); order = logits(x0).argsort(1, descending=True); y, t = order[:, 0], order[:, 2]
losses = {"ce": lambda x: ce(logits(x), y), "dlr": lambda x: dlr(logits(x), y), "dlr_targeted": lambda x: dlr_targeted(logits(x), y, t)}
tensors = {"images": x0, "labels": y, "targets": t, "logits": logits(x0), **{f"model.{k}": v for k, v in p.items()}}
for norm, eps in RADII.items():
    for name, loss in losses.items():
        tensors.update({f"{norm}.{name}.{k}": v for k, v in apgd(loss, x0, start[norm], eps, norm).items()})
for n in (1, 7, 10, 20, 50, 100, 333, 1000): tensors[f"checkpoints.{n}"] = torch.tensor(checkpoints(n))
for k, v in tensors.items():
    if k.endswith(".step"): print(k, "halvings", [len(set(c.tolist())) - 1 for c in v.T])
network.write(A.out, "apgd", tensors, iterations=ITERATIONS, rho=RHO, epsilon_linf=RADII["linf"], epsilon_l2=RADII["l2"])

if CHECK:
    import logging
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    torch.set_default_dtype(torch.float64); seen = []
    def watched(x): seen.append(x.detach().clone()); return logits(x)
    for norm, eps in RADII.items():
        for name, loss in losses.items():
            kind = APGDAttack_targeted if name == "dlr_targeted" else functools.partial(APGDAttack, loss=name)
            attack = kind(watched, n_iter=ITERATIONS, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, device="cpu", logger=logging.getLogger())
            attack.init_hyperparam(x0); attack.y_target = t; seen.clear()
            attack.attack_single_run(x0, y, x_init=start[norm])
            ours = apgd(loss, x0, start[norm], eps, norm, exact=True)["iterate"]
            apart = (torch.stack(seen) - ours).abs().max().item()
            print(norm, name, "largest distance from the released code's iterates:", apart); assert apart < 1e-9
