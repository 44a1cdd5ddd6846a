"""Images in tar files, read by their place."""

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from vitrine.core.image_dataset import relative_path
from vitrine.datamodules.files import UnreadableImage

_KEPT_OPEN = 64  # shards, of the thousand or so files that systems let a process open


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
        self._opened: tuple[int, OrderedDict[int, _Shard], threading.Lock] | None = None

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

    def _bytes(self, number: int, size: int, place: int) -> bytes:
        shard = self._shard(number)  # remains open while it is read, though other threads need others
        if hasattr(os, "pread"):
            return os.pread(shard.descriptor, size, place)
        with self._opened[2]:  # Windows, where all threads share one place in the file
            os.lseek(shard.descriptor, place, os.SEEK_SET)
            return os.read(shard.descriptor, size)

    def _shard(self, number: int) -> "_Shard":
        """An open shard; each process opens its own, and keeps those that it read last."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), OrderedDict(), threading.Lock()
        _, shards, lock = self._opened
        with lock:
            if number not in shards:
                shards[number] = _Shard(self.shards[number], self.sizes[number])
                if len(shards) > _KEPT_OPEN:
                    shards.popitem(last=False)
            shards.move_to_end(number)
            return shards[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


class _Shard:
    """An open file, which is closed when nothing refers to it any longer.

    Raises:
        OSError: it cannot be opened, or is not of that many bytes.
    """

    def __init__(self, path: str, size: int):
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        if os.fstat(self.descriptor).st_size != size:
            raise OSError(0, "the shard is another one than at the start")

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # `os` may be gone at the end
        if hasattr(self, "descriptor"):
            close(self.descriptor)
