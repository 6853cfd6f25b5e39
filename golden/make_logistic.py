"""Minima of multinomial logistic regression by scikit-learn: golden/logistic/minima.safetensors.

    pip install numpy safetensors scikit-learn   # made with scikit-learn 1.9.1
    python golden/make_logistic.py

Features are centred and divided by the root of their mean variance before the L2 penalty counts, so that a strength
lambda is C = scale^2 / (images * lambda) of scikit-learn on the features as they are, with scale the inverse of that root.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight

rng = np.random.default_rng(7)
counts = [30, 20, 6]
labels = np.repeat(np.arange(3), counts)
centres = rng.normal(size=(3, 7))
features = centres[labels] + 1.5 * rng.normal(size=(len(labels), 7))
# Of very different sizes, and none around zero.
features = (features * 10.0 ** rng.uniform(-1, 1, size=7) + 3).astype(np.float32)
strengths = [1e-4, 1e-2, 1.0]

double = features.astype(np.float64)
scale = 1 / np.sqrt(double.var(axis=0).mean())
out = {"features": features, "labels": labels, "strengths": np.array(strengths)}
for kind, weight in [("alike", None), ("balanced", "balanced")]:
    out[f"{kind}.weights"] = compute_class_weight(weight, classes=np.arange(3), y=labels)
    for index, strength in enumerate(strengths):
        c = scale**2 / (len(labels) * strength)
        # On centred features, where it converges; the bias is moved back.
        mean = double.mean(axis=0)
        model = LogisticRegression(C=c, class_weight=weight, tol=1e-12, max_iter=100_000, solver="newton-cg")
        model.fit(double - mean, labels)
        out[f"{kind}.{index}.weight"] = model.coef_
        bias = model.intercept_ - model.coef_ @ mean
        out[f"{kind}.{index}.bias"] = bias
out = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in out.items()}
folder = Path(__file__).parent / "logistic"
folder.mkdir(exist_ok=True)
save_file(out, folder / "minima.safetensors", {"check": "logistic"})
