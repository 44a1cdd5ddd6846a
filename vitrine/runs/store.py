"""What the analyses yielded, on disk: a directory a step that appears whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from vitrine.analyses.base import Figure, Scalar
from vitrine.core import atomic
from vitrine.runs import filenames, pictures
from vitrine.runs.figure_entries import finite, number, to_entry, to_figure, upgraded
from vitrine.runs.scratch import FileScratch


@dataclass(frozen=True)
class Outcome:
    """How one analysis went at one step.

    Attributes:
        seconds: what it took.
        error: the last line of its traceback, or all of it; None where it went well.
        figures: pictures kept.
        settings: what it was asked for, as plain containers.
        reduced: what is less than asked for, [made, asked]: {"units": [4, 16]}; {"analysis": [0, 1]} where it
            was left out. See `callbacks.budget` and `callbacks.memory`.
    """

    seconds: float
    error: str | None = None
    figures: int = 0
    settings: Mapping[str, Any] | None = None
    reduced: Mapping[str, Sequence[int]] | None = None


def format_reduced(reduced: Mapping[str, Sequence[int]]) -> str:
    """What `Outcome.reduced` says: "4 of 16 units, 16 of 64 steps", "left out", "batches of 64, not 256"."""
    if "analysis" in reduced:
        return "left out"
    said = {"batch": "batches of {0}, not {1}"}
    return ", ".join(said.get(what, f"{{0}} of {{1}} {what}").format(*n) for what, n in reduced.items())


class Store:
    """The `analysis` folder of a run. Reading sees whole steps only; looking creates nothing.

    Args:
        run_dir: the run's folder.
    """

    def __init__(self, run_dir: str | Path):
        self.folder = Path(run_dir) / "analysis"

    def step_folder(self, step: int) -> Path:
        """Where a step lies, or would."""
        return self.folder / f"step={step:08d}"

    def steps(self) -> list[int]:
        """The steps that are whole, ascending."""
        found = [re.fullmatch(r"step=(\d+)", path.name) for path in self.folder.glob("step=*")]
        return sorted(step for match in found if match and self._complete(step := int(match[1])))

    def weights(self, step: int) -> str | None:
        """The hash of the weights a step is of; None where it is not whole."""
        return self._complete(step).get("weights")

    def outcomes(self, step: int) -> dict[str, Outcome]:
        """How each analysis of a step went; empty where the step is not whole."""
        known = set(Outcome.__dataclass_fields__)
        return {
            name: Outcome(**{key: value for key, value in outcome.items() if key in known})
            for name, outcome in self._complete(step).get("analyses", {}).items()
        }

    def figures(self, step: int, name: str) -> Sequence[Figure]:
        """The figures of an analysis at a step, each picture read when it is asked for; maybe none."""
        return _Figures(self.step_folder(step) / name, self.entries(step, name))

    def entries(self, step: int, name: str) -> list[dict[str, Any]]:
        """The same without the pictures: what figures.json says, `file` relative to the analysis' folder."""
        return [upgraded(entry) for entry in self._list(step, name, "figures.json")]

    def scalars(self, step: int, name: str) -> list[Scalar]:
        """The points of curves that an analysis yielded at a step."""
        return [
            Scalar(point["key"], number(point["value"]), point["layer"])
            for point in self._list(step, name, "scalars.json")
        ]

    def previous(self, step: int) -> Mapping[str, Sequence[Figure]]:
        """The figures, by analysis, of the latest whole step before this one; read as they are asked for."""
        earlier = [s for s in self.steps() if s < step]
        return _Step(self, earlier[-1]) if earlier else {}

    def scratch(self, step: int, name: str, weights: str) -> FileScratch:
        """Where an analysis of a step and its weights keeps how far it has come."""
        own = f"{self.step_folder(step).name}.{weights[:16]}.{name}"
        return FileScratch(self.folder / ".unfinished" / own)

    @contextlib.contextmanager
    def writing(self, step: int, weights: str) -> Iterator[Writer]:
        """A Writer for one step.

        A step that is new, or whose weights were others, appears when the scope ends, and not at all when it
        ends in an exception. To a step that is there already each analysis is added as soon as it is written.

        Args:
            step: optimizer steps taken.
            weights: the hash of the weights that were looked at.

        Raises:
            OSError: the disk refused; nothing half-made is left.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic.sweep(self.folder, "step=*")
        final = self.step_folder(step)
        staged = atomic.staging_path(final)
        adding = self.weights(step) == weights
        writer = Writer(staged, step, weights, final if adding else None)
        try:
            staged.mkdir()
            yield writer
            if not adding:
                writer.seal()
                self._publish(staged, final)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _publish(self, staged: Path, final: Path) -> None:
        atomic.sync_tree(staged)
        if final.exists():  # of other weights, or without complete.json
            old = staged.with_name(staged.name + ".old")
            os.rename(final, old)
            os.rename(staged, final)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(staged, final)
        atomic.sync(self.folder)

    def _complete(self, step: int) -> dict[str, Any]:
        return _read(self.step_folder(step) / "complete.json", {})

    def _list(self, step: int, name: str, file: str) -> list[dict[str, Any]]:
        if name not in self._complete(step).get("analyses", {}):
            return []
        return _read(self.step_folder(step) / name / file, [])


class Writer:
    """Takes what the analyses of one step yielded, one at a time; made by `Store.writing`."""

    def __init__(self, aside: Path, step: int, weights: str, final: Path | None):
        self._aside, self._final = aside, final
        self._complete = {"step": step, "weights": weights, "analyses": {}}

    def write(
        self,
        name: str,
        figures: Sequence[Figure],
        scalars: Sequence[Scalar],
        seconds: float,
        error: str | None = None,
        settings: Mapping[str, Any] | None = None,
        reduced: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """Keep what an analysis yielded, in place of what it may have left before.

        Args:
            name: the analysis, as registered.
            seconds: what it took.
            error: what stopped it, or None.
            settings: what it was asked for, as plain containers.
            reduced: what is less than that, see `Outcome`.

        Raises:
            ValueError: the name is no plain word, a key comes twice, or a picture is not uint8 [H, W, 3].
            OSError: the disk refused.
        """
        _check(name, figures)
        folder = self._aside / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        paths = filenames.unique_paths([figure.key for figure in figures])
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # encoding releases the interpreter
            files = list(threads.map(pictures.write, repeat(folder), paths, [f.image for f in figures]))
        _dump(folder / "figures.json", [to_entry(figure, file) for figure, file in zip(figures, files)])
        _dump(folder / "scalars.json", [{**asdict(s), "value": finite(s.value)} for s in scalars])
        outcome = Outcome(round(float(seconds), 3), error, len(figures), settings, reduced or None)
        self._complete["analyses"][name] = asdict(outcome)
        if self._final is not None:
            self._add(name, folder)

    def seal(self) -> None:
        """Write complete.json, the last of all."""
        atomic.write_json(self._aside / "complete.json", self._complete)

    def _add(self, name: str, folder: Path) -> None:
        """Move an analysis into a whole step; at no instant does complete.json name what is not there."""
        atomic.sync_tree(folder)
        complete = _read(self._final / "complete.json", {"analyses": {}})
        outcome = self._complete["analyses"][name]
        place = self._final / name
        if place.exists():
            if complete["analyses"].pop(name, None):
                atomic.write_json(self._final / "complete.json", complete)
            os.rename(place, self._aside / f"{name}.old")
        os.rename(folder, place)
        atomic.sync(self._final)
        complete["analyses"][name] = outcome
        atomic.write_json(self._final / "complete.json", complete)


class _Figures(Sequence[Figure]):
    def __init__(self, folder: Path, entries: list[dict[str, Any]]):
        self._folder, self._entries = folder, entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return _Figures(self._folder, self._entries[index])
        entry = self._entries[index]
        return to_figure(entry, pictures.read(self._folder / entry["file"]))


class _Step(Mapping[str, Sequence[Figure]]):
    def __init__(self, store: Store, step: int):
        self._store, self._step = store, step
        self._names = list(store.outcomes(step))

    def __getitem__(self, name: str) -> Sequence[Figure]:
        if name not in self._names:
            raise KeyError(name)
        return self._store.figures(self._step, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _check(name: str, figures: Sequence[Figure]) -> None:
    if not re.fullmatch(r"\w[\w-]*", name, re.ASCII):
        raise ValueError(f"name is {name!r}, expected letters, digits, '_' and '-'")
    seen: set[str] = set()
    for figure in figures:
        image = figure.image
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.numel():
            came = f"{image.dtype} {list(image.shape)}"
            raise ValueError(f"image of figure {figure.key!r} is {came}, expected uint8 [H, W, 3]")
        if figure.key in seen:
            raise ValueError(f"key {figure.key!r} came twice, expected one figure a key")
        seen.add(figure.key)


def _dump(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, allow_nan=False, indent=1) + "\n", encoding="utf-8")


def _read(path: Path, otherwise: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return otherwise
