"""The k images that excite each unit most, kept while a data set streams by.

A value and its image are one int64 key: the value's bits, put in order, above the image's index, counted
down. So `topk` on keys is exact, breaks ties by the lower index, and gives the same answer in whatever order
images come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NONE = torch.iinfo(torch.int64).min  # the key of no image: below that of -inf
_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class TopExamples:
    """For each unit of a layer the images on which its largest activation over space is largest, best first.

    Attributes:
        values: float32 [units, k], descending.
        indices: int64 [units, k], into the data set; the lower one first where values are equal.
        positions: int64 [units, k, 2], row and column of the activation in the layer's map.
        labels: int64 [units, k], of the images; None where they are not known.
        peaks: float32 [units asked for, images], their largest activations on every image; None unless asked
            for.
    """

    values: Tensor
    indices: Tensor
    positions: Tensor
    labels: Tensor | None = None
    peaks: Tensor | None = None

    @property
    def dead(self) -> Tensor:
        """Which units are never above 0 on the split: bool [units]."""
        return self.values[:, 0] <= 0

    @property
    def class_entropy(self) -> Tensor:
        """Entropy of the classes of each unit's images, in bits: float32 [units]; 0 where they are all of
        one."""
        if self.labels is None:
            raise ValueError("labels are not known: the loader that the examples came from gave none")
        share = (self.labels[:, :, None] == self.labels[:, None, :]).float().mean(2)  # of each image's class
        return -share.log2().mean(1) + 0.0


class RunningTop:
    """The best k so far of every unit of one layer.

    Args:
        k: images a unit.
        dense: work on every unit's list for every batch. On a GPU, finding out which lists change means
            waiting for it, and costs more than it spares; on a CPU it spares most of the work.
        spread: units of which the largest activation on every image is kept, too.
    """

    def __init__(self, k: int, dense: bool, spread: Sequence[int] = ()):
        self.k, self.dense, self.spread = k, dense, torch.tensor(list(spread), dtype=torch.int64)
        self.peaks: list[Tensor] = []  # [B, spread] of each batch
        self.keys: Tensor | None = None  # [units, k] descending
        self.places: Tensor | None = None  # [units, k], row * 2^16 + column

    def update(self, maps: Tensor, indices: Tensor, fresh: Tensor | None = None) -> None:
        """Take in maps [B, units, h, w] of the images at indices [B].

        Without `fresh` the indices are higher than any before; with it they are in any order, and images that
        are not fresh (bool [B]) are passed over.
        """
        best = maps.amax((2, 3))
        if len(self.spread):
            self.spread = self.spread.to(maps.device)
            self.peaks.append((best if fresh is None else best[fresh])[:, self.spread].float())
        if self.keys is None:
            self.keys = torch.full((best.shape[1], self.k), NONE, device=maps.device)
            self.places = torch.zeros_like(self.keys)
        units = self._open_to(best, fresh is None)
        if not len(units):
            return
        keys = keys_of(best[:, units], indices[:, None])
        if fresh is not None:
            keys = keys.masked_fill(~fresh[:, None], NONE)
        self.keys[units], chosen = torch.cat([self.keys[units], keys.T], 1).topk(self.k, 1)
        places = self.places[units].gather(1, chosen.clamp(max=self.k - 1))
        entered, images = chosen >= self.k, (chosen - self.k).clamp(min=0)
        if self.dense:
            places = torch.where(entered, _places(maps[images, units[:, None]]), places)
        else:  # only what enters a list is searched for its position
            rows, slots = entered.nonzero(as_tuple=True)
            places[rows, slots] = _places(maps[images[rows, slots], units[rows]])
        self.places[units] = places

    def _open_to(self, best: Tensor, in_order: bool) -> Tensor:
        """The units whose lists may change by values [B, units]: few, once many images have come by."""
        if self.dense:
            return torch.arange(best.shape[1], device=best.device)
        last, _ = read_keys(self.keys[:, -1])  # NaN, and so not above anything, where a list is not full
        below = best <= last if in_order else best < last  # an equal value counts if its index may be lower
        return (~below).any(0).nonzero().squeeze(1)

    def result(self) -> TopExamples:
        """What has been found, on the CPU; fewer than k columns where fewer images have come by."""
        count = int((self.keys > NONE).sum(1).min())
        keys, places = self.keys[:, :count].cpu(), self.places[:, :count].cpu()
        peaks = torch.cat(self.peaks).T.contiguous().cpu() if len(self.spread) else None
        return TopExamples(
            *read_keys(keys), torch.stack([places >> 16, places & 0xFFFF], 2), labels=None, peaks=peaks
        )


def _places(maps: Tensor) -> Tensor:
    """Where each of maps [..., h, w] is largest, the first place of several: row * 2^16 + column."""
    first, width = maps.flatten(-2).argmax(-1), maps.shape[-1]
    return (first // width << 16) + first % width


def merge(parts: Sequence[TopExamples], k: int = 9) -> TopExamples:
    """One top k from those of several shares of a data set (of ranks, say); an image in several counts
    once, but for `peaks`, which are strung together."""
    values, indices, positions = (
        torch.cat([getattr(p, n) for p in parts], 1) for n in ("values", "indices", "positions")
    )
    keys, order = keys_of(values, indices).sort(1, descending=True)
    indices = indices.gather(1, order)
    again = (indices[:, :, None] == indices[:, None, :]).tril(-1).any(2)  # the same image, better before
    keys, best = keys.masked_fill(again, NONE).topk(min(k, keys.shape[1]), 1)
    best = order.gather(1, best[:, : int((keys > NONE).sum(1).min())])
    known = all(p.labels is not None for p in parts)
    spread = all(p.peaks is not None for p in parts)
    return TopExamples(
        values.gather(1, best),
        torch.cat([p.indices for p in parts], 1).gather(1, best),
        positions.gather(1, best[:, :, None].expand(-1, -1, 2)),
        torch.cat([p.labels for p in parts], 1).gather(1, best) if known else None,
        torch.cat([p.peaks for p in parts], 1) if spread else None,
    )


def keys_of(values: Tensor, indices: Tensor) -> Tensor:
    """Values (NaN counts as -inf, -0 as 0) and indices (below 2^32) as int64 keys that sort by value,
    then index."""
    values = values.float().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf) + 0.0
    bits = values.view(torch.int32).long()
    return (_ordered(bits) << 32) | (_LOW - indices)


def read_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The values (float32) and indices that keys were made of."""
    return _ordered(keys >> 32).int().view(torch.float32), _LOW - (keys & _LOW)


def _ordered(bits: Tensor) -> Tensor:
    """A float's 32 bits as a number that grows with it, and back: negative floats count their bits
    downwards."""
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
