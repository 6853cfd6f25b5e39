"""`advcl.load`: the module computes what the program computes."""
import json
import struct
import zlib

import pytest
import torch

import advcl
from advcl.program import run


def png(image):
    """A gray image as PNG."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = image.shape
    rows = b"".join(b"\0" + bytes(row.tolist()) for row in image)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("row", ["simclr/slf", "advcl/slf"])
def test_logits_are_the_programs(folder, batch, tmp_path, row):
    images = batch[0][:5]
    for index, image in enumerate(images):
        (tmp_path / f"{index}.png").write_bytes(png(image[0]))
    printed = run("predict", folder / row, *(tmp_path / f"{index}.png" for index in range(5)), "--json")
    net = advcl.load(folder / row)
    expected = [{one["class"]: one["logit"] for one in image["classes"]} for image in json.loads(printed)]
    expected = torch.tensor([[image[name] for name in net.classes] for image in expected])
    with torch.no_grad():
        found = net(images.float() / 255)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_what_a_network_says_of_itself(folder):
    net = advcl.load(folder / "advcl" / "slf" / "model.safetensors")
    assert (net.image_size, net.channels, net.norm) == ((28, 28), 1, "linf")
    assert net.radius == "0.1" or net.radius is None  # None before Python 3.11
    assert len(net.classes) == 10 and not net.training


def test_a_network_can_be_trained(folder, batch):
    net = advcl.load(folder / "advcl" / "slf").train()
    loss = torch.nn.functional.cross_entropy(net(batch[0].float() / 255), batch[1])
    loss.backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters())


def test_an_encoder_alone_has_features_and_no_logits(folder, batch):
    net = advcl.load(folder / "advcl")
    images = batch[0][:2].float() / 255
    assert net.features(images).shape == (2, 32)
    with pytest.raises(ValueError, match="no classifier"):
        net(images)


def test_other_files_are_refused(folder, tmp_path):
    exported = tmp_path / "weights.safetensors"
    run("export", folder / "advcl" / "slf", "--format", "torchvision", "-o", exported, "--quiet")
    with pytest.raises(ValueError, match="no model file of advcl"):
        advcl.load(exported)
    with pytest.raises(FileNotFoundError):
        advcl.load(tmp_path / "nothing.safetensors")
