"""Points are added to the path of integrated gradients where its sum misses some of the score's rise."""

import re

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from vitrine.analyses.base import Probes, Subject
from vitrine.analyses.probe_saliency import Saliency
from vitrine.analyses.saliency import integrated_gradients

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
TARGETS = torch.tensor([0, 1, 2, 0])


class Scores(nn.Module):
    """Functions of an image's mean as the scores of classes; keeps the means that it is given."""

    def __init__(self, *functions):
        super().__init__()
        self.functions, self.means = functions, []

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        self.means += mean.tolist()
        return torch.stack([function(mean) for function in self.functions], 1)


def grey(*values):
    return torch.stack([torch.full((3, 8, 8), value, dtype=torch.float64) for value in values])


def kinked(classes=3):
    """An untrained network of ReLUs."""
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 32), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, classes)).eval()


def test_a_cubic_score_needs_the_five_points_of_two_panels_and_is_exact():
    network = Scores(lambda mean: mean**3 - mean)
    found = integrated_gradients(network, grey(0.9), TARGETS[:1], baseline=0.1, tolerance=1e-9)
    torch.testing.assert_close(network.means, [0.1, 0.3, 0.5, 0.7, 0.9])
    rise = (0.9**3 - 0.9) - (0.1**3 - 0.1)
    assert found.sum().item() == pytest.approx(rise, rel=1e-12)


@pytest.mark.parametrize(("steps", "points"), [(31, 31), (32, 31), (41, 41)])
def test_a_path_that_stays_incomplete_has_as_many_points_as_it_may_near_its_kink(steps, points):
    network = Scores(lambda mean: (mean - 0.5437).relu())
    found = integrated_gradients(network, grey(1.0), TARGETS[:1], baseline=0.0, steps=steps, tolerance=1e-12)
    assert len(network.means) == points
    assert sum(abs(mean - 0.5437) < 0.15 for mean in network.means) == points - 5
    assert found.sum().item() == pytest.approx(1 - 0.5437, abs=0.01)


def test_only_images_whose_sum_is_incomplete_have_more_points_and_their_maps_are_as_alone():
    network = Scores(lambda mean: mean + 5 * (mean - 0.6).relu())
    images = grey(0.2, 0.95)
    together = integrated_gradients(network, images, TARGETS[:2] * 0, steps=33, tolerance=0.015)
    darker, brighter = [m for m in network.means if m < 0.5], [m for m in network.means if m > 0.5]
    assert len(darker) == 4 and 5 < len(brighter) < 33 and network.means.count(0.5) == 2
    for i in range(2):
        alone = integrated_gradients(network, images[i : i + 1], TARGETS[:1], steps=33, tolerance=0.015)
        assert torch.equal(alone[0], together[i])


def test_several_classes_of_an_image_have_the_points_that_each_needs():
    network, targets = kinked(), torch.stack([TARGETS, (TARGETS + 1) % 3])
    together = integrated_gradients(network, IMAGES, targets, steps=32, tolerance=0.015, batch_size=7)
    for own, found in zip(targets, together):
        alone = integrated_gradients(network, IMAGES, own, steps=32, tolerance=0.015, batch_size=7)
        torch.testing.assert_close(alone, found, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("baseline", [0.0, 0.5, "images"])
def test_maps_are_complete_to_the_tolerance_and_near_captums_of_many_points(baseline):
    network = kinked().double()
    images = IMAGES.double()
    baseline = images.flip(0) if baseline == "images" else baseline
    found = integrated_gradients(network, images, TARGETS, baseline=baseline, steps=400, tolerance=0.015)
    start = torch.as_tensor(baseline).to(images).expand_as(images)
    with torch.no_grad():
        rise = (network(images) - network(start)).gather(1, TARGETS[:, None])[:, 0]
    assert ((found.sum((1, 2, 3)) - rise).abs() <= 0.015 * rise.abs()).all()
    expected = IntegratedGradients(network).attribute(images, start, target=TARGETS, n_steps=300)
    error = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert error.max() < 0.1


def test_the_completeness_that_was_reached_stands_at_the_picture():
    network, given = kinked(), Probes(IMAGES, TARGETS, torch.arange(4))
    subject = Subject(network, given, None, ["ant", "bee", "cat"], {"1": [0]})
    figures = list(Saliency(maps=["integrated_gradients"], probes=2, steps=1, baseline=0.3)(subject))
    for figure in figures:
        image, target = IMAGES[figure.probe : figure.probe + 1], torch.tensor([figure.label])
        found = integrated_gradients(network, image, target, steps=1, baseline=0.3)
        with torch.no_grad():
            rise = (network(image) - network(image * 0 + 0.3))[0, figure.label]
        (said,) = re.findall(r"gradients sum to (\S+); .* logit changes by ([-+\d.]+)\.", figure.caption)
        assert [float(number) for number in said] == pytest.approx(
            [found.sum().item(), rise.item()], abs=0.006
        )
