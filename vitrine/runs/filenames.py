"""File names from arbitrary text: class names, layer names, keys."""

import hashlib
import re
from collections.abc import Iterable

MAX_NAME = 80  # characters of one part of a path
MAX_PATH = 240  # characters: far below any file system's limit
# names reserved by Windows and by the store, and names of folders that look like files
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.(png|webp|json|parts)")


def safe_name(name: str) -> str:
    """`name` as one part of a path, of letters, digits and `._=+-`; unchanged if it is one already.

    A changed name ends in a hash of the original, so that different names stay different.
    """
    clean = re.sub(r"[^A-Za-z0-9._=+-]+", "-", name).strip("-.")[:MAX_NAME].rstrip("-.")
    if clean and clean == name and not _RESERVED.fullmatch(name):
        return name
    return f"{clean}-{_short_hash(name)}" if clean else _short_hash(name)


def unique_paths(keys: Iterable[str]) -> list[str]:
    """A relative path, without suffix, for each path-like key ("layer3/unit-017"); all are different.

    They also differ on file systems that ignore case, and contain no "..".
    """
    paths: dict[str, str] = {}  # by what they are where case is ignored
    for key in keys:
        parts = [safe_name(name) for name in key.split("/")]
        path = "/".join(parts)
        if len(path) > MAX_PATH:
            path = f"{parts[0]}/{_short_hash(key)}"
        if path.casefold() in paths:
            path += f"-{_short_hash(key)}"
        paths[path.casefold()] = path
    return list(paths.values())


def _short_hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
