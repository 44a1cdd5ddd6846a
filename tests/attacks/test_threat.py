import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitrine import attacks
from vitrine.attacks.threat import L2, Linf, norm_ball, violations
from vitrine.core.settings import SettingError

norms = st.sampled_from(["linf", "l2"])
budgets = st.floats(1e-4, 2.0)
seeds = st.integers(0, 2**31)


def pixels(seed: int) -> torch.Tensor:
    """Images with many pixels at or near the borders."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(3, 3, 6, 6, generator=generator) * 1.4 - 0.2).clamp(0, 1)


@settings(max_examples=60, deadline=None)
@given(norms, budgets, seeds)
def test_nothing_leaves_the_ball_or_the_range(norm, eps, seed):
    images = pixels(seed)
    ball = norm_ball(images, norm, eps)
    keys = torch.arange(3) + seed
    wild = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(seed + 1)) * 3
    gradient = wild - images
    for points in (
        ball.project(wild),
        ball.random_point(keys),
        ball.step(ball.random_point(keys), gradient, 3 * eps),
    ):
        assert not violations(images, points, norm, eps).any()


@pytest.mark.parametrize("eps", [3.0, 5.0])
def test_the_l2_ball_of_large_images_is_not_left(eps, images):
    """A hundred thousand squares, added in float32 one by one, are off by more than the slack."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    network[2].weight.data = torch.tensor([[0.6, 0.9, 0.7], [0, 0, 0]])
    pictures, labels = images(2, 3, 224, 224, low=0.25, high=0.75), torch.tensor([0, 1])
    adversarial = attacks.FGSM(norm="l2", eps=eps)(network, pictures, labels)
    assert not violations(pictures, adversarial, "l2", eps).any()
    size = (adversarial.double() - pictures.double()).flatten(1).norm(dim=1)
    torch.testing.assert_close(size, torch.full_like(size, eps), rtol=1e-5, atol=0)


@settings(max_examples=30, deadline=None)
@given(norms, budgets, seeds)
def test_projection_leaves_allowed_images_alone(norm, eps, seed):
    images = pixels(seed)
    ball = norm_ball(images, norm, eps)
    inside = ball.project(images + 0.3 * eps * (2 * ball.random_point(torch.arange(3)) - 1))
    torch.testing.assert_close(ball.project(inside), inside, atol=2e-6, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_step_is_the_steepest_of_its_size(norm):
    images, gradient = torch.full((1, 1, 2, 2), 0.5), torch.tensor([[[[3.0, -4.0], [0.0, 0.0]]]])
    change = norm_ball(images, norm, 1.0).step(images, gradient, 0.1) - images
    expected = {"linf": [0.1, -0.1, 0, 0], "l2": [0.06, -0.08, 0, 0]}[norm]
    torch.testing.assert_close(change.flatten(), torch.tensor(expected))


def test_tiny_gradients_still_point_somewhere():
    images, gradient = torch.full((1, 1, 1, 2), 0.5), torch.tensor([[[[3e-30, 4e-30]]]])
    change = norm_ball(images, "l2", 1.0).step(images, gradient, 0.1) - images
    torch.testing.assert_close(change.flatten(), torch.tensor([0.06, 0.08]))


@pytest.mark.parametrize(("norm", "ball"), [("linf", Linf), ("l2", L2)])
def test_rows_of_a_ball_are_the_ball_of_the_rows(norm, ball, images):
    pictures = images(4, 1, 3, 3)
    rows, wild = torch.tensor([2, 0]), images(2, 1, 3, 3, seed=1) * 4
    whole = ball(pictures, 0.1)[rows]
    assert torch.equal(whole.project(wild), ball(pictures[rows], 0.1).project(wild))


def test_what_is_not_allowed_is_seen():
    images = torch.full((5, 1, 2, 2), 0.5)
    changed = images.clone()
    changed[0] += 0.1 * (1 + 1e-5)
    changed[1] += 0.1
    changed[2, 0, 0, 0] = torch.nan
    changed[3, 0, 0, 0] = 1.01
    assert violations(images, changed, "linf", 0.1).tolist() == [True, False, True, True, False]
    assert violations(images, changed, "l2", 0.3).tolist() == [False, False, True, True, False]
    assert violations(images, changed, "l2", None).tolist() == [False, False, True, True, False]
    assert violations(images, changed, "l2", 0.2).tolist()[0]


def test_a_budget_in_levels_of_255_is_refused_with_what_may_be_meant():
    with pytest.raises(SettingError, match=r"eps: is 8, expected at most 1; .*did you mean 8/255\?"):
        attacks.PGD(eps=8)
    assert attacks.PGD(norm="l2", eps=3).eps == 3
    assert attacks.PGD(eps=1).eps == 1
