"""Weights from files: read without running code, and loaded into a network with one clear error."""

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from vitrine.core.home import expand_home
from vitrine.core.registry import nearest

# what torch.load and safetensors raise for a damaged file
_DAMAGE = (OSError, RuntimeError, EOFError, SafetensorError, ValueError, LookupError, AttributeError)
Statistics = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of [0, 1] pixels
_EXTRA = "_extra_state"  # of any type, as `get_extra_state` gives it; safetensors hold tensors alone
_OPTIONAL = ("num_batches_tracked", _EXTRA)
_AUXILIARY = ("aux1", "aux2", "AuxLogits")


class WeightsError(ValueError):
    """A file of weights that cannot be used; the message has its name and the reason."""

    def __init__(self, source: str | Path, problem: str):
        super().__init__(f"{source}: {problem}")
        self.source, self.problem = source, problem


@dataclass(frozen=True)
class Weights:
    """A state_dict with its metadata, None where unknown."""

    source: str  # file or name, for messages
    state: dict[str, Tensor]  # without the prefixes of wrappers
    network: str | None = None  # its name
    classes: list[str] | None = None  # names
    mean: Sequence[float] | None = None  # of the normalisation that the weights expect, per channel
    std: Sequence[float] | None = None
    image_size: int | None = None  # side of the training images, in pixels

    def has_statistics(self, channels: int) -> bool:
        """Whether they say how images of so many channels are normalised."""
        return self.mean is not None and self.std is not None and len(self.mean) == channels


def read_file(file: str | Path) -> Any:
    """The content of a .pt, .pth, .ckpt or .safetensors file: tensors (on the CPU) and plain containers.

    Raises:
        WeightsError: the file is missing, truncated, of another format, or would run code.
    """
    file = Path(expand_home(str(file)))
    if not file.is_file():
        raise WeightsError(file, "is no file")
    if file.stat().st_size == 0:
        raise WeightsError(file, "is empty")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise WeightsError(file, f"cannot be read: {error}") from error
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|global:?) (?:GLOBAL )?([\w.]+\.\w+)", str(error))
        what = f"asks for {named[1]} to be run" if named else "holds more than tensors and plain containers"
        raise WeightsError(file, f"{what}, or is no PyTorch file; it was not loaded") from error
    except _DAMAGE as error:
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(file, f"is truncated or of another kind ({reason})") from error


def read_weights(file: str | Path) -> Weights:
    """The network's state_dict in a file: bare, under "state_dict" or "model", or in our own checkpoint.

    Raises:
        WeightsError: as `read`, or there is no state_dict in it.
    """
    content = read_file(file)
    if isinstance(content, Mapping) and "vitrine" in content:
        spec, classes, state = parse_checkpoint(file, content)
        known = {"network": spec["name"], "classes": classes, "image_size": spec["options"].get("image_size")}
        known |= {"mean": spec.get("mean"), "std": spec.get("std")}  # of a foreign network's record
        return _extract_statistics(Weights(str(file), state, **known))
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(file, "holds no state_dict")
    state = strip_prefixes(
        {str(k): v for k, v in content.items() if isinstance(v, Tensor) or str(k).endswith(_EXTRA)}
    )
    return _extract_statistics(Weights(str(file), state))


def _extract_statistics(weights: Weights) -> Weights:
    """The weights with the normalisation of the state_dict, if any, moved to `mean` and `std`."""
    state = dict(weights.state)
    mean, std = state.pop("normalize.mean", None), state.pop("normalize.std", None)
    if mean is None or std is None:
        return weights
    return replace(weights, state=state, mean=mean.flatten().tolist(), std=std.flatten().tolist())


def parse_checkpoint(
    file: str | Path, content: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str], dict[str, Tensor]]:
    """Spec, class names and the network's state_dict from the content of one of our checkpoints.

    Raises:
        WeightsError: it is none of ours, or its network was not made by `load_network`.
    """
    ours = content.get("vitrine")
    state = content.get("state_dict")
    if not isinstance(ours, Mapping) or not isinstance(state, Mapping):
        raise WeightsError(file, "is not a checkpoint of this program (no 'vitrine' entry)")
    spec = ours.get("spec")
    keys = {"name", "classes", "channels", "options"}
    if not isinstance(spec, Mapping) or not keys <= set(spec) or not isinstance(spec["options"], Mapping):
        problem = "does not say which network it holds: that was not made by modules.load_network"
        raise WeightsError(file, problem)
    state = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    return dict(spec), [str(c) for c in ours.get("classes", ())], strip_prefixes(state)


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state_dict without the prefixes `module.` (DataParallel) and `_orig_mod.` (torch.compile)."""
    state = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    while state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")  # torchvision's DenseNets of 2017
    return {old.sub(r"\1\2.", key): value for key, value in state.items()}


def load_into(network: nn.Module, weights: Weights, skip: str | None = None) -> None:
    """Load `weights` into `network`, strictly.

    Args:
        skip: dotted name of a layer that is not loaded.

    Raises:
        WeightsError: names are missing or unexpected (the nearest ones are shown), or shapes differ.
    """
    own = network.state_dict()
    kept = {key for key in own if skip is not None and key.startswith(f"{skip}.")}
    # auxiliary heads of GoogLeNet and Inception, which our networks do not have
    auxiliary = {
        k for k in weights.state if k not in own and k.split(".")[0] in ("aux1", "aux2", "AuxLogits")
    }
    state = {k: v for k, v in weights.state.items() if k not in kept | auxiliary}
    missing = [k for k in own if k not in state and k not in kept and not k.endswith(_OPTIONAL)]
    unexpected = [k for k in state if k not in own and not k.endswith(_EXTRA)]
    known = [k for k in state if k in own and not is_lazy(own[k]) and not k.endswith(_EXTRA)]
    shapes = [k for k in known if state[k].shape != own[k].shape]

    def hinted(key: str) -> str:
        close = nearest(key, missing or own, most=1)
        return f"{key} (nearest: {close[0]})" if close else key

    problems = []
    if missing:
        problems.append(f"missing {_shorten(missing)}")
    if unexpected:
        problems.append(f"unexpected {_shorten(unexpected, hinted)}")
    if shapes:
        differ = _shorten(shapes, lambda k: f"{k} is {list(state[k].shape)}, expected {list(own[k].shape)}")
        problems.append(f"shapes differ: {differ}")
    if problems:
        raise WeightsError(weights.source, f"does not fit {type(network).__name__}: {'; '.join(problems)}")
    network.load_state_dict(state, strict=False)


def _shorten(keys: list[str], describe: Callable[[str], str] = str, most: int = 4) -> str:
    more = f", ... ({len(keys)} in all)" if len(keys) > most else ""
    return ", ".join(describe(key) for key in keys[:most]) + more
