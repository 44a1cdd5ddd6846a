"""Weights of the classes, for a loss in which rare ones count for more."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitrine.core.settings import SettingError

_KEY = "objective.class_weights"


def weights_of_classes(setting: Any, train: Any, classes: Sequence[str]) -> Tensor | None:
    """The weights, float32, [K], that a setting means; None if it is null.

    "balanced" is n / (K n_k) for n images, of which n_k are of the class (King & Zeng 2001): the mean weight
    of an image is one.

    Args:
        setting: null, "balanced", or a number for each class.
        train: the training split, whose `labels`, int64, [N], are read for "balanced" alone.
        classes: names.

    Raises:
        SettingError: it is something else; or a class has no images to balance.
    """
    if setting is None:
        return None
    count = len(classes)
    if setting == "balanced":
        return _balanced(getattr(train, "labels", None), classes)
    if not isinstance(setting, (list, tuple)):
        raise SettingError(_KEY, f"is {setting!r}, expected balanced, null or a list of {count} numbers")
    if len(setting) != count:
        shown = ", ".join(classes[:5]) + (", ..." if count > 5 else "")
        raise SettingError(_KEY, f"has {len(setting)} numbers, expected {count}, in the order of {shown}")
    for name, weight in zip(classes, setting):
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not (number and math.isfinite(weight) and weight >= 0):
            raise SettingError(_KEY, f"is {weight!r} for {name!r}, expected a number of at least 0")
    if not any(setting):
        raise SettingError(_KEY, "are all 0, expected one at least that is more")
    return torch.tensor([float(weight) for weight in setting])


def _balanced(labels: Tensor | None, classes: Sequence[str]) -> Tensor:
    if labels is None:
        problem = "is balanced, but the labels of these data are not known before they are read"
        raise SettingError(_KEY, f"{problem}; expected a list of {len(classes)} numbers")
    counts = labels.bincount(minlength=len(classes))
    if missing := (counts == 0).nonzero()[:, 0].tolist():
        first = classes[missing[0]]
        problem = f"is balanced, but {first!r} has no training image"
        more = f", nor have {len(missing) - 1} other classes" if len(missing) > 1 else ""
        raise SettingError(_KEY, f"{problem}{more}; expected a list of {len(classes)} numbers")
    return (len(labels) / (len(classes) * counts.double())).float()
