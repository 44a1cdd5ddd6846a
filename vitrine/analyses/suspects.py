"""Rankings of training images, and how well they find labels that are known to be wrong."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vitrine.core.class_ranks import ranks_in_class


def ranks(scores: Tensor) -> Tensor:
    """The place of each score [N], 1 for the largest; of equal ones the earlier first, NaN last."""
    order = scores.nan_to_num(nan=-math.inf).argsort(descending=True, stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(1, len(order) + 1)
    return places


def auc(scores: Tensor, positive: Tensor) -> float | None:
    """The probability that a positive [N] has a higher score than a negative, ties counting half; None where
    there is only one kind, or a score is unknown."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives or scores.isnan().any():
        return None
    _, group, counts = scores.unique(return_inverse=True, return_counts=True)
    places = (counts.cumsum(0) - (counts - 1) / 2)[group]  # from 1, the mean of equal ones
    return ((places[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives)).item()


def first_overall_and_of_each_class(places: Tensor, labels: Tensor, overall: int, of_class: int) -> Tensor:
    """Which [M] of N images are among the first `overall`, or the first `of_class` of a label; by place."""
    order = places.argsort()
    in_class = ranks_in_class(labels, order)[order]
    return order[(torch.arange(len(order)) < overall) | (in_class < of_class)]


def as_csv(columns: Mapping[str, Sequence[object]]) -> str:
    """Columns of one length as text of a CSV file, with their headings; None is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values()))
    return text.getvalue()
