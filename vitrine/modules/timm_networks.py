"""timm's networks (Wightman 2019) by name: "timm/NAME"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vitrine.core.registry import UnknownName
from vitrine.modules.model_hub import offline_unless_reachable
from vitrine.modules.network_names import TIMM as PREFIX
from vitrine.modules.preprocessing import Preprocessing, of_timm
from vitrine.modules.weights import Weights, WeightsError, strip_prefixes

_RESERVED = ("pretrained", "num_classes", "checkpoint_path", "features_only", "pretrained_cfg")


def check(name: str) -> None:
    """Raise UnknownName unless timm has such a network, with the nearest that it has."""
    import timm

    wanted = name.removeprefix(PREFIX)
    if not timm.is_model(wanted):
        raise UnknownName("network of timm", wanted.split(".")[0], timm.list_models())


def create(
    name: str, classes: int, channels: int, options: Mapping[str, Any], image_size: int | None
) -> tuple[nn.Module, dict[str, Any]]:
    """A network, and its spec; built for `image_size` if it takes an `img_size`, which is tried.

    Raises:
        UnknownName: as `check`.
        ValueError: an option that it does not have, or an invalid value.
    """
    spec = {"name": name, "classes": classes, "channels": channels, "options": dict(options)}
    if image_size is not None and "img_size" not in options:
        sized = spec | {"options": {**options, "img_size": image_size}}
        try:
            return _build(sized), sized
        except TypeError as error:
            if "img_size" not in str(error):
                raise _refusal(spec, error) from error
        except Exception as error:
            raise _refusal(sized, error) from error
    return build(spec), spec


def build(spec: Mapping[str, Any]) -> nn.Module:
    """The network of a spec, freshly initialised."""
    try:
        return _build(spec)
    except (UnknownName, WeightsError):
        raise
    except Exception as error:
        raise _refusal(spec, error) from error


def statistics(spec: Mapping[str, Any]) -> tuple[list[float], list[float]] | None:
    """The mean and standard deviation of timm's data config, where they are for so many channels."""
    import timm

    known = timm.get_pretrained_cfg(spec["name"].removeprefix(PREFIX))
    if known is None or len(known.mean) != spec["channels"]:
        return None
    return list(known.mean), list(known.std)


def preprocessing(name: str) -> Preprocessing | None:
    """How timm's data config makes the input of photographs; None where there is none to follow."""
    import timm
    from timm.data import resolve_data_config

    known = timm.get_pretrained_cfg(name.removeprefix(PREFIX))
    return known and of_timm(resolve_data_config({}, pretrained_cfg=known.to_dict(), verbose=False))


def has_weights(_name: str) -> bool:
    """Whether weights belong to the name where none are asked for: never."""
    return False


def pretrained(spec: Mapping[str, Any]) -> Weights:
    """timm's weights, fetched by timm or from its cache, fitted by timm to image size and channels.

    Raises:
        WeightsError: there are none, or they cannot be had.
    """
    import timm

    name = spec["name"].removeprefix(PREFIX)
    known = timm.get_pretrained_cfg(name)
    if known is None or not known.has_weights:
        raise WeightsError(name, "has no weights in timm: give model.weights=FILE, or train it from scratch")
    with offline_unless_reachable() as problem:
        try:
            network = timm.create_model(name, pretrained=True, in_chans=spec["channels"], **spec["options"])
        except Exception as error:
            reason = problem or " ".join(str(error).split())
            raise WeightsError(f"pretrained weights of {name}", f"could not be fetched: {reason}") from error
    known = statistics(spec)
    mean, std = (None, None) if known is None else known
    return Weights(f"pretrained weights of {name}", strip_prefixes(network.state_dict()), mean=mean, std=std)


def _build(spec: Mapping[str, Any]) -> nn.Module:
    import timm

    check(spec["name"])
    options = dict(spec["options"])
    for key in _RESERVED:
        if key in options:
            raise ValueError(f"{key}: is not an option here")
    if options.pop("in_chans", spec["channels"]) != spec["channels"]:
        raise ValueError(f"in_chans: the images have {spec['channels']} channels")
    name = spec["name"].removeprefix(PREFIX)
    return timm.create_model(name, num_classes=spec["classes"], in_chans=spec["channels"], **options)


def _refusal(spec: Mapping[str, Any], error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(f"{spec['name']} cannot be built with {dict(spec['options'])}: {reason}")
