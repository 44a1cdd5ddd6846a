import pytest
import torch

from vitrine.analyses.conjugate_gradients import conjugate_gradients
from vitrine.analyses.head_features import Features
from vitrine.analyses.head_fit import HeadProblem, Hessian, distilled_targets, fit_head, label_targets
from vitrine.analyses.head_influence import Curvature, self_influence
from vitrine.analyses.head_systems import Kronecker, solve

CLASSES = 5


def problem(count=300, width=12, penalty=1e-3, size=1.0):
    """Overlapping classes; the features have standard deviations from 0.1 to 10 times `size`."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    features = torch.randn(CLASSES, width, generator=generator)[labels]
    features += torch.randn(count, width, generator=generator)
    features *= size * torch.logspace(-1, 1, width)
    return HeadProblem(Features(features), label_targets(labels, CLASSES), penalty)


@pytest.fixture(scope="module")
def refitted():
    given = problem()
    return Hessian(given, fit_head(given, torch.zeros(CLASSES, 13).double()))


def right_sides(count):
    return torch.randn(count, CLASSES, 13, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("count", [1, 4, 12])
def test_systems_are_solved_though_they_depend_on_each_other_or_are_more_than_unknowns(count):
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(9, 9, generator=generator).double()
    matrix = root @ root.T + torch.eye(9)
    right = torch.randn(count, 3, 3, generator=generator).double()
    right[count // 2] = right[0]
    right[-1] *= count != 4  # nothing to solve
    found = conjugate_gradients(lambda x: (x.flatten(1) @ matrix).view_as(x), right, 1e-9)
    expected = torch.linalg.solve(matrix, right.flatten(1).T).T.view_as(right)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_scaled_by_its_kronecker_product_the_hessian_of_equal_probabilities_is_the_identity():
    hessian = Hessian(problem(), torch.zeros(CLASSES, 13).double())
    root, any_directions = Kronecker.of(hessian), right_sides(3)
    torch.testing.assert_close(root.scale(hessian(root.unscale(any_directions))), any_directions)


def test_float32_solves_to_what_float64_is_asked_for(refitted):
    right = right_sides(4)
    solved, residuals = solve(refitted, right, 1e-9)
    expected = torch.linalg.solve(refitted.dense(), right.flatten(1).T).T.view_as(right)
    torch.testing.assert_close(solved, expected, rtol=1e-5, atol=1e-8 * expected.abs().max().item())
    torch.testing.assert_close(residuals, right - refitted(solved))
    assert (residuals.norm(dim=(1, 2)) <= 1e-9 * right.norm(dim=(1, 2))).all()


def test_what_float32_cannot_solve_float64_does(refitted, monkeypatch):
    class Spoilt(Hessian):
        """In float32 of no use, as where features differ by more than it can tell apart."""

        def __init__(self, exact, dtype):
            super().__init__(exact.problem, exact.weight, dtype)

        def __call__(self, directions):
            return super().__call__(directions) * (1e-3 if directions.dtype == torch.float32 else 1)

    monkeypatch.setattr(Hessian, "to", lambda self, dtype: Spoilt(self, dtype))
    right = right_sides(2)
    solved, _ = solve(refitted, right, 1e-9)
    assert (refitted(solved) - right).norm() <= 1e-8 * right.norm()


def test_few_products_are_needed_though_features_differ_in_size(refitted, monkeypatch):
    """Conjugate gradients alone take some hundred of them, one direction at a time."""
    counted, product = [], Hessian.__call__
    monkeypatch.setattr(Hessian, "__call__", lambda self, x: counted.append(len(x)) or product(self, x))
    fit_head(refitted.problem, torch.zeros(CLASSES, 13).double())
    assert sum(counted) < 100
    refits = len(counted)
    self_influence(Curvature(refitted, None), 10)
    assert len(counted) - refits < 15


def test_large_features_are_no_obstacle():
    given = problem(size=300.0)
    weight = fit_head(given, torch.zeros(CLASSES, 13).double())
    assert given.evaluate(weight)[1].norm() <= 1e-7 * given.penalty * weight.norm()


def test_small_features_with_large_weights_are_no_obstacle():
    """Beside 1e12, float32 does not see weights of the bias around 1."""
    features = problem(size=1e-12).features
    head = torch.randn(CLASSES, 13, generator=torch.Generator().manual_seed(3)).double()
    head[:, :-1] *= 1e12
    given = HeadProblem(features, distilled_targets(head), 1e-6)
    weight = fit_head(given, head)
    assert given.evaluate(weight)[1].norm() <= 1e-7 * given.penalty * weight.norm()
