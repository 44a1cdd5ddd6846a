"""The Subject of analyses: a network, fixed probes, and the chosen layers and units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice, zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from vitrine.analyses.base import Figure, Probes, Subject, as_float
from vitrine.analyses.layers import choose_units as layers_and_units
from vitrine.analyses.pass_size import data_batch_size
from vitrine.core.class_names import unique_names
from vitrine.core.image_dataset import ImageDataset, as_image_dataset
from vitrine.core.input_copies import copy_input_if_written
from vitrine.core.memory_format import arrange_images
from vitrine.core.network_scopes import unwrapped
from vitrine.core.registry import UnknownName
from vitrine.core.settings import SettingError
from vitrine.examination.settings import AnalysisSettings
from vitrine.modules.network_record import record_of


def make_subject(
    network: nn.Module,
    data: Any,
    settings: AnalysisSettings,
    step: int = 0,
    *,
    previous: Mapping[str, Sequence[Figure]] | None = None,
    previous_state: Mapping[str, Mapping[str, Tensor]] | None = None,
    device: torch.device | str | None = None,
) -> Subject:
    """The Subject of a network at a step.

    Args:
        network: is put in eval mode, its parameters frozen, and moved to the device: pass a copy. Taken out
            of its wrappers; may return an output with `logits`, and write into its input.
        data: set up; has `train` and `val` (map-style data sets) and `classes`, and perhaps `shown`.
        device: for `settings.device` of "auto"; where the network is, unless given.

    Raises:
        SettingError: a layer or unit that the network does not have.
    """
    dataset = as_image_dataset(getattr(data, settings.split))
    if settings.device != "auto":
        device = settings.device
    elif device is None:
        device = next((p.device for p in network.parameters()), "cpu")
    device = torch.device(device)
    record = record_of(network)
    network = unwrapped(network).to(device).eval().requires_grad_(False)
    probes = pick_probes(dataset, data.classes, settings.probes)
    train, train_note = training_split(data)
    probes = Probes(probes.images.to(device), probes.labels.to(device), probes.indices, probes.masks)
    arrange_images(network, probes.images[:1])
    copy_input_if_written(network, probes.images[:1])
    return Subject(
        network=network,
        probes=probes,
        dataset=dataset,
        classes=unique_names(data.classes),
        units=choose_units(network, probes.images[:1], settings.layers, settings.units),
        step=step,
        seed=settings.seed,
        device=device,
        batch_size=settings.batch_size or data_batch_size(*probes.images.shape[-2:], device),
        shown=getattr(data, "shown", None),
        previous=previous or {},
        previous_state={} if previous_state is None else previous_state,
        train=train,
        train_note=train_note,
        learning_rate=record.learning_rate if record else None,
        progress=progress_bar,
    )


def training_split(data: Any) -> tuple[ImageDataset | None, str]:
    """The training images of some data as they are, without augmentation, and what is to be said of them: why
    there are none, or what is odd about them."""
    if hasattr(data, "training_split"):
        return data.training_split()
    return as_image_dataset(data.train), ""


def pick_probes(dataset: ImageDataset | Sequence[Any], classes: Sequence[str], n: int) -> Probes:
    """The same n images at every checkpoint: the first of each class, then the second of each, and so on.

    With fewer probes than classes, evenly spaced classes; a data set with fewer than n images gives all.
    """
    dataset = as_image_dataset(dataset)
    labels = dataset.labels
    chosen = range(len(classes)) if n >= len(classes) else [i * len(classes) // n for i in range(n)]
    by_class = [torch.nonzero(labels == label).flatten().tolist() for label in chosen]
    rounds = chain.from_iterable(zip_longest(*by_class))
    indices = list(islice((index for index in rounds if index is not None), n))
    # classes too small, or labels beyond the classes: fill up with the rest
    rest = sorted(set(range(len(labels))) - set(indices)) if len(indices) < n else []
    indices += rest[: n - len(indices)]
    index = torch.tensor(indices, dtype=torch.int64)
    return Probes(as_float(dataset.batch(index)[0]), labels[index], index, dataset.masks(index) or None)


def choose_units(network: nn.Module, images: Tensor, layers: Any, units: Any) -> dict[str, Sequence[int]]:
    """`analyses.layers.choose_units` for the settings `analysis.layers` and `analysis.units`.

    Raises:
        SettingError: a layer or a unit that does not exist.
    """
    if isinstance(units, bool) or not isinstance(units, (int, Sequence)) or isinstance(units, str):
        problem = "expected a number of channels, at least 1, or a list of channels"
        raise SettingError("analysis.units", f"is {units!r}, {problem}")
    try:
        return dict(layers_and_units(network, images, layers, units))
    except UnknownName as error:
        raise SettingError("analysis.layers", str(error)) from None
    except ValueError as error:
        key = "analysis.units" if str(error).startswith("unit") else "analysis.layers"
        raise SettingError(key, str(error)) from None


def progress_bar(iterable: Iterable[Any], description: str = "", total: int | None = None) -> Iterable[Any]:
    """A progress bar on a terminal that leaves the terminal as it was; nothing elsewhere."""
    from tqdm import tqdm

    return tqdm(iterable, description, total, leave=False, dynamic_ncols=True, disable=None, delay=0.5)
