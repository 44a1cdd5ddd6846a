import copy

import pytest
import torch
from torch import nn

from vitrine.attacks import APGD, FAB, AutoAttack, Square, is_adversarial
from vitrine.attacks.folded import folded


@pytest.fixture
def trained(convnet, images):
    """The network with running statistics and a scale that are not those it began with."""
    normalisation = convnet[1]
    normalisation.weight.data = 0.5 + images(6)
    normalisation.bias.data = images(6, seed=1) - 0.5
    for seed in range(3):
        convnet(images(8, 3, 8, 8, seed=seed))
    return convnet


def test_the_double_has_the_networks_logits_and_no_normalisation(trained, images):
    pictures, before = images(6, 3, 8, 8), copy.deepcopy(trained.state_dict())
    double = folded(trained.eval(), pictures)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in double.modules())
    torch.testing.assert_close(double(pictures), trained(pictures), atol=1e-5, rtol=1e-5)
    assert isinstance(trained[1], nn.BatchNorm2d)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


def test_modules_that_are_called_by_keyword_are_folded_too(trained, images):
    class ByKeyword(nn.Sequential):
        def forward(self, x):
            for layer in self:
                x = layer(input=x)
            return x

    pictures = images(6, 3, 8, 8)
    double = folded(ByKeyword(*trained).eval(), pictures)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in double.modules())


class Residual(nn.Module):
    """What the convolution gives goes around the normalisation too, or through it twice."""

    def __init__(self, around: bool):
        super().__init__()
        self.convolution, self.normalisation = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.head, self.around = nn.Linear(3, 4), around
        self.normalisation.running_mean.fill_(0.3)

    def forward(self, x):
        maps = self.convolution(x)
        both = self.normalisation(maps) + (maps if self.around else self.normalisation(x))
        return self.head(both.mean((2, 3)))


class Viewing(nn.Module):
    """Flattens maps by `view`, which wants their channels outermost in memory."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4 * 36, 5)

    def forward(self, x):
        return self.head(self.maps(x).view(len(x), -1))


def test_a_network_that_views_its_maps_is_folded_and_attacked(images, own_labels):
    network, pictures = Viewing().eval(), images(4, 3, 8, 8)
    torch.testing.assert_close(folded(network, pictures)(pictures), network(pictures))
    found = AutoAttack(eps=0.1, steps=2, queries=3)(network, pictures, own_labels(network, pictures))
    assert found.shape == pictures.shape


@pytest.mark.parametrize("around", [True, False])
def test_what_cannot_be_folded_is_left(around, images):
    assert folded(Residual(around).eval(), images(4, 3, 8, 8)) is None


class Again(nn.Module):
    """What is rectified is needed as it was, by the logits or by their gradient alone."""

    def __init__(self, first: bool):
        super().__init__()
        self.convolution, self.normalisation, self.relu = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU()
        self.head, self.first = nn.Linear(3, 4), first

    def forward(self, x):
        maps = self.normalisation(self.convolution(x))
        both = maps * maps + self.relu(maps) if self.first else self.relu(maps) + maps * maps
        return self.head(both.mean((2, 3)))


@pytest.mark.parametrize("first", [True, False, None])
def test_rectifies_in_place_where_nobody_needs_what_was(first, trained, images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, pictures = trained if first is None else Again(first), images(4, 3, 8, 8)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network(pictures)  # so that half of what is rectified is negative
    double = folded(network.eval(), pictures)
    assert [m.inplace for m in double.modules() if isinstance(m, nn.ReLU)] == [first is None]
    one, other = (pictures.clone().requires_grad_() for _ in range(2))
    for pixels, of in ((one, network), (other, double)):
        (of(pixels) * torch.arange(1.0, 1 + of(pixels).shape[1])).sum().backward()
    torch.testing.assert_close(other.grad, one.grad, atol=1e-5, rtol=1e-5)
    assert not any(m.inplace for m in network.modules() if isinstance(m, nn.ReLU))


@pytest.mark.parametrize("attack", [APGD(steps=4), FAB(steps=4, targets=2), Square(queries=5)])
def test_success_is_the_networks_own(attack, trained, images, own_labels):
    class Liar(nn.Module):
        """Takes every image for something else."""

        calls = 0

        def forward(self, x):
            self.calls += 1
            return -trained(x)

    pictures, liar = images(6, 3, 8, 8), Liar()
    labels = own_labels(trained.eval(), pictures)
    before = trained(pictures).gather(1, labels[:, None])
    assert not is_adversarial(trained, pictures, labels).any() and (before > 0).all()
    found = attack(trained, pictures, labels, double=liar)
    own = is_adversarial(trained, found, labels)
    assert not own.all()
    assert liar.calls >= 5, "the search goes on: nothing that the network denies ends it"


def test_verdicts_are_those_without(trained, images, own_labels):
    network, pictures = trained.double(), images(24, 3, 8, 8).double()
    labels = own_labels(network, pictures)
    budget = {"eps": 0.008, "steps": 8, "targets": 2, "queries": 30, "early_stop": True}
    plain, fast = (
        list(AutoAttack(**budget, fold=fold).run(network, pictures, labels))[-1] for fold in (False, True)
    )
    assert 0 < plain.robust.sum() < 24
    assert torch.equal(plain.broken_by, fast.broken_by)
    assert is_adversarial(network, fast.adversarial, labels).sum() == (~fast.robust).sum()


def test_an_image_that_stands_takes_the_standards_passes_and_no_more(linear, images, own_labels):
    class Counting(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network, self.passes = network, 0

        def forward(self, x):
            self.passes += len(x)
            return self.network(x)

    network = Counting(linear(classes=5))
    pictures = images(3, 1, 1, 12).double()
    labels = own_labels(network, pictures)
    reach = AutoAttack(eps=1e-6, steps=7, targets=9, queries=11)
    network.passes = 0
    *_, evaluation = reach.run(network, pictures, labels)
    assert evaluation.robust.all()
    classes, once, judged = 4, 1, 1  # the wrong ones; logits before an attack; its result, by the network
    expected = {
        "clean": judged,
        "apgd-ce": once + 8 + judged,
        "apgd-t": once + classes * (8 + judged) + judged,
        "fab-t": once + classes * 7 * 2 + judged,
        "square": 11 + judged,
    }
    # and one image that shows how many classes, one whether the network writes into it
    assert network.passes == 2 + 3 * sum(expected.values())
