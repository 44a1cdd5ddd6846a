import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from vitrine.attacks.fab import project_onto_hyperplane


def problems(count: int, size: int):
    generator = torch.Generator().manual_seed(0)
    points = (torch.rand(count, size, generator=generator, dtype=torch.float64) * 1.5 - 0.25).clamp(0, 1)
    normals = torch.randn(count, size, generator=generator, dtype=torch.float64)
    normals[:, 0] = 0
    reach = torch.rand(count, generator=generator, dtype=torch.float64) * 2 - 1
    return points, normals, (normals * points).sum(1) + reach


def test_linf_is_the_linear_programs_answer():
    points, normals, offsets = problems(12, 6)
    change = project_onto_hyperplane(points, normals, offsets, "linf")
    for x, w, b, d in zip(points.numpy(), normals.numpy(), offsets.numpy(), change.numpy()):
        # variables: d and t; minimise t with |d_i| <= t
        n = len(x)
        bounds = [(-v, 1 - v) for v in x] + [(0, None)]
        above = np.hstack([np.vstack([np.eye(n), -np.eye(n)]), -np.ones((2 * n, 1))])
        answer = linprog(np.eye(n + 1)[n], above, np.zeros(2 * n), np.append(w, 0)[None], [b - w @ x], bounds)
        if answer.success:
            assert abs(w @ (x + d) - b) < 1e-9
            assert np.abs(d).max() == pytest.approx(answer.fun, abs=1e-9)
        assert (x + d >= -1e-12).all() and (x + d <= 1 + 1e-12).all()


def test_l2_is_the_quadratic_programs_answer():
    points, normals, offsets = problems(12, 6)
    change = project_onto_hyperplane(points, normals, offsets, "l2")
    for x, w, b, d in zip(points.numpy(), normals.numpy(), offsets.numpy(), change.numpy()):
        answer = minimize(
            lambda v: v @ v / 2,
            np.zeros_like(x),
            jac=lambda v: v,
            bounds=[(-v, 1 - v) for v in x],
            constraints={
                "type": "eq",
                "fun": lambda v, w=w, b=b, x=x: w @ (x + v) - b,
                "jac": lambda v, w=w: w,
            },
            options={"ftol": 1e-14, "maxiter": 300},
        )
        if answer.success and abs(w @ (x + answer.x) - b) < 1e-7:
            assert abs(w @ (x + d) - b) < 1e-9
            assert np.linalg.norm(d) == pytest.approx(np.linalg.norm(answer.x), abs=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_hyperplane_out_of_reach_is_approached_as_far_as_the_box_allows(norm):
    points, normals = torch.full((1, 3), 0.5), torch.tensor([[1.0, -2.0, 0.0]])
    change = project_onto_hyperplane(points, normals, torch.tensor([100.0]), norm)
    torch.testing.assert_close(change, torch.tensor([[0.5, -0.5, 0.0]]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_point_on_the_hyperplane_stays(norm):
    points, normals = torch.rand(3, 4), torch.randn(3, 4)
    change = project_onto_hyperplane(points, normals, (normals * points).sum(1), norm)
    torch.testing.assert_close(change, torch.zeros(3, 4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pixels_move_at_their_rate_until_they_meet_the_box(norm):
    generator = torch.Generator().manual_seed(1)
    points = (torch.rand(6, 3000, generator=generator) * 2 - 0.5).clamp(0, 1)  # half of them black or white
    normals = torch.randn(6, 3000, generator=generator)
    offsets = (normals * points).sum(1) + torch.tensor([1.0, -1, 30, -30, 300, -300])
    change = project_onto_hyperplane(points, normals, offsets, norm)
    reached = (normals.double() * (points.double() + change.double())).sum(1)
    torch.testing.assert_close(reached, offsets.double(), atol=2e-3, rtol=0)
    ahead = torch.where(change > 0, 1 - points, points)
    free = (change != 0) & (change.abs() < ahead)
    pace = change.abs() / (1 if norm == "linf" else normals.abs())
    for x, is_free in zip(pace, free):
        assert is_free.any()
        torch.testing.assert_close(
            x[is_free], x[is_free][:1].expand(int(is_free.sum())), atol=1e-6, rtol=1e-4
        )


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_gradients_that_are_no_numbers_end_too(bad):
    change = project_onto_hyperplane(torch.rand(2, 4), torch.full((2, 4), bad), torch.zeros(2), "linf")
    assert change.shape == (2, 4)
