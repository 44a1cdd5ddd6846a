"""Networks that are not built here: by reference, of timm, of transformers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from vitrine.core.network_output import return_logits
from vitrine.core.references import is_reference, resolve
from vitrine.modules import hf_networks, surgery, timm_networks
from vitrine.modules.network_names import check_form
from vitrine.modules.network_record import attach_record
from vitrine.modules.own_network import build_own
from vitrine.modules.positions import fit_positions
from vitrine.modules.weights import Statistics, Weights, WeightsError, load_into, read_weights

log = logging.getLogger(__name__)

_ZOOS = {zoo.PREFIX: zoo for zoo in (timm_networks, hf_networks)}
PRETRAINED = "pretrained"  # in place of a file of weights


def zoo_of(name: str) -> ModuleType | None:
    """The module of a library's networks, None where the name is of none."""
    if is_reference(name):
        return None
    return next((zoo for prefix, zoo in _ZOOS.items() if name.startswith(prefix)), None)


def check_existence(name: str) -> None:
    """Raise ValueError unless there is such a network; imports what it is of."""
    check_form(name)
    zoo = zoo_of(name)
    if zoo is None:
        resolve(name)
    else:
        zoo.check(name)


def build_foreign(spec: Mapping[str, Any]) -> nn.Module:
    """The network of a spec, freshly initialised, without normalisation; it returns logits alone."""
    check_form(spec["name"])
    zoo = zoo_of(spec["name"])
    return _returning_logits(_build_own(spec) if zoo is None else zoo.build(spec))


def load_foreign(
    name: str,
    names: list[str],
    *,
    weights: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    channels: int,
    head: str,
    image_size: int | None,
    options: Mapping[str, Any],
    image_statistics: Statistics | None = None,
) -> tuple[nn.Module, list[str] | None]:
    """A foreign network with its record, and the class names of its weights where they have any.

    Arguments and errors are those of `load_network`, `options` plain.
    """
    check_form(name)
    zoo = zoo_of(name)
    if zoo is None:
        spec = {"name": name, "classes": len(names), "channels": channels, "options": dict(options)}
        network = _build_own(spec)
    else:
        network, spec = zoo.create(name, len(names), channels, options, image_size)
    loaded = find_foreign_weights(spec, weights)
    if loaded is not None:
        if loaded.network is not None and loaded.network != name and not is_reference(loaded.network):
            raise WeightsError(loaded.source, f"is a checkpoint of {loaded.network}, not of {name}")
        load_weights(network, spec["classes"], loaded, head)
    if mean is None or std is None:
        mean, std = _statistics(spec, loaded, image_statistics)
    _returning_logits(network)
    spec |= {"mean": None if mean is None else list(mean), "std": None if std is None else list(std)}
    return attach_record(network, mean=mean, std=std, spec=spec, classes=names), loaded and loaded.classes


def find_foreign_weights(spec: Mapping[str, Any], weights: str | None) -> Weights | None:
    """The weights that a setting names; where it names none, those beside a configuration, if any."""
    zoo = zoo_of(spec["name"])
    if weights not in (None, PRETRAINED):
        return read_weights(weights)
    if zoo is None:
        if weights == PRETRAINED:
            raise WeightsError(weights, f"{spec['name']} is your own network: expected a file of weights")
        return None
    return zoo.pretrained(spec) if weights == PRETRAINED or zoo.has_weights(spec["name"]) else None


def load_weights(network: nn.Module, classes: int, weights: Weights, head: str) -> None:
    """Load weights into a network that has no normalisation yet.

    Those of a first convolution of images with other channels are fitted to it, which is logged.

    Args:
        head: "new" leaves out the last layer.

    Raises:
        WeightsError: they do not fit.
        ValueError: the head is to be new, and there is no last layer of so many outputs.
    """
    try:
        layer = surgery.head_layer(network, classes)
    except ValueError:
        if head == "new":
            raise
        layer = ""
    theirs = weights.state.get(f"{layer}.weight")
    if head != "new" and theirs is not None and len(theirs) != classes:
        problem = f"has {len(theirs)} classes, expected {classes}"
        raise WeightsError(weights.source, f"{problem}: head=new makes a new last layer")
    weights = fit_positions(network, _fit_channels(weights, network))
    load_into(network, weights, skip=layer if head == "new" else None)


def _fit_channels(weights: Weights, network: nn.Module) -> Weights:
    """The weights, with those of the first convolution for the channels that the network's has."""
    try:
        name = surgery.first_convolution(network)
    except ValueError:
        return weights
    layer, key = network.get_submodule(name), f"{name}.weight"
    theirs = weights.state.get(key)
    alike = (layer.out_channels, *layer.kernel_size)  # but for the channels
    if theirs is None or theirs.ndim != 4 or (theirs.shape[0], *theirs.shape[2:]) != alike:
        return weights
    if layer.groups != 1 or theirs.shape[1] == layer.in_channels:
        return weights
    counts = theirs.shape[1], layer.in_channels
    log.warning("%s: the weights of %s, for %d channels, were fitted to %d", weights.source, name, *counts)
    fitted = surgery.fit_channels(theirs, layer.in_channels)
    return dataclasses.replace(weights, state={**weights.state, key: fitted})


def _build_own(spec: Mapping[str, Any]) -> nn.Module:
    return build_own(spec["name"], spec["classes"], spec["channels"], spec["options"])


def _statistics(
    spec: Mapping[str, Any], loaded: Weights | None, of_images: Statistics | None
) -> Statistics | tuple[None, None]:
    """Mean and std where neither is an argument; None: not normalised."""
    if loaded is not None and loaded.has_statistics(spec["channels"]):
        return loaded.mean, loaded.std
    zoo = zoo_of(spec["name"])
    known = None if zoo is None else zoo.statistics(spec)
    if known is not None:
        return known
    if loaded is not None and zoo is not None and spec["channels"] != 3 and of_images is not None:
        return of_images
    if loaded is not None:
        expected = "give mean and std, 0 and 1 for none"
        raise ValueError(f"mean: {loaded.source} does not say how images were normalised; {expected}")
    return (None, None) if zoo is None else ((0.5,) * spec["channels"],) * 2


def _returning_logits(network: nn.Module) -> nn.Module:
    network.register_forward_hook(return_logits)
    return network
