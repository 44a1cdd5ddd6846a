import dataclasses

import pytest
import torch

from vitrine.core.settings import SettingError
from vitrine.objects.views import ViewDistribution, draw_views, turntable


def test_views_are_drawn_from_athalyes_ranges():
    views = draw_views(torch.arange(4000), ViewDistribution())
    for values, low, high in (
        (-views.positions[:, 2], 2.5, 3),
        (views.positions[:, :2], -0.05, 0.05),
        (views.backgrounds, 0.1, 1),
        (views.gains, 0.35, 2.6),  # of light 0.5 to 2 and of a channel 0.7 to 1.3
        (views.offsets, -0.3, 0.3),  # 0.15 of either
        (views.noise, 0, 0.1),
    ):
        span = high - low
        assert low <= values.min() < low + 0.1 * span and high - 0.1 * span < values.max() <= high + 1e-6


def test_rotations_are_uniform():
    """They are rotations, and the image of any direction is as often on one side as on another."""
    rotations = draw_views(torch.arange(20000), ViewDistribution()).rotations
    identity = torch.eye(3, dtype=torch.float64).expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.mT, identity, atol=1e-6, rtol=0)
    assert (torch.linalg.det(rotations) > 0).all()
    for column in rotations.unbind(2):  # of a uniform direction every coordinate is uniform in [-1, 1]
        steps = column.sort(0).values - torch.linspace(-1, 1, len(column), dtype=torch.float64)[:, None]
        assert steps.abs().max() < 0.04


def test_lights_come_from_before_the_object():
    lights = draw_views(torch.arange(500), ViewDistribution()).lights
    torch.testing.assert_close(lights.norm(dim=1), torch.ones(500, dtype=torch.float64))
    assert (lights[:, 2] > 0).all() and (turntable(3).lights[:, 2] > 0).all()


def test_a_turntable_turns_by_equal_angles_about_the_vertical():
    views = turntable(8, tilt=0)
    up = torch.tensor([0, 1.0, 0], dtype=torch.float64)
    torch.testing.assert_close(views.rotations @ up, up.expand(8, 3))
    step = views.rotations[1] @ views.rotations[0].T
    torch.testing.assert_close(step @ views.rotations[6], views.rotations[7])
    assert step[0, 0].item() == pytest.approx(0.5**0.5)


def test_ranges_that_are_swapped_are_refused():
    with pytest.raises(SettingError, match=r"nearest: is 3.5 and farthest 3.0, expected at most that"):
        ViewDistribution(nearest=3.5)
    plain = dataclasses.asdict(ViewDistribution().without_colour())
    assert plain["noise"] == plain["tint"] == 0 and plain["farthest"] == 3
