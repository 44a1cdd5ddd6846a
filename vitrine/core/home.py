"""Paths that begin at a home folder, and paths that are found from every folder."""

import os
import re
from pathlib import Path

_HOME = re.compile(r"~[\w.-]*/")


def expand_home(text: str) -> str:
    """A path that begins with `~/` or `~user/` with that folder in its place; other text as it is."""
    return os.path.expanduser(text) if _HOME.match(text) else text


def absolute_path(path: str | Path) -> Path:
    """A path as it is found from every folder, home folders expanded; `..` stays."""
    return Path(expand_home(str(path))).absolute()
