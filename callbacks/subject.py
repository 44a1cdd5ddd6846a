"""What the analyses are given: a network, a few fixed probes, and which layers and units to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from analyses.base import Figure, Images, Probes, Subject, as_float
from analyses.tap import forward_to, module_at
from callbacks.examine import AnalysisSettings
from registry import UnknownName
from settings import SettingError


def make_subject(
    network: nn.Module,
    data: Any,
    settings: AnalysisSettings,
    step: int = 0,
    *,
    previous: Mapping[str, Sequence[Figure]] | None = None,
    device: torch.device | str | None = None,
) -> Subject:
    """The Subject of a network at a step.

    Args:
        network: is put in eval mode, its parameters frozen, and moved to the device: hand over a copy.
        data: set up; has `train` and `val` (analyses.base.Images) and `classes`.
        previous: what the checkpoint before yielded, by analysis.
        device: for `settings.device` of "auto"; where the network is, unless given.

    Raises:
        SettingError: a layer or unit that the network does not have.
    """
    dataset = getattr(data, settings.split)
    if settings.device != "auto":
        device = settings.device
    elif device is None:
        device = next((p.device for p in network.parameters()), "cpu")
    device = torch.device(device)
    network = network.to(device).eval().requires_grad_(False)
    probes = pick_probes(dataset, data.classes, settings.probes)
    probes = Probes(probes.images.to(device), probes.labels.to(device), probes.indices, probes.masks)
    return Subject(
        network=network,
        probes=probes,
        dataset=dataset,
        classes=list(data.classes),
        units=choose_units(network, probes.images[:1], settings.layers, settings.units),
        step=step,
        seed=settings.seed,
        device=device,
        batch_size=settings.batch_size,
        previous=previous or {},
        progress=bar,
    )


def pick_probes(dataset: Images, classes: Sequence[str], n: int) -> Probes:
    """The same n images at every checkpoint: the first of each class, then the second of each, and so on.

    With fewer probes than classes, evenly spaced classes; a data set with fewer than n images gives all.
    """
    labels = _labels(dataset)
    shown = range(len(classes)) if n >= len(classes) else [i * len(classes) // n for i in range(n)]
    turns = [torch.nonzero(labels == label).flatten().tolist() for label in shown]
    rounds = max((len(turn) for turn in turns), default=0)
    in_turn = (turn[r] for r in range(rounds) for turn in turns if r < len(turn))
    indices = [index for index, _ in zip(in_turn, range(n))]
    if len(indices) < min(
        n, len(labels)
    ):  # classes too small, or labels beyond the classes: fill up with the rest
        rest = (i for i in range(len(labels)) if i not in set(indices))
        indices += [index for index, _ in zip(rest, range(n - len(indices)))]
    index = torch.tensor(indices, dtype=torch.int64)
    images = torch.stack([as_float(dataset[i][0]) for i in indices])
    masks = dataset.masks(index) if hasattr(dataset, "masks") else None
    return Probes(images, labels[index], index, masks)


def choose_units(network: nn.Module, images: Tensor, layers: Any, units: Any) -> dict[str, list[int]]:
    """Layer -> channels to show, shallow to deep.

    Args:
        images: float [N, C, H, W] on the network's device, for one forward pass.
        layers: "auto", or dotted names.
        units: how many, evenly spaced, or a list of channels (a layer shows those it has).

    Raises:
        SettingError: a layer or a unit that is not there.
    """
    names = automatic_layers(network, images) if layers == "auto" else check_layers(network, layers)
    maps = {} if not names else _reached(network, images, names)
    channels = {name: maps[name].shape[1] for name in names}
    if isinstance(units, int) and not isinstance(units, bool) and units >= 1:
        return {
            name: [i * count // min(units, count) for i in range(min(units, count))]
            for name, count in channels.items()
        }
    if isinstance(units, Iterable) and not isinstance(units, str):
        units = [int(unit) for unit in units]
        widest = max(channels.values(), default=0)
        for unit in units:
            if not 0 <= unit < widest:
                raise SettingError(
                    "analysis.units", f"names channel {unit}, but the widest layer has {widest} (from 0)"
                )
        return {name: [unit for unit in units if unit < count] for name, count in channels.items()}
    raise SettingError(
        "analysis.units", f"is {units!r}, expected a number of channels, at least 1, or a list of channels"
    )


def check_layers(network: nn.Module, layers: Any) -> list[str]:
    """The names, where every one is a layer of the network; SettingError with the nearest names otherwise."""
    if layers == "auto":
        return []
    names = [layers] if isinstance(layers, str) else list(layers)
    for name in names:
        try:
            module_at(network, name)
        except UnknownName as error:
            raise SettingError("analysis.layers", str(error)) from None
    return names


def bar(iterable: Iterable[Any], description: str = "", total: int | None = None) -> Iterable[Any]:
    """A progress bar on a terminal that leaves the terminal as it was; nothing elsewhere."""
    from tqdm import tqdm

    return tqdm(iterable, description, total, leave=False, dynamic_ncols=True, disable=None, delay=0.5)


def _reached(network: nn.Module, images: Tensor, names: list[str]) -> dict[str, Tensor]:
    with torch.no_grad():
        try:
            return forward_to(network, images, names)
        except ValueError as error:
            raise SettingError("analysis.layers", str(error)) from None


def _labels(dataset: Images) -> Tensor:
    labels = getattr(dataset, "labels", None)
    if labels is None:
        labels = [int(dataset[i][1]) for i in range(len(dataset))]
    return torch.as_tensor(labels, dtype=torch.int64)
