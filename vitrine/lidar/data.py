"""Streets as a LightningDataModule: drawn and scanned once, kept as the numbers of the occupied cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitrine.core.settings import setting
from vitrine.lidar.boxes import from_above
from vitrine.lidar.grid import Grid, occupied
from vitrine.lidar.network import places, targets
from vitrine.lidar.scanner import Scanner
from vitrine.lidar.scenes import FIRST_SEED, Scene, Streets, draw_scene, returns, scan_scene


@dataclass(frozen=True)
class SceneSettings(Streets):
    """How many streets, and what is in them."""

    train_size: int = setting(1200, "scenes to train on", least=1, most=1_000_000)
    val_size: int = setting(100, "scenes to validate on", least=1, most=1_000_000)
    held_out_size: int = setting(200, "scenes that are measured at the end", least=1, most=1_000_000)
    batch_size: int = setting(8, "scenes a step", least=1)
    least_points: int = setting(
        10, "returns from which on a car counts; fewer: to find it is neither right nor wrong", least=1
    )
    flip: bool = setting(True, "mirror half of the training scenes from left to right")


class Frame(NamedTuple):
    """A scan as the network sees it."""

    cells: Tensor  # int32, the numbers of the occupied cells of the flattened grid
    boxes: Tensor  # [N, 5], of the cars within the grid
    counted: Tensor  # bool [N], whether a car returned enough points
    points: Tensor  # int64 [N], how many it returned


class Batch(NamedTuple):
    """Frames as tensors."""

    occupancy: Tensor  # [B, Z, X, Y]
    labels: Tensor  # [B, X', Y'], see `network.targets`
    numbers: Tensor  # [B, 6, X', Y']
    frames: Sequence[Frame]


def frame_of(scene: Scene, scanner: Scanner, grid: Grid, least_points: int = 10) -> Frame:
    """A scene, scanned. Cars with their middles outside of the grid are left out."""
    scan = scan_scene(scene, scanner)
    boxes, points = from_above(scene.cars), returns(scene, scan)
    inside = (boxes[:, 0] < grid.ahead) & (boxes[:, 1].abs() < grid.aside)
    cells = occupied(grid, scan.points).int()
    return Frame(cells, boxes[inside], points[inside] >= least_points, points[inside])


def mirrored(frame: Frame, grid: Grid) -> Frame:
    """The frame with left and right exchanged."""
    columns = grid.shape[2]
    column = frame.cells % columns
    cells = frame.cells - column + (columns - 1 - column)
    return frame._replace(cells=cells, boxes=frame.boxes * frame.boxes.new_tensor([1, -1, 1, 1, -1]))


def batch_of(frames: Sequence[Frame], grid: Grid, middles: Tensor) -> Batch:
    """Frames with their targets; `middles` of `network.places`."""
    occupancy = torch.zeros(len(frames), *grid.shape)
    for row, frame in zip(occupancy, frames):
        row.view(-1)[frame.cells.long()] = 1
    labels, numbers = zip(*(targets(frame.boxes, frame.counted, middles) for frame in frames))
    return Batch(occupancy, torch.stack(labels), torch.stack(numbers), frames)


class _Frames(Dataset[Frame]):
    def __init__(self, frames: list[Frame], grid: Grid, flip: bool = False):
        self.frames, self.grid, self.flip = frames, grid, flip

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Frame:
        frame = self.frames[index]
        return mirrored(frame, self.grid) if self.flip and torch.rand(()) < 0.5 else frame


class StreetData(lightning.LightningDataModule):
    """Streets by seed, in three splits that share no seed."""

    def __init__(
        self, settings: SceneSettings | None = None, grid: Grid | None = None, scanner: Scanner | None = None
    ):
        super().__init__()
        self.settings = settings or SceneSettings()
        self.grid, self.scanner = grid or Grid(), scanner or Scanner()
        self._middles = places(self.grid)
        self._frames: dict[str, list[Frame]] = {}

    def scene(self, split: str, index: int) -> Scene:
        """A scene of `train`, `val` or `held_out`."""
        return draw_scene(FIRST_SEED[split] + index, self.settings)

    def setup(self, stage: str | None = None) -> None:
        for split in ("train", "val"):
            self.frames(split)

    def frames(self, split: str) -> list[Frame]:
        """All frames of a split, made when they are first asked for."""
        if split not in self._frames:
            size = getattr(self.settings, f"{split}_size")
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                made: Iterable[Frame] = pool.map(lambda i: self._make(split, i), range(size))
                self._frames[split] = list(made)
        return self._frames[split]

    def _make(self, split: str, index: int) -> Frame:
        return frame_of(self.scene(split, index), self.scanner, self.grid, self.settings.least_points)

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val")

    def held_out_dataloader(self) -> DataLoader[Batch]:
        return self._loader("held_out")

    def _loader(self, split: str, shuffle: bool = False) -> DataLoader[Batch]:
        frames = _Frames(self.frames(split), self.grid, flip=shuffle and self.settings.flip)
        return DataLoader(
            frames,
            self.settings.batch_size,
            shuffle=shuffle,
            collate_fn=lambda chosen: batch_of(chosen, self.grid, self._middles),
        )
