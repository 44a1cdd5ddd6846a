"""What is known of units on their way to names: the images looked at, the first pass, the names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vitrine.analyses.dissection import DETECTS


@dataclass(frozen=True)
class Sample:
    """The images that this rank looks at."""

    indices: Tensor  # int64, [N], into the data set
    labels: Tensor  # int64, [N]
    masks: Tensor | None  # bool, [N, parts, H, W]; None where there are none
    parts: Sequence[str]
    start: int  # where the first of them is among those of all ranks
    total: int  # images of all ranks
    batch_size: int

    def batches(self, progress: Callable[..., Any], description: str) -> Iterator[slice]:
        """Which rows make a batch, one after another."""
        starts = range(0, len(self.indices), self.batch_size)
        for start in progress(starts, description, len(starts)):
            yield slice(start, start + self.batch_size)


@dataclass(frozen=True)
class Survey:
    """What one pass over the images of all ranks tells of units, by layer."""

    peaks: Mapping[str, Tensor]  # the largest activation in each image, [units, N]
    thresholds: Mapping[str, Tensor]  # above which a unit is active, [units]; none without masks
    embeddings: Tensor | None  # what the head reads of the images, [N, D]
    monosemanticity: Mapping[str, Tensor]  # [units]; none without a head


@dataclass(frozen=True)
class Names:
    """What the units of a layer are called."""

    iou: Tensor  # [units, parts, 1 + classes], see `Overlaps.iou`
    thresholds: Tensor  # [units]
    parts: Sequence[str]
    classes: Sequence[str]

    def best(self, unit: int) -> list[tuple[str, float]]:
        """The concepts with the largest IoU with a unit, best first; of each part one, and none of 0."""
        of_part, kinds = self.iou[unit].max(1)
        order = of_part.argsort(descending=True, stable=True).tolist()
        found = [(self.concept(part, int(kinds[part])), of_part[part].item()) for part in order]
        return [(name, iou) for name, iou in found if iou > 0]

    def part(self, unit: int) -> int:
        """The part that a unit is called after."""
        return int(self.iou[unit].amax(1).argmax())

    def concept(self, part: int, kind: int) -> str:
        """The name of a part, of the class `kind` - 1, or of all where it is 0."""
        return self.parts[part] if kind == 0 else f"{self.parts[part]} of {self.classes[kind - 1]}"

    def described(self, unit: int) -> str:
        """What a unit is called, in a line: "glyph of stop, IoU 0.31, then border 0.10"."""
        found = self.best(unit)
        if not found:
            return "it is nowhere active on what is known"
        (name, iou), *others = found
        then = f", then {others[0][0]} {others[0][1]:.2f}" if others else ""
        return f"{name}, IoU {iou:.2f}{'' if iou > DETECTS else ' (no detector)'}{then}"

    @property
    def detected(self) -> Tensor:
        """Of each unit the part that it detects, int64 [units]; -1: none."""
        best, part = self.iou.amax(2).max(1)
        return part.where(best > DETECTS, -1)
