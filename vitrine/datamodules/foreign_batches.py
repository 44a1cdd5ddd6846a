"""The images and labels in what anybody's loader yields."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

IMAGE_KEYS = ("pixel_values", "image", "images", "img", "x", "input", "inputs")
LABEL_KEYS = ("labels", "label", "target", "targets", "y", "class", "cls", "fine_label")


def read_batch(batch: Any) -> tuple[Tensor, Tensor]:
    """The images and labels in what a loader yields: (images, labels, ...), or a mapping that names them.

    Returns:
        float32 [N, C, H, W], uint8 divided by 255; int64 [N], one-hot labels as indices.

    Raises:
        ValueError: there are no such tensors.
    """
    images, labels = batch_parts(batch)
    return _as_float(images), _as_indices(labels, len(images))


def batch_parts(batch: Any) -> tuple[Tensor, Any]:
    """The images and labels of a batch as they are."""
    if isinstance(batch, Mapping):
        images, labels = (
            next((batch[key] for key in keys if key in batch), None) for keys in (IMAGE_KEYS, LABEL_KEYS)
        )
        described = f"a mapping with {', '.join(map(str, batch))}"
    elif isinstance(batch, (tuple, list)) and len(batch) >= 2:
        images, labels, described = batch[0], batch[1], f"a {type(batch).__name__} of {len(batch)}"
    else:
        images = labels = None
        described = f"a {type(batch).__name__}"
    if not isinstance(images, Tensor) or images.ndim != 4:
        shape = f" of shape {tuple(images.shape)}" if isinstance(images, Tensor) else ""
        came = f"{described}, whose images are a {type(images).__name__}{shape}"
        known = f"(images [N, C, H, W], labels [N]) or a mapping with {', '.join(IMAGE_KEYS[:3])}, ..."
        raise ValueError(f"data: a batch is {came}, expected {known}")
    return images, labels


def _as_float(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def _as_indices(labels: Any, count: int) -> Tensor:
    labels = torch.as_tensor(labels) if labels is not None else None
    labels = labels.int() if labels is not None and labels.dtype == torch.bool else labels
    if labels is not None and labels.shape == (count,):
        return _whole(labels)
    if labels is not None and labels.ndim == 2 and len(labels) == count:
        if labels.shape[1] == 1:
            return _whole(labels[:, 0])
        if torch.equal(labels.sum(1), torch.ones(count).to(labels)) and labels.max() == 1:
            return labels.argmax(1)
    shape = "none" if labels is None else f"of shape {tuple(labels.shape)}"
    raise ValueError(f"data: labels are {shape}, expected [N] for {count} images, or one-hot rows")


def _whole(labels: Tensor) -> Tensor:
    if labels.is_floating_point() and not (whole := (labels == labels.round()) & labels.isfinite()).all():
        problem = f"labels are fractions, the first is {labels[~whole][0].item():g}"
        raise ValueError(f"data: {problem}, expected whole numbers: classes from 0")
    return labels.to(torch.int64)
