import math

import pytest
import torch
from torch import nn

from vitrine.attacks import APGD, EOT, PGD, destruction_rate, is_adversarial
from vitrine.attacks.transformations import Light
from vitrine.core.random_numbers import uniform


class Shift(nn.Module):
    """Moves the image sideways by a random number of pixels, round the edge."""

    def forward(self, images, keys):
        places = (uniform(keys, 1)[:, 0] * images.shape[3]).long()
        return torch.stack([image.roll(int(place), 2) for image, place in zip(images, places)])


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    for parameter in network.parameters():
        parameter.data *= 3
    network[1].bias.data = -network[1].weight.data.sum(1) / 2  # mid-grey is where it decides
    network[3].bias.data.zero_()
    return network


def test_the_gradient_is_the_mean_over_draws(network, images):
    pictures, labels = images(2, 1, 1, 12).double(), torch.tensor([0, 2])
    drawn, steps = [], []

    def spied(seen, keys):
        drawn.append(keys)
        return Shift()(seen, keys)

    attack = EOT(PGD(steps=2, random_start=False), spied, draws=9)
    attack(network, pictures, labels, on_step=lambda loss, gradient: steps.append((loss, gradient)))
    assert len(torch.cat(drawn).unique()) == 2 * 2 * 9, "draws of their own for each image and step"
    pixels = pictures.clone().requires_grad_()
    draws_of_first = drawn[0].view(9, 2)
    losses = [
        nn.functional.cross_entropy(network(Shift()(pixels, keys)), labels, reduction="none")
        for keys in draws_of_first
    ]
    mean = torch.stack(losses).mean(0)
    torch.testing.assert_close(steps[0][0], mean.detach())
    torch.testing.assert_close(steps[0][1], torch.autograd.grad(mean.sum(), pixels)[0])


def test_passes_of_few_images_give_the_same(network, images):
    pictures, labels = images(3, 1, 1, 12).double(), torch.tensor([0, 1, 2])
    whole, parts = (
        EOT(PGD(steps=3), Light(), draws=7, at_once=at_once)(network, pictures, labels)
        for at_once in (256, 5)
    )
    torch.testing.assert_close(whole, parts, atol=1e-9, rtol=0)


@pytest.mark.parametrize("count", [1, 3])
def test_each_view_is_led_to_its_own_images_target(linear, images, own_labels, count):
    network, pictures = linear(5), images(count, 1, 1, 12).double()
    labels, gradients = own_labels(network, pictures), []
    for at_once in (256, 1):  # views and images in one pass, and apart
        steps = []
        attack = EOT(APGD(loss="dlr-targeted", steps=1), Light(), draws=7, at_once=at_once)
        attack(network, pictures, labels, on_step=lambda loss, gradient, to=steps: to.append(gradient))
        gradients.append(steps[0])
    torch.testing.assert_close(*gradients)


def test_survives_what_undoes_plain_pgd(network, images, own_labels):
    pictures = images(40, 1, 1, 12, low=0.3, high=0.7).double()
    labels, light = own_labels(network, pictures), Light(brightness=0.2)
    plain = PGD(eps=0.2, steps=20)
    rates = {}
    for name, attack in (("plain", plain), ("eot", EOT(plain, light, draws=24))):
        ended = attack(network, pictures, labels)
        assert is_adversarial(network, ended, labels).float().mean() > 0.5
        rates[name] = destruction_rate(network, pictures, ended, labels, light, draws_each=12)
    assert rates["eot"] < 0.6 * rates["plain"]


def test_the_destruction_rate_is_kurakins(linear, images):
    """A transformation that gives half of the images back undoes half of the attack."""
    network, pictures = linear(), images(400, 1, 1, 12, low=0.3, high=0.7).double()
    labels = network(pictures).argmax(1)
    adversarial = PGD(eps=0.3)(network, pictures, labels)
    adversarial[:3] = pictures[:3]  # these were never adversarial: they do not count
    assert is_adversarial(network, adversarial[3:], labels[3:]).all()
    origin = {tuple(a.flatten().tolist()): p for a, p in zip(adversarial, pictures)}

    def half(images, keys):
        back = uniform(keys, 1)[:, 0] < 0.5
        return torch.stack([origin[tuple(x.flatten().tolist())] if b else x for x, b in zip(images, back)])

    rate = destruction_rate(network, pictures, adversarial, labels, half, draws_each=5)
    assert rate == pytest.approx(0.5, abs=0.05)
    targets = 1 - labels
    assert destruction_rate(
        network, pictures, adversarial, labels, half, targets=targets, draws_each=5
    ) == pytest.approx(rate)
    assert math.isnan(destruction_rate(network, pictures, pictures, labels, half))
