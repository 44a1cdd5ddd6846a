"""What is known of a network, beside it: never as its attributes, which belong to whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vitrine.core.network_scopes import unwrapped
from vitrine.modules.normalize import Normalize


class NetworkRecord:
    """What a network is built from, its classes, and the normalisation of its input.

    It is a forward pre-hook of the network, so that copies and pickles of the network have theirs; nothing is
    added to the network's attributes, modules or state_dict.

    Attributes:
        spec: what `build_network` rebuilds the network from, plain containers; None where nothing does.
        classes: class names; None where unknown.
        mean, std: per channel of [0, 1] pixels, which the record normalises with; None where it does not
            (the network does so itself, or wants none).
        learning_rate: that its optimizer had when it was saved, of the first group of parameters; None:
            unknown.
    """

    def __init__(self) -> None:
        self.spec: dict[str, Any] | None = None
        self.classes: list[str] | None = None
        self.mean: list[float] | None = None
        self.std: list[float] | None = None
        self.learning_rate: float | None = None
        self._tensors: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __call__(self, _network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.mean is None:
            return None
        images = inputs[0]
        if not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}, expected floating point in [0, 1]")
        mean, std = self._statistics(images.device, images.dtype)
        return ((images - mean) / std, *inputs[1:])

    def normalize(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalise the network's input from now on.

        Raises:
            ValueError: as `Normalize`.
        """
        checked = Normalize(mean, std)
        self.mean, self.std = [float(m) for m in mean], [float(s) for s in std]
        self._tensors = {(torch.device("cpu"), torch.float32): (checked.mean, checked.std)}

    def _statistics(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Mean and std, [C, 1, 1], each device and dtype's made once."""
        key = (device, dtype)
        if key not in self._tensors:
            with torch.inference_mode(False):  # else autograd could not keep them
                made = (torch.tensor(values, dtype=dtype, device=device) for values in (self.mean, self.std))
                pair = tuple(tensor.view(-1, 1, 1) for tensor in made)
            if type(pair[0]) is not Tensor:  # of a mode that will have ended at the next call
                return pair
            self._tensors[key] = pair
        return self._tensors[key]


def attach_record(
    network: nn.Module,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    spec: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    learning_rate: float | None = None,
) -> nn.Module:
    """Put a record beside `network`, or add to the one it has; returns the network.

    Args:
        mean, std: normalise the network's input with these, per channel of [0, 1] pixels; None: as before.
        spec, classes, learning_rate: see `NetworkRecord`; None: as before.

    Raises:
        ValueError: only one of mean and std; or as `Normalize`.
    """
    if (mean is None) != (std is None):
        raise ValueError("mean and std come together, only one was given")
    record = record_of(network) or NetworkRecord()
    if mean is not None and std is not None:
        record.normalize(mean, std)
    if spec is not None:
        record.spec = dict(spec)
    if classes is not None:
        record.classes = [str(name) for name in classes]
    if learning_rate is not None:
        record.learning_rate = learning_rate
    if record_of(network) is None:
        network.register_forward_pre_hook(record)
    return network


def record_of(network: nn.Module) -> NetworkRecord | None:
    """The record beside `network`, None where there is none."""
    hooks = unwrapped(network)._forward_pre_hooks.values()
    return next((hook for hook in hooks if isinstance(hook, NetworkRecord)), None)
