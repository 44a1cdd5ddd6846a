"""Each probe beside all its maps, for the predicted and for the true class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.attribution import Effort, attributions, cam_layer, strength, technique
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.picture_table import picture_table
from vitrine.analyses.traits import Traits
from vitrine.core.settings import setting

TITLES = {
    "gradient": "gradient (signed, and its magnitude)",
    "guided_backprop": "guided backprop",
    "deconvnet": "deconvnet",
    "smooth_grad": "SmoothGrad",
    "integrated_gradients": "integrated gradients",
    "grad_cam": "Grad-CAM",
    "guided_grad_cam": "Guided Grad-CAM",
    "occlusion": "occlusion",
}
CAUTIONS = {
    "guided_backprop": "Guided backprop hardly depends on the higher layers (Adebayo 2018).",
    "deconvnet": "Without max pooling, deconvnet does not depend on the image (Springenberg 2015).",
}


@dataclass(frozen=True)
class Saliency(Analysis):
    """What in each probe speaks for a class, by every technique, in one row."""

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Class maps",
        page_order=60,
        confidences={"probability": ""},
        budget_priority=100,
    )
    probes: int = setting(8, "probes shown, the first ones", least=1)
    maps: list[str] = setting(
        [
            "gradient",
            "guided_backprop",
            "deconvnet",
            "smooth_grad",
            "integrated_gradients",
            "guided_grad_cam",
            "occlusion",
        ],
        f"techniques, left to right: {', '.join(TITLES)}",
    )
    copies: int = setting(16, "SmoothGrad: noisy copies (the paper's: 50)", least=1)
    sigma: float = setting(0.15, "SmoothGrad: standard deviation of the noise, in pixel values", least=0)
    steps: int = setting(16, "integrated gradients: points on the way (the paper's: 50)", least=1)
    baseline: float = setting(
        0.5, "integrated gradients, occlusion: the pixel value of nothing", least=0, most=1
    )
    patch: float = setting(0.25, "occlusion: the square's side, as a share of the image's", above=0, most=1)

    def __post_init__(self) -> None:
        for name in self.maps:
            technique(name)  # an unknown one is told now, not at the first checkpoint

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        shown = range(min(self.probes, len(subject.probes)))
        yield from subject.map_sharded(shown, partial(self._figures, subject))

    def _figures(self, subject: Subject, numbers: Sequence[int]) -> Iterator[Figure]:
        images, labels = subject.probes.images[list(numbers)], subject.probes.labels[list(numbers)]
        with torch.no_grad():
            probabilities = subject.network(images).softmax(1)
        predicted = probabilities.argmax(1)
        wrong = (predicted != labels).nonzero()[:, 0]
        rows, order = torch.cat([torch.arange(len(images), device=images.device), wrong]).sort(stable=True)
        targets = torch.cat([labels, predicted[wrong]])[order]
        effort = Effort(self.copies, self.sigma, self.steps, self.baseline, self.patch, subject.seed)
        maps = attributions(subject.network, self.maps, images[rows], targets, cam_layer(subject), effort)
        for i, (row, target) in enumerate(zip(rows.tolist(), targets.tolist())):
            probe, confidence = numbers[row], probabilities[row, target].item()
            roles = {"true": labels[row] == target, "predicted": predicted[row] == target}
            role = " and ".join(name for name, holds in roles.items() if holds)
            tiles, values = {"image": paint.picture(images[row])}, {"probability": confidence}
            for name, found in maps.items():
                painted, values[name] = _painted(name, found[i])
                title = TITLES[name].split(" (")[0]
                tiles |= dict(zip((title, f"{title}, magnitude"), painted))
            titles = ", ".join(["image", *(TITLES[name] for name in maps)])
            cautions = [CAUTIONS[name] for name in maps if name in CAUTIONS]
            yield Figure(
                key=f"probe-{probe:03d}/{subject.classes[target]}",
                image=picture_table(
                    [[paint.resize(tile, tile_side(images.shape[-2:])) for tile in tiles.values()]],
                    list(tiles),
                    [f"{subject.classes[target]} {confidence:.0%}"],
                ),
                caption=f"probe {probe}, {subject.classes[target]} ({role}, {confidence:.0%}): "
                f"{' '.join([titles + '.', *cautions])}",
                probe=probe,
                label=target,
                values=values,
            )


def _painted(name: str, values: Tensor) -> tuple[list[Tensor], float]:
    """The tiles of a map [C, H, W] or [H, W], and what is full brightness in them."""
    if name in ("integrated_gradients", "occlusion"):  # for the class red, against it blue
        evidence = values if values.ndim == 2 else values.sum(0)
        scale = bright(evidence)
        return [paint.colorize(evidence / (2 * scale) + 0.5, "RdBu_r")], scale
    if name == "grad_cam":
        scale = values.max().item() or 1.0
        return [paint.colorize(values / scale)], scale
    magnitude = strength(name, values[None])[0]
    scale = bright(magnitude)
    tile = paint.colorize(magnitude / scale, "gray")
    if name == "smooth_grad":
        return [tile], scale
    signed = paint.signed_picture(values, scale)
    return ([signed, tile] if name == "gradient" else [signed]), scale


def bright(values: Tensor) -> float:
    """The 99th percentile of the magnitudes, so that a few pixels do not darken all the others."""
    magnitudes = values.abs().flatten()
    scale = magnitudes.kthvalue(max(1, round(0.99 * magnitudes.numel()))).values.item()
    return scale or magnitudes.max().item() or 1.0


def tile_side(size: tuple[int, ...]) -> int:
    """Pixels a side of a tile: the image's, small images enlarged by whole pixels to about 128."""
    side = max(size)
    return side * max(1, round(128 / side))
