"""Holds our randomised smoothing against a published implementation: the Adversarial Robustness Toolbox's, after Cohen et al. (2019).

    pip install adversarial-robustness-toolbox==1.20.1 statsmodels onnxruntime
    advcl evaluate RUN --method METHOD --mode MODE --measure smoothing
    python scripts/check_smoothing.py ADVCL RUN METHOD MODE [--images 20]

First, on the same counts. For every image the program keeps the votes that chose its class and the number of samples that were classified as that
class. The toolbox's `certify` gets these counts in the place of its own. Classes and abstentions must be the same, and radii within 1e-6 pixels.

Then, on the same weights and images: the toolbox draws its own noise with NumPy, and onnxruntime classifies with the exported model. The numbers
of hits of an image are two draws from one binomial distribution. Their difference, in its standard deviations, must be like a normal number:
below 5 everywhere, and its mean square over the images that are not certain below 2. This needs the embedded test images, all of them
(no data.test_limit, or 2000), so that an index means the same image to both; other runs are checked by their counts alone.

Ends with 1 where something differs.
"""
import argparse
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import tomllib
import warnings

import numpy as np
import onnxruntime

warnings.simplefilter("ignore")  # The toolbox tells of frameworks that are not here.
from art.estimators.certification.randomized_smoothing.randomized_smoothing import RandomizedSmoothingMixin  # noqa: E402

TOLERANCE = 1e-6
ROOT = pathlib.Path(__file__).resolve().parent.parent
EMBEDDED = "fashion-mnist-12k"


class Counted(RandomizedSmoothingMixin):
    """The published algorithm, given our counts: those that choose the class, then those of the certificate."""

    _fit_classifier = _predict_classifier = None

    def __init__(self, settings):
        super().__init__(sample_size=settings["selection"], scale=float(settings["sigma"]), alpha=settings["alpha"])
        self.left = []

    def _prediction_counts(self, x, n=None, batch_size=128):
        return self.left.pop(0)


class Exported(RandomizedSmoothingMixin):
    """The published algorithm on the exported model; keeps its counts."""

    _fit_classifier = None

    def __init__(self, settings, file):
        super().__init__(sample_size=settings["selection"], scale=float(settings["sigma"]), alpha=settings["alpha"])
        self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.counts = []

    def _predict_classifier(self, x, batch_size, training_mode, **rest):
        name = self.session.get_inputs()[0].name
        parts = [self.session.run(None, {name: x[at:at + batch_size]})[0] for at in range(0, len(x), batch_size)]
        return np.concatenate(parts)

    def _prediction_counts(self, x, n=None, batch_size=128):
        self.counts.append(super()._prediction_counts(x, n, batch_size))
        return self.counts[-1]


def dense(counts):
    """Counts of all labels up to the largest."""
    values = np.zeros(max(label for label, _ in counts) + 1)
    for label, count in counts:
        values[label] = count
    return values


def check_counts(smoothing):
    """Number of images of which the published algorithm, on our counts, says something else."""
    settings, wrong, farthest = smoothing["settings"], 0, 0.0
    peer = Counted(settings)
    for own in smoothing["certificates"]:
        peer.left = [dense(own["votes"]), dense([(own["class"], own["hits"])])]
        whole = sum(count for _, count in own["votes"]) == settings["selection"]
        (label,), (radius,) = peer.certify(np.zeros((1, 1)), n=settings["samples"])
        expected = (own["class"], own["radius"]) if own["radius"] is not None else (-1, 0.0)
        farthest = max(farthest, abs(radius - expected[1]))
        if label != expected[0] or abs(radius - expected[1]) > TOLERANCE or not whole:
            wrong += 1
            print(f"    {own}: {label}, {radius}")
    abstained = sum(own["radius"] is None for own in smoothing["certificates"])
    print(f"same counts: {len(smoothing['certificates'])} images, sigma {settings['sigma']}, {settings['samples']} samples, {abstained} abstained; "
          f"largest difference of radii {farthest:.1e}; {wrong} differ")
    return wrong


def test_images(recipe):
    """The embedded test images in [0, 1]; none where an index of the run may mean another image."""
    data = recipe["data"]
    if data["source"] != EMBEDDED or data.get("test_limit", 2000) != 2000 or recipe["evaluate"]["split"] != "test" or "downstream" in recipe:
        return None
    file = next((ROOT / "data" / EMBEDDED).glob("t10k-images*"))
    raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    height, width = np.frombuffer(raw[8:16], ">u4")
    return np.frombuffer(raw[16:], np.uint8).reshape(-1, 1, height, width).astype(np.float32) / np.float32(255)


def check_weights(smoothing, images, file, count):
    """Number of ways in which the published algorithm, on the same weights and images, finds something else."""
    settings = smoothing["settings"]
    peer, samples = Exported(settings, file), settings["samples"]
    np.random.seed(0)
    gaps, certified, chosen = [], [], 0
    for own in smoothing["certificates"][:count]:
        peer.counts.clear()
        (label,), (radius,) = peer.certify(images[own["image"]][None], n=samples, batch_size=250)
        # Hits of our class among their samples: comparable also where their votes chose another one.
        hits = [own["hits"], peer.counts[1][own["class"]]]
        share = sum(hits) / (2 * samples)
        if 0.01 < share < 0.99:
            gaps.append((hits[0] - hits[1]) / np.sqrt(2 * samples * share * (1 - share)))
        chosen += int(np.argmax(peer.counts[0]) == own["class"])
        certified.append((own["radius"] or 0.0, radius))
    gaps, certified = np.array(gaps), np.array(certified)
    most, square = (np.abs(gaps).max(), (gaps**2).mean()) if len(gaps) else (0.0, 0.0)
    wrong = int(most >= 5) + int(square >= 2)
    print(f"same weights: {len(certified)} images; the same class chosen for {chosen}; of {len(gaps)} that are not certain, difference of hits up to "
          f"{most:.1f} deviations, mean square {square:.2f}; mean radius {certified[:, 0].mean():.4f}, theirs {certified[:, 1].mean():.4f}"
          f"{'; DIFFERS' if wrong else ''}")
    return wrong


def main():
    parser = argparse.ArgumentParser()
    for name in ("advcl", "run"):
        parser.add_argument(name, type=pathlib.Path)
    for name in ("method", "mode"):
        parser.add_argument(name)
    parser.add_argument("--images", type=int, default=20, help="for the check on the same weights")
    asked = parser.parse_args()
    row = asked.run / asked.method / asked.mode
    results = json.loads((row / "measures.json").read_text())["results"]
    found = [result["smoothing"] for result in results if result["measure"] == "smoothing"]
    if not found:
        sys.exit(f"no certificates in {row}: expected those of `advcl evaluate {asked.run} --measure smoothing`")
    wrong = sum(check_counts(one) for one in found)
    images = test_images(tomllib.loads((asked.run / "recipe.toml").read_text()))
    if images is None:
        print("same weights: not checked, since the run's test images are not all of the embedded ones")
        return 1 if wrong else 0
    # A supervised method's model is whole: it has no folder for its classifier.
    model = next(path for path in (row / "model.safetensors", asked.run / asked.method / "model.safetensors") if path.is_file())
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.onnx"
        subprocess.run([asked.advcl, "export", model, "--format", "onnx", "-o", file, "--quiet"], check=True)
        wrong += sum(check_weights(one, images, file, asked.images) for one in found)
    return 1 if wrong else 0


sys.exit(main())
