"""A LightningDataModule of somebody's own, by reference: its loaders train, its images come as pixels."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import Subset

from vitrine.core import random_state
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import make_key, permutation
from vitrine.core.references import raised_by
from vitrine.core.settings import SettingError, setting
from vitrine.datamodules.augment import Augment
from vitrine.datamodules.base import Batch, ImageDataModule
from vitrine.datamodules.decoding import UnreadableImage
from vitrine.datamodules.foreign import class_names, is_in_unit_range, names_of, plain_split
from vitrine.datamodules.input_normalization import Normalization
from vitrine.datamodules.loader import Loader
from vitrine.datamodules.normalization_search import find_normalizations
from vitrine.datamodules.own_loaders import (
    OwnLoader,
    OwnOrder,
    OwnSplit,
    StreamLoader,
    StreamOrder,
    is_map_style,
)
from vitrine.datamodules.own_module import make_module, overridden
from vitrine.datamodules.samplers import BatchSampler
from vitrine.datamodules.steady_images import steady_images

log = logging.getLogger(__name__)

_CHECKED = 16  # images that are looked at before training
_COUNTED = 5000  # images of a split whose labels are read where nothing tells how many classes there are
_SAMPLE = 512  # images that mean and deviation are taken of
_NAMES = ("classes", "class_names", "names")  # attributes of a data module


@dataclass
class OwnDataSettings:
    """Images have to be squares of one size."""

    options: dict[str, Any] = setting({}, "arguments of your LightningDataModule, e.g. {batch_size: 64}")
    classes: list[str] | None = setting(None, "class names in the order of their labels; null: as it says")
    mean: list[float] | None = setting(
        None, "by which its images are normalised; null: as its transforms say, else they are in [0, 1]"
    )
    std: list[float] | None = setting(None, "goes with mean")

    # what a source of ours has and this one does itself
    batch_size: ClassVar[int] = 1
    sampler: ClassVar[str] = "shuffled"
    augment: ClassVar[Augment] = Augment()
    normalize: ClassVar[str] = "data"
    workers: ClassVar[int | None] = None
    mislabeled: ClassVar[float] = 0.0


class OwnData(ImageDataModule):
    """Somebody's LightningDataModule as a source: its loaders' batches, un-normalised to [0, 1].

    A DataLoader over a map-style data set keeps its batch sampler, collate function and workers. Its order
    and all that is random in its items are functions of (seed, epoch), and a run resumes exactly. Several
    ranks take its batches in turn. Any other loader is for one rank; to resume, it is read again from the
    epoch's start.
    """

    Settings = OwnDataSettings
    settings: OwnDataSettings
    _prepared = False
    _steady: tuple[ImageDataset | None, str] | None = None

    def prepare_data(self) -> None:
        if not self._prepared:  # Lightning asks once more
            self._call("prepare_data")
            self._prepared = True

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        self._call("setup", "fit")
        self._loaders: dict[int, Any] = {}
        self._subsets: dict[int, Tensor | None] = {}
        train, val = self._split("train"), self._split("val")
        self.classes = self._class_names(train, val)
        self.channels, self.image_size = train.shape[0], train.shape[-1]
        if val.shape != train.shape:
            problem = f"images are {_text(train.shape)} in training, {_text(val.shape)} in validation"
            raise SettingError("data.name", problem)
        for split in (train, val):
            split.classes = len(self.classes)
            self._check(split)
        known = train.of_images or self._given()
        self.mean, self.std = (known.mean, known.std) if known else _statistics(train, self.seed)
        self.has_test = overridden(self.module, "test_dataloader")
        if not is_map_style(self._loaders[id(train)]):
            log.info("%s: to resume, an epoch is read again from its start", self.settings.name)
        return train, val

    def training_split(self) -> tuple[ImageDataset | None, str]:
        if not is_map_style(self._loaders[id(self.train)]):
            return None, "your data module streams them: they cannot be read one by one"
        if self._steady is None:
            self._steady = steady_images(self.train, self.seed)
        return self._steady

    def load_test(self) -> ImageDataset:
        self._call("setup", "test")
        split = self._split("test")
        split.classes, split.shape = len(self.classes), (self.channels, self.image_size, self.image_size)
        self._check(split)
        return split

    def preprocess(self, batch: Batch, train: bool) -> Batch:
        return batch

    def epoch_size(self, train: bool, world_size: int = 1) -> tuple[int, int]:
        order = self._order(self.train if train else self.val, train, rank=0, world_size=world_size)
        return len(order), order.batch_size

    def describe(self) -> str:
        size = f"{self.channels} x {self.image_size} x {self.image_size}"
        pixels = f"un-normalised by {self.train.of_images}" if self.train.of_images else "in [0, 1]"
        test = "a test split is held out" if self.has_test else "no test split"
        return (
            f"{type(self.module).__name__}: {len(self.train):,} training and {len(self.val):,} validation "
            f"images of {size}, {pixels}, {len(self.classes)} classes, read by its own loaders; {test}"
        )

    @property
    def module(self) -> LightningDataModule:
        """The data module itself, made when it is first needed."""
        if not hasattr(self, "_module"):
            self._module = make_module(self.settings)
        return self._module

    def _call(self, method: str, *arguments: Any) -> Any:
        """A method of the data module; SettingError if it raises."""
        module = self.module
        if self.trainer is not None:
            module.trainer = self.trainer
        try:
            with random_state.seeded(make_key(self.seed)):
                return getattr(module, method)(*arguments)
        except Exception as error:
            problem = f"{self.settings.name}.{method} raised {raised_by(error)}"
            raise SettingError("data.name", problem) from error

    def _split(self, name: str) -> OwnSplit:
        """The split of one of the data module's loaders."""
        loader = self._call(f"{name}_dataloader")
        if isinstance(loader, (list, tuple)) and len(loader) == 1:
            loader = loader[0]
        where = f"{self.settings.name}.{name}_dataloader"
        if isinstance(loader, (list, tuple, dict)) or not hasattr(loader, "__iter__"):
            came = f"{len(loader)} loaders" if hasattr(loader, "__len__") else type(loader).__name__
            raise SettingError("data.name", f"{where} gave {came}, expected one loader")
        if not is_map_style(loader) and not _has_length(loader):
            raise SettingError(
                "data.name", f"{where} gave a loader without a length, expected one with __len__"
            )
        try:
            with random_state.seeded(make_key(self.seed)):
                plain = plain_split(loader)
                indices = getattr(getattr(loader, "sampler", None), "indices", None)  # of SubsetRandomSampler
                subset = None if indices is None else torch.as_tensor(list(indices)).sort().values
                items = plain.items if subset is None else Subset(plain.items, subset.tolist())
                split = OwnSplit(items, plain.collate)
                split.name, split.seed = type(self.module).__name__, self.seed
                split.of_images = self._normalization(split, loader)
                images, _ = split.raw(range(min(_CHECKED, len(split))))
        except SettingError:
            raise
        except Exception as error:
            problem = str(error) if isinstance(error, ValueError) else raised_by(error)
            raise SettingError("data.name", f"{where}: {problem}") from error
        channels, height, width = images.shape[1:]
        if height != width:
            problem = f"images are {_text(images.shape[1:])}, expected squares"
            raise SettingError("data.name", f"{where}: {problem}")
        split.shape = (channels, height, width)
        self._loaders[id(split)], self._subsets[id(split)] = loader, subset
        return split

    def _given(self) -> Normalization | None:
        try:
            return Normalization.of(self.settings.mean, self.settings.std)
        except ValueError as error:
            raise SettingError("data.mean", str(error)) from None

    def _normalization(self, split: OwnSplit, loader: Any) -> Normalization | None:
        """By which a split's images are normalised: as given, or as found; None: they are in [0, 1]."""
        places = (getattr(loader, name, None) for name in ("dataset", "collate_fn"))
        found, given = find_normalizations(split.items, split.collate, *places), self._given()
        if len(found) > 1 and given is None:
            texts = " and ".join(f"mean={list(m)}, std={list(s)}" for m, s in found)
            problem = f"the data set has several normalisations, {texts}: give data.mean and data.std"
            raise SettingError("data.mean", problem)
        if found:
            return given or Normalization(*found[0])
        images, _ = split.raw(range(min(_CHECKED, len(split))))
        return None if is_in_unit_range(images) else given

    def _check(self, split: OwnSplit) -> None:
        """Raise SettingError for images and labels that cannot be trained on, as far as can be seen now."""
        try:
            split.batch(torch.linspace(0, len(split) - 1, min(_CHECKED, len(split))).long())
            if (listed := split.listed_labels()) is not None:
                split.check_labels(listed)
        except UnreadableImage as error:
            key = "data.mean" if "data.mean" in str(error) else "data.name"
            raise SettingError(key, str(error)) from error

    def _class_names(self, train: OwnSplit, val: OwnSplit) -> list[str]:
        """As given; as the data module or its data set says; else the labels that occur, as text."""
        given = self.settings.classes
        own = (getattr(self.module, name, None) for name in _NAMES)
        names = given or next((n for n in own if n and isinstance(n, (list, tuple))), names_of(train.items))
        if names is not None:
            return [str(name) for name in names]
        count = getattr(self.module, "num_classes", None)
        if not isinstance(count, int):
            labels = [split.listed_labels() for split in (train, val)]
            if any(some is None for some in labels) and len(train) + len(val) <= _COUNTED:
                labels = [split.labels for split in (train, val)]
            if any(some is None for some in labels):
                problem = f"{self.settings.name} does not say its classes"
                raise SettingError("data.classes", f"{problem}: give data.classes=[...], or it a num_classes")
            count = int(max(some.max() for some in labels)) + 1
        return class_names([], count)

    def _loader(self, split: ImageDataset, train: bool) -> Loader:
        trainer = self.trainer
        ranks = {"rank": trainer.global_rank, "world_size": trainer.world_size} if trainer else {}
        order = self._order(split, train, **ranks)
        progress = (lambda: trainer.fit_loop.epoch_loop.batch_progress.current) if train and trainer else None
        options = {"batch_type": Batch, "progress": progress}
        if isinstance(order, StreamOrder):
            return StreamLoader(split, order, **options)
        return OwnLoader(split, order, theirs=self._loaders[id(split)], **options)

    def _order(self, split: ImageDataset, train: bool, rank: int = 0, world_size: int = 1) -> Any:
        loader = self._loaders[id(split)]
        if not is_map_style(loader):
            if world_size > 1:
                problem = f"{self.settings.name} gives a {type(loader).__name__} that cannot be divided"
                expected = f"among {world_size} ranks: expected a DataLoader over a map-style data set"
                raise SettingError("data.name", f"{problem} {expected}")
            return StreamOrder(loader, seed=self.seed, train=train)
        if train:
            return OwnOrder(
                loader, self._subsets[id(split)], seed=self.seed, rank=rank, world_size=world_size
            )
        size = loader.batch_size or max(map(len, loader.batch_sampler), default=1)
        return BatchSampler(len(split), size, train=False, rank=rank, world_size=world_size)


def _statistics(split: OwnSplit, seed: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of some images in [0, 1]."""
    sample = permutation(len(split), seed)[:_SAMPLE].sort().values
    pixels = torch.cat([split.batch(some)[0].transpose(0, 1).flatten(1) for some in sample.split(64)], 1)
    std = pixels.double().std(1, correction=0).clamp_min(1e-3)
    return tuple(pixels.double().mean(1).tolist()), tuple(std.tolist())


def _text(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


def _has_length(loader: Any) -> bool:
    try:
        return len(loader) > 0
    except (TypeError, NotImplementedError, AttributeError):
        return False
