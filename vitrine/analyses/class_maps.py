"""Where the network looks, probe by probe: class activation maps and Grad-CAMs over the picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from vitrine.analyses import paint
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.cam import NoSpatialLayer, cam, grad_cam, last_spatial_layer
from vitrine.analyses.pooled_head import NoPooledHead
from vitrine.analyses.traits import Traits
from vitrine.core.settings import setting


@dataclass(frozen=True)
class ClassMaps(Analysis):
    """For each probe: the picture, its class activation map (where the network has one) and its Grad-CAM.

    Of the true class and of the predicted one; where these differ, the difference of their Grad-CAMs too.
    Where the data set knows where things are, curves say which share of the true class's Grad-CAM lies on
    them. A network without maps (a perceptron) looks nowhere, and yields nothing.
    """

    sharded: ClassVar[bool] = True
    traits: ClassVar[Traits] = Traits(
        section="Class maps",
        title="Class activation maps",
        page_order=30,
        confidences={"confidence": ""},
        image_rank=1,
        budget_priority=120,
    )
    layer: str = setting("auto", "layer that Grad-CAM looks at; auto: the last one with maps")
    side: int = setting(128, "least side of a picture, in pixels", least=8)

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        try:
            layer = self.layer
            if layer == "auto":
                layer = last_spatial_layer(subject.network, subject.probes.images)
        except NoSpatialLayer:
            return
        inside: dict[str, list[float]] = {}
        for figure in subject.map_sharded(range(len(subject.probes)), partial(self._figures, subject, layer)):
            yield figure
            for name, share in figure.values.items():
                if name.startswith("inside_") and figure.label == subject.probes.labels[figure.probe]:
                    inside.setdefault(name, []).append(share)
        for name, shares in inside.items():
            yield Scalar(f"{name}/{layer}", sum(shares) / len(shares), layer)

    def _figures(self, subject: Subject, layer: str, probes: Sequence[int]) -> Iterator[Figure]:
        for look in _looks(subject, layer, probes):
            shares = _shares_inside(look, subject)
            values = {
                "confidence": look.confidence,
                "maximum": look.grad_cam.max().item(),
                **({"cam_maximum": look.cam.max().item()} if look.cam is not None else {}),
                **{f"inside_{thing}": share for thing, share in shares.items()},
            }
            yield Figure(
                key=f"probe-{look.probe:03d}/{subject.classes[look.label]}",
                image=_row(subject.probes.images[look.probe].cpu(), look, self.side),
                caption=_caption(look, subject, layer),
                layer=layer,
                probe=look.probe,
                label=look.label,
                values=values,
            )


def share_inside(values: Tensor, mask: Tensor) -> float:
    """Which share of a map (values >= 0, [h, w]), upsampled, lies in a mask (bool [H, W])."""
    values = paint.upsample(values, mask.shape)
    return (values[mask].sum() / values.sum()).item()


@dataclass(frozen=True)
class _Look:
    """Where the network looks for one class in one probe; `versus`: for the true class, where this is
    another."""

    probe: int
    label: int
    predicted: int
    confidence: float
    grad_cam: Tensor
    cam: Tensor | None
    versus: Tensor | None


def _looks(subject: Subject, layer: str, probes: Sequence[int]) -> Iterator[_Look]:
    """For the true class of each of the probes, then for the predicted one where that is another."""
    network, images = subject.network, subject.probes.images[list(probes)]
    with torch.no_grad():
        confidence = network(images).float().softmax(1)
    predicted = confidence.argmax(1)
    twice, targets = (
        torch.cat([images, images]),
        torch.cat([subject.probes.labels[list(probes)].to(images.device), predicted]),
    )
    grad_cams = grad_cam(network, twice, targets, layer).float().cpu()
    try:
        cams = cam(network, twice, targets).float().cpu()
    except NoPooledHead:
        cams = None
    count, labels = len(images), targets.tolist()
    for i, probe in enumerate(probes):
        for row in (i, count + i):
            wrong = row >= count
            if wrong and labels[row] == labels[i]:
                continue
            yield _Look(
                probe,
                labels[row],
                labels[count + i],
                confidence[i, labels[row]].item(),
                grad_cams[row],
                None if cams is None else cams[row],
                grad_cams[i] if wrong else None,
            )


def _shares_inside(look: _Look, subject: Subject) -> dict[str, float]:
    masks = {thing: mask[look.probe].cpu() for thing, mask in (subject.probes.masks or {}).items()}
    return {
        thing: share_inside(look.grad_cam, mask)
        for thing, mask in masks.items()
        if mask.any() and look.grad_cam.any()
    }


def _caption(look: _Look, subject: Subject, layer: str) -> str:
    role = "true" if look.versus is None else "predicted, wrongly"
    if look.versus is None and look.predicted != look.label:
        role = f"true; predicted {subject.classes[look.predicted]}"
    shown = ["picture", "Grad-CAM"]
    if look.cam is not None:
        shown.insert(1, "CAM (red for, blue against)")
    if look.versus is not None:
        truth = subject.classes[int(subject.probes.labels[look.probe])]
        shown.append(f"Grad-CAM minus that of {truth}")
    name, peak = subject.classes[look.label], look.grad_cam.max().item()
    return f"{name} {look.confidence:.0%} ({role}): {', '.join(shown)}; {layer}, maximum {peak:.3g}"


def _row(image: Tensor, look: _Look, side: int) -> Tensor:
    picture = paint.magnify(paint.picture(image), side)
    over = picture.permute(2, 0, 1) / 255
    tiles = [picture]
    if look.cam is not None:
        tiles.append(paint.overlay_signed(look.cam, over))
    tiles.append(paint.overlay_heatmap(look.grad_cam, over))
    if look.versus is not None:
        tiles.append(paint.overlay_signed(look.grad_cam - look.versus, over))
    return paint.row(tiles)
