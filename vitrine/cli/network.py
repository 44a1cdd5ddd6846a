"""The network of a command: of a run, of a checkpoint, or from weights that were not trained here."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vitrine import config
from vitrine.analyses.activations import activations
from vitrine.analyses.layers import auto_layers
from vitrine.config import recipes
from vitrine.config.errors import as_setting_error
from vitrine.core.devices import find_device
from vitrine.core.references import is_reference
from vitrine.core.registry import UnknownName
from vitrine.core.settings import SettingError
from vitrine.modules import load_checkpoint, load_network
from vitrine.modules.checkpoint import ReferenceNeeded
from vitrine.modules.loading import infer_classes
from vitrine.modules.network_names import is_foreign
from vitrine.modules.network_record import record_of
from vitrine.modules.weights import WeightsError
from vitrine.runs import run_folders
from vitrine.runs.checkpoint_files import checkpoint_files, last_good_checkpoint, read_step


@dataclass(frozen=True)
class NamedNetwork:
    """A network in eval mode on its device, its parameters frozen; its name for people; its run's folder; the
    optimizer steps that it was trained for, 0 where they are unknown."""

    network: nn.Module
    name: str
    run: Path | None = None
    step: int = 0

    @property
    def channels(self) -> int:
        return record_of(self.network).spec["channels"]

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device


def find_network(words: list[str], device: str) -> NamedNetwork:
    """The network of a run (its last good checkpoint), of a checkpoint, or of `model.*` settings.

    Raises:
        SettingError: none of these, more than one, or it cannot be loaded.
    """
    model = [word for word in words if recipes.is_override(word)]
    places = [word for word in words if word not in model]
    if len(places) > 1:
        raise SettingError(places[1], f"is one too many; {run_folders.EXPECTED}")
    reference = _reference(model)
    if places and model and reference is None:
        raise SettingError(model[0].split("=")[0], f"{places[0]} says itself which network it holds")
    found = _load_run_or_checkpoint(places[0], reference) if places else _load_weights(model)
    fastest = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    found.network.to(find_device(str(fastest) if device == "auto" else device, "device"))
    found.network.eval().requires_grad_(False)
    return found


def choose_checkpoint(words: list[str], wanted: str, default: str = "best") -> tuple[list[str], Path | None]:
    """The words with a checkpoint in place of its run, and that checkpoint; None where they name no place.

    Args:
        wanted: best (the last where none is marked), last, or a step.
        default: what is wanted where nothing was given.

    Raises:
        SettingError: of "checkpoint", there is none such; or the word is a checkpoint itself.
    """
    places = [i for i, word in enumerate(words) if not recipes.is_override(word)]
    if len(places) != 1:
        return words, None  # `find_network` says what is wrong
    place = Path(words[places[0]])
    if place.is_file():
        if wanted != default:
            raise SettingError("checkpoint", f"is {wanted}, but {place} is a checkpoint itself: give its run")
        return words, place
    run = run_folders.find_run(words[places[0]])
    best = run / "checkpoints" / "best.ckpt"
    if wanted == "best" and best.is_file():
        found = best
    elif wanted in ("best", "last"):
        found = last_good_checkpoint(run)
    else:
        steps = {str(step): file for step, file in checkpoint_files(run / "checkpoints")}
        step = wanted.lstrip("0") or "0"
        if step not in steps:
            known = ", ".join(["best", "last", *steps])
            raise SettingError("checkpoint", f"is {wanted}, expected one of {known}")
        found = steps[step]
    if found is None:
        raise SettingError(str(run), "has no checkpoint")
    return [str(found) if i == places[0] else word for i, word in enumerate(words)], found


def find_layers(network: nn.Module, key: str, wanted: list[str], image: Tensor) -> list[str]:
    """The layers of a network that give maps of an image [1, C, H, W]: `wanted`, or all that analyses show.

    Raises:
        SettingError: of `key`, if a layer is unknown or has no spatial extent; of "size", if the network
            does not accept the image.
    """
    size = " x ".join(map(str, image.shape[-2:]))
    try:
        shown = auto_layers(network, image)
        with torch.no_grad():
            maps = activations(network, image, wanted or shown)
    except UnknownName as error:
        raise SettingError(key, str(error)) from None
    except ValueError as error:
        raise SettingError(key if wanted else "size", str(error)) from None
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingError("size", f"the network does not take an image of {size} pixels: {reason}") from None
    for layer, map_ in maps.items():
        if map_.shape[-2:] == (1, 1):
            others = ", ".join(name for name in shown if name != layer)
            instead = f"expected one that has, such as {others}" if others else "nor has another"
            problem = f"layer {layer!r} has no spatial extent on an image of {size} pixels"
            raise SettingError(key, f"{problem}; {instead}")
    return list(maps)


def _reference(model: list[str]) -> str | None:
    """The reference in `model.name=REFERENCE` where that alone is given: whose code a checkpoint may use."""
    name = model[0].removeprefix("model.name=") if len(model) == 1 else ""
    return name if is_reference(name) else None


def _load_run_or_checkpoint(word: str, reference: str | None) -> NamedNetwork:
    path = Path(word)
    if path.is_file():
        folder = path.resolve().parent.parent
        run = folder if (folder / "config.yaml").is_file() else None
    else:
        run = run_folders.find_run(word)
        path = last_good_checkpoint(run)
        if path is None:
            raise SettingError(word, "has no checkpoint")
    try:
        try:
            network = load_checkpoint(path, reference)
        except ReferenceNeeded:
            if run is None:
                raise
            network = load_checkpoint(path, config.load_saved(run, []).model.name)
    except WeightsError as error:
        raise SettingError(str(error.source), error.problem) from None
    name = f"{run.name} at {path.stem}" if run else path.name
    return NamedNetwork(network, name, run, read_step(path) or 0)


def _load_weights(arguments: list[str]) -> NamedNetwork:
    model = config.load(arguments).model
    if model.weights is None:
        raise SettingError("model.weights", f"nothing to analyze; {run_folders.EXPECTED}")
    with as_setting_error("model"):
        options = dict(model.options) if is_foreign(model.name) else {"stem": model.stem, **model.options}
        if "channels" in options:
            raise SettingError("model.options", "has 'channels', which the weights tell: leave it out")
        classes, channels = infer_classes(model.name, model.weights, **options)
        options |= {"channels": channels, "mean": model.mean, "std": model.std}
        network = load_network(model.name, classes=classes, weights=model.weights, **options)
    return NamedNetwork(network, model.name)
