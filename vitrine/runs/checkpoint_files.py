"""The checkpoint files of a run: their steps, and whether they are intact."""

import logging
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrine.core.settings import SettingError
from vitrine.runs.metrics_csv import read_curves

log = logging.getLogger(__name__)


def last_good_checkpoint(run_dir: str | Path) -> Path | None:
    """The intact checkpoint with the most optimizer steps (at least one); None if there is none.

    Those that are truncated, damaged (all checksums are verified), or contain more than plain data are
    skipped with a warning.
    """
    for step, file in checkpoint_files(Path(run_dir) / "checkpoints", newest_first=True):
        if step == 0:
            continue  # a fresh start gives the same
        if (damage := find_damage(file)) is None:
            return file
        log.warning("passed over %s: %s", file, damage)
    return None


def best_checkpoint(run_dir: str | Path) -> tuple[int, Path, str] | None:
    """The step and file of the best intact checkpoint, and as what it is the best; None if there is none.

    That is best.ckpt (`checkpoint.monitor`); without one, of the checkpoints that are there, the one with the
    highest validation accuracy, or else the last.
    """
    folder = Path(run_dir) / "checkpoints"
    found: list[tuple[int | None, Path, str]] = []
    if (best := folder / "best.ckpt").exists():
        found.append((read_step(best), best, "the best by checkpoint.monitor"))
    accuracy = dict(read_curves(run_dir).get("val/accuracy", []))
    steps = list(checkpoint_files(folder, newest_first=True))
    by_accuracy = sorted((at for at in steps if at[0] in accuracy), key=lambda at: (-accuracy[at[0]], at[0]))
    found += [(*at, "the most accurate in validation") for at in by_accuracy]
    found += [(*at, "the last") for at in steps]
    for step, file, reason in found:
        if step is None:
            continue
        if (damage := find_damage(file)) is None:
            return step, file, reason
        log.warning("passed over %s: %s", file, damage)
    return None


def checkpoint_files(folder: Path, newest_first: bool = False) -> Iterator[tuple[int, Path]]:
    """The steps and files of the checkpoints in a folder, in order of steps, one file per step.

    The step is taken from a name such as `step=00000500.ckpt`; other files are opened, and skipped with a
    warning if unreadable.
    """
    found: dict[int, Path] = {}
    # names with a step first: `last.ckpt` is a link to one of them, `best.ckpt` a copy
    for file in sorted(folder.glob("*.ckpt"), key=lambda f: (_step_in_name(f) is None, f.name)):
        step = _step_in_name(file)
        if step is None and file.exists() and file.resolve() not in {f.resolve() for f in found.values()}:
            step = read_step(file)
        if step is not None:
            found.setdefault(step, file)
    yield from sorted(found.items(), reverse=newest_first)


def read_step(file: Path) -> int | None:
    """The number of optimizer steps of a checkpoint; None, with a warning, if it cannot be read."""
    try:
        return int(torch.load(file, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception as error:  # what damage makes of a pickle can be anything
        log.warning("passed over %s: %s", file, _first_line(error))
        return None


def read_classes(file: Path) -> list[str]:
    """The names of the classes that a checkpoint's network was trained on; none if they are not there."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        return [str(name) for name in content.get("vitrine", {}).get("classes", ())]
    except Exception:  # whether it is damaged is asked before it is used
        return []


def refuse_other_network(weights: Mapping[str, Any], file: Path, key: str) -> None:
    """Raise SettingError of `key` unless a checkpoint holds weights of these names and shapes: those of a run
    that is to go on from it. One that cannot be read is passed over later."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
        saved = _shapes(content)
    except Exception:
        return
    own = _shapes(weights)
    for name in [*own, *saved]:
        now, before = own.get(name, "absent"), saved.get(name, "absent")
        if now != before:
            came = f"{name.removeprefix('network.')} is {now}, and was {before}"
            raise SettingError(key, f"makes another network than {file} holds ({came}); leave it as it was")


def _shapes(weights: Mapping[str, Any]) -> dict[str, list[int]]:
    """Of the network's tensors; what else it keeps (`get_extra_state`) has none."""
    return {
        name: list(value.shape)
        for name, value in weights.items()
        if name.startswith("network.") and isinstance(value, Tensor)
    }


def find_damage(file: Path) -> str | None:
    """A description of the damage of a checkpoint file; None if it is intact."""
    try:
        with zipfile.ZipFile(file) as archive:
            if (bad := archive.testzip()) is not None:  # torch itself verifies no checksums
                return f"{bad} in it is damaged"
        if "state_dict" not in torch.load(file, map_location="cpu", weights_only=True, mmap=True):
            return "it holds no network"
    except Exception as error:
        return _first_line(error)
    return None


def _step_in_name(file: Path) -> int | None:
    match = re.fullmatch(r"step=(\d+)", file.stem)
    return int(match[1]) if match else None


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
