"""Results of analyses on disk: one directory per step, which appears whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrine.analyses.base import Figure, Scalar
from vitrine.analyses.result import AnalysisResult
from vitrine.core import atomic
from vitrine.runs import attachments, filenames, pictures
from vitrine.runs.attachments import LatestState, ReadOnAccess
from vitrine.runs.figure_entries import finite, number, to_entry, to_figure, upgraded
from vitrine.runs.scratch import FileScratch
from vitrine.runs.stamps import Stamp, stamp


class Store:
    """The `analysis` folder of a run. Reading sees complete steps only, and creates nothing."""

    def __init__(self, run_dir: str | Path):
        self.folder = Path(run_dir) / "analysis"

    def step_folder(self, step: int) -> Path:
        """The directory of a step, whether it exists or not."""
        return self.folder / f"step={step:08d}"

    def begun(self) -> list[int]:
        """The steps that have a folder, complete or not, ascending."""
        try:
            names = os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = [re.fullmatch(r"step=(\d+)", name) for name in names]
        return sorted(int(match[1]) for match in found if match)

    def steps(self) -> list[int]:
        """The complete steps, ascending."""
        return [step for step in self.begun() if self._complete(step)]

    def is_complete(self, step: int) -> bool:
        """Whether all of a step is there."""
        return bool(self._complete(step))

    def weights(self, step: int) -> str | None:
        """The hash of the weights that were analyzed at a step; None if it is not complete."""
        return self._complete(step).get("weights")

    def results(self, step: int) -> dict[str, AnalysisResult]:
        """The result of each analysis of a step; empty if the step is not complete."""
        return {
            name: self._result(step, name, record)
            for name, record in self._complete(step).get("analyses", {}).items()
        }

    def figures(self, step: int, name: str) -> Sequence[Figure]:
        """The figures of an analysis at a step; each picture is read on access. Empty if there are none."""
        result = self.results(step).get(name)
        return [] if result is None else result.figures

    def entries(self, step: int, name: str) -> list[dict[str, Any]]:
        """The records of figures.json, without the pictures; `file` is relative to the analysis' folder."""
        return [upgraded(entry) for entry in self._list(step, name, "figures.json")]

    def scalars(self, step: int, name: str) -> list[Scalar]:
        """The scalars of an analysis at a step."""
        return [
            Scalar(point["key"], number(point["value"]), point["layer"], point.get("text", ""))
            for point in self._list(step, name, "scalars.json")
        ]

    def previous(self, step: int) -> dict[str, Sequence[Figure]]:
        """The figures, by analysis, of the latest complete step before `step`; read on access."""
        earlier = [s for s in self.steps() if s < step]
        return {name: result.figures for name, result in self.results(earlier[-1]).items()} if earlier else {}

    def previous_state(self, step: int) -> Mapping[str, Mapping[str, Tensor]]:
        """By analysis, its state of the latest complete step before `step` at which it yielded one; looked
        for and read on access."""
        earlier = [s for s in self.begun() if s < step]

        def yielded(folder: Path) -> list[str]:
            records = _read_json(folder / "complete.json", {}).get("analyses", {})
            return [name for name, record in records.items() if record.get("state")]

        return LatestState([self.step_folder(s) for s in reversed(earlier)], yielded)

    def scratch(self, step: int, name: str, weights: str) -> FileScratch:
        """A place for the unfinished work of one analysis of a step and its weights."""
        own = f"{self.step_folder(step).name}.{weights[:16]}.{name}"
        return FileScratch(self.folder / ".unfinished" / own)

    @contextlib.contextmanager
    def writing(self, step: int, weights: str) -> Iterator[Writer]:
        """A `Writer` for one step, the optimizer steps taken, and the hash of the weights that are analyzed.

        A step that is new, or was of other weights, appears when the scope ends, and not at all if it ends in
        an exception. To an existing step of the same weights each analysis is added as soon as it is written.

        Raises:
            OSError: the disk refused; nothing incomplete is left.
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
                atomic.write_json(staged / "complete.json", writer.complete)  # the last file of a step
                self._publish(staged, final)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _publish(self, staged: Path, final: Path) -> None:
        atomic.sync_tree(staged)
        old = staged.with_name(staged.name + ".old")
        if final.exists():  # of other weights, or without complete.json
            os.rename(final, old)
        os.rename(staged, final)
        shutil.rmtree(old, ignore_errors=True)
        atomic.sync(self.folder)

    def _result(self, step: int, name: str, record: Mapping[str, Any]) -> AnalysisResult:
        folder, trace = self.step_folder(step) / name, record.get("error")
        return AnalysisResult(
            _Lazy(
                lambda: self.entries(step, name),
                lambda entry: to_figure(entry, pictures.read(folder / entry["file"])),
                record.get("figures"),
            ),
            _Lazy(lambda: self.scalars(step, name)),
            seconds=record["seconds"],
            error=trace.strip().splitlines()[-1] if trace else None,
            traceback=trace,
            reduced=record.get("reduced") or {},
            settings=record.get("settings"),
            subject=record.get("subject") or {},
            files=ReadOnAccess(record.get("files", ()), lambda file: attachments.read_file(folder / file)),
            state=ReadOnAccess(
                record.get("state", ()), lambda tensor: attachments.read_state(folder)[tensor]
            ),
        )

    def _complete(self, step: int) -> dict[str, Any]:
        file = self.step_folder(step) / "complete.json"
        return _read_once(file, stamp(file))

    def _list(self, step: int, name: str, file: str) -> list[dict[str, Any]]:
        if name not in self._complete(step).get("analyses", {}):
            return []
        return _read_json(self.step_folder(step) / name / file, [])


class Writer:
    """Writes the results of one step, one analysis at a time; from `Store.writing`."""

    def __init__(self, staged: Path, step: int, weights: str, final: Path | None):
        self._staged, self._final = staged, final
        self.complete = {"step": step, "weights": weights, "analyses": {}}

    def write(self, name: str, result: AnalysisResult) -> None:
        """Write the result of an analysis, replacing an earlier one.

        Raises:
            ValueError: the name is no plain word, a key occurs twice, or a picture is not uint8 [H, W, 3]; or
                as `attachments.write`.
            OSError: the disk refused.
        """
        figures = result.figures
        _validate(name, figures)
        folder = self._staged / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        paths = filenames.unique_paths([figure.key for figure in figures])
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # encoding releases the interpreter
            files = list(threads.map(pictures.write, repeat(folder), paths, [f.image for f in figures]))
        _write_list(folder / "figures.json", [to_entry(figure, file) for figure, file in zip(figures, files)])
        scalars = [_point(scalar) for scalar in result.scalars]
        _write_list(folder / "scalars.json", scalars)
        attachments.write(folder, result.files, result.state)
        record = {
            "seconds": round(float(result.seconds), 3),
            "error": result.traceback or result.error,
            "figures": len(figures),
            "settings": result.settings,
            "subject": result.subject,
            "reduced": result.reduced or None,
            "files": list(result.files),
            "state": list(result.state),
        }
        optional = ("subject", "files", "state")  # left out where there is none
        self.complete["analyses"][name] = {k: v for k, v in record.items() if v or k not in optional}
        if self._final is not None:
            self._add(name, folder)

    def _add(self, name: str, folder: Path) -> None:
        """Move an analysis into a complete step; complete.json never names one that is not there."""
        atomic.sync_tree(folder)
        complete = _read_json(self._final / "complete.json", {"analyses": {}})
        place = self._final / name
        if place.exists():
            if complete["analyses"].pop(name, None):
                atomic.write_json(self._final / "complete.json", complete)
            os.rename(place, self._staged / f"{name}.old")
        os.rename(folder, place)
        atomic.sync(self._final)
        complete["analyses"][name] = self.complete["analyses"][name]
        atomic.write_json(self._final / "complete.json", complete)


class _Lazy(Sequence[Any]):
    """The items of `read()`, which is called on first access, each converted on access."""

    def __init__(
        self,
        read: Callable[[], list[Any]],
        convert: Callable[[Any], Any] = lambda item: item,
        count: int | None = None,
    ):
        self._read, self._convert, self._count = read, convert, count

    @cached_property
    def _items(self) -> list[Any]:
        return self._read()

    def __len__(self) -> int:
        return len(self._items) if self._count is None else self._count

    def __getitem__(self, index: int | slice) -> Any:
        found = self._items[index]
        return [self._convert(item) for item in found] if isinstance(index, slice) else self._convert(found)


def _validate(name: str, figures: Sequence[Figure]) -> None:
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


def _point(scalar: Scalar) -> dict[str, Any]:
    point = {"key": scalar.key, "value": finite(scalar.value), "layer": scalar.layer}
    return point | ({"text": scalar.text} if scalar.text else {})


def _write_list(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """JSON with an entry a line."""
    lines = ",\n".join(json.dumps(entry, allow_nan=False, separators=(",", ":")) for entry in entries)
    path.write_text(f"[\n{lines}\n]\n" if lines else "[]\n", encoding="utf-8")


@lru_cache(maxsize=4096)
def _read_once(path: Path, stamp: Stamp) -> dict[str, Any]:
    """The content of a complete.json, of which there is one a checkpoint; not to be changed."""
    return {} if stamp is None else _read_json(path, {})


def _read_json(path: Path, otherwise: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return otherwise
