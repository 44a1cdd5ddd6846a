"""Attribution to pixels of a class's score or a unit's activation: gradients of several kinds, and occlusion.

All functions take float images in [0, 1], [N, C, H, W], and leave the network unchanged: no hook, gradient or
mode remains. The network is evaluated in eval mode, whatever mode it is in, and in the precision of its
weights, whatever autocast says. Gradients are of a *sum* over the batch: an image's map does not depend on
its batch. `targets` are class indices, int64 [N]; `of` is the score: "logit" or "log_prob".
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from vitrine.analyses.cam import grad_cam
from vitrine.analyses.gradients import gradient
from vitrine.analyses.integrated_gradients import integrated_gradients
from vitrine.analyses.occlusion import occlusion
from vitrine.analyses.paint import upsample
from vitrine.analyses.relu_rules import ReluRule, Rule, deconvnet_relu, guided_relu
from vitrine.analyses.target_scores import (
    UnitTarget,
    class_scores,
    copy_batches,
    expect,
    expect_images,
    gradients_of_copies,
    scored,
    unit_activations,
)
from vitrine.core.network_scopes import in_eager_eval_mode

__all__ = [
    "deconvnet",
    "guided_backprop",
    "guided_grad_cam",
    "input_gradient",
    "integrated_gradients",
    "occlusion",
    "smooth_grad",
]


@in_eager_eval_mode
def input_gradient(
    network: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    of: str = "log_prob",
    **unit: Unpack[UnitTarget],
) -> Tensor:
    """The gradient of a class's score, or of a unit's activation, by the image (Simonyan 2014).

    Args:
        unit: `layer`, `unit` and `position` in place of `targets`, see `UnitTarget`.

    Returns:
        [N, C, H, W], per unit of pixel value.

    Raises:
        NoGradient (a ValueError): the network lets none flow back.
        ValueError: an argument is not as above; UnknownName: there is no such layer.
    """
    pixels = _leaf(images)
    return gradient(_score(network, pixels, targets, of, **unit), pixels, scored(**unit))


@in_eager_eval_mode
def guided_backprop(
    network: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    of: str = "logit",
    **unit: Unpack[UnitTarget],
) -> Tensor:
    """The input gradient, but at each ReLU only positive signals pass, and only where its input was positive
    (Springenberg 2015). It barely depends on the higher layers (Adebayo 2018).

    Arguments and result are those of `input_gradient`.

    Raises:
        NoRule (a ValueError): the network has no ReLU, or GELU, SiLU and the like.
    """
    return _with_relu_rule(guided_relu, network, images, targets, of, unit)


@in_eager_eval_mode
def deconvnet(
    network: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    of: str = "logit",
    **unit: Unpack[UnitTarget],
) -> Tensor:
    """The input gradient, but at each ReLU positive signals pass, whatever its input (Zeiler & Fergus 2014).

    Arguments, result and what is raised are those of `guided_backprop`.
    """
    return _with_relu_rule(deconvnet_relu, network, images, targets, of, unit)


@in_eager_eval_mode
def smooth_grad(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    of: str = "logit",
    *,
    n: int = 50,
    sigma: float = 0.15,
    seed: int = 0,
    batch_size: int = 64,
) -> Tensor:
    """The mean input gradient over noisy copies of the image (Smilkov 2017), [N, C, H, W]; with targets
    [T, N], several of each image, [T, N, C, H, W].

    Args:
        n: number of copies; each has its own noise, the same for all images.
        sigma: the noise's standard deviation, in pixel values.
        seed: of the noise.
        batch_size: images a pass (at least one copy of the batch).
    """
    expect(n >= 1, "n", n, "at least 1 copy")
    expect(sigma >= 0, "sigma", sigma, "at least 0")
    generator = torch.Generator().manual_seed(seed)
    total = images.new_zeros(*targets.shape[:-1], *images.shape)
    for copies in copy_batches(n, len(images), batch_size):
        noise = torch.stack([torch.randn(images.shape[1:], generator=generator) for _ in copies]).to(images)
        for found in gradients_of_copies(network, images + sigma * noise[:, None], targets, of):
            total += found  # one by one: the sum does not depend on the batch size
    return total / n


@in_eager_eval_mode
def guided_grad_cam(
    network: nn.Module, images: Tensor, targets: Tensor, layer: str, of: str = "logit"
) -> Tensor:
    """Guided backprop times Grad-CAM of `layer`, upsampled bilinearly (Selvaraju 2017): [N, C, H, W]."""
    maps = upsample(grad_cam(network, images, targets, layer), images.shape[-2:])
    return guided_backprop(network, images, targets, of) * maps[:, None]


def _with_relu_rule(
    rule: Rule, network: nn.Module, images: Tensor, targets: Tensor | None, of: str, unit: UnitTarget
) -> Tensor:
    pixels = _leaf(images)
    with ReluRule(rule) as relus:
        score = _score(network, pixels, targets, of, **unit)
        if targets is None and not relus.count:  # below the first ReLU; is there one?
            network(images[:1].clone())
    relus.require_relus()
    return gradient(score, pixels, scored(**unit))


def _leaf(images: Tensor) -> Tensor:
    expect_images(images)
    return images.detach().requires_grad_()


def _score(
    network: nn.Module,
    pixels: Tensor,
    targets: Tensor | None,
    of: str,
    layer: str | None = None,
    unit: int | Tensor | None = None,
    position: tuple[int, int] | Tensor | None = None,
) -> Tensor:
    """The sum over the images of the class scores or unit activations."""
    pixels = pixels.clone()  # a network may write into its input, which autograd forbids for a leaf
    if layer is None:
        if targets is None or unit is not None or position is not None:
            raise ValueError(
                "targets: expected class indices [N], or in their place layer=, unit= (and position=)"
            )
        return class_scores(network(pixels), targets, of).sum()
    if targets is not None or unit is None:
        raise ValueError(f"unit: expected a channel of layer {layer!r}, and no targets")
    return unit_activations(network, pixels, layer, unit, position).sum()
