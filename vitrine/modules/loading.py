"""A network by name, taking [0, 1] pixels, with weights if wanted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrine.core.class_names import first_moved, first_renamed
from vitrine.core.home import expand_home
from vitrine.core.references import is_reference
from vitrine.core.registry import UnknownName
from vitrine.modules import foreign_networks, normalize, surgery
from vitrine.modules.foreign_networks import load_foreign, load_weights
from vitrine.modules.network_names import NETWORKS, is_foreign
from vitrine.modules.network_record import attach_record
from vitrine.modules.networks import build_network, default_options, image_size_option
from vitrine.modules.own_network import takes_class_count
from vitrine.modules.weights import Statistics, Weights, WeightsError, read_weights, strip_prefixes

log = logging.getLogger(__name__)

# torchvision's own forward pass would turn ImageNet's statistics into one half (transform_input)
_HALF_STATISTICS = ("googlenet", "inception_v3")
_UNIQUE_COUNT = 1013  # outputs that identify the last layer: no other layer of a network has so many


def load_network(
    name: str,
    *,
    classes: int | Sequence[str],
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: int = 3,
    stem: str = "standard",
    head: str = "weights",
    image_size: int | None = None,
    image_statistics: Statistics | None = None,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> nn.Module:
    """A network that takes float images in [0, 1], [N, channels, H, W], and returns logits [N, classes].

    It normalises its input itself: by `network.normalize`, a foreign network by its record, which adds
    nothing to it. `record_of(network)` has its class names, and the spec (plain containers) that, with the
    state_dict, suffices to rebuild it. It is in training mode, as torch builds networks.

    Args:
        name: one of `NETWORKS`; or a foreign one: "package.module:Class" or "path/to/file.py:Class" (whose
            code is imported; see `own_network.build_own` for what it is given), "timm/NAME",
            "hf/FOLDER_OR_ID".
        classes: how many, or their names.
        weights: a file (.pt, .pth, .safetensors, or a checkpoint of ours) or one of torchvision's names for
            the network's weights ("IMAGENET1K_V1", "DEFAULT": fetched by torchvision); "pretrained" for those
            of timm and transformers. Those beside a configuration of transformers are used unless others
            are given.
        mean, std: per channel, of [0, 1] pixels. By default those stored with the weights; where there are
            none, ImageNet's for three channels (with which the published weights of these networks were
            trained; one half for googlenet and inception_v3, which were trained with that) and, without
            weights, one half for other numbers of channels. Those of timm's data config or of
            preprocessor_config.json; none for a network by reference without weights.
        channels: of the images. Other than 3, torchvision's networks get a new first convolution, to which
            weights are fitted, see `surgery.fit_channels`.
        stem: "small" gives torchvision's networks a first convolution of 3x3 and stride 1 and no max-pool
            after it.
        head: "weights", or "new" for a new last layer where the weights are of other classes.
        image_size: side of the images, in pixels, for the networks that are built for one size (perceptron,
            vit_*, maxvit_t, many of timm and transformers); all others take any. Not handed to a network by
            reference.
        image_statistics: mean and std of the images, for weights that have none for so many channels.
        options, more: further arguments of the network's builder, under `options` those with names of ours.

    Raises:
        UnknownName: no such network, or no such weights of it.
        WeightsError: the weights cannot be read, do not fit, or have `classes` in another order.
        ValueError: an option that the builder does not have, or an invalid value.
    """
    names = [str(i) for i in range(classes)] if isinstance(classes, int) else [str(c) for c in classes]
    _check(names, channels, stem, head, mean, std)
    given = {key: _to_plain(key, value) for key, value in {**(options or {}), **more}.items()}
    if is_foreign(name):
        if stem != "standard":
            raise ValueError(f"stem: stem=small is for torchvision's networks, {name} is none")
        found = {"weights": None if weights is None else str(weights), "mean": mean, "std": std}
        sizes = {"channels": channels, "head": head, "image_size": image_size}
        found["image_statistics"] = image_statistics
        network, known = load_foreign(name, names, **found, **sizes, options=given)
        if isinstance(classes, int) and known is not None and len(known) == classes:
            attach_record(network, classes=known)
        elif not isinstance(classes, int) and head != "new":
            _check_class_names(names, known, str(weights or name))
        return network
    NETWORKS.check(name)
    loaded = None if weights is None else _find_weights(name, str(weights))
    defaults = {key: _to_plain(key, value) for key, value in default_options(name).items()}
    options = {**defaults, **given}
    if stem != "standard":
        options["stem"] = stem
    if image_size_option(name) and "image_size" not in options:
        image_size = loaded.image_size if image_size is None and loaded is not None else image_size
        options |= {} if image_size is None else {"image_size": image_size}
    network = build_network(
        spec := {"name": name, "classes": len(names), "channels": channels, "options": options}
    )
    if loaded is not None:
        if loaded.network not in (None, name):
            raise WeightsError(loaded.source, f"is a checkpoint of {loaded.network}, not of {name}")
        load_weights(network, len(names), loaded, head)
        if isinstance(classes, int) and loaded.classes is not None and len(loaded.classes) == classes:
            names = list(loaded.classes)
        elif not isinstance(classes, int) and head != "new":
            _check_class_names(names, loaded.classes, loaded.source)
    if mean is None or std is None:
        mean, std = _statistics(name, channels, loaded, image_statistics)
    attach_record(network, spec=spec, classes=names)
    return normalize.attach(network, mean, std)


def infer_classes(name: str, weights: str | Path, **options: Any) -> tuple[int | list[str], int]:
    """The classes of a network's weights (their names, or how many) and the channels of its images.

    Both are inferred from the last layer and the first convolution, for weights without a data set.

    Args:
        name, weights, options: as for `load_network`.

    Raises:
        UnknownName, WeightsError, ValueError: as `load_network`; the weights have no such layer.
    """
    spec = {"name": name, "classes": _UNIQUE_COUNT, "channels": 3, "options": options}
    if is_foreign(name):
        loaded = foreign_networks.find_foreign_weights(spec, str(weights))
    else:
        loaded = _find_weights(name, str(weights))
        if loaded.network not in (None, name):
            raise WeightsError(weights, f"is a checkpoint of {loaded.network}, not of {name}")
        if image_size_option(name) and loaded.image_size is not None:
            options.setdefault("image_size", loaded.image_size)
    with torch.random.fork_rng(devices=[]):  # the random weights are not used, only the layers' names
        network = build_network(spec)
    fixed = is_reference(name) and not takes_class_count(name)  # so its last layer is as it is
    head = surgery.head_layer(network, None if fixed else _UNIQUE_COUNT)
    first = surgery.first_convolution(network)
    for layer, what in ((head, "classes"), (first, "channels")):
        if f"{layer}.weight" not in loaded.state:
            problem = f"has no {layer}.weight, which would tell the number of {what}"
            raise WeightsError(weights, f"{problem}: expected weights of {name} (model.name)")
    count = len(loaded.state[f"{head}.weight"])
    named = loaded.classes is not None and len(loaded.classes) == count
    return list(loaded.classes) if named else count, loaded.state[f"{first}.weight"].shape[1]


def _find_weights(name: str, weights: str) -> Weights:
    """Weights by torchvision's name, or from a file."""
    builder, published = NETWORKS[name], {}
    if name not in NETWORKS.places:
        import torchvision

        published = torchvision.models.get_model_weights(builder).__members__
    if weights not in published:
        if Path(expand_home(weights)).exists() or Path(weights).suffix:
            return read_weights(weights)
        raise UnknownName(f"weights of {name} (and no file)", weights, published)
    entry = published[weights]
    try:
        state = entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except OSError as error:
        raise WeightsError(weights, f"of {name} could not be fetched: {error}") from error
    transforms = entry.transforms()
    mean, std = (None, None) if name in _HALF_STATISTICS else (transforms.mean, transforms.std)
    size = entry.meta["min_size"][0] if image_size_option(name) else None
    return Weights(
        weights,
        strip_prefixes(state),
        classes=list(entry.meta["categories"]),
        mean=mean,
        std=std,
        image_size=size,
    )


def _check_class_names(names: list[str], known: Sequence[str] | None, source: str) -> None:
    """Raise WeightsError if the weights have one of the classes at another place; warn of other names."""
    if not known or len(known) != len(names):
        return
    if (label := first_moved(names, known)) is not None:
        problem = (
            f"has its classes in another order: {known[label]!r} is label {label}, here {names[label]!r}"
        )
        raise WeightsError(source, f"{problem}; expected the same order, or head=new for a new last layer")
    if (label := first_renamed(names, known)) is not None:
        count = sum(name != other for name, other in zip(names, known))
        what = f"{count:,} of {len(names):,} classes have other names in the weights"
        log.warning("%s: %s; label %d is %r, here %r", source, what, label, known[label], names[label])


def _statistics(
    name: str, channels: int, weights: Weights | None, of_images: Statistics | None
) -> Statistics:
    """Mean and standard deviation where neither is an argument."""
    if weights is not None and weights.has_statistics(channels):
        return weights.mean, weights.std
    if channels == 3 and name not in _HALF_STATISTICS:
        return normalize.IMAGENET_MEAN, normalize.IMAGENET_STD
    if channels != 3 and weights is not None and of_images is not None:
        return of_images
    if channels != 3 and weights is not None:
        raise ValueError(
            f"mean: {weights.source} does not say how images of {channels} channels were normalised"
        )
    return (0.5,) * channels, (0.5,) * channels


def _check(
    names: list[str],
    channels: int,
    stem: str,
    head: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> None:
    if len(names) < 2:
        raise ValueError(f"classes: {len(names)} came, expected at least 2")
    if channels < 1:
        raise ValueError(f"channels is {channels}, expected at least 1")
    for key, value, choices in (("stem", stem, ("standard", "small")), ("head", head, ("weights", "new"))):
        if value not in choices:
            raise ValueError(f"{key} is {value!r}, expected one of {', '.join(choices)}")
    if (mean is None) != (std is None):
        raise ValueError("mean and std come together, only one was given")
    for key, value in (("mean", mean), ("std", std)):
        if value is not None and len(value) != channels:
            raise ValueError(f"{key} has {len(value)} entries, expected one for each of {channels} channels")


def _to_plain(key: str, value: Any) -> Any:
    """A builder's option as plain containers, for a checkpoint."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(k): _to_plain(key, v) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [_to_plain(key, v) for v in value]
    raise ValueError(f"{key} is a {type(value).__name__}, expected a number, text, or a list of them")
