import numpy as np
import pytest
import torch
from scipy.optimize import minimize as scipy_minimize
from torch import nn

from vitrine.attacks import LBFGS, is_adversarial
from vitrine.attacks.quasi_newton import minimize


def test_finds_nearly_the_smallest_perturbation_of_a_linear_network(linear, images, own_labels):
    network, pictures = linear(), images(10, 1, 1, 12, low=0.3, high=0.7).double()
    labels = own_labels(network, pictures)
    ended = LBFGS(searches=14)(network, pictures, labels)
    assert is_adversarial(network, ended, labels).all()
    w = (network[1].weight[0] - network[1].weight[1]).detach()
    logits = network(pictures).detach()
    nearest = (logits[:, 0] - logits[:, 1]).abs() / w.norm()
    found = (ended - pictures).flatten(1).norm(dim=1)
    assert (found >= nearest - 1e-9).all()
    assert (found <= nearest * 1.1 + 1e-3).all()


def test_targeted_reaches_its_target(convnet, images, own_labels):
    pictures = images(5, 3, 8, 8)
    targets = (own_labels(convnet, pictures) + 2) % 5
    ended = LBFGS(targeted=True, searches=6, steps=30)(convnet, pictures, targets)
    assert is_adversarial(convnet, ended, targets, targeted=True).all()


def test_statistics_of_the_batch_are_always_of_all_images(images):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 5)
    )
    sizes, pictures = [], images(6, 3, 8, 8)
    labels = network(pictures).argmax(1)
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    ended = LBFGS(mode="train", searches=4, steps=10)(network, pictures, labels)
    assert set(sizes[1:]) == {6}  # the first: whether the network writes into its input
    assert (ended != pictures).any()


@pytest.mark.slow
def test_a_budget_leaves_out_what_is_farther(convnet, images, own_labels):
    pictures = images(8, 3, 8, 8)
    labels = own_labels(convnet, pictures)
    sizes = (LBFGS(searches=5, steps=20)(convnet, pictures, labels) - pictures).flatten(1).norm(dim=1)
    eps = sizes.median().item()
    ended = LBFGS(searches=5, steps=20, eps=eps)(convnet, pictures, labels)
    assert torch.equal((ended != pictures).flatten(1).any(1), sizes <= eps)


@pytest.mark.slow
def test_an_image_beside_others_ends_where_it_does_alone():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(48, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16), torch.nn.ReLU()]
    network = torch.nn.Sequential(torch.nn.Flatten(), *layers, torch.nn.Linear(16, 5)).double()
    for parameter in network.parameters():
        parameter.data *= 2
    pictures = torch.rand(12, 3, 4, 4, dtype=torch.float64)  # some get stuck long before the others
    labels = network(pictures).argmax(1)
    together = LBFGS()(network, pictures, labels)
    alone = [LBFGS()(network, pictures[i : i + 1], labels[i : i + 1]) for i in range(12)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-9)


def test_minimises_in_the_box_as_scipy_does():
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(4, 6, 6, generator=generator, dtype=torch.float64)
    hessians = factors @ factors.mT + 0.3 * torch.eye(6)
    centres = torch.rand(4, 6, generator=generator, dtype=torch.float64) * 2 - 0.5  # many outside of the box

    def objective(points, rows):
        away = points.flatten(1) - centres[rows]
        pull = (hessians[rows] @ away[:, :, None])[:, :, 0]
        return (away * pull).sum(1) / 2, pull.view(points.shape)

    start = torch.full((4, 1, 2, 3), 0.5, dtype=torch.float64)
    found = minimize(objective, start, steps=200, memory=8).flatten(1)
    for point, hessian, centre in zip(found.numpy(), hessians.numpy(), centres.numpy()):

        def value(x, hessian=hessian, centre=centre):
            return (x - centre) @ hessian @ (x - centre) / 2

        answer = scipy_minimize(value, np.full(6, 0.5), bounds=[(0, 1)] * 6, tol=1e-12)
        assert value(point) <= answer.fun + 1e-5
