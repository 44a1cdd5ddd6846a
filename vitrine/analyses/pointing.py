"""Measures of attribution maps: against a mask, and by deleting and inserting pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrine.analyses.target_scores import copy_batches, expect
from vitrine.core.network_scopes import in_eager_eval_mode


def pointing_game(maps: Tensor, masks: Tensor) -> Tensor:
    """Whether each map's maximum lies in its mask (Zhang 2016): float 0 or 1, [N]; 0 without positive values.

    Args:
        maps: >= 0, [N, H, W].
        masks: bool, [N, H, W].
    """
    peak, index = maps.flatten(1).max(1)
    return (masks.flatten(1).gather(1, index[:, None])[:, 0] & (peak > 0)).float()


def energy_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """The share of each map's sum that lies in its mask (Wang 2020), [N]; 0 for a map that is zero."""
    total = maps.sum((1, 2))
    return (maps * masks).sum((1, 2)) / total.where(total > 0, torch.ones_like(total))


def best_iou(maps: Tensor, masks: Tensor) -> Tensor:
    """The intersection over union of each mask and its map above its best threshold, [N]."""
    levels, order = maps.flatten(1).sort(1, descending=True)
    inside = masks.flatten(1).gather(1, order).double().cumsum(1)
    above = torch.arange(1, levels.shape[1] + 1, device=maps.device)
    iou = inside / (above + inside[:, -1:] - inside)
    last = torch.ones_like(levels, dtype=torch.bool)  # a threshold includes all pixels of a level or none
    last[:, :-1] = levels[:, :-1] > levels[:, 1:]
    return iou.masked_fill(~last, 0).amax(1).float()


@in_eager_eval_mode
def deletion(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    maps: Tensor,
    *,
    steps: int = 32,
    baseline: float = 0.5,
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """The class's probability as pixels are deleted, in the order of the map's values (Petsiuk 2018).

    Args:
        network, images, targets: as in `saliency`.
        maps: [N, H, W].
        steps: deletions of equally many pixels.
        baseline: the value of a deleted pixel.
        batch_size: images a pass (at least one copy of the batch).

    Returns:
        The area under the curve, [N] (low: the map ranks the pixels well), and the curve, [N, steps + 1].
    """
    return _curve(network, images, torch.full_like(images, baseline), targets, maps, steps, batch_size)


@in_eager_eval_mode
def insertion(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    maps: Tensor,
    *,
    steps: int = 32,
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """The class's probability as pixels are inserted into the blurred image, in the order of the map's values
    (Petsiuk 2018).

    The blur is the paper's: Gaussian, 11 pixels wide, sigma 5. Arguments and result are those of `deletion`,
    but here a high area is good.
    """
    return _curve(network, gaussian_blur(images), images, targets, maps, steps, batch_size)


def gaussian_blur(images: Tensor, width: int = 11, sigma: float = 5.0) -> Tensor:
    """Images [N, C, H, W] under a Gaussian of `width` pixels, the border replicated."""
    offsets = torch.arange(width, device=images.device, dtype=images.dtype) - width // 2
    kernel = torch.softmax(-(offsets**2) / (2 * sigma**2), 0)
    flat = F.pad(images.flatten(0, 1)[:, None], [width // 2] * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return flat.view_as(images)


def _curve(
    network: nn.Module,
    before: Tensor,
    after: Tensor,
    targets: Tensor,
    maps: Tensor,
    steps: int,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    if maps.shape != (len(before), *before.shape[-2:]):
        raise ValueError(f"maps: are {list(maps.shape)}, expected {[len(before), *before.shape[-2:]]}")
    expect(steps >= 1, "steps", steps, "at least 1")
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).view_as(maps)
    pixels = rank[0].numel()
    curve = []
    with torch.no_grad():
        for chunk in copy_batches(steps + 1, len(before), batch_size):
            counts = torch.tensor([step * pixels / steps for step in chunk], device=before.device)
            replaced = rank[None] < counts[:, None, None, None]
            images = torch.where(replaced[:, :, None], after, before)
            probabilities = network(images.flatten(0, 1)).softmax(1)
            curve.append(probabilities.gather(1, targets.repeat(len(chunk))[:, None]).view(len(chunk), -1))
    curve = torch.cat(curve).T
    return torch.trapezoid(curve, dx=1 / steps), curve
