"""A batch of maps as rows of channels, beside the rectangles that replace some of them: what reads of both
is one selection of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from vitrine.attacks.patch import Patch


class MapRows:
    """Maps [N, C, H, W], each with a rectangle that may become its own."""

    def __init__(self, maps: Tensor, size: tuple[int, int]):
        """Args:
        maps: [N, C, H, W], copied.
        size: height and width of the rectangles.
        """
        self._count, channels, self._height, self._width = maps.shape
        self._size = size
        own, changed = self._count * self._height * self._width, self._count * size[0] * size[1]
        # the maps' pixels, the rectangles', and one beyond the border
        self._rows = maps.new_empty(own + changed + 1, channels)
        self._rows[:own].view(self._count, self._height, self._width, channels).copy_(
            maps.permute(0, 2, 3, 1)
        )
        self._changed = self._rows[own:-1].view(self._count, *size, channels)
        self._border = own + changed
        self._fill: float | None = None
        self._ranges: dict[tuple[int, int], Tensor] = {}
        every = torch.arange(self._count, device=maps.device)
        self._first = every * (self._height * self._width)  # row of each map's first pixel
        self._first_changed = own + every * (size[0] * size[1])
        self._top = self._left = torch.zeros_like(every)

    def put(self, patch: Patch) -> None:
        """Take these rectangles."""
        self._changed.copy_(patch.values.permute(0, 2, 3, 1))
        self._top, self._left = patch.top, patch.left

    def keep(self, rows: Tensor) -> None:
        """Let some maps, int64, have their rectangles for good."""
        height, width = self._size
        first = self._first[rows] + self._top[rows] * self._width + self._left[rows]
        own = first[:, None, None] + self._offsets(height, self._width)[:, None] + self._offsets(width, 1)
        self._rows.index_copy_(0, own.flatten(), self._changed[rows].flatten(0, 2))

    def crop(self, top: Tensor, left: Tensor, size: tuple[int, int], fill: float | None = 0.0) -> Tensor:
        """Rectangles of one size [N, C, h, w] of the maps with their changed ones; they may cross the border.

        Args:
            top: int64 [N], also left; may be negative.
            fill: what lies beyond the border; None where nothing does.
        """
        height, width = self._size
        y, x = top[:, None] + self._offsets(size[0], 1), left[:, None] + self._offsets(size[1], 1)
        down, across = y - self._top[:, None], x - self._left[:, None]
        own = (self._first[:, None] + y * self._width)[:, :, None] + x[:, None]
        changed = (self._first_changed[:, None] + down * width)[:, :, None] + across[:, None]
        is_changed = ((down >= 0) & (down < height))[:, :, None] & ((across >= 0) & (across < width))[:, None]
        index = torch.where(is_changed, changed, own)
        if fill is not None:
            inside = ((y >= 0) & (y < self._height))[:, :, None] & ((x >= 0) & (x < self._width))[:, None]
            index = torch.where(inside, index, self._border)
            if fill != self._fill:
                self._rows[self._border], self._fill = fill, fill
        rows = self._rows.index_select(0, index.flatten())
        return rows.view(self._count, *size, -1).permute(0, 3, 1, 2)

    def whole(self) -> Tensor:
        """The maps with their rectangles, [N, C, H, W]."""
        corner = torch.zeros_like(self._top)
        return self.crop(corner, corner, (self._height, self._width), None)

    def _offsets(self, count: int, step: int) -> Tensor:
        if (count, step) not in self._ranges:
            self._ranges[count, step] = torch.arange(0, count * step, step, device=self._rows.device)
        return self._ranges[count, step]
