"""The k images that excite each unit most, from a stream of batches.

A value and its image are one int64 key: the value's bits in sortable order, above the complement of the
image's index. So `topk` on keys is exact, breaks ties by the lower index, and does not depend on the order of
the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EMPTY_KEY = torch.iinfo(torch.int64).min  # of no image: below the key of -inf
_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class TopExamples:
    """For each unit of a layer the images whose largest activation over space is largest, best first."""

    values: Tensor  # float32 [units, k], descending
    indices: Tensor  # int64 [units, k], into the data set; the lower one first where values are equal
    positions: Tensor  # int64 [units, k, 2], row and column of the activation in the layer's map
    labels: Tensor | None = None  # int64 [units, k], of the images; None where unknown
    peaks: Tensor | None = None  # float32 [units, images], of requested units on every image

    @property
    def dead(self) -> Tensor:
        """Which units are never above 0 on the split: bool [units]."""
        return self.values[:, 0] <= 0

    @property
    def class_entropy(self) -> Tensor:
        """Entropy of the classes of each unit's images, in bits, float32 [units]; 0 where all are alike."""
        if self.labels is None:
            raise ValueError("labels are unknown: the loader of these examples gave none")
        share = (self.labels[:, :, None] == self.labels[:, None, :]).float().mean(2)  # of each image's class
        return -share.log2().mean(1) + 0.0


class RunningTop:
    """The best k so far of every unit of one layer.

    Args:
        k: images a unit.
        dense: update every unit's list for every batch. On a GPU, finding the lists that change needs a
            synchronization that costs more than it saves; on a CPU it saves most of the work.
        peaks_of: units whose largest activation on every image is kept, too.
    """

    def __init__(self, k: int, dense: bool, peaks_of: Sequence[int] = ()):
        self.k, self.dense = k, dense
        self.peaks_of = torch.tensor(list(peaks_of), dtype=torch.int64)
        self.peaks: list[Tensor] = []  # [B, len(peaks_of)] of each batch
        self.keys: Tensor | None = None  # [units, k] descending
        self.positions: Tensor | None = None  # [units, k], row * width + column
        self.least: Tensor | None = None  # [units], the last values of the lists; NaN where one is not full
        self.size: torch.Size | None = None  # of the maps, height and width

    def update(self, maps: Tensor, indices: Tensor, is_new: Tensor | None = None) -> None:
        """Update the lists with maps [B, units, h, w] of the images at indices [B].

        Without `is_new` (bool [B]) the indices are higher than any before; with it they are in any order, and
        images that are not new are skipped.

        Raises:
            ValueError: the maps have another size than those before.
        """
        size = maps.shape[2:]
        if self.size not in (None, size):
            sizes = " after maps of ".join(f"{height} x {width}" for height, width in (size, self.size))
            raise ValueError(f"the batch leads to maps of {sizes}: expected images of one size")
        best = maps.amax((2, 3))
        if len(self.peaks_of):
            self.peaks_of = self.peaks_of.to(maps.device)
            self.peaks.append((best if is_new is None else best[is_new])[:, self.peaks_of].float())
        if self.keys is None:
            self.keys = torch.full((best.shape[1], self.k), EMPTY_KEY, device=maps.device)
            self.positions, self.size = torch.zeros_like(self.keys), size
            self.least = torch.full((best.shape[1],), torch.nan, device=maps.device)
        units = self._units_to_update(best, is_new is None)
        if units is None:
            return
        keys = encode_keys(best[:, units].T.contiguous(), indices)
        if is_new is not None:
            keys = keys.masked_fill(~is_new, EMPTY_KEY)
        top, selected = torch.cat([self.keys[units], keys], 1).topk(self.k, 1)
        self.keys[units] = top
        self.least[units], _ = decode_keys(top[:, -1])
        positions = self.positions[units].gather(1, selected.clamp(max=self.k - 1))
        is_inserted, images = selected >= self.k, (selected - self.k).clamp(min=0)
        numbers = torch.arange(best.shape[1], device=maps.device)[units]
        if self.dense:
            found = maps[images, numbers[:, None]].flatten(2).argmax(2)
            positions = torch.where(is_inserted, found, positions)
        else:  # find the positions of inserted images only
            rows, slots = is_inserted.nonzero(as_tuple=True)
            positions[rows, slots] = maps[images[rows, slots], numbers[rows]].flatten(1).argmax(1)
        self.positions[units] = positions

    def _units_to_update(self, best: Tensor, in_order: bool) -> Tensor | slice | None:
        """The units whose lists may change by values [B, units]: few, after many images; all at once where
        they are most, as that spares the copies; None where there is none."""
        if self.dense:
            return slice(None)
        highest = best.amax(0)  # NaN where any value is, which is not below anything
        below = highest <= self.least if in_order else highest < self.least  # equal: its index may be lower
        changed = below.logical_not_().nonzero()[:, 0]
        if not len(changed):
            return None
        return changed if 4 * len(changed) < 3 * len(below) else slice(None)

    def result(self) -> TopExamples:
        """The lists so far, on the CPU; fewer than k columns after fewer than k images."""
        count = int((self.keys > EMPTY_KEY).sum(1).min())
        keys, positions = self.keys[:, :count].cpu(), self.positions[:, :count].cpu()
        peaks = torch.cat(self.peaks).T.contiguous().cpu() if len(self.peaks_of) else None
        width = self.size[1]
        positions = torch.stack([positions // width, positions % width], 2)
        return TopExamples(*decode_keys(keys), positions, peaks=peaks)


def merge(parts: Sequence[TopExamples], k: int = 9) -> TopExamples:
    """The top k of a data set from those of its parts (of ranks, say); an image in several parts counts once,
    except in `peaks`, which are concatenated."""
    names = ("values", "indices", "positions")
    values, indices, positions = (torch.cat([getattr(p, name) for p in parts], 1) for name in names)
    keys, order = encode_keys(values, indices).sort(1, descending=True)
    indices = indices.gather(1, order)
    repeated = (indices[:, :, None] == indices[:, None, :]).tril(-1).any(2)  # the same image again
    keys, best = keys.masked_fill(repeated, EMPTY_KEY).topk(min(k, keys.shape[1]), 1)
    best = order.gather(1, best[:, : int((keys > EMPTY_KEY).sum(1).min())])
    labelled = all(p.labels is not None for p in parts)
    with_peaks = all(p.peaks is not None for p in parts)
    return TopExamples(
        values.gather(1, best),
        torch.cat([p.indices for p in parts], 1).gather(1, best),
        positions.gather(1, best[:, :, None].expand(-1, -1, 2)),
        torch.cat([p.labels for p in parts], 1).gather(1, best) if labelled else None,
        torch.cat([p.peaks for p in parts], 1) if with_peaks else None,
    )


def encode_keys(values: Tensor, indices: Tensor) -> Tensor:
    """Values (NaN counts as -inf, -0 as 0) and indices (below 2^32) as int64 keys that sort by value,
    then index."""
    values = values.float().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf) + 0.0
    return (_sortable(values.view(torch.int32)).long() << 32) | (_LOW - indices)


def decode_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The values (float32) and indices of keys."""
    return _sortable(keys >> 32).int().view(torch.float32), _LOW - (keys & _LOW)


def _sortable(bits: Tensor) -> Tensor:
    """A float's 32 bits, as int32 or int64, as an integer of the same order, and back."""
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
