"""Writes the golden vectors of four more pretraining methods (ACL, RoCL, DeACL, DynACL) and of the LARS optimizer, like
make_golden.py: computed by PyTorch in float64, stored as float32. README.md in this folder describes each tensor.

    pip install torch torchvision safetensors
    python make_methods.py OUT_DIR [--seed 0] [--width 8] [--batch 16] [--size 32] [--channels 3]
"""
import functools, math, os
import torch, torch.nn.functional as F
import network
from network import ALPHA, EPS, KS, ROUTES, Encoder, contrastive, freeze_stats, project, randomise, weights

A = network.arguments()
torch.manual_seed(A.seed); torch.set_num_threads(1); torch.set_default_dtype(torch.float64)
write = functools.partial(network.write, A.out)
img = lambda: network.images(A.batch, A.channels, A.size)
noise = lambda eps: (torch.rand(A.batch, A.channels, A.size, A.size) * 2 - 1) * eps
grads = lambda net: {k: p.grad.clone() for k, p in net.named_parameters() if p.grad is not None}
TEMPERATURE, STEPS = .5, 3


def network_of():
    """A network in evaluation mode. Its running statistics are those of a batch: with others, the projections of an
    untrained network are nearly equal, and the attack's loss means little."""
    net = Encoder(A.width, A.channels); randomise(net); freeze_stats(net, 1.)
    with torch.no_grad(): [net.project(net.features(img(), r)) for r in ROUTES]
    return net.eval()


def embed(net, r, *views):
    """Projections of the views as one batch, so in training mode BatchNorm's statistics are those of all views."""
    return list(net.project(net.features(torch.cat(views), r)).chunk(len(views)))


def apart(net, r, *views):
    """Projections of each view as a batch of its own. No released code of ACL and RoCL does so; only losses are stored."""
    with torch.no_grad(): return [embed(net, r, v)[0] for v in views]


def climb(t, objective, starts, originals, eps, alpha):
    """Sign ascent of all views on one objective in STEPS steps; iterate_K.0 is view K's start, grad_K.s the gradient at iterate_K.s."""
    xs = starts; t.update({f"iterate_{k + 1}.0": x for k, x in enumerate(xs)})
    for step in range(STEPS):
        xs = [x.detach().requires_grad_() for x in xs]; gs = torch.autograd.grad(objective(*xs), xs)
        xs = [project(x.detach() + alpha * g.sign(), o, eps) for x, g, o in zip(xs, gs, originals)]
        for k, (x, g) in enumerate(zip(xs, gs)): t[f"grad_{k + 1}.{step}"], t[f"iterate_{k + 1}.{step + 1}"] = g, x
    return xs


# 1. ACL, one step of the dual stream (ACL section 3.2; train_simCLR.py: train, PGD_contrastive). Both views are attacked
# jointly on route pgd, evaluation mode, from a start that is not clamped; each route has one forward pass of both views.
net = network_of(); x1, x2, d1, d2 = img(), img(), noise(EPS), noise(EPS)
t = {"view1": x1, "view2": x2, "start_1": d1, "start_2": d2, **weights(net)}
a1, a2 = climb(t, lambda a, b: contrastive(embed(net, "pgd", a, b), TEMPERATURE), [x1 + d1, x2 + d2], [x1, x2], EPS, ALPHA)
net.train()
clean = contrastive(embed(net, "normal", x1, x2), TEMPERATURE)
adversarial = contrastive(embed(net, "pgd", a1, a2), TEMPERATURE)  # A2A is this alone
loss = (clean + adversarial) / 2; loss.backward()
t.update({"loss.clean": clean.reshape(1), "loss.adversarial": adversarial.reshape(1), "loss.total": loss.reshape(1)})
for name, views in [("adversarial_standard", apart(net, "pgd", a1) + apart(net, "normal", x2)),  # A2S: the other view is clean
                    ("clean_apart", apart(net, "normal", x1, x2)), ("adversarial_apart", apart(net, "pgd", a1, a2))]:
    t["loss." + name] = contrastive(views, TEMPERATURE).reshape(1)
t.update({"grad." + k: g for k, g in grads(net).items()})
write("acl", t, width=A.width, clusters=KS, epsilon=EPS, step_size=ALPHA, steps=STEPS, temperature=TEMPERATURE, base_temperature=.07,
      start_clamped=False, attack_mode="eval", batch_statistics="joint")


# 2. RoCL, one step (RoCL section 3.2; src/loss.py, src/attack_lib.py, src/rocl_train.py)
def nt_xent(views, t, keys=lambda z: z):
    """src/loss.py: summed over an anchor's positives, mean over the anchors, no scale; there `keys` is `detach`."""
    z = torch.cat(views); self_ = torch.eye(len(z), dtype=torch.bool); s = (z @ keys(z).T / t).masked_fill(self_, -math.inf)
    pos = torch.eye(len(views[0]), dtype=torch.bool).repeat(len(views), len(views)) & ~self_
    return -F.log_softmax(s, 1)[pos].sum() / len(z)


EPS_R, ALPHA_R, LAMBDA = .0314, .007, 256
net = network_of(); x1, x2, d1 = img(), img(), noise(EPS_R)
t = {"view1": x1, "view2": x2, "start_1": d1, **weights(net)}
target, = [z.detach() for z in embed(net, "normal", x2)]
towards = lambda x, **how: nt_xent([*embed(net, "normal", x), target], TEMPERATURE, **how)
adv, = climb(t, towards, [(x1 + d1).clamp(0, 1)], [x1], EPS_R, ALPHA_R)
for step in range(STEPS):  # as the released code maximizes it: the second factor of the similarities is a constant
    x = t[f"iterate_1.{step}"].detach().requires_grad_()
    t[f"grad_1_stopped.{step}"], = torch.autograd.grad(towards(x, keys=torch.Tensor.detach), x)
net.train()
for prefix, how in [("grad.", {}), ("grad_stopped.", {"keys": torch.Tensor.detach})]:
    net.zero_grad()
    among = nt_xent(embed(net, "normal", x1, x2, adv), TEMPERATURE, **how)  # src/rocl_train.py: one batch of three views
    to_target = nt_xent(embed(net, "normal", adv, x2), TEMPERATURE, **how)  # src/attack_lib.py: a batch of its own
    loss = among + to_target / LAMBDA; loss.backward()
    t.update({prefix + k: g for k, g in grads(net).items()})
t.update({"loss.contrastive": among.reshape(1), "loss.target": to_target.reshape(1), "loss.total": loss.reshape(1)})
for name, views in [("contrastive_apart", (x1, x2, adv)), ("target_apart", (adv, x2))]:
    t["loss." + name] = nt_xent(apart(net, "normal", *views), TEMPERATURE).reshape(1)
for views, l in [((x1, x2, adv), among), ((adv, x2), to_target)]:  # (views - 1) times `contrastive` without its scale
    torch.testing.assert_close(contrastive(embed(net, "normal", *views), TEMPERATURE, TEMPERATURE) * (len(views) - 1), l)
write("rocl", t, width=A.width, clusters=KS, epsilon=EPS_R, step_size=ALPHA_R, steps=STEPS, temperature=TEMPERATURE,
      base_temperature=TEMPERATURE, positives="sum", route="normal", start_clamped=True, attack_mode="eval", batch_statistics="joint",
      **{"lambda": LAMBDA})

# 3. DeACL's distillation (DeACL section 3; solo/methods/mocov2_distillation_AT.py): gradients flow into both of the student's
# features, in the second term too; none into the teacher's. The attack maximizes the negative mean; the released code 256 times the sum.
teacher = torch.randn(A.batch, 8 * A.width) + .5
clean, adversarial = [(teacher + torch.randn_like(teacher) * s).detach().requires_grad_() for s in (.7, 1.3)]
cos = F.cosine_similarity; towards_teacher, consistent = cos(clean, teacher), cos(adversarial, clean)
loss = -towards_teacher.mean() - 2 * consistent.mean(); gc, ga = torch.autograd.grad(loss, [clean, adversarial])
attack = -cos(adversarial, teacher).mean()
write("deacl", {"student_clean": clean, "student_adversarial": adversarial, "teacher": teacher, "loss": loss.reshape(1),
                "cosine.clean_teacher": towards_teacher, "cosine.adversarial_clean": consistent,
                "cosine.adversarial_teacher": cos(adversarial, teacher),
                "grad.student_clean": gc, "grad.student_adversarial": ga, "attack": attack.reshape(1),
                "attack.grad.student_adversarial": torch.autograd.grad(attack, adversarial)[0]}, robust_weight=2)


# 4. LARS (You, Gitman, Ginsburg 2017, algorithm 1), momentum on the scaled gradient as in torchlars and ACL's optimizer/lars.py
def lars(w, g, v, lr, momentum, decay, trust, adapt):
    """One update of a parameter and its velocity; without `adapt`, plain SGD with momentum and no decay."""
    if adapt:
        wn, gn = w.norm(), g.norm(); ratio = trust * wn / (gn + decay * wn) if wn > 0 and gn > 0 else 1.
        g = ratio * (g + decay * w)
    v = momentum * v + g
    return w - lr * v, v


shapes = {"head_proj.0.weight": (5, 7), "conv1.weight": (3, 2, 3, 3), "head_proj.0.bias": (5,), "bn1.bn_list.0.weight": (4,)}
start = {k: torch.randn(s) * .3 for k, s in shapes.items()}
start["head_proj.0.bias"] *= 0  # no norm: the ratio is 1
start["bn1.bn_list.0.weight"] += 1
steps = [{k: torch.randn(s) * .1 for k, s in shapes.items()} for _ in range(3)]
t = {f"weight.{k}": w for k, w in start.items()}; t.update({f"grad.{s}.{k}": g for s, gs in enumerate(steps) for k, g in gs.items()})
common = dict(lr=1.5, momentum=.9, trust=.001)
for case, decay, everything in [("", 1e-6, False), ("_decayed", .1, False), ("_all", 1e-6, True)]:
    for k, w in start.items():
        v = torch.zeros_like(w)
        for s, gs in enumerate(steps):
            w, v = lars(w, gs[k], v, decay=decay, adapt=everything or w.ndim > 1, **common)
            t[f"updated{case}.{s + 1}.{k}"], t[f"change{case}.{s + 1}.{k}"] = w, w - start[k]
write("lars", t, **common, weight_decay=1e-6, weight_decay_decayed=.1, steps=3)

# 5. DynACL's schedules (DynACL section 4; train_DynACL.py: main, reload, train) and its momentum encoder (models/resnet_multi_bn.py)
t, epochs, periods, reweighting = {}, [100, 70], [5, 20], 2 / 3
for E, K in zip(epochs, periods):
    e = torch.arange(E); strength = 1 - (e // K) * K / E; w = reweighting * (1 - strength)
    late = torch.clamp(1 + ((e + 1) // K) * (K / E) * reweighting, max=2) - 1  # the released code counts epochs from 1 here
    t.update({f"{E}.strength": strength, f"{E}.jitter": .4 * strength, f"{E}.hue": .1 * strength, f"{E}.jitter_probability": .8 * strength,
              f"{E}.grayscale_probability": .2 * strength, f"{E}.crop_scale": 1 - .9 * strength,
              f"{E}.weight.clean": (1 - w) / 2, f"{E}.weight.adversarial": (1 + w) / 2,
              f"{E}.weight_released.clean": (1 - late) / 2, f"{E}.weight_released.adversarial": (1 + late) / 2})
mean = torch.randn(7); t["average.0"] = mean
for s in range(1, 4):
    online = torch.randn(7); mean = .99 * mean + (1 - .99) * online; t[f"online.{s}"], t[f"average.{s}"] = online, mean
write("dynacl", t, epochs=epochs, periods=periods, reweighting=reweighting, jitter=.4, hue=.1, jitter_probability=.8, grayscale_probability=.2,
      crop_range=.9, average_momentum=.99)
print("wrote", sorted(os.listdir(A.out)))
