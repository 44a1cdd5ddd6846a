"""Objectives are read off the layers as their definitions say, alone and together."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrine.analyses.objectives import (
    ObjectiveBatch,
    channel,
    deepdream,
    direction,
    diversity,
    diversity_groups,
    logit,
    neuron,
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ).requires_grad_(False)


@pytest.fixture
def images():
    return torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def values(network, images, objective):
    return ObjectiveBatch([objective] * len(images)).scores(network, images)


def test_each_is_what_its_definition_says(network, images):
    first = network[0](images)
    second = network[1](first)
    assert torch.allclose(values(network, images, channel("1", 2)), second[:, 2].mean((1, 2)))
    assert torch.allclose(values(network, images, neuron("0", 4)), first[:, 4, 5, 5])
    assert torch.allclose(values(network, images, neuron("0", 4, (9, 1))), first[:, 4, 9, 1])
    assert torch.allclose(values(network, images, logit(3)), network(images)[:, 3])
    assert torch.allclose(values(network, images, channel("4", 3)), network(images)[:, 3])
    assert torch.allclose(values(network, images, deepdream("0")), (first**2).mean((1, 2, 3)))
    v = torch.randn(6, generator=torch.Generator().manual_seed(2))
    dot = torch.einsum("bchw,c->bhw", first, v)
    cosine = F.cosine_similarity(first, v.view(1, -1, 1, 1), dim=1)
    expected = (dot * cosine.clamp_min(0.1) ** 2).mean((1, 2))
    assert torch.allclose(values(network, images, direction("0", v, power=2)), expected, atol=1e-6)
    assert torch.allclose(values(network, images, direction("0", v, 0, (1, 2))), dot[:, 1, 2], atol=1e-6)


def test_beside_a_class_too_a_map_as_high_as_it_has_channels_is_not_turned():
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    images = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    both = channel("0", 4) + logit(3)
    expected = network[0](images)[:, 4].mean((1, 2)) + network(images)[:, 3]
    assert torch.allclose(values(network, images, both), expected)


def test_diversity_is_minus_the_mean_cosine_between_gram_matrices_of_a_group(network, images):
    maps = network[0](images).flatten(2)
    styles = [(m @ m.T).flatten() for m in maps]
    cosine = [[F.cosine_similarity(a, b, dim=0).item() for b in styles] for a in styles]
    together = ObjectiveBatch([diversity("0", "a")] * 3).scores(network, images)
    assert together[0].item() == pytest.approx(-(cosine[0][1] + cosine[0][2]) / 2, rel=1e-5)
    apart = ObjectiveBatch([diversity("0", "a"), diversity("0", "b"), diversity("0", "a")]).scores(
        network, images
    )
    assert apart[0].item() == pytest.approx(-cosine[0][2], rel=1e-5)
    assert apart[1].item() == 0  # alone in its group


def test_they_add_subtract_and_scale(network, images):
    a, b, c = channel("0", 1), neuron("1", 2), logit(4)
    va, vb, vc = (values(network, images, o) for o in (a, b, c))
    assert torch.allclose(values(network, images, a + 2 * b - c / 4), va + 2 * vb - vc / 4, atol=1e-6)
    assert torch.allclose(values(network, images, -(a - b) * 3), 3 * (vb - va), atol=1e-6)
    assert torch.allclose(values(network, images, a - a), torch.zeros(3), atol=1e-7)
    with pytest.raises(TypeError):
        a * b
    with pytest.raises(TypeError):
        a + 1


def test_objectives_of_a_batch_are_read_as_if_each_were_alone(network, images):
    mixed = [channel("0", 1) - logit(2), neuron("1", 3) + deepdream("0"), logit(0)]
    together = ObjectiveBatch(mixed).scores(network, images)
    alone = torch.cat([ObjectiveBatch([o]).scores(network, images[i : i + 1]) for i, o in enumerate(mixed)])
    assert torch.allclose(together, alone, atol=1e-6)


def test_names_tell_objectives_apart_and_leave_weights_out():
    asked = [channel("a", 1), neuron("a", 1), -channel("a", 1), channel("a", 2), channel("b", 1), logit(1)]
    asked += [direction("a", [1.0, 2.0]), direction("a", [1.0, 3.0])]
    assert len({o.name for o in asked}) == len(asked)
    assert channel("a", 1).name == (3 * channel("a", 1)).name


def test_only_members_of_a_diversity_group_must_stay_together():
    a, b = channel("x", 0) + diversity("x", "a"), channel("x", 0) + diversity("x", "b")
    assert diversity_groups([a, b, channel("x", 0), a, b]) == [[0, 3], [1, 4], [2]]


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (channel("0", 6), r"unit is 6, and layer '0' has 6 channels"),
        (neuron("0", -1), r"unit is -1"),
        (neuron("0", 0, (10, 0)), r"position is \(10, 0\), and the map of layer '0' is 10 x 10"),
        (direction("1", [1.0]), r"vector has 1 entries, layer '1' 4 channels"),
        (logit(5), r"label is 5, and the network has 5 classes"),
        (channel("nine", 0), r"unknown layer 'nine'"),
    ],
)
def test_what_cannot_be_read_is_said(network, images, objective, words):
    with pytest.raises(ValueError, match=words):
        values(network, images, objective)
