"""What a data set says of its items without reading them: their labels and their files."""

import bisect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from vitrine.core.image_dataset import relative_path
from vitrine.datamodules.foreign_batches import LABEL_KEYS


def listed_labels(data_set: Any) -> Tensor | None:
    """The labels that a data set lists without reading its images; None: it lists none."""
    if isinstance(data_set, Subset):
        labels = listed_labels(data_set.dataset)
        return None if labels is None else labels[torch.as_tensor(data_set.indices)]
    if isinstance(data_set, ConcatDataset):
        parts = [listed_labels(part) for part in data_set.datasets]
        return None if any(part is None for part in parts) else torch.cat(parts)
    column = next((key for key in LABEL_KEYS if key in (getattr(data_set, "column_names", None) or [])), None)
    tensors = getattr(data_set, "tensors", None)
    if column is not None:
        labels = data_set.with_format(None)[column]
    elif tensors is not None and len(tensors) > 1:
        labels = tensors[1]
    else:
        labels = getattr(data_set, "targets", getattr(data_set, "labels", None))
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        return None
    return labels.to(torch.int64) if labels.ndim == 1 and not labels.is_floating_point() else None


def listed_path(data_set: Any, index: int) -> str | None:
    """The file of an item of a data set that lists its files as torchvision's do; None: unknown."""
    if isinstance(data_set, Subset):
        return listed_path(data_set.dataset, int(data_set.indices[index]))
    if isinstance(data_set, ConcatDataset):
        number = bisect.bisect(data_set.cumulative_sizes, index)
        return listed_path(data_set.datasets[number], index - [0, *data_set.cumulative_sizes][number])
    samples = getattr(data_set, "samples", None)
    if not isinstance(samples, list) or len(samples) != len(data_set):
        return None
    file = samples[index][0] if isinstance(samples[index], tuple) and samples[index] else None
    return relative_path(file, getattr(data_set, "root", None)) if isinstance(file, (str, Path)) else None
