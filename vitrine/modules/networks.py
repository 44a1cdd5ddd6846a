"""Networks built from plain containers (a spec): our own, torchvision's, foreign ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from vitrine.core.registry import nearest
from vitrine.modules import surgery
from vitrine.modules.foreign_networks import build_foreign
from vitrine.modules.network_names import NETWORKS, OURS, is_foreign

# built with auxiliary heads and a normalisation of their own by default
_INCEPTIONS = ("googlenet", "inception_v3")
_RESERVED = ("weights", "num_classes", "progress", "pretrained", "aux_logits", "transform_input")


def build_network(spec: Mapping[str, Any]) -> nn.Module:
    """The network of a spec, freshly initialised and without normalisation.

    Raises:
        UnknownName: no such network.
        ValueError: an option that the builder does not have, or an invalid value.
    """
    if is_foreign(spec["name"]):
        return build_foreign(spec)
    name, classes, channels, options = spec["name"], spec["classes"], spec["channels"], dict(spec["options"])
    builder = NETWORKS[name]
    stem = options.pop("stem", "standard")
    for key in _RESERVED:
        if key in options:
            raise ValueError(f"{key}: is not an option of {name} here")
    if name in OURS:
        if stem != "standard":
            raise ValueError(
                f"stem: {name} is made for small images already; stem=small is for torchvision's networks"
            )
        return _call_builder(name, builder, {"channels": channels, **options}, classes)
    size = options.pop("image_size", None)
    if size is not None:
        option = image_size_option(name)
        options |= {option: (size, size) if option == "input_size" else size}
    if name in _INCEPTIONS:  # one tensor of logits, no second normalisation, no warning about initialisation
        options = {"aux_logits": False, "transform_input": False, "init_weights": True, **options}
    network = _call_builder(name, builder, options, classes)
    if stem == "small":
        surgery.shrink_stem(network)
    surgery.set_input_channels(network, channels)
    return network


def _call_builder(name: str, builder: Any, options: dict[str, Any], classes: int) -> nn.Module:
    """`builder(num_classes=classes, **options)`; the error for an unknown option lists the known ones."""
    known = _parameters(builder)
    if name in OURS:
        _refuse_unknown(name, options, known)
        for key, required in known.items():
            if required and key not in options:
                raise ValueError(f"{key}: {name} is built for one, give {key}=...")
    try:
        return builder(num_classes=classes, **options)
    except TypeError as error:
        # torchvision's builders pass their keyword arguments on to the class in their return annotation
        hints = _parameters(inspect.signature(builder).return_annotation)
        _refuse_unknown(name, options, {key: False for key, required in hints.items() if not required})
        raise ValueError(f"{name} cannot be built with {options}: {error}") from error
    except (ValueError, AssertionError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{name} cannot be built with {options}: {error}") from error


def _parameters(function: Any) -> dict[str, bool]:
    """The named parameters of a builder that are settings, and whether each is required."""
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    named = [p for p in named if p.name not in ("self", *_RESERVED) and "Callable" not in str(p.annotation)]
    return {p.name: p.default is p.empty for p in named}


def _refuse_unknown(name: str, options: Mapping[str, Any], known: Mapping[str, bool]) -> None:
    for key in options:
        if key not in known:
            close = nearest(key, known)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            shown = ", ".join(k for k in known if k != "channels") or "none"
            raise ValueError(f"{key}: {name} has no such option; {hint}Its options: {shown}")


def default_options(name: str) -> dict[str, Any]:
    """The default options of one of our own networks; none for torchvision's.

    They are stored in the spec, so that checkpoints can be read after a default has changed.
    """
    if name not in OURS:
        return {}
    parameters = inspect.signature(NETWORKS[name]).parameters.values()
    named = [p for p in parameters if p.name not in ("channels", *_RESERVED)]
    return {p.name: p.default for p in named if p.default is not p.empty}


@functools.cache
def image_size_option(name: str) -> str | None:
    """The option by which our or torchvision's network is built for one image size; None: it takes any.

    A builder of torchvision's passes its keyword arguments on to the class in its return annotation.
    """
    builder = NETWORKS[name]
    known = _parameters(builder)
    if inspect.isclass(built := inspect.signature(builder, eval_str=True).return_annotation):
        known |= _parameters(built)
    return next((option for option in ("image_size", "input_size") if option in known), None)
