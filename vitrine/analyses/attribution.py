"""Attribution techniques by name, and their maps as importance of pixels, for analyses that compare them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vitrine.analyses import relevance, saliency
from vitrine.analyses.base import Subject
from vitrine.analyses.cam import grad_cam
from vitrine.analyses.evidence import NoSpatialLayer, last_spatial_layer
from vitrine.analyses.gradients import NoGradient
from vitrine.analyses.paint import upsample
from vitrine.analyses.pass_size import images_at_once
from vitrine.analyses.relevance import NoTokenAttention
from vitrine.analyses.relu_rules import NoRule
from vitrine.analyses.rule_gradients import rule_gradients
from vitrine.core.registry import Registry

log = logging.getLogger(__name__)

BATCH_SIZE = 32  # images of a pass, at most
COPIES = 64  # of altered copies of them
NO_LAYER = (
    "the network has no layer with maps larger than 1 x 1 to which a gradient of its logits flows, which "
    "Grad-CAM needs"
)


@dataclass(frozen=True)
class Effort:
    """Settings of the maps that take many passes."""

    copies: int = 50  # SmoothGrad: noisy copies
    sigma: float = 0.15  # SmoothGrad: standard deviation of the noise, in pixel values
    steps: int = 50  # integrated gradients: points of the path
    baseline: float = 0.5  # integrated gradients, occlusion: the pixel value of nothing
    patch: float = 0.25  # occlusion: the square's side as a share of the image's; it moves by half of itself
    seed: int = 0  # of SmoothGrad's noise
    # images of a pass, at most; not of what maps are, nor of what is kept of them by repr and equality
    batch_size: int = field(default=256, repr=False, compare=False)

    def at_once(self, images: Tensor, most: int) -> int:
        """How many of these images pass through the network together."""
        return images_at_once(*images.shape[-2:], images.device, min(most, self.batch_size))


Technique = Callable[[nn.Module, Tensor, Tensor, str | None, Effort], Tensor]
"""(network, images [N, C, H, W], targets [N], a layer with a map, effort) -> [N, C, H, W] or [N, H, W]."""


def _occlusion(
    network: nn.Module, images: Tensor, targets: Tensor, _layer: str | None, effort: Effort
) -> Tensor:
    patch = max(1, round(effort.patch * min(images.shape[-2:])))
    return saliency.occlusion(
        network,
        images,
        targets,
        patch=patch,
        stride=max(1, patch // 2),
        baseline=effort.baseline,
        batch_size=effort.at_once(images, COPIES),
    )


def _expect_layer(layer: str | None) -> str:
    if layer is None:
        raise NoSpatialLayer(NO_LAYER)
    return layer


def _legrad(
    network: nn.Module, images: Tensor, targets: Tensor, _layer: str | None, _effort: Effort
) -> Tensor:
    maps = relevance.legrad(network, images, targets)
    maps = maps - maps.amin((1, 2), keepdim=True)  # as the paper shows them: every token has some
    return upsample(maps, images.shape[-2:])


_TECHNIQUES: Mapping[str, Technique] = {
    "gradient": lambda network, x, y, layer, effort: saliency.input_gradient(network, x, y),
    "guided_backprop": lambda network, x, y, layer, effort: saliency.guided_backprop(network, x, y),
    "deconvnet": lambda network, x, y, layer, effort: saliency.deconvnet(network, x, y),
    "smooth_grad": lambda network, x, y, layer, effort: saliency.smooth_grad(
        network,
        x,
        y,
        n=effort.copies,
        sigma=effort.sigma,
        seed=effort.seed,
        batch_size=effort.at_once(x, COPIES),
    ),
    "integrated_gradients": lambda network, x, y, layer, effort: saliency.integrated_gradients(
        network,
        x,
        y,
        baseline=effort.baseline,
        steps=effort.steps,
        batch_size=effort.at_once(x, COPIES),
    ),
    "grad_cam": lambda network, x, y, layer, effort: upsample(
        grad_cam(network, x, y, _expect_layer(layer)), x.shape[-2:]
    ),
    "guided_grad_cam": lambda network, x, y, layer, effort: saliency.guided_grad_cam(
        network, x, y, _expect_layer(layer)
    ),
    "occlusion": _occlusion,
    "legrad": _legrad,
    "chefer": lambda network, x, y, layer, effort: upsample(relevance.chefer(network, x, y), x.shape[-2:]),
    "attention_gradient": lambda network, x, y, layer, effort: upsample(
        relevance.attention_gradient(network, x, y), x.shape[-2:]
    ),
    "rollout": lambda network, x, y, layer, effort: upsample(relevance.rollout(network, x), x.shape[-2:]),
}
TECHNIQUES = Registry("map", _TECHNIQUES)
_OF_SEVERAL = (
    "smooth_grad",
    "integrated_gradients",
    "occlusion",
)  # techniques that take several classes of each image at once, [T, N]


def attributions(
    network: nn.Module,
    names: list[str],
    images: Tensor,
    targets: Tensor,
    layer: str | None,
    effort: Effort,
    log_level: int = logging.INFO,
) -> dict[str, Tensor]:
    """The named maps of images [N, C, H, W] for classes [N], or for several of each image, [T, N], and then
    [T, N, ...]; those that the network does not allow (guided backprop without ReLUs, Grad-CAM without a
    spatial layer, LeGrad without attention, all that need a gradient where none flows back) are left out, and
    logged: a line a reason."""
    maps: dict[str, Tensor] = {}
    left_out: dict[str, list[str]] = {}
    size = effort.at_once(images, BATCH_SIZE)
    batches = list(zip(images.split(size), targets.split(size, dim=-1)))
    shared = _share_forward_pass(network, names, batches, targets.ndim - 1)
    for name in names:
        if name in shared:
            maps[name] = shared[name]
            continue
        attribute = TECHNIQUES[name]
        if name == "guided_grad_cam" and "guided_backprop" in shared:
            attribute = TECHNIQUES["grad_cam"]
        try:
            parts = []
            for x, y in batches:
                if y.ndim == 1 or name in _OF_SEVERAL:
                    parts.append(attribute(network, x, y, layer, effort))
                else:
                    parts.append(torch.stack([attribute(network, x, own, layer, effort) for own in y]))
        except (NoRule, NoGradient, NoSpatialLayer, NoTokenAttention) as error:
            left_out.setdefault(str(error), []).append(name)
        else:
            maps[name] = torch.cat(parts, targets.ndim - 1)
            if attribute is not TECHNIQUES[name]:
                maps[name] = shared["guided_backprop"] * maps[name].unsqueeze(-3)
    for reason, (first, *others) in left_out.items():
        also = f", and so is {' and '.join(others)}" if others else ""
        log.log(log_level, "%s is left out%s: %s", first, also, reason)
    return maps


_SCORES = {"gradient": "log_prob", "guided_backprop": "logit", "deconvnet": "logit"}  # by rule for ReLUs


def _share_forward_pass(
    network: nn.Module, names: list[str], batches: list[tuple[Tensor, Tensor]], axis: int
) -> dict[str, Tensor]:
    """The maps among those named that differ in their rule for ReLUs alone, from one forward pass; guided
    backprop also where guided Grad-CAM is named. Nothing where these are fewer than two, or have no rule."""
    rules = [rule for rule in _SCORES if rule in names]
    if "guided_grad_cam" in names and "guided_backprop" not in rules:
        rules.append("guided_backprop")
    if len(rules) < 2:
        return {}
    scores = {rule: _SCORES[rule] for rule in rules}
    try:
        parts = [rule_gradients(network, x, scores, y) for x, y in batches]
    except (NoRule, NoGradient):  # each says so itself
        return {}
    return {rule: torch.cat([part[rule] for part in parts], axis) for rule in rules}


def attributions_by_image(
    network: nn.Module,
    names: list[str],
    images: Tensor,
    rows: Tensor,
    targets: Tensor,
    layer: str | None,
    effort: Effort,
    log_level: int = logging.INFO,
) -> dict[str, Tensor]:
    """As `attributions`, of any number of classes of each image, in all M: forward passes are of the images,
    not of each class.

    Args:
        rows: int64 [M], ascending: which image each class is of.
        targets: int64 [M].
    """
    counts = rows.bincount(minlength=len(images))
    found: dict[str, Tensor] = {}
    for count in counts[counts > 0].unique().tolist():
        own, places = (counts == count).nonzero()[:, 0], (counts[rows] == count).nonzero()[:, 0]
        classes = targets[places].view(len(own), count).T if count > 1 else targets[places]
        maps = attributions(network, names, images[own], classes, layer, effort, log_level)
        log_level = logging.DEBUG  # what is left out is left out of all
        for name, values in maps.items():
            values = values.transpose(0, 1).flatten(0, 1) if count > 1 else values
            found.setdefault(name, values.new_zeros(len(rows), *values.shape[1:]))[places] = values
    return found


_MAGNITUDES = ("gradient", "guided_backprop", "deconvnet", "smooth_grad", "guided_grad_cam")


def importance(name: str, maps: Tensor) -> Tensor:
    """Maps as the importance of each pixel, [N, H, W] >= 0.

    Of gradients, whose sign is the direction in which to change a pixel, the largest magnitude over channels;
    of maps whose sign is evidence for or against the class, the positive part.
    """
    if name in _MAGNITUDES:
        return maps.abs().amax(1)
    return (maps if maps.ndim == 3 else maps.sum(1)).clamp(min=0)


def signed_importance(name: str, maps: Tensor) -> Tensor:
    """`importance` that keeps its sign, where that is evidence for or against the class: [N, H, W]."""
    if name in _MAGNITUDES:
        return importance(name, maps)
    return maps if maps.ndim == 3 else maps.sum(1)


def known_attributions(subject: Subject, indices: Tensor, effort: Effort) -> dict[str, Tensor]:
    """The maps of the predicted classes of the images at `indices` that analyses have computed at this
    checkpoint, by technique: a dictionary that they share, to take from and add to.

    Where images have no parts only one analysis looks at them, and nothing is kept.
    """
    if not subject.dataset.parts:
        return {}
    # an id is that of one data set only, as `subject.cached` and the subject keep theirs alive
    return subject.cached(("attributions", id(subject.dataset), tuple(indices.tolist()), effort), dict)


def planted_stickers(subject: Subject) -> Subject | None:
    """The subject with its data set's scenes with stickers, one object for all analyses; None where there are
    none to plant."""
    dataset = subject.cached("with_stickers", subject.dataset.with_stickers)
    return None if dataset is None else dataclasses.replace(subject, dataset=dataset)


def cam_layer(subject: Subject) -> str | None:
    """The layer for Grad-CAM: the last with maps and a gradient; None where there is none."""

    def find() -> str | None:
        try:
            return last_spatial_layer(subject.network, subject.probes.images[:1])
        except NoSpatialLayer:
            return None

    return subject.cached("cam_layer", find)
