import pytest
import torch

from vitrine.attacks import FAB, is_adversarial
from vitrine.attacks.threat import NORMS


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_finds_the_nearest_boundary_of_a_linear_network(norm, linear, images, own_labels, boundary_distances):
    network, pictures = linear(classes=4), images(12, 1, 1, 12, low=0.3, high=0.7).double()
    labels = own_labels(network, pictures)
    ended = FAB(norm=norm, eps=None, steps=30)(network, pictures, labels)
    assert is_adversarial(network, ended, labels).all()
    nearest = boundary_distances(network, pictures, labels, norm)
    found = NORMS[norm].norm(ended - pictures)
    assert (found >= nearest - 1e-9).all()
    assert (found <= nearest * 1.06 + 1e-6).all(), "within the overshoot of 1.05"


def test_images_beyond_the_budget_are_returned_unchanged(linear, images, own_labels):
    network, pictures = linear(classes=4), images(30, 1, 1, 12, low=0.3, high=0.7).double()
    labels = own_labels(network, pictures)
    sizes = NORMS["linf"].norm(FAB(eps=None)(network, pictures, labels) - pictures)
    eps = sizes.median().item()
    ended = FAB(eps=eps)(network, pictures, labels)
    near, far = sizes < eps * 0.99, sizes > eps * 1.06
    assert is_adversarial(network, ended[near], labels[near]).all()
    assert torch.equal(ended[far], pictures[far])


def test_early_stopping_changes_no_outcome(convnet, images, own_labels):
    network, pictures = convnet.double(), images(16, 3, 8, 8).double()
    labels = own_labels(network, pictures)
    success = [
        is_adversarial(
            network, FAB(eps=0.012, steps=20, early_stop=early_stop)(network, pictures, labels), labels
        )
        for early_stop in (True, False)
    ]
    assert torch.equal(*success)
    assert 0 < success[0].sum() < 16


def test_misclassified_images_are_their_own_nearest(convnet, images, own_labels):
    pictures = images(4, 3, 8, 8)
    wrong = (own_labels(convnet, pictures) + 1) % 5
    assert torch.equal(FAB(eps=None, steps=3)(convnet, pictures, wrong), pictures)
