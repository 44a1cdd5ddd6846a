"""Images in tar files, read by their place."""

import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from vitrine.core.image_dataset import relative_path
from vitrine.datamodules.files import UnreadableImage


class TarStore:
    """Images in tar files by number.

    Args:
        shards: the files.
        samples: of each shard the samples' (key, place, size, ...).
    """

    def __init__(self, shards: Sequence[Path], samples: Sequence[Sequence[tuple[Any, ...]]]):
        self.shards = [str(shard) for shard in shards]
        self.folder = os.path.commonpath([os.path.dirname(shard) for shard in self.shards])
        self.sizes = [os.path.getsize(shard) for shard in shards]
        rows = [row for shard in samples for row in shard]
        self.keys = [row[0] for row in rows]
        self.places = np.array([row[1:3] for row in rows], dtype=np.int64).reshape(-1, 2)
        self.shard = np.repeat(np.arange(len(self.shards)), [len(shard) for shard in samples])
        self._opened: tuple[int, dict[int, int], threading.Lock] | None = None

    def name(self, number: int) -> str:
        """The shard and the key of an image."""
        return f"{self.shards[self.shard[number]]}: sample {self.keys[number]}"

    def path(self, number: int) -> str:
        """The shard, relative to the folder that all are in, and the key of an image."""
        shard = relative_path(self.shards[self.shard[number]], self.folder)
        return f"{shard}: {self.keys[number]}"

    def shard_of(self, numbers: Sequence[int]) -> torch.Tensor:
        """The shard of each image, int64."""
        return torch.from_numpy(self.shard)[torch.as_tensor(numbers, dtype=torch.int64)]

    def read(self, number: int) -> tuple[BinaryIO, str]:
        place, size = self.places[number].tolist()
        name = self.name(number)
        try:
            content = self._bytes(int(self.shard[number]), size, place)
        except OSError as error:
            raise UnreadableImage(f"{name} cannot be read as an image ({error.strerror})") from error
        if len(content) < size:
            raise UnreadableImage(f"{name} cannot be read as an image (the shard ends before it)")
        return io.BytesIO(content), name

    @property
    def description(self) -> str:
        return f"read from {len(self.shards)} tar files"

    def _bytes(self, shard: int, size: int, place: int) -> bytes:
        descriptor = self._descriptor(shard)
        if hasattr(os, "pread"):
            return os.pread(descriptor, size, place)
        with self._opened[2]:  # Windows, where all threads share one place in the file
            os.lseek(descriptor, place, os.SEEK_SET)
            return os.read(descriptor, size)

    def _descriptor(self, shard: int) -> int:
        """An open shard; each process opens its own, few at a time."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), {}, threading.Lock()
        _, descriptors, lock = self._opened
        with lock:
            if shard not in descriptors:
                descriptor = os.open(self.shards[shard], os.O_RDONLY | getattr(os, "O_BINARY", 0))
                if os.fstat(descriptor).st_size != self.sizes[shard]:
                    os.close(descriptor)
                    raise OSError(0, "the shard is another one than at the start")
                descriptors[shard] = descriptor
            return descriptors[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}
