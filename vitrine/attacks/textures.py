"""Adversarial textures of objects in three dimensions: EOT over views (Athalye 2018)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrine.attacks.lab import root_mean_square, to_lab
from vitrine.attacks.threat import eps_setting
from vitrine.core import settings
from vitrine.core.network_output import as_logits
from vitrine.core.network_scopes import frozen_weights
from vitrine.core.random_numbers import fold_in, make_key
from vitrine.core.settings import setting
from vitrine.objects.mesh import Mesh
from vitrine.objects.rasterize import Lookup, rasterize
from vitrine.objects.render import SAMPLES, shade
from vitrine.objects.views import ViewDistribution, Views, draw_views

_HALVINGS = 12  # of the way back into a ball of CIELAB
_AT_ONCE = 64  # views through renderer and network in one pass, where nothing is differentiated


TEXELS = "texels are in [0, 1]: did you mean {value:g}/255?"  # advice on a budget of more than 1


@dataclass(frozen=True)
class TextureAttack:
    """A texture that makes a network see another class in an object, from any side and in any light.

    Ascent on the mean log probability over random views, with momentum (Dong 2018): in Linf along the signs,
    in CIELAB along the gradient. The result is within the budget of the texture, and in [0, 1].
    """

    norm: str = setting(
        "linf", "of the change of the texture: linf, or lab (root mean square)", choices=("linf", "lab")
    )
    eps: float = eps_setting(
        64 / 255,
        "largest change: of [0, 1] texels, or in lab of CIELAB's units, of which an eye notices about 2.3",
        above=0,
        advice=TEXELS,
    )
    steps: int = setting(150, "of ascent", least=1)
    draws: int = setting(24, "random views a step", least=1)
    one_view: bool = setting(False, "attack a single view, the same at every step: what a plain attack does")
    targeted: bool = setting(True, "towards a class rather than away from it")
    views: ViewDistribution = setting(ViewDistribution().without_colour(), "what views are drawn from")
    samples: int = setting(1, "points a pixel, along each side, while the attack looks", least=1, most=4)
    seed: int = setting(0, "of the views", least=0, most=2**63 - 1)

    def __post_init__(self) -> None:
        settings.check(self)

    def __call__(
        self,
        network: nn.Module,
        mesh: Mesh,
        texture: Tensor,
        label: int,
        size: int,
        progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    ) -> Tensor:
        """The adversarial texture, [3, T, T].

        Args:
            network: takes images [N, 3, size, size] in [0, 1].
            texture: [3, T, T] in [0, 1].
            label: the target; of an untargeted attack the class to get away from.
            progress: what to wrap the steps in.

        Raises:
            ValueError: the texture or the label is not what they should be.
        """
        check_texture(texture)
        sign, ball = (1 if self.targeted else -1), TextureBall(texture, self.norm, self.eps)
        point, momentum = texture, torch.zeros_like(texture)
        device = texture.device
        with frozen_weights(network, device):
            for step in progress(range(self.steps)):
                if step == 0 or not self.one_view:
                    views, lookup = self._look(mesh, step, size)
                with torch.enable_grad():
                    texels = point.detach().requires_grad_()
                    logits = as_logits(network(shade(lookup, texels[None], views, self.samples)))
                    if not 0 <= label < logits.shape[1]:
                        raise ValueError(f"label: is {label}, expected 0 to {logits.shape[1] - 1}")
                    value = -sign * F.cross_entropy(
                        logits.float(), torch.full((len(logits),), label, device=device)
                    )
                    (gradient,) = torch.autograd.grad(value, texels)
                momentum = 0.9 * momentum + gradient / gradient.abs().mean().clamp(min=1e-30)
                point = ball.step(point, momentum, 1 - step / self.steps)
        return point.detach()

    def _look(self, mesh: Mesh, step: int, size: int) -> tuple[Views, Lookup]:
        """The views of a step, and what they show."""
        keys = torch.arange(1) if self.one_view else torch.arange(self.draws) + step * self.draws
        views = draw_views(fold_in(torch.tensor(make_key(self.seed, 0)), keys), self.views)
        return views, rasterize(mesh, views.rotations, views.positions, size * self.samples)


class TextureBall:
    """The textures within a budget of one, `norm` "linf" or "lab", and in [0, 1]."""

    def __init__(self, texture: Tensor, norm: str, eps: float):
        self.texture, self.norm, self.eps = texture, norm, eps
        self.lab = to_lab(texture) if norm == "lab" else None

    def step(self, point: Tensor, direction: Tensor, size: float) -> Tensor:
        """A step of ascent, projected; its size is in eighths of the budget."""
        if self.norm == "linf":
            return self.project(point + self.eps / 8 * size * direction.sign())
        # in [0, 1] texels a hundredth is about one unit of lightness
        length = direction.square().mean().sqrt().clamp(min=1e-30)
        return self.project(point + self.eps / 100 / 4 * size * direction / length)

    def project(self, point: Tensor) -> Tensor:
        """The point itself if it is allowed; in CIELAB otherwise on the way back to the texture."""
        if self.norm == "linf":
            return point.clamp(self.texture - self.eps, self.texture + self.eps).clamp(0, 1)
        point = point.clamp(0, 1)
        if self._distance(point) <= self.eps:
            return point
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            inside = self._distance(torch.lerp(self.texture, point, middle)) <= self.eps
            low, high = (middle, high) if inside else (low, middle)
        return torch.lerp(self.texture, point, low).clamp(0, 1)

    def _distance(self, point: Tensor) -> Tensor:
        return root_mean_square(to_lab(point) - self.lab)


def predict_views(
    network: nn.Module, mesh: Mesh, textures: Sequence[Tensor], views: Views, size: int
) -> list[Tensor]:
    """The probabilities [N, K] that a network gives an object from N views, for each texture [3, T, T]."""
    found: list[list[Tensor]] = [[] for _ in textures]
    for first in range(0, len(views.keys), _AT_ONCE):
        some = views[first : first + _AT_ONCE]
        for probabilities, (_, of_these) in zip(found, look_at(network, mesh, textures, some, size)):
            probabilities.append(of_these)
    return [torch.cat(probabilities) for probabilities in found]


def look_at(
    network: nn.Module, mesh: Mesh, textures: Sequence[Tensor], views: Views, size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each texture [3, T, T] the pictures [N, 3, size, size] from N views, and the probabilities [N, K]
    that a network gives them. Where the object is in a picture is found once."""
    lookup = rasterize(mesh, views.rotations, views.positions, size * SAMPLES)
    for texture in textures:
        with frozen_weights(network, texture.device), torch.no_grad():
            pictures = shade(lookup, texture[None], views)
            probabilities = as_logits(network(pictures)).float().softmax(1)
        yield pictures, probabilities


def held_out_views(count: int, distribution: ViewDistribution, seed: int = 0) -> Views:
    """Views that no attack of that seed has seen."""
    return draw_views(fold_in(torch.tensor(make_key(seed, 1)), torch.arange(count)), distribution)


def check_texture(texture: Tensor) -> None:
    """Raise ValueError unless a texture is [3, T, T] in [0, 1]."""
    if texture.ndim != 3 or len(texture) != 3:
        raise ValueError(f"texture: is {list(texture.shape)}, expected [3, height, width]")
    if not (texture.min() >= 0 and texture.max() <= 1):
        raise ValueError(
            f"texture: lies between {texture.min():.3g} and {texture.max():.3g}, expected 0 to 1"
        )
