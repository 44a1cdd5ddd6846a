"""Streets scanned by a simulated LiDAR: drawn once, kept as the numbers of the occupied cells."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor

from vitrine.core.random_numbers import fold_in, uniform
from vitrine.core.settings import setting
from vitrine.datamodules.loader import Loader
from vitrine.datamodules.samplers import BatchSampler
from vitrine.lidar.frames import LEAST_POINTS, Batch, Frame, batch_of, frame_of, mirrored
from vitrine.lidar.grid import Grid
from vitrine.lidar.network import places
from vitrine.lidar.scanner import Scanner
from vitrine.lidar.scenes import FIRST_SEED, Scene, Streets, draw_scene


@dataclass(frozen=True)
class StreetSettings(Streets):
    """How many streets there are, and what is in them."""

    train_size: int = setting(500, "scenes to train on", least=1, most=1_000_000)
    val_size: int = setting(40, "scenes to validate on", least=1, most=1_000_000)
    held_out_size: int = setting(200, "scenes that are measured at the end", least=1, most=1_000_000)
    batch_size: int = setting(8, "scenes a step", least=1)
    least_points: int = setting(
        LEAST_POINTS,
        "returns from which on a car counts; to find one with fewer is neither right nor wrong",
        least=1,
    )
    flip: bool = setting(True, "mirror half of the training scenes from left to right")


class StreetData(lightning.LightningDataModule):
    """Streets in three splits that share no seed. The same scenes whatever `seed` is, in another order."""

    def __init__(
        self,
        settings: StreetSettings | None = None,
        grid: Grid | None = None,
        scanner: Scanner | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.settings, self.seed = settings or StreetSettings(), seed
        self.grid, self.scanner = grid or Grid(), scanner or Scanner()
        self._middles = places(self.grid)
        self._frames: dict[str, list[Frame]] = {}

    def scene(self, split: str, index: int) -> Scene:
        """A scene of `train`, `val` or `held_out`."""
        return draw_scene(FIRST_SEED[split] + index, self.settings)

    def frames(self, split: str) -> list[Frame]:
        """All frames of a split, made when they are first asked for."""
        if split not in self._frames:
            size = getattr(self.settings, f"{split}_size")
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                self._frames[split] = list(pool.map(lambda index: self._frame(split, index), range(size)))
        return self._frames[split]

    def setup(self, stage: str | None = None) -> None:
        for split in ("train", "val"):
            self.frames(split)

    def train_dataloader(self) -> Loader:
        return self._loader("train", train=True)

    def val_dataloader(self) -> Loader:
        return self._loader("val")

    def held_out_dataloader(self) -> Loader:
        return self._loader("held_out")

    def _frame(self, split: str, index: int) -> Frame:
        return frame_of(self.scene(split, index), self.scanner, self.grid, self.settings.least_points)

    def _loader(self, split: str, train: bool = False) -> Loader:
        frames, trainer = self.frames(split), self.trainer
        sampler = BatchSampler(len(frames), self.settings.batch_size, seed=self.seed, train=train)
        progress = (lambda: trainer.fit_loop.epoch_loop.batch_progress.current) if train and trainer else None
        batch_type = self._flipped_batch if train and self.settings.flip else self._batch
        return Loader(_InMemory(frames), sampler, batch_type=batch_type, progress=progress)

    def _batch(self, frames: Sequence[Frame], *_: Any) -> Batch:
        return batch_of(frames, self.grid, self._middles)

    def _flipped_batch(self, frames: Sequence[Frame], _: Any, indices: Tensor, seed: Tensor) -> Batch:
        flipped = uniform(fold_in(seed, indices), 1)[:, 0] < 0.5
        return self._batch([mirrored(f, self.grid) if flip else f for f, flip in zip(frames, flipped)])


class _InMemory:
    """Frames as `Loader` reads them."""

    in_memory = True

    def __init__(self, frames: list[Frame]):
        self.frames = frames

    def batch(self, indices: Tensor) -> tuple[list[Frame], None]:
        return [self.frames[i] for i in indices.tolist()], None
