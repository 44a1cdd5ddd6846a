"""`page.cache`: what the page of a run knows of its steps, so that none is read twice.

It may be deleted at any time. What it says of an analysis holds while the files that it was read from are the
same by their numbers, sizes and times on the disk; a folder that was redone, copied or deleted is noticed.

The first line has the version, a digest of the others, and what steps share. Each step has two more, which
stay while its files do, so that a checkpoint more costs little however many there are: what is known of it,
and, where the page is in many files, its text in gallery.js after the numbers that are in it.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vitrine
from vitrine.analyses.result import AnalysisResult
from vitrine.core import atomic
from vitrine.reporting import page_parts, page_split
from vitrine.reporting.page_parts import Part, outcome_of, read_part
from vitrine.reporting.page_split import FOLDER, write_chunks
from vitrine.runs.stamps import Stamp, stamp
from vitrine.runs.store import Store

NAME = "page.cache"
# bytes of captions and numbers up to which gallery.js holds them all; of more the page loads what it shows
ONE_FILE = 4_000_000


@dataclass
class Known:
    """What is known of the complete steps of a run.

    Attributes:
        steps: by step and analysis, ascending.
        texts: what the digests of parts stand for.
        split: whether what figures show is in files beside them, see `page_split`, and no part has it.
    """

    steps: dict[int, dict[str, Part]] = field(default_factory=dict)
    texts: dict[str, list[Any]] = field(default_factory=dict)
    split: bool = False
    stamps: dict[int, dict[str, Stamp]] = field(default_factory=dict)  # of the files of each step, by path
    lines: dict[int, str] = field(default_factory=dict)  # what page.cache says of steps that are as they were
    pieces: dict[int, tuple[str, str]] = field(default_factory=dict)  # of gallery.js, see `page_split`


def read(run_dir: Path, one_file: float | None = None) -> Known:
    """What there is to know of a run now: from page.cache, and from the files of steps that it does not know.

    Of more than `one_file` bytes (ONE_FILE unless given) what figures show is written beside their pictures.

    Raises:
        OSError: the disk refused.
    """
    return _Reading(run_dir, ONE_FILE if one_file is None else one_file).known


def write(run_dir: Path, known: Known) -> None:
    """Keep what is known for the next `read`.

    Raises:
        OSError: the disk refused; what was there stands.
    """
    lines = []
    for step, parts in known.steps.items():
        lines.append(known.lines.get(step) or _line(step, known.stamps[step], parts))
        lines.append(" ".join(known.pieces.get(step, ())))
    rest = "".join(f"{line}\n" for line in lines)
    head = {"version": _version(), "digest": _digest(rest), "texts": known.texts}
    file, text = run_dir / NAME, f"{json.dumps(head, separators=(',', ':'))}\n{rest}"
    with contextlib.suppress(OSError):
        if file.read_text(encoding="utf-8") == text:
            return
    atomic.write_text(file, text)


class _Reading:
    """One `read`."""

    def __init__(self, run_dir: Path, one_file: float):
        self.store, self.before = Store(run_dir), _kept(run_dir)
        self.one_file, self.bytes = one_file, 0
        # by step, as text: a Path of each file would take longer than to ask the disk for it
        self.folders: dict[int, str] = {}
        self.known = known = Known()
        for step in self.store.begun():
            self._step(step)
        if not known.split:
            for step, name in self._all():
                self._in_one_file(step, name)
        used = {
            digest for parts in known.steps.values() for p in parts.values() for digest in (p.rows, p.keys)
        }
        known.texts = {digest: text for digest, text in known.texts.items() if digest in used}

    def _all(self) -> Iterator[tuple[int, str]]:
        return ((step, name) for step, parts in self.known.steps.items() for name in parts)

    def _step(self, step: int) -> None:
        known, before = self.known, self.before.steps.get(step, {})
        folder = self.folders[step] = str(self.store.step_folder(step))
        complete = stamp(f"{folder}/complete.json")
        results: dict[str, AnalysisResult] | None = None
        names = list(before)
        if complete is None:
            return
        if self._as_it_was(step, folder):
            return
        if step not in self.before.steps or complete != self.before.stamps[step].get("complete.json"):
            if not self.store.is_complete(step):
                return
            results = self.store.results(step)
            names = list(results)
        known.steps[step], known.stamps[step] = {}, {"complete.json": complete}
        if results is None:
            known.lines[step] = self.before.lines[step]
        for name in names:
            files = {
                f"{name}/{file}": stamp(f"{folder}/{name}/{file}")
                for file in ("figures.json", "scalars.json")
            }
            same = name in before and files.items() <= self.before.stamps[step].items()
            if same:
                part = before[name]
                if results is not None:
                    part = dataclasses.replace(part, outcome=outcome_of(results[name]))
                texts = {digest: self.before.texts[digest] for digest in (part.rows, part.keys)}
            else:
                known.lines.pop(step, None)
                part, texts = self._read_part(step, name)
                if stamp(f"{folder}/complete.json") != complete:
                    files = {}  # it was replaced while it was read: the next time it is read again
            known.texts |= texts
            known.stamps[step] |= files
            known.steps[step][name] = part
            self.bytes += part.bytes
            if not known.split and self.bytes > self.one_file:
                known.split = True
                for earlier in self._all():
                    self._in_chunks(*earlier)
            elif known.split:
                self._in_chunks(step, name)

    def _as_it_was(self, step: int, folder: str) -> bool:
        """Whether a step of a page in many files still is as it was known; then it is taken over."""
        before, known = self.before.steps.get(step), self.known
        if not known.split or before is None or any(part.shown is not None for part in before.values()):
            return False
        stamps = self.before.stamps[step]
        needed = {"complete.json", *(f"{name}/figures.json" for name in before)}
        needed |= {f"{name}/{FOLDER}" for name, part in before.items() if self.before.texts[part.rows]}
        if needed - stamps.keys() or any(stamp(f"{folder}/{path}") != of for path, of in stamps.items()):
            return False
        known.steps[step], known.stamps[step] = before, stamps
        for part in before.values():
            known.texts |= {digest: self.before.texts[digest] for digest in (part.rows, part.keys)}
        known.lines[step] = self.before.lines[step]
        if step in self.before.pieces:
            known.pieces[step] = self.before.pieces[step]
        return True

    def _in_chunks(self, step: int, name: str) -> None:
        """Have what a part shows in files of its own."""
        part = self.known.steps[step][name]
        key = f"{name}/{FOLDER}"
        place = f"{self.folders[step]}/{key}"
        kept = self.before.stamps.get(step, {}).get(key)
        if not self.known.texts[part.rows]:
            kept = None
        elif part.shown is not None or kept is None or kept != stamp(place):
            self.known.lines.pop(step, None)
            part = part if part.shown is not None else self._read_again(step, name)
            write_chunks(Path(place), part, self.known.texts[part.rows])
            kept = stamp(place)
        if kept is not None:
            self.known.stamps[step][key] = kept
        if part.shown is not None:
            self.known.steps[step][name] = dataclasses.replace(part, shown=None)

    def _in_one_file(self, step: int, name: str) -> None:
        """Have what a part shows in memory, and not in files that were needed when the run was larger."""
        if f"{name}/{FOLDER}" in self.before.stamps.get(step, {}):
            self.known.lines.pop(step, None)
            shutil.rmtree(self.store.step_folder(step) / name / FOLDER, ignore_errors=True)
        if self.known.steps[step][name].shown is None:
            self.known.lines.pop(step, None)
            self.known.steps[step][name] = self._read_again(step, name)

    def _read_again(self, step: int, name: str) -> Part:
        part, texts = self._read_part(step, name)
        self.known.texts |= texts
        return part

    def _read_part(self, step: int, name: str) -> tuple[Part, dict[str, list[Any]]]:
        # without a result another process is replacing it
        result = self.store.results(step).get(name, AnalysisResult())
        return read_part(self.store, step, name, result)


def _line(step: int, stamps: dict[str, Stamp], parts: dict[str, Part]) -> str:
    """What is known of a step as a line; packed where it has what figures show."""
    content = [step, stamps, {name: list(vars(part).values()) for name, part in parts.items()}]
    text = json.dumps(content, separators=(",", ":"))
    if all(part.shown is None for part in parts.values()):
        return text
    return base64.b64encode(zlib.compress(text.encode(), 1)).decode()


def _kept(run_dir: Path) -> Known:
    """What was written; nothing if that cannot be used."""
    known = Known()
    try:
        head, _, rest = (run_dir / NAME).read_text(encoding="utf-8").partition("\n")
        content = json.loads(head)
        if content["version"] != _version() or content["digest"] != _digest(rest):
            return known
        known.texts = content["texts"]
        lines = iter(rest.splitlines())
        for line, piece in zip(lines, lines):
            text = line if line.startswith("[") else zlib.decompress(base64.b64decode(line)).decode()
            step, stamps, parts = json.loads(text)
            known.lines[step] = line
            known.stamps[step] = {path: of and tuple(of) for path, of in stamps.items()}
            known.steps[step] = {name: Part(*of) for name, of in parts.items()}
            if piece:
                numbers, _, text = piece.partition(" ")
                known.pieces[step] = numbers, text
    except (OSError, ValueError, KeyError, TypeError, zlib.error):
        return Known()
    return known


def _version() -> str:
    """That of the code which reads parts and writes their text."""
    code = b"".join(Path(module.__file__).read_bytes() for module in (page_parts, page_split))
    return f"{vitrine.__version__} {hashlib.sha256(code).hexdigest()[:16]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
