"""What a network's last linear layer reads of many images, kept to be gone over in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

BLOCK = 2**22  # numbers of a block in float64: 32 MiB
KEPT = 2**24  # numbers up to which blocks are converted once and kept: 128 MiB, and 64 MiB in float32

AllGather = Callable[[Tensor], list[Tensor]]
"""A tensor of every rank, by rank, on the CPU: a collective, see `analyses.base.Subject.all_gather`."""


class Features:
    """Vectors of images, in float64 or float32 when they are used, whatever they are stored as.

    `features[rows]` is [n, D + 1], with a 1 appended where the head has a bias, and [n, D] where it has none.

    Args:
        values: [N, D] of this rank, float32 or float16, on any device and perhaps in a memory-mapped file.
        scales: [N], by which the rows are multiplied; None: they are as they are.
        bias: whether the head has one.
        device: where blocks are used.
        start: the place of the first row among those of all ranks.
        all_gather: of all ranks, whose sums are shared; None: there is one.
    """

    def __init__(
        self,
        values: Tensor,
        scales: Tensor | None = None,
        *,
        bias: bool = True,
        device: torch.device | str = "cpu",
        start: int = 0,
        all_gather: AllGather | None = None,
    ):
        self.values, self.scales, self.bias, self.start = values, scales, bias, start
        self.device, self._all_gather = torch.device(device), all_gather
        self.count = int(self.total(torch.tensor(len(values))))  # of all ranks
        self.width = values.shape[1] + bias
        self._kept: dict[torch.dtype, list[tuple[slice, Tensor]]] = {}

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, the same on each."""
        if self._all_gather is None:
            return tensor
        return torch.stack(self._all_gather(tensor.cpu())).sum(0).to(tensor.device)

    def gather(self, tensor: Tensor) -> Tensor:
        """The rows of all ranks, in the order of ranks, on the CPU."""
        return tensor.cpu() if self._all_gather is None else torch.cat(self._all_gather(tensor.cpu()))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        return self._read(rows, torch.float64)

    def blocks(self, dtype: torch.dtype = torch.float64) -> Iterator[tuple[slice, Tensor]]:
        """All rows of this rank, in order: which, and their vectors."""
        blocks = ((rows, self._read(rows, dtype)) for rows in self._slices())
        if len(self) * self.width <= KEPT:
            if dtype not in self._kept:
                self._kept[dtype] = list(blocks)
            blocks = iter(self._kept[dtype])
        yield from blocks

    def _read(self, rows: slice | Tensor, dtype: torch.dtype) -> Tensor:
        values = self.values[rows].to(self.device)  # before they become larger
        block = torch.empty(len(values), self.width, dtype=dtype, device=self.device)
        block[:, : values.shape[1]] = values
        if self.scales is not None:
            block[:, : values.shape[1]] *= self.scales[rows].to(block)[:, None]
        if self.bias:
            block[:, -1] = 1
        return block

    def _slices(self) -> Iterator[slice]:
        step = max(1, BLOCK // self.width)
        for start in range(0, len(self), step):
            yield slice(start, min(start + step, len(self)))


def in_half_precision(values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [n, D] as float16 and a float32 scale each [n], the largest magnitude: none overflows, and none of
    the largest is lost where all are small."""
    scales = values.abs().amax(1).float()
    return (values / scales.clamp_min(1e-30)[:, None]).half(), scales
