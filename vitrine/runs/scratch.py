"""How far an analysis that takes hours has come, in files of the run that go once it is complete."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitrine.core import atomic

log = logging.getLogger(__name__)


class FileScratch:
    """An `analyses.base.Scratch` in a folder, which the first `save` creates."""

    def __init__(self, folder: Path):
        self.folder = folder

    def load(self, key: str) -> dict[str, Any] | None:
        """What was saved under a key, tensors on the CPU; None if nothing was, or if it cannot be read."""
        try:
            return torch.load(self._file(key), map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            log.warning("%s begins anew: what it had kept cannot be read (%s)", self.folder.name, error)
            return None

    def save(self, key: str, state: Mapping[str, Any]) -> None:
        """Keep tensors and plain containers; a disk that refuses is logged, and costs only the next start."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(self._file(key), buffer.getvalue())
        except OSError as error:
            log.warning("%s cannot keep how far it has come: %s", self.folder.name, error)

    def clear(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are still at work
            self.folder.parent.rmdir()

    def _file(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
