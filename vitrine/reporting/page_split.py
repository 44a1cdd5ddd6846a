"""A large run's page in many files: gallery.js says what there is, files beside the pictures what they show.

The page has to open from a folder, without a server. So such a file is a script, `page.parts/003.js` in an
analysis' folder, which hands its piece of `Part.shown` to the page that has asked for it.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrine.core import atomic
from vitrine.reporting.page_parts import Part, script_json, short_file

if TYPE_CHECKING:
    from vitrine.reporting.page_cache import Known

FOLDER = "page.parts"
_CHUNK = 64  # figures of a file at least, if there are as many; then it ends with its layer
_TRIES = 5  # where other processes write the same


def chunk_sizes(rows: Sequence[Sequence[Any]]) -> list[int]:
    """How many figures there are in each file of a part, given its rows: a layer's units are in one."""
    sizes = [0]
    for before, row in itertools.pairwise([None, *rows]):
        if sizes[-1] >= _CHUNK and (before[1] != row[1] or sizes[-1] >= 4 * _CHUNK):
            sizes.append(0)
        sizes[-1] += 1
    return sizes if rows else []


def write_chunks(place: Path, part: Part, rows: Sequence[Sequence[Any]]) -> None:
    """Write what a part shows, whose rows are given, into a folder, which appears whole.

    Nothing is written where the analysis' folder is gone, as another process replaces it.

    Raises:
        OSError: the disk refused.
    """
    atomic.sweep(place.parent, place.name)
    staged = atomic.staging_path(place)
    try:
        staged.mkdir()
        begin = 0
        for i, size in enumerate(chunk_sizes(rows)):
            piece = slice(begin, begin + size)
            shown = [_short(row[0], *of) for row, of in zip(rows[piece], part.shown[piece])]
            text = f'vitrine.part("{part.digest}",{script_json(shown)});\n'
            (staged / f"{i:03d}.js").write_text(text, encoding="utf-8", newline="")
            begin += size
        atomic.sync_tree(staged)
        for left in reversed(range(_TRIES)):
            shutil.rmtree(place, ignore_errors=True)
            try:
                os.rename(staged, place)
                break
            except OSError:
                if not left:
                    raise
        atomic.sync(place.parent)
    except FileNotFoundError:
        if place.parent.is_dir():
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _short(key: str, caption: str, values: dict[str, Any], file: str, *drawn: Any) -> list[Any]:
    """What a figure shows, with the `short_file` in place of its file."""
    return [caption, values, short_file(key, file), *drawn]


def split_json(known: Known, fixed: dict[str, Any], analyses: Iterable[dict[str, Any]]) -> str:
    """A run's content as JSON, without what figures show.

    Each analysis gets its `figures` (the rows of `Part.rows`, of all steps, once a key), its `lists` (for
    each way in which a step has them: `places` in figures as pairs of first and count, the sizes of `chunks`,
    and `Part.suffix`), and the `keys` of its scalars; each analysis of a step the numbers of list and keys,
    `scalars`, `alarms` and the digest of what it shows, `of`.

    The text of a step that is as it was is taken from `known.pieces`, where all are left.
    """
    described, numbers = [], {}
    for analysis in analyses:
        name = analysis["name"]
        parts = [at[name] for at in known.steps.values() if name in at]
        rows = {of: i for i, of in enumerate(dict.fromkeys((part.rows, part.suffix) for part in parts))}
        keys = {digest: i for i, digest in enumerate(dict.fromkeys(part.keys for part in parts))}
        numbers[name] = rows, keys
        figures: dict[str, list[Any]] = {}
        places: dict[str, int] = {}
        lists = []
        for digest, suffix in rows:
            own = known.texts[digest]
            for row in own:
                if row[0] not in places:
                    places[row[0]] = len(places)
                    figures[row[0]] = row
            ranges = _ranges(places[row[0]] for row in own)
            lists.append({"places": ranges, "chunks": chunk_sizes(own), "suffix": suffix})
        own_keys = [known.texts[digest] for digest in keys]
        described.append({**analysis, "figures": list(figures.values()), "lists": lists, "keys": own_keys})
    for step, at in known.steps.items():
        own = {name: (numbers[name][0][p.rows, p.suffix], numbers[name][1][p.keys]) for name, p in at.items()}
        named = ",".join(f"{rows}:{keys}" for rows, keys in own.values())
        if known.pieces.get(step, ("",))[0] != named:
            known.pieces[step] = named, _step_json(step, at, own)
    head = script_json({**fixed, "split": True})
    steps = ",".join(known.pieces[step][1] for step in known.steps)
    return f'{head[:-1]},"steps":[{steps}],"analyses":{script_json(described)}}}'


def _step_json(step: int, at: dict[str, Part], numbers: dict[str, tuple[int, int]]) -> str:
    """A step of `split_json`, given the numbers of the list and the keys of each analysis."""
    analyses = {
        name: {
            **part.outcome,
            "list": numbers[name][0],
            "keys": numbers[name][1],
            "scalars": part.values,
            "alarms": part.alarms,
            "of": part.digest,
        }
        for name, part in at.items()
    }
    return script_json({"step": step, "analyses": analyses})


def _ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Numbers as pairs of a first one and how many there are from there on."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == sum(ranges[-1]):
            ranges[-1][1] += 1
        else:
            ranges.append([number, 1])
    return ranges
