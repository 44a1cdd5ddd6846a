"""Dreams see more of what the layer sees, octave by octave, and leave the network as it was."""

import pytest
import torch
from torch import nn

from vitrine.analyses.activations import activations
from vitrine.analyses.base import Probes, Subject
from vitrine.analyses.dream import Dream, dream, noise
from vitrine.analyses.objectives import ObjectiveBatch, channel, deepdream


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 4, 3),
    )


@pytest.fixture
def images():
    return torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25


@pytest.mark.parametrize("objective", [deepdream("2"), channel("2", 3), channel("2", 3) - channel("2", 4)])
def test_a_dream_raises_its_objective(network, images, objective):
    dreamt = dream(network, images, objective, octaves=2, jitter=4)
    assert dreamt.shape == images.shape and dreamt.min() >= 0 and dreamt.max() <= 1
    before, after = (ObjectiveBatch([objective] * 2).scores(network, x) for x in (images, dreamt))
    assert (after > before).all()


def test_a_layers_name_asks_for_the_mean_of_its_squares(network, images):
    options = {"octaves": 2, "jitter": 4, "steps": 3}
    assert torch.equal(
        dream(network, images, "2", **options), dream(network, images, deepdream("2"), **options)
    )


def test_a_step_changes_a_pixel_by_the_step_size_on_average(network, images):
    dreamt = dream(network, images, "2", octaves=1, steps=1, step_size=0.01)
    assert (dreamt - images).abs().mean().item() == pytest.approx(0.01, rel=1e-4)


def test_octaves_go_from_small_to_the_full_size(network, images):
    activations(network, images, ["2"])  # the layer's layout is found in a pass of its own, once
    sizes = []
    handle = network[0].register_forward_hook(
        lambda _m, inputs, _o: sizes.append(tuple(inputs[0].shape[-2:]))
    )
    dream(network, images, "2", octaves=3, ratio=2, steps=1)
    handle.remove()
    assert sizes == [(12, 10), (24, 20), (48, 40)]


def test_an_image_dreams_the_same_alone(network, images):
    together = dream(network, images, "2", octaves=2)
    assert torch.allclose(together[1:], dream(network, images[1:], "2", octaves=2), atol=1e-4)


def test_the_network_and_the_callers_images_are_left_as_they_were(network, images):
    network.train()
    rng, before = torch.get_rng_state(), images.clone()
    dream(network, images, "2", octaves=1, steps=2)
    assert torch.equal(torch.get_rng_state(), rng) and torch.equal(images, before)
    assert all(m.training for m in network.modules())
    assert all(p.grad is None for p in network.parameters())


def test_octaves_do_not_get_smaller_than_a_pixel(network, images):
    pointwise = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert dream(pointwise, images, "0", octaves=20, ratio=2, steps=1).shape == images.shape
    with pytest.raises(ValueError, match=r"octaves: one is 1 x 1 pixels, which the network does not take"):
        dream(network, images, "2", octaves=20, ratio=2)


def test_octaves_too_small_for_the_network_are_said(network, images):
    with pytest.raises(ValueError, match=r"octaves: one is 3 x 2 pixels, which the network does not take"):
        dream(network, images, "2", octaves=5, ratio=2)
    with pytest.raises(ValueError, match="ratio"):
        dream(network, images, "2", ratio=1)
    with pytest.raises(ValueError, match="unknown layer 'two'"):
        dream(network, images, "two")
    with pytest.raises(ValueError, match=r"expected \[N, C, H, W\]"):
        dream(network, images[0], "2")


def test_the_analysis_shows_probes_and_noise_beside_their_dreams(network, images):
    images = images[:, :, :40]
    probes = Probes(images, torch.zeros(2, dtype=torch.int64), torch.arange(2))
    subject = Subject(network, probes, [], ["a", "b", "c", "d"], {"0": [0], "2": [1], "4": [2]})
    figures = list(Dream(from_noise=True, octaves=1, steps=2)(subject))
    assert [f.key for f in figures] == [
        f"{layer}/{what}" for layer in ("2", "4") for what in ("probe-000", "probe-001", "noise")
    ]
    assert all(f.image.shape == (40, 82, 3) and f.image.dtype == torch.uint8 for f in figures)
    assert figures[1].probe == 1 and figures[2].probe is None
    assert not Dream().enabled
    grey = noise(1, 32, seed=3)
    assert torch.equal(grey, noise(1, 32, seed=3)) and not torch.equal(grey, noise(1, 32, seed=4))


def test_noise_beside_probes_that_are_not_square_has_their_shape(network, images):
    probes = Probes(images, torch.zeros(2, dtype=torch.int64), torch.arange(2))
    subject = Subject(network, probes, [], ["a", "b", "c", "d"], {"2": [1]})
    figures = list(Dream(from_noise=True, octaves=1, steps=1, jitter=2)(subject))
    assert [f.image.shape for f in figures] == [(48, 82, 3)] * 3
