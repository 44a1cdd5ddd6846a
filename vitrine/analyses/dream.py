"""Deep dream (Mordvintsev 2015): an image changed until a layer sees more of what it sees in it already."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrine.analyses import paint
from vitrine.analyses.activations import activations
from vitrine.analyses.base import Analysis, Figure, Progress, Subject, no_progress
from vitrine.analyses.gradients import NoGradient, gradient
from vitrine.analyses.layout import check_layers
from vitrine.analyses.objectives import Objective, ObjectiveBatch, deepdream
from vitrine.analyses.picture_size import Size, sides
from vitrine.analyses.traits import Traits
from vitrine.core.network_scopes import in_eager_eval_mode
from vitrine.core.random_numbers import hash_seed
from vitrine.core.settings import setting

log = logging.getLogger(__name__)


@in_eager_eval_mode
def dream(
    network: nn.Module,
    images: Tensor,
    objective: str | Objective,
    *,
    octaves: int = 4,
    ratio: float = 1.4,
    steps: int = 10,
    step_size: float = 0.006,
    jitter: int = 32,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Tensor:
    """Deep dreams: gradient ascent on an objective, first on a small copy of the images, then on larger ones.

    Each image has random numbers of its own, from the seed and its content.

    Args:
        network: takes images in [0, 1]; used in eval mode and left unchanged.
        images: [N, C, H, W] in [0, 1], photographs or `noise`.
        objective: a layer's name, for the mean of its squared activations, or any objective.
        octaves: number of sizes; the last is the images' own.
        ratio: of a size to the one before.
        steps: at each size.
        step_size: mean change of a pixel a step.
        jitter: pixels; images are rolled by up to so many either way at each step.

    Returns:
        [N, C, H, W] in [0, 1].

    Raises:
        UnknownName: there is no such layer.
        NoGradient (a ValueError): the network lets none flow back.
        ValueError: an argument is out of range, or the network does not take images of an octave's size.
    """
    if images.ndim != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}, expected [N, C, H, W]")
    if octaves < 1 or steps < 1 or not ratio > 1:
        raise ValueError(
            f"octaves, steps and ratio are {octaves}, {steps}, {ratio}, expected >= 1, >= 1 and > 1"
        )
    objective = deepdream(objective) if isinstance(objective, str) else objective
    batch = ObjectiveBatch([objective] * len(images))
    generators = [torch.Generator().manual_seed(_image_seed(image, seed)) for image in images]
    height, width = images.shape[-2:]
    scales = [ratio**i for i in reversed(range(octaves))]
    sizes = [(max(1, round(height / scale)), max(1, round(width / scale))) for scale in scales]
    detail = torch.zeros_like(images[:, :, :1, :1])
    for size in progress(sizes, "dream", len(sizes)):
        base = _resize(images, size)
        dreams = base + _resize(detail, size)
        for _ in range(steps):
            shifts = [torch.randint(-jitter, jitter + 1, (2,), generator=g).tolist() for g in generators]
            rolled = _roll(dreams, shifts).requires_grad_(True)
            try:
                scores = batch.scores_from_maps(activations(network, rolled, batch.layers))
            except (RuntimeError, AssertionError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                raise ValueError(
                    f"octaves: one is {size[0]} x {size[1]} pixels, which the network does not take; "
                    "dream of a larger image or in fewer octaves"
                ) from error
            slope = gradient(scores.sum(), rolled, batch.read)
            slope = slope / slope.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-30)
            inverse_shifts = [(-down, -right) for down, right in shifts]
            dreams = (dreams + step_size * _roll(slope, inverse_shifts)).clamp(0, 1)
        detail = dreams - base
    return dreams


def noise(count: int, size: Size, channels: int = 3, seed: int = 0) -> Tensor:
    """Grey images with a little noise, to start from: [count, channels, height, width] in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return (0.5 + 0.05 * torch.randn(count, channels, *sides(size), generator=generator)).clamp(0, 1)


@dataclass(frozen=True)
class Dream(Analysis):
    """Deep dreams of layers on the probes: "<layer>/probe-004", the image beside the dream."""

    traits: ClassVar[Traits] = Traits(
        section="Features", title="Deep dreams", page_order=100, budget_priority=40
    )
    enabled: bool = setting(False, "make these pictures at every checkpoint")
    layers: list[str] = setting([], "layers to maximise; the deepest two of the analysed ones, unless named")
    probes: int = setting(2, "number of probes", least=0)
    from_noise: bool = setting(False, "also start from noise")
    size: int | None = setting(None, "pixels on a side; the probes' own unless given", least=16)
    octaves: int = setting(3, "number of sizes, the last being the full one", least=1)
    ratio: float = setting(1.4, "of a size to the one before", above=1)
    steps: int = setting(10, "of gradient ascent at each size", least=1)
    step_size: float = setting(0.006, "mean change of a pixel a step, of 1", above=0)
    jitter: int = setting(16, "pixels an image is rolled by, at most", least=0)

    def check(self, network: nn.Module, images: Tensor) -> None:
        check_layers(network, images, self.layers, "layers")

    def __call__(self, subject: Subject) -> Iterator[Figure]:
        images = subject.probes.images[: self.probes]
        if self.size is not None:
            images = _resize(images, (self.size, self.size))
        if self.from_noise:
            _, channels, *shape = subject.probes.images.shape
            grey = noise(1, self.size or tuple(shape), channels, subject.seed).to(images.device)
            images = torch.cat([images, grey])
        names = ("octaves", "ratio", "steps", "step_size", "jitter")
        options = {name: getattr(self, name) for name in names}
        options |= {"seed": subject.seed, "progress": subject.progress}
        for layer in self.layers or subject.layers[-2:]:
            try:
                dreams = dream(subject.network, images, layer, **options)
            except NoGradient as error:
                log.log(subject.log_level("dream"), "dream: %s", error)
                continue
            for i, (image, result) in enumerate(zip(images, dreams)):
                probe = i if i < min(self.probes, len(subject.probes)) else None
                source = "noise" if probe is None else f"probe {probe}"
                pair = paint.row([paint.picture(image), paint.picture(result)])
                key = f"{layer}/noise" if probe is None else f"{layer}/probe-{probe:03d}"
                yield Figure(key, pair, f"{source}, as {layer} dreams it", layer=layer, probe=probe)


def _image_seed(image: Tensor, seed: int) -> int:
    content = image.detach().float().cpu().contiguous().numpy().tobytes()
    return hash_seed(str(seed).encode() + content)


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def _roll(images: Tensor, shifts: list[list[int]] | list[tuple[int, int]]) -> Tensor:
    return torch.stack([image.roll(tuple(shift), (1, 2)) for image, shift in zip(images, shifts)])
