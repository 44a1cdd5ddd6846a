"""What every source of images offers: two splits, their loaders, and batches as the network wants them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import lightning
from torch import Tensor

from vitrine.core.image_dataset import ImageDataset
from vitrine.core.settings import check, setting
from vitrine.datamodules.augment import MEANING, Augment, augmented
from vitrine.datamodules.loader import Loader
from vitrine.datamodules.order import Order
from vitrine.datamodules.statistics import imagenet_statistics


class Batch(NamedTuple):
    """What a loader yields.

    Attributes:
        images: [N, C, H, W], uint8 as stored; float32 in [0, 1] after `ImageData.on_after_batch_transfer`.
        labels: int64, [N].
        indices: where each is in its split, int64, [N].
        seed: int64 scalar, a function of (seed, split, epoch): everything random about image i of this batch
            is drawn from (seed, indices[i]).
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    seed: Tensor


@dataclass
class DataSettings:
    """What every source understands; a source adds its own in a subclass."""

    image_size: int = setting(0, "pixels a side, images are resized to it; 0: the size they have", least=0)
    batch_size: int = setting(128, "images a training step, on each device", least=1)
    workers: int | None = setting(
        None, "processes that load images too many for memory; null: one a core, at most 16", least=0
    )
    cache: str = setting(
        "auto",
        "hold decoded images in memory: auto (up to 2 GiB), always, never",
        choices=("auto", "always", "never"),
    )
    normalize: str = setting(
        "data",
        "whose mean and standard deviation the network normalises by: data, or imagenet (pretrained weights)",
        choices=("data", "imagenet"),
    )
    augment: Augment = dataclasses.field(default_factory=Augment, metadata=MEANING)


class ImageData(lightning.LightningDataModule):
    """A source of images: a training and a validation split.

    Promises:
    - Constructing costs nothing; `setup()` draws or loads, once, and is safe to call again.
    - The order of training is a pure function of (seed, epoch, rank, number of ranks), augmentation one of
      (seed, epoch, index): neither reads nor advances a global random number generator, and neither
      depends on workers or device.
    - The training loader is stateful in Lightning's sense: a run resumed from a checkpoint, of any step, goes
      on with exactly the batches it would have seen. Its batches are all of one size (what is left over waits
      for another epoch's order) unless the split is smaller than one.
    - Validation sees every image once, whatever the number of ranks. Both loaders are sharded here:
      `Trainer(use_distributed_sampler=False)`.

    A source subclasses this, names its `Settings` and says how to `load()`.

    Attributes after `setup()`:
        classes: names, by label.
        channels: 1 (grayscale) or 3.
        image_size: pixels a side.
        mean, std: per channel, of [0, 1] pixels: for the network's normalisation.
        train, val: the splits.
    """

    Settings: ClassVar[type[DataSettings]] = DataSettings
    classes: list[str]
    channels: int = 3
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(self, settings: DataSettings | None = None, seed: int = 0):
        super().__init__()
        self.settings = self.Settings() if settings is None else settings
        self.seed = seed
        self.train: Any = None
        self.val: Any = None
        check(self.settings, "data")

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        """The training and validation splits; sets `classes`, `channels`, `image_size`, `mean`, `std` too."""
        raise TypeError(f"{type(self).__name__} does not say how it loads")

    def setup(self, stage: str | None = None) -> None:
        if self.train is None:
            self.train, self.val = self.load()
            if self.settings.normalize == "imagenet":
                self.mean, self.std = imagenet_statistics(self.channels)

    def train_dataloader(self) -> Loader:
        return self._loader(self.train, train=True)

    def val_dataloader(self) -> Loader:
        return self._loader(self.val, train=False)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """A Batch with float images in [0, 1], augmented where the trainer trains; anything else as it is."""
        if not isinstance(batch, Batch):
            return batch
        training = self.trainer is not None and self.trainer.training
        return self.prepared(batch, train=training)

    def prepared(self, batch: Batch, train: bool) -> Batch:
        """A Batch with float images in [0, 1], on the device it is on, augmented if it is to train on."""
        how = self.settings.augment if train else Augment()
        if train and not self.train.in_memory:
            how = dataclasses.replace(how, zoom=1.0)  # whoever read the file has cropped it already
        return batch._replace(images=augmented(batch.images, batch.indices, batch.seed, how))

    def describe(self) -> str:
        """One line for logs."""
        size = f"{self.channels} x {self.image_size} x {self.image_size}"
        return (
            f"{type(self).__name__}: {len(self.train):,} training and {len(self.val):,} validation images "
            f"of {size}, {len(self.classes)} classes, {self.train.storage}"
        )

    def _loader(self, split: ImageDataset, train: bool) -> Loader:
        trainer = self.trainer
        order = self._order(
            split,
            self.settings.batch_size,
            seed=self.seed,
            train=train,
            repeat=bool(trainer and trainer.overfit_batches),
            rank=trainer.global_rank if trainer else 0,
            world=trainer.world_size if trainer else 1,
        )
        progress = (lambda: trainer.fit_loop.epoch_loop.batch_progress.current) if train and trainer else None
        return Loader(split, order, make=Batch, workers=self.settings.workers, progress=progress)

    def _order(self, split: ImageDataset, batch_size: int, **how: Any) -> Order:
        """Which images make up which batch; `how` as for Order."""
        return Order(len(split), batch_size, **how)
