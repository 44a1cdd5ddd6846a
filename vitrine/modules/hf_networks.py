"""Image classifiers of Hugging Face's transformers (Wolf 2020): "hf/FOLDER", or "hf/ID" of the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrine.core.registry import nearest
from vitrine.modules.model_hub import offline_unless_reachable
from vitrine.modules.network_names import HF as PREFIX
from vitrine.modules.preprocessing import Preprocessing, of_processor, statistics_of_processor, takes_bgr
from vitrine.modules.weights import Weights, WeightsError


def check(name: str) -> None:
    """Raise ValueError unless there is a configuration of that name."""
    _read_config(name)


def create(
    name: str, classes: int, channels: int, options: Mapping[str, Any], image_size: int | None
) -> tuple[nn.Module, dict[str, Any]]:
    """A network with random weights, and its spec, which has the whole configuration.

    Args:
        options: entries of the configuration.
        image_size: for configurations that have one, unless it is among the options or weights lie there.

    Raises:
        ValueError: there is no such configuration, it has no such entry, or no image classifier.
    """
    config = _read_config(name)
    sections = [c for c in (config, getattr(config, "vision_config", None)) if hasattr(c, "image_size")]
    for section in sections:
        if image_size is not None and not has_weights(name):
            section.image_size = image_size
    known = config.to_dict()
    for key, value in options.items():
        if key not in known:
            close = nearest(key, known)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            some = ", ".join(list(known)[:12])
            raise ValueError(f"{key}: {name} has no such option; {hint}It has {some}, ...")
        if isinstance(known[key], Mapping) and isinstance(value, Mapping):
            getattr(config, key).update(value)
        else:
            setattr(config, key, value)
    config.num_labels = classes
    if hasattr(config, "num_channels"):
        config.num_channels = channels
    plain = json.loads(config.to_json_string(use_diff=False))
    spec = {"name": name, "classes": classes, "channels": channels, "options": dict(options), "config": plain}
    return build(spec), spec


def build(spec: Mapping[str, Any]) -> nn.Module:
    """The network of a spec, freshly initialised, in float32; from its configuration alone."""
    from transformers import AutoConfig, AutoModelForImageClassification

    if "config" not in spec:
        return create(spec["name"], spec["classes"], spec["channels"], spec["options"], None)[0]
    entries = dict(spec["config"])
    try:
        config = AutoConfig.for_model(entries.pop("model_type"), **entries)
        return AutoModelForImageClassification.from_config(config, trust_remote_code=False).float().train()
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{spec['name']} cannot be built: {reason[:300]}") from error


def statistics(spec: Mapping[str, Any]) -> tuple[list[float], list[float]] | None:
    """The normalisation in preprocessor_config.json; None where there is none for so many channels.

    Raises:
        WeightsError: the weights are for blue, green and red.
    """
    name, known = spec["name"], _read_processor(spec["name"])
    if known is not None and takes_bgr(known) and has_weights(name):
        problem = "are of images in blue, green, red, as preprocessor_config.json says"
        raise WeightsError(f"weights of {name}", f"{problem}: expected red, green, blue")
    return None if known is None else statistics_of_processor(known, spec["channels"])


def preprocessing(name: str) -> Preprocessing | None:
    """How preprocessor_config.json makes the input of photographs; None where there is none to follow."""
    known = _read_processor(name)
    return None if known is None else of_processor(known)


def has_weights(name: str) -> bool:
    """Whether weights belong to the configuration: beside it in its folder, or on the hub."""
    source, is_folder = _find(name)
    return not is_folder or any(any(Path(source).glob(p)) for p in ("*.safetensors*", "pytorch_model*.bin*"))


def pretrained(spec: Mapping[str, Any]) -> Weights:
    """The weights beside the configuration, with the class names and the normalisation found there.

    Raises:
        WeightsError: they cannot be had.
    """
    from transformers import AutoModelForImageClassification

    name = spec["name"]
    if not has_weights(name):
        raise WeightsError(name, "has a configuration alone: expected model.safetensors beside it")
    config = _read_config(name)
    source, is_folder = _find(name)
    with nullcontext() if is_folder else offline_unless_reachable() as problem:
        try:
            network, loaded = AutoModelForImageClassification.from_pretrained(
                source,
                config=config,
                local_files_only=is_folder or problem is not None,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=False,
            )
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise WeightsError(f"weights of {name}", f"could not be had: {problem or lines[0]}") from error
    state = {k: v for k, v in network.state_dict().items() if k not in loaded["missing_keys"]}
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    mean, std = statistics(spec) or (None, None)
    return Weights(f"weights of {name}", state, classes=names, mean=mean, std=std)


def _find(name: str) -> tuple[str, bool]:
    """The folder or the hub's id that a name means, and whether it is a folder."""
    source = name.removeprefix(PREFIX)
    folder = Path(source).expanduser()
    return (str(folder), True) if folder.is_dir() else (source, False)


def _read_processor(name: str) -> dict[str, Any] | None:
    """The content of preprocessor_config.json; None where there is none."""
    from transformers.image_processing_base import ImageProcessingMixin

    source, is_folder = _find(name)
    with nullcontext() if is_folder else offline_unless_reachable() as problem:
        try:
            known, _ = ImageProcessingMixin.get_image_processor_dict(
                source, local_files_only=is_folder or problem is not None
            )
        except (OSError, ValueError):
            return None
    return known


def _read_config(name: str) -> Any:
    """The configuration of a folder or of the hub; no code of theirs is run."""
    from transformers import AutoConfig

    source, is_folder = _find(name)
    if is_folder and not (Path(source) / "config.json").is_file():
        raise ValueError(f"{name}: the folder {source} has no config.json")
    with nullcontext() if is_folder else offline_unless_reachable() as problem:
        try:
            return AutoConfig.from_pretrained(
                source, local_files_only=is_folder or problem is not None, trust_remote_code=False
            )
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            if is_folder:
                raise ValueError(f"{name}: its config.json cannot be used: {lines[0][:300]}") from error
            reason = problem or f"the hub has none to give: {lines[0][:200]}"
            raise ValueError(f"{name}: there is no folder {Path(source).absolute()}, and {reason}") from error
