"""What the Trainer of somebody's training holds that analyses need: data, a folder, loggers, checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from vitrine.core import random_state
from vitrine.core.image_dataset import ImageDataset
from vitrine.core.random_numbers import make_key
from vitrine.datamodules.foreign import ForeignData
from vitrine.datamodules.input_normalization import IDENTITY
from vitrine.datamodules.steady_images import examined_split, foreign_training
from vitrine.distributed.ranks import Ranks
from vitrine.modules.network_record import attach_record
from vitrine.modules.network_search import examinable_copy
from vitrine.reporting.tensorboard_sink import TensorBoardSink
from vitrine.reporting.wandb_sink import WandbSink
from vitrine.runs.metrics_csv import MetricsCSV
from vitrine.runs.run_folders import claim_examination

log = logging.getLogger(__name__)

_COMPARED = 16  # images that tell whether data are the same


def held_weights(network: nn.Module, prefix: str | None, state: Mapping[str, Any]) -> dict[str, Any]:
    """The weights of a network in the state_dict of the module that it is in, by the network's own names.

    Args:
        prefix: of the network's names there; None: it is not in it.
    """
    if prefix is None:
        return {}
    names = {_plain(name): name for name in state}
    own = {name: names.get(_plain(prefix + name)) for name in network.state_dict()}
    return {name: state[saved] for name, saved in own.items() if saved is not None}


def _plain(name: str) -> str:
    """A parameter's name without those of the wrappers of `torch.compile`."""
    return name.replace("_orig_mod.", "")


def read_state(file: str | Path) -> Mapping[str, Any] | None:
    """The weights that a checkpoint file holds; None where it cannot be loaded safely: of a remote,
    asynchronous, sharded or pickled checkpoint."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    except Exception:
        return None


def verify_file(file: Path, checkpoint: Mapping[str, Any]) -> None:
    """Warn where a file that can be loaded safely holds other weights than were handed over to be saved."""
    held, ours = read_state(file), checkpoint.get("state_dict", {})
    if held is None:
        return
    same = held.keys() == ours.keys() and all(
        _is_same(held[name], tensor.cpu())
        for name, tensor in ours.items()
        if isinstance(tensor, torch.Tensor)
    )
    if not same:
        log.warning("%s holds other weights than those examined, which the Trainer handed over for it", file)


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether tensors hold the same values; NaN is the same as NaN."""
    if torch.equal(one, other):
        return True
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def loader_of(trainer: lightning.Trainer, split: str) -> Any:
    """The first loader of a split; of the other where there is none."""
    loaders = {"val": trainer.val_dataloaders, "train": trainer.train_dataloader}
    for name in (split, *loaders):
        loader = loaders[name]
        while isinstance(loader, (list, tuple, Mapping)) and loader:
            loader = next(iter(loader.values() if isinstance(loader, Mapping) else loader))
        if loader is not None and not isinstance(loader, (list, tuple, Mapping)):
            return loader
    raise ValueError("the Trainer has no data to examine")


def training_of(trainer: lightning.Trainer, *normalization: Any) -> tuple[ImageDataset | None, str]:
    """The images that a Trainer trains on and what is to be said of them, see `foreign_training`."""
    loader = trainer.train_dataloader
    while isinstance(loader, (list, tuple, Mapping)):
        if len(loader) != 1:
            return None, f"training has {len(loader)} loaders"
        loader = next(iter(loader.values() if isinstance(loader, Mapping) else loader))
    return foreign_training(loader, *normalization)


def refuse_sharding(trainer: lightning.Trainer) -> None:
    """Raise ValueError where no rank holds the whole network."""
    kind = type(trainer.strategy).__name__
    if kind in ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"):
        raise ValueError(f"strategy is {kind}, expected one whose ranks hold the whole network")


def has_same_data(trainer: lightning.Trainer, data: ForeignData, split: str) -> bool:
    """Whether a Trainer's data are still those that were read of it, as some of their images show: a data
    module may make its data sets anew for each fit.

    Args:
        split: which of the Trainer's is examined.
    """
    try:
        examined = examined_split(loader_of(trainer, split), *_pixels_of(data.split))
    except ValueError:
        return False
    if not _same_images(examined, data.split):
        return False
    if data.training is None:
        return True
    training, _ = training_of(trainer, *_pixels_of(data.training))
    return training is not None and _same_images(training, data.training)


def _pixels_of(images: ImageDataset) -> tuple[Any, ...]:
    """How the pixels of images like these are read, as arguments of `examined_split`."""
    known = images.of_images
    return (None, None, IDENTITY) if known is None else (known.mean, known.std, IDENTITY)


def _same_images(one: ImageDataset, other: ImageDataset) -> bool:
    if len(one) != len(other):
        return False
    some = torch.linspace(0, len(one) - 1, min(_COMPARED, len(one))).long()
    with random_state.seeded(make_key(0)):
        images, labels = one.batch(some)
    with random_state.seeded(make_key(0)):
        other_images, other_labels = other.batch(some)
    return torch.equal(images, other_images) and torch.equal(labels, other_labels)


@dataclass(frozen=True)
class Snapshot:
    """A network to examine, as a checkpoint holds it, or as it was trained."""

    network: nn.Module
    step: int


def copy_at_checkpoint(trainer: lightning.Trainer, network: nn.Module, *how: Any) -> nn.Module:
    """`examinable_copy` of a network, with the learning rate that a checkpoint of now holds in its record: of
    the first optimizer's first parameter group."""
    groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
    rate = float(groups[0]["lr"]) if groups and "lr" in groups[0] else None
    return attach_record(examinable_copy(network, *how), learning_rate=rate)


def log_curves(trainer: lightning.Trainer, curves: MetricsCSV | None) -> None:
    """Keep the metrics that the module logged, for a page's curves, outside of the sanity check."""
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if curves is None or trainer.sanity_checking or not values:
        return
    try:
        curves.log_metrics({**values, "epoch": trainer.current_epoch}, trainer.global_step - 1)
    except OSError:
        log.warning("the curves could not be written", exc_info=True)


def picture_folder(trainer: lightning.Trainer, wanted: str | Path | None) -> Path:
    """The folder that is wanted; by default `vitrine` in the first logger's folder for this run, or in the
    Trainer's, or in the current one where that is remote.

    Raises:
        ValueError: it is remote.
    """
    if wanted:
        if _is_remote(wanted):
            raise ValueError(f"folder: {wanted} is remote, expected a local one")
        return Path(wanted)
    logger = trainer.loggers[0] if trainer.loggers else None
    parts = [trainer.default_root_dir]
    if isinstance(logger, (TensorBoardLogger, CSVLogger)):
        parts = [logger.log_dir]
    elif logger is not None and logger.save_dir and logger.version is not None:
        parts = [logger.save_dir, str(logger.name or ""), str(logger.version)]
    if _is_remote(parts[0]):
        here = Path.cwd() / "vitrine"
        rank_zero_warn(
            f"AnalyzeCheckpoints: {parts[0]} is remote, so pictures go to {here}; or give folder=..."
        )
        return here
    return Path(*parts) / "vitrine"


def _is_remote(folder: str | Path) -> bool:
    """Whether Lightning takes a folder for an address in another file system."""
    return "://" in str(folder)


def claim_folder(ranks: Ranks, wanted: Path, resumes: bool, taken: Sequence[Path]) -> Path:
    """`claim_examination` by rank 0, for all ranks, which have to call this."""
    return ranks.run_collective(
        lambda all_gather: all_gather(
            claim_examination(wanted, resumes, taken) if ranks.is_global_zero else None
        )[0]
    )


def run_name(trainer: lightning.Trainer) -> str:
    """What a page calls the training: the module, and what its first logger calls this run."""
    logger = trainer.loggers[0] if trainer.loggers else None
    of_run = [] if logger is None or logger.version is None else [str(logger.version)]
    return ", ".join([type(trainer.lightning_module).__name__, *of_run])


def logger_sinks(trainer: lightning.Trainer, classes: Sequence[str], folder: Path) -> list[Any]:
    """Where the loggers of the Trainer show pictures."""
    sinks: list[Any] = []
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            sinks.append(WandbSink(logger.experiment, classes, run_dir=folder, owned=False))
        elif isinstance(logger, TensorBoardLogger):
            sinks.append(TensorBoardSink(logger.experiment))
    return sinks
