import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrine.attacks.lab import lab_distance, to_lab
from vitrine.attacks.textures import TextureAttack, held_out_views, predict_views
from vitrine.core.random_numbers import fold_in, make_key
from vitrine.core.settings import SettingError
from vitrine.objects import shapes
from vitrine.objects.render import render
from vitrine.objects.views import ViewDistribution, draw_views

PLAIN = ViewDistribution(darkest=0.5, brightest=0.5).without_colour()
SIZE = 16


class Colour(nn.Module):
    """Red where there is more red than blue, else blue."""

    def forward(self, images):
        red, _, blue = images.mean((2, 3)).unbind(1)
        return torch.stack([red - blue, blue - red], 1) * 50


@pytest.fixture(scope="module")
def texture() -> torch.Tensor:
    texture = 0.4 + 0.2 * torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
    texture[0] += 0.05  # it is red
    return texture


def hits(texture: torch.Tensor, target: int = 1) -> float:
    views = held_out_views(24, PLAIN)
    (probabilities,) = predict_views(Colour(), shapes.make("cube"), [texture], views, SIZE)
    return (probabilities.argmax(1) == target).float().mean().item()


def test_the_first_step_follows_the_mean_gradient_over_its_views(texture):
    attack = TextureAttack(steps=1, draws=3, views=PLAIN, eps=0.08, seed=5)
    ended = attack(Colour(), shapes.make("cube"), texture, 1, SIZE)
    views = draw_views(fold_in(torch.tensor(make_key(5, 0)), torch.arange(3)), PLAIN)
    texels = texture.clone().requires_grad_()
    logits = Colour()(render(shapes.make("cube"), texels[None], views, SIZE, samples=1))
    F.cross_entropy(logits, torch.ones(3, dtype=torch.long)).backward()
    torch.testing.assert_close(ended, texture - 0.01 * texels.grad.sign())


@pytest.mark.parametrize("norm, eps", [("linf", 0.06), pytest.param("lab", 6.0, marks=pytest.mark.slow)])
def test_it_holds_in_views_it_has_not_seen_where_one_view_does_not(texture, norm, eps):
    attack = {"norm": norm, "eps": eps, "steps": 25, "draws": 6, "views": PLAIN}
    everywhere = TextureAttack(**attack)(Colour(), shapes.make("cube"), texture, 1, SIZE)
    one = TextureAttack(**attack, one_view=True)(Colour(), shapes.make("cube"), texture, 1, SIZE)
    assert hits(texture) == 0 and hits(everywhere) > 0.95 and hits(one) < 0.7
    for ended in (everywhere, one):
        assert ended.min() >= 0 and ended.max() <= 1
        if norm == "linf":
            assert (ended - texture).abs().max() <= eps + 1e-6
        else:
            assert lab_distance(ended, texture) <= eps + 1e-4
    assert ((one - texture).abs().amax(0) == 0).float().mean() > 0.2, "what the view does not show stays"


def test_untargeted_it_gets_away_from_a_class(texture):
    attack = TextureAttack(eps=0.08, steps=15, draws=6, views=PLAIN, targeted=False)
    assert hits(attack(Colour(), shapes.make("cube"), texture, 0, SIZE)) > 0.95


def test_it_leaves_the_network_alone_and_says_the_same_again(texture):
    network = nn.Sequential(Colour(), nn.Linear(2, 2), nn.Dropout(0.5)).train()
    attack = TextureAttack(steps=2, draws=2, views=PLAIN)
    first, second = (attack(network, shapes.make("cube"), texture, 1, SIZE) for _ in range(2))
    assert torch.equal(first, second) and network.training and network[1].weight.grad is None


def test_lab_is_that_of_known_colours():
    """White, black, red and blue of sRGB under D65 (Lindbloom's tables)."""
    colours = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]])[:, :, None, None]
    expected = torch.tensor(
        [[100, 0, 0], [0, 0, 0], [53.2408, 80.0925, 67.2032], [32.2970, 79.1875, -107.8602]]
    )
    torch.testing.assert_close(to_lab(colours)[..., 0, 0], expected, atol=0.02, rtol=0)
    grey = to_lab(torch.zeros(3, 1, 1, requires_grad=True))
    assert torch.autograd.grad(grey.sum(), grey)[0].isfinite().all()
    images = torch.rand(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(to_lab, images.requires_grad_())


@pytest.mark.parametrize("wrong", [torch.rand(1, 3, 4, 4), torch.rand(1, 4, 4), torch.full((3, 4, 4), 1.5)])
def test_a_wrong_texture_is_refused(wrong):
    with pytest.raises(ValueError, match=r"^texture: "):
        TextureAttack(steps=1)(Colour(), shapes.make("cube"), wrong, 1, SIZE)


def test_a_wrong_label_and_a_wrong_budget_are_refused(texture):
    with pytest.raises(ValueError, match="label: is 2, expected 0 to 1"):
        TextureAttack(steps=1, draws=1)(Colour(), shapes.make("cube"), texture, 2, SIZE)
    with pytest.raises(SettingError, match=r"eps: is 32, expected at most 1; .*did you mean 32/255"):
        TextureAttack(eps=32)
