import pytest
import torch
from torch import nn

from vitrine.attacks import APGD, BIM, FGSM, PGD, is_adversarial
from vitrine.attacks.apgd import checkpoints


def test_checkpoints_are_the_papers():
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_reaches_the_closed_form_on_a_linear_network(norm, linear, images, own_labels):
    network, pictures = linear(), images(8, 1, 1, 12, low=0.3, high=0.7).double()
    labels, eps = own_labels(network, pictures), 0.02
    ended = APGD(norm=norm, eps=eps, early_stop=False)(network, pictures, labels)
    weight = network[1].weight
    w = (weight[1 - labels] - weight[labels]).view(pictures.shape)
    unit = w.sign() if norm == "linf" else w / w.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    stands = ~is_adversarial(network, ended, labels)  # the others are as they last were adversarial
    assert stands.sum() >= 3
    torch.testing.assert_close(ended[stands], (pictures + eps * unit)[stands].detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr-targeted", "margin"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_loss_breaks_what_the_margin_allows(loss, norm, linear, images, own_labels, boundary_distances):
    network, pictures = linear(classes=5), images(40, 1, 1, 12, low=0.3, high=0.7).double()
    labels, eps = own_labels(network, pictures), {"linf": 0.05, "l2": 0.15}[norm]
    ended = APGD(norm=norm, eps=eps, loss=loss, targets=4)(network, pictures, labels)
    success = is_adversarial(network, ended, labels)
    reach = boundary_distances(network, pictures, labels, norm)
    assert not success[reach > eps].any()
    if loss == "dlr-targeted":  # every class is tried
        assert success[reach < eps * 0.99].all()
    assert success.sum() >= 0.8 * (reach < eps).sum() > 5


def test_targeted_means_taken_for_the_label(linear, images, own_labels):
    network, pictures = linear(classes=5), images(20, 1, 1, 12, low=0.3, high=0.7).double()
    targets = (own_labels(network, pictures) + 1) % 5
    for loss in ("ce", "dlr"):
        ended = APGD(eps=0.25, targeted=True, loss=loss, steps=50)(network, pictures, targets)
        assert is_adversarial(network, ended, targets, targeted=True).float().mean() > 0.8


def test_too_few_classes_are_refused(linear, images):
    pictures, labels = images(2, 1, 1, 12).double(), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="2 classes, the loss dlr needs 3"):
        APGD(loss="dlr")(linear(2), pictures, labels)
    with pytest.raises(ValueError, match="3 classes, the loss dlr-targeted needs 4"):
        APGD(loss="dlr-targeted")(linear(3), pictures, labels)
    for attack in (FGSM, BIM, PGD):
        with pytest.raises(ValueError, match="2 classes, the loss dlr needs 3"):
            attack(loss="dlr")(linear(2), pictures, labels)


def test_early_stopping_changes_no_outcome(convnet, images, own_labels):
    network, pictures = convnet.double(), images(16, 3, 8, 8).double()
    labels = own_labels(network, pictures)
    success = [
        is_adversarial(
            network, APGD(eps=0.012, steps=20, early_stop=early_stop)(network, pictures, labels), labels
        )
        for early_stop in (True, False)
    ]
    assert torch.equal(*success)
    assert 0 < success[0].sum() < 16


def test_mean_gradients_see_through_a_networks_own_noise(images):
    class Noisy(nn.Module):
        def forward(self, x):
            total = (x.flatten(1) + 0.3 * torch.randn(x.flatten(1).shape)).sum(1, keepdim=True) - 6
            return torch.cat([total, -total], 1)

    pictures = images(8, 1, 1, 12, low=0.48, high=0.5)
    labels = torch.ones(8, dtype=torch.int64)
    network, random = Noisy(), torch.get_rng_state()
    ended = APGD(eps=0.2, steps=10, draws=8, early_stop=False)(network, pictures, labels)
    assert torch.equal(random, torch.get_rng_state())
    assert (ended - pictures).sum() > 8 * 12 * 0.15


def test_a_success_that_bfloat16_rounds_away_is_found(images):
    class Close(nn.Module):
        """Two logits of nearly 100, where bfloat16 tells halves apart; an image falls by less."""

        def forward(self, x):
            difference = (x - 0.5).mean((1, 2, 3))
            logits = torch.stack([-difference, difference], 1) + 100
            return logits.bfloat16() if torch.is_autocast_enabled("cpu") else logits

    network, pictures = Close(), images(6, 1, 2, 2, low=0.42, high=0.45)
    labels = torch.zeros(6, dtype=torch.int64)
    found = APGD(eps=0.1, steps=6, precision="bf16-mixed")(network, pictures, labels)
    assert is_adversarial(network, found, labels).all()
