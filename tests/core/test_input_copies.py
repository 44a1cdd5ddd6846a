"""A network that writes into its input gives what one that does not gives."""

import pytest
import torch
from foreign import Colours
from torch import nn

import vitrine
from vitrine.attacks import APGD, FAB, PGD, AutoAttack, Square, is_adversarial
from vitrine.attacks.patch import Patch
from vitrine.attacks.patchwise import Patchwise
from vitrine.core.input_copies import copied_input


class Scaling(nn.Module):
    def __init__(self, in_place, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.in_place = in_place
        self.maps = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        x = x.sub_(0.5).mul_(4) if self.in_place else (x - 0.5) * 4
        return self.head(self.maps(x).mean((2, 3)))


@pytest.mark.slow
def test_pictures_and_numbers_are_the_same(tmp_path):
    found = []
    for in_place in (False, True):
        techniques = ["cam", "saliency", "adversarial", "examples", "unit_saliency"]
        folder = tmp_path / str(in_place)
        report = vitrine.look(Scaling(in_place), Colours(6), folder, analyses=techniques, units=1, probes=2)
        assert not report.errors
        found.append(
            {
                name: ([(figure.key, figure.image) for figure in result.figures], list(result.scalars))
                for name, result in report.results.items()
            }
        )
    assert found[0].keys() == found[1].keys()
    for name, (figures, scalars) in found[0].items():
        assert figures, name
        assert scalars == found[1][name][1], name
        for (key, image), (other, again) in zip(figures, found[1][name][0], strict=True):
            assert key == other and torch.equal(image, again), (name, key)


@pytest.mark.parametrize(
    "attack", [PGD(), APGD(steps=5), FAB(steps=3), Square(queries=5), AutoAttack(steps=2, queries=3)]
)
def test_attacks_find_the_same_and_leave_images_and_network_as_they_were(attack):
    images, labels = torch.rand(3, 3, 16, 16), torch.tensor([0, 1, 2])
    before, network, other = images.clone(), Scaling(True, 4).eval(), Scaling(False, 4).eval()
    found = attack(network, images, labels)
    assert torch.equal(images, before) and torch.equal(found, attack(other, images, labels))
    expected = is_adversarial(other, images, labels)
    assert torch.equal(is_adversarial(network, images, labels), expected) and torch.equal(images, before)
    assert not network._forward_pre_hooks


def test_a_search_of_what_a_square_changes_leaves_images_and_squares_as_they_were():
    images, labels = torch.rand(20, 3, 16, 16), torch.arange(20) % 4
    attack, before, found = AutoAttack(eps=1e-3, steps=1, queries=40), images.clone(), []
    squares = Patch(torch.rand(20, 3, 3, 3), torch.arange(20) % 14, torch.arange(20) % 13)
    for in_place in (True, False):
        network = Scaling(in_place, 4).eval()
        network.maps.insert(1, nn.BatchNorm2d(4).eval())  # which the search folds
        labels = network(images.clone()).argmax(1)
        found.append(attack(network, images, labels))
        with copied_input(network, images[:1]), torch.no_grad():
            expected, values = network(squares.on(images)), squares.values.clone()
            if (patchwise := Patchwise.of(network, images)) is not None:
                torch.testing.assert_close(patchwise(images, squares), expected)
        assert torch.equal(images, before) and torch.equal(squares.values, values)
    assert torch.equal(*found)


def test_other_networks_get_their_input_itself():
    network, images, given = Scaling(False), torch.rand(2, 3, 8, 8), []
    with copied_input(network, images):
        network.register_forward_pre_hook(lambda _, args: given.append(args[0]))
        network(images)
    assert given[0] is images
