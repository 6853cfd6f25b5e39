"""A tiny run of the program, made once, and images to classify."""
import gzip
import pathlib

import numpy as np
import pytest
import torch

from advcl.program import run

CLASSES = 10


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The run folder of the recipe `smoke`."""
    folder = tmp_path_factory.mktemp("run") / "smoke"
    run("run", "smoke", "--run", folder, "--quiet")
    return folder


@pytest.fixture(scope="session")
def batch():
    """Images of light and dark squares, uint8 [40, 1, 28, 28], with labels that are as good as random."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (40, 1, 7, 7), dtype=np.uint8)
    images = coarse.repeat(4, 2).repeat(4, 3)
    return torch.from_numpy(images), torch.from_numpy(rng.integers(0, CLASSES, 40))


@pytest.fixture(scope="session")
def clothes():
    """Test images of the program's own data set, where the repository is there: uint8 [200, 1, 28, 28], and labels."""
    data = pathlib.Path(__file__).resolve().parents[2] / "data" / "fashion-mnist-12k"
    if not data.is_dir():
        pytest.skip("the images are in the repository")
    read = lambda name: np.frombuffer(gzip.decompress((data / name).read_bytes()), np.uint8)  # noqa: E731
    images = read("t10k-images-idx3-ubyte.gz")[16:].reshape(-1, 1, 28, 28)[:200]
    labels = read("t10k-labels-idx1-ubyte.gz")[8:][:200]
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))
