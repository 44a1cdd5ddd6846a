"""Style transfer (Gatys 2016): the content of one image in the style of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrine.analyses import paint
from vitrine.analyses.activations import activations
from vitrine.analyses.base import Analysis, Figure, Progress, Subject, no_progress
from vitrine.analyses.layout import check_layers
from vitrine.analyses.traits import Traits
from vitrine.core.network_scopes import in_eager_eval_mode
from vitrine.core.settings import setting


@in_eager_eval_mode
def transfer(
    network: nn.Module,
    content: Tensor,
    style: Tensor,
    *,
    content_layers: Sequence[str],
    style_layers: Sequence[str],
    content_weight: float = 1.0,
    style_weight: float = 10.0,
    variation_weight: float = 1.0,
    start: str = "content",
    optimizer: str = "lbfgs",
    steps: int = 200,
    lr: float | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Tensor:
    """Images with the activations of the content and the Gram matrices of the style.

    Each layer's squared difference is divided by the squared norm of its target, so that weights are
    comparable between networks and layers. The loss is their weighted mean over layers, plus total
    variation.

    Args:
        network: takes images in [0, 1]; used in eval mode and left unchanged.
        content: [N, C, H, W] in [0, 1].
        style: [1 or N, C, h, w] in [0, 1], of any size that the network takes.
        content_layers: dotted names, whose activations are kept.
        style_layers: dotted names, whose Gram matrices are matched.
        content_weight, style_weight, variation_weight: of the three parts of the loss.
        start: "content" or "noise".
        optimizer: "lbfgs" or "adam", for so many `steps`.
        lr: 1 for L-BFGS (with a line search) and 0.05 for Adam unless given.
        seed: of the noise, the same for each image.

    Returns:
        [N, C, H, W] in [0, 1].

    Raises:
        UnknownName: there is no such layer.
        ValueError: shapes, start or optimizer are not as above.
    """
    if content.ndim != 4 or style.ndim != 4 or len(style) not in (1, len(content)):
        raise ValueError(
            f"content and style have shapes {tuple(content.shape)} and {tuple(style.shape)}, "
            "expected [N, C, H, W] and [1 or N, C, h, w]"
        )
    if start not in ("content", "noise"):
        raise ValueError(f"start is {start!r}, expected 'content' or 'noise'")
    if optimizer not in ("lbfgs", "adam"):
        raise ValueError(f"optimizer is {optimizer!r}, expected 'lbfgs' or 'adam'")
    if not content_layers and not style_layers:
        raise ValueError("content_layers and style_layers are both empty, expected at least one layer")
    layers = list(dict.fromkeys([*content_layers, *style_layers]))
    results = []
    with torch.no_grad():
        content_maps = [activations(network, image[None], layers) for image in content]
        grams = [
            {name: gram(activations(network, s[None], layers)[name]) for name in style_layers} for s in style
        ]
    grams = grams * len(content) if len(grams) == 1 else grams
    evaluations = len(content) * (steps * 5 // 4 if optimizer == "lbfgs" else steps)  # L-BFGS: at most
    ticks = iter(progress(range(evaluations), "style", evaluations))
    for i in range(len(content)):
        image = content[i : i + 1]
        if start == "noise":
            generator = torch.Generator().manual_seed(seed)
            image = (0.5 + 0.1 * torch.randn(image.shape, generator=generator)).to(image)

        def loss(
            pictures: Tensor,
            target_maps: dict[str, Tensor] = content_maps[i],
            target_grams: dict[str, Tensor] = grams[i],
        ) -> Tensor:
            next(ticks, None)
            maps = activations(network, pictures, layers)
            total = variation_weight * total_variation(pictures)
            for name in content_layers:
                error = _relative_error(maps[name], target_maps[name])
                total = total + content_weight / len(content_layers) * error
            for name in style_layers:
                error = _relative_error(gram(maps[name]), target_grams[name])
                total = total + style_weight / len(style_layers) * error
            return total

        results.append(_minimise(loss, image, optimizer, steps, lr))
    return torch.cat(results)


def gram(maps: Tensor) -> Tensor:
    """The Gram matrices [B, C, C] of maps [B, C, h, w]: correlations of channels, averaged over positions."""
    flat = maps.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def total_variation(images: Tensor) -> Tensor:
    """The mean squared difference of neighbouring pixels."""
    down = images.diff(dim=2).square().mean()
    return down + images.diff(dim=3).square().mean()


def _relative_error(values: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(values, target, reduction="sum") / target.square().sum().clamp_min(1e-30)


def _minimise(
    loss: Callable[[Tensor], Tensor], image: Tensor, optimizer: str, steps: int, lr: float | None
) -> Tensor:
    """The image [1, C, H, W] of least loss, parameterized by a sigmoid, from the image given."""
    logits = torch.logit(image, eps=0.01).detach().requires_grad_(True)

    def closure() -> Tensor:
        value = loss(torch.sigmoid(logits))
        (logits.grad,) = torch.autograd.grad(value, logits)  # backward() would fill the parameters' .grad
        return value.detach()

    if optimizer == "lbfgs":
        torch.optim.LBFGS(
            [logits],
            lr or 1.0,
            max_iter=steps,
            tolerance_grad=0,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        ).step(closure)
    else:
        adam = torch.optim.Adam([logits], lr or 0.05)
        for _ in range(steps):
            adam.step(closure)
    return torch.sigmoid(logits.detach())


@dataclass(frozen=True)
class Style(Analysis):
    """Some probes in the style of another: "probe-004/in-the-style-of-001", content, style and result."""

    traits: ClassVar[Traits] = Traits(
        section="Features", title="Style transfer", page_order=110, budget_priority=30
    )
    enabled: bool = setting(False, "make these pictures at every checkpoint")
    contents: list[int] = setting([0], "probes that give the content")
    style: int = setting(1, "the probe that gives the style", least=0)
    content_layers: list[str] = setting([], "the last but one of the analysed layers, unless named")
    style_layers: list[str] = setting([], "all analysed layers but the last, unless named")
    content_weight: float = setting(1.0, "of the content's activations", least=0)
    style_weight: float = setting(10.0, "of the style's Gram matrices", least=0)
    variation_weight: float = setting(1.0, "of the mean squared difference of neighbouring pixels", least=0)
    start: str = setting("content", "the initial image", choices=("content", "noise"))
    optimizer: str = setting("lbfgs", "the optimizer", choices=("lbfgs", "adam"))
    steps: int = setting(100, "of the optimizer", least=1)

    def check(self, network: nn.Module, images: Tensor) -> None:
        check_layers(network, images, self.content_layers, "content_layers")
        check_layers(network, images, self.style_layers, "style_layers")

    def __call__(self, subject: Subject) -> Iterator[Figure]:
        images = subject.probes.images
        invalid = [i for i in (*self.contents, self.style) if not 0 <= i < len(images)]
        if invalid:
            raise ValueError(f"probe {invalid[0]} is asked for, and there are {len(images)}, from 0")
        shallow = subject.layers[:-1] or subject.layers
        content, style = images[self.contents], images[self.style][None]
        names = ("content_weight", "style_weight", "variation_weight", "start", "optimizer", "steps")
        results = transfer(
            subject.network,
            content,
            style,
            content_layers=self.content_layers or shallow[-1:],
            style_layers=self.style_layers or shallow,
            **{name: getattr(self, name) for name in names},
            seed=subject.seed,
            progress=subject.progress,
        )
        for probe, image, result in zip(self.contents, content, results):
            image = paint.row([paint.picture(p) for p in (image, style[0], result)])
            key = f"probe-{probe:03d}/in-the-style-of-{self.style:03d}"
            yield Figure(key, image, f"probe {probe} in the style of probe {self.style}", probe=probe)
