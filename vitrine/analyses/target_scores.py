"""What an attribution explains: the score of a class, or the activation of a unit, one number an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

import torch
from torch import Tensor, nn

from vitrine.analyses.activations import activations
from vitrine.analyses.gradients import gradient

OF = ("log_prob", "logit")


class UnitTarget(TypedDict, total=False):
    """A unit of a layer."""

    layer: str  # dotted name of a module; nothing deeper is computed
    unit: int | Tensor  # a channel of the layer, or one for each image, int64 [N]
    # (row, column) in the layer's map, or one for each image, int64 [N, 2]; None: where the unit is largest
    position: tuple[int, int] | Tensor | None


def class_scores(logits: Tensor, targets: Tensor, of: str) -> Tensor:
    """The scores [N] of classes `targets` (int64 [N]) in logits [N, K]: of="logit", or of="log_prob".

    Raises:
        ValueError: an argument is not as above.
    """
    if of not in OF:
        raise ValueError(f"of: is {of!r}, expected one of {', '.join(OF)}")
    if logits.ndim != 2:
        raise ValueError(f"network: gives {list(logits.shape)}, expected logits [N, K]")
    expect_indices(targets, "targets", len(logits), logits.shape[1], "classes")
    if of == "log_prob":
        logits = logits.log_softmax(1)
    return logits.gather(1, targets[:, None])[:, 0]


def unit_activations(
    network: nn.Module,
    images: Tensor,
    layer: str,
    unit: int | Tensor,
    position: tuple[int, int] | Tensor | None = None,
) -> Tensor:
    """The activations [N] of a `UnitTarget`; nothing deeper than the layer is computed.

    Raises:
        ValueError: an argument is not as described there; UnknownName: there is no such layer.
    """
    maps = activations(network, images, [layer])[layer]
    count, channels, height, width = maps.shape
    unit = torch.as_tensor(unit, device=maps.device)
    unit = unit.expand(count) if unit.ndim == 0 else unit
    expect_indices(unit, "unit", count, channels, f"channels of layer {layer!r}")
    chosen = maps[torch.arange(count, device=maps.device), unit].flatten(1)
    if position is None:
        return chosen.max(1).values
    position = torch.as_tensor(position, device=maps.device)
    if position.shape not in ((2,), (count, 2)):
        raise ValueError(f"position: is {list(position.shape)}, expected (row, column) or int64 [{count}, 2]")
    rows, columns = position.expand(count, 2).unbind(1)
    expect_indices(rows, "position (row)", count, height, f"rows of layer {layer!r}")
    expect_indices(columns, "position (column)", count, width, f"columns of layer {layer!r}")
    return chosen.gather(1, (rows * width + columns)[:, None])[:, 0]


def scored(layer: str | None = None, **_: object) -> str:
    """What the score of a `UnitTarget`, or of a class, is of, in words."""
    return "its logits" if layer is None else f"layer {layer!r}"


def expect_indices(indices: Tensor, name: str, count: int, limit: int | None = None, items: str = "") -> None:
    """Raise ValueError unless `indices` are int64 [count], each below `limit`."""
    if not isinstance(indices, Tensor) or indices.shape != (count,) or indices.dtype != torch.int64:
        actual = f"{indices.dtype} {list(indices.shape)}" if isinstance(indices, Tensor) else repr(indices)
        raise ValueError(f"{name}: is {actual}, expected int64 [{count}]")
    if limit is not None and count and not 0 <= int(indices.min()) <= int(indices.max()) < limit:
        wrong = next(i for i in indices.tolist() if not 0 <= i < limit)
        raise ValueError(f"{name}: is {wrong}, expected 0 to {limit - 1} (the {limit} {items})")


def expect_images(images: Tensor) -> None:
    """Raise ValueError unless `images` are float [N, C, H, W]."""
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        actual = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else type(images)
        raise ValueError(f"images: are {actual}, expected float in [0, 1], [N, C, H, W]")


def expect(holds: bool, name: str, actual: object, expected: str) -> None:
    """Raise ValueError unless it holds."""
    if not holds:
        raise ValueError(f"{name}: is {actual}, expected {expected}")


def copy_batches(copies: int, images: int, batch_size: int) -> Iterator[list[int]]:
    """The numbers of altered copies of a batch of images, 0 to copies - 1, split so that a forward pass has
    at most `batch_size` images, or one copy."""
    numbers = torch.arange(copies).split(max(1, batch_size // max(1, images)))
    return (chunk.tolist() for chunk in numbers)


def gradients_of_copies(network: nn.Module, copies: Tensor, targets: Tensor, of: str) -> Tensor:
    """The input gradients of copies of a batch, [P, N, C, H, W], in one forward pass; with targets [T, N],
    [P, T, N, C, H, W]; NoGradient where there are none."""
    of_each = targets if targets.ndim == 2 else targets[None]
    pixels = copies.flatten(0, 1).detach().requires_grad_()
    logits = network(pixels.clone())
    gradients = []
    for i, own in enumerate(of_each):
        expect_indices(own, "targets", copies.shape[1])
        score = class_scores(logits, own.repeat(len(copies)), of).sum()
        found = gradient(score, pixels, retain_graph=i + 1 < len(of_each))
        gradients.append(found.unflatten(0, copies.shape[:2]))
    return torch.stack(gradients, 1) if targets.ndim == 2 else gradients[0]


def true_and_predicted(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The classes that an image's maps are of: the true one and, where it is another, the predicted one.

    Args:
        images: float [N, C, H, W] in [0, 1].
        labels: int64 [N].

    Returns:
        Of each map, image by image, the image and the class, int64 [M]; and the logits, [N, K].
    """
    with torch.no_grad():
        logits = network(images)
    predicted = logits.softmax(1).argmax(1)
    wrong = (predicted != labels).nonzero()[:, 0]
    rows, order = torch.cat([torch.arange(len(images), device=images.device), wrong]).sort(stable=True)
    return rows, torch.cat([labels, predicted[wrong]])[order], logits
