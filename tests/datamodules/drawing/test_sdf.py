import itertools
import math

import pytest
import torch

from vitrine.datamodules.drawing import sdf

CONCAVE = [(-0.8, -0.7), (0.1, -0.2), (0.9, -0.6), (0.5, 0.8), (-0.1, 0.3), (-0.6, 0.9)]


def points(count: int = 300) -> torch.Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2


def along(path: list, per_segment: int = 2000) -> torch.Tensor:
    share = torch.linspace(0, 1, per_segment)[:, None]
    ends = [(torch.tensor(a), torch.tensor(b)) for a, b in itertools.pairwise(path)]
    return torch.cat([a + share * (b - a) for a, b in ends])


def winding(at: torch.Tensor, corners: list) -> torch.Tensor:
    """Times that the corners go around a point: an oracle for inside."""
    total = torch.zeros(len(at))
    for a, b in zip(corners, [*corners[1:], corners[0]]):
        u, v = torch.tensor(a) - at, torch.tensor(b) - at
        total += torch.atan2(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0], (u * v).sum(1))
    return total / (2 * math.pi)


@pytest.mark.parametrize("corners", [CONCAVE, sdf.regular(8, 0.9, 22.5), CONCAVE[::-1]])
def test_distance_to_a_polygon_is_that_to_the_nearest_point_of_its_edge(corners):
    at = points()
    nearest = torch.cdist(at, along([*corners, corners[0]])).amin(1)
    inside = winding(at, corners).abs() > 0.5
    expected = torch.where(inside, -nearest, nearest)
    assert torch.allclose(sdf.polygon(at, corners), expected, atol=2e-3)


def test_distance_to_a_stroke_is_that_to_its_path_less_half_its_width():
    path = sdf.arc((0.1, -0.2), 0.6, 0.4, 20, 300)
    at = points()
    expected = torch.cdist(at, along(path)).amin(1) - 0.1
    assert torch.allclose(sdf.stroke(at, path, 0.2), expected, atol=2e-3)


def test_a_union_is_as_near_as_its_nearest_part():
    at = points()
    a, b = sdf.disc(at, 0.3), sdf.disc(at, 0.5, (0.4, 0.2))
    assert torch.equal(sdf.union(a, b), torch.minimum(a, b))
    assert float(sdf.disc(torch.tensor([0.4, 0.2]), 0.5, (0.4, 0.2))) == -0.5
