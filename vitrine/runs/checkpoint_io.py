"""Checkpoint files that appear whole or not at all, and are read without running what they contain."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from vitrine.core import atomic


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes with `atomic.writing`: a kill or a full disk leaves the file that was there, or none.

    (Lightning writes into the system's temporary folder and moves: across file systems that is a copy, which
    can be cut off.)
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Raises OSError where the disk refuses; nothing half-written is left."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic.writing(path) as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None  # closing a zip that the disk refused hides why
            raise

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> Any:
        """The content, tensors on the CPU unless `map_location` says otherwise; never unpickles code."""
        return super().load_checkpoint(path, map_location or "cpu", weights_only=True)
