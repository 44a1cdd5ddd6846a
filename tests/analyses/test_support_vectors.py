"""Duals of a linear network beside the support vectors of a linear SVM.

With a penalty that goes to 0, logistic regression on two separable classes turns to the hard margin's
separating hyperplane (Rosset 2003), and its duals, which fall off exponentially with the distance from the
margin, to the SVM's: only images on the margin keep one. Towards the limit, as the penalty is never 0,
some images just beyond the margin stand above the least of the support vectors.
"""

import pytest
import torch
from sklearn.svm import SVC
from torch import Tensor
from torch.nn import functional as F

from vitrine.analyses.head import head_inputs, linear_head
from vitrine.analyses.head_features import Features
from vitrine.analyses.head_fit import HeadProblem, fit_head, label_targets
from vitrine.modules import load_network


def separable(seed: int) -> tuple[Tensor, Tensor]:
    """240 images [N, 1, 6, 6] of two classes, one on each side of a hyperplane with a gap."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(240) % 2
    normal = F.normalize(torch.randn(36, generator=draw), dim=0)
    points = torch.randn(240, 36, generator=draw)
    points -= (points @ normal)[:, None] * normal
    points += ((2 * labels - 1) * (0.5 + 2 * torch.rand(240, generator=draw)))[:, None] * normal
    return (0.5 + 0.08 * points).clamp(0, 1).view(-1, 1, 6, 6), labels


def trained(images: Tensor, labels: Tensor) -> torch.nn.Module:
    options = {"classes": 2, "channels": 1, "image_size": 6}
    network = load_network("perceptron", mean=(0.5,), std=(0.08,), **options)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    assert (network(images).argmax(1) == labels).float().mean() > 0.98
    return network


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_largest_duals_are_the_support_vectors(seed):
    images, labels = separable(seed)
    network = trained(images, labels)
    head = linear_head(network, images)
    [(read, _, _)] = head_inputs(network, head, [(images, labels)])

    svm = SVC(kernel="linear", C=1e6).fit(read.numpy(), labels.numpy())
    support = torch.tensor(svm.support_.tolist())
    of_svm = torch.zeros(240, dtype=torch.float64)
    of_svm[support] = torch.tensor(svm.dual_coef_[0].tolist()).abs().double()

    overlaps = []
    for penalty in (1e-3, 1e-9):
        problem = HeadProblem(Features(read), label_targets(labels, 2), penalty)
        weight = fit_head(problem, head.augmented)
        duals = problem.duals(slice(None), problem.features[:], weight).norm(dim=1)
        largest = duals.argsort(descending=True)
        overlaps.append(torch.isin(largest[: len(support)], support).double().mean())
    assert 20 < len(support) < 60
    assert overlaps[1] >= 0.85 and overlaps[1] > overlaps[0]
    assert torch.isin(largest[: len(support) // 2], support).all()
    assert duals[support].sum() > 0.85 * duals.sum()
    assert torch.corrcoef(torch.stack([duals, of_svm]))[0, 1] > 0.9
    across = (weight[1] - weight[0])[:-1]
    assert F.cosine_similarity(across, torch.tensor(svm.coef_[0].tolist()).double(), dim=0) > 0.998
