"""Class activation maps and Grad-CAMs of the probes, laid over the images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from vitrine.analyses import paint
from vitrine.analyses.attribution import NO_LAYER, cam_layer
from vitrine.analyses.base import Analysis, Figure, Scalar, Subject
from vitrine.analyses.cam import cam, grad_cam
from vitrine.analyses.gradients import NoGradient
from vitrine.analyses.layout import check_layers
from vitrine.analyses.pooled_head import NoPooledHead
from vitrine.analyses.traits import Traits
from vitrine.core.settings import setting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassMaps(Analysis):
    """For each probe: the image, its class activation map (where the network has one) and its Grad-CAM, for
    the true class and, where it is another, for the predicted class, with the difference of the Grad-CAMs.

    Scalars: "inside_<mask>/<layer>", the share of the true class's Grad-CAM inside a mask, where the data set
    has masks. A network without spatial layers (a perceptron) yields nothing; one that lets no gradient flow
    back its class activation map alone, where it has one.
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
    layer: str = setting("auto", "layer of Grad-CAM; auto: the last one with maps")
    side: int = setting(128, "least side of a picture, in pixels", least=8)

    def check(self, network: nn.Module, images: Tensor) -> None:
        if self.layer != "auto":
            check_layers(network, images, [self.layer], "layer")

    def __call__(self, subject: Subject) -> Iterator[Figure | Scalar]:
        layer = cam_layer(subject) if self.layer == "auto" else self.layer
        if layer is None and not _has_pooled_head(subject):
            return
        shares_inside: dict[str, list[float]] = {}
        for figure in subject.map_sharded(range(len(subject.probes)), partial(self._figures, subject, layer)):
            yield figure
            for name, share in figure.values.items():
                if name.startswith("inside_") and figure.label == subject.probes.labels[figure.probe]:
                    shares_inside.setdefault(name, []).append(share)
        for name, shares in shares_inside.items():
            yield Scalar(f"{name}/{layer}", sum(shares) / len(shares), layer)

    def _figures(self, subject: Subject, layer: str | None, probes: Sequence[int]) -> Iterator[Figure]:
        for maps in _class_maps(subject, layer, probes):
            shares = _shares_inside(maps, subject)
            values = {
                "confidence": maps.confidence,
                **({"maximum": maps.grad_cam.max().item()} if maps.grad_cam is not None else {}),
                **({"cam_maximum": maps.cam.max().item()} if maps.cam is not None else {}),
                **{f"inside_{mask}": share for mask, share in shares.items()},
            }
            yield Figure(
                key=f"probe-{maps.probe:03d}/{subject.classes[maps.label]}",
                image=_row(subject.probes.images[maps.probe].cpu(), maps, self.side),
                caption=_caption(maps, subject, layer),
                layer=None if maps.grad_cam is None else layer,
                probe=maps.probe,
                label=maps.label,
                values=values,
            )


def share_inside(values: Tensor, mask: Tensor) -> float:
    """The share of a map (values >= 0, [h, w]), upsampled, inside a mask (bool [H, W])."""
    values = paint.upsample(values, mask.shape)
    return (values[mask].sum() / values.sum()).item()


@dataclass(frozen=True)
class _MapsOfClass:
    """The maps of one class on one probe."""

    probe: int
    label: int
    predicted: int
    confidence: float
    grad_cam: Tensor | None
    cam: Tensor | None
    versus: Tensor | None  # the Grad-CAM of the true class, where this is another
    reason: str = ""  # why there is no Grad-CAM


def _has_pooled_head(subject: Subject) -> bool:
    try:
        cam(subject.network, subject.probes.images[:1])
    except NoPooledHead:
        return False
    return True


def _class_maps(subject: Subject, layer: str | None, probes: Sequence[int]) -> Iterator[_MapsOfClass]:
    """For each of the probes the maps of the true class, then of the predicted class, where it is another."""
    network, images = subject.network, subject.probes.images[list(probes)]
    with torch.no_grad():
        confidence = network(images).float().softmax(1)
    predicted = confidence.argmax(1)
    images_twice = torch.cat([images, images])
    targets = torch.cat([subject.probes.labels[list(probes)].to(images.device), predicted])
    grad_cams, reason = None, NO_LAYER
    if layer is not None:
        try:
            grad_cams = grad_cam(network, images_twice, targets, layer).float().cpu()
        except NoGradient as error:
            reason = str(error)
    try:
        cams = cam(network, images_twice, targets).float().cpu()
    except NoPooledHead:
        cams = None
    if grad_cams is None:
        log.log(subject.log_level("cam"), "cam: there is no Grad-CAM: %s", reason)
    if grad_cams is None and cams is None:
        return
    count, labels = len(images), targets.tolist()
    for i, probe in enumerate(probes):
        for row in (i, count + i):
            wrong, label, truth = row >= count, labels[row], labels[i]
            if wrong and label == truth:
                continue
            own_cam = None if cams is None else cams[row]
            own, versus = (None, None) if grad_cams is None else (grad_cams[row], grad_cams[i])
            share, versus = confidence[i, label].item(), versus if wrong else None
            yield _MapsOfClass(probe, label, labels[count + i], share, own, own_cam, versus, reason)


def _shares_inside(maps: _MapsOfClass, subject: Subject) -> dict[str, float]:
    if maps.grad_cam is None:
        return {}
    masks = {name: mask[maps.probe].cpu() for name, mask in (subject.probes.masks or {}).items()}
    present = {name: mask for name, mask in masks.items() if mask.any() and maps.grad_cam.any()}
    return {name: share_inside(maps.grad_cam, mask) for name, mask in present.items()}


def _caption(maps: _MapsOfClass, subject: Subject, layer: str | None) -> str:
    is_true = maps.label == int(subject.probes.labels[maps.probe])
    role = "true" if is_true else "predicted, wrongly"
    if is_true and maps.predicted != maps.label:
        role = f"true; predicted {subject.classes[maps.predicted]}"
    shown = ["picture"] if maps.grad_cam is None else ["picture", "Grad-CAM"]
    if maps.cam is not None:
        shown.insert(1, "CAM (red for, blue against)")
    if maps.versus is not None:
        truth = subject.classes[int(subject.probes.labels[maps.probe])]
        shown.append(f"Grad-CAM minus that of {truth}")
    what = f"{subject.classes[maps.label]} {maps.confidence:.0%} ({role}): {', '.join(shown)}"
    if maps.grad_cam is None:
        return f"{what}; no Grad-CAM: {maps.reason}"
    return f"{what}; {layer}, maximum {maps.grad_cam.max().item():.3g}"


def _row(image: Tensor, maps: _MapsOfClass, side: int) -> Tensor:
    picture = paint.magnify(paint.picture(image), side)
    image = picture.permute(2, 0, 1) / 255
    tiles = [picture]
    if maps.cam is not None:
        tiles.append(paint.overlay_signed(maps.cam, image))
    if maps.grad_cam is not None:
        tiles.append(paint.overlay_heatmap(maps.grad_cam, image))
    if maps.versus is not None:
        tiles.append(paint.overlay_signed(maps.grad_cam - maps.versus, image))
    return paint.row(tiles)
