"""Occupancy: cell by cell, its smooth version against it, and its gradients."""

import pytest
import torch

from vitrine.lidar.grid import Grid, hard_occupancy, occupancy, occupied

GRID = Grid(cell=0.5, ahead=4, aside=2, bottom=0, slices=3)


def points(count: int, seed: int = 0) -> torch.Tensor:
    numbers = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return numbers * torch.tensor([5, 5, 2]) - torch.tensor([0.5, 2.5, 0.2])  # some outside


def test_a_cell_is_occupied_by_the_points_within_its_sides():
    expected = torch.zeros(GRID.shape)
    for x, y, z in points(60).tolist():
        k, i, j = int(z // 0.5), int(x // 0.5), int((y + 2) // 0.5)
        if 0 <= k < 3 and 0 <= i < 8 and 0 <= j < 8:
            expected[k, i, j] = 1
    found = hard_occupancy(GRID, points(60))
    assert torch.equal(found, expected)
    assert torch.equal(found.flatten().nonzero()[:, 0], occupied(GRID, points(60)))
    assert 20 < found.sum() < 60


def test_sharp_it_is_the_hard_one_and_with_weights_what_that_is_on_average():
    torch.testing.assert_close(
        occupancy(GRID, points(60), sharpness=1e9).float(),
        hard_occupancy(GRID, points(60)),
        atol=2e-6,
        rtol=0,
    )
    some, weights = points(9), torch.linspace(0, 1, 9, dtype=torch.float64)
    average = torch.zeros(GRID.shape, dtype=torch.float64)
    for subset in range(2**9):  # every way that points are there or not
        there = torch.tensor([bool(subset >> i & 1) for i in range(9)])
        chance = torch.where(there, weights, 1 - weights).prod()
        if chance > 0:
            average += chance * hard_occupancy(GRID, some[there])
    torch.testing.assert_close(occupancy(GRID, some, weights, sharpness=1e9), average, atol=2e-6, rtol=0)


def test_a_point_alone_is_interpolated_between_the_middles_of_eight_cells():
    point = torch.tensor([[1.35, 0.1, 0.6]], dtype=torch.float64)
    found = occupancy(GRID, point)
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    middles = torch.stack(torch.meshgrid(*[torch.arange(n) + 0.5 for n in GRID.shape], indexing="ij"), -1)
    centre = (found[..., None] * middles).sum((0, 1, 2)) * 0.5
    torch.testing.assert_close(centre, torch.tensor([0.6, 1.35, 2.1], dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sharpness", [1, 2.5])
def test_gradients_are_those_of_finite_differences(sharpness):
    some = points(4).clamp(min=0.13).requires_grad_()
    weights = torch.linspace(0.1, 0.9, 4, dtype=torch.float64).requires_grad_()
    mixed = torch.rand(GRID.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda p, w: (occupancy(GRID, p, w, sharpness) * mixed).sum(), (some, weights)
    )
    full = torch.ones(12, dtype=torch.float64, requires_grad=True)
    occupancy(GRID, points(12), full)[0].sum().backward()
    assert full.grad.isfinite().all() and full.grad.abs().sum() > 0


def test_what_the_network_cannot_halve_is_refused():
    with pytest.raises(ValueError, match=r"ahead is 4\.3 with cells of 0\.5"):
        Grid(cell=0.5, ahead=4.3)
    with pytest.raises(ValueError, match=r"sharpness is 0\.5"):
        occupancy(GRID, points(3), sharpness=0.5)
