"""Unfinished work of analyses that take hours, in files of the run that are removed once it is complete."""

import contextlib
import errno
import hashlib
import io
import logging
import math
import os
import pickle
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrine.analyses.base import Scratch
from vitrine.core import atomic

log = logging.getLogger(__name__)


class FileScratch(Scratch):
    """A scratch in a folder that the first `save` creates."""

    def __init__(self, folder: Path):
        self.folder = folder

    def load(self, key: str) -> dict[str, Any] | None:
        """The state saved under a key, tensors on the CPU; None if there is none that can be read."""
        try:
            return torch.load(self._file(key), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            problem = "its saved state cannot be read"
            log.warning("%s starts from the beginning: %s (%s)", self.folder.name, problem, error)
            return None

    def save(self, key: str, state: Mapping[str, Any]) -> None:
        """Save tensors and plain containers; if the disk refuses, that is logged and nothing is saved."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(self._file(key), buffer.getvalue())
        except OSError as error:
            log.warning("%s cannot save its state: %s", self.folder.name, error)

    def empty(self, key: str, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """An uninitialised tensor in a memory-mapped file, whose room on disk is freed with the tensor.

        Raises:
            OSError: the disk has no room for it.
        """
        count = math.prod(shape)
        if not count:
            return super().empty(key, shape, dtype)
        self.folder.mkdir(parents=True, exist_ok=True)
        prefix = f"{hashlib.sha256(key.encode()).hexdigest()[:16]}."
        descriptor, name = tempfile.mkstemp(".tensor", prefix, self.folder)  # of this process alone
        try:
            _reserve(descriptor, count * dtype.itemsize)
            return torch.from_file(name, shared=True, size=count, dtype=dtype).view(tuple(shape))
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):  # a system that keeps open files: `clear` removes it
                os.unlink(name)

    def clear(self) -> None:
        """Remove all saved states."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # other analyses use it
            self.folder.parent.rmdir()

    def _file(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"


def _reserve(descriptor: int, size: int) -> None:
    """Give a file its size in bytes, and where the system can, the room: writing into a mapped file on a full
    disk would kill the process."""
    os.truncate(descriptor, size)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that cannot
                raise
