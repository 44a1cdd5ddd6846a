import pytest
import torch
import torch.nn.functional as F
from thread_ranks import on_ranks

from vitrine.analyses.head_features import Features
from vitrine.analyses.head_fit import HeadProblem, fit_head, label_targets
from vitrine.analyses.head_influence import Curvature, leave_one_out, self_influence

CLASSES, PENALTY = 3, 1e-2


def draw(count=100, width=5, seed=0):
    """Features of overlapping classes and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    centres = torch.randn(CLASSES, width, generator=generator)
    return centres[labels] + torch.randn(count, width, generator=generator), labels


def derivatives(w, features, labels, weights):
    """Gradient [B, K D] and matrix of second derivatives of several weighted objectives, at w [B, K, D]."""
    p = (features @ w.mT).softmax(2)
    errors = weights[:, :, None] * (p - F.one_hot(labels, CLASSES)) / len(labels)
    gradient = errors.mT @ features + PENALTY * w
    spread = torch.einsum("bnk,kl->bnkl", p, torch.eye(CLASSES)) - p[:, :, :, None] * p[:, :, None, :]
    spread *= weights[:, :, None, None] / len(labels)
    hessian = torch.einsum("bnkl,nd,ne->bkdle", spread, features, features).flatten(3).flatten(1, 2)
    return gradient.flatten(1), hessian + PENALTY * torch.eye(hessian.shape[1])


def refits(features, labels, weights):
    """The weights [B, K, D] of the least losses with images weighted as in [B, N], by Newton's method."""
    w = torch.zeros(len(weights), CLASSES, features.shape[1], dtype=torch.float64)
    for _ in range(10):
        gradient, hessian = derivatives(w, features, labels, weights)
        w = w - torch.linalg.solve(hessian, gradient).view_as(w)
    assert gradient.abs().max() < 1e-10
    return w


@pytest.fixture(scope="module")
def refitted():
    features, labels = draw()
    problem = HeadProblem(Features(features), label_targets(labels, CLASSES), PENALTY)
    return problem, fit_head(problem, torch.zeros(CLASSES, 6).double()), labels


def rank_correlation(a, b):
    return torch.corrcoef(torch.stack([x.argsort().argsort().double() for x in (a, b)]))[0, 1]


def probes_of(problem, weight, count=8):
    """The first images as probes: features, and the errors for their labels."""
    features = problem.features[:count]
    return features, problem.residuals(slice(0, count), features, weight)


def test_influence_is_that_of_a_dense_solve(refitted):
    problem, weight, _ = refitted
    features = problem.features[:]
    probes, errors = probes_of(problem, weight)
    gradients = -problem.residuals(slice(0, 100), features, weight)[:, :, None] * features[:, None, :]
    gradients = gradients.flatten(1)
    _, hessian = derivatives(weight[None], features, refitted[2], torch.ones(1, 100))
    solved = torch.linalg.solve(hessian[0], gradients.T)
    for dense in (0, 1000):
        curvature = Curvature.at(problem, weight, dense)
        assert (curvature.factor is None) == (dense == 0)
        found = leave_one_out(curvature, probes, errors)
        expected = gradients[:8] @ solved / 100
        assert (found - expected).norm() <= 1e-4 * expected.norm()
        own = self_influence(curvature, 100)
        torch.testing.assert_close(own, (gradients * solved.T).sum(1) / 100, rtol=1e-4, atol=0)


def test_influence_foretells_the_losses_of_exact_refits(refitted):
    """Without each of 100 images the head is refitted exactly; the linear datamodeling score."""
    problem, weight, labels = refitted
    features, (probes, errors) = problem.features[:], probes_of(problem, weight)
    curvature = Curvature.at(problem, weight)
    found, own = leave_one_out(curvature, probes, errors), self_influence(curvature, 0)
    without = refits(features, labels, 1 - torch.eye(100))
    logits = features @ torch.cat([without, weight[None]]).mT  # [101, N, K]
    losses = F.cross_entropy(logits.mT, labels.expand(101, 100), reduction="none")
    changes = losses[:100] - losses[100]
    scores = [rank_correlation(a, b) for a, b in zip(found, changes[:, :8].T)]
    assert min(scores) >= 0.95
    assert rank_correlation(own, changes.diagonal()) >= 0.95


def test_beyond_the_dense_size_candidates_have_a_self_influence(refitted):
    problem, weight, _ = refitted
    every = self_influence(Curvature.at(problem, weight), 0)
    some = self_influence(Curvature.at(problem, weight, 0), 10)
    known = ~some.isnan()
    assert known.sum() == 10
    torch.testing.assert_close(some[known], every[known], rtol=1e-4, atol=0)
    norms = problem.residuals(slice(0, 100), problem.features[:], weight).norm(dim=1)
    norms *= problem.features[:].norm(dim=1)
    assert norms[known].min() >= norms[~known].max()


@pytest.mark.parametrize("dense", [0, 1000])
def test_ranks_together_find_the_same_influence(refitted, dense):
    problem, weight, labels = refitted
    probes, errors = probes_of(problem, weight)
    whole = Curvature.at(problem, weight, dense)
    expected = leave_one_out(whole, probes, errors), self_influence(whole, 10)

    def measure(rank, all_gather):
        start, end = ((0, 60), (60, 100))[rank]
        features = Features(problem.features.values[start:end], start=start, all_gather=all_gather)
        part = HeadProblem(features, label_targets(labels[start:end], CLASSES), PENALTY)
        own = Curvature.at(part, weight, dense)
        return leave_one_out(own, probes, errors), self_influence(own, 10)

    found = on_ranks(2, measure)
    torch.testing.assert_close(torch.cat([f[0] for f in found], 1), expected[0], rtol=1e-5, atol=1e-9)
    together = torch.cat([f[1] for f in found])
    torch.testing.assert_close(together, expected[1], rtol=1e-5, atol=0, equal_nan=True)
