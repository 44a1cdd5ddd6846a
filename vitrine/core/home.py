"""Paths that begin at a home folder."""

import os
import re

_HOME = re.compile(r"~[\w.-]*/")


def expand_home(text: str) -> str:
    """A path that begins with `~/` or `~user/` with that folder in its place; other text as it is."""
    return os.path.expanduser(text) if _HOME.match(text) else text
