"""`advcl.evaluate`: figures of the module as it is, with evidence that holds in PyTorch."""
import pathlib

import numpy as np
import pytest
import torch

import advcl
import advcl.evaluation
import advcl.program

RADIUS = 8 / 255


@pytest.fixture
def net(folder):
    return advcl.load(folder / "advcl" / "slf")


def predicted(module, images):
    with torch.no_grad():
        return module(images.float() / 255 if images.dtype == torch.uint8 else images).argmax(1)


@pytest.mark.parametrize("norm, radius", [("linf", "8/255"), ("l2", 0.5)])
def test_figures_are_the_modules_and_examples_are_evidence(net, batch, norm, radius):
    images = batch[0]
    # Labels that the network predicts, but for a few, so that there is something to attack.
    labels = predicted(net, images)
    labels[:5] = (labels[:5] + 1) % 10
    found = advcl.evaluate(net, images, labels, radius=radius, norm=norm, attack="apgd-ce")
    assert torch.equal(found.clean, torch.arange(40) >= 5)
    assert found.clean_accuracy == pytest.approx(35 / 40)
    assert not (found.robust & ~found.clean).any()
    assert int(found.clean.sum() - found.robust.sum()) == len(found.indices) > 0
    assert torch.equal(~found.robust[found.indices], torch.ones(len(found.indices), dtype=torch.bool))
    changes = found.adversarial - images[found.indices].float() / 255
    distances = changes.abs().amax((1, 2, 3)) if norm == "linf" else changes.square().sum((1, 2, 3)).sqrt()
    assert distances.max() <= (RADIUS if norm == "linf" else radius) + 1e-6
    assert 0 <= found.adversarial.min() and found.adversarial.max() <= 1
    assert (predicted(net, found.adversarial) != labels[found.indices]).all()
    assert found.report["threat"]["norm"] == norm


def test_autoattack_leaves_no_more_than_one_of_its_attacks(net, clothes):
    images, labels = clothes[0][:60], clothes[1][:60]
    one, all_four = (advcl.evaluate(net, images, labels, radius="8/255", attack=name) for name in ("apgd-ce", "autoattack"))
    assert torch.equal(one.clean, all_four.clean)
    assert all_four.robust_accuracy <= one.robust_accuracy
    assert [one["attack"] for one in all_four.report["attacked"]["attacks"]] == ["apgd-ce", "apgd-t", "fab-t", "square"]


def test_pgd_alone_leaves_no_examples(net, batch):
    labels = predicted(net, batch[0])
    found = advcl.evaluate(net, *(batch[0], labels.tolist()), radius=RADIUS, attack=None)
    assert len(found.indices) == 0 and found.adversarial.shape == (0, 1, 28, 28)
    assert found.clean_accuracy == 1.0 and found.robust_accuracy < 1.0


def test_the_weights_are_those_of_now_and_the_mode_stays(net, batch):
    images = batch[0]
    before = predicted(net, images)
    with torch.no_grad():
        net.fc.weight.neg_()
    net.train()
    net.layer1.eval()
    found = advcl.evaluate(net, images, before, radius=RADIUS, attack=None)
    assert net.training and not net.layer1.training and net.layer2.training
    net.eval()
    assert torch.equal(found.clean, predicted(net, images) == before)
    assert found.clean_accuracy < 0.5


def test_a_module_that_computes_otherwise_is_refused(net, batch):
    labels = predicted(net, batch[0])
    # As a layer that the weights do not tell of.
    net.maxpool = torch.nn.MaxPool2d(2)
    labels = predicted(net, batch[0])
    with pytest.raises(RuntimeError, match="disagree"):
        advcl.evaluate(net, batch[0], labels, radius=RADIUS, attack=None)


def test_a_normalisation_that_is_not_said_is_refused(net, batch):
    class Inverted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.classes, self.conv1 = net, net.classes, net.conv1

        def forward(self, images):
            return self.net(1 - images)

        def state_dict(self):
            return net.state_dict()

    module = Inverted()
    with pytest.raises(RuntimeError, match="disagree"):
        advcl.evaluate(module, batch[0], predicted(module, batch[0]), radius=RADIUS, attack=None)


def test_a_network_of_torchvision_with_its_normalisation(batch):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    module = torchvision.models.resnet18(num_classes=4)
    module.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    module.maxpool = torch.nn.Identity()
    images = batch[0][:12].repeat(1, 3, 1, 1)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    # A few steps, so that BatchNorm's statistics are those of images.
    normalized = (images.float() / 255 - torch.tensor(mean).reshape(1, 3, 1, 1)) / torch.tensor(std).reshape(1, 3, 1, 1)
    with torch.no_grad():
        for _ in range(20):
            module(normalized)
        module.eval()
        labels = module(normalized).argmax(1)
    found = advcl.evaluate(module, images, labels, radius="2/255", attack="apgd-ce", mean=mean, std=std)
    assert found.clean_accuracy == 1.0
    assert found.report["classes"] == ["0", "1", "2", "3"]
    with pytest.raises(ValueError, match="both mean and std"):
        advcl.evaluate(module, images, labels, radius="2/255", mean=mean)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_numbers_of_other_libraries_are_written_as_the_program_reads_them(kind):
    assert advcl.evaluation._numbers(kind([0.25, 0.5])) == "0.25,0.5"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda images, labels: ((images.float() / 255 - 0.3) / 0.3, labels), "not normalised"),
        (lambda images, labels: (images.float() / 255 + 1e-3, labels), "whole multiples"),
        (lambda images, labels: (images[:, 0], labels), "expected images"),
        (lambda images, labels: (images.long(), labels), "uint8 or float"),
        (lambda images, labels: (images[:0], labels[:0]), "expected images"),
        (lambda images, labels: (images, labels[:3]), "40 labels"),
        (lambda images, labels: (images, labels.float()), "whole numbers"),
        (lambda images, labels: (images, labels + 10), "labels from 0 to 9"),
        (lambda images, labels: (images, labels * 0 + 3), "two classes or more"),
    ],
)
def test_input_that_does_not_fit_is_refused(net, batch, change, words):
    images, labels = change(*batch)
    with pytest.raises(ValueError, match=words):
        advcl.evaluate(net, images, labels, radius=RADIUS)


@pytest.mark.parametrize("arguments, words", [({"radius": "much"}, "radius"), ({"radius": 0.1, "attack": "autoatack"}, "autoattack")])
def test_what_the_program_refuses_is_said_in_its_words(net, batch, arguments, words):
    with pytest.raises(advcl.ProgramError, match=words) as refused:
        advcl.evaluate(net, *batch, **arguments)
    assert refused.value.code == 2


def test_a_program_that_is_not_there(net, batch, monkeypatch):
    monkeypatch.delenv("ADVCL", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(advcl.program.sysconfig, "get_path", lambda name: str(pathlib.Path("nowhere")))
    with pytest.raises(FileNotFoundError, match="pip install advcl"):
        advcl.evaluate(net, *batch, radius=RADIUS)
