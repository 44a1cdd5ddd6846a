"""Shards by pattern: braces as shells and webdataset read them, the jokers `*`, `?`, `[...]`, and folders."""

import glob
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from vitrine.core.settings import SettingError
from vitrine.datamodules.image_folders import split_of

EXPECTED = "expected shards such as shards/train-{000..099}.tar, or a folder of .tar files"
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_ADDRESS = re.compile(r"[a-zA-Z][\w+.-]+://|pipe:")


def refuse_address(key: str, value: str) -> None:
    """Raise SettingError for what is no path of files: http://, s3://, pipe:."""
    for part in value.split("::"):
        if _ADDRESS.match(part) and not os.path.exists(part):
            problem = f"{part} is no file: shards are read from disks"
            raise SettingError(key, f"{problem}; download them, or see data.name=streaming for object stores")


def find_shards(key: str, pattern: str) -> list[Path]:
    """The tar files of a pattern, or in a folder and below it.

    Raises:
        SettingError: of `key`, if there are none, or some are not there.
    """
    if os.path.isdir(pattern):
        shards = sorted(path for path in Path(pattern).rglob("*.tar") if not path.name.startswith("."))
        if not shards:
            raise SettingError(key, f"{pattern} holds no .tar files; {EXPECTED}")
        return shards
    try:
        shards = [Path(path) for path in expand(pattern)]
    except ValueError as error:
        raise SettingError(key, str(error)) from None
    missing = [str(shard) for shard in shards if not shard.is_file()]
    if missing or not shards:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        problem = f"{pattern}: there is none"
        if missing:
            problem = f"{len(missing)} of {len(shards)} shards are not there: {shown}"
        raise SettingError(key, f"{problem}; {EXPECTED}")
    return shards


def group_by_split(pattern: str) -> dict[str, list[Path]]:
    """The shards of a pattern or folder by the split that their names, below what they share, say; all for
    training where they say none.

    Raises:
        SettingError: of `data.root`, if some say a split and others do not.
    """
    shards = find_shards("data.root", pattern)
    base = pattern if os.path.isdir(pattern) else fixed_folder(pattern)
    groups: dict[str | None, list[Path]] = {}
    for shard in shards:
        words = re.split(r"[^A-Za-z]+", os.path.relpath(shard, base or "."))
        split = next((split for word in words if (split := split_of(word))), None)
        groups.setdefault(split, []).append(shard)
    unknown = groups.pop(None, [])
    if unknown and groups:
        known = next(iter(groups.values()))[0]
        problem = f"{known} is of one split by its name, {unknown[0]} of none"
        raise SettingError("data.root", f"{problem}: give data.root, data.val and data.test a pattern each")
    return groups or {"train": unknown}


def expand(pattern: str) -> list[str]:
    """The paths that a pattern stands for: `a-{000..099}.tar`, `{train,val}/*.tar`, `a.tar::b.tar`.

    Jokers are replaced by the files that there are, sorted; braces by all that they list, there or not.

    Raises:
        ValueError: braces that do not close, or list nothing.
    """
    return [path for part in pattern.split("::") for braced in _expand_braces(part) for path in _find(braced)]


def fixed_folder(pattern: str) -> str:
    """The folder that all paths of a pattern are in, which is written out in it."""
    start = re.split(r"[{*?\[]", pattern.split("::")[0])[0]
    return start.rpartition("/")[0]


def _expand_braces(pattern: str) -> Iterator[str]:
    start, depth, commas = pattern.find("{"), 0, []
    for i, letter in enumerate(pattern):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 1:
            commas.append(i)
        if depth < 0 or (letter == "}" and depth == 0):
            break
    if start == -1 and depth == 0:
        yield pattern
        return
    if depth != 0:
        raise ValueError(f"{pattern!r} has a brace too many, expected such as shard-{{000..099}}.tar")
    edges = [start, *commas, i]
    items = [pattern[a + 1 : b] for a, b in itertools.pairwise(edges)]
    for item in items if commas else _range(items[0]):
        yield from _expand_braces(pattern[:start] + item + pattern[i + 1 :])


def _range(inside: str) -> list[str]:
    ends = _RANGE.fullmatch(inside)
    if ends is None:
        raise ValueError(f"{{{inside}}} lists nothing, expected such as {{000..099}} or {{train,val}}")
    first, last = int(ends[1]), int(ends[2])
    padded = any(len(end.lstrip("-")) > 1 and end.lstrip("-")[0] == "0" for end in ends.groups())
    width = max(map(len, ends.groups())) if padded else 0
    step = 1 if last >= first else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def _find(path: str) -> list[str]:
    return sorted(glob.glob(path)) if re.search(r"[*?\[]", path) else [path]
