"""How well cars are found: recall and precision at a score, and average precision, at an IoU of 0.5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vitrine.lidar.boxes import pairwise_iou

IOU = 0.5


class Detections(NamedTuple):
    """What is found in a scene, and what is there."""

    scores: Tensor  # [D], after suppression
    boxes: Tensor  # [D, 5]
    cars: Tensor  # [N, 5]
    counted: (
        Tensor  # bool [N]: whether one that is not found is missed; finding the others is no mistake either
    )


@dataclass(frozen=True)
class Quality:
    """Of detections in a number of scenes, each in [0, 1]; None where there is nothing to measure."""

    recall: float | None
    precision: float | None
    average_precision: float | None
    cars: int


def match(found: Detections, limit: float = IOU) -> tuple[Tensor, Tensor]:
    """Which car each detection is of: detections in the order of their scores take the car that they overlap
    most of those not taken yet, if by at least `limit`.

    Returns:
        int64 [D], the car; -1: none. And int64 [N], the detection of each car; -1: none.
    """
    overlaps = pairwise_iou(found.boxes, found.cars)
    car_of = torch.full((len(found.boxes),), -1)
    detection_of = torch.full((len(found.cars),), -1)
    for i in found.scores.argsort(descending=True, stable=True).tolist():
        if not len(found.cars):
            break
        free = torch.where(detection_of < 0, overlaps[i], -1)
        best = int(free.argmax())
        if free[best] >= limit:
            car_of[i], detection_of[best] = best, i
    return car_of, detection_of


def recall_within(
    scenes: Sequence[Detections], threshold: float, near: float, far: float, limit: float = IOU
) -> tuple[float | None, int]:
    """Which share of the cars between `near` and `far` metres away is found (None: there are none), and how
    many these are."""
    found = cars = 0
    for scene in scenes:
        distance = scene.cars[:, :2].norm(dim=1)
        counted = scene.counted & (distance >= near) & (distance < far)
        detection_of = match(scene, limit)[1]
        sure = torch.cat([scene.scores, scene.scores.new_zeros(1)])[detection_of] >= threshold
        found, cars = found + int((sure & counted).sum()), cars + int(counted.sum())
    return (found / cars if cars else None), cars


def evaluate(scenes: Sequence[Detections], threshold: float, limit: float = IOU) -> Quality:
    """Recall and precision of the detections with scores of at least `threshold`, and average precision, the
    area under precision against recall, each precision being the highest at that recall or beyond
    (Everingham et al. 2010)."""
    scores, right, cars = [], [], 0
    for found in scenes:
        car_of, _ = match(found, limit)
        ignored = (
            (car_of >= 0) & ~found.counted[car_of] if len(found.cars) else torch.zeros_like(car_of).bool()
        )
        scores.append(found.scores[~ignored])
        right.append(car_of[~ignored] >= 0)
        cars += int(found.counted.sum())
    all_scores = torch.cat(scores) if scores else torch.zeros(0)
    all_right = torch.cat(right) if right else torch.zeros(0, dtype=torch.bool)
    order = all_scores.argsort(descending=True, stable=True)
    sure = all_scores >= threshold
    hits = int((all_right & sure).sum())
    true = all_right[order].double().cumsum(0)
    precision = true / torch.arange(1, len(true) + 1)
    best = precision.flip(0).cummax(0).values.flip(0) if len(true) else precision
    average = float((best * all_right[order]).sum()) / cars if cars else None
    return Quality(
        hits / cars if cars else None,
        hits / int(sure.sum()) if sure.any() else None,
        average,
        cars,
    )
