"""File names out of names that nobody checked: class names, layer names, keys."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

LONGEST = 80  # characters of a part, and
DEEPEST = 240  # of a path: far below any file system's limit
# what Windows keeps for itself, what the store does, and names of folders that look like files
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.(png|webp|json)")


def safe_name(name: str) -> str:
    """`name` as one part of a path, in letters, digits and `._=+-`: itself where it is that already.

    A name that had to be changed carries a hash of what it was, so that different names stay different.
    """
    clean = re.sub(r"[^A-Za-z0-9._=+-]+", "-", name).strip("-.")[:LONGEST].rstrip("-.")
    if clean and clean == name and not _RESERVED.fullmatch(name):
        return name
    return f"{clean}-{_short_hash(name)}" if clean else _short_hash(name)


def unique_paths(keys: Iterable[str]) -> list[str]:
    """A relative path, without an ending, for each path-like key ("layer3/unit-017"), no two the same.

    They differ on file systems that ignore case, too, and lead nowhere but down.
    """
    used: set[str] = set()
    found = []
    for key in keys:
        parts = [safe_name(name) for name in key.split("/")]
        path = "/".join(parts)
        if len(path) > DEEPEST:
            path = f"{parts[0]}/{_short_hash(key)}"
        if path.casefold() in used:
            path += f"-{_short_hash(key)}"
        used.add(path.casefold())
        found.append(path)
    return found


def _short_hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
