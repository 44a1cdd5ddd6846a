"""Checkpoint files that appear whole or not at all, and are read without running what they contain."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from vitrine.core import atomic


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the final name and renames, once the disk has it all: a kill or a full disk leaves the
    file that was there, or none. (Lightning writes into the system's temporary folder and moves: across
    file systems that is a copy, which can be cut off.)
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Raises OSError where the disk refuses; nothing half-made is left."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(aside, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException as error:
            aside.unlink(missing_ok=True)
            if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
                raise error.__context__ from None  # closing a zip that the disk refused hides why
            raise
        atomic.sync(path.parent)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> Any:
        """The content, tensors on the CPU unless `map_location` says otherwise; never unpickles code."""
        return super().load_checkpoint(path, map_location or "cpu", weights_only=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written in a folder of checkpoints."""
    for path in folder.glob(".*.ckpt.*"):
        path.unlink(missing_ok=True)
