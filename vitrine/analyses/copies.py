"""Many changed copies of a batch, so many at a time as fit into one pass."""

from __future__ import annotations

from collections.abc import Iterator


def chunks(copies: int, images: int, batch_size: int) -> Iterator[list[int]]:
    """The numbers 0 to copies - 1, so many at a time that copies x images <= batch_size (at least one)."""
    size = max(1, batch_size // max(1, images))
    for start in range(0, copies, size):
        yield list(range(start, min(start + size, copies)))
