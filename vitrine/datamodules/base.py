"""The base of all data modules: splits, their loaders, and the preprocessing of batches."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import lightning
from torch import Tensor

from vitrine.core.image_dataset import ImageDataset, shown_channels
from vitrine.core.random_numbers import fold_in
from vitrine.core.settings import SettingError, check, setting
from vitrine.datamodules.augment import Augment, augment, augment_setting, check_augment
from vitrine.datamodules.caching import imagenet_statistics
from vitrine.datamodules.loader import Loader
from vitrine.datamodules.mislabeling import mislabel
from vitrine.datamodules.mixing import mix
from vitrine.datamodules.samplers import BalancedBatchSampler, BatchSampler, ChunkBatchSampler


class Batch(NamedTuple):
    """What a loader yields. The augmentation of image i is a function of (seed, indices[i])."""

    images: Tensor  # [N, C, H, W], uint8 as stored; float32 in [0, 1] after `on_after_batch_transfer`
    labels: Tensor  # int64, [N]; float32 [N, K], probabilities, after a preprocessing that mixes images
    indices: Tensor  # int64, [N], of the images in their split
    seed: Tensor  # int64 scalar, a function of (seed, split, epoch); [N] where an image comes more than once


@dataclass
class DataSettings:
    """Settings of every source; a source adds its own in a subclass."""

    image_size: int = setting(0, "pixels a side, images are resized to it; 0: their own size", least=0)
    batch_size: int = setting(128, "images a training step, on each device", least=1)
    workers: int | None = setting(
        None, "processes that load images which are not in memory; null: one a core, at most 16", least=0
    )
    cache: str = setting(
        "auto",
        "keep decoded images in memory: auto (up to 2 GiB), always, never",
        choices=("auto", "always", "never"),
    )
    normalize: str = setting(
        "data",
        "mean and standard deviation for the normalisation: of the data, or of imagenet (pretrained weights)",
        choices=("data", "imagenet"),
    )
    sampler: str = setting(
        "shuffled",
        "of training images: shuffled, each once an epoch; or balanced, all classes equally likely",
        choices=("shuffled", "balanced"),
    )
    mislabeled: float = setting(
        0.0,
        "fraction of the training images (never validation or test) given a wrong label, drawn by run.seed",
        least=0,
        most=1,
    )
    augment: Augment = augment_setting()


class ImageDataModule(lightning.LightningDataModule):
    """A source of images: a training and a validation split, and perhaps a test split.

    The order of the training images is a pure function of (seed, epoch, rank, number of ranks), their
    augmentation one of (seed, epoch, index). The training loader is stateful in Lightning's sense: a run
    resumed from a checkpoint of any step continues with the batches it would have had. Both loaders are
    sharded here, see `BatchSampler`: `Trainer(use_distributed_sampler=False)`.

    A source is a subclass with its own `Settings` and `load()`. After `setup()`, which draws or loads the
    images once, `train` and `val` are the splits.

    The test split is held out: no training, validation or analysis reads an image of it. `load()` says
    whether there is one (`has_test`); `load_test()` reads it when `test_split()` is called the first time.
    """

    Settings: ClassVar[type[DataSettings]] = DataSettings
    classes: list[str]  # names, by label
    channels: int = 3  # or 1 (grayscale), or as many as the files have
    image_size: int  # pixels a side
    mean: tuple[float, ...]  # of [0, 1] pixels, per channel, for the network's normalisation
    std: tuple[float, ...]
    has_test: bool = False  # whether `load_test` gives a test split
    val_origin: str = ""  # whose images validation has, if that needs to be said: "the official test split"

    def __init__(self, settings: DataSettings | None = None, seed: int = 0):
        super().__init__()
        self.settings = self.Settings() if settings is None else settings
        self.seed = seed
        self.train: Any = None
        self.val: Any = None
        self._test: ImageDataset | None = None
        check(self.settings, "data")
        check_augment(self.settings.augment, self.channels, self.settings.batch_size)

    def load(self) -> tuple[ImageDataset, ImageDataset]:
        """The training and validation splits; sets `classes`, `channels`, `image_size`, `mean`, `std`."""
        raise NotImplementedError(f"{type(self).__name__} does not define load")

    def load_test(self) -> ImageDataset | None:
        """The test split, prepared as the validation split is; None where there is none. Called once at most,
        after `load`, by `test_split` alone."""
        return None

    def setup(self, stage: str | None = None) -> None:
        if self.train is None:
            self.train, self.val = self.load()
            if self.settings.normalize == "imagenet":
                self.mean, self.std = imagenet_statistics(self.channels)
            if self.settings.mislabeled:
                mislabel(self.train, self.settings.mislabeled, len(self.classes), self.seed)
            check_augment(self.settings.augment, self.channels, self.settings.batch_size)

    @property
    def shown(self) -> tuple[int, ...]:
        """The channels that pictures show where images have neither 1 nor 3."""
        return tuple(getattr(self.settings, "show", None) or shown_channels(self.channels))

    def facts(self) -> dict[str, str]:
        """What the page says of the data, beside the settings."""
        facts = {}
        if not getattr(self.settings, "image_size", self.image_size):
            facts["image size"] = f"{self.image_size}, as the files have it"
        if self.channels not in (1, 3):
            numbers = " ".join(map(str, self.shown))
            facts["pictures show"] = f"channels {numbers} of 0 to {self.channels - 1}"
        wrong = getattr(self.train, "mislabeled", None)
        if wrong is not None:
            facts["training labels"] = (
                f"{int(wrong.sum()):,} of {len(wrong):,} are wrong, as data.mislabeled asks"
            )
        return facts

    def training_split(self) -> tuple[ImageDataset | None, str]:
        """The training images as they are, without augmentation, and what is to be said of them: why there
        are none, or what is odd about them."""
        return (self.train, "") if len(self.train) else (None, "all images are held out for validation")

    def test_split(self) -> ImageDataset | None:
        """The test split, read at the first call; None where there is none."""
        self.setup()
        if self._test is None and self.has_test:
            self._test = self.load_test()
        return self._test

    def train_dataloader(self) -> Loader:
        return self._loader(self.train, train=True)

    def val_dataloader(self) -> Loader:
        return self._loader(self.val, train=False)

    def test_dataloader(self) -> Loader:
        """Batches of the test split, each image once.

        Raises:
            SettingError: there is none.
        """
        if (split := self.test_split()) is None:
            raise SettingError("data.name", f"{type(self).__name__} has no test split")
        return self._loader(split, train=False)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """`preprocess` of a Batch, for training if the trainer is training; anything else unchanged."""
        training = self.trainer is not None and self.trainer.training
        return self.preprocess(batch, train=training) if isinstance(batch, Batch) else batch

    def preprocess(self, batch: Batch, train: bool) -> Batch:
        """The batch with float images in [0, 1], augmented if it is for training."""
        settings = self.settings.augment if train else Augment()
        if train and not self.train.in_memory:  # `training_item` has cropped the original image
            settings = dataclasses.replace(settings, random_resized_crop=1.0)
        mean = getattr(self, "mean", (0.0,))  # which the network normalises to zero
        images, labels = augment(batch.images, batch.indices, batch.seed, settings, mean), batch.labels
        if settings.mixes:
            alphas = {"mixup_alpha": settings.mixup, "cutmix_alpha": settings.cutmix}
            keys = fold_in(batch.seed, batch.indices)
            images, labels = mix(images, labels, keys, classes=len(self.classes), **alphas)
        return batch._replace(images=images, labels=labels)

    def describe(self) -> str:
        """One line for logs."""
        size = f"{self.channels} x {self.image_size} x {self.image_size}"
        origin = f" ({self.val_origin})" if self.val_origin else ""
        test = "a test split is held out" if self.has_test else "no test split"
        return (
            f"{type(self).__name__}: {len(self.train):,} training and {len(self.val):,} validation images"
            f"{origin} of {size}, {len(self.classes)} classes, {self.train.storage}; {test}"
        )

    def _loader(self, split: ImageDataset, train: bool) -> Loader:
        trainer = self.trainer
        sampler = self.sampler(
            split,
            self.settings.batch_size,
            seed=self.seed,
            train=train,
            repeat=bool(trainer and trainer.overfit_batches),
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        progress = (lambda: trainer.fit_loop.epoch_loop.batch_progress.current) if train and trainer else None
        return Loader(split, sampler, batch_type=Batch, workers=self.settings.workers, progress=progress)

    def epoch_size(self, train: bool, world_size: int = 1) -> tuple[int, int]:
        """The batches of an epoch of training, or of a validation, on each rank, and the images of one."""
        split = self.train if train else self.val
        if not train and not len(split):
            return 0, 0
        sampler = self.sampler(split, self.settings.batch_size, train=train, world_size=world_size)
        return len(sampler), sampler.batch_size

    def sampler(self, split: ImageDataset, batch_size: int, **options: Any) -> BatchSampler:
        """The sampler of a split's batches; `options` as for BatchSampler.

        Raises:
            SettingError: it is to be balanced, but the images are read chunk by chunk.
        """
        chunks, balanced = self.chunks(split), False
        if options.get("train", True):
            options.setdefault("copies", self.settings.augment.repeats)
            balanced = self.settings.sampler == "balanced"
        if chunks is not None:
            if balanced:
                problem = (
                    "is balanced, but these images are read chunk by chunk; expected data.cache=always, if"
                )
                instead = "they fit into memory, or objective.class_weights=balanced"
                raise SettingError("data.sampler", f"{problem} {instead}")
            window = self.settings.window
            return ChunkBatchSampler(len(split), batch_size, chunks=chunks, window=window, **options)
        if balanced:
            return BalancedBatchSampler(split.labels, batch_size, **options)
        return BatchSampler(len(split), batch_size, **options)

    def chunks(self, split: ImageDataset) -> list[int] | None:
        """How many images each chunk of a split has, in its order, if chunks are to be read one after another
        (`settings.window` of them at a time); None if images may come in any order."""
        return None
