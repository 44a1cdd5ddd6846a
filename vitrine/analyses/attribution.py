"""The maps by name, reduced to where they point, for analyses that compare them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitrine.analyses import saliency
from vitrine.analyses.base import Subject
from vitrine.analyses.cam import NoSpatialLayer, grad_cam, last_spatial_layer
from vitrine.analyses.paint import upsample
from vitrine.analyses.relu_rules import NoRule
from vitrine.core.registry import UnknownName

log = logging.getLogger(__name__)

PASS = 32  # images a pass


@dataclass(frozen=True)
class Effort:
    """How much work the maps that take many passes are.

    Attributes:
        copies, sigma: of SmoothGrad: noisy copies, and their noise's standard deviation in pixel values.
        steps, baseline: of integrated gradients: points on the way, and the pixel value it begins at.
        patch: of occlusion: the square's side as a share of the image's; it moves by half of itself.
        seed: of SmoothGrad's noise.
    """

    copies: int = 50
    sigma: float = 0.15
    steps: int = 50
    baseline: float = 0.5
    patch: float = 0.25
    seed: int = 0


Technique = Callable[[nn.Module, Tensor, Tensor, str | None, Effort], Tensor]
"""(network, images [N, C, H, W], targets [N], a layer with a map, effort) -> [N, C, H, W] or [N, H, W]."""


def _gradient(
    network: nn.Module, images: Tensor, targets: Tensor, layer: str | None, effort: Effort
) -> Tensor:
    return saliency.input_gradient(network, images, targets)


def _guided_backprop(
    network: nn.Module, images: Tensor, targets: Tensor, layer: str | None, effort: Effort
) -> Tensor:
    return saliency.guided_backprop(network, images, targets)


def _deconvnet(
    network: nn.Module, images: Tensor, targets: Tensor, layer: str | None, effort: Effort
) -> Tensor:
    return saliency.deconvnet(network, images, targets)


def _smooth_grad(
    network: nn.Module, images: Tensor, targets: Tensor, layer: str | None, effort: Effort
) -> Tensor:
    return saliency.smooth_grad(
        network, images, targets, n=effort.copies, sigma=effort.sigma, seed=effort.seed
    )


def _integrated_gradients(
    network: nn.Module, images: Tensor, targets: Tensor, layer: str | None, effort: Effort
) -> Tensor:
    return saliency.integrated_gradients(
        network, images, targets, baseline=effort.baseline, steps=effort.steps
    )


def _grad_cam(
    network: nn.Module, images: Tensor, targets: Tensor, layer: str | None, effort: Effort
) -> Tensor:
    return upsample(grad_cam(network, images, targets, _expected(layer)), images.shape[-2:])


def _guided_grad_cam(
    network: nn.Module, images: Tensor, targets: Tensor, layer: str | None, effort: Effort
) -> Tensor:
    return saliency.guided_grad_cam(network, images, targets, _expected(layer))


def _occlusion(
    network: nn.Module, images: Tensor, targets: Tensor, layer: str | None, effort: Effort
) -> Tensor:
    patch = max(1, round(effort.patch * min(images.shape[-2:])))
    return saliency.occlusion(
        network, images, targets, patch=patch, stride=max(1, patch // 2), baseline=effort.baseline
    )


def _expected(layer: str | None) -> str:
    if layer is None:
        raise NoSpatialLayer(
            "the network has no layer with maps larger than 1 x 1, which Grad-CAM is made of"
        )
    return layer


TECHNIQUES: Mapping[str, Technique] = {
    "gradient": _gradient,
    "guided_backprop": _guided_backprop,
    "deconvnet": _deconvnet,
    "smooth_grad": _smooth_grad,
    "integrated_gradients": _integrated_gradients,
    "grad_cam": _grad_cam,
    "guided_grad_cam": _guided_grad_cam,
    "occlusion": _occlusion,
}


def technique(name: str) -> Technique:
    """The map of that name; UnknownName with the nearest names where there is none."""
    if name not in TECHNIQUES:
        raise UnknownName("map", name, TECHNIQUES)
    return TECHNIQUES[name]


def attributions(
    network: nn.Module,
    names: Sequence[str],
    images: Tensor,
    targets: Tensor,
    layer: str | None,
    effort: Effort,
) -> dict[str, Tensor]:
    """The named maps of images [N, C, H, W] for classes [N], in passes of 32 images.

    Those that the network cannot have (guided backprop without ReLUs, Grad-CAM without a map) are left out,
    which the log says.
    """
    found = {}
    for name in names:
        of = technique(name)
        try:
            parts = [
                of(network, some, those, layer, effort)
                for some, those in zip(images.split(PASS), targets.split(PASS))
            ]
        except (NoRule, NoSpatialLayer) as error:
            log.info("%s is left out: %s", name, error)
        else:
            found[name] = torch.cat(parts)
    return found


def strength(name: str, maps: Tensor) -> Tensor:
    """Maps as [N, H, W] >= 0, larger where they point.

    The largest magnitude over channels of gradients, whose sign says which way to change a pixel and not
    whether it speaks for the class; the positive part of maps whose sign does say so.
    """
    if name in ("integrated_gradients", "occlusion", "grad_cam"):
        return (maps if maps.ndim == 3 else maps.sum(1)).clamp(min=0)
    return maps.abs().amax(1)


def cam_layer(subject: Subject) -> str | None:
    """The layer that Grad-CAM is taken at: the last that has maps; None where there is none."""

    def find() -> str | None:
        try:
            return last_spatial_layer(subject.network, subject.probes.images[:1])
        except NoSpatialLayer:
            return None

    return subject.cached("cam_layer", find)
