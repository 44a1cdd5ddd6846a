"""Each probe beside its attribution maps, for the predicted and for the true class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.attribution import TECHNIQUES, Effort, attributions_by_image, cam_layer, importance
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.picture_table import picture_table
from vitrine.analyses.target_scores import true_and_predicted
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
    "legrad": "LeGrad",
    "chefer": "Chefer's relevance",
    "attention_gradient": "attention x gradient",
    "rollout": "attention rollout",
}
COARSE = (
    "grad_cam",
    "legrad",
    "chefer",
    "attention_gradient",
    "rollout",
)  # which analyses cam and relevance show
CAUTIONS = {
    "guided_backprop": "Guided backprop hardly depends on the higher layers (Adebayo 2018).",
    "deconvnet": "Without max pooling, deconvnet does not depend on the image (Springenberg 2015).",
}


@dataclass(frozen=True)
class Saliency(Analysis):
    """Each probe and its attribution maps for the true and the predicted class, in one row."""

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Class maps", page_order=60, confidences={"probability": ""}, budget_priority=100
    )
    probes: int = setting(8, "probes shown, the first ones", least=1)
    maps: list[str] = setting(
        [name for name in TITLES if name not in COARSE],
        f"techniques, left to right: {', '.join(TITLES)}",
    )
    copies: int = setting(16, "SmoothGrad: noisy copies (the paper's: 50)", least=1)
    sigma: float = setting(0.15, "SmoothGrad: standard deviation of the noise, in pixel values", least=0)
    steps: int = setting(16, "integrated gradients: points of the path (the paper's: 50)", least=1)
    baseline: float = setting(0.5, "integrated gradients, occlusion: pixel value of nothing", least=0, most=1)
    patch: float = setting(0.25, "occlusion: the square's side, as a share of the image's", above=0, most=1)

    def __post_init__(self) -> None:
        for name in self.maps:
            TECHNIQUES.check(name)  # raises for an unknown name now, not at the first checkpoint

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        probes = range(min(self.probes, len(subject.probes)))
        yield from subject.map_sharded(probes, partial(self._figures, subject))

    def _figures(self, subject: Subject, probes: Sequence[int]) -> Iterator[Figure]:
        images, labels = subject.probes.images[list(probes)], subject.probes.labels[list(probes)]
        rows, targets, logits = true_and_predicted(subject.network, images, labels)
        probabilities = logits.softmax(1)
        predicted = probabilities.argmax(1)
        settings = self.copies, self.sigma, self.steps, self.baseline, self.patch
        effort = Effort(*settings, subject.seed, subject.batch_size)
        layer, level = cam_layer(subject), subject.log_level("saliency")
        maps = attributions_by_image(subject.network, self.maps, images, rows, targets, layer, effort, level)
        if not maps:
            return  # the log says why
        notes = [CAUTIONS[name] for name in maps if name in CAUTIONS]
        sums = self._explained(subject, logits[rows], targets, maps.get("integrated_gradients"))
        for i, (row, target) in enumerate(zip(rows.tolist(), targets.tolist())):
            probe, confidence = probes[row], probabilities[row, target].item()
            roles = {"true": labels[row] == target, "predicted": predicted[row] == target}
            role = " and ".join(name for name, applies in roles.items() if applies)
            tiles, values = {"image": paint.picture(images[row])}, {"probability": confidence}
            for name, batch in maps.items():
                pictures, values[name] = _draw_map(name, batch[i])
                title = TITLES[name].split(" (")[0]
                tiles |= dict(zip((title, f"{title}, magnitude"), pictures))
            titles = ", ".join(["image", *(TITLES[name] for name in maps)])
            yield Figure(
                key=f"probe-{probe:03d}/{subject.classes[target]}",
                image=picture_table(
                    [[paint.resize(tile, paint.tile_side(images.shape[-2:])) for tile in tiles.values()]],
                    list(tiles),
                    [f"{subject.classes[target]} {confidence:.0%}"],
                ),
                caption=f"probe {probe}, {subject.classes[target]} ({role}, {confidence:.0%}): "
                f"{' '.join([titles + '.', *notes, *sums[i : i + 1]])}",
                probe=probe,
                label=target,
                values=values,
            )

    def _explained(self, subject: Subject, logits: Tensor, targets: Tensor, maps: Tensor | None) -> list[str]:
        """Of each of the maps [M, C, H, W] of integrated gradients what it sums to, and what it should, in
        words; `logits` [M, K] are those of the images."""
        if maps is None:
            return []
        with torch.no_grad():
            start = subject.network(torch.full_like(maps[:1], self.baseline))
        rises = (logits - start).gather(1, targets[:, None])[:, 0].tolist()
        sums = maps.flatten(1).sum(1).tolist()
        return [
            f"Integrated gradients sum to {found:+.2f}; from the baseline the logit changes by {rise:+.2f}."
            for found, rise in zip(sums, rises)
        ]


def _draw_map(name: str, values: Tensor) -> tuple[list[Tensor], float]:
    """The pictures of a map [C, H, W] or [H, W], and the value that has full brightness in them."""
    if name in ("integrated_gradients", "occlusion"):  # evidence for the class red, against it blue
        evidence = values if values.ndim == 2 else values.sum(0)
        scale = paint.percentile_scale(evidence)
        return [paint.colorize(evidence / (2 * scale) + 0.5, "RdBu_r")], scale
    if name in COARSE:
        scale = values.max().item() or 1.0
        return [paint.colorize(values / scale)], scale
    magnitude = importance(name, values[None])[0]
    scale = paint.percentile_scale(magnitude)
    tile = paint.colorize(magnitude / scale, "gray")
    if name == "smooth_grad":
        return [tile], scale
    signed = paint.signed_picture(values, scale)
    return ([signed, tile] if name == "gradient" else [signed]), scale
