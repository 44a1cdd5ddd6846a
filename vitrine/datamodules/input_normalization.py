"""How the input of somebody's network is normalised: in the data's transforms, or after the loader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_TOLERANCE = 0.02  # between statistics that are given and those that were measured, in units of the deviation
_RESIDUAL = 0.05  # of a normalisation's fit: half precision, and the rounding to bytes on the way


@dataclass(frozen=True)
class Normalization:
    """(pixel - mean) / std, per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, mean: Sequence[float] | None, std: Sequence[float] | None) -> Normalization | None:
        """As given; None where neither is.

        Raises:
            ValueError: only one of them is.
        """
        if (mean is None) != (std is None):
            raise ValueError("mean and std come together, only one was given")
        if mean is None or std is None:
            return None
        return cls(tuple(float(m) for m in mean), tuple(float(s) for s in std))

    def undo(self, images: Tensor) -> Tensor:
        """The pixels of normalised images [N, C, H, W]."""
        mean, std = (torch.tensor(v, dtype=images.dtype).view(-1, 1, 1) for v in (self.mean, self.std))
        return images * std + mean

    def then(self, later: Normalization) -> Normalization:
        """This normalisation and another one after it, as one."""
        pairs = [
            (m + s * later_m, s * later_s)
            for m, s, later_m, later_s in zip(*_broadcast(self.mean, self.std, later.mean, later.std))
        ]
        return Normalization(tuple(m for m, _ in pairs), tuple(s for _, s in pairs))

    def is_close(self, other: Normalization) -> bool:
        """Whether images normalised by this and by the other are nearly the same."""
        return all(
            abs(m - other_m) <= _TOLERANCE * abs(s) and abs(s - other_s) <= _TOLERANCE * abs(s)
            for m, s, other_m, other_s in zip(*_broadcast(self.mean, self.std, other.mean, other.std))
        )

    def __str__(self) -> str:
        mean, std = ([round(v, 4) for v in values] for values in (self.mean, self.std))
        return f"mean {mean}, std {std}"


def measure_normalization(images: Tensor, received: Tensor) -> Normalization | None:
    """The normalisation between the images of a loader and what a network was given of them.

    Args:
        images, received: float [N, C, H, W].

    Returns:
        By least squares per channel; None where no normalisation makes the one of the other (images were
        resized, augmented, or come in another order).
    """
    if images.shape != received.shape or len(images) == 0:
        return None
    x, y = (t.double().transpose(0, 1).flatten(1) for t in (images, received))
    x_mean, y_mean = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    dx, dy = x - x_mean, y - y_mean
    variance = dx.square().sum(1)
    if not (variance > 0).all():
        return None
    scale = (dx * dy).sum(1) / variance
    residual = (dy - scale[:, None] * dx).square().sum(1).sqrt() / dy.square().sum(1).sqrt().clamp_min(1e-12)
    if not (scale > 0).all() or not (residual < _RESIDUAL).all():
        return None
    shift = y_mean[:, 0] - scale * x_mean[:, 0]
    return Normalization(tuple((-shift / scale).tolist()), tuple((1 / scale).tolist()))


IDENTITY = Normalization((0.0,), (1.0,))


def _broadcast(*values: Sequence[float]) -> list[tuple[float, ...]]:
    channels = max(map(len, values))
    return [tuple(v) * channels if len(v) == 1 else tuple(v) for v in values]
