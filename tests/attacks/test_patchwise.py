import pytest
import torch
from torch import nn

from vitrine.attacks import Square, is_adversarial
from vitrine.attacks.folded import folded
from vitrine.attacks.patch import Patch
from vitrine.attacks.patchwise import Patchwise


class Branches(nn.Module):
    """Strides, a maximum, a residual block and a shortcut, as in residual networks."""

    def __init__(self, late: bool = False):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 5, 2, 2, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.first = nn.Sequential(
            nn.Conv2d(4, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1)
        )
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1, groups=2))
        self.shortcut = nn.Conv2d(4, 6, 1, 2)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.pool(self.stem(x))
        x = torch.relu(self.first(x) + x)
        x = torch.relu(self.shortcut(x) + self.second(x))
        return self.head(x.mean((2, 3)))


class Global(nn.Module):
    """The first layer divides by the mean of the whole image: nothing is local."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x / x.mean((1, 2, 3), keepdim=True))).mean((2, 3)))


class Undecided(nn.Module):
    """Looks at its input, which no graph of it can."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)) * (2 if x.sum() > 1 else 1))


@pytest.fixture
def build():
    """build(kind) is a network in float64 and eval mode, its weights seeded."""

    def make(kind):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return kind().double().eval().requires_grad_(False)

    return make


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 2)])
def test_logits_are_the_networks_wherever_the_patch_is(size, build, images):
    network = build(Branches)
    pictures = images(9, 3, 48, 64).double()
    passes = Patchwise.of(network, pictures[:2])
    computed = []
    for layer in (network.stem[0], network.first[3]):
        layer.register_forward_hook(lambda *_: computed.append(1))
    corners = torch.cartesian_prod(*(torch.tensor([0, (n - s) // 2, n - s]) for n, s in zip((48, 64), size)))
    for seed, kept in enumerate(([0, 4], [], list(range(9)), [8])):
        patch = Patch(images(9, 3, *size, seed=seed).double(), *corners.roll(seed, 0).T)
        whole = pictures.clone()
        for image, values, (top, left) in zip(whole, patch.values, corners.roll(seed, 0)):
            image[:, top : top + size[0], left : left + size[1]] = values
        computed.clear()
        torch.testing.assert_close(passes(pictures, patch), network(whole), atol=1e-12, rtol=0)
        assert len(computed) == (4 if seed == 0 else 2), "whole maps once for memory, and by the comparison"
        pictures[kept] = whole[kept]
        passes.keep(torch.tensor(kept, dtype=torch.int64))


def test_what_depends_on_the_whole_image_is_computed_of_it(build, images):
    network, pictures = build(Global), images(2, 3, 24, 24, seed=1).double()
    patch = Patch(torch.ones(2, 3, 2, 2).double(), torch.tensor([0, 5]), torch.tensor([3, 22]))
    passes = Patchwise.of(network, images(2, 3, 24, 24).double())
    torch.testing.assert_close(passes(pictures, patch), network(patch.on(pictures)))


def test_a_network_that_cannot_be_followed_is_left(build, images):
    assert Patchwise.of(build(Undecided), images(2, 3, 24, 24).double()) is None


@pytest.mark.slow
def test_square_finds_the_same_images(build, images, own_labels, monkeypatch):
    network, pictures = build(Branches), images(18, 3, 48, 48).double()
    network.head.bias -= network(pictures).mean(0)  # no class is everybody's
    labels = own_labels(network, pictures)
    double, attack = folded(network, pictures), Square(eps=0.002, queries=300)
    asked = []
    monkeypatch.setattr(Patchwise, "__call__", _counted(Patchwise.__call__, asked))
    found = attack(network, pictures, labels, double=double)
    assert asked
    monkeypatch.setattr(Patchwise, "of", lambda *_: None)
    assert torch.equal(found, attack(network, pictures, labels, double=double))
    assert 0 < is_adversarial(network, found, labels).sum() < 18


def _counted(function, calls):
    def call(*arguments, **keywords):
        calls.append(1)
        return function(*arguments, **keywords)

    return call
