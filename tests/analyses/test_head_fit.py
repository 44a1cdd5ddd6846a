import pytest
import torch
from sklearn.linear_model import LogisticRegression
from thread_ranks import on_ranks

from vitrine.analyses.head_features import Features, in_half_precision
from vitrine.analyses.head_fit import HeadProblem, Hessian, distilled_targets, fit_head, label_targets


def clouds(count=200, width=6, classes=4, seed=0, spread=1.0):
    """Features of overlapping classes, their labels, and a head for them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, width, generator=generator)
    features = centres[labels] + spread * torch.randn(count, width, generator=generator)
    return features, labels, torch.randn(classes, width + 1, generator=generator).double()


def problems(penalty=1e-3, **more):
    features, labels, head = clouds(**more)
    stored = Features(features)
    for targets in (distilled_targets(head), label_targets(labels, len(head))):
        yield HeadProblem(stored, targets, penalty), head


def test_the_head_refitted_on_labels_is_that_of_scikit_learn():
    features, labels, head = clouds(spread=2.0)
    problem = HeadProblem(Features(features), label_targets(labels, 4), 1e-2)
    weight = fit_head(problem, head)
    oracle = LogisticRegression(
        C=1 / (1e-2 * len(features)), fit_intercept=False, tol=1e-12, max_iter=1000, solver="newton-cg"
    )
    oracle.fit(problem.features[:].numpy(), labels.numpy())
    torch.testing.assert_close(weight, torch.tensor(oracle.coef_), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("classes", [4, 100])
def test_duals_rebuild_the_logits_of_the_refitted_head(classes):
    for problem, head in problems(count=400, width=10, classes=classes):
        weight = fit_head(problem, head)
        _, gradient = problem.evaluate(weight)
        assert gradient.norm() <= 1e-7 * problem.penalty * weight.norm()  # stationary
        features = problem.features[:]
        duals = problem.duals(slice(None), features, weight)
        rebuilt, logits = features @ features.T @ duals, features @ weight.T
        assert (rebuilt - logits).norm() <= 1e-6 * logits.norm()


def test_the_networks_own_head_is_not_stationary():
    """Why it is refitted: its duals rebuild other logits than its own."""
    features, labels, head = clouds()
    problem = HeadProblem(Features(features), label_targets(labels, 4), 1e-3)
    rebuilt = problem.duals(slice(None), problem.features[:], head).T @ problem.features[:]
    assert (rebuilt - head).norm() > head.norm()


def test_value_gradient_and_hessian_are_those_of_autograd():
    for problem, head in problems(count=50, width=3, penalty=0.1):
        features = problem.features[:]
        targets = problem.targets(slice(0, 50), features)

        def objective(weight, features=features, targets=targets):
            loss = torch.nn.functional.cross_entropy(features @ weight.T, targets)
            return loss + 0.05 * weight.square().sum()

        value, gradient = problem.evaluate(head)
        assert value == pytest.approx(objective(head).item())
        torch.testing.assert_close(gradient, torch.autograd.functional.jacobian(objective, head))
        expected = torch.autograd.functional.hessian(objective, head).view(16, 16)
        hessian = Hessian(problem, head)
        torch.testing.assert_close(hessian.dense(), expected)
        directions = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(1)).double()
        torch.testing.assert_close(hessian(directions).flatten(1), directions.flatten(1) @ expected)


def test_blocks_change_nothing(monkeypatch):
    whole = [fit_head(problem, head) for problem, head in problems()]
    monkeypatch.setattr("vitrine.analyses.head_features.BLOCK", 7 * 30)
    monkeypatch.setattr("vitrine.analyses.head_features.KEPT", 0)
    monkeypatch.setattr("vitrine.analyses.head_fit.KEPT", 0)
    for expected, (problem, head) in zip(whole, problems()):
        assert len(list(problem.features.blocks())) == 7
        torch.testing.assert_close(fit_head(problem, head), expected)


def test_ranks_together_find_the_same_head():
    """Three ranks, one of them without an image, share the sums."""
    features, labels, head = clouds()
    expected = fit_head(HeadProblem(Features(features), label_targets(labels, 4), 1e-3), head)
    shards = slice(0, 90), slice(90, 200), slice(200, 200)

    def fit(rank, all_gather):
        rows = shards[rank]
        stored = Features(features[rows], all_gather=all_gather)
        return fit_head(HeadProblem(stored, label_targets(labels[rows], 4), 1e-3), head)

    found = on_ranks(3, fit)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    torch.testing.assert_close(found[0], expected, rtol=1e-6, atol=1e-8)


def test_half_precision_holds_the_largest_and_the_smallest_features():
    features = torch.tensor([[1e6, -2e6, 3.0], [1e-9, 2e-9, 0.0], [0.0, 0.0, 0.0]])
    stored = Features(*in_half_precision(features), bias=False)
    torch.testing.assert_close(stored[:].float(), features, rtol=1e-3, atol=0.1)
    assert stored[:][1, :2].tolist() == pytest.approx([1e-9, 2e-9], rel=1e-3)


@pytest.mark.parametrize(
    "features", [torch.zeros(300, 8), torch.rand(64).repeat(300, 1)], ids=["dead", "one"]
)
def test_where_features_tell_nothing_of_balanced_classes_the_head_is_next_to_zero(features):
    start = torch.randn(10, features.shape[1] + 1, generator=torch.Generator().manual_seed(0)).double()
    problem = HeadProblem(Features(features), label_targets(torch.arange(300) % 10, 10), 1e-3)
    assert fit_head(problem, start).norm() < 1e-7 * start.norm()


def test_features_that_are_not_finite_are_refused():
    features, labels, head = clouds()
    features[3, 2] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        fit_head(HeadProblem(Features(features), label_targets(labels, 4), 1e-3), head)


def test_a_step_that_goes_too_far_is_not_taken_though_the_gradient_there_is_smaller():
    """One image a class, almost orthogonal: the second derivatives at 0 tell nothing of how soon p is 1."""
    features = torch.randn(200, 512, generator=torch.Generator().manual_seed(0)) / 2**0.5
    problem = HeadProblem(Features(features), label_targets(torch.arange(200), 200), 1e-3)
    weight = fit_head(problem, torch.zeros(200, 513).double())
    _, gradient = problem.evaluate(weight)
    assert gradient.norm() <= 1e-7 * 1e-3 * weight.norm()
